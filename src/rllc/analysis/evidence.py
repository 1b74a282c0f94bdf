"""Everything that an analysis looks at: one value in, findings out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rllc.analysis.aligned import Aligned
from rllc.analysis.findings import Behaviour, Curves, Patterns
from rllc.analysis.measured import Measured


@dataclass(frozen=True)
class Sibling:
    """Another model of the same shape on the same text from another seed."""

    curves: Mapping[str, Curves]  # of whole heads, by data name
    behaviour: Behaviour


@dataclass(frozen=True)
class Evidence:
    """What a run has to show. Whatever was not measured is empty or None, and the findings say what could not be told for want of it.

    Args:
        curves: of whole heads, by data name (`curves_of(..., heads=True)`).
        full: of the full model and other parts, by data name (`curves_of(..., heads=False)`).
        behaviour: scores of heads and losses over checkpoints.
        reference: name of the training mixture, on which heads are clustered and stages are read, and with which other data are compared.
        patterns: attention patterns to carry along.
        planted_share: share of planted text in the mixture, 0..1.
        aligned: by name of data, what makes the errors of differences of cells smaller than those of independent ones.
        measured: what else was measured at the checkpoints.
        siblings: other seeds, by name.
        circuit: name of the data that are held against a model of fewer layers; empty where there are none.
        apart: names of data that are no kind of text: targets of a reference model, shuffled tokens. Not compared with the reference data.
        temperatures: the full model on the reference data at other inverse temperatures, by nβ.
        nbeta: nβ of all other curves.
        planted: kinds of planted text ("echo", "brackets", "markov") by name of the data that hold it.
    """

    curves: Mapping[str, Curves]
    full: Mapping[str, Curves]
    behaviour: Behaviour
    reference: str
    patterns: Patterns | None = None
    planted_share: float = 0.0
    aligned: Mapping[str, Aligned] = field(default_factory=dict[str, Aligned])
    measured: Measured = field(default_factory=Measured)
    siblings: Mapping[str, Sibling] = field(default_factory=dict[str, Sibling])
    circuit: str = ""
    apart: tuple[str, ...] = ()
    temperatures: Mapping[float, Curves] = field(default_factory=dict[float, Curves])
    nbeta: float = float("nan")
    planted: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    @property
    def texts(self) -> dict[str, Curves]:
        """Curves of heads on kinds of text alone."""
        return {name: curves for name, curves in self.curves.items() if name not in self.apart}

    @property
    def heads(self) -> Curves | None:
        """Curves of the heads on the reference data."""
        return self.curves.get(self.reference)
