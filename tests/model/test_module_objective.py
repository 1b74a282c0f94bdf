"""The general road against plain modules, one variant after another, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from rllc.core.errors import RllcError
from rllc.model.module_objective import ModuleObjective

C, ATOL = 5, 1e-10
ROADS = ("vmap", "loop")


def squares(module, batch):
    return (module(batch[0]) - batch[1]).square().mean()


class Layers(nn.Module):
    """Two linear layers with anything between them."""

    def __init__(self, between=torch.tanh):
        super().__init__()
        self.fc1, self.between, self.fc2 = nn.Linear(6, 5), between, nn.Linear(5, 3)

    def forward(self, x):
        return self.fc2(self.between(self.fc1(x)))


class Tied(nn.Module):
    """An embedding that is its own unembedding."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x):
        return self.out(torch.tanh(self.embed(x)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.cell(x.view(-1, 3, 2))[0][:, -1])


def convolutional():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))


def normed():
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3))


def attentive():
    return nn.Sequential(nn.Unflatten(1, (3, 2)), nn.TransformerEncoderLayer(2, 2, 4, batch_first=True), nn.Flatten(), nn.Linear(6, 3))


def entropy(module, batch):
    return F.cross_entropy(module(batch[0]), batch[1])


BUILT = {
    "mlp": (Layers, ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]),
    "one tensor": (Layers, ["fc2.bias"]),
    "slices": (Layers, ["fc1.weight[:, 1:3]", "fc2.weight[2]", "fc1.weight[0:2, 4]", "fc1.bias"]),
    "conv": (convolutional, ["0.weight", "0.bias", "3.weight"]),
    "batch norm": (normed, ["0.weight", "1.weight", "1.bias"]),
    "attention": (attentive, ["1.self_attn.in_proj_weight[2:4]", "1.norm1.weight"]),
    "tied": (Tied, ["out.weight"]),
    "recurrent": (Recurrent, ["cell.weight_hh_l0", "cell.bias_ih_l0"]),
}


def made(kind, dtype=torch.float64):
    """Module, loss, batch and part, all of it random."""
    torch.manual_seed(3)
    build, names = BUILT[kind]
    module = build().to(dtype)
    for tensor in [*module.parameters(), *(buffer for buffer in module.buffers() if buffer.is_floating_point())]:
        tensor.data += 0.3 * torch.rand_like(tensor)
    if kind == "tied":
        return module, entropy, (torch.randint(0, 7, (8,)), torch.randint(0, 7, (8,))), names
    x = torch.randn(8, 1, 8, 8, dtype=dtype) if kind == "conv" else torch.randn(8, 6, dtype=dtype)
    return module, squares, (x, torch.randn(8, 3, dtype=dtype)), names


def varied(objective, count=C, scale=0.2):
    generator = torch.Generator().manual_seed(5)
    return {
        name: (tensor + scale * torch.randn(count, *tensor.shape[1:], generator=generator, dtype=torch.float64)).to(tensor.dtype)
        for name, tensor in objective.origin.items()
    }


def plainly(module, loss, batch, values, train=False):
    """Loss and gradients of one variant: the weights written into a copy of the module, and `backward`."""
    one = copy.deepcopy(module).train(train)
    one.zero_grad()

    def of(name, grad=False):
        tensor, _, inside = name.partition("[")
        whole = one.get_parameter(tensor)
        whole = whole.grad if grad else whole.data
        return whole[eval(f"__import__('numpy').s_[{inside}")] if inside else whole

    for name, value in values.items():
        of(name)[...] = value
    found = loss(one, batch)
    found.backward()
    return found.detach(), {name: of(name, True).clone() for name in values}


def check(objective, module, loss, batch, train=False):
    variants = varied(objective)
    context = objective.prepare(batch)
    found = objective.evaluate(variants, context)
    at_origin, _ = plainly(module, loss, batch, {name: tensor[0] for name, tensor in objective.origin.items()}, train)
    torch.testing.assert_close(found.baseline, at_origin.expand(C), rtol=0, atol=ATOL)
    assert found.losses.std() > 1e-3  # there is something to compare
    for c in range(C):
        value, gradients = plainly(module, loss, batch, {name: tensor[c] for name, tensor in variants.items()}, train)
        torch.testing.assert_close(found.losses[c], value, rtol=0, atol=ATOL)
        for name, gradient in gradients.items():
            torch.testing.assert_close(found.gradients[name][c], gradient, rtol=0, atol=ATOL)
    probe = objective.evaluate(variants, context, gradients=False)
    assert probe.gradients is None
    assert not probe.losses.requires_grad
    torch.testing.assert_close(probe.losses, found.losses, rtol=0, atol=ATOL)


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


class Restless(nn.Module):
    """Writes in every pass to a buffer, an attribute, a frozen weight of its own and one of an embedding."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.embed = nn.Linear(6, 5), nn.Linear(5, 3), nn.Embedding(4, 5, max_norm=0.1)
        self.register_buffer("passes", torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        self.passes.add_(1)
        self.last = self.fc1(x) * self.passes
        self.fc2.weight.data.div_(self.fc2.weight.data.norm())
        return self.fc2(self.last + self.embed(torch.tensor([1])))


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


# --- where vmap cannot go

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
