"""The one vocabulary of what became of a cell (DESIGN, The engine)."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What became of a cell. The text of each member says what to do.

    >>> Outcome.TILTED.refused, Outcome.NONFINITE.refused
    (False, True)
    """

    OK = "ok"
    NONFINITE = "nonfinite"
    UNSTABLE = "unstable"
    DRIFTING = "drifting"
    TILTED = "tilted"

    @property
    def refused(self) -> bool:
        """True where no number may come out of the cell: one failed chain refuses all of it."""
        return self in (Outcome.NONFINITE, Outcome.UNSTABLE)

    @property
    def text(self) -> str:
        """What happened and what to do, as sentences."""
        return _TEXT[self]


_TEXT = {
    Outcome.OK: "No diagnostic objects to this estimate.",
    Outcome.NONFINITE: "A chain reached a loss or weight that is not a finite number, so the cell has no estimate. Lower the step size.",
    Outcome.UNSTABLE: "A chain left the neighbourhood that the localization allows, so the cell has no estimate. Lower the step size.",
    Outcome.DRIFTING: "The chains had not settled: the loss differences or the weights were still moving at the end. "
    "Raise burn_in or draws before reading this number as stationary.",
    Outcome.TILTED: "The checkpoint is not at a minimum of this loss, so the estimate holds a term of the gradient beside the complexity. "
    "Read it with the tilt column.",
}
