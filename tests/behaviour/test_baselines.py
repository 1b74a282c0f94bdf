"""The table of baselines: every head's row is what the single functions say of that head."""

from __future__ import annotations

import numpy as np
import pytest

from rllc.behaviour.baselines import COLUMNS, baselines
from rllc.behaviour.curvature import Prior, curvature
from rllc.behaviour.fisher import fisher
from rllc.behaviour.norms import weight_norm
from rllc.core.names import Head, Part
from rllc.model import forward as fw
from rllc.model.shape import ModelShape

SHAPE = ModelShape(n_layers=2, d_model=8, n_heads=2, d_head=4, d_vocab=11, n_ctx=9)
PARAMS = fw.init_params(SHAPE, 3)
TOKENS = np.random.default_rng(0).integers(0, 11, (3, 9))


def test_rows_are_heads_and_columns_are_documented() -> None:
    table = baselines(SHAPE, PARAMS, TOKENS, probes=1, draws=1, seed=5, prior=Prior(30.0, 20_000.0))
    assert table.heads == SHAPE.heads()
    assert set(table.values) == set(table.stderr) == set(COLUMNS)
    for i, head in enumerate(table.heads):
        part = Part.of_head(head.layer, head.index)
        bent = curvature(SHAPE, PARAMS, part, TOKENS, top=2, probes=1, seed=5, prior=Prior(30.0, 20_000.0))
        assert bent.twin is not None
        assert (table.values["curvature_twin"][i], table.stderr["curvature_twin"][i]) == (bent.twin.value, bent.twin.stderr)
        information = fisher(SHAPE, PARAMS, part, TOKENS, draws=1, seed=5)
        assert table.values["hessian_trace"][i] == pytest.approx(bent.trace.value)
        assert table.stderr["top_eigenvalue"][i] == pytest.approx(bent.spectrum.stderr[0])
        assert table.values["second_eigenvalue"][i] == pytest.approx(bent.spectrum.eigenvalues[1], rel=1e-4)
        assert table.stderr["second_eigenvalue"][i] == pytest.approx(bent.spectrum.stderr[1], rel=1e-3)
        assert table.values["fisher_true"][i] == pytest.approx(information.true.value)
        assert table.stderr["fisher_empirical"][i] == pytest.approx(information.empirical.stderr)
        assert table.values["weight_norm"][i] == pytest.approx(weight_norm(SHAPE, PARAMS, part))
    assert np.isnan(table.stderr["weight_norm"]).all()


def test_heads_can_be_chosen_and_no_eigenvalue_means_no_column() -> None:
    table = baselines(SHAPE, PARAMS, TOKENS, heads=(Head(1, 1),), top=0, probes=1, draws=1)
    assert table.heads == (Head(1, 1),)
    assert set(COLUMNS) - set(table.values) == {"top_eigenvalue", "second_eigenvalue", "spectrum_participation", "curvature_twin"}
    one = baselines(SHAPE, PARAMS, TOKENS, heads=(Head(1, 1),), top=1, probes=1, draws=1)
    assert set(COLUMNS) - set(one.values) == {"second_eigenvalue", "curvature_twin"}
    assert len(table.values["fisher_true"]) == 1
