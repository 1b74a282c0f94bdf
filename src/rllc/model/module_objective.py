"""The general road (DESIGN, The engine): the loss of C variants of a part of any `nn.Module`, an MLP, a convolutional net, a model with no adapter.

The module is called as it is, by `torch.func.functional_call`, with the variants' tensors in place of its own: all variants at once under
`vmap`, or one after another where vmap cannot go. One backward pass of the summed losses serves all variants, since each loss depends on its
own tensors alone: on small MLPs that is faster than `vmap(grad)`, the more so the fewer the variants, and it calls the same operations as the
loop. Both roads give the same numbers up to rounding.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from rllc.core.errors import RllcError
from rllc.model.module_call import Loss, ModuleCall
from rllc.model.module_part import pieces
from rllc.model.objective import Evaluation

if TYPE_CHECKING:
    from jaxtyping import Float

ROADS = ("auto", "vmap", "loop")
Result = TypeVar("Result")
_SLOW_OPERATION = re.compile(r"There is a performance drop because we have not yet implemented the batching rule for ([\w:.]+\w)")


@dataclass(frozen=True)
class ModuleContext:
    """One minibatch.

    Args:
        batch: as it was given.
        random: where torch's generators stood if module or loss draw from them, so that w* and all variants draw the same numbers.
        baseline: the loss at the checkpoint, [P = 1], in nats, by the loop. None under vmap: there w* is taken along as one more variant, which
            is cheaper than a pass of its own and goes through the same kernels.
    """

    batch: Any
    random: tuple[Tensor, ...] = ()
    baseline: Float[Tensor, " 1"] | None = None


class ModuleObjective:
    """A part of any module and a loss, in the two calls of the sampling protocol; P is 1.

    The module is left as it is (`ModuleCall`), and shares its weights: change them only when the objective is done with.

    Args:
        module: at w*, on the device of the batches.
        loss: of the module and a batch, in nats, a mean over the batch: a tensor of no axis. It must use the module that it is given.
        names: the part, as `module_part` reads it: "fc1.weight", or "fc1.weight[:, 64:128]" for a slice.
        chunk: at most so many variants are computed at once under vmap; 0 for all, or for as many as `budget` allows.
        budget: bytes that a pass may keep for its backward pass, from which the chunk is then found; 0 for any number. One variant is called once,
            at w*, to see what it keeps.
        road: "auto" tries vmap and takes the loop where that fails, "vmap" and "loop" insist.
        train_mode: evaluate the module in training mode, with dropout and batch statistics, and not in evaluation mode.

    Attributes:
        origin: w*, [1, ...] a name.
        tied: of tensors with several names, which are sampled once and changed everywhere, the other names.
        road: the road taken; "auto" until the first minibatch.
        why: what kept vmap from going, or slows it; empty if nothing did.

    Raises:
        RllcError: there is no such part, or the module cannot be copied.
    """

    def __init__(
        self, module: nn.Module, loss: Loss, names: Sequence[str], *, chunk: int = 0, budget: int = 0, road: str = "auto", train_mode: bool = False
    ) -> None:
        if road not in ROADS:
            raise RllcError(f"There is no road {road!r}.", f"Choose one of: {', '.join(ROADS)}.")
        part = pieces(module, names)
        self.origin: dict[str, Float[Tensor, "1 ..."]] = {piece.name: piece.value for piece in part}
        self.tied = {piece.name: piece.tensors[1:] for piece in part if len(piece.tensors) > 1}
        self.chunk, self.road, self.why, self._asked = chunk, road, "", road
        self._budget = 0 if chunk else budget
        self._device = part[0].whole.device
        self._call = ModuleCall(module, loss, part, train_mode)
        self._tried = False
        self._slow: set[str] | None = None  # operations without a batching rule; None until they have been looked for

    def prepare(self, batch: Any) -> ModuleContext:
        """The baseline of a minibatch, or the promise of one. Nothing else of it is common to all variants of a module that one cannot look into.

        Raises:
            RllcError: the module has changed, or its loss is not one number.
        """
        self._call.check_unchanged()
        if self._tried and self.road == "vmap":
            return ModuleContext(batch)
        before = self._generators()
        baseline = self._taken(partial(self._baseline, batch))
        self._tried = True
        if self.road == "vmap":
            return ModuleContext(batch)
        drawn = any(not torch.equal(a, b) for a, b in zip(before, self._generators(), strict=True))
        return ModuleContext(batch, before if drawn else (), baseline)

    def evaluate(self, variants: Mapping[str, Float[Tensor, "C ..."]], context: ModuleContext, *, gradients: bool = True) -> Evaluation:
        """Losses and gradients of C variants, [C, ...] a name of `origin`; losses in fp32 at least.

        Raises:
            RllcError: vmap was insisted on and cannot go, or the loss has no gradient.
        """
        with self._same_draws(context):
            if self._budget and self.road == "vmap" and gradients:
                self.chunk = max(1, self._budget // max(1, self._kept(context)))
                self._budget = 0
            return self._taken(partial(self._evaluate, variants, context, gradients))

    @torch.no_grad()
    def _baseline(self, batch: Any, road: str) -> Float[Tensor, " 1"]:
        at_origin = {name: t if road == "vmap" else t[0] for name, t in self.origin.items()}
        return self._call.losses(at_origin, batch, vmapped=road == "vmap").reshape(1)

    def _evaluate(self, variants: Mapping[str, Tensor], context: ModuleContext, gradients: bool, road: str) -> Evaluation:
        """By vmap a chunk at a time and w* the last of all, in the loop one variant after another."""
        count, vmapped = len(next(iter(variants.values()))), road == "vmap"
        rows = count + 1 if vmapped else count
        size = (self.chunk or rows) if vmapped else 1
        losses: list[Tensor] = []
        found: list[Sequence[Tensor]] = []
        connected = False
        for start in range(0, rows, size):
            self._restart(context.random)
            which = slice(start, min(start + size, rows)) if vmapped else start
            values = {name: self._copy(name, t, which).requires_grad_(gradients) for name, t in variants.items()}
            with torch.set_grad_enabled(gradients):
                block = self._call.losses(values, context.batch, vmapped=vmapped)
            losses.append(block.detach().reshape(-1))
            connected |= block.requires_grad
            if gradients:
                each = _gradients(block, list(values.values()))
                found.append(each if vmapped else [gradient[None] for gradient in each])
        every = _joined(losses)
        # without a baseline in the loop, vmap gave up after this minibatch was prepared
        baseline = every[count:] if vmapped else self._baseline(context.batch, road) if context.baseline is None else context.baseline
        if gradients and not connected and not torch.allclose(every, baseline, rtol=1e-5, atol=0.0, equal_nan=True):
            raise RllcError("The loss changes with the part but has no gradient.", "Compute it without no_grad, detach and numpy.")
        named = dict(zip(variants, (_joined(blocks)[:count] for blocks in zip(*found, strict=True)), strict=True)) if gradients else None
        return Evaluation(every[:count], named, baseline.expand(count))

    def _kept(self, context: ModuleContext) -> int:
        """Bytes that one variant keeps for its backward pass: what lies behind the part, and twice the largest piece for what comes and goes."""
        held: dict[int, int] = {}

        def seen(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
            return tensor

        own = {tensor.untyped_storage().data_ptr() for tensor in self._call.tensors()}
        self._restart(context.random)
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
            # the loss is kept until the count, so that no memory is given out twice
            loss = self._call.losses({name: t[0].clone().requires_grad_() for name, t in self.origin.items()}, context.batch, vmapped=False)
        sizes = [size for pointer, size in held.items() if pointer not in own]
        del loss
        return sum(sizes) + 2 * max(sizes, default=0)

    def _copy(self, name: str, variants: Tensor, which: slice | int) -> Tensor:
        """Of one variant or of several, w* coming after the last."""
        own = variants[which].detach()
        return torch.cat([own, self.origin[name].to(own)]) if isinstance(which, slice) and which.stop > len(variants) else own.clone()

    def _taken(self, work: Callable[[str], Result]) -> Result:
        """By vmap while that goes, then by the loop, whose own error is then one of the loss."""
        if self.road == "loop":
            return work("loop")
        try:
            with self._slow_operations():
                result = work("vmap")
        except (RllcError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            problem = error
        else:
            self.road = "vmap"
            return result
        result = work("loop")
        told = str(problem).strip().splitlines()[:1] or [type(problem).__name__]
        if self._asked == "vmap":
            raise RllcError(f"vmap cannot take this module and loss: {told[0]}", "Let road be auto or loop.") from problem
        self.road, self.why = "loop", told[0]
        return result

    @contextmanager
    def _slow_operations(self) -> Iterator[None]:
        """Tell in `why`, once, what torch warns of at every call: that vmap goes, but through some operation one variant at a time."""
        if self._slow is not None and not self._slow:
            yield
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        matches = [_SLOW_OPERATION.match(str(warning.message)) for warning in caught]
        self._slow = (self._slow or set()) | {match[1] for match in matches if match}
        self.why = f"vmap takes one variant at a time through {', '.join(sorted(self._slow))}" if self._slow else ""
        for warning in (warning for warning, match in zip(caught, matches, strict=True) if not match):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)

    def _generators(self) -> tuple[Tensor, ...]:
        cuda = (torch.cuda.get_rng_state(self._device),) if self._device.type == "cuda" else ()
        return torch.get_rng_state(), *cuda

    def _same_draws(self, context: ModuleContext) -> Any:
        devices = [self._device] if self._device.type == "cuda" else []
        return torch.random.fork_rng(devices) if context.random else nullcontext()

    def _restart(self, random: tuple[Tensor, ...]) -> None:
        for state, put in zip(random, (torch.set_rng_state, partial(torch.cuda.set_rng_state, device=self._device)), strict=False):
            put(state)


def _joined(blocks: Sequence[Tensor]) -> Tensor:
    return blocks[0] if len(blocks) == 1 else torch.cat(list(blocks))


def _gradients(losses: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
    """Of each variant's own loss; zero where a loss does not depend on a tensor, an expert that no token went to for example."""
    if not losses.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return torch.autograd.grad(losses.sum(), leaves, allow_unused=True, materialize_grads=True)
