"""Small modules of every kind, and the general road's answer held against theirs, one plain copy a variant."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

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
