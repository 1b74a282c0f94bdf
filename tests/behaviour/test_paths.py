from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import rllc.behaviour.inputs as inputs
from rllc.behaviour.ablation import ablation_effects
from rllc.behaviour.logits import logit_attribution, ov_table
from rllc.behaviour.paths import Edge, direct_effects, edges, path_effects
from rllc.core.errors import RllcError
from rllc.core.names import Head

from . import planted_models as planted
from .shapes import ALONE, SHAPES, hooked_losses, some_tokens, untouched, weights

TOKENS, REFERENCE = some_tokens(3, 0, 8), some_tokens(4, 1)
PATHS = (
    *(Edge(Head(0, 1), Head(1, 2), inputs) for inputs in ("Q", "K", "V", "QK", "QKV")),
    *(Edge(Head(0, 3), Head(2, 0), inputs) for inputs in ("Q", "K", "V")),
    Edge(Head(1, 0), Head(2, 1), "K"),
)


def recorded(shape, params, tokens):
    seen = {}
    hooked_losses(shape, params, tokens, lambda name, layer, value: seen.setdefault((name, layer), value))
    return seen


def by_hooks(shape, params, edge, instead):
    """The definition with hooks: up to the receiver everything is what the clean pass had; behind it the model runs on."""
    clean = recorded(shape, params, TOKENS)
    target = edge.receiver

    def hook(name, layer, value):
        if layer < target.layer and name in ("out", "mlp"):
            return clean[name, layer]
        if layer == target.layer and name.upper() in edge.inputs and len(name) == 1:
            value = value.clone()
            value[:, target.index] += (instead - clean["out", edge.sender.layer])[:, edge.sender.index]
        if layer == target.layer and name == "out":
            kept = clean[name, layer].clone()
            kept[:, target.index] = value[:, target.index]
            return kept
        return value

    return hooked_losses(shape, params, TOKENS, hook) - hooked_losses(shape, params, TOKENS, untouched)


@pytest.mark.parametrize("name", ALONE)
def test_paths_are_what_hooks_on_a_plain_pass_give(name):
    shape = SHAPES[name]
    params = weights(shape)
    effects = path_effects(shape, params, TOKENS, PATHS, "mean", REFERENCE)
    elsewhere = recorded(shape, params, REFERENCE[:, :8])
    slow = [by_hooks(shape, params, e, elsewhere["out", e.sender.layer].mean(0, keepdim=True)) for e in PATHS]
    assert all(np.abs(effect).max() > 1e-4 for effect in effects)
    assert all(np.abs(a - b).max() > 1e-4 for a, b in pairwise(effects))
    np.testing.assert_allclose(effects, slow, atol=1e-10)


@pytest.mark.parametrize("name", ALONE)
def test_paths_to_the_logits_are_what_hooks_on_the_last_stream_give(name):
    shape = SHAPES[name]
    params = weights(shape)
    clean = recorded(shape, params, TOKENS)
    base = hooked_losses(shape, params, TOKENS, untouched)
    slow = [
        hooked_losses(shape, params, TOKENS, lambda n, _, value, h=h: value - clean["out", h.layer][:, h.index] if n == "final" else value) - base
        for h in shape.heads()
    ]
    effects = direct_effects(shape, params, TOKENS)
    assert np.abs(effects).max(axis=(1, 2)).min() > 1e-3
    np.testing.assert_allclose(effects, slow, atol=1e-10)


@pytest.mark.parametrize("name", ["shortformer", "neox"])
def test_a_last_layer_head_has_no_path_but_the_direct_one(name):
    shape = SHAPES[name]  # with no MLP behind the last attention
    params = weights(shape)
    for kind in ("zero", "resample"):
        direct, all_of_it = (f(shape, params, TOKENS, kind)[8:] for f in (direct_effects, ablation_effects))
        np.testing.assert_allclose(direct, all_of_it, atol=1e-10)


