"""What a loss must offer to be sampled. The samplers know no transformer, only this (DESIGN, the picture)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

Tensors = dict[str, Tensor]
Context = TypeVar("Context")


@runtime_checkable
class Evaluated(Protocol):
    """Losses of C variants on one minibatch, and of the unchanged weights on the same minibatch.

    C counts parts × chains, part-major. All losses are means over the minibatch, in nats per token, in fp32 or fp64.
    """

    @property
    def losses(self) -> Float[Tensor, " C"]:
        """Of each variant."""
        ...

    @property
    def gradients(self) -> Tensors | None:
        """Of each variant's own loss with respect to its tensors, [C, ...]; None in probe mode."""
        ...

    @property
    def baseline(self) -> Float[Tensor, " C"]:
        """The loss at w*, same kernel and dtype; equal for the chains of one part."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """The plainest `Evaluated`."""

    losses: Float[Tensor, " C"]
    gradients: dict[str, Float[Tensor, "C ..."]] | None
    baseline: Float[Tensor, " C"]


@runtime_checkable
class Objective(Protocol[Context]):
    """A loss of (variants of a part, minibatch), in two calls so that the frozen rest is computed once a minibatch."""

    def prepare(self, batch: Any) -> Context:
        """Everything on this minibatch that no variant changes: frozen prefix, outputs at w*, baseline."""
        ...

    def evaluate(self, variants: Tensors, context: Context, *, gradients: bool = True) -> Evaluated:
        """Losses of the variants, each with a leading axis C; with `gradients=False` nothing is differentiated (probe mode).

        Row c of losses and gradients depends on row c of the variants alone: a variant that turned NaN spoils only itself.
        """
        ...


@runtime_checkable
class ByToken(Objective[Context], Protocol[Context]):
    """An objective whose losses are means over predictions, and that tells each prediction's."""

    def token_losses(self, variants: Tensors, context: Context) -> Float[Tensor, "C n"]:
        """The loss of every prediction of the minibatch under each variant, in nats, without gradients; their mean is the loss."""
        ...


@runtime_checkable
class Originated(Objective[Context], Protocol[Context]):
    """An objective that knows where its chains start."""

    @property
    def origin(self) -> Tensors:
        """w*, the tensors of P parts, [P, ...] each."""
        ...
