"""A language model of rllc through devinterp 2.0.1: the same weights in a TransformerLens model, its own head masks, its own `sample`.

    model = twin(shape, params)                      # raises unless a HookedTransformer has the same logits
    answer = theirs(params, shape, "1:6", contexts, chains=4, draws=200, burn_in=100, batch_size=8, seed=1,
                    step_size=1e-3, localization=200.0, nbeta=30.0)
    answer.llc, answer.seconds

`theirs` is for `accuracy.py`: devinterp's λ̂ of one head of a checkpoint, on contexts that ours can be given too, since without `shuffle` its step t
takes contexts[t·B : (t+1)·B]. `timed` is for `peers.py`. Observables are left out (`{}`), because its `llc` does not read them.
"""

from __future__ import annotations

import contextlib
import gc
import io
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from devinterp.slt.llc import compute_llc
from devinterp.slt.lm_loss import compute_per_token_loss
from devinterp.slt.sampling import sample
from devinterp.slt.weight_restrictions import create_param_masks
from numpy.typing import NDArray
from peers_timing import Timed
from torch import Tensor

from rllc.core.names import Part
from rllc.model import forward as fw
from rllc.model.shape import ModelShape
from rllc.model.slices import size, slices

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it deprecates in itself
    from transformer_lens import HookedTransformer, HookedTransformerConfig

Masks = dict[str, Tensor | None]
POSITIONS = {"shortformer": "shortformer", "learned": "standard"}
gc.freeze()  # devinterp collects garbage twice a chain; what the imports left need not be walked each time


@dataclass(frozen=True)
class Answer:
    """What devinterp says of one part."""

    llc: float  # llc_mean, which averages burn-in in
    llc_std: float  # over chains, as reported
    per_chain: tuple[float, ...]
    from_draws: float  # not by compute_llc: nβ (mean loss of the draws after burn-in - init_loss)
    paired: float  # the same with the loss at w* on the draws' own minibatches, which devinterp does not keep: by our forward pass, off the clock
    init_loss: float  # on the first `num_init_loss_batches` minibatches, whatever the chains saw
    seconds: float  # of sample and compute_llc
    losses: NDArray[np.float64]  # [chain, step], nats per token on the step's own minibatch: before the first step at w*, then burn-in, then draws
    warnings: tuple[str, ...]  # a chain that failed is told here alone


def their_name(name: str) -> str:
    """Our name of a tensor in TransformerLens."""
    return name.replace("pos.W_pos", "pos_embed.W_pos")