def test_where_one_head_is_all_that_reads_a_sender_the_path_is_the_senders_whole_ablation():
    model = planted.induction_model()
    tokens = planted.repeats(6, np.random.default_rng(0))
    edge = Edge(model.heads["previous"], model.heads["induction"])
    path = path_effects(model.shape, model.params, tokens, [edge])[0]
    np.testing.assert_allclose(path, ablation_effects(model.shape, model.params, tokens)[1], atol=1e-4)


def test_the_induction_circuit_runs_through_its_k_edge_alone():
    model = planted.induction_model()
    tokens = planted.repeats(6, np.random.default_rng(0))
    every = edges(model.shape)
    effects = path_effects(model.shape, model.params, tokens, every)
    carrying = every.index(Edge(model.heads["previous"], model.heads["induction"], "K"))
    assert effects[carrying, :, 8:].mean() > 2
    assert np.abs(effects[carrying, :, :8]).max() < 1e-3
    assert np.abs(np.delete(effects, carrying, 0)).max() < 1e-3
    direct = direct_effects(model.shape, model.params, tokens)
    assert direct[6, :, 8:].mean() > 2
    assert np.abs(np.delete(direct, 6, 0)).max() < 1e-3


def test_brackets_have_no_direct_path_from_the_head_that_counts():
    model = planted.bracket_model()
    tokens, _ = planted.bracket_text(6, np.random.default_rng(0))
    # The depth reaches the matcher by way of the MLP, which a direct path leaves out.
    assert np.abs(path_effects(model.shape, model.params, tokens, [Edge(model.heads["depth"], model.heads["bracket"])])).max() < 1e-2
    assert ablation_effects(model.shape, model.params, tokens)[0].max() > 1


def test_pieces_give_the_effects_of_the_whole(monkeypatch):
    shape = SHAPES["qwen3"]
    params = weights(shape)
    whole = [path_effects(shape, params, TOKENS, PATHS[:2], "resample"), direct_effects(shape, params, TOKENS, "resample")[:2]]
    monkeypatch.setattr(inputs, "_NUMBERS", 1)
    pieces = [path_effects(shape, params, TOKENS, PATHS[:2], "resample"), direct_effects(shape, params, TOKENS, "resample")[:2]]
    np.testing.assert_allclose(pieces, whole, atol=1e-12)


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        ([], "No path is named"),
        ([Edge(Head(1, 0), Head(1, 1))], "There is no path from head 1:0 to head 1:1"),
        ([Edge(Head(0, 0), Head(3, 1))], "There is no path from head 0:0 to head 3:1: the model has layers 0 to 2 of heads 0 to 3"),
        ([Edge(Head(0, 0), Head(1, 1), "QO")], "The inputs of an edge are 'QO'"),
        ([Edge(Head(0, 0), Head(1, 1), "")], "The inputs of an edge are ''"),
    ],
)
def test_edges_that_do_not_exist_are_told(paths, sentence):
    with pytest.raises(RllcError, match=sentence):
        path_effects(SHAPES["bare"], weights(SHAPES["bare"]), TOKENS, paths)


@pytest.mark.parametrize("name", sorted(set(SHAPES) - set(ALONE)))
def test_where_heads_write_through_a_norm_no_path_is_one_head_s(name: str) -> None:
    shape, params = SHAPES[name], weights(SHAPES[name])
    said = {
        "gemma2": r"passes a norm together.*Ablate whole heads instead",
        "olmo2": r"run over all heads of a layer|passes a norm together",
    }[name]
    for ask in (
        lambda: path_effects(shape, params, TOKENS, edges(shape)[:1]),
        lambda: direct_effects(shape, params, TOKENS),
        lambda: logit_attribution(shape, params, TOKENS),
        lambda: ov_table(shape, params, Head(0, 0)),
    ):
        with pytest.raises(RllcError, match=said):
            ask()
