"""The steps of canonical-interp 0.2.7, by its own `LLCEstimator.estimate_llc`.

It asks for Python 3.12 because of `itertools.batched` alone, which is put there for older ones. It advances all chains at once by `vmap`, each a
whole model, and takes gradients of every weight. What is sampled can be restricted to whole tensors by name (`targeted_params`), not to a slice of
one, so the model here has tensors of its own for every head (`peers_plain.py`) and the posterior is that of the others. It compiles by default, and
so it is timed; the first call pays for that.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from peers_plain import PlainTransformer
from peers_timing import Timed
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from rllc.core.names import Part


def _batched(items: Iterable[Any], n: int) -> Iterator[tuple[Any, ...]]:
    iterator = iter(items)
    while group := tuple(itertools.islice(iterator, n)):
        yield group


if not hasattr(itertools, "batched"):
    itertools.batched = _batched  # pyright: ignore[reportAttributeAccessIssue]

from canonical_interp.slt import LLCEstimator  # noqa: E402 (it asks for what was just put there)

logging.getLogger("canonical_interp.slt").setLevel(logging.ERROR)  # it recommends other settings and a GPU's data loader


def loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean next-token cross-entropy, as the others have it."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def timed(model: PlainTransformer, part: Part, contexts: Tensor, *, chains: int, steps: int, batch_size: int, settings: Mapping[str, float]) -> Timed:
    """Time the steps of one call, all chains at once. The loss at w* is given (as 0), so that it need not go over the data first."""
    marks: list[float] = []

    def unpack(batch: list[Tensor]) -> tuple[Tensor, Tensor]:
        marks.append(time.perf_counter())
        return batch[0], batch[0]

    estimator = LLCEstimator(draws=steps + 1, chains=chains, burnin_steps=0, **settings)  # pyright: ignore[reportArgumentType]
    loader = DataLoader(TensorDataset(contexts), batch_size=batch_size, drop_last=True)
    started = time.perf_counter()
    names = model.head_names(part)
    estimator.estimate_llc(model, loader, loss, seed=0, unpack_fn=unpack, show_progress=False, targeted_params=names, current_loss=0.0)
    seconds = time.perf_counter() - started
    if not torch.isfinite(estimator.array_log_l).all():
        raise RuntimeError("canonical-interp's chains left the finite numbers.")
    return Timed.of(np.diff(marks), chains, seconds, steps + 1)
