"""Worlds in which something that is not the claim looks like it: each claim must not say "seen" (or, for noise, must not say "not seen")."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from rllc.analysis import claims_heads
from rllc.analysis.analyse import analyse
from rllc.analysis.comparisons import Claim
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Curves, Findings, Floats
from rllc.analysis.planted_claims import LEAN
from rllc.analysis.planted_evidence import HEADS, MIX, STEPS, planted_evidence
from rllc.analysis.regression import regress


@pytest.fixture(scope="module")
def story() -> tuple[Evidence, Findings]:
    evidence = planted_evidence("true", 0)
    return evidence, analyse(evidence, LEAN, 0, pairs=False)


def curves_of(clean: Floats, noise: float, seed: int, data: str = MIX) -> Curves:
    """Curves of all heads with this error, drawn with it."""
    llc = clean + noise * np.random.default_rng(seed).standard_normal(clean.shape)
    return Curves(data, HEADS, STEPS, llc, np.full(clean.shape, noise), llc, llc, np.full(clean.shape, "ok", dtype="<U16"))


def of(claims: tuple[Claim, ...], name: str) -> Claim:
    return next(claim for claim in claims if claim.id == name)


def test_layers_that_differ_are_no_correlation_of_heads(story: tuple[Evidence, Findings]) -> None:
    """Final LLC and memorised multigrams independent within layers, both larger in the second."""
    evidence, findings = story
    held = evidence.measured.memorised
    assert held is not None
    layer, verdicts = np.arange(16) // 8, Counter[str]()
    for seed in range(40):
        rng = np.random.default_rng(100 + seed)
        final = 10 + 5 * layer + rng.standard_normal(16)
        own = np.round(20 + 10 * layer + 2 * rng.standard_normal(16)).astype(np.int64)[:, None, None]
        by = own[:, :, None, None, :]
        heads = curves_of(final[:, None] * np.ones(len(STEPS)), 0.1, seed)
        lone = replace(
            evidence,
            curves={**evidence.curves, MIX: heads},
            measured=replace(evidence.measured, memorised=replace(held, own=own, found=own, own_by=by, found_by=by)),
        )
        line = regress(HEADS, heads.llc[:, -1], own[:, 0, 0].astype(np.float64), "memorised multigrams", 0, permutations=10)
        assert line.pooled > 0.5
        verdicts[claims_heads.memorised(lone, replace(findings, regression=line), LEAN, seed).verdict] += 1
    assert verdicts["seen"] <= 5  # 2 expected, 6 or more in one of 70


def test_few_heads_in_each_layer_cannot_show_a_correlation_and_are_told_so(story: tuple[Evidence, Findings]) -> None:
    evidence, findings = story
    held, heads = evidence.measured.memorised, evidence.heads
    assert held is not None
    assert heads is not None
    few = (0, 1, 8, 9)
    counts = np.array([10.0, 20.0, 30.0, 40.0])
    llc = heads.llc.copy()
    llc[few, -1] = counts
    line = regress([HEADS[i] for i in few], counts, counts, "memorised multigrams", 0, permutations=10)
    own = held.own.copy()
    own[few, 0, 0] = counts.astype(np.int64)
    small = replace(evidence, curves={**evidence.curves, MIX: replace(heads, llc=llc)}, measured=replace(evidence.measured, memorised=replace(held, own=own)))
    claim = claims_heads.memorised(small, replace(findings, regression=line), LEAN, 0)
    assert claim.verdict == "cannot tell"
    assert "even the best order of 4 heads within 2 layers is chance in 25%" in claim.why
