"""The cases through devinterp 2.0.1, by its own `sample` and `compute_llc`, which together are its `llc`.

Observables are left out (`{}`): its `llc` does not read them. The model is a module with one parameter, the data set a column of item numbers, and
the loss is passed as `loss_fn`; all of that is documented. Unless a path is given, every call gets an output folder of its own.
"""

from __future__ import annotations

import contextlib
import gc
import io
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from devinterp.slt.config import SAMPLING_METHODS
from devinterp.slt.llc import compute_llc
from devinterp.slt.sampling import sample
from trust_cases import Case

SAMPLERS = ", ".join(SAMPLING_METHODS)
gc.freeze()  # devinterp collects garbage twice a chain; what the imports left need not be walked each time


@dataclass(frozen=True)
class Answer:
    """What devinterp says of one case, and what it wrote down."""

    llc: float  # llc_mean
    llc_std: float  # over chains, as reported: the root of the mean square, not of the sum over C - 1
    per_chain: tuple[float, ...]
    from_draws: float  # not by compute_llc: nβ (mean of the stored draws - init_loss), draws being what comes after burn-in
    warnings: tuple[str, ...]
    finite_steps: tuple[int, ...]  # of each chain, whose loss went into the mean
    steps: int
    completed: bool  # the stamp that its cache trusts


@dataclass(frozen=True)
class Refused:
    """What devinterp raised in place of an answer."""

    text: str


class Point(torch.nn.Module):
    """A module whose weights are the point of a case."""

    def __init__(self, origin: torch.Tensor) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(origin.clone())


def pool(items: int, first: int = 0) -> Any:
    """A data set of item numbers. The second column is what its next-token losses would predict, and stands for nothing here."""
    return Dataset.from_dict({"input_ids": [[i, 0] for i in range(first, first + items)]}).with_format("torch")


def ask(case: Case, seed: int, *, model: torch.nn.Module | None = None, data: Any = None, path: Path | None = None, **options: Any) -> Answer:
    """Sample a case. `options` are devinterp's own and override what the case says; without a path the output is thrown away."""
    if path is None:
        with tempfile.TemporaryDirectory() as folder:
            return ask(case, seed, model=model, data=data, path=Path(folder) / "samples.zarr", **options)

    def loss_fn(module: Any, input_ids: torch.Tensor) -> torch.Tensor:
        return case.loss(module.w[None], input_ids[:, 0])[0][:, None]

    c = case.chain
    settings: dict[str, Any] = {
        "lr": c.step_size,
        "n_beta": c.nbeta,
        "localization": c.localization,
        "num_chains": c.chains,
        "num_draws": c.draws,
        "num_burnin_steps": c.burn_in,
        "batch_size": case.batch,
        "init_seed": 1000 * seed,  # chain k takes the seed after the k-th, so that runs must not be neighbours
        "device": "cpu",
    }
    # the bars of tqdm would drown the table
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("always")
        tree = sample(
            Point(case.origin) if model is None else model,
            pool(case.items) if data is None else data,
            {},
            loss_fn=loss_fn,
            output_path=path,
            **settings | options,
        )
        found = compute_llc(tree)
    losses = np.asarray(tree.dataset.sampling_loss_micro.values)
    draws = np.asarray(tree.dataset.sampling_loss.values, np.float64)
    return Answer(
        llc=float(found.llc_mean),
        llc_std=float(found.llc_std),
        per_chain=tuple(map(float, found.llc_per_chain.values)),
        from_draws=float(c.nbeta * (draws.mean() - float(found.init_loss))),
        warnings=tuple(str(w.message) for w in caught),
        finite_steps=tuple(map(int, np.isfinite(losses).all(axis=(2, 3)).sum(axis=1))),
        steps=losses.shape[1],
        completed=tree.attrs.get("completed") == 1,
    )
