from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import rllc.behaviour.inputs as inputs
from rllc.behaviour.attention import (
    SCORES,
    attention_patterns,
    attention_scores,
    duplicate_token,
    first_token,
    occurrences,
    prefix_matching,
    snippet_pattern,
    successors,
    text_scores,
)
from rllc.core.errors import RllcError
from rllc.core.names import Head
from rllc.model.forward import init_params
from rllc.model.shape import ModelShape

from . import planted_models as planted

SEGMENT, REPEATS = 7, 4
SMALL = ModelShape(n_layers=2, d_model=10, n_heads=3, d_head=4, d_vocab=24, n_ctx=29)


def test_heads_made_by_hand_score_as_what_they_are(circuit, text, repeated):
    previous, current = text_scores(*circuit, text)
    prefix = prefix_matching(*circuit, repeated, SEGMENT)
    assert [i for i in range(6) if previous[i] > 0.9] == [0, 5]
    assert [i for i in range(6) if current[i] > 0.9] == [1]
    assert [i for i in range(6) if prefix[i] > 0.9] == [4]
    assert np.delete(previous, [0, 5]).max() < 0.4
    assert np.delete(current, 1).max() < 0.4
    assert np.delete(prefix, 4).max() < 0.4


def test_the_induction_circuit_needs_its_previous_token_head(circuit, repeated):
    shape, params = circuit
    broken = params | {"blocks.0.attn.W_O": params["blocks.0.attn.W_O"].index_fill(0, torch.tensor(0), 0.0)}
    assert prefix_matching(shape, broken, repeated, SEGMENT)[4] < 0.4


def test_uniform_attention_scores_what_the_formulas_say(text, repeated):
    """Attention 1/(k+1) everywhere: current 1/(k+1) over k = 1…, previous over k = 2…, prefix matching r/(q+1) in repeat r."""
    params = init_params(SMALL, 0)
    params = {name: torch.zeros_like(p) if ".attn.W_Q" in name else p for name, p in params.items()}
    previous, current = text_scores(SMALL, params, text)
    t = text.shape[1]
    assert previous == pytest.approx(np.full(6, np.mean([1 / (k + 1) for k in range(2, t)])), rel=1e-5)
    assert current == pytest.approx(np.full(6, np.mean([1 / (k + 1) for k in range(1, t)])), rel=1e-5)
    exact = np.mean([r / (1 + r * SEGMENT + j + 1) for r in range(1, REPEATS) for j in range(SEGMENT)])
    assert prefix_matching(SMALL, params, repeated, SEGMENT) == pytest.approx(np.full(6, exact), rel=1e-5)


def test_scores_are_what_loops_over_the_patterns_give(text, repeated):
    params = {name: 3 * p for name, p in init_params(SMALL, 1).items()}
    previous, current = text_scores(SMALL, params, text)
    prefix = prefix_matching(SMALL, params, repeated, SEGMENT)
    a = attention_patterns(SMALL, params, torch.from_numpy(text)).numpy()
    r = attention_patterns(SMALL, params, torch.from_numpy(repeated)).numpy()
    t = text.shape[1]
    for h in range(6):
        assert previous[h] == pytest.approx(np.mean([a[h, b, k, k - 1] for b in range(5) for k in range(2, t)]), rel=1e-5)
        assert current[h] == pytest.approx(np.mean([a[h, b, k, k] for b in range(5) for k in range(1, t)]), rel=1e-5)
        found = [sum(r[h, b, q, p + 1] for p in range(1, q) if repeated[b, p] == repeated[b, q]) for b in range(6) for q in range(1 + SEGMENT, t)]
        assert prefix[h] == pytest.approx(np.mean(found), rel=1e-5)


