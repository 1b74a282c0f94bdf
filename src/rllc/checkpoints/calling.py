"""How a live language model of somebody else's is called: its logits whatever it returns, and its loss as the sampler wants it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from jaxtyping import Float

_UNDERSTOOD = ("input_ids", "attention_mask", "token_type_ids", "rows", "reference")
_IGNORED = -100


def language_logits(module: nn.Module, tokens: Tensor, attention_mask: Tensor | None = None) -> Float[Tensor, "B T V"]:
    """The logits of every position, in the dtype of the module.

    A module of transformers is called without cache, and with attention that vmap and double precision can take: "eager" or "sdpa" stay as they
    are, any other becomes one of them for the call. A module that takes targets, and otherwise may return the last position alone (nanoGPT), gets
    its tokens for targets. Of a tuple the first is taken for the logits, as nanoGPT and transformers return them.

    Padding goes behind the tokens for the call, where a causal model does not see it and counts positions as without; that serves modules that
    take no mask, and padding in front, whose own positions see nothing, is no number in some attentions of transformers in double precision.

    Args:
        module: takes token ids as its first argument.
        tokens: ids [B, T].
        attention_mask: [B, T], true or 1 where a token is real; the logits elsewhere mean nothing.

    Raises:
        RllcError: the tokens are none of the module's, or it returns no logits of every position.
    """
    _check_tokens(module, tokens)
    takes = inspect.signature(module.forward).parameters
    options: dict[str, Any] = {"use_cache": False} if "use_cache" in takes else {}
    order = None
    if attention_mask is not None:
        real = attention_mask.bool()
        order = (~real).int().argsort(dim=1, stable=True)
        tokens = tokens.gather(1, order)
        if "attention_mask" in takes:
            options["attention_mask"] = real.gather(1, order).long()
    if "targets" in takes:
        options["targets"] = tokens
    with _attention(module):
        returned = module(tokens, **options)
    logits = _logits(module, returned, tuple(tokens.shape))
    return logits if order is None else logits.take_along_dim(order.argsort(1)[..., None], 1)


def language_loss(module: nn.Module, batch: Any) -> Float[Tensor, ""]:
    """Mean next-token cross-entropy, in nats per token, in fp32 at least. `ModuleObjective` takes it as its loss.

    Args:
        module: as `language_logits` takes it.
        batch: token ids [B, T], or a mapping with `input_ids` and, where there is padding, `attention_mask`: a position counts if both it and its
            target are real. `rows` [n] instead numbers the predictions that count among the B (T - 1), sequence by sequence, and `reference` [n, V]
            holds probabilities of the next token that take the place of the labels.

    Raises:
        RllcError: the batch is none of tokens, no position counts, or as `language_logits`.
    """
    tokens, mask = _read(batch)
    logits = language_logits(module, tokens, mask)[:, :-1]
    targets = tokens[:, 1:].long()
    if isinstance(batch, Mapping) and "rows" in batch:
        chosen = logits.flatten(0, 1).index_select(0, batch["rows"]).to(torch.promote_types(logits.dtype, torch.float32))
        labels = targets.flatten()[batch["rows"]]
        return F.cross_entropy(chosen, batch["reference"].to(chosen) if "reference" in batch else labels)
    if mask is not None:
        counted = mask[:, :-1].bool() & mask[:, 1:].bool()
        if not counted.any():
            raise RllcError("No position of the batch counts: nowhere are a token and its successor both real.", "Look at its attention_mask.")
        targets = targets.masked_fill(~counted, _IGNORED)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED)


def _read(batch: Any) -> tuple[Tensor, Tensor | None]:
    """Token ids and the mask of the real ones."""
    if isinstance(batch, Mapping):
        unknown = [name for name in batch if name not in _UNDERSTOOD]
        if "input_ids" not in batch or unknown:
            raise RllcError(f"A batch holds {', '.join(map(repr, batch))}.", "Give input_ids and, where there is padding, attention_mask.")
        tokens, mask = batch["input_ids"], batch.get("attention_mask")
    else:
        tokens, mask = batch, None
    if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        kind = f"a tensor {list(tokens.shape)} of {tokens.dtype}" if isinstance(tokens, Tensor) else f"a {type(tokens).__name__}"
        raise RllcError(f"The tokens of a batch are {kind}, but should be ids [sequences, positions].", "Give a tensor of integers.")
    if tokens.shape[0] < 1 or tokens.shape[1] < 2:
        raise RllcError(f"The tokens of a batch are {list(tokens.shape)}, and so nothing to predict.", "Give sequences of two or more.")
    if mask is not None and (not isinstance(mask, Tensor) or mask.shape != tokens.shape):
        raise RllcError("The attention_mask of a batch is not of the shape of its input_ids.", f"Give a tensor {list(tokens.shape)}, 1 for real.")
    return tokens, mask


def _check_tokens(module: nn.Module, tokens: Tensor) -> None:
    """Before the module is called: on a GPU an id too large ends the whole process."""
    vocabulary = vocabulary_of(module)
    largest, smallest = int(tokens.max()), int(tokens.min())
    if smallest < 0 or (vocabulary is not None and largest >= vocabulary):
        wrong = smallest if smallest < 0 else largest
        among = f" of {vocabulary} tokens" if vocabulary else ""
        raise RllcError(f"The batch holds the token id {wrong}, which is not in the vocabulary{among}.", "Use the tokenizer of the model.")


def vocabulary_of(module: nn.Module) -> int | None:
    """Rows of the embedding, as the module's config has them; None where it does not say."""
    for name in ("config", "cfg"):
        config = getattr(module, name, None)
        config = getattr(config, "text_config", None) or config
        for attribute in ("vocab_size", "d_vocab"):
            value = getattr(config, attribute, None)
            if isinstance(value, int) and value > 0:
                return value
    return None


def _logits(module: nn.Module, returned: Any, shape: tuple[int, ...]) -> Tensor:
    if isinstance(returned, Mapping) or hasattr(returned, "logits"):
        found = returned.get("logits") if isinstance(returned, Mapping) else returned.logits
    elif isinstance(returned, (tuple, list)):
        found = returned[0] if returned else None
    else:
        found = returned
    if not isinstance(found, Tensor):
        raise RllcError(
            f"The {type(module).__name__} returns a {type(returned).__name__} without logits.",
            "Give the model with its language-model head, such as AutoModelForCausalLM loads it.",
        )
    if found.ndim != 3 or tuple(found.shape[:2]) != shape or not found.is_floating_point():
        raise RllcError(
            f"The {type(module).__name__} returns logits {list(found.shape)} for tokens {list(shape)}, but should for every position.",
            "Give a module that returns [sequences, positions, vocabulary].",
        )
    return found


@contextmanager
def _attention(module: nn.Module) -> Iterator[None]:
    """Kernels for half precision and for compiled masks alone give way to torch's own for the call."""
    changed: list[tuple[Any, str]] = []
    for config in {id(config): config for part in module.modules() if (config := getattr(part, "config", None)) is not None}.values():
        chosen = getattr(config, "_attn_implementation", None)
        if isinstance(chosen, str) and chosen not in ("eager", "sdpa"):
            changed.append((config, chosen))
    for config, _ in changed:
        sdpa = all(getattr(part, "_supports_sdpa", True) for part in module.modules())
        config._attn_implementation = "sdpa" if sdpa else "eager"
    try:
        yield
    finally:
        for config, chosen in changed:
            config._attn_implementation = chosen
