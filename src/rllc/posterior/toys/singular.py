"""Singular losses of a few parameters, many copies at once (METHOD 3.3). Their λ at finite temperature is in `truths.quadrature`.

Every tensor of `origin` is [P, ..., n]: the last axis holds the n parameters of one copy, all other axes count copies, and the loss is the sum over
copies, so that λ is the copies' λ times their number, with so much less noise. Minibatches are ignored: all noise is the sampler's own.
Each loss is `l(v)` of `v = w - w*` with `l(0) = 0`, its minimum. Tensors that the variants leave out stay at w* and add nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rllc.posterior.protocol import Evaluation, Tensors

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Copies:
    """What the losses below share: they say what one copy's loss and gradient are."""

    origin: Tensors  # w*, [P, ..., n]

    def prepare(self, batch: object) -> None:
        """Nothing: the loss is the population's."""
        del batch

    def evaluate(self, variants: Tensors, context: None, *, gradients: bool = True) -> Evaluation:
        """Losses of C = P × chains variants, and analytic gradients."""
        del context
        losses: list[Tensor] = []
        grads: Tensors = {}
        for name, w in variants.items():
            center = self.origin[name]
            v = (w.view(center.shape[0], -1, *w.shape[1:]) - center[:, None]).view(w.shape)
            value, slope = self.of_copies(v)
            losses.append(value.reshape(len(w), -1).sum(dim=1))
            grads[name] = slope
        total = torch.stack(losses).sum(dim=0)
        return Evaluation(total, grads if gradients else None, torch.zeros_like(total))

    def of_copies(self, v: Float[Tensor, "*copies n"]) -> tuple[Float[Tensor, "*copies"], Float[Tensor, "*copies n"]]:
        """The loss of each copy and its gradient."""
        raise NotImplementedError


@dataclass(frozen=True)
class Separable(Copies):
    """`l = c Σ_i |v_i|^{p_i}`, p_i ≥ 1; with one power 2k, the monomial `w^{2k}`.

    >>> toy = Separable({"w": torch.zeros(1, 2)}, powers=(2.0, 4.0))
    >>> toy.evaluate({"w": torch.tensor([[3.0, -2.0]])}, toy.prepare(0))
    Evaluation(losses=tensor([25.]), gradients={'w': tensor([[  6., -32.]])}, baseline=tensor([0.]))
    """

    powers: Sequence[float] = (2.0,)
    coefficient: float = 1.0

    def of_copies(self, v: Float[Tensor, "*copies n"]) -> tuple[Float[Tensor, "*copies"], Float[Tensor, "*copies n"]]:
        """The gradient is `c p_i |v_i|^{p_i - 1} sign v_i`."""
        lower, factors = _powers(v, self.powers)
        slopes = [self.coefficient * p * low for p, low in zip(self.powers, lower, strict=True)]
        return self.coefficient * torch.stack(factors, dim=-1).sum(dim=-1), torch.stack(slopes, dim=-1) * v.sign()


@dataclass(frozen=True)
class NormalCrossing(Copies):
    """`l = c Π_i |v_i|^{p_i}`, p_i ≥ 1: zero on coordinate hyperplanes that cross."""

    powers: Sequence[float] = (2.0, 2.0)
    coefficient: float = 1.0

    def of_copies(self, v: Float[Tensor, "*copies n"]) -> tuple[Float[Tensor, "*copies"], Float[Tensor, "*copies n"]]:
        """Products over all other factors, without dividing: any of them may be zero."""
        lower, factors = _powers(v, self.powers)
        slopes = [reduce(mul, factors[:i] + factors[i + 1 :], self.coefficient * p * lower[i]) for i, p in enumerate(self.powers)]
        return reduce(mul, factors, torch.full_like(factors[0], self.coefficient)), torch.stack(slopes, dim=-1) * v.sign()


def _powers(v: Tensor, powers: Sequence[float]) -> tuple[list[Tensor], list[Tensor]]:
    """`|v_i|^{p_i - 1}` and `|v_i|^{p_i}`, each [...]: one exponent at a time, as whole ones are much faster than tensors of them."""
    sizes = v.abs().unbind(dim=-1)
    lower = [size.pow(p - 1) for size, p in zip(sizes, powers, strict=True)]
    return lower, [low * size for low, size in zip(lower, sizes, strict=True)]


@dataclass(frozen=True)
class Cusp(Copies):
    """`l = c (x² - y³)²`: zero on a curve with a cusp at w*, where λ is 5/12, against ½ on the rest of the curve.

    Neither separable nor a normal crossing: the log canonical threshold of `x² - y³` is 5/6, and the square halves it.
    """

    coefficient: float = 1.0

    def of_copies(self, v: Float[Tensor, "*copies n"]) -> tuple[Float[Tensor, "*copies"], Float[Tensor, "*copies n"]]:
        """`∂l = 2c (x² - y³)(2x, -3y²)`."""
        x, y = v[..., 0], v[..., 1]
        distance = x**2 - y**3
        return self.coefficient * distance**2, 2 * self.coefficient * distance[..., None] * torch.stack([2 * x, -3 * y**2], dim=-1)
