"""The speed comparison runs where no peer is installed, and the peers' models are ours: equal logits, equal losses, equal masks. Nothing is timed."""

from __future__ import annotations

import importlib
import json
import math
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from rllc.core.names import Part
from rllc.model import forward as fw
from rllc.model.shape import ModelShape

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SHAPE = ModelShape(n_layers=2, d_model=16, n_heads=2, d_head=8, d_vocab=50, n_ctx=12)


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder on the path, its scripts read afresh."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in [name for name in sys.modules if name.partition("_")[0] == "peers"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def language(benchmarks: None) -> ModuleType:
    """The side of devinterp, where it is installed."""
    pytest.importorskip("devinterp", reason="devinterp is not installed")
    pytest.importorskip("transformer_lens", reason="transformer-lens is not installed")
    return importlib.import_module("peers_language")


@pytest.fixture
def params() -> fw.Params:
    """Weights of which none is zero or one, so that a tensor in the wrong place shows."""
    generator = torch.Generator().manual_seed(0)
    return {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in fw.init_params(SHAPE, 0).items()}


@pytest.fixture
def tokens() -> torch.Tensor:
    """Two contexts."""
    return torch.randint(0, SHAPE.d_vocab, (2, SHAPE.n_ctx), generator=torch.Generator().manual_seed(1))


def test_rllc_alone_is_measured(benchmarks: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("devinterp", "canonical_interp"):
        monkeypatch.setitem(sys.modules, name, None)
    peers = importlib.import_module("peers")
    monkeypatch.setattr(peers, "quick_work", partial(peers.quick_work, tmp_path))
    for form in ("table", "json"):
        monkeypatch.setattr(sys, "argv", ["peers.py", "--quick", "--allocator", "default", "--format", form])
        peers.main()
    text, _, last = capsys.readouterr().out.rstrip().rpartition("\n")
    assert "devinterp or transformer-lens is not installed here" in text
    assert "canonical-interp is not installed here" in text
    found = json.loads(last)
    assert [(row["layer"], row["by"], row["ratio"]) for row in found["rows"]] == [(0, "rllc", 1), (1, "rllc", 1)]
    assert all(row["chain-steps/s"] * row["ms a chain-step"] == pytest.approx(1000) for row in found["rows"])
    assert found["machine"]["threads"] == torch.get_num_threads()


def test_a_step_is_the_median_interval_and_the_rest_is_set_up(benchmarks: None) -> None:
    timing = importlib.import_module("peers_timing")
    timed = timing.Timed.of(np.array([2.0, 9.0, 2.0]), 4, 10.0, 4)
    assert (timed.step, timed.setup) == (0.5, 2.0)


def test_ratios_are_those_of_the_rounds(benchmarks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("devinterp", "canonical_interp"):
        monkeypatch.setitem(sys.modules, name, None)
    peers = importlib.import_module("peers")
    theirs, ours = ([peers.Timed(step, 0.1) for step in steps] for steps in ((4.0, 9.0, 6.0), (2.0, 3.0, 1.0)))
    assert peers.summary(theirs, ours) == {
        "ms a chain-step": 6000,
        "chain-steps/s": pytest.approx(1 / 6),
        "ratio": 3,
        "lowest": 2,
        "highest": 6,
        "set-up s": 0.1,
    }


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the high-water mark of memory is Linux's")
def test_memory_is_the_highest_a_call_adds(benchmarks: None) -> None:
    peak = importlib.import_module("peers_timing").peak_of(lambda: np.ones(5_000_000).sum())
    assert math.isnan(peak) or 35 < peak < 60  # megabytes; NaN where the mark may not be reset


@pytest.mark.parametrize("apart", [False, True])
def test_the_plain_module_has_our_logits(benchmarks: None, params: fw.Params, tokens: torch.Tensor, apart: bool) -> None:
    model = importlib.import_module("peers_plain").PlainTransformer(SHAPE, params, apart=apart)
    torch.testing.assert_close(model(tokens), fw.logits(SHAPE, params, tokens), atol=1e-5, rtol=1e-5)
    names = dict(model.named_parameters())
    if apart:
        own = [names[name] for name in model.head_names(Part.parse("1:1"))]
        assert sum(tensor.numel() for tensor in own) == 4 * 16 * 8 + 3 * 8
        assert torch.equal(own[0], params["blocks.1.attn.W_Q"][1])
    else:
        assert {name: tensor.shape for name, tensor in names.items()} == {name: tensor.shape for name, tensor in params.items()}


@pytest.mark.filterwarnings("ignore")
def test_the_twin_of_devinterp_is_our_model(language: ModuleType, params: fw.Params, tokens: torch.Tensor) -> None:
    model = language.twin(SHAPE, params)
    assert max(language.check_equal(SHAPE, params, model, tokens).values()) < 2e-5
    masks = language.head_masks(SHAPE, model, Part.parse("1:1"))
    assert masks["blocks.1.attn.W_O"][1].all()
    assert not masks["blocks.1.attn.W_O"][0].any()
    with pytest.raises(RuntimeError, match=r"masks of 1:1\.Q are not the 136 weights"):
        language.head_masks(SHAPE, model, Part.parse("1:1.Q"))
    with pytest.raises(RuntimeError, match="does not compute what ours does"):
        language.check_equal(SHAPE, params | {"blocks.0.attn.b_V": params["blocks.0.attn.b_Q"]}, model, tokens)


@pytest.mark.filterwarnings("ignore")
def test_devinterp_samples_a_head_on_given_contexts(language: ModuleType, params: fw.Params) -> None:
    contexts = torch.randint(0, SHAPE.d_vocab, (12, SHAPE.n_ctx), generator=torch.Generator().manual_seed(2))
    settings = {"chains": 2, "draws": 4, "burn_in": 2, "batch_size": 2, "seed": 1, "localization": 200.0, "nbeta": 30.0}
    still = language.theirs(params, SHAPE, "0:1", contexts, step_size=1e-12, num_init_loss_batches=6, **settings)
    assert still.per_chain == pytest.approx((0, 0), abs=1e-3)  # on the chains' own minibatches, and hardly moved
    assert still.paired == pytest.approx(0, abs=1e-3)
    assert abs(still.from_draws) > 0.01  # its baseline takes in the minibatches of burn-in
    assert still.init_loss == pytest.approx(fw.token_losses(SHAPE, params, contexts).mean().item(), abs=1e-5)
    moved = language.theirs(params, SHAPE, "0:1", contexts, step_size=1e-3, num_init_loss_batches=6, **settings)
    assert moved.llc != pytest.approx(0, abs=1e-3)
    at_origin = [fw.token_losses(SHAPE, params, batch).mean().item() for batch in contexts.split(2)]
    assert moved.losses[:, 0] == pytest.approx(at_origin[:1] * 2, abs=1e-5)  # w* is its first step, on the first minibatch
    assert still.losses == pytest.approx(np.array([at_origin, at_origin]), abs=1e-4)
    assert not moved.warnings
