"""A model whose distribution of the next token takes the place of the labels, whatever library it is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rllc.core.errors import RllcError
from rllc.model.batch import TokenBatch
from rllc.model.forward import against
from rllc.model.shape import ModelShape


@dataclass(frozen=True)
class Reference:
    """Another model: one of ours by its shape and weights, or a module that is called as it is, in evaluation mode."""

    shape: ModelShape | None
    params: Mapping[str, Tensor]
    module: nn.Module | None
    vocabulary: int  # of the model that is held against it; 0 where it is not known

    @classmethod
    def of(cls, model: Any, vocabulary: int) -> Reference:
        """The reference that a user gives: an object with `shape` and `params`, or a module, which is converted where it can be.

        Raises RllcError where it is neither, or contradicts its own config.
        """
        from rllc.checkpoints.importing import NotImportable, import_module

        if isinstance(model, nn.Module):
            try:
                model = import_module(model)
            except NotImportable:
                return cls(None, {}, model, vocabulary)
        shape, params = getattr(model, "shape", None), getattr(model, "params", None)
        if not isinstance(shape, ModelShape) or not isinstance(params, Mapping):
            raise RllcError(f"The reference is a {type(model).__name__}.", "Give a torch module, or an object with `shape` and `params`.")
        return cls(shape, {name: tensor.detach().cpu() for name, tensor in params.items()}, None, vocabulary)

    @torch.no_grad()
    def against(self, batch: TokenBatch) -> TokenBatch:
        """The same predictions held against this model. Raises RllcError where it knows another number of tokens."""
        if self.shape is not None:
            found = against(self.shape, self.params, batch)
        else:
            assert self.module is not None
            found = TokenBatch(batch.tokens, batch.rows, _called(self.module, batch))
        assert found.reference is not None
        if self.vocabulary and found.reference.shape[-1] != self.vocabulary:
            raise RllcError(
                f"The reference predicts {found.reference.shape[-1]} tokens and the model {self.vocabulary}.", "Give a reference of one vocabulary."
            )
        return found


def _called(module: nn.Module, batch: TokenBatch) -> Tensor:
    """Probabilities [n, V] of the predictions that count; every part of the module is afterwards in the mode that it was in."""
    from rllc.checkpoints.calling import language_logits

    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        first = next(module.parameters(), None)
        logits = language_logits(module, batch.tokens if first is None else batch.tokens.to(first.device)).to(batch.tokens.device)
    finally:
        for part, training in before:
            part.training = training
    return batch.picked(logits[:, :-1].flatten(0, 1)).softmax(-1)
