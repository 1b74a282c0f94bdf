"""What a case is, and the list of all of them (METHOD 3). Cases, settings and tolerances are fixed here before anything is sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rllc.posterior.protocol import Originated
from rllc.posterior.settings import SamplerName, SamplerSettings

EXACT = 0.015  # of quadratics and monomials, whose truth holds the discretisation or whose step is small
LINEAR = 0.03  # of linear networks at smooth points, whose truth is the coefficient itself
Quantity = Literal["llc", "stein_ratio", "gradient_ratio", "twin"]  # what is compared: λ̂, or a diagnostic with an exact value
SAMPLERS: tuple[SamplerName, ...] = ("sgld", "leimkuhler-matthews", "rmsprop-sgld", "sgnht", "mala")


@dataclass(frozen=True)
class Trial:
    """One sampler on one case."""

    settings: SamplerSettings
    build: Callable[[], Originated[Any]]
    truth: Callable[[], float]  # under these settings


@dataclass(frozen=True)
class Case:
    """A loss of which something is known exactly, and how each sampler meets it."""

    name: str
    kind: str
    section: str  # of METHOD
    source: str  # where the truth is from
    trials: Sequence[Trial]
    tolerance: float | None = EXACT  # relative, or absolute where the truth is 0; None where the row is only told, not judged
    quick: Sequence[SamplerName] = ()  # the samplers that run it in the quick list too
    quantity: Quantity = "llc"
    stationary: bool = True  # where the draws are not, the error is that of independent chains alone: batch means would count the drift

    def trial(self, sampler: SamplerName) -> Trial | None:
        """The trial of a sampler, None where it does not take part."""
        return next((trial for trial in self.trials if trial.settings.sampler == sampler), None)


@dataclass(frozen=True)
class Derived:
    """A row made of other rows of the same sampler, without sampling: `Σ c_i λ̂_i` against `Σ e_i λ̂_i`, or against the first one's truth."""

    name: str
    kind: str
    section: str
    source: str
    needs: Sequence[str]  # names of cases
    estimate: Sequence[float]  # c
    against: Sequence[float] | None  # e
    tolerance: float | None


def settings_for(
    sampler: SamplerName,
    step: float,
    localization: float,
    nbeta: float,
    *,
    chains: int,
    draws: int,
    burn_in: int,
    box: float = 0.0,
    decay: float = 0.99,
    stabilizer: float = 0.1,
) -> SamplerSettings:
    """Settings in which `step` means the same to all samplers: RMSProp-SGLD's is multiplied by its stabilizer, by which it divides."""
    return SamplerSettings(
        sampler,
        step * stabilizer if sampler == "rmsprop-sgld" else step,
        localization,
        nbeta,
        chains,
        draws,
        burn_in,
        bounding_box=box,
        rmsprop_decay=decay,
        rmsprop_stabilizer=stabilizer,
    )


def all_cases() -> tuple[Case, ...]:
    """Every case, in the order of METHOD 3."""
    from rllc.posterior.validation import linear, quadratics, singular

    return (*quadratics.cases(), *singular.cases(), *linear.cases())


def all_derived() -> tuple[Derived, ...]:
    """Every derived row."""
    from rllc.posterior.validation import linear

    return linear.derived()
