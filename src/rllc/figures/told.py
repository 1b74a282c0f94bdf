"""What titles and captions are made of: the settings of a run in words, numbers with errors, lists."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rllc.analysis.findings import Floats, HeadTypes

TEST_LEVEL = 0.05  # of a title's tests, held for all that is tried in one figure together


@dataclass(frozen=True)
class Told:
    """What captions state of a run; 0, NaN and "" are what is not known, and left out."""

    model: str = ""  # in words, such as "2 layers of 8 heads, 3,355,016 parameters"
    sampler: str = ""
    step_size: float = math.nan
    localization: float = math.nan
    nbeta: float = math.nan
    chains: int = 0
    draws: int = 0  # of each chain
    burn_in: int = 0
    batch: int = 0  # contexts
    context: int = 0  # tokens
    mixture: str = ""  # name of the training mixture among the data
    contexts: Mapping[str, int] = field(default_factory=dict[str, int])  # held-out contexts of each kind of data, by measurement
    took: Mapping[str, str] = field(default_factory=dict[str, str])  # what else a measurement took, as a sentence, by measurement
    planted_share: float = 0.0  # of the training mixture

    def sampling(self, *data: str, beside: Sequence[str] = ()) -> str:
        """How λ̂ was estimated, as a sentence; then on what the measurements `beside` it were made, all on the training mixture.

        >>> Told(sampler="SGLD", step_size=1e-3, localization=200, nbeta=30, chains=4, draws=200, batch=32, context=1024).sampling("code")
        'λ̂ by SGLD, ε 0.001, γ 200, nβ 30, 4 chains × 200 draws after a burn-in of 0, batches of 32 × 1,024 tokens, on code.'
        """
        known = [f"λ̂ by {self.sampler}"] if self.sampler else ["λ̂"]
        known += [
            f"{name} {value:g}" for name, value in (("ε", self.step_size), ("γ", self.localization), ("nβ", self.nbeta)) if math.isfinite(value)
        ]
        known += [f"{self.chains} chains × {self.draws:,} draws after a burn-in of {self.burn_in}"] if self.chains and self.draws else []
        known += [f"batches of {self.batch} × {self.context:,} tokens"] if self.batch and self.context else []
        known += [f"on {listed(data)}"] if data else []
        others = (f" {name[0].upper()}{name[1:]} {self._where(name, (self.mixture,) if self.mixture else ())}" for name in beside)
        return f"{', '.join(known)}.{''.join(others)}{self.planted}"

    def measuring(self, measurement: str, *data: str) -> str:
        """On what a measurement was made, as a sentence, and what else it took.

        >>> Told(contexts={"paths": 64}, context=128).measuring("paths", "train")
        'Measured on 64 held-out contexts (8,192 tokens) of train.'
        """
        return f"Measured {self._where(measurement, data)}{self.planted}"

    def held_out(self, measurement: str) -> str:
        """How much held-out text of each kind of data a measurement saw."""
        number = self.contexts.get(measurement, 0)
        return f"{number:,} held-out contexts ({number * self.context:,} tokens)" if number and self.context else "held-out contexts"

    def _where(self, measurement: str, data: Sequence[str]) -> str:
        of = f" of {listed(data)}" if len(data) == 1 else f" each of {listed(data)}" if data else ""
        more = f" {self.took[measurement]}" if measurement in self.took else ""
        return f"on {self.held_out(measurement)}{of}.{more}"

    @property
    def planted(self) -> str:
        """The share of planted text, as a sentence with a space before it; empty where there is none."""
        return f" {self.planted_share:.0%} of the training text is planted." if self.planted_share > 0 else ""


def listed(names: Sequence[object], most: int = 6) -> str:
    """Names as a list in words.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed([]), listed("abcdefgh")
    ('a', 'a, b and c', 'none', 'a, b, c, d, e, f and 2 more')
    """
    words = [str(name) for name in names]
    if len(words) > most:
        return f"{', '.join(words[:most])} and {len(words) - most} more"
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0] if words else "none"


def number(value: float, digits: int = 2, signed: bool = False) -> str:
    """A number with a true minus sign.

    >>> number(-0.251), number(0.5, 1, signed=True), number(float("nan"))
    ('−0.25', '+0.5', 'unknown')
    """
    return format(value, f"{'+' if signed else ''},.{digits}f").replace("-", "−") if math.isfinite(value) else "unknown"


def with_error(value: float, error: float, digits: int = 2, signed: bool = False) -> str:
    """A number and its standard error, where there is one.

    >>> with_error(1.5, 0.25), with_error(1.5, float("nan"))
    ('1.50 ± 0.25', '1.50')
    """
    return f"{number(value, digits, signed)} ± {number(error, digits)}" if math.isfinite(error) else number(value, digits, signed)


def chance(p: float) -> str:
    """A p-value in words.

    >>> chance(0.0004), chance(0.031)
    ('p < 0.001', 'p = 0.031')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"


def step(value: float) -> str:
    """A training step in words.

    >>> step(5500.2)
    'step 5,500'
    """
    return f"step {round(value):,}"


def plural(count: int, name: str) -> str:
    """A count and its noun.

    >>> plural(1, "head"), plural(2, "head")
    ('1 head', '2 heads')
    """
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def type_of(types: HeadTypes | None) -> dict[str, str]:
    """The type of every head that has one."""
    return dict(zip(types.heads, types.types, strict=True)) if types is not None else {}


def last_column(values: Floats) -> int:
    """The last column [R, C] that has any number; -1 where there is none."""
    known = np.flatnonzero(np.isfinite(values).any(axis=tuple(range(values.ndim - 1))))
    return int(known[-1]) if known.size else -1
