"""Whether the estimates at an end of a comparison are tilts: a fall to a checkpoint that is no minimum of the loss is no fall of complexity.

Away from a minimum λ̂ holds a term of the slope, which may be of any size (METHOD 3.1b). A few such cells are counted and told; where they are half of
an end point or more, what rests on it cannot be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rllc.analysis.findings import Curves
from rllc.analysis.verdicts import Condition
from rllc.core.outcome import Outcome

_MARKED = tuple(outcome.value for outcome in Outcome if outcome is not Outcome.OK and not outcome.refused)
_MOSTLY = 0.5


def doubt(curves: Curves | None, parts: Sequence[str] | None, *places: int) -> str:
    """The first of these checkpoints at which at least half of the estimates are tilted or drifting, in words; "" where there is none.

    Args:
        curves: what the comparison is of; None has no estimates.
        parts: which of its parts decide, all unless given; those that it lacks do not count.
        places: the checkpoints that it compares, as indices of the curves' steps.

    >>> llc = np.zeros((2, 2))
    >>> curves = Curves("train", ("0:0", "0:1"), np.array([0, 5]), llc, llc, llc, llc, np.array([["ok", "tilted"], ["ok", "ok"]]))
    >>> doubt(curves, None, 0, -1), doubt(curves, ("0:1",), 0, -1)
    ('1 of 2 estimates at step 5 on train are tilted or drifting', '')
    """
    if curves is None or not len(curves.steps):
        return ""
    rows = [i for i, part in enumerate(curves.parts) if parts is None or part in parts]
    for place in places:
        known = np.isfinite(curves.llc[rows, place])
        marked = int((np.isin(curves.outcome[rows, place], _MARKED) & known).sum())
        if marked and marked >= _MOSTLY * known.sum():
            return f"{marked} of {known.sum()} estimates at step {curves.steps[place]:,} on {curves.data} are tilted or drifting"
    return ""


def questioned(condition: Condition, *doubts: str) -> Condition:
    """The same; open where there is a doubt about the end points that decide it, which then says why."""
    told = next((said for said in doubts if said), "")
    return replace(condition, met=False, refused=False, told=told) if told and (condition.met or condition.refused) else condition
