"""Helpers of the counter-worlds."""

from __future__ import annotations

from functools import cache

import numpy as np

from rllc.analysis.aligned import Aligned
from rllc.analysis.analyse import analyse
from rllc.analysis.comparisons import Claim
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Curves, Findings, Floats
from rllc.analysis.planted_claims import LEAN
from rllc.analysis.planted_evidence import CODE, HEADS, MIX, STEPS, planted_evidence


@cache
def true_story() -> tuple[Evidence, Findings]:
    """A world in which every claim holds, and what is found in it."""
    evidence = planted_evidence("true", 0)
    return evidence, analyse(evidence, LEAN, 0, pairs=False)


def curves_of(clean: Floats, noise: float, seed: int, data: str = MIX) -> Curves:
    """Curves of all heads with this error, drawn with it."""
    llc = clean + noise * np.random.default_rng(seed).standard_normal(clean.shape)
    return Curves(data, HEADS, STEPS, llc, np.full(clean.shape, noise), llc, llc, np.full(clean.shape, "ok", dtype="<U16"))


def of(claims: tuple[Claim, ...], name: str) -> Claim:
    return next(claim for claim in claims if claim.id == name)


def with_errors_of_differences(stderr: float) -> dict[str, Aligned]:
    """Chains and batches by which every head's difference between code and the mixture has this error, with 63 degrees of freedom."""
    noise = stderr * np.sqrt(63) * (-1.0) ** np.arange(64)
    own = 0.8 * np.random.default_rng(0).standard_normal((len(HEADS), len(STEPS), 64))  # of each head on both: errors of 0.1
    return {MIX: Aligned(HEADS, STEPS, own, own), CODE: Aligned(HEADS, STEPS, own + noise, own + noise)}