def twin(shape: ModelShape, params: Mapping[str, Tensor]) -> HookedTransformer:
    """The same weights as a HookedTransformer.

    Raises ValueError for a shape that TransformerLens lacks, RuntimeError where its logits or losses are not ours.
    """
    if shape.tied or shape.positions not in POSITIONS or shape.norm != "layernorm":
        raise ValueError("The twin has LayerNorm, untied embeddings, and shortformer or learned positions; this shape is another.")
    mlp: dict[str, Any] = {"d_mlp": shape.d_mlp, "act_fn": "gelu"} if shape.d_mlp else {"attn_only": True}
    config = HookedTransformerConfig(
        n_layers=shape.n_layers,
        d_model=shape.d_model,
        n_ctx=shape.n_ctx,
        d_head=shape.d_head,
        n_heads=shape.n_heads,
        d_vocab=shape.d_vocab,
        eps=shape.norm_eps,
        positional_embedding_type=POSITIONS[shape.positions],
        normalization_type="LN",
        init_weights=False,
        device="cpu",
        **mlp,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = HookedTransformer(config, move_to_device=False)
    own = dict(model.named_parameters())
    if {their_name(name) for name in params} != set(own):
        raise ValueError(f"TransformerLens has other tensors: {sorted({their_name(name) for name in params} ^ set(own))}.")
    with torch.no_grad():
        for name, tensor in params.items():
            own[their_name(name)].copy_(tensor)
    generator = torch.Generator().manual_seed(0)
    check_equal(shape, params, model, torch.randint(0, shape.d_vocab, (2, shape.n_ctx), generator=generator))
    return model


@torch.no_grad()
def check_equal(shape: ModelShape, params: Mapping[str, Tensor], model: torch.nn.Module, tokens: Tensor) -> dict[str, float]:
    """Largest differences of logits and of token losses (by devinterp's own loss) from ours. Raises RuntimeError beyond rounding."""
    ours = {name: tensor.float() for name, tensor in params.items()}
    wanted = fw.logits(shape, ours, tokens)
    found = {
        "logits": (model(tokens, return_type="logits") - wanted).abs().max().item() / max(1.0, wanted.abs().max().item()),
        "losses": (compute_per_token_loss(model, tokens) - fw.token_losses(shape, ours, tokens)).abs().max().item(),
    }
    if not max(found.values()) < 2e-5:
        raise RuntimeError(f"The peer's model does not compute what ours does: differences {found}.")
    return found


def head_masks(shape: ModelShape, model: torch.nn.Module, part: Part) -> Masks:
    """The masks that devinterp makes itself of a part of whole heads. Raises RuntimeError where they are not exactly our slices."""
    masks: Masks = create_param_masks(model, [f"l{atom.layer}h{atom.head}" for atom in part.atoms])
    names = their_name if isinstance(model, HookedTransformer) else str
    ours = [masks[names(s.tensor)] for s in slices(shape, part)]
    whole = all(mask is not None and bool(mask[s.head].all()) for mask, s in zip(ours, slices(shape, part), strict=True))
    if not whole or sum(int(mask.sum()) for mask in masks.values() if mask is not None) != size(shape, part):
        raise RuntimeError(f"devinterp's masks of {part} are not the {size(shape, part)} weights that rllc samples.")
    return masks


def pool(contexts: Tensor) -> Any:
    """Contexts [n, T] as the data set that devinterp takes."""
    return Dataset.from_dict({"input_ids": contexts.tolist()}).with_format("torch")


@contextlib.contextmanager
def quiet() -> Iterator[tuple[Path, list[str]]]:
    """A folder for one call, and the warnings that it gives; its bars would drown the table."""
    told: list[str] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(record=True) as caught,
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("always")
        yield Path(folder) / "samples.zarr", told
        told += [str(w.message) for w in caught]


def theirs(
    params: Mapping[str, Tensor],
    shape: ModelShape,
    part: str,
    contexts: Tensor,
    *,
    chains: int,
    draws: int,
    burn_in: int,
    batch_size: int,
    seed: int,
    step_size: float,
    localization: float,
    nbeta: float,
    num_init_loss_batches: int = 32,
    shuffle: bool = False,
    model: torch.nn.Module | None = None,
) -> Answer:
    """The λ̂ that devinterp gives of a head, or of several together ("1:6", "0:1+1:6").

    Args:
        params: weights of the checkpoint.
        shape: of the model.
        part: whole heads.
        contexts: token ids [n, T]; step t of every chain takes contexts[t·B : (t+1)·B], from the beginning again after the last whole batch.
        chains: and the following, as rllc names them; devinterp's step t is evaluated before it is made, so w* itself counts as a step.
        num_init_loss_batches: minibatches of its baseline; burn_in + draws makes it the chains' own.
        shuffle: in an order of devinterp's instead.
        model: the `twin`, where there is one already.
    """
    model = twin(shape, params) if model is None else model
    masks, data = head_masks(shape, model, Part.parse(part)), pool(contexts)
    with quiet() as (path, told):
        started = time.perf_counter()
        tree = sample(
            model,
            data,
            {},
            lr=step_size,
            n_beta=nbeta,
            localization=localization,
            param_masks=masks,
            num_chains=chains,
            num_draws=draws,
            num_burnin_steps=burn_in,
            batch_size=batch_size,
            num_init_loss_batches=num_init_loss_batches,
            init_seed=1000 * seed,  # chain k takes the seed after the k-th, so that runs must not be neighbours
            shuffle=shuffle,
            device="cpu",
            output_path=path,
        )
        found = compute_llc(tree)
        per_chain = tuple(map(float, found.llc_per_chain.values))
        seconds = time.perf_counter() - started
        losses = np.asarray(found.loss_trace.values, np.float64)
    init_loss = float(found.init_loss)
    of_draws = losses[:, burn_in:].mean()
    at_origin = math.nan if shuffle else origin_losses(shape, params, contexts, batch_size, burn_in + draws)[burn_in:].mean()
    from_draws, paired = (float(nbeta * (of_draws - baseline)) for baseline in (init_loss, at_origin))
    return Answer(float(found.llc_mean), float(found.llc_std), per_chain, from_draws, paired, init_loss, seconds, losses, tuple(told))


@torch.no_grad()
def origin_losses(shape: ModelShape, params: Mapping[str, Tensor], contexts: Tensor, batch_size: int, steps: int) -> NDArray[np.float64]:
    """The loss at w* on the minibatch of every step [step], which cycles through the whole batches of the contexts."""
    batches = contexts[: len(contexts) // batch_size * batch_size].split(batch_size)
    found = np.array([fw.token_losses(shape, params, batch).mean().item() for batch in batches[:steps]])
    return np.resize(found, steps)


def timed(model: torch.nn.Module, data: Any, masks: Masks, *, chains: int, steps: int, batch_size: int, settings: Mapping[str, float]) -> Timed:
    """Time the steps of one call of `sample`: one after another, chain after chain.

    Its own loss is passed as `loss_fn` with a look at the clock, so that an interval is a whole step: minibatch, both passes, update, store.
    """
    marks: list[float] = []
    loss: Callable[..., Tensor] = compute_per_token_loss

    def marked(module: torch.nn.Module, input_ids: Tensor) -> Tensor:
        marks.append(time.perf_counter())
        return loss(module, input_ids)

    with quiet() as (path, _):
        started = time.perf_counter()
        options: dict[str, Any] = {"num_init_loss_batches": 1, "shuffle": False, "device": "cpu", "output_path": path, "loss_fn": marked}
        sample(model, data, {}, param_masks=masks, num_chains=chains, num_draws=steps + 1, batch_size=batch_size, **settings, **options)
        seconds = time.perf_counter() - started
    of_chains = np.reshape(marks[chains:], (chains, steps + 1))  # the first `chains` were the initial losses
    return Timed.of(np.diff(of_chains, axis=1).ravel(), 1, seconds, chains * (steps + 1))
