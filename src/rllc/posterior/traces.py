"""What the chains left behind, as numpy records. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllc.posterior.settings import SamplerSettings

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Floats = NDArray[np.float64]


class Segment(NamedTuple):
    """A run of evaluations without a break."""

    evaluations: int
    discarded: int  # at its start: w* and the burn-in; 0 where it goes on where another ended


@dataclass(frozen=True)
class Traces:
    """Every evaluation of every chain, from t = 0, w* itself, on, before any is left out.

    Axes: P parts, chains, S evaluations. Evaluation t of all parts and chains is on the same minibatch, so differences between
    cells may be taken draw by draw. ĝ is the minibatch gradient of l, without nβ.

    One segment is `burn_in + draws + 1` evaluations. Chains that were prolonged have several; `settings.draws` counts the draws
    of all of them.
    """

    settings: SamplerSettings
    dimension: int  # d, sampled coordinates of one part
    losses: Float[Floats, "P chains S"]  # l_B(w_t), nats per token, before step t
    baseline: Float[Floats, "P S"]  # l_B(w*) on the same minibatch
    gradient_dot: Float[Floats, "P chains S"]  # (w_t - w*)·ĝ(w_t)
    sq_distance: Float[Floats, "P chains S"]  # ‖w_t - w*‖²
    sq_gradient: Float[Floats, "P chains S"]  # ‖ĝ(w_t)‖²
    force_dot: Float[Floats, "P chains S"]  # (w_t - w*)·∇Û(w_t), of mean d by Stein's identity, but for ...
    stein: Float[Floats, "P chains S"]  # ... what the sampler's discretisation adds to it
    log_acceptance: Float[Floats, "P chains S"]  # of the step from t - 1 to t by Metropolis; NaN where the sampler has none, and at t = 0
    fixed_losses: Float[Floats, "P chains S"] | None = None  # l(w_t) on the fixed evaluation set, where one was asked for
    fixed_baseline: Float[Floats, " P"] | None = None  # l(w*) there
    segments: tuple[Segment, ...] = ()  # one, made from the settings, where none is given

    def __post_init__(self) -> None:
        if not self.segments:
            object.__setattr__(self, "segments", (Segment(self.settings.steps + 1, self.settings.burn_in + 1),))
        parts, chains, evaluations = self.losses.shape
        shapes = {array.shape for name, array in self.arrays().items() if name not in ("baseline", "fixed_baseline")}
        if len(shapes) != 1 or self.baseline.shape != (parts, evaluations):
            raise ValueError(f"Traces differ in shape: {sorted(shapes)} and baseline {self.baseline.shape}.")
        kept = sum(segment.evaluations - segment.discarded for segment in self.segments)
        fitting = all(segment.discarded in (0, self.settings.burn_in + 1) for segment in self.segments)
        if not fitting or (chains, evaluations, kept) != (self.settings.chains, sum(s.evaluations for s in self.segments), self.settings.draws):
            raise ValueError(f"Traces of {chains} chains and {evaluations} evaluations, {self.segments}, do not belong to {self.settings}.")

    @property
    def parts(self) -> int:
        """P."""
        return self.losses.shape[0]

    @property
    def kept(self) -> Int[NDArray[np.int64], " draws"]:
        """The draws along S: after each segment's burn-in, and never w* itself."""
        lengths = [segment.evaluations for segment in self.segments]
        starts = [sum(lengths[:i]) for i in range(len(lengths))]
        return np.concatenate([np.arange(start + s.discarded, start + s.evaluations) for start, s in zip(starts, self.segments, strict=True)])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The traces by name; P is the leading axis of each."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("settings", "dimension", "segments")}
        return {name: array for name, array in values.items() if array is not None}

    def part(self, index: int) -> Traces:
        """The traces of one part, with P = 1."""
        return replace(self, **{name: array[index : index + 1] for name, array in self.arrays().items()})

    def first_nonfinite(self) -> NDArray[np.int64]:
        """The first evaluation of each chain that is not finite, [P, chains]; -1 where all are."""
        fine = np.isfinite(self.losses) & np.isfinite(self.baseline)[:, None]
        for name in ("gradient_dot", "sq_distance", "sq_gradient", "force_dot", "stein", "fixed_losses"):
            trace: Floats | None = getattr(self, name)
            if trace is not None:
                fine &= np.isfinite(trace)
        return np.where(fine.all(axis=-1), -1, (~fine).argmax(axis=-1)).astype(np.int64)

    @classmethod
    def of(cls, settings: SamplerSettings, dimension: int, arrays: Mapping[str, NDArray[Any]], segments: Sequence[Segment]) -> Traces:
        """Traces from their arrays and segments; `settings.draws` becomes what the segments keep. Raises KeyError where an array is missing."""
        settings = replace(settings, draws=sum(s.evaluations - s.discarded for s in segments))
        needed: dict[str, Any] = {f.name: arrays.get(f.name) if f.name.startswith("fixed") else arrays[f.name] for f in fields(cls)[2:-1]}
        return cls(settings, dimension, **needed, segments=tuple(segments))


def joined(pieces: Sequence[Traces]) -> Traces:
    """One trace of consecutive segments of the same chains."""
    first = pieces[0]
    arrays = [piece.arrays() for piece in pieces]
    along = {name: np.concatenate([a[name] for a in arrays], axis=-1) for name in arrays[0] if name != "fixed_baseline"}
    if first.fixed_baseline is not None:
        along["fixed_baseline"] = first.fixed_baseline
    segments: list[Segment] = []
    for segment in (segment for piece in pieces for segment in piece.segments):
        if segments and not segment.discarded:  # it went on where the one before it ended: one run
            segment = Segment(segments[-1].evaluations + segment.evaluations, segments.pop().discarded)  # noqa: PLW2901
        segments.append(segment)
    return Traces.of(first.settings, first.dimension, along, segments)


def stacked(pieces: Sequence[Traces]) -> Traces:
    """The traces of several parts of equal settings and segments as one."""
    arrays = [piece.arrays() for piece in pieces]
    along = {name: np.concatenate([a[name] for a in arrays], axis=0) for name in arrays[0]}
    return Traces.of(pieces[0].settings, pieces[0].dimension, along, pieces[0].segments)


@dataclass(frozen=True)
class OriginGradient:
    """The loss, its gradient and its steepest curvature at w* over minibatches of their own: what tells a tilt (METHOD 2, Tilt), the unpaired
    baseline and how large a step may be.
    """

    sq_norm: Float[Floats, " P"]  # ‖∇_V l(w*)‖², unbiased, so it may fall below zero
    sq_norm_stderr: Float[Floats, " P"]
    sq_batch_norm: Float[Floats, " P"]  # mean ‖ĝ(w*)‖² of one minibatch, noise included
    loss: Float[Floats, " P"]  # mean l(w*), nats per token
    batches: int
    sq_center: Float[Floats, " P"]  # ‖w*‖² of the part, which a weight decay pulls at
    top_curvature: Float[Floats, " P"]  # largest eigenvalue h of the part's Hessian by power iteration, never above the truth in expectation

    def part(self, index: int) -> OriginGradient:
        """What is known of one part, with P = 1."""
        return replace(self, **{f.name: getattr(self, f.name)[index : index + 1] for f in fields(self) if f.name != "batches"})
