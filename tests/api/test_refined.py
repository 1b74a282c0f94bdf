"""Refined and padded data through the one call."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import rllc
from rllc.model import forward as fw

from .toys import SHAPE, SMALL, Foreign, Ours, stand_ins, tokens


def test_everything_counting_is_the_data_itself() -> None:
    plain = rllc.estimate(Ours(), tokens(), "1:0", **SMALL)
    whole = rllc.estimate(Ours(), rllc.Refined(tokens(), positions=lambda ids: ids >= 0), "1:0", **SMALL)
    np.testing.assert_allclose(whole.traces.losses, plain.traces.losses, rtol=0, atol=1e-6)


def test_the_chains_see_what_was_chosen() -> None:
    chosen, model = (3, 7), Ours()
    r = rllc.estimate(model, rllc.Refined(tokens(), positions=lambda ids: np.isin(ids, chosen)), "1:0", **SMALL | {"batch_size": 60})
    ids = tokens()
    each = fw.token_losses(SHAPE, model.params, ids)
    expected = each[torch.isin(ids[:, 1:], torch.tensor(chosen))].mean().item()
    # w* itself, the first evaluation, on a minibatch of five times the whole data
    assert abs(r.traces.losses[0, 0, 0] - expected) < 0.15
    assert abs(r.traces.losses[0, 0, 0] - each.mean().item()) < 1


def test_contexts_are_filtered() -> None:
    ids = tokens()
    kept = ids[(ids == 5).any(1)]
    assert 0 < len(kept) < len(ids)
    some = rllc.estimate(Ours(), rllc.Refined(ids, contexts=lambda rows: (rows == 5).any(1)), "0:1", **SMALL)
    alone = rllc.estimate(Ours(), rllc.Refined(kept, positions=lambda rows: rows >= 0), "0:1", **SMALL)
    np.testing.assert_array_equal(some.traces.losses, alone.traces.losses)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_out_of_the_loss_on_either_side(side: str) -> None:
    ids, real = tokens().clone(), torch.ones(12, 6, dtype=torch.long)
    for row in range(0, 12, 2):
        if side == "right":
            real[row, 4:], ids[row, 4:] = 0, 9
        else:
            real[row, :2], ids[row, :2] = 0, 9
    padded = rllc.estimate(Ours(), {"input_ids": ids, "attention_mask": real}, "1:0", **SMALL)
    again = ids.clone()
    again[real == 0] = 2  # whatever stands there
    other = rllc.estimate(Ours(), {"input_ids": again, "attention_mask": real}, "1:0", **SMALL)
    np.testing.assert_array_equal(padded.traces.losses, other.traces.losses)


def test_against_itself_a_model_has_no_gradient() -> None:
    model = Ours()
    r = rllc.estimate(model, rllc.Refined(tokens(), reference=model), "0:0", **SMALL)
    assert r.traces.losses[0, 0, 0] > 0
    labels = rllc.estimate(model, tokens(), "0:0", **SMALL)
    assert abs(r.record.meta["tilt"]) < 1e-6 < abs(labels.record.meta["tilt"])


@pytest.mark.parametrize(("data", "sentence"), [
    (rllc.Refined([[1, 2, 3]], positions=lambda ids: ids == 9), r"Of 1 contexts none belongs to the refinement"),
    (rllc.Refined([[1, 2, 3]], positions=lambda ids: ids[0]), r"positions answered with \[3\] of int64, but should give \[1, 3\] of bool"),
    (rllc.Refined([[1, 2, 3]], reference=7), r"The reference is a int"),
    ({"input_ids": [[1, 2, 3]], "attention_mask": [[1, 0, 1]]}, r"The attention_mask has gaps within a row"),
    ({"input_ids": [[1, 2, 3]], "attention_mask": [1, 0, 1]}, r"input_ids are \[1, 3\] and attention_mask is \[3\]"),
])  # fmt: skip
def test_what_cannot_be_is_refused(data: object, sentence: str) -> None:
    with pytest.raises(rllc.RllcError, match=sentence):
        rllc.estimate(Ours(), data, "0:0", **SMALL)


def test_the_general_road_says_that_it_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(monkeypatch)
    with pytest.raises(rllc.RllcError, match=r"Refined or padded data is for models on the native road"):
        rllc.estimate(Foreign(), rllc.Refined(tokens(), positions=lambda ids: ids > 3), "0:0", road="general", **SMALL)
