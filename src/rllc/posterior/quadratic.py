"""A quadratic loss that speaks the objective's protocol, with minibatch noise of known law: the samplers' proving ground."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rllc.posterior.protocol import Evaluation, Tensors


@dataclass(frozen=True)
class MinibatchNoise:
    """What the minibatch B adds to the loss, [P, ...] each and equal for all chains of a part."""

    offset: Tensor  # [P]
    stretch: Tensor  # [P]
    gradient: Tensors


@dataclass(frozen=True)
class Quadratic:
    """`l_B(w) = c + o_B + Σ_i [(g_i + s_i ζ_{B,i}) v_i + ½ (1 + τ_B) h_i v_i²]`, v = w - w*, for P parts at once.

    ζ is standard normal; o_B and τ_B are normal with the standard deviations `offset_noise` and `stretch_noise`. All of them are
    shared by the chains of a part, as minibatches are, and independent between parts. Tensors that the variants leave out stay
    at w* and add nothing: that is the restricted case. A minibatch is an integer, and all its noise a function of it.

    >>> w = {"w": torch.zeros(1, 2)}
    >>> toy = Quadratic(w, curvature={"w": torch.tensor([[1.0, 3.0]])})
    >>> toy.evaluate({"w": torch.ones(1, 2)}, toy.prepare(0)).losses
    tensor([2.])
    """

    origin: Tensors  # w*, [P, ...]
    curvature: Tensors  # h
    gradient: Tensors = field(default_factory=dict[str, Tensor])  # g, zero where it is not given
    gradient_noise: Tensors = field(default_factory=dict[str, Tensor])  # s
    offset_noise: float = 0.0
    stretch_noise: float = 0.0
    constant: float = 0.0

    def prepare(self, batch: int) -> MinibatchNoise:
        """The minibatch's noise."""
        generator = torch.Generator().manual_seed(batch)

        def normal(like: Tensor) -> Tensor:
            return torch.randn(like.shape, dtype=torch.float64, generator=generator).to(like)

        one = next(iter(self.curvature.values())).flatten(1)[:, 0]
        offset, stretch = self.offset_noise * normal(one), self.stretch_noise * normal(one)
        return MinibatchNoise(offset, stretch, {name: s * normal(s) for name, s in self.gradient_noise.items()})

    def evaluate(self, variants: Tensors, context: MinibatchNoise, *, gradients: bool = True) -> Evaluation:
        """Losses of C = P × chains variants, and analytic gradients."""
        parts = context.offset.shape[0]
        baseline = (self.constant + context.offset)[:, None]  # [P, 1]
        excess: list[Tensor] = []
        grads: Tensors = {}
        for name, w in variants.items():
            v = w.view(parts, -1, *w.shape[1:]) - self.origin[name][:, None]  # [P, chains, ...]
            stretch = context.stretch.view(parts, *[1] * w.dim())
            slope = self._slope(name, context)[:, None]
            pull = (1 + stretch) * self.curvature[name][:, None] * v
            excess.append(((slope + pull / 2) * v).flatten(2).sum(dim=2))
            grads[name] = (slope + pull).view(w.shape)
        losses = baseline + torch.stack(excess).sum(dim=0)
        return Evaluation(losses.flatten(), grads if gradients else None, baseline.expand_as(losses).flatten())

    def _slope(self, name: str, context: MinibatchNoise) -> Tensor:
        zero = torch.zeros_like(self.curvature[name])
        return self.gradient.get(name, zero) + context.gradient.get(name, zero)
