"""The shape of a transformer: everything about it but the numbers. Torch-free."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from rllc.core.errors import RllcError
from rllc.core.names import Head, Part

# The pieces of a head and their tensors (METHOD 1): the output bias and the norms are shared and belong to no head.
HEAD_TENSORS = {"Q": ("W_Q", "b_Q"), "K": ("W_K", "b_K"), "V": ("W_V", "b_V"), "O": ("W_O",)}

_PAPERS_FIELDS = 11  # the first fields of a shape, up to `tied`
# Far beyond any model there is: what is larger comes from a damaged file, and would be counted through head by head.
_LARGEST = {"n_layers": 1_000, "n_heads": 1_000, "n_kv_heads": 1_000} | dict.fromkeys(("d_model", "d_head", "d_vocab", "n_ctx", "d_mlp"), 10_000_000)
_MOST_HEADS = 30_000  # the largest open models have 16,128
_TUPLES = ("rotary_scaling", "local_layers")


@dataclass(frozen=True)
class ModelShape:
    """A member of the transformer family of METHOD 4.

    The defaults are the language model of Wang et al.: attention-only, shortformer positions, LayerNorm, untied. GPT-2, GPT-NeoX, Llama, Mistral,
    Qwen2 and Qwen3, OLMo-2, Phi-3 and Gemma are other members.

    Args:
        d_head: head dimension K; n_heads * d_head need not equal d_model.
        d_mlp: hidden width of the MLPs; 0 for an attention-only model.
        positions: "shortformer" adds learned positions to the inputs of Q and K of every layer, after the norm; "learned" adds
            them to the residual stream once; "rotary" turns queries and keys (halves convention).
        norm: "layernorm" or "rmsnorm"; with "_pre" behind it they have no weights.
        tied: the unembedding is the embedding's transpose.
        n_kv_heads: heads G of keys and values, each shared by n_heads / G query heads; 0 for one each.
        activation: of the MLPs: "gelu" (exact), "gelu_tanh", "relu" or "silu".
        gated_mlp: the activation of one product multiplies another (SwiGLU).
        parallel: attention and MLP of a layer read the same residual stream (GPT-NeoX).
        qk_norm: every query and key passes an RMSNorm, over K by weights that all heads share (Qwen3), or as `qk_norm_over` says.
        qkv_bias, output_bias, mlp_bias, norm_bias, unembed_bias: whether these biases exist.
        rotary_dim: how many of the first numbers of a head are turned; 0 for all.
        rotary_base: base of the rotary frequencies.
        rotary_scaling: (factor, low, high, original context) that stretches the frequencies as Llama 3.1 does, or (factor,) that stretches all
            evenly; empty for none.
        norm_place: "pre" norms what attention and MLP read, "post" what they write, before it is added to the stream (OLMo-2), "both" both (Gemma 2).
        qk_norm_over: "head", or "layer" where the norm of queries and that of keys run over all heads of a layer at once (OLMo-2).
        score_scale: what the products of queries and keys are multiplied by; 0 for d_head ** -0.5.
        score_softcap, logit_softcap: scores and logits pass c tanh(x / c); 0 for not at all.
        embedding_scale: what an embedding is multiplied by on its way into the stream, and not as an unembedding.
        local_layers: layers whose positions are turned by `local_rotary_base`, unstretched (Gemma 3).

    Raises RllcError where a size is not positive or the sizes do not fit each other.
    """

    n_layers: int = 2
    d_model: int = 256
    n_heads: int = 8
    d_head: int = 32
    d_vocab: int = 5000
    n_ctx: int = 1024
    d_mlp: int = 0
    positions: Literal["shortformer", "learned", "rotary"] = "shortformer"
    norm: Literal["layernorm", "rmsnorm", "layernorm_pre", "rmsnorm_pre"] = "layernorm"
    norm_eps: float = 1e-5
    tied: bool = False
    n_kv_heads: int = 0
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = "gelu"
    gated_mlp: bool = False
    parallel: bool = False
    qk_norm: bool = False
    qkv_bias: bool = True
    output_bias: bool = True
    mlp_bias: bool = True
    norm_bias: bool = True
    unembed_bias: bool = True
    rotary_dim: int = 0
    rotary_base: float = 10_000.0
    rotary_scaling: tuple[float, ...] = ()
    norm_place: Literal["pre", "post", "both"] = "pre"
    qk_norm_over: Literal["head", "layer"] = "head"
    score_scale: float = 0.0
    score_softcap: float = 0.0
    logit_softcap: float = 0.0
    embedding_scale: float = 1.0
    local_layers: tuple[int, ...] = ()
    local_rotary_base: float = 10_000.0

    def __post_init__(self) -> None:
        for name in _TUPLES:
            object.__setattr__(self, name, tuple(getattr(self, name)))  # a list, where it was read from a file
        for name, most in _LARGEST.items():
            if type(value := getattr(self, name)) is not int or value > most:
                raise RllcError(f"model.{name} is {value!r}, but must be a whole number of at most {most:,}.", "Give the size of a real model.")
        for name in ("n_layers", "d_model", "n_heads", "d_head", "d_vocab", "n_ctx"):
            if getattr(self, name) < 1:
                raise RllcError(f"model.{name} is {getattr(self, name)}, but must be at least 1.", "Give a positive number.")
        if self.n_layers * self.n_heads > _MOST_HEADS:
            raise RllcError(f"The model has {self.n_layers * self.n_heads:,} heads, where at most {_MOST_HEADS:,} are expected.", "Give fewer.")
        if self.d_mlp < 0:
            raise RllcError(f"model.d_mlp is {self.d_mlp}, but must not be negative.", "Give 0 for an attention-only model.")
        for name in ("positions", "norm", "activation", "norm_place", "qk_norm_over"):
            allowed = get_args(get_type_hints(ModelShape)[name])
            if getattr(self, name) not in allowed:
                raise RllcError(f"model.{name} is {getattr(self, name)!r}, which is unknown.", f"Choose one of: {', '.join(allowed)}.")
        if self.positions == "rotary" and (self.turned % 2 or not 0 < self.turned <= self.d_head):
            raise RllcError(
                f"Rotary positions turn an even number of a head's {self.d_head} numbers, and here they would turn {self.turned}.",
                "Give an even d_head, or an even rotary_dim of at most d_head.",
            )
        if self.n_kv_heads < 0 or self.n_heads % self.groups:
            raise RllcError(
                f"model.n_kv_heads is {self.n_kv_heads}, which does not divide the {self.n_heads} heads.", "Give a divisor of n_heads, or 0."
            )
        if len(self.rotary_scaling) not in (0, 1, 4):
            raise RllcError(
                f"model.rotary_scaling is {list(self.rotary_scaling)}, but has one number or four.",
                "Give a factor, or factor, low, high and original context, or none.",
            )
        for name in ("score_scale", "score_softcap", "logit_softcap"):
            if getattr(self, name) < 0:
                raise RllcError(f"model.{name} is {getattr(self, name)}, but must not be negative.", "Give a positive number, or 0 for none.")
        if not set(self.local_layers) <= set(range(self.n_layers)):
            raise RllcError(f"model.local_layers is {list(self.local_layers)}.", f"Give some of the layers 0 to {self.n_layers - 1}, or none.")

    @property
    def groups(self) -> int:
        """G, heads of keys and values."""
        return self.n_kv_heads or self.n_heads

    @property
    def turned(self) -> int:
        """How many numbers of a query or key the rotary positions turn."""
        return self.rotary_dim or self.d_head

    @property
    def scale(self) -> float:
        """What the product of a query and a key is multiplied by."""
        return self.score_scale or self.d_head**-0.5

    @property
    def norms_before(self) -> bool:
        """Whether attention and MLP read the stream past a norm."""
        return self.norm_place != "post"

    @property
    def norms_behind(self) -> bool:
        """Whether what attention and MLP write passes a norm before it is added to the stream."""
        return self.norm_place != "pre"

    @property
    def shares_keys(self) -> bool:
        """Whether several heads share keys and values (grouped-query attention)."""
        return self.groups < self.n_heads

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor, in the order in which they act.

        >>> import math
        >>> sum(math.prod(s) for s in ModelShape().tensors().values())  # the paper's model (METHOD 4)
        3355016
        """
        d, h, k = self.d_model, self.n_heads, self.d_head
        heads = {"Q": h, "K": self.groups, "V": self.groups}
        norms = {"q": (h, k), "k": (self.groups, k)} if self.qk_norm_over == "layer" else {"q": (k,), "k": (k,)}
        mlp = {"W_in": (d, self.d_mlp), "b_in": (self.d_mlp,), "W_out": (self.d_mlp, d), "b_out": (d,)}
        shapes: dict[str, tuple[int, ...]] = {"embed.W_E": (self.d_vocab, d)}
        if self.positions != "rotary":
            shapes["pos.W_pos"] = (self.n_ctx, d)
        for layer in range(self.n_layers):
            block = f"blocks.{layer}."
            shapes |= self._norm(block + "ln1") if self.norms_before else {}
            shapes |= {f"{block}attn.W_{x}": (n, d, k) for x, n in heads.items()}
            if self.qkv_bias:
                shapes |= {f"{block}attn.b_{x}": (n, k) for x, n in heads.items()}
            if self.qk_norm:
                shapes |= {f"{block}attn.{piece}_norm.w": size for piece, size in norms.items()}
            shapes[block + "attn.W_O"] = (h, k, d)
            if self.output_bias:
                shapes[block + "attn.b_O"] = (d,)
            shapes |= self._norm(block + "ln1_post") if self.norms_behind else {}
            if m := self.d_mlp:
                shapes |= self._norm(block + "ln2") if self.norms_before else {}
                if self.gated_mlp:
                    shapes[block + "mlp.W_gate"] = (d, m)
                shapes |= {f"{block}mlp.{name}": size for name, size in mlp.items() if self.mlp_bias or name.startswith("W")}
                shapes |= self._norm(block + "ln2_post") if self.norms_behind else {}
        shapes |= self._norm("ln_final")
        if not self.tied:
            shapes["unembed.W_U"] = (d, self.d_vocab)
        if self.unembed_bias:
            shapes["unembed.b_U"] = (self.d_vocab,)
        return shapes

    def heads(self) -> tuple[Head, ...]:
        """All heads, layer by layer."""
        return tuple(Head(layer, index) for layer in range(self.n_layers) for index in range(self.n_heads))

    def named(self, text: str) -> tuple[Part, ...]:
        """The parts of a name: "heads" for every head, "random" for one random part of every layer, and any part expression for one."""
        if text == "random":
            return tuple(Part.parse(f"{layer}.random0") for layer in range(self.n_layers))
        return tuple(Part.of_head(head.layer, head.index) for head in self.heads()) if text == "heads" else (Part.parse(text),)

    def as_dict(self) -> dict[str, Any]:
        """The shape as JSON-able values. What is beyond the paper's model is there only where it differs, so that older shapes keep their keys."""
        plain = asdict(self) | {name: list(getattr(self, name)) for name in _TUPLES}
        beyond = {f.name: f.default for f in fields(self)[_PAPERS_FIELDS:]}
        return {name: value for name, value in plain.items() if name not in beyond or getattr(self, name) != beyond[name]}

    def difference(self, other: ModelShape) -> str:
        """What is different from another shape, in words."""
        wrong = [f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)]
        return ", ".join(f"{name} is {getattr(self, name)}, not {getattr(other, name)}" for name in wrong)

    def _norm(self, name: str) -> dict[str, tuple[int, ...]]:
        if self.norm.endswith("_pre"):
            return {}
        weight = {name + ".w": (self.d_model,)}
        return weight | {name + ".b": (self.d_model,)} if self.norm == "layernorm" and self.norm_bias else weight
