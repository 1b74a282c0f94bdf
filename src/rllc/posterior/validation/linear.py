"""Linear networks (METHOD 3.4 to 3.7): reduced-rank regression and deeper ones at smooth points, read-outs, rescaling, exact zeros.

The truth is the coefficient itself, ½ rank J, not what a step size or a temperature makes of it. So nβ is large, γ a thousandth of the
flattest curvature's pull, and SGLD's step small. λ̂ needs the stiff directions alone: burn-in is their relaxation, and flat ones keep spreading,
which the outcome `drifting` says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import numpy as np

from rllc.core import seeds
from rllc.posterior import exact
from rllc.posterior.settings import SamplerName, SamplerSettings
from rllc.posterior.toys.deep_linear import DeepLinear
from rllc.posterior.truths.points import LinearPoint, cut_threads, linear_point, rescaled, stratum_threads
from rllc.posterior.truths.singular import deep_linear, smooth_llc
from rllc.posterior.validation.cases import EXACT, LINEAR, SAMPLERS, Case, Derived, Trial, settings_for

KIND = "linear network"
SPREAD = 0.15  # of the gains: curvatures stay within a factor of ten or so
NBETA = 1e7


@dataclass(frozen=True)
class Shape:
    """Widths from the input on, the teacher's rank, and the zero: layer `cut` of that rank, or the stratum (a, b) of two layers."""

    widths: tuple[int, ...]
    rank: int
    cut: int = 1
    stratum: tuple[int, int] | None = None

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.widths))} rank {self.rank}" + (" minimal" if self.stratum else "")

    def point(self) -> LinearPoint:
        """Weights at the zero, the same every time."""
        if self.stratum:
            inputs, hidden, outputs = self.widths
            threads = stratum_threads(inputs, hidden, outputs, self.rank, *self.stratum)
        else:
            threads = cut_threads(self.widths, self.rank, self.cut)
        return linear_point(self.widths, threads, seeds.generator(0, "validate", str(self)), SPREAD)


# Depth 2 to 5, 18 to 99,200 parameters. "minimal": the two-layer stratum on which the local value is Aoyagi's.
SHAPES = (
    Shape((3, 3, 3), 0, stratum=(1, 2)),
    Shape((6, 6, 6), 0, stratum=(3, 3)),
    Shape((8, 10, 8), 2, stratum=(6, 6)),
    Shape((30, 20, 40), 8, stratum=(9, 19)),
    Shape((20, 25, 20), 5),
    Shape((100, 60, 80), 30),
    Shape((300, 160, 320), 40, cut=2),
    Shape((4, 3, 2, 3), 1, cut=2),
    Shape((10, 8, 12, 6), 3),
    Shape((40, 50, 60, 40), 10, cut=2),
    Shape((60, 30, 80, 50), 30),
    Shape((16, 16, 16, 16, 16), 4, cut=2),
    Shape((24, 40, 32, 20, 28), 10, cut=3),
    Shape((12, 12, 12, 12, 12, 12), 3, cut=3),
    Shape((20, 30, 24, 36, 28, 18), 8, cut=2),
    Shape((64, 64, 64, 64, 64, 64), 16, cut=3),
)
MALA_AT_MOST = 50  # parameters
QUICK: dict[str, tuple[SamplerName, ...]] = {
    "20-25-20 rank 5": ("leimkuhler-matthews", "sgnht"),
    "16-16-16-16-16 rank 4": ("leimkuhler-matthews",),
    "6-6-6 rank 0 minimal": ("sgld",),
}
QUICK_TWIN: tuple[SamplerName, ...] = ("leimkuhler-matthews",)
TEMPERATURES = (4e4, 1.6e5)
RESCALED = SHAPES[4]
WARM = (SHAPES[4], SHAPES[13])  # where the temperature is raised until it shows


def cases() -> tuple[Case, ...]:
    """All of them."""
    return (
        _readout(),
        _zero(),
        *(_network(shape) for shape in SHAPES),
        _twin(),
        *(_copy(factor) for factor in (0.5, 2.0)),
        *(_warm(shape, nbeta) for shape in WARM for nbeta in TEMPERATURES),
    )


def derived() -> tuple[Derived, ...]:
    """Rescaled copies against each other, and the limit of low temperature from two."""
    names = [_copy_name(factor) for factor in (0.5, 2.0)]
    limits = [
        Derived(
            f"{shape}, nβ → ∞",
            "finite temperature",
            "3.5",
            "½ rank J",
            [_warm_name(shape, nbeta) for nbeta in TEMPERATURES],
            (-1 / 3, 4 / 3),
            None,
            None,
        )
        for shape in WARM
    ]
    return (Derived("rescaled copies against each other", "rescaling", "3.7", "the other copy", names, (0.0, 1.0), (1.0, 0.0), LINEAR), *limits)


def _network(shape: Shape) -> Case:
    point = cache(shape.point)
    parameters = sum(a * b for a, b in pairwise(shape.widths))
    source = "Aoyagi, at a stratum that attains it" if shape.stratum else "½ rank J"

    def truth() -> float:
        return deep_linear(shape.widths, shape.rank).llc if shape.stratum else smooth_llc(point().weights)

    samplers: list[SamplerName] = [s for s in SAMPLERS if s != "mala" or parameters <= MALA_AT_MOST]
    trials = [Trial(network_settings(s, point(), NBETA), lambda: DeepLinear.at([point()]), truth) for s in samplers]
    return Case(str(shape), KIND, "3.4" if len(shape.widths) == 3 else "3.5", source, trials, LINEAR, QUICK.get(str(shape), ()))


