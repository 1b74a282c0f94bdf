"""Where vmap goes, where the loop goes instead, and what is told of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from module_toys import C, Layers, check, made, squares

from rllc.core.errors import RllcError
from rllc.model.module_objective import ModuleObjective

FAILING = {
    "control flow": (lambda h: h if h.sum() > 0 else 2 * h, "data-dependent control flow"),
    "a number": (lambda h: h * h.sum().item(), r"calling \.item\(\) on a Tensor"),
    "numpy": (lambda h: h + float(h.detach().numpy().sum()), "Cannot access data pointer"),
    "shape by value": (lambda h: h * (h > 0).nonzero().shape[0], "dynamic shape"),
    "in place": (lambda h: torch.zeros(8, 5, dtype=h.dtype).add_(h), "broadcast shape"),
}


@pytest.mark.parametrize("kind", FAILING)
def test_the_loop_goes_where_vmap_cannot(kind):
    between, why = FAILING[kind]
    torch.manual_seed(3)
    module, batch = Layers(between).double(), made("mlp")[2]
    objective = ModuleObjective(module, squares, ["fc1.weight", "fc2.weight"])
    check(objective, module, squares, batch)
    assert objective.road == "loop"
    with pytest.raises(RllcError, match=why):
        raise RllcError(objective.why, "")
    with pytest.raises(RllcError, match=r"vmap cannot take this module and loss: .* Let road be auto or loop"):
        ModuleObjective(module, squares, ["fc1.weight"], road="vmap").prepare(batch)


def test_vmap_may_give_up_at_the_gradients_and_the_baseline_then_comes_from_the_loop_too():
    def loss(module, batch):
        plain = squares(module, batch)
        if torch.is_grad_enabled():
            plain.item()
        return plain + (1.0 if torch._C._functorch.is_batchedtensor(plain) else 0.0)

    module, _, batch, names = made("mlp")
    objective = ModuleObjective(module, loss, names)
    context = objective.prepare(batch)
    expected = squares(module, batch).detach().reshape(1)
    probe = objective.evaluate(objective.origin, context, gradients=False)
    torch.testing.assert_close(probe.baseline, expected + 1)
    torch.testing.assert_close(probe.losses, expected + 1)
    found = objective.evaluate(objective.origin, context)
    torch.testing.assert_close(found.baseline, expected)
    torch.testing.assert_close(found.losses, expected)
    assert not found.baseline.requires_grad
    assert ".item()" in objective.why


def test_an_operation_without_a_batching_rule_is_told_and_warns_of_nothing():
    module, batch = Layers(lambda h: torch.renorm(h, 2, 0, 1.0)).double(), made("mlp")[2]
    objective = ModuleObjective(module, squares, ["fc1.weight"])
    check(objective, module, squares, batch)
    assert objective.road == "vmap"
    assert objective.why == "vmap takes one variant at a time through aten::renorm"


def test_other_warnings_of_a_module_are_passed_on():
    def between(h):
        torch.nn.functional.l1_loss(h, h[:1])  # which warns of sizes
        return h

    module, batch = Layers(between), (torch.randn(8, 6), torch.randn(8, 3))
    with pytest.warns(UserWarning, match="target size"):
        ModuleObjective(module, squares, ["fc1.weight"]).prepare(batch)


def test_the_fast_path_of_attention_is_as_it_was_afterwards():
    module, loss, batch, names = made("attention")
    assert torch.backends.mha.get_fastpath_enabled()
    ModuleObjective(module, loss, names).prepare(batch)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_lack_of_memory_is_told_and_not_looped_around():
    def loss(module, batch):
        if torch._C._functorch.is_batchedtensor(module.fc1.weight):
            raise torch.OutOfMemoryError("out of memory")
        return squares(module, batch)

    module, _, batch, names = made("mlp")
    with pytest.raises(torch.OutOfMemoryError):
        ModuleObjective(module, loss, names).prepare(batch)


@pytest.mark.parametrize("road", ["auto", "vmap", "loop"])
def test_a_mistake_of_the_loss_is_its_own(road):
    module, loss, (x, y), names = made("mlp")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ModuleObjective(module, loss, names, road=road).prepare((x[:, :4], y))


def test_random_numbers_are_equal_for_all_variants_and_new_for_every_minibatch():
    module, batch = Layers(nn.Dropout(0.5)).double(), made("mlp")[2]
    objective = ModuleObjective(module, squares, ["fc1.weight", "fc2.bias"], train_mode=True)
    at_origin = {name: tensor.expand(C, *tensor.shape[1:]) for name, tensor in objective.origin.items()}
    contexts = [objective.prepare(batch) for _ in range(2)]
    assert objective.road == "loop"
    assert "random operation" in objective.why
    before = torch.get_rng_state()
    found = [objective.evaluate(at_origin, context) for context in reversed(contexts)]
    assert torch.equal(torch.get_rng_state(), before)
    for one in found:
        assert torch.equal(one.losses, one.baseline)
    assert abs(found[0].baseline[0] - found[1].baseline[0]) > 1e-3
