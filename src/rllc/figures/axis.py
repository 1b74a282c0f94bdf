"""The axis of training steps: logarithmic, but with a place for step 0."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

TITLE = "training step (logarithmic, linear near 0)"


@dataclass(frozen=True)
class StepAxis:
    """Maps steps to positions log10(1 + step / scale), so that step 0 sits at 0.

    `scale` keeps the stretch before the first checkpoint from filling the axis: with checkpoints 0, 1, 2, … it is 1 (the usual log(t + 1)),
    with 0, 100, 200, … it is 20.

    >>> axis = StepAxis.of([0, 100, 3000])
    >>> axis.scale, [round(float(x), 2) for x in axis([0, 100, 3000])]
    (20.0, [0.0, 0.78, 2.18])
    """

    scale: float
    first: float
    last: float

    @classmethod
    def of(cls, *steps: ArrayLike) -> StepAxis:
        """The axis that holds all these steps. With no step at all it runs from 0 to 1."""
        every = np.concatenate([np.asarray(s, dtype=np.float64).ravel() for s in steps]) if steps else np.array([])
        every = every[np.isfinite(every)]
        positive = every[every > 0]
        if not positive.size:
            return cls(1.0, 0.0, 1.0)
        quarter = float(positive.min()) / 4
        scale = 1.0
        if quarter > 1:
            power = 10.0 ** np.floor(np.log10(quarter))
            scale = float(max(m for m in (1, 2, 5) if m * power <= quarter) * power)
        return cls(scale, float(every.min()), float(positive.max()))

    def __call__(self, steps: ArrayLike) -> NDArray[np.float64]:
        """Positions of steps on the axis."""
        return np.log10(1.0 + np.asarray(steps, dtype=np.float64) / self.scale)

    @property
    def range(self) -> tuple[float, float]:
        """First and last position."""
        low, high = float(self(self.first)), float(self(self.last))
        return (low, high) if high > low else (low - 0.5, low + 0.5)

    def ticks(self, closest: float = 0.09) -> tuple[list[float], list[str]]:
        """Positions and labels: the first and last step, then powers of ten and three times them, no two closer than this share of the axis."""
        low, high = self.range
        candidates = [self.first, self.last, *self._decades(1.0), *self._decades(3.0)]
        kept: list[float] = []
        for step in candidates:
            if all(abs(float(self(step)) - float(self(k))) >= closest * (high - low) for k in kept):
                kept.append(step)
        kept.sort()
        return [float(self(k)) for k in kept], [short(k) for k in kept]

    def minor(self) -> list[float]:
        """Positions of the unlabelled ticks, 1 to 9 times each power of ten."""
        return [float(self(s)) for s in sorted({s for m in range(1, 10) for s in self._decades(float(m))})]

    def _decades(self, multiple: float) -> Iterable[float]:
        powers = multiple * 10.0 ** np.arange(0, np.floor(np.log10(max(self.last, 1.0))) + 1)
        return [float(p) for p in powers if self.first < p < self.last and p >= self.scale]


def short(step: float) -> str:
    """A step as a tick label.

    >>> short(0), short(300), short(3000), short(12500), short(2_000_000)
    ('0', '300', '3k', '12.5k', '2M')
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if step >= size and step % (size / 10) == 0:
            return f"{step / size:g}{letter}"
    return f"{step:g}"
