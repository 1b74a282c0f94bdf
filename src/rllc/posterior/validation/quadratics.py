"""Quadratic losses: the truth is the stationary λ̂ of the discrete sampler (METHOD 3.1, `exact`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rllc.posterior import exact
from rllc.posterior.quadratic import Quadratic
from rllc.posterior.settings import SamplerName, SamplerSettings
from rllc.posterior.traces import Floats
from rllc.posterior.validation.cases import SAMPLERS, Case, Trial, settings_for

SPECTRUM = (0.0, 2.0, 10.0, 30.0, 60.0)  # around γ/nβ = 6.7, where a direction counts half
CONDITION = tuple(float(h) for h in np.geomspace(1e-2, 1e2, 20))
TILT = (0.4, 0.6, 1.0, 2.0)
TILTED = (0.0, 2.0, 10.0, 30.0)
HEAT = 60.0  # standard deviation of nβ ĝ_i, which nearly doubles variances
SOURCE = "stationary law of the discrete sampler"
RELAXATION = "expectation of the draws"
STEIN = "1, and 1/(1 - εγ/4) of SGLD's steps"
RELAXING: tuple[SamplerName, ...] = ("sgld", "leimkuhler-matthews")  # whose relaxation has a closed form
FIRST_BATCH = 0  # the first minibatch, which freezes RMSProp's second moment


def cases() -> tuple[Case, ...]:
    """All of them."""
    on_batches: list[SamplerName] = [s for s in SAMPLERS if s != "mala"]
    return (
        Case("quadratic", "quadratic", "3.1", SOURCE, [_plain(s) for s in SAMPLERS], quick=("sgld", "rmsprop-sgld")),
        Case("quadratic, from w* on", "relaxation", "3.1", RELAXATION, [_relaxing(s) for s in RELAXING], quick=RELAXING, stationary=False),
        Case(
            "Stein ratio of flat directions",
            "Stein identity",
            "3.2",
            STEIN,
            [_flat_stein(s) for s in SAMPLERS],
            quick=("sgld",),
            quantity="stein_ratio",
        ),
        Case("quadratic, two of three tensors", "quadratic", "3.1", SOURCE, [_restricted(s) for s in SAMPLERS], quick=("leimkuhler-matthews",)),
        Case("quadratic, tilted", "quadratic", "3.1b", SOURCE, [_tilted(s) for s in SAMPLERS], quick=("sgnht",)),
        Case("quadratic, condition 1e4", "quadratic", "3.1", SOURCE, [_conditioned(s) for s in on_batches]),
        Case("quadratic, minibatch noise", "quadratic", "2", SOURCE, [_noisy(s) for s in on_batches]),
        Case("quadratic, noise feeds RMSProp's scale", "quadratic", "2", "the same, with √V about its mean", [_fed()]),
        Case("tensor that the loss leaves out", "zero", "3.1", "nothing depends on it", [_idle(s) for s in SAMPLERS], 0.0, SAMPLERS),
    )


def _paper(sampler: SamplerName, *, step: float = 1e-3, draws: int = 600, burn_in: int = 100) -> SamplerSettings:
    """METHOD 2's settings, longer. RMSProp's second moment is frozen, as only then is its law known."""
    if sampler == "mala":
        return settings_for(sampler, 4e-4, 200.0, 30.0, chains=30, draws=4000, burn_in=200)
    burn_in = 300 if sampler == "sgnht" else burn_in
    return settings_for(sampler, step, 200.0, 30.0, chains=4, draws=draws, burn_in=burn_in, decay=1.0, stabilizer=0.5)


def _copies(values: Sequence[float], sampler: SamplerName, number: int = 400) -> Tensor:
    """One part that repeats the values; few times for MALA, whose acceptance falls with the dimension."""
    return torch.tensor(values).repeat(4 if sampler == "mala" else number)[None]


def _trial(settings: SamplerSettings, build: Callable[[], Quadratic], part: Sequence[str] = ("w",)) -> Trial:
    def truth() -> float:
        toy = build()
        curvature = np.concatenate([_flat(toy.curvature[name]) for name in part])
        gradient = np.concatenate([_flat(toy.gradient.get(name, torch.zeros_like(toy.curvature[name]))) for name in part])
        return float(exact.llc(curvature, settings, gradient).sum())

    return Trial(settings, lambda: _restrict(build(), part), truth)


def _flat(tensor: Tensor) -> Floats:
    return tensor.flatten().double().numpy()


def _restrict(toy: Quadratic, part: Sequence[str]) -> Quadratic:
    """The same loss, with only these tensors to sample: `origin` is what the chains take."""
    return replace(toy, origin={name: toy.origin[name] for name in part})


def _plain(sampler: SamplerName) -> Trial:
    h = _copies(SPECTRUM, sampler)
    return _trial(_paper(sampler), lambda: Quadratic({"w": torch.full_like(h, 0.1)}, {"w": h}, constant=1.0))


def _relaxing(sampler: SamplerName) -> Trial:
    """METHOD 2's settings at a small step, without burn-in: a test of what is kept and what is not."""
    h = _copies(SPECTRUM, sampler, 1000)
    settings = settings_for(sampler, 2e-4, 200.0, 30.0, chains=8, draws=200, burn_in=0)
    return Trial(settings, lambda: Quadratic({"w": torch.zeros_like(h)}, {"w": h}), lambda: float(exact.relaxing_llc(_flat(h), settings).sum()))