def network_settings(sampler: SamplerName, point: LinearPoint, nbeta: float) -> SamplerSettings:
    """By the curvatures at the point, known in closed form, and by how many directions share the noise of the loss.

    Of r directions the loss has a relative standard deviation √(2/r) a draw, and draws forget each other within the relaxation of the slower ones.
    """
    h = point.curvatures
    gamma = 1e-3 * nbeta * float(h.min())
    steepest = nbeta * float(h.max()) + gamma
    share = {"sgld": 0.06, "rmsprop-sgld": 0.06, "leimkuhler-matthews": 0.8, "sgnht": 0.12, "mala": 0.8}[sampler]  # εA of the steepest
    slowest = steepest / (share * nbeta * float(h.min()))  # steps in which the flattest of the stiff directions relaxes
    memory = 40.0 if sampler == "sgnht" else 0.5 * slowest
    needed = 2 / len(h) * memory / 0.004**2  # chain-steps for a standard error of 0.4 %
    draws = int(min(max(400.0, 8 * memory, math.sqrt(needed) * 8), 3000.0))
    chains = int(min(max(4.0, needed / draws), 128.0))
    burn_in = math.ceil(400 if sampler == "sgnht" else 3.5 * slowest)
    return settings_for(sampler, share / steepest, gamma, nbeta, chains=chains, draws=draws, burn_in=burn_in)


def _readout() -> Case:
    """One factor free, the others held: a quadratic (METHOD 3.6), its flat directions in the truth too."""

    def trial(sampler: SamplerName) -> Trial:
        small, nbeta = sampler == "mala", 1e4
        layer = 1 if small else 3
        point = cache((Shape((4, 3, 3, 3), 2) if small else Shape((12, 10, 14, 9), 6)).point)
        stiff = point().curvatures_of([layer])
        curvature = np.concatenate([stiff, np.zeros(point().weights[layer - 1].size - len(stiff))])
        gamma = 0.3 * nbeta * float(stiff.mean())
        step = {"mala": 0.6, "sgnht": 0.3}.get(sampler, 0.4) / (nbeta * float(stiff.max()) + gamma)
        settings = settings_for(sampler, step, gamma, nbeta, chains=32, draws=3000 if small else 2000, burn_in=200, decay=1.0)
        return Trial(settings, lambda: DeepLinear.at([point()], free=[f"W{layer}"]), lambda: float(exact.llc(curvature, settings).sum()))

    return Case("linear read-out", "read-out", "3.6", "stationary law of the discrete sampler", [trial(s) for s in SAMPLERS], EXACT, ("sgld",))


def _zero() -> Case:
    """The layer below a read-out that is zero and held: nothing it does is seen, as with a head whose W_O is zero (METHOD 3.6)."""
    point = cache(lambda: linear_point((6, 8, 5), stratum_threads(6, 8, 5, 0, 6, 0), seeds.generator(0, "validate", "zero"), SPREAD))

    def trial(sampler: SamplerName) -> Trial:
        settings = settings_for(sampler, 1e-3, 200.0, 30.0, chains=4, draws=200, burn_in=50)
        return Trial(settings, lambda: DeepLinear.at([point()], free=["W1"]), lambda: 0.0)

    return Case("below a read-out of zero", "zero", "3.6", "nothing depends on it", [trial(s) for s in SAMPLERS], 0.0, SAMPLERS)


def _twin() -> Case:
    """`½ tr[nβH(nβH + γ)⁻¹]` from a Hessian by differences, against the curvatures that the point knows."""
    point = cache(Shape((5, 4, 6, 3), 2).point)
    settings = settings_for("leimkuhler-matthews", 1e-5, 3000.0, 1e4, chains=2, draws=20, burn_in=0)
    trial = Trial(settings, lambda: DeepLinear.at([point()]), lambda: exact.curvature_twin(point().curvatures, settings))
    return Case("curvature twin of 5-4-6-3 rank 2", "curvature twin", "3.1c", "spectrum at the point", [trial], 1e-3, QUICK_TWIN, "twin")


def _copy_name(factor: float) -> str:
    return f"{RESCALED}, layer 1 times {factor:g}"


def _copy(factor: float) -> Case:
    """The same function in other units of its hidden layer."""
    point = cache(lambda: rescaled(RESCALED.point(), 1, factor))
    trials = [
        Trial(network_settings(s, point(), NBETA), lambda: DeepLinear.at([point()]), lambda: smooth_llc(point().weights))
        for s in SAMPLERS
        if s != "mala"
    ]
    return Case(_copy_name(factor), "rescaling", "3.7", "½ rank J", trials, LINEAR, ("sgnht",) if factor == 2 else ())


def _warm_name(shape: Shape, nbeta: float) -> str:
    return f"{shape}, nβ {nbeta:g}"


def _warm(shape: Shape, nbeta: float) -> Case:
    """At high temperature the weights leave the neighbourhood in which the loss is what its Jacobian says: told, not judged."""
    point = cache(shape.point)
    settings = replace(network_settings("leimkuhler-matthews", point(), nbeta), chains=16, draws=3000)
    trials = [Trial(settings, lambda: DeepLinear.at([point()]), lambda: smooth_llc(point().weights))]
    return Case(_warm_name(shape, nbeta), "finite temperature", "3.5", "½ rank J", trials, None)
