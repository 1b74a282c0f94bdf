"""The general road against plain modules, one variant after another, in float64."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from module_toys import ATOL, BUILT, ROADS, C, Restless, check, made, squares, varied

from rllc.core.errors import RllcError
from rllc.model.module_objective import ModuleObjective


@pytest.mark.parametrize("kind", BUILT)
@pytest.mark.parametrize(("road", "chunk"), [("auto", 0), ("auto", 2), ("loop", 0)])
def test_losses_and_gradients_are_those_of_plain_modules(kind, road, chunk):
    module, loss, batch, names = made(kind)
    objective = ModuleObjective(module, loss, names, road=road, chunk=chunk)
    assert objective.road == road
    check(objective, module, loss, batch)
    assert objective.road == ("loop" if road == "loop" or kind == "recurrent" else "vmap")
    assert ("lstm" in objective.why) == (road == "auto" and kind == "recurrent")
    assert not (kind == "mlp" and objective.why)


@pytest.mark.parametrize("road", ROADS)
def test_chunks_in_single_precision_give_the_same_numbers(road):
    module, loss, batch, names = made("conv", torch.float32)
    whole = ModuleObjective(module, loss, names, road="vmap")
    variants = varied(whole)
    expected = whole.evaluate(variants, whole.prepare(batch))
    for chunk in (1, 3):
        objective = ModuleObjective(module, loss, names, road=road, chunk=chunk)
        found = objective.evaluate(variants, objective.prepare(batch))
        torch.testing.assert_close(found.losses, expected.losses, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.baseline, expected.baseline, rtol=0, atol=1e-6)


def test_a_chunk_bounds_how_many_variants_exist_at_once():
    module, _, batch, names = made("mlp")
    sizes = []

    def watching(module, batch):
        sizes.append(torch._C._functorch.get_unwrapped(module.fc1.weight).shape[0])
        return squares(module, batch)

    objective = ModuleObjective(module, watching, names, chunk=2, road="vmap")
    objective.evaluate(varied(objective), objective.prepare(batch))
    assert sizes == [1, 2, 2, 2]  # w* once to see whether vmap goes, and then as the last variant


@pytest.mark.parametrize("kind", ["mlp", "conv", "batch norm", "slices"])
@pytest.mark.parametrize(("road", "chunk"), [("vmap", 0), ("vmap", 2), ("loop", 0)])
def test_a_variant_that_is_nan_spoils_only_itself(kind, road, chunk):
    module, loss, batch, names = made(kind)
    objective = ModuleObjective(module, loss, names, road=road, chunk=chunk)
    variants, context = varied(objective), objective.prepare(batch)
    expected = objective.evaluate(variants, context)
    variants[names[0]][3] = torch.nan
    found = objective.evaluate(variants, context)
    others = torch.tensor([0, 1, 2, 4])
    assert found.losses[3].isnan()
    assert torch.equal(found.losses[others], expected.losses[others])
    for name in names:
        assert found.gradients[name][3].isnan().any()
        assert torch.equal(found.gradients[name][others], expected.gradients[name][others])


@pytest.mark.parametrize("n", [50, 100])
def test_the_chunk_comes_from_what_a_variant_keeps(n):
    """tanh(w x): kept are x [n, 20] and the outcome [n, 20], and twice the larger is added for what comes and goes."""
    module = torch.nn.Module()
    module.w = torch.nn.Parameter(torch.full((20,), 0.3))
    batch = torch.randn(n, 20, generator=torch.Generator().manual_seed(0))

    def loss(module, batch):
        return torch.tanh(module.w * batch).mean()

    each = 4 * n * 20 * 4
    budgeted, free, asked = (
        ModuleObjective(module, loss, ["w"], chunk=chunk, budget=budget) for chunk, budget in ((0, 5 * each + 9), (0, 0), (2, 1))
    )
    found = {}
    for objective, chunk in ((budgeted, 5), (free, 0), (asked, 2)):
        variants = varied(objective)
        found[chunk] = objective.evaluate(variants, objective.prepare(batch))
        assert (objective.road, objective.chunk) == ("vmap", chunk)
    for chunk in (5, 2):
        torch.testing.assert_close(found[chunk].losses, found[0].losses, rtol=0, atol=1e-7)
        torch.testing.assert_close(found[chunk].gradients["w"], found[0].gradients["w"], rtol=0, atol=1e-7)
    tight = ModuleObjective(module, loss, ["w"], budget=1)
    tight.evaluate(varied(tight), tight.prepare(batch))
    assert tight.chunk == 1


# --- the module that was handed in


def state(module):
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return (
        {name: (id(t), t.detach().clone(), t.requires_grad, t.grad) for name, t in tensors.items()},
        [(id(m), m.training, list(vars(m))) for m in module.modules()],
    )


def unchanged(module, before):
    tensors, modules = state(module)
    assert modules == before[1]
    for name, (identity, value, wants, grad) in before[0].items():
        assert tensors[name][0] == identity
        assert torch.equal(tensors[name][1], value), name
        assert tensors[name][2] is wants
        assert tensors[name][3] is grad


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("road", ["auto", "loop"])
@pytest.mark.parametrize("kind", ["batch norm", "restless"])
def test_the_module_stays_as_it_is_and_every_pass_starts_from_it(kind, road, train):
    module, loss, batch, names = made("batch norm")
    if kind == "restless":
        module, names = Restless().double(), ["fc1.weight"]
    elif train:
        module[3].p = 0.0  # batch statistics without chance
    module[1].eval() if kind == "batch norm" else module.fc1.eval()  # modes differ
    next(module.parameters()).requires_grad_(False)
    before = state(module)
    objective = ModuleObjective(module, loss, names, road=road, train_mode=train)
    for _ in range(2):
        check(objective, copy.deepcopy(module).requires_grad_(True), loss, batch, train)
    unchanged(module, before)


@pytest.mark.parametrize("road", ["auto", "loop"])
def test_a_pass_that_writes_to_what_is_sampled_changes_no_variant(road):
    batch = made("batch norm")[2]
    objective = ModuleObjective(Restless().double(), squares, ["embed.weight"], road=road)
    variants = varied(objective)
    before = variants["embed.weight"].clone()
    assert before[:, 1].norm(dim=1).min() > 0.1  # what the pass cuts down
    objective.evaluate(variants, objective.prepare(batch))
    assert torch.equal(variants["embed.weight"], before)


def test_training_mode_is_another_loss():
    module, loss, batch, names = made("batch norm")
    module[3].p = 0.0
    evaluated, trained = (ModuleObjective(module, loss, names, train_mode=mode) for mode in (False, True))
    baselines = [one.evaluate(one.origin, one.prepare(batch)).baseline for one in (evaluated, trained)]
    assert abs(baselines[0] - baselines[1]) > 1e-3


def test_what_is_not_sampled_gets_no_gradient_and_needs_no_memory():
    module, _, batch, _ = made("mlp")
    seen = []

    def watching(module, batch):
        seen.append({name: (p.requires_grad, p.data_ptr()) for name, p in module.named_parameters() if name != "fc1.weight"})
        return squares(module, batch)

    objective = ModuleObjective(module, watching, ["fc1.weight"], road="loop")
    objective.evaluate(varied(objective), objective.prepare(batch))
    assert len(seen) == 1 + C
    assert all(found == {name: (False, module.get_parameter(name).data_ptr()) for name in found} for found in seen[1:])


@pytest.mark.parametrize("name", ["fc1.weight", "fc2.bias"])
def test_a_module_that_is_trained_on_is_refused(name):
    module, loss, batch, _ = made("mlp")
    objective = ModuleObjective(module, loss, ["fc1.weight"])
    objective.prepare(batch)
    with torch.no_grad():
        module.get_parameter(name).add_(1)
    with pytest.raises(RllcError, match=f"'{name}' of the module has changed since"):
        objective.prepare(batch)


def test_a_module_that_cannot_be_copied_is_told():
    module, loss, _, names = made("mlp")
    module.kept = module.fc1.weight * 2
    with pytest.raises(RllcError, match="The module cannot be copied: Only Tensors created explicitly"):
        ModuleObjective(module, loss, names)


# --- tied weights


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("names", [["out.weight"], ["embed.weight"], ["embed.weight", "out.weight"], ["out.weight[2:5]"], ["embed.weight[1]"]])
def test_a_tied_weight_is_sampled_once_and_changed_everywhere(road, names):
    module, loss, batch, _ = made("tied")
    objective = ModuleObjective(module, loss, names, road=road)
    other = {"out": "embed.weight", "embed": "out.weight"}[names[0].partition(".")[0]]
    assert objective.tied == {names[0]: (other,)}
    assert list(objective.origin) == [names[0]]
    check(objective, module, loss, batch)


def test_nothing_is_tied_in_another_module():
    module, loss, _, names = made("mlp")
    assert ModuleObjective(module, loss, names).tied == {}


# --- gradients that are not there, numbers that are not one


@pytest.mark.parametrize("road", ROADS)
def test_a_loss_without_a_gradient_is_refused(road):
    module, _, batch, names = made("mlp")
    objective = ModuleObjective(module, lambda module, batch: squares(module, batch).detach(), names, road=road)
    with pytest.raises(RllcError, match="changes with the part but has no gradient"):
        objective.evaluate(varied(objective), objective.prepare(batch))


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("names", [["fc1.weight"], ["fc1.weight", "fc2.bias"]])
def test_the_gradient_of_what_a_loss_does_not_use_is_zero(road, names):
    module, _, batch, _ = made("mlp")
    objective = ModuleObjective(module, lambda module, batch: module.fc2.bias.square().mean() + batch[1].mean(), names, road=road)
    variants = varied(objective)
    found = objective.evaluate(variants, objective.prepare(batch))
    assert torch.equal(found.gradients["fc1.weight"], torch.zeros_like(variants["fc1.weight"]))
    if len(names) == 2:
        torch.testing.assert_close(found.gradients["fc2.bias"], variants["fc2.bias"] * 2 / 3, rtol=0, atol=ATOL)


@pytest.mark.parametrize("road", ROADS)
def test_a_loss_that_is_nan_whatever_the_part_has_a_gradient_of_zero(road):
    module, _, batch, names = made("mlp")
    objective = ModuleObjective(module, lambda _, batch: batch[1].mean() * torch.nan, names, road=road)
    found = objective.evaluate(varied(objective), objective.prepare(batch))
    assert found.losses.isnan().all()
    assert not any(gradient.any() for gradient in found.gradients.values())


LOSSES = {
    "returned a tensor of shape \\[8, 3\\] .* must return one number. Average over": lambda module, batch: (module(batch[0]) - batch[1]) ** 2,
    "returned a tensor of shape \\[\\] and type torch.int64": lambda module, batch: module(batch[0]).argmax(),
    "returned a float, but must return a tensor. Return it without": lambda module, batch: squares(module, batch).item(),
}


@pytest.mark.parametrize("match", LOSSES)
@pytest.mark.parametrize("road", ["auto", "loop"])
def test_a_loss_that_is_no_number_is_told(match, road):
    module, _, batch, names = made("mlp")
    with pytest.raises(RllcError, match=match):
        ModuleObjective(module, LOSSES[match], names, road=road).prepare(batch)


def test_an_unknown_road_is_told():
    module, loss, _, names = made("mlp")
    with pytest.raises(RllcError, match=r"There is no road 'fast'\. Choose one of: auto, vmap, loop"):
        ModuleObjective(module, loss, names, road="fast")


@pytest.mark.parametrize("kind", ["mlp", "slices"])
@pytest.mark.parametrize("road", ROADS)
def test_a_state_in_single_precision_meets_weights_in_half(kind, road):
    module, loss, batch, names = made(kind, torch.bfloat16)
    objective = ModuleObjective(module, loss, names, road=road)
    variants = {name: tensor.float() for name, tensor in varied(objective).items()}
    found = objective.evaluate(variants, objective.prepare(batch))
    assert found.losses.dtype == found.baseline.dtype == torch.float32
    for name in names:
        assert found.gradients[name].dtype == torch.float32
    expected = squares(copy.deepcopy(module), batch).float()
    torch.testing.assert_close(found.baseline, expected.detach().expand(C), rtol=1e-2, atol=0)