def _flat_stein(sampler: SamplerName) -> Trial:
    """Directions that the loss does not see, under the prior alone."""
    h, settings = torch.zeros(1, 20 if sampler == "mala" else 2000), _paper(sampler)
    if sampler == "mala":
        settings = replace(settings, step_size=2e-3)
    step = settings.largest_step if sampler in ("sgld", "rmsprop-sgld") else 0.0
    return Trial(settings, lambda: Quadratic({"w": torch.zeros_like(h)}, {"w": h}), lambda: 1 / (1 - step * settings.localization / 4))


def _restricted(sampler: SamplerName) -> Trial:
    curvature = {"a": _copies((5.0, 30.0), sampler).view(1, 2, -1), "held": torch.full((1, 50), 40.0), "b": _copies((1.0, 60.0, 10.0), sampler)}
    return _trial(_paper(sampler), lambda: Quadratic({name: torch.ones_like(h) for name, h in curvature.items()}, curvature), ("a", "b"))


def _tilted(sampler: SamplerName) -> Trial:
    h, g = _copies(TILTED, sampler), _copies(TILT, sampler)
    return _trial(_paper(sampler, draws=800), lambda: Quadratic({"w": torch.zeros_like(h)}, {"w": h}, {"w": g}))


def _conditioned(sampler: SamplerName) -> Trial:
    """γ is twice the flattest direction's nβh, and the step more than half of what is stable in the steepest."""
    h = _copies(CONDITION, sampler, 100)
    settings = settings_for(sampler, 2.4 / 1e6, 200.0, 1e4, chains=4, draws=4500, burn_in=5500, decay=1.0)
    return _trial(settings, lambda: Quadratic({"w": torch.zeros_like(h)}, {"w": h}))


def _noisy(sampler: SamplerName) -> Trial:
    """Independent noise in every coordinate. What freezes RMSProp's second moment is then the first minibatch's gradient, known to the last bit."""
    h = _copies(SPECTRUM, sampler, 600)
    step = 2e-4 if sampler == "sgnht" else 1e-3  # heat beyond the thermostat's reach has no stationary law
    settings = settings_for(sampler, step, 200.0, 30.0, chains=4, draws=6000 if sampler == "sgnht" else 2500, burn_in=300, decay=1.0, stabilizer=1.0)

    def build() -> Quadratic:
        return Quadratic({"w": torch.zeros_like(h)}, {"w": h}, gradient_noise={"w": torch.full_like(h, HEAT / 30.0)})

    def truth() -> float:
        frozen = _flat(build().prepare(FIRST_BATCH).gradient["w"]) if sampler == "rmsprop-sgld" else 0.0
        return float(_scaled_llc(h, settings, frozen, HEAT**2).sum())

    return Trial(settings, build, truth)


def _idle(sampler: SamplerName) -> Trial:
    """Losses of minibatches differ, the differences that make λ̂ do not (METHOD 2, paired estimate)."""
    curvature = {"idle": torch.zeros(1, 30), "held": torch.ones(1, 30)}
    settings = settings_for(sampler, 1e-3, 200.0, 30.0, chains=4, draws=200, burn_in=50)

    def build() -> Quadratic:
        toy = Quadratic({name: torch.ones_like(h) for name, h in curvature.items()}, curvature, offset_noise=0.3, constant=1.7)
        return _restrict(toy, ["idle"])

    return Trial(settings, build, lambda: 0.0)


def _fed() -> Trial:
    """RMSProp-SGLD as it is used, with α 0.99: minibatch noise ten times the mean gradient keeps V near its variance s².

    With `q = (1-α)/(1+α)`, V fluctuates by `Var V = 2q s⁴` and goes along with the present gradient by `Cov(g², V) = 2(1-α) s⁴`, so to leading order
    the heat is `E[G²g²]/E[G] = (1 - 2(1-α) + 2q)/(1 + ¾q)/s`, 1.4 % less than with √V = s. And noise that goes uphill makes the gradient, hence V,
    larger than noise that goes downhill: `E[G v ζ] = -(1-α) E[G] h v²/s` takes `(1-α) nβh` off the pull A, as much as 0.9 % of it.
    """
    h = _copies((10.0, 30.0, 60.0), "rmsprop-sgld", 2500)  # many coordinates rather than chains, which share the minibatches
    noise, decay = 20.0, 0.99
    q = (1 - decay) / (1 + decay)
    effective = noise * (1 + 0.75 * q) / (1 - 2 * (1 - decay) + 2 * q)
    settings = settings_for("rmsprop-sgld", 6e-6 * noise / 0.1, 200.0, 30.0, chains=2, draws=6000, burn_in=1500, decay=decay)

    def build() -> Quadratic:
        return Quadratic({"w": torch.zeros_like(h)}, {"w": h}, gradient_noise={"w": torch.full_like(h, noise)})

    def truth() -> float:
        pull = settings.nbeta * _flat(h)
        lighter = 1 - (1 - decay) * pull / (pull + settings.precision)
        return float((_scaled_llc(h, replace(settings, rmsprop_decay=1.0), effective, (30.0 * noise) ** 2) / lighter).sum())

    return Trial(settings, build, truth)


def _scaled_llc(h: Tensor, settings: SamplerSettings, root: Floats | float, heat: float) -> Floats:
    """`½ nβ h E v²` of each coordinate with minibatch noise, and with this √V where RMSProp-SGLD is the sampler."""
    curvature = _flat(h)
    return settings.nbeta / 2 * curvature * exact.variance(curvature, settings, heat, root)
