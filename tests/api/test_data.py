"""What a notebook may give as data, and what is said where it cannot be read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import rllc
from rllc.core import seeds
from rllc.corpus.tokenizer import train_tokenizer
from rllc.runs.how import how_from
from rllc.runs.minibatches import PURPOSES, Rows, open_samples, open_tokens
from rllc.runs.token_rows import token_rows

from .toys import SMALL, Ours, tokens

CPU = torch.device("cpu")
TEXTS = ["the river under the stone", "quiet paper light", "seven copper windows and salt"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 3, 262)


def llc(data, **how):
    return rllc.estimate(Ours(), data, "1:0", **(SMALL | how)).llc


def test_ids_in_every_form_give_the_same_number():
    ids = tokens()
    first = llc(ids)
    assert llc(ids.numpy()) == llc(ids.tolist()) == llc(ids.to(torch.int32)) == first
    assert llc(ids[:, :5]) == llc(ids, context=5) != first


def test_batches_are_drawn_with_replacement_from_seeds():
    source = open_tokens(tokens(5), "code", how_from({"seed": 4, "batch_size": 64}), 6, 11)
    stream = source.stream(how_from({"seed": 4, "batch_size": 64}), "origin", CPU)
    first, second = next(stream), next(stream)
    expected = tokens(5)[torch.from_numpy(seeds.generator(4, "origin", "code", 1).integers(5, size=64))]
    assert torch.equal(second, expected)
    assert not torch.equal(first, second)
    assert {tuple(row) for row in first.tolist()} == {tuple(row) for row in tokens(5).tolist()}


def test_texts_are_packed_with_a_bos_before_every_context_and_document(tokenizer):
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
    rows = token_rows(TEXTS, tokenizer=tokenizer, context=8)
    assert (rows[:, 0] == 0).all()
    stream = [0, *ids[0], 0, *ids[1], 0, *ids[2]]
    flat = list(rows[:, 1:].flatten())
    # what a row's own BOS stands for is not there twice, and nothing else is lost
    assert [i for i in flat if i] == [i for i in stream if i][: sum(i != 0 for i in flat)]
    assert rows.shape[1] == 8
    assert len(stream) - rows.size < 8


def test_a_tokenizer_without_bos_and_one_of_transformers(tokenizer):
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|bos|>")
    np.testing.assert_array_equal(token_rows(TEXTS, tokenizer=fast, context=8), token_rows(TEXTS, tokenizer=tokenizer, context=8))
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    flat = token_rows(TEXTS, tokenizer=bare, context=4).flatten()
    stream = [i for text in TEXTS for i in tokenizer.encode(text, add_special_tokens=False).ids]
    assert flat.tolist() == stream[: len(flat)]
    assert len(stream) - len(flat) < 4


def test_a_data_set_and_its_column(tokenizer):
    datasets = pytest.importorskip("datasets")
    texts = datasets.Dataset.from_dict({"text": TEXTS, "body": TEXTS[::-1]})
    np.testing.assert_array_equal(token_rows(texts, tokenizer=tokenizer, context=8), token_rows(TEXTS, tokenizer=tokenizer, context=8))
    reverse = token_rows(texts, tokenizer=tokenizer, context=8, column="body")
    np.testing.assert_array_equal(reverse, token_rows(TEXTS[::-1], tokenizer=tokenizer, context=8))
    ids = datasets.Dataset.from_dict({"input_ids": tokens().tolist()})
    assert llc(ids) == llc(tokens())
    with pytest.raises(rllc.RllcError, match=r"no column 'txt'; it has text, body\. Give column=\"text\""):
        token_rows(texts, tokenizer=tokenizer, column="txt")
    with pytest.raises(rllc.RllcError, match="neither a column input_ids nor text"):
        token_rows(texts.remove_columns(["text"]), tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("data", "how", "problem"),
    [
        (torch.full((3, 6), 11), {}, "token id 11, but the model knows 0 to 10"),
        (-tokens() - 1, {}, "ids are 0|knows 0 to 10"),
        (torch.zeros(3, 7, dtype=torch.long), {}, "7 tokens, more than the model's 6. Give context=6"),
        (tokens(), {"context": 7}, "longer than the model's 6"),
        (tokens(3, 4), {"context": 5}, "rows have 4"),
        (torch.zeros(0, 6, dtype=torch.long), {}, "empty"),
        ([], {}, "empty"),
        (tokens()[0], {}, r"shape \[6\]"),
        (tokens()[:, :1], {}, "predicts nothing"),
        (tokens().float(), {}, "whole numbers"),
        ([[1, 2, 3], [1, 2]], {}, "2 to 3 tokens"),
        (TEXTS, {}, "no tokenizer"),
        ("the river", {}, "one string"),
        (tokens(), {"column": "text"}, "without columns"),
        ((tokens(), tokens()), {}, "tuple of tensors"),
    ],
)
def test_data_that_cannot_be_read_is_told(data, how, problem):
    with pytest.raises(rllc.RllcError, match=problem):
        llc(data, **how)


def test_too_little_text(tokenizer):
    with pytest.raises(rllc.RllcError, match="fewer than one context of 900"):
        token_rows(TEXTS, tokenizer=tokenizer, context=900)


def test_ragged_ids_are_packed_where_a_context_is_given():
    rows = token_rows([[1, 2, 3], [4, 5], [6, 7, 8, 9]], context=4)
    assert rows.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_samples_of_any_module():
    how = how_from({"batch_size": 5})
    x, y = torch.arange(12.0).reshape(4, 3), torch.arange(4)
    pair = next(open_samples((x, y), "d", how).stream(how, "sample", CPU))
    assert torch.equal(pair[0], x[pair[1]])
    by_number = next(open_samples(TensorDataset(x, y), "d", how).stream(how, "sample", CPU))
    assert all(torch.equal(a, b) for a, b in zip(pair, by_number, strict=True))
    assert torch.equal(next(open_samples(x, "d", how).stream(how, "sample", CPU)), pair[0])
    assert torch.equal(next(open_samples(x.numpy(), "d", how).stream(how, "sample", CPU)), pair[0])
    named = next(open_samples([{"x": a, "y": b} for a, b in zip(x, y, strict=True)], "d", how).stream(how, "sample", CPU))
    assert torch.equal(named["x"], pair[0])
    own = next(open_samples(TensorDataset(x, y), "d", how_from({"collate": len})).stream(how_from({"batch_size": 7}), "sample", CPU))
    assert own == 7


def test_a_function_is_asked_for_every_number_once():
    asked = []

    def batch(number):
        asked.append(number)
        return torch.full((2, 3), float(number))

    module = nn.Linear(3, 1)
    rllc.estimate(module, batch, "weight", loss=lambda m, x: m(x).square().mean() * 1e-6, **SMALL)
    assert len(asked) == len(set(asked)) == SMALL["draws"] + SMALL["burn_in"] + 1 + SMALL["origin_batches"]
    assert {n % len(PURPOSES) for n in asked} == {PURPOSES.index("sample"), PURPOSES.index("origin")}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ((torch.zeros(3, 1), torch.zeros(4, 1)), "3, 4 samples"),
        ((torch.zeros(0, 1),), "at least one"),
        ([], "empty"),
        (iter([1]), "No batches can be drawn"),
        ({"x": 1}, "mapping"),
    ],
)
def test_samples_that_cannot_be_drawn(data, problem):
    with pytest.raises(rllc.RllcError, match=problem):
        rllc.estimate(nn.Linear(1, 1), data, "weight", loss=lambda m, x: m(x).mean(), **SMALL)


def test_texts_for_a_module_with_a_loss(tokenizer):
    seen = []

    def loss(module, batch):
        seen.append(batch)
        return module.weight.square().sum()

    rllc.estimate(nn.Linear(2, 1), TEXTS, "weight", loss=loss, tokenizer=tokenizer, context=8, **SMALL)
    assert seen[0].shape == (3, 8)
    assert isinstance(open_samples(TEXTS, "d", how_from({"tokenizer": tokenizer, "context": 8})).pool, Rows)
