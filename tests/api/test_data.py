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


def ids_of(data, **how):
    return token_rows(data, **how).tokens


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
    rows = ids_of(TEXTS, tokenizer=tokenizer, context=8)
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
    np.testing.assert_array_equal(ids_of(TEXTS, tokenizer=fast, context=8), ids_of(TEXTS, tokenizer=tokenizer, context=8))
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    flat = ids_of(TEXTS, tokenizer=bare, context=4).flatten()
    stream = [i for text in TEXTS for i in tokenizer.encode(text, add_special_tokens=False).ids]
    assert flat.tolist() == stream[: len(flat)]
    assert len(stream) - len(flat) < 4


def test_a_data_set_and_its_column(tokenizer):
    datasets = pytest.importorskip("datasets")
    texts = datasets.Dataset.from_dict({"text": TEXTS, "body": TEXTS[::-1]})
    np.testing.assert_array_equal(ids_of(texts, tokenizer=tokenizer, context=8), ids_of(TEXTS, tokenizer=tokenizer, context=8))
    reverse = ids_of(texts, tokenizer=tokenizer, context=8, column="body")
    np.testing.assert_array_equal(reverse, ids_of(TEXTS[::-1], tokenizer=tokenizer, context=8))
    ids = datasets.Dataset.from_dict({"input_ids": tokens().tolist()})
    assert llc(ids) == llc(tokens())
    with pytest.raises(rllc.RllcError, match=r"no column 'txt'; it has text, body\. Give column=\"text\""):
        ids_of(texts, tokenizer=tokenizer, column="txt")
    with pytest.raises(rllc.RllcError, match="neither a column input_ids nor text"):
        ids_of(texts.remove_columns(["text"]), tokenizer=tokenizer)


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
        ids_of(TEXTS, tokenizer=tokenizer, context=900)


def test_ragged_ids_are_packed_where_a_context_is_given():
    rows = ids_of([[1, 2, 3], [4, 5], [6, 7, 8, 9]], context=4)
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


def test_a_bos_inside_a_row_is_no_target(tokenizer):
    rows = token_rows(TEXTS, tokenizer=tokenizer, context=8)
    inside = rows.tokens[:, 1:] == 0
    assert inside.any()
    np.testing.assert_array_equal(rows.counts[:, 1:], ~inside)


def test_ids_whose_bos_is_known_do_not_predict_it(tokenizer):
    ids = token_rows(TEXTS, tokenizer=tokenizer, context=8).tokens
    np.testing.assert_array_equal(token_rows(ids, tokenizer=tokenizer).counts[:, 1:], ids[:, 1:] != 0)
    assert token_rows(ids).counts.all()


@pytest.mark.parametrize("streamed", [False, True])
def test_the_mask_of_a_data_set_is_heeded(streamed):
    datasets = pytest.importorskip("datasets")
    real = torch.ones(12, 6, dtype=torch.long)
    real[::2, :2] = 0
    table = datasets.Dataset.from_dict({"input_ids": tokens().tolist(), "attention_mask": real.tolist()})
    rows = token_rows(table.to_iterable_dataset() if streamed else table)
    expected = token_rows({"input_ids": tokens(), "attention_mask": real})
    np.testing.assert_array_equal(rows.tokens, expected.tokens)
    np.testing.assert_array_equal(rows.counts, expected.counts)
    assert rows.padded
    assert rows.counts.sum() == real.sum()
    whole = {"input_ids": [[1, 2, 3], [4, 5]], "attention_mask": [[1, 1, 1], [1, 1]]}
    assert ids_of(datasets.Dataset.from_dict(whole), context=5).tolist() == [[1, 2, 3, 4, 5]]
    with pytest.raises(rllc.RllcError, match="of different lengths"):
        ids_of(datasets.Dataset.from_dict(whole | {"attention_mask": [[1, 0, 0], [1, 1]]}))


def test_a_loss_of_ones_own_is_given_no_padding(tokenizer):
    settings = SMALL | {"loss": lambda module, batch: (module.weight * batch.sum()).mean(), "tokenizer": tokenizer, "context": 30}
    with pytest.raises(rllc.RllcError, match=r"padded, and a loss of your own is given token ids alone.*documents=\"packed\""):
        rllc.estimate(nn.Linear(2, 1), TEXTS, "weight", documents="one a row", **settings)


