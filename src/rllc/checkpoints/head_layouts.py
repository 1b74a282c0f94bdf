"""Where the heads lie in other people's transformers: a table of layouts, each held against the model itself in the tests.

Names are those of `module.named_parameters()` below the stack of layers. H heads of D numbers each; keys and values come in G groups of heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EMBED = ("wte.", "embed_in.", "embed_tokens.", "embed.")
UNEMBED = ("lm_head.", "embed_out.", "unembed.")
LEARNED = ("gpt2", "gpt_neo")  # types whose positions enter the residual stream, so that a key bias adds the same to every score of a query


@dataclass(frozen=True)
class Place:
    """Where the heads' blocks of one piece lie in a tensor: block a starts at D · (heads · H + groups · G + offset + stride · a) along `axis`.

    Args:
        tensor: its name below the attention of a layer.
        axis: along which the blocks lie.
        heads, groups, offset, stride: as above.
        numbered: the axis counts the heads themselves, and D is 1.
    """

    tensor: str
    axis: int
    heads: int = 0
    groups: int = 0
    offset: int = 0
    stride: int = 1
    numbered: bool = False

    def span(self, block: int, n_heads: int, n_groups: int, d_head: int) -> tuple[int, int]:
        """Where a block starts and ends along the axis."""
        width = 1 if self.numbered else d_head
        start = width * (self.heads * n_heads + self.groups * n_groups + self.offset + self.stride * block)
        return start, start + width


@dataclass(frozen=True)
class Layout:
    """How one family of modules holds its heads.

    Args:
        name: as a person would call it.
        types: of transformers (`config.model_type`) that it was verified on; none for modules that no type describes.
        layer: start of the names in a layer, {} being its number.
        attention: of attention's own tensors, below the layer.
        pieces: Q, K, V and O: the weight first, then biases, which a module may lack.
        open: its tensors leave no choice how to read them, so that types that were not verified may use it too.
        copies: tensors below attention that the module keeps, but does not compute with.
        mlp: of the MLP's tensors, below the layer.
    """

    name: str
    types: tuple[str, ...]
    layer: str
    attention: str
    pieces: Mapping[str, tuple[Place, ...]]
    open: bool = False
    copies: str = ""
    mlp: str = "mlp."


def _rows(tensor: str, **block: Any) -> tuple[Place, ...]:
    """The blocks are outputs of a Linear, whose weight is out × in."""
    return Place(tensor + ".weight", 0, **block), Place(tensor + ".bias", 0, **block)


def _columns(tensor: str, **block: Any) -> tuple[Place, ...]:
    """The blocks are outputs of a Conv1D, whose weight is in × out."""
    return Place(tensor + ".weight", 1, **block), Place(tensor + ".bias", 0, **block)


def _inputs(tensor: str, axis: int = 1) -> tuple[Place, ...]:
    """The blocks are inputs of the output projection, whose bias is no head's."""
    return (Place(tensor + ".weight", axis),)


def _apart(o: str, template: str = "{}_proj") -> dict[str, tuple[Place, ...]]:
    """Four Linears."""
    return {piece: _rows(template.format(piece.lower())) for piece in "QKV"} | {"O": _inputs(o)}


def _numbered(key: str) -> dict[str, tuple[Place, ...]]:
    """Axis 0 counts the heads."""
    names = {"Q": ("W_Q", "b_Q"), "K": (key + "W_K", key + "b_K"), "V": (key + "W_V", key + "b_V"), "O": ("W_O",)}
    return {piece: tuple(Place(name, 0, numbered=True) for name in tensors) for piece, tensors in names.items()}


# Several layouts may fit a module's names: the first that fits its shapes too is taken.
LAYOUTS = (
    Layout(
        "GPT-2",
        ("gpt2",),
        "h.{}.",
        "attn.",
        {"Q": _columns("c_attn"), "K": _columns("c_attn", heads=1), "V": _columns("c_attn", heads=2), "O": _inputs("c_proj", axis=0)},
    ),
    Layout(
        "nanoGPT", (), "h.{}.", "attn.", {"Q": _rows("c_attn"), "K": _rows("c_attn", heads=1), "V": _rows("c_attn", heads=2), "O": _inputs("c_proj")}
    ),
    Layout(
        "GPT-NeoX",
        ("gpt_neox",),
        "layers.{}.",
        "attention.",
        {
            "Q": _rows("query_key_value", stride=3),
            "K": _rows("query_key_value", offset=1, stride=3),
            "V": _rows("query_key_value", offset=2, stride=3),
            "O": _inputs("dense"),
        },
    ),
    Layout("GPT-Neo", ("gpt_neo",), "h.{}.", "attn.attention.", _apart("out_proj"), open=True),
    Layout(
        "Phi-3",
        ("phi3",),
        "layers.{}.",
        "self_attn.",
        {"Q": _rows("qkv_proj"), "K": _rows("qkv_proj", heads=1), "V": _rows("qkv_proj", heads=1, groups=1), "O": _inputs("o_proj")},
    ),
    Layout(
        "Llama",
        ("llama", "mistral", "olmo", "olmo2", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
        "layers.{}.",
        "self_attn.",
        _apart("o_proj"),
        open=True,
    ),
    Layout("HookedTransformer", (), "blocks.{}.", "attn.", _numbered("")),
    Layout("HookedTransformer with grouped keys", (), "blocks.{}.", "attn.", _numbered("_")),
    # A bridge computes with q, k, v of its own, views or copies of the joint weight that it keeps beside them; GPT-2's o is a Conv1D, as it was.
    Layout(
        "TransformerBridge of GPT-2",
        ("gpt2",),
        "h.{}.",
        "attn.",
        _apart("o._original_component", "{}._original_component") | {"O": _inputs("o._original_component", axis=0)},
        copies="qkv.",
    ),
    Layout(
        "TransformerBridge",
        ("gpt_neox", "phi3", "llama", "mistral", "olmo", "olmo2", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
        "layers.{}.",
        "attn.",
        _apart("o._original_component", "{}._original_component"),
        copies="qkv.",
    ),
)
