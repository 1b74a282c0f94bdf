"""What the traces say of the potential: equilibrium under the prior, stiffness, distance, tilt, acceptance (METHOD 2 and 3.2)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from rllc.posterior.estimate import standard_error
from rllc.posterior.settings import SamplerSettings
from rllc.posterior.traces import Floats, OriginGradient, Traces

if TYPE_CHECKING:
    from jaxtyping import Float

_CARRIED_AT_LEAST = 5.0  # see `stiffness`


def stein(traces: Traces) -> tuple[Float[Floats, " P"], Float[Floats, " P"], Float[Floats, " P"]]:
    """`E[(w-w*)·∇U]/d`, what stationarity of the discrete chain makes of it, and the standard error of their difference (METHOD 3.2).

    Each sampler says in its module what its discretisation adds to d. A ratio below the expectation means that ‖w-w*‖ still grows.
    Between the walls of a box the identity has boundary terms: NaN.
    """
    if traces.settings.bounding_box:
        nothing = np.full(traces.parts, np.nan)
        return nothing, nothing, nothing
    ratio, added = traces.force_dot[..., traces.kept] / traces.dimension, traces.stein[..., traces.kept] / traces.dimension
    stderr, _ = standard_error(ratio - added)
    return ratio.mean(axis=(-2, -1)), 1 + added.mean(axis=(-2, -1)), stderr


def effective_step(traces: Traces) -> Float[Floats, "P chains"]:
    """ε, or the mean step that preconditioning makes of it, weighted by the squares of the forces."""
    s = traces.settings
    if s.sampler != "rmsprop-sgld":
        return np.full(traces.losses.shape[:2], s.step_size)
    dot, distance, gradient = (getattr(traces, name)[..., traces.kept].mean(axis=-1) for name in ("gradient_dot", "sq_distance", "sq_gradient"))
    force = s.nbeta**2 * gradient + 2 * s.nbeta * s.precision * dot + s.precision**2 * distance
    added = 4 * traces.stein[..., traces.kept].mean(axis=-1)
    return np.minimum(np.divide(added, force, out=np.full_like(force, s.largest_step), where=force > 0), s.largest_step)


def sq_batch_norm(traces: Traces, origin: OriginGradient | None) -> Float[Floats, " P"]:
    """‖ĝ(w*)‖² of a minibatch, noise included: the mean over separate minibatches, or the first evaluation's where there are none.

    Under a control variate the first evaluation's is free of noise, as the others are, and is the one to compare with.
    """
    return traces.sq_gradient[:, 0, 0] if origin is None or traces.settings.control_variate else origin.sq_batch_norm


def stiffness(traces: Traces, origin: OriginGradient | None) -> Float[Floats, "P chains"]:
    """εA/4 of the directions that carry the loss: a lower bound of the largest, from traces alone.

    On a quadratic `E‖ĝ‖²`, less its minibatch noise, over `E[(w-w*)·ĝ]` is the mean of h weighted by `h E[v²]`, what each
    direction adds to the loss. Beyond `εA = 4` a direction grows by `(1-εA/2)²` a step and takes all the weight; where the loss
    saturates it bounces between ±v with `(ε/4)(nβ ĝ/v + γ) = 1`, and the ratio reads 1 again. In both cases the weights may be
    finite and, one direction among thousands, hardly farther away: ‖w-w*‖² alone would not tell.

    Stable at r = εA/4, one direction carries `nβ (w-w*)·ĝ ≈ 1/(1-r)`, which is 5 at 0.8. Where a chain carries less the ratio is
    noise over noise and not read; it gets that of the prior, `εγ/4`. A bounce so small that other directions carry most of the
    loss only raises the ratio: between 0.25 and the limit, mistrust the number and halve ε. MALA cannot become unstable.
    """
    s = traces.settings
    if s.sampler == "mala":
        return np.zeros(traces.losses.shape[:2])
    carried = s.nbeta * traces.gradient_dot[..., traces.kept].mean(axis=-1)
    excess = traces.sq_gradient[..., traces.kept].mean(axis=-1) - sq_batch_norm(traces, origin)[:, None]
    readable = carried >= _CARRIED_AT_LEAST
    curvature = s.nbeta**2 * np.maximum(excess, 0) / np.where(readable, carried, 1)
    return effective_step(traces) / 4 * (s.precision + np.where(readable, curvature, 0))


def generous(dimension: int) -> float:
    """Dimension d raised by five standard deviations of χ²_d, which matters in few dimensions only."""
    return dimension + 5 * math.sqrt(2 * dimension)


def allowed_sq_distance(traces: Traces, origin: OriginGradient | None) -> Float[Floats, " P"]:
    """‖w-w*‖² that localization and tilt account for, or the box.

    A coordinate's stationary variance `1/(A(1-εA/4))` is largest in the flat directions, A = γ, for all `εA < 4 - εγ`. A gradient
    shifts the mean by `nβ g/γ` at most, ‖g‖² raised by two errors, and a weight decay by `κ w*/(γ + κ)`. Minibatch noise, which multiplies
    the variance by `1 + εσ²/4`, is not accounted for: where it heats the chain beyond the limit, a lower step size is the remedy too.
    """
    s = traces.settings
    walls = np.full(traces.parts, traces.dimension * s.bounding_box**2 if s.bounding_box else np.inf)
    if not s.precision or (s.weight_decay and origin is None):  # then nothing is known of w* itself
        return walls
    discretised = 1 - s.largest_step * s.precision / 4 if s.sampler in ("sgld", "rmsprop-sgld", "leimkuhler-matthews") else 1.0
    spread = generous(traces.dimension) / (s.precision * discretised)
    raw = sq_batch_norm(traces, origin) if origin is None else origin.sq_norm + 2 * origin.sq_norm_stderr
    pulled = s.weight_decay * np.sqrt(origin.sq_center) if origin is not None else 0.0
    reach = math.sqrt(spread) + (s.nbeta * np.sqrt(np.maximum(raw, 0)) + pulled) / s.precision
    return np.minimum(reach**2, walls)


def step_limit(curvature: Float[Floats, " P"], settings: SamplerSettings) -> Float[Floats, " P"]:
    """`4/(nβh + γ)`, from which a direction of curvature h is unstable; infinite where it is not held at all, which no step size mends."""
    pull = settings.nbeta * curvature + settings.precision
    return np.where(pull > 0, 4 / np.where(pull > 0, pull, 1), np.where(np.isnan(pull), np.nan, np.inf))


def tilt(traces: Traces, origin: OriginGradient | None) -> tuple[Float[Floats, " P"], Float[Floats, " P"]]:
    """At most how far the gradient at w* lowers λ̂, and its standard error: `(nβ)²‖∇l(w*)‖²/γ`.

    A coordinate's term is `(nβ)² g² (½nβh + γ)/A²` with A = nβh + γ (METHOD 3.1b). For h ≥ 0, `½nβh + γ ≤ A`, so the factor is at
    most `1/A ≤ 1/γ`, with equality where the loss is flat but for its slope. NaN where nothing is known of the gradient, or no prior bounds it.
    """
    s = traces.settings
    if origin is None or not s.precision:
        nothing = np.full(traces.parts, np.nan)
        return nothing, nothing
    factor = s.nbeta**2 / s.precision
    return factor * origin.sq_norm, factor * origin.sq_norm_stderr


def acceptance(traces: Traces) -> Float[Floats, " P"]:
    """Mean probability with which Metropolis would accept a step, or does (MALA); NaN for samplers without such a ratio.

    Between minibatches the ratio takes paired losses and each end's own gradient, so batch noise lowers it. It falls with the dimension at
    fixed ε (METHOD 2): along a chain of SGLD, whose law is wider than the target, towards a half; along MALA's own, to nothing. No verdict
    hangs on it.
    """
    ratios = traces.log_acceptance[..., traces.kept]
    return np.minimum(1, np.exp(np.minimum(ratios, 0))).mean(axis=(-2, -1))


def step_norms(traces: Traces) -> dict[str, Float[Floats, " P"]]:
    """Root mean square length of each term of SGLD's step: `(ε/2)nβ‖ĝ‖`, `(ε/2)γ‖w-w*‖`, `√(εd)`."""
    s = traces.settings

    def root(trace: Floats) -> Floats:
        return np.sqrt(trace[..., traces.kept].mean(axis=(-2, -1)))

    return {
        "gradient": s.step_size / 2 * s.nbeta * root(traces.sq_gradient),
        "prior": s.step_size / 2 * s.localization * root(traces.sq_distance),
        "noise": np.full(traces.parts, math.sqrt(s.step_size * traces.dimension)),
    }
