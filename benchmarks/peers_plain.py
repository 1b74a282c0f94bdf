"""The paper's model as a plain torch module, for peers that take any module. It is written for itself, so that equal logits mean something.

`apart=True` gives every head tensors of its own, which is what canonical-interp needs to sample one head: it restricts by whole tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rllc.core.names import Part
from rllc.model.shape import ModelShape
from rllc.model.slices import slices


class Config(NamedTuple):
    """What devinterp reads of a TransformerLens model in order to make its masks."""

    n_heads: int
    d_model: int


class PlainTransformer(nn.Module):
    """Attention-only, LayerNorm, shortformer positions, untied. Raises ValueError for any other member of the family."""

    def __init__(self, shape: ModelShape, params: Mapping[str, Tensor], *, apart: bool = False) -> None:
        super().__init__()
        if shape.d_mlp or shape.tied or shape.positions != "shortformer" or shape.norm != "layernorm":
            raise ValueError("The plain module is the paper's model: attention-only, shortformer positions, LayerNorm, untied.")
        self.shape, self.apart = shape, apart
        self.cfg = Config(shape.n_heads, shape.d_model)
        for name, tensor in params.items():
            heads = self._apart(name)
            for key, value in [(f"{name}.{h}", tensor[h]) for h in range(shape.n_heads)] if heads else [(name, tensor)]:
                self._put(key, nn.Parameter(value.detach().clone()))

    def _put(self, path: str, parameter: nn.Parameter) -> None:
        """Register "blocks.0.attn.W_Q" as a chain of modules, since a parameter's own name holds no dot."""
        *rooms, name = path.split(".")
        module: nn.Module = self
        for room in rooms:
            if not hasattr(module, room):
                module.add_module(room, nn.Module())
            module = getattr(module, room)
        module.register_parameter(name, parameter)

    def _apart(self, name: str) -> bool:
        return self.apart and ".attn." in name and not name.endswith("b_O")

    def _get(self, name: str) -> Tensor:
        if self._apart(name):
            room = self.get_submodule(name)
            return torch.stack([getattr(room, str(h)) for h in range(self.shape.n_heads)])
        room, _, own = name.rpartition(".")
        return getattr(self.get_submodule(room), own)

    def head_names(self, part: Part) -> list[str]:
        """The parameters of a part of whole heads, where heads have tensors of their own."""
        return [f"{s.tensor}.{s.head}" for s in slices(self.shape, part)]

    def to(self, *args: Any, **kwargs: Any) -> PlainTransformer:
        """As always; TransformerLens' own keyword, which devinterp passes to what has a `cfg`, is dropped."""
        kwargs.pop("print_details", None)
        return super().to(*args, **kwargs)

    def forward(self, tokens: Tensor, return_type: str = "logits") -> Tensor:
        """Logits [B, T, V] of tokens [B, T]."""
        assert return_type == "logits"
        shape, length = self.shape, tokens.shape[1]
        x = F.embedding(tokens, self._get("embed.W_E"))
        positions = self._get("pos.W_pos")[:length]
        for layer in range(shape.n_layers):
            v = self._norm(x, f"blocks.{layer}.ln1")
            x = x + self._attention(v + positions, v, f"blocks.{layer}.attn.")
        return self._norm(x, "ln_final") @ self._get("unembed.W_U") + self._get("unembed.b_U")

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (self.shape.d_model,), self._get(name + ".w"), self._get(name + ".b"), self.shape.norm_eps)

    def _attention(self, qk: Tensor, v: Tensor, prefix: str) -> Tensor:
        queries, keys, values = (self._heads(x, prefix, piece) for x, piece in ((qk, "Q"), (qk, "K"), (v, "V")))
        if self.apart:  # the fused kernel has no gradient under torch.compile and vmap together
            scores = queries @ keys.mT * self.shape.d_head**-0.5
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            z = scores.masked_fill(future, float("-inf")).softmax(-1) @ values
        else:
            z = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return z.transpose(1, 2).flatten(-2) @ self._get(prefix + "W_O").flatten(0, 1) + self._get(prefix + "b_O")

    def _heads(self, x: Tensor, prefix: str, piece: str) -> Tensor:
        """[B, T, D] to [B, H, T, K] by one product for all heads."""
        weight = self._get(f"{prefix}W_{piece}").transpose(0, 1).flatten(1)
        return (x @ weight + self._get(f"{prefix}b_{piece}").flatten()).unflatten(-1, (self.shape.n_heads, -1)).transpose(1, 2)
