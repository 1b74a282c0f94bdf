"""Any `nn.Module` and its loss, called with other weights than its own; the module itself is left as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from rllc.core.errors import RllcError
from rllc.model.module_part import Piece, one_by_one

Loss = Callable[[nn.Module, Any], Tensor]


class ModuleCall:
    """The loss of a module as a function of a part of its weights and a batch.

    What is called is a copy of the module's structure, with modes and attributes of its own, that shares the memory of its weights. What a
    pass writes to, running statistics for example, starts every time from its value at w*.

    Args:
        module: at w*.
        loss: of the module and a batch.
        part: the pieces that come from outside.
        train_mode: in training mode, not in evaluation mode.

    Raises:
        RllcError: the module cannot be copied.
    """

    def __init__(self, module: nn.Module, loss: Loss, part: Sequence[Piece], train_mode: bool) -> None:
        self._part = part
        self._call = _Call(_twin(module), loss).train(train_mode)
        named = one_by_one([*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)])
        self._versions = [(names[0], tensor, tensor._version) for names, tensor in named if not tensor.is_inference()]
        sampled = {name for piece in part for name in piece.tensors}
        # what a pass may write to, and so gets a copy of: at first everything, then what the first pass was seen to write to
        self._written = [(names, tensor.detach()) for names, tensor in named if names[0] not in sampled]
        self._seen = False

    def tensors(self) -> Iterator[Tensor]:
        """The module's own weights and buffers."""
        return (tensor for _, tensor, _ in self._versions)

    def check_unchanged(self) -> None:
        """Raises RllcError where the module is no longer at w*."""
        for name, tensor, version in self._versions:
            if tensor._version != version:
                raise RllcError(
                    f"{name!r} of the module has changed since the objective was built.", "Build it anew, or give it a copy of the module."
                )

    def losses(self, values: Mapping[str, Tensor], batch: Any, *, vmapped: bool) -> Tensor:
        """The losses [c] of variants [c, ...] under vmap, else the loss of one; in fp32 at least.

        Raises:
            RllcError: the loss is not one number.
        """
        copies = [(names, tensor, tensor.clone()) for names, tensor in self._written]
        replaced = {"module." + name: changed for names, _, changed in copies for name in names}

        def one(values: Mapping[str, Tensor]) -> Tensor:
            tensors = dict(replaced)
            for piece in self._part:
                names = ["module." + name for name in piece.tensors]
                whole = piece.put(tensors.get(names[0], piece.whole), values[piece.name])
                tensors |= dict.fromkeys(names, whole)
            return _checked(functional_call(self._call, tensors, (batch,), tie_weights=False))

        with _one_kernel():
            losses = vmap(one)(values) if vmapped else one(values)
        if not self._seen:
            self._written = [(names, tensor) for names, tensor, after in copies if after._version or not torch.equal(tensor, after)]
            self._seen = True
        return losses


class _Call(nn.Module):
    """The loss as the forward pass of a module, which is what `functional_call` calls."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, batch: Any) -> Any:
        return self.loss(self.module, batch)


def _twin(module: nn.Module) -> nn.Module:
    """A copy of the module in everything but its parameters and buffers, whose memory it shares; nothing in it wants a gradient."""
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    shared |= {id(buffer): buffer.detach() for buffer in module.buffers()}
    try:
        return copy.deepcopy(module, shared)
    except Exception as error:
        raise RllcError(f"The module cannot be copied: {error}", "Give one that copy.deepcopy takes; call it once under no_grad before.") from error


@contextmanager
def _one_kernel() -> Iterator[None]:
    """Without torch's fast path of attention, which is taken without gradients only: the baseline would come from another kernel, and vmap fails."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _checked(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor):
        raise RllcError(f"The loss returned a {type(loss).__name__}, but must return a tensor.", "Return it without .item() or float().")
    if loss.ndim or not loss.is_floating_point():
        raise RllcError(
            f"The loss returned a tensor of shape {list(loss.shape)} and type {loss.dtype}, but must return one number.", "Average over the batch."
        )
    return loss.to(torch.promote_types(loss.dtype, torch.float32))
