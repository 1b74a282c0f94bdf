"""Every claim of the paper (METHOD 5), each decided by a stated test on this run's numbers: seen, not seen, or cannot tell.

What decides does not depend on what comes out: see `verdicts` for the two error rates of each verdict, docs/claims.md for the tests in
words, and `planted_claims` for how often each verdict is wrong where the answer is known. Claims are judged one by one: of twenty that hold
nothing, one may be called seen at a level of 5 %.
"""

from __future__ import annotations

from rllc.analysis import claims_baselines, claims_circuit, claims_clusters, claims_heads, claims_pairs, claims_seeds, claims_stages, claims_types
from rllc.analysis.comparisons import Claim
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Findings
from rllc.analysis.settings import AnalysisSettings


def claims(evidence: Evidence, findings: Findings, settings: AnalysisSettings, seed: int) -> tuple[Claim, ...]:
    """The claims in the order of the paper. `findings` is what `analyse` found in the same evidence, all but the claims."""
    marks = claims_stages.marks(evidence, settings, seed)
    return (
        claims_stages.stage_order(marks, evidence, settings),
        claims_stages.boundaries(marks, evidence, findings, settings, seed),
        *claims_types.types(evidence, findings, settings),
        claims_heads.differentiation(evidence, findings, settings, seed),
        claims_clusters.clusters(evidence, findings, settings, seed),
        claims_heads.simple_is_low(evidence, findings, settings, seed),
        claims_heads.memorised(evidence, findings, settings, seed),
        claims_circuit.specialisation(evidence, findings, settings, seed),
        claims_circuit.falls(evidence, findings, settings),
        claims_circuit.peak(marks, evidence, findings),
        *claims_pairs.circuit_pairs(evidence, findings, settings),
        claims_baselines.ordered(evidence, findings, settings),
        claims_baselines.sees_stages(evidence, findings, settings),
        claims_baselines.sensitivity(evidence, findings, settings, seed),
        claims_seeds.same_types(evidence, findings, settings),
    )
