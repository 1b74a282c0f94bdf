"""What the chains left behind, as numpy records. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rllc.posterior.settings import SamplerSettings

if TYPE_CHECKING:
    from jaxtyping import Float

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Traces:
    """Every evaluation of every chain, t = 0 (w* itself) to t = burn_in + draws, before any is left out.

    Axes: P parts, chains, S = burn_in + draws + 1 evaluations. Evaluation t of all parts and chains is on the same minibatch,
    so differences between cells may be taken draw by draw. ĝ is the minibatch gradient of l, without nβ.
    """

    settings: SamplerSettings
    dimension: int  # d, sampled coordinates of one part
    losses: Float[Floats, "P chains S"]  # l_B(w_t), nats per token, before step t
    baseline: Float[Floats, "P S"]  # l_B(w*) on the same minibatch
    gradient_dot: Float[Floats, "P chains S"]  # (w_t - w*)·ĝ(w_t)
    sq_distance: Float[Floats, "P chains S"]  # ‖w_t - w*‖²
    sq_gradient: Float[Floats, "P chains S"]  # ‖ĝ(w_t)‖²
    noise_dot: Float[Floats, "P chains S"]  # ξ_t·ĝ(w_t), ξ_t the last normal in w_t; its mean holds the trace of the Hessian

    def __post_init__(self) -> None:
        parts, chains, evaluations = self.losses.shape
        shapes = {self.losses.shape, self.gradient_dot.shape, self.sq_distance.shape, self.sq_gradient.shape, self.noise_dot.shape}
        if len(shapes) != 1 or self.baseline.shape != (parts, evaluations):
            raise ValueError(f"Traces differ in shape: {sorted(shapes)} and baseline {self.baseline.shape}.")
        if (chains, evaluations) != (self.settings.chains, self.settings.steps + 1):
            raise ValueError(f"Traces of {chains} chains and {evaluations} evaluations do not belong to {self.settings}.")

    @property
    def parts(self) -> int:
        """P."""
        return self.losses.shape[0]

    @property
    def kept(self) -> slice:
        """The draws along S: after burn-in, and never w* itself."""
        return slice(self.settings.burn_in + 1, None)

    def part(self, index: int) -> Traces:
        """The traces of one part, with P = 1."""
        i = slice(index, index + 1)
        return Traces(
            self.settings,
            self.dimension,
            self.losses[i],
            self.baseline[i],
            self.gradient_dot[i],
            self.sq_distance[i],
            self.sq_gradient[i],
            self.noise_dot[i],
        )

    def first_nonfinite(self) -> NDArray[np.int64]:
        """The first evaluation of each chain that is not finite, [P, chains]; -1 where all are."""
        fine = np.isfinite(self.losses) & np.isfinite(self.baseline)[:, None]
        for trace in (self.gradient_dot, self.sq_distance, self.sq_gradient, self.noise_dot):
            fine &= np.isfinite(trace)
        return np.where(fine.all(axis=-1), -1, (~fine).argmax(axis=-1)).astype(np.int64)


@dataclass(frozen=True)
class OriginGradient:
    """The loss and its gradient at w* over minibatches of their own: what tells a tilt (METHOD 2, Tilt) and the unpaired baseline."""

    sq_norm: Float[Floats, " P"]  # ‖∇_V l(w*)‖², unbiased, so it may fall below zero
    sq_norm_stderr: Float[Floats, " P"]
    sq_batch_norm: Float[Floats, " P"]  # mean ‖ĝ(w*)‖² of one minibatch, noise included
    loss: Float[Floats, " P"]  # mean l(w*), nats per token
    batches: int