def test_the_errors_of_scores_are_over_contexts(monkeypatch, text, repeated):
    """By hand from the patterns, context by context; the duplicates of a context are as many as its tokens that come again."""
    params = {name: 3 * p for name, p in init_params(SMALL, 1).items()}
    repeated = repeated.copy()
    for row, token in enumerate(repeated[:3, 1].tolist()):  # segments that hold a token twice have more of them
        repeated[row, 2::SEGMENT] = token
    a = attention_patterns(SMALL, params, torch.from_numpy(text)).double().numpy()
    r = attention_patterns(SMALL, params, torch.from_numpy(repeated)).double().numpy()
    (rows, t), many = text.shape, len(repeated)
    monkeypatch.setattr(inputs, "_NUMBERS", 2 * 6 * t**2)
    found = attention_scores(SMALL, params, text, repeated, SEGMENT)
    assert tuple(found) == SCORES
    again = [[(q, [k for k in range(1, q) if repeated[b, k] == repeated[b, q]]) for q in range(t)] for b in range(many)]
    numbers = np.array([sum(bool(keys) for _, keys in each) for each in again])
    assert len(set(numbers.tolist())) > 1
    for h in range(6):
        by_context = {
            "previous_token": [np.mean([a[h, b, k, k - 1] for k in range(2, t)]) for b in range(rows)],
            "current_token": [np.mean([a[h, b, k, k] for k in range(1, t)]) for b in range(rows)],
            "first_token": [np.mean([a[h, b, k, 0] for k in range(1, t)]) for b in range(rows)],
            "prefix_matching": [
                np.mean([sum(r[h, b, q, k + 1] for k in range(1, q) if repeated[b, k] == repeated[b, q]) for q in range(1 + SEGMENT, t)])
                for b in range(many)
            ],
        }
        for name, values in by_context.items():
            assert found[name][0][h] == pytest.approx(np.mean(values), rel=1e-5)
            assert found[name][1][h] == pytest.approx(np.std(values, ddof=1) / len(values) ** 0.5, rel=1e-4)
        sums = np.array([sum(r[h, b, q, keys].sum() for q, keys in again[b]) for b in range(many)])
        ratio = sums.sum() / numbers.sum()
        left = sums - ratio * numbers
        assert found["duplicate_token"][0][h] == pytest.approx(ratio, rel=1e-5)
        assert found["duplicate_token"][1][h] == pytest.approx(np.sqrt((left**2).sum() * many / (many - 1)) / numbers.sum(), rel=1e-4)


def test_first_and_duplicate_token_scores_are_what_loops_over_the_patterns_give(monkeypatch, text, repeated):
    params = {name: 3 * p for name, p in init_params(SMALL, 1).items()}
    first, duplicate = first_token(SMALL, params, text), duplicate_token(SMALL, params, repeated)
    a = attention_patterns(SMALL, params, torch.from_numpy(text)).numpy()
    r = attention_patterns(SMALL, params, torch.from_numpy(repeated)).numpy()
    t = text.shape[1]
    for h in range(6):
        assert first[h] == pytest.approx(np.mean([a[h, b, k, 0] for b in range(5) for k in range(1, t)]), rel=1e-5)
        found = [sum(r[h, b, q, p] for p in range(1, q) if repeated[b, p] == repeated[b, q]) for b in range(6) for q in range(1 + SEGMENT, t)]
        assert duplicate[h] == pytest.approx(np.mean(found), rel=1e-5)
    monkeypatch.setattr(inputs, "_NUMBERS", 1)
    assert first_token(SMALL, params, text) == pytest.approx(first, rel=1e-6)
    assert duplicate_token(SMALL, params, repeated) == pytest.approx(duplicate, rel=1e-6)


def test_first_and_duplicate_token_heads_are_found(repeated):
    """0:0 rests on BOS always; 0:3 looks from a token at itself where it stood before, and rests elsewhere."""
    maker = planted.Maker({}, n_layers=1, n_heads=4)
    maker.rest_on_bos(Head(0, 0))
    maker.look(Head(0, 3), ("TOKEN", torch.eye(planted.V)), ("TOKEN", torch.eye(planted.V)), 15.0)
    maker.look(Head(0, 3), ("PLACE", torch.eye(planted.T)), ("PLACE", -torch.eye(planted.T)), 40.0)  # but not at itself here and now
    maker.rest_on_bos(Head(0, 3), 7.0)
    model = maker.done()
    first, duplicate = first_token(model.shape, model.params, repeated), duplicate_token(model.shape, model.params, repeated)
    assert first[0] > 0.999
    assert first[3] == pytest.approx(SEGMENT / (SEGMENT * REPEATS), abs=0.01)  # it rests in the first segment only
    assert max(first[1], first[2]) < 0.2
    assert duplicate[3] > 0.99
    assert np.delete(duplicate, 3).max() < 0.2


def test_earlier_occurrences():
    found = occurrences(torch.tensor([[0, 5, 6, 5, 5, 0]]))[0]
    assert found.nonzero().tolist() == [[3, 1], [4, 1], [4, 3]]
    with pytest.raises(RllcError, match="No token comes again in the probe"):
        duplicate_token(SMALL, init_params(SMALL, 0), np.arange(5)[None])


