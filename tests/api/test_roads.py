"""Which road a foreign model takes, with small stand-ins for what reads it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import rllc

from .toys import SMALL, Bowl, Foreign, Ours, entropy, height, stand_ins, tokens


def test_what_can_be_imported_goes_the_native_road(monkeypatch):
    calls = stand_ins(monkeypatch)
    r = rllc.estimate(Foreign(), tokens(), "1:0", **SMALL)
    assert calls == ["import"]
    assert r.road == "native"
    read, doubt = r.notes
    assert read == "Read by a stand-in."
    assert doubt.startswith("The loss at the checkpoint is 2.60 nats per token, and guessing evenly costs 2.40")  # it was never trained
    np.testing.assert_array_equal(r.traces.losses, rllc.estimate(Ours(), tokens(), "1:0", **SMALL).traces.losses)


def test_both_roads_give_the_same_numbers_from_the_same_noise(monkeypatch):
    calls = stand_ins(monkeypatch)
    native = rllc.estimate(Foreign(), tokens(), ["1:0", "0.attn"], **SMALL)
    general = rllc.estimate(Foreign(), tokens(), ["1:0", "0.attn"], road="general", **SMALL)
    assert "loss" in calls
    for part in ("1:0", "0.attn"):
        assert general[part].road == "general"
        assert f"{part} was found by a stand-in." in general[part].notes
        np.testing.assert_allclose(general[part].traces.losses, native[part].traces.losses, rtol=0, atol=2e-5)
        np.testing.assert_allclose(general[part].llc, native[part].llc, rtol=0, atol=0.05 * native[part].stderr + 2e-3)


def test_what_cannot_be_imported_goes_the_general_road_and_says_why(monkeypatch):
    stand_ins(monkeypatch, importable=False)
    r = rllc.estimate(Foreign(), tokens(), "1:0", **SMALL)
    assert r.road == "general"
    assert any("it is strange" in note for note in r.notes)
    with pytest.raises(rllc.RllcError, match="it is strange"):
        rllc.estimate(Foreign(), tokens(), "1:0", road="native", **SMALL)


def test_heads_of_a_foreign_module(monkeypatch):
    stand_ins(monkeypatch)
    rs = rllc.estimate(Foreign(), tokens(), "heads", road="general", **SMALL)
    assert list(rs) == ["0:0", "0:1", "1:0", "1:1"]


def test_a_loss_of_ones_own_is_called_by_ones_own_module(monkeypatch):
    calls = stand_ins(monkeypatch)
    r = rllc.estimate(Foreign(), tokens(), "1:0", loss=entropy, **SMALL)
    assert (r.road, calls) == ("general", [])
    with pytest.raises(rllc.RllcError, match="Leave loss or road out"):
        rllc.estimate(Foreign(), tokens(), "1:0", loss=entropy, road="native", **SMALL)


def test_parameters_in_a_list_are_one_part_and_a_mapping_names_several():
    settings = {"loss": height, "step_size": 1e-2, "localization": 1.0, "draws": 8, "batch_size": 1, "origin_batches": 3}
    one = rllc.estimate(Bowl([1.0, 2.0]), torch.zeros(3, 1), ["w[0]", "other"], **settings)
    assert isinstance(one, rllc.Result)
    assert (one.part, one.traces.dimension) == ("w[0] + other", 3)
    several = rllc.estimate(Bowl([1.0, 2.0]), torch.zeros(3, 1), {"first": "w[0]", "both": ["w", "other"]}, **settings)
    assert {name: r.traces.dimension for name, r in several.items()} == {"first": 1, "both": 4}
    with pytest.raises(rllc.RllcError, match="Did you mean 'other'"):
        rllc.estimate(Bowl([1.0]), torch.zeros(3, 1), "othr", **settings)


def test_names_and_parameters_do_not_mix(monkeypatch):
    stand_ins(monkeypatch)
    with pytest.raises(rllc.RllcError, match=r"mix parameters such as 'embed_W_E' with names such as '1:0'"):
        rllc.estimate(Foreign(), tokens(), ["1:0", "embed_W_E"], road="general", **SMALL)


def test_tied_weights_are_told():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.zeros(3, dtype=torch.float64))
            self.b = self.a

    r = rllc.estimate(Tied(), torch.zeros(3, 1), "a", loss=lambda m, x: (m.a * m.b).sum() + 0 * x.sum(), **SMALL)
    assert any("one tensor with b" in note for note in r.notes)


@pytest.mark.parametrize(
    ("module", "given", "problem"),
    [
        (Bowl([1.0]).half(), {}, r"module.float\(\)"),
        (Bowl([1.0]), {"dtype": "float64"}, "own type"),
        (Bowl([1.0]), {"device": "cuda"}, 'module.to\\("cuda"\\)'),
    ],
)
def test_what_the_general_road_refuses(module, given, problem):
    with pytest.raises(rllc.RllcError, match=problem):
        rllc.estimate(module, torch.zeros(3, 1), "w", loss=height, **(SMALL | given))
