"""The whole analysis: curves, behaviour and settings in, findings out."""

from __future__ import annotations

from collections.abc import Mapping

from rllc.analysis.agreement import agreement
from rllc.analysis.bends import bends, stage_agreement
from rllc.analysis.clusters import clusterings
from rllc.analysis.findings import Agreement, Behaviour, Clustering, Curves, Findings, Patterns
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.specialisation import specialisation
from rllc.analysis.stages import stages
from rllc.analysis.types import head_types


def analyse(
    curves: Mapping[str, Curves],
    full: Mapping[str, Curves],
    behaviour: Behaviour,
    patterns: Patterns | None,
    settings: AnalysisSettings,
    seed: int,
    *,
    reference: str,
    planted_share: float = 0.0,
    paired_stderr: Mapping[str, Mapping[str, float]] | None = None,
) -> Findings:
    """Everything that a report tells of a run. What cannot be told becomes a sentence in `notes`, never a warning or a guess.

    Args:
        curves: of whole heads, by data name (`curves_of(..., heads=True)`).
        full: of the full model and other parts, by data name (`curves_of(..., heads=False)`).
        behaviour: scores of heads and losses over checkpoints.
        patterns: attention patterns to carry along, or None.
        seed: root of the random streams of resampling, K-means and permutations.
        reference: name of the training mixture, on which heads are clustered and stages are read, and with which other data are compared.
        planted_share: share of planted text in that mixture, 0..1.
        paired_stderr: see `specialisation`.
    """
    notes: list[str] = []
    types = head_types(behaviour, settings)
    groups: tuple[Clustering, ...] = ()
    if reference in curves:
        groups, reasons = clusterings(curves[reference], settings, seed)
        notes.extend(reasons)
    else:
        notes.append(f"There are no clusters: no head was measured on {reference}.")
    agreements: list[Agreement] = []
    for group in groups:
        found, reason = agreement(group, types, settings, seed)
        if found is not None:
            agreements.append(found)
        else:
            notes.append(reason)
    if reference in full:
        boundaries, reason = stages(full[reference], settings, seed)
    else:
        boundaries, reason = None, f"There are no stages: the full model was not measured on {reference}."
    joints, bent = bends(full[reference], settings, seed) if reference in full else (None, "")
    notes.extend([reason, bent])
    both = stage_agreement(boundaries, joints, settings.stage_window) if boundaries is not None and joints is not None else None
    special, reasons = specialisation(curves, reference, paired_stderr)
    notes.extend(reasons)
    return Findings(
        curves=dict(curves),
        full=dict(full),
        behaviour=behaviour,
        patterns=patterns,
        types=types,
        clusterings=groups,
        agreements=tuple(agreements),
        stages=boundaries,
        specialisation=special,
        planted_share=planted_share,
        bends=joints,
        stage_agreement=both,
        notes=tuple(dict.fromkeys(note for note in notes if note)),
    )
