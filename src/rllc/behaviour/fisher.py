"""The trace of the Fisher information of one part, per token: empirical (the corpus's labels) and true (labels drawn from the model)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from rllc.behaviour.contexts import Contexts, contexts_of
from rllc.behaviour.curvature import Estimate, mean_and_stderr
from rllc.behaviour.part_loss import PartLoss
from rllc.core.errors import RllcError
from rllc.core.names import Part
from rllc.core.seeds import derive
from rllc.model.shape import ModelShape

if TYPE_CHECKING:
    from jaxtyping import Int

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Fisher:
    """Traces in squared nats and per squared unit of weight, each the mean over what counts of `‖∇ -log p(y|x)‖²`, with its error over contexts."""

    empirical: Estimate
    true: Estimate


def fisher(
    shape: ModelShape, params: Mapping[str, Tensor], part: Part, tokens: Int[Ints, "B T"] | Contexts, *, draws: int = 4, seed: int = 0
) -> Fisher:
    """Both Fisher traces of a part on B contexts, by `draws` backward passes a context for each.

    Per-token gradients g_t are never formed one by one. Empirical: `E_s ‖Σ_t s_t g_t‖² = Σ_t ‖g_t‖²` over independent signs s. True: labels drawn
    from the model are independent given the context and their gradients have mean zero, so `E ‖Σ_t g_t‖²` is that sum too. Both are unbiased.

    Args:
        draws: of signs, and of labels, a context.
        seed: root of the draws; they are derived from (seed, "fisher", part).

    Raises:
        RllcError: the tokens do not fit the model or are fewer than two contexts, there is no such part, `draws` is below 1.
    """
    contexts = contexts_of(tokens)
    if len(contexts.tokens) < 2:
        raise RllcError("One context has no standard error.", "Give two contexts or more.")
    if draws < 1:
        raise RllcError(f"The Fisher trace takes one draw a context or more, not {draws}.", "Give a positive number.")
    loss = PartLoss(shape, params, part)
    weights = loss.origin
    rng = torch.Generator().manual_seed(derive(seed, "fisher", str(part)))
    empirical, true = list[float](), list[float]()
    for context, counted in zip(loss.contexts(contexts.tokens), contexts.counted, strict=True):
        with torch.enable_grad():
            log_p = F.log_softmax(loss.logits(weights, context), -1)
        n, squares = len(log_p), np.zeros((2, draws))
        counts = torch.tensor(counted).to(log_p)
        p = log_p.detach().exp().cpu()
        for i in range(draws):
            signs = (torch.randint(2, (n,), generator=rng) * 2 - 1).to(log_p)
            drawn = torch.multinomial(p, 1, generator=rng).to(context.device)[:, 0]
            for kind, (labels, factors) in enumerate(((context[0, 1:], signs * counts), (drawn, counts))):
                upstream = torch.zeros_like(log_p).scatter_(1, labels[:, None], -factors[:, None])
                (gradient,) = torch.autograd.grad(log_p, weights, upstream, retain_graph=True, allow_unused=True, materialize_grads=True)
                squares[kind, i] = float(gradient.double().square().sum())
        for values, found in zip((empirical, true), squares.mean(1), strict=True):
            values.append(float(found))
    numbers = contexts.counted.sum(1).astype(np.float64)
    return Fisher(mean_and_stderr(np.array(empirical), numbers), mean_and_stderr(np.array(true), numbers))
