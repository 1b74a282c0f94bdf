"""Models of other libraries as ours: GPT-2, nanoGPT, GPT-NeoX, Llama and its kin, and TransformerLens, converted once, proven by logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rllc.checkpoints import from_gemma, from_gpt2, from_gpt_neox, from_llama, from_transformer_lens
from rllc.checkpoints.foreign import NotImportable, Plan, Settings, Source, convert, not_importable, short_names
from rllc.checkpoints.not_native import REASONS
from rllc.core.errors import RllcError
from rllc.model.shape import ModelShape

__all__ = ["FAMILIES", "Imported", "NotImportable", "import_module", "import_state"]


@dataclass(frozen=True)
class Imported:
    """A foreign model as ours.

    Args:
        shape: what it is.
        params: its weights by the names of `shape.tensors()`, in that order, on the CPU; copies.
        family: where it comes from: one of the names in `FAMILIES`.
        notes: sentences that a user should know.
    """

    shape: ModelShape
    params: dict[str, Tensor]
    family: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """A layout that we can read.

    Args:
        what: the model as sentences call it.
        plan: from its settings, its tensors and the wanted context to what becomes of each tensor.
        prefix: what may stand in front of its tensors' names.
        buffers: pattern of the names of tensors that hold no weights.
        settings: names of settings that only this family has together.
        has, lacks: names of tensors by which it is known where the config is silent.
    """

    what: str
    plan: Callable[[Settings, Source, int], Plan]
    prefix: str
    buffers: str
    settings: tuple[str, ...] = ()
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


def _llama(what: str, kin: from_llama.Kin, has: tuple[str, ...], lacks: tuple[str, ...] = ()) -> Family:
    first = "layers.0.self_attn."
    names = (first + "q_proj.weight", *(f"layers.0.{name}" for name in has))
    return Family(what, kin, from_llama.PREFIX, from_llama.BUFFERS, (), names, tuple(f"layers.0.{name}" for name in lacks))


_BEHIND = ("post_attention_layernorm.weight", "post_feedforward_layernorm.weight", "self_attn.q_norm.weight")

# By transformers' model_type where there is one. Of families with equal settings or names, the more special one comes first.
FAMILIES = {
    "transformer_lens": Family(
        "a TransformerLens model",
        from_transformer_lens.hooked_transformer,
        "",
        from_transformer_lens.BUFFERS,
        ("d_model", "d_head", "n_layers", "n_ctx"),
        ("blocks.0.attn.W_Q",),
    ),
    "nanogpt": Family(
        "a nanoGPT model",
        from_gpt2.nanogpt,
        from_gpt2.PREFIX,
        from_gpt2.BUFFERS,
        ("block_size", "n_embd", "n_head"),
    ),
    "gpt2": Family(
        "a GPT-2 model",
        from_gpt2.huggingface,
        from_gpt2.PREFIX,
        from_gpt2.BUFFERS,
        ("n_positions", "n_embd", "n_head"),
        ("h.0.attn.c_attn.weight",),
    ),
    "gpt_neox": Family(
        "a GPT-NeoX model",
        from_gpt_neox.huggingface,
        from_gpt_neox.PREFIX,
        from_gpt_neox.BUFFERS,
        (),
        ("layers.0.attention.query_key_value.weight",),
    ),
    "gemma": Family("a Gemma model", from_gemma.GEMMA, from_llama.PREFIX, from_llama.BUFFERS),  # its names are Llama's
    "gemma3_text": _llama("a Gemma 3 model", from_gemma.GEMMA3, ("pre_feedforward_layernorm.weight", "self_attn.q_norm.weight")),
    "gemma2": _llama("a Gemma 2 model", from_gemma.GEMMA2, ("pre_feedforward_layernorm.weight",), ("self_attn.q_norm.weight",)),
    "olmo2": _llama("an OLMo-2 model", from_llama.OLMO2, _BEHIND, ("input_layernorm.weight",)),
    "olmo3": Family("an OLMo-3 model", from_llama.OLMO3, from_llama.PREFIX, from_llama.BUFFERS),  # its names are OLMo-2's
    "phi3": Family(
        "a Phi-3 model",
        from_llama.PHI3,
        from_llama.PREFIX,
        from_llama.BUFFERS,
        (),
        ("layers.0.self_attn.qkv_proj.weight", "layers.0.mlp.gate_up_proj.weight"),
    ),
    "qwen3": _llama("a Qwen3 model", from_llama.QWEN3, ("self_attn.q_norm.weight", "input_layernorm.weight")),
    "qwen2": _llama("a Qwen2 model", from_llama.QWEN2, ("self_attn.q_proj.bias", "input_layernorm.weight"), ("self_attn.o_proj.bias",)),
    "mistral": Family("a Mistral model", from_llama.MISTRAL, from_llama.PREFIX, from_llama.BUFFERS),  # its names are Llama's
    "llama": _llama("a Llama model", from_llama.LLAMA, ("input_layernorm.weight",)),
    "olmo": _llama("an OLMo model", from_llama.OLMO, (), ("input_layernorm.weight", "post_attention_layernorm.weight")),
}


def import_state(tensors: Mapping[str, Tensor], config: Any, *, n_ctx: int = 0, dtype: torch.dtype = torch.float32) -> Imported:
    """Convert a state dict.

    Args:
        tensors: by the names of their library; a lazy mapping is read tensor by tensor.
        config: that of transformers, TransformerLens or nanoGPT (its `model_args`), as a mapping or as their object.
        n_ctx: the context length, at most the model's; 0 for as long as the model goes and ours agrees with it.
        dtype: of our weights, torch.float32 or torch.float64.

    Raises:
        NotImportable: the model has a feature that our family has not.
        RllcError: weights and config do not belong together, or something is missing.
    """
    if dtype not in (torch.float32, torch.float64):
        raise RllcError(f"Weights of {dtype} are asked for, but they are sampled in 32 or 64 bits.", "Give torch.float32 or torch.float64.")
    values = _as_mapping(config)
    name, by_names = _recognise(tensors, values)
    family = FAMILIES[name]
    settings = Settings(values, family.what)
    if settings.get("quantization_config"):
        raise not_importable(family.what, "its weights are quantised (quantization_config)")
    source = Source(tensors, family.prefix, family.buffers)
    try:
        plan = family.plan(settings, source, n_ctx)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise RllcError(
            f"The config of {family.what} holds something of another kind than expected ({type(error).__name__}: {str(error)[:200]}).",
            "Give the config as its library writes it.",
        ) from error
    params = convert(plan, source, family.what, dtype)
    notes = list(plan.notes)
    if by_names:
        notes.append(f"The config does not say what it is of; the tensors' names are those of {family.what}.")
    if kinds := sorted(source.kinds - {"float32", "float64"}):
        notes.append(f"Weights of {' and '.join(kinds)} were widened to {str(dtype).removeprefix('torch.')}.")
    return Imported(plan.shape, params, name, tuple(notes))


def import_module(module: nn.Module, *, n_ctx: int = 0, dtype: torch.dtype | None = None) -> Imported:
    """Convert a live model of transformers, TransformerLens or nanoGPT, by its state dict and config; the model stays as it is.

    Args:
        module: with a `config` or `cfg`.
        n_ctx: as for `import_state`.
        dtype: of our weights; unless given, float64 where the model's are, float32 otherwise.

    Raises NotImportable and RllcError as `import_state` does.
    """
    what = type(module).__name__
    if what == "TransformerBridge":
        raise not_importable("A TransformerBridge", "its tensors are aliases of those of the model that it wraps, so that the latter should be given")
    config = getattr(module, "config", None) or getattr(module, "cfg", None)
    if config is None:
        raise not_importable(f"A {what}", "it has neither `config` nor `cfg`, from which its shape could be read")
    tensors = module.state_dict()
    if dtype is None:
        dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in module.parameters()) else torch.float32
    return import_state(tensors, config, n_ctx=n_ctx, dtype=dtype)


def _as_mapping(config: Any) -> dict[str, Any]:
    """The settings by name, of a mapping, a config of transformers or TransformerLens, or a dataclass."""
    values = config if isinstance(config, Mapping) else config.to_dict() if hasattr(config, "to_dict") else getattr(config, "__dict__", None)
    if values is None:
        raise RllcError(
            f"The config is a {type(config).__name__}, but should be a mapping.", "Give the model's config as a mapping from names to values."
        )
    inner = values.get("model_args")
    return dict(inner) if isinstance(inner, Mapping) else dict(values)


def _recognise(tensors: Iterable[str], values: Mapping[str, Any]) -> tuple[str, bool]:
    """The family, and whether only the tensors' names tell it. Raises NotImportable where it is none of ours, RllcError where nothing tells."""
    names = tuple(tensors)
    kind = values.get("model_type")
    if isinstance(kind, str) and kind in FAMILIES:
        return kind, False
    if kind:
        raise not_importable(f"A model of type {kind!r}", REASONS.get(str(kind), f"the known types are {', '.join(FAMILIES)}"))
    for name, family in FAMILIES.items():
        if family.settings and all(setting in values for setting in family.settings):
            return name, False
    for name, family in FAMILIES.items():
        short = set(short_names(names, family.prefix).values())
        if family.has and short.issuperset(family.has) and not short.intersection(family.lacks):
            return name, True
    raise not_importable("This model", f"neither its config nor the names of its tensors tell what it is; the known ones are {', '.join(FAMILIES)}")