def test_successors_of_earlier_occurrences():
    #                                 0  1  2  3  4  5
    found = successors(torch.tensor([[0, 5, 6, 5, 5, 0]]))[0]
    assert found.nonzero().tolist() == [[3, 2], [4, 2], [4, 4]]  # the BOS inside has no earlier occurrence: place 0 does not count


def test_permuting_heads_permutes_their_scores(circuit, text, repeated):
    shape, params = circuit
    order = torch.tensor([2, 0, 1])
    turned = {name: p[order] if ".attn.W_" in name or (".attn.b_" in name and p.ndim == 2) else p for name, p in params.items()}
    where = [*order.tolist(), *(3 + order).tolist()]
    for before, after in zip(text_scores(shape, params, text), text_scores(shape, turned, text), strict=True):
        assert after == pytest.approx(before[where], abs=1e-6)
    before, after = prefix_matching(shape, params, repeated, SEGMENT), prefix_matching(shape, turned, repeated, SEGMENT)
    assert after == pytest.approx(before[where], abs=1e-6)
    assert before != pytest.approx(after, abs=1e-2)


def test_pieces_give_the_scores_of_the_whole(monkeypatch, text, repeated):
    params = init_params(SMALL, 1)
    whole = [*text_scores(SMALL, params, text), prefix_matching(SMALL, params, repeated, SEGMENT)]
    seen = []
    monkeypatch.setattr(inputs, "_NUMBERS", 2 * 6 * 29**2)
    monkeypatch.setattr("rllc.behaviour.attention.attention_patterns", lambda s, p, x: seen.append(len(x)) or attention_patterns(s, p, x))
    pieces = [*text_scores(SMALL, params, text), prefix_matching(SMALL, params, repeated, SEGMENT)]
    assert seen == [2, 2, 1, 2, 2, 2]
    assert np.array(pieces) == pytest.approx(np.array(whole), rel=1e-6)


def test_a_probe_cut_to_the_context_is_welcome(circuit, repeated):
    assert prefix_matching(*circuit, repeated[:, :-3], SEGMENT)[4] > 0.9


def test_snippet_patterns_are_attention_in_255ths(circuit, text):
    shape, params = circuit
    pattern = snippet_pattern(shape, params, text[0])
    assert pattern.shape == (6, 29, 29)
    assert pattern.dtype == np.uint8
    assert np.all(pattern[0].diagonal(-1)[1:] >= 254)
    assert np.all(pattern[3, 1, :2] == 128)  # uniform over two places: 127.5, rounded to even
    assert np.all(np.triu(pattern[:], 1) == 0)
    assert snippet_pattern(shape, params, text[0, :5]).shape == (6, 5, 5)


def test_row_means_row_of_the_query(circuit, text):
    pattern = attention_patterns(*circuit, torch.from_numpy(text))
    assert pattern.shape == (6, 5, 29, 29)
    assert torch.allclose(pattern.sum(-1), torch.ones(6, 5, 29), atol=1e-5)
    assert not pattern.requires_grad


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        (np.zeros((0, 5), np.int64), r"The held-out contexts have the shape \(0, 5\); the model takes one or more sequences of 2 to 29"),
        (np.zeros((2, 30), np.int64), r"have the shape \(2, 30\)"),
        (np.full((2, 5), 24), "hold tokens from 24 to 24, but the model knows 0 to 23"),
        (np.full((2, 5), -1), "hold tokens from -1 to -1"),
        (np.zeros((2, 2), np.int64), "needs contexts of at least 3 tokens"),
    ],
)
def test_contexts_that_do_not_fit_are_told(tokens, sentence):
    with pytest.raises(RllcError, match=sentence):
        text_scores(SMALL, init_params(SMALL, 0), tokens)


@pytest.mark.parametrize("segment", [0, 1, 6, 8, 28, 40])
def test_a_probe_that_does_not_repeat_is_told(repeated, segment):
    with pytest.raises(RllcError, match=f"does not repeat a segment of {segment} tokens behind its BOS"):
        prefix_matching(SMALL, init_params(SMALL, 0), repeated, segment)


def test_rotary_models_are_measured_too(text, repeated):
    shape = replace(SMALL, positions="rotary", d_mlp=8)
    scores = [*text_scores(shape, init_params(shape, 0), text), prefix_matching(shape, init_params(shape, 0), repeated, SEGMENT)]
    assert np.all((np.array(scores) > 0) & (np.array(scores) < 0.5))
