"""What must be true of an estimate, whatever the samples: the model's room and the sampler's together, in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rllc.core.names import Part
from rllc.model.forward import init_params, losses
from rllc.model.objective import build_objective
from rllc.model.shape import ModelShape
from rllc.posterior.chains import run_chains
from rllc.posterior.estimate import paired, standard_error
from rllc.posterior.result import assess
from rllc.posterior.settings import SamplerSettings

SHAPE = ModelShape(n_layers=2, d_model=12, n_heads=3, d_head=5, d_vocab=23, n_ctx=10)
SETTINGS = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=2, draws=12, burn_in=4)
SEEDS = {h: [100 + h, 200 + h] for h in range(SHAPE.n_heads)}


def trained(shape, steps=300):
    """A small model that has learnt to repeat: every sequence is one random half, twice."""
    weights = {name: tensor.requires_grad_() for name, tensor in init_params(shape, 0).items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-2)
    for step in range(steps):
        loss = losses(shape, weights, repeated(shape, 8, step))[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in weights.items()}


def repeated(shape, n, seed):
    half = torch.randint(0, shape.d_vocab, (n, shape.n_ctx // 2), generator=torch.Generator().manual_seed(seed))
    return torch.cat([half, half], 1)


@pytest.fixture
def params():
    weights = init_params(SHAPE, 0, torch.float64)
    return {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1), dtype=tensor.dtype)
        for name, tensor in weights.items()
    }


def batches(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, SHAPE.d_vocab, (3, SHAPE.n_ctx), generator=generator) for _ in range(SETTINGS.steps + 1)]


def sampled(params, parts, seeds, settings=SETTINGS, chunk=0):
    objective = build_objective(SHAPE, params, tuple(Part.parse(part) for part in parts), chunk)
    return run_chains(objective, objective.origin, batches(), settings, seeds)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("piece", ["Q", "K", "V"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_zeroed_frozen_output_gives_exactly_zero(params, layer, piece, dtype):
    params = {name: tensor.to(dtype) for name, tensor in params.items()}
    params[f"blocks.{layer}.attn.W_O"][1] = 0.0
    traces = sampled(params, [f"{layer}:1.{piece}"], [SEEDS[1]])
    assert traces.sq_distance[..., -1].min() > 0
    (result,) = assess(traces)
    assert result.estimate is not None
    assert result.estimate.llc == 0.0
    assert (paired(traces) == 0).all()


@pytest.mark.parametrize("layer", [0, 1])
def test_permuting_heads_permutes_their_estimates(params, layer):
    order = [2, 0, 1]  # head h of the permuted model is head order[h] of the model
    prefix = f"blocks.{layer}.attn."
    permuted = dict(params)
    for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V"):
        permuted[prefix + name] = params[prefix + name][order]
    heads = [f"{layer}:{h}" for h in range(SHAPE.n_heads)]
    before = [result.estimate.llc for result in assess(sampled(params, heads, [SEEDS[h] for h in range(3)]))]
    after = [result.estimate.llc for result in assess(sampled(permuted, heads, [SEEDS[h] for h in order]))]
    np.testing.assert_allclose(after, [before[h] for h in order], rtol=1e-9)
    assert np.ptp(before) > 1e-3 * np.abs(before).max()


@pytest.mark.parametrize("parts", [["0:0", "0:1", "0:2"], ["1:0.V", "1:2.V"], ["full"], ["0:1+1:2"]])
@pytest.mark.parametrize("chunk", [1, 3])
def test_batched_chains_equal_looped_chains(params, parts, chunk):
    seeds = [SEEDS[h] for h in range(len(parts))]
    together = sampled(params, parts, seeds, chunk=chunk)
    one = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=1, draws=12, burn_in=4)
    for p, part in enumerate(parts):
        for chain in range(2):
            alone = sampled(params, [part], [[seeds[p][chain]]], one)
            np.testing.assert_allclose(together.losses[p, chain], alone.losses[0, 0], rtol=0, atol=1e-10)
            np.testing.assert_allclose(together.sq_distance[p, chain], alone.sq_distance[0, 0], rtol=1e-10)


def test_the_chunk_moves_no_loss_of_a_whole_run_beyond_rounding(params):
    single = {name: tensor.float() for name, tensor in params.items()}
    heads = ["1:0", "1:1", "1:2"]
    seeds = [SEEDS[h] for h in range(3)]
    whole = sampled(single, heads, seeds)
    for chunk in (1, 2, 4):
        np.testing.assert_allclose(sampled(single, heads, seeds, chunk=chunk).losses, whole.losses, rtol=0, atol=1e-6)


def test_bf16_products_move_an_estimate_by_less_than_a_quarter_of_its_error():
    """Issue of the engine: a whole run on a trained model, with the same noise and minibatches. Without rounding nothing would move."""
    shape = ModelShape(n_layers=2, d_model=32, n_heads=4, d_head=8, d_vocab=40, n_ctx=24)
    weights = trained(shape)
    assert losses(shape, weights, repeated(shape, 64, 999))[0] < 0.97 * math.log(shape.d_vocab)
    settings = replace(SETTINGS, chains=4, draws=40, burn_in=10)
    parts = tuple(Part.of_head(0, h) for h in range(2))
    found = []
    for products in (torch.float32, torch.bfloat16):
        objective = build_objective(shape, weights, parts, 0, products)
        data = (repeated(shape, 6, 1000 + step) for step in range(settings.steps + 1))
        series = paired(run_chains(objective, objective.origin, data, settings, [[10 * h + c for c in range(4)] for h in range(2)]))
        found.append((series.mean(axis=(1, 2)), standard_error(series)[0]))
    (exact, error), (short, _) = found
    assert (error < 0.5 * np.abs(exact)).all()
    assert (np.abs(short - exact) < error / 4).all()
    assert (short != exact).all()