def test_one_document_a_row_is_padded_and_cut(tokenizer):
    ids = [[0, *tokenizer.encode(text, add_special_tokens=False).ids] for text in TEXTS]
    assert len({len(row) for row in ids}) > 1
    longest = max(map(len, ids))
    rows = token_rows(TEXTS, tokenizer=tokenizer, context=longest + 5, documents="one a row")
    assert rows.tokens.shape == (3, longest)
    for row, counts, expected in zip(rows.tokens, rows.counts, ids, strict=True):
        assert row[counts].tolist() == expected
        assert not counts[len(expected) :].any()
    cut = token_rows([*TEXTS, ""], tokenizer=tokenizer, context=4, documents="one a row")
    assert cut.tokens.tolist() == [row[:4] for row in ids]  # nothing can be predicted in an empty text
    with pytest.raises(rllc.RllcError, match="documents is 'one'"):
        how_from({"documents": "one"})


def test_streams_are_read_as_far_as_is_wanted(tokenizer):
    datasets = pytest.importorskip("datasets")
    read = []

    def texts():
        for i in range(100_000):
            read.append(i)
            yield TEXTS[i % 3]

    rows = token_rows(texts(), tokenizer=tokenizer, context=8, most_contexts=5)
    whole = token_rows(TEXTS * 10, tokenizer=tokenizer, context=8)
    np.testing.assert_array_equal(rows.tokens, whole.tokens[:5])
    assert len(read) <= 256
    assert rows.notes == ("The data was read until there were 5 contexts (most_contexts).",)
    assert whole.notes == ()
    stream = datasets.Dataset.from_dict({"body": TEXTS * 10}).to_iterable_dataset()
    np.testing.assert_array_equal(ids_of(stream, tokenizer=tokenizer, context=8, column="body"), whole.tokens)
    with pytest.raises(rllc.RllcError, match="no column 'text'"):
        ids_of(stream, tokenizer=tokenizer, column="text")
    single = token_rows(iter(TEXTS * 9), tokenizer=tokenizer, context=30, documents="one a row", most_contexts=4)
    assert len(single.tokens) == 4
    assert single.notes == ("The data was read until there were 4 contexts (most_contexts).",)
    ids = iter(tokens().tolist())
    assert ids_of(ids, most_contexts=7).tolist() == tokens()[:7].tolist()
    table = datasets.Dataset.from_dict({"input_ids": tokens().tolist()})
    assert token_rows(table, most_contexts=7).notes == ("The data was read until there were 7 contexts (most_contexts).",)
    assert token_rows(table, most_contexts=12).notes == ()


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "txt"])
def test_files_are_data(tokenizer, tmp_path, suffix):
    path = tmp_path / f"texts.{suffix}"
    if suffix == "txt":
        path.write_text("\n".join(TEXTS))
        expected = ids_of(["\n".join(TEXTS)], tokenizer=tokenizer, context=8)
    else:
        datasets = pytest.importorskip("datasets")
        made = datasets.Dataset.from_dict({"body": TEXTS})
        made.to_json(path) if suffix == "jsonl" else made.to_parquet(path)
        expected = ids_of(TEXTS, tokenizer=tokenizer, context=8)
    column = {} if suffix == "txt" else {"column": "body"}
    np.testing.assert_array_equal(ids_of(path, tokenizer=tokenizer, context=8, **column), expected)
    np.testing.assert_array_equal(ids_of(str(path), tokenizer=tokenizer, context=8, **column), expected)


def test_files_that_cannot_be_read_are_told(tokenizer, tmp_path):
    with pytest.raises(rllc.RllcError, match=r"There is no file .*none\.jsonl"):
        ids_of(tmp_path / "none.jsonl", tokenizer=tokenizer)
    (tmp_path / "half.jsonl").write_text('{"text": "the river"}\n{"text": "the st')
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(rllc.RllcError, match=r"empty\.jsonl holds no text"):
        ids_of(tmp_path / "empty.jsonl", tokenizer=tokenizer, context=8)
    with pytest.raises(rllc.RllcError, match=r"half\.jsonl"):
        ids_of(tmp_path / "half.jsonl", tokenizer=tokenizer, context=8)
    (tmp_path / "other.jsonl").write_text('{"body": "the river"}\n')
    with pytest.raises(rllc.RllcError, match=r"other\.jsonl.*text"):
        ids_of(tmp_path / "other.jsonl", tokenizer=tokenizer, context=8)
