"""The general road meets the sampler: whatever the road and the chunk, the same noise gives the same trace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from rllc.core.names import Part
from rllc.model import forward as fw
from rllc.model.module_objective import ModuleObjective
from rllc.model.objective import build_objective
from rllc.model.shape import ModelShape
from rllc.model.slices import slices
from rllc.posterior.chains import run_chains
from rllc.posterior.protocol import Evaluated, Originated
from rllc.posterior.settings import SamplerSettings

SETTINGS = SamplerSettings("sgld", step_size=1e-3, localization=100.0, nbeta=30.0, chains=4, draws=6, burn_in=1)
SEEDS = [[7, 11, 13, 17]]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-6}  # nats
PARTS = {
    "mlp": ["1.weight", "1.bias", "3.weight"],
    "slices": ["1.weight[:, 2:9]", "3.weight[1]"],
    "conv": ["0.weight", "2.weight"],
}


def entropy(module, batch):
    return F.cross_entropy(module(batch[0]), batch[1])


def objective(kind, dtype, **how):
    torch.manual_seed(2)
    head = nn.Conv2d(1, 2, 2) if kind == "conv" else nn.Flatten()
    layers = [nn.Tanh(), nn.Conv2d(2, 3, 2), nn.Flatten()] if kind == "conv" else [nn.Linear(16, 9), nn.BatchNorm1d(9), nn.Linear(9, 4)]
    return ModuleObjective(nn.Sequential(head, *layers).to(dtype), entropy, PARTS[kind], **how)


def batches(dtype):
    generator = torch.Generator().manual_seed(4)
    for _ in range(SETTINGS.steps + 1):
        x = torch.randn(10, 1, 4, 4, generator=generator, dtype=torch.float64)
        yield x.to(dtype), torch.randint(0, 4, (10,), generator=generator)


def sampled(kind, dtype, settings=SETTINGS, seeds=SEEDS, **how):
    one = objective(kind, dtype, **how)
    return run_chains(one, one.origin, batches(dtype), settings, seeds)


def same(found, expected, dtype):
    for name in ("losses", "baseline"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=TOLERANCE[dtype], err_msg=name)
    np.testing.assert_allclose(found.sq_distance, expected.sq_distance, rtol=100 * TOLERANCE[dtype])


def test_it_is_what_the_sampler_asks_for():
    one = objective("mlp", torch.float64)
    assert isinstance(one, Originated)
    assert isinstance(one.evaluate(one.origin, one.prepare(next(batches(torch.float64)))), Evaluated)


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_vmap_loop_and_chunks_give_the_same_trace_from_the_same_noise(kind, dtype):
    expected = sampled(kind, dtype, road="vmap")
    assert expected.sq_distance[..., -1].min() > 0
    assert np.abs(np.diff(expected.losses, axis=1)).max() > 1e-3  # chains differ by much more than the tolerance
    for how in ({"road": "loop"}, {"road": "auto", "chunk": 1}, {"road": "vmap", "chunk": 3}):
        same(sampled(kind, dtype, **how), expected, dtype)


@pytest.mark.parametrize("road", ["vmap", "loop"])
def test_a_chain_draws_the_same_alone(road):
    together = sampled("mlp", torch.float64, road=road)
    for c, seed in enumerate(SEEDS[0][:2]):
        alone = sampled("mlp", torch.float64, replace(SETTINGS, chains=1), [[seed]], road="loop")
        np.testing.assert_allclose(together.losses[0, c], alone.losses[0, 0], rtol=0, atol=1e-10)


class Poisoned(ModuleObjective):
    """From the second evaluation on, the weights of chain 2 are no numbers."""

    evaluations = 0

    def evaluate(self, variants, context, *, gradients=True):
        self.evaluations += 1
        if self.evaluations > 1:
            for tensor in variants.values():
                tensor[2] = torch.nan
        return super().evaluate(variants, context, gradients=gradients)


@pytest.mark.parametrize("road", ["vmap", "loop"])
def test_a_chain_that_is_lost_leaves_the_others_as_they_are(road):
    healthy = objective("mlp", torch.float32, road=road)
    sick = objective("mlp", torch.float32, road=road)
    sick.__class__ = Poisoned
    expected, found = (run_chains(one, one.origin, batches(torch.float32), SETTINGS, SEEDS) for one in (healthy, sick))
    assert np.isnan(found.losses[0, 2, 1:]).all()
    others = [0, 1, 3]
    np.testing.assert_array_equal(found.losses[0, others], expected.losses[0, others])
    np.testing.assert_array_equal(found.sq_distance[0, others], expected.sq_distance[0, others])


class Transformer(nn.Module):
    """The model of the engine as anybody would write it: one forward pass, whole logits, autograd."""

    def __init__(self, shape, params):
        super().__init__()
        self.shape = shape
        for name, tensor in params.items():
            self.register_parameter(name.replace(".", "_"), nn.Parameter(tensor.clone()))

    def forward(self, tokens):
        params = {name: getattr(self, name.replace(".", "_")) for name in self.shape.tensors()}
        return fw.token_losses(self.shape, params, tokens).mean()


@pytest.mark.parametrize("layer", [0, 1])
def test_every_road_of_a_transformer_gives_the_same_trace(layer):
    """The engine in one pass and in chunks, vmap over the whole module, and the loop over its chains, from the same noise on the same minibatches."""
    shape = ModelShape(n_layers=2, d_model=12, n_heads=3, d_head=4, d_vocab=19, n_ctx=8)
    g = torch.Generator().manual_seed(3)
    params = {n: t + 0.2 * torch.randn(t.shape, generator=g, dtype=t.dtype) for n, t in fw.init_params(shape, 0, torch.float64).items()}
    part = Part.of_head(layer, 1)
    names = [f"{s.tensor.replace('.', '_')}[{s.head}]" for s in slices(shape, part)]
    tokens = [torch.randint(0, 19, (3, 8), generator=g) for _ in range(SETTINGS.steps + 1)]

    def module_loss(module, batch):
        return module(batch)

    roads = {
        "one pass": build_objective(shape, params, (part,), 0),
        "chunks": build_objective(shape, params, (part,), 3),
        "vmap": ModuleObjective(Transformer(shape, params), module_loss, names, road="vmap"),
        "loop": ModuleObjective(Transformer(shape, params), module_loss, names, road="loop"),
    }
    traces = {name: run_chains(one, one.origin, tokens, SETTINGS, SEEDS) for name, one in roads.items()}
    for name in ("chunks", "vmap", "loop"):
        same(traces[name], traces["one pass"], torch.float64)
        np.testing.assert_allclose(traces[name].gradient_dot, traces["one pass"].gradient_dot, rtol=0, atol=1e-9, err_msg=name)
    assert np.ptp(traces["one pass"].losses[..., -1]) > 1e-6
