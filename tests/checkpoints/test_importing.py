"""Models of transformers, converted, compute the same logits; their heads are the same heads."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rllc.checkpoints.importing import Imported, import_module
from rllc.model.forward import logits

from .foreign_models import CASES, built, check_gradients, check_zeroing, in_double, mean_loss, tokens

pytest.importorskip("transformers", reason="the extra `hf` is not installed")


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: built(*case) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def doubles(models: dict[str, Any]) -> dict[str, tuple[Any, Imported]]:
    found = {}
    for name, case in CASES.items():
        model = in_double(built(*case))
        found[name] = model, import_module(model)
    return found


@pytest.mark.parametrize("name", CASES)
def test_logits_are_the_originals(models, name):
    imported = import_module(models[name])
    ids = tokens(imported.shape.n_ctx)
    assert imported.family == CASES[name][0]
    assert imported.shape.n_ctx >= 12
    with torch.no_grad():
        torch.testing.assert_close(logits(imported.shape, imported.params, ids), models[name](ids).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_logits_are_the_originals_in_double(doubles, name):
    model, imported = doubles[name]
    ids = tokens(imported.shape.n_ctx)
    assert {tensor.dtype for tensor in imported.params.values()} == {torch.float64}
    with torch.no_grad():
        torch.testing.assert_close(logits(imported.shape, imported.params, ids), model(ids).logits, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_a_head_zeroed_is_the_originals_head_zeroed(doubles, name):
    model, imported = doubles[name]
    with torch.no_grad():
        check_zeroing(CASES[name][0], imported, model.state_dict(), lambda ids: model(ids).logits, 12)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_heads_are_the_originals_slices(doubles, name):
    model, imported = doubles[name]
    ids = tokens(12)
    model.zero_grad()
    mean_loss(model(ids).logits, ids).backward()
    check_gradients(CASES[name][0], imported, {key: p.grad for key, p in model.named_parameters()}, 12)
