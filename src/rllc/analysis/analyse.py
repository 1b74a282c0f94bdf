"""The whole analysis: evidence and settings in, findings out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np

from rllc.analysis.across_seeds import match_seeds, seed_features, type_counts
from rllc.analysis.agreement import agreement
from rllc.analysis.bends import bends, stage_agreement
from rllc.analysis.circuit import circuit
from rllc.analysis.claims import claims
from rllc.analysis.claims_baselines import quantities, turns_of
from rllc.analysis.claims_types import bracket_heads
from rllc.analysis.clusters import clusterings, how_many
from rllc.analysis.comparisons import Partings, Regression, Seeds, TypeCounts
from rllc.analysis.curves import complete, layer_of
from rllc.analysis.errors import reach
from rllc.analysis.evidence import Evidence
from rllc.analysis.falls import falls
from rllc.analysis.findings import Agreement, Clustering, Curves, Findings, HeadTypes, Numbers, Tempered
from rllc.analysis.ordering import holm, orderings
from rllc.analysis.parting import data_part, heads_part
from rllc.analysis.regression import regress
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.specialisation import specialisation
from rllc.analysis.stages import stages
from rllc.analysis.twins import twins
from rllc.analysis.types import head_types
from rllc.core.errors import RllcError

MAIN = "this model"  # its name among the seeds
_ABLATION = "effects of ablation"


def analyse(evidence: Evidence, settings: AnalysisSettings, seed: int, *, pairs: bool = True) -> Findings:
    """Everything that a report tells of a run. What cannot be told becomes a sentence in `notes`, never a warning or a guess.

    `seed` is the root of the random streams of resampling, K-means and permutations. Without `pairs` the findings hold no partings and bends with
    their intervals, which take most of the time and have no say in the claims.
    """
    notes: list[str] = []
    types = head_types(evidence.behaviour, settings, brackets=bracket_heads(evidence, settings))
    groups, agreements = _groups(evidence.heads, types, settings, seed, notes)
    if evidence.heads is None:
        notes.append(f"There are no clusters: no head was measured on {evidence.reference}.")
    effects, effect_agreements = _groups(_ablation_curves(evidence), types, settings, seed, notes)
    full = evidence.full.get(evidence.reference)
    if full is None:
        boundaries, joints, reasons = None, None, [f"There are no stages: the full model was not measured on {evidence.reference}."]
    else:
        (boundaries, reason), (joints, bent) = stages(full, settings, seed), bends(full, settings, seed) if pairs else (None, "")
        reasons = [reason, bent]
    notes.extend(reasons)
    both = stage_agreement(boundaries, joints, settings.stage_window) if boundaries is not None and joints is not None else None
    special, reasons = specialisation(evidence.texts, evidence.reference, evidence.aligned)
    notes.extend(reasons)
    found = Findings(
        curves=dict(evidence.curves),
        apart=evidence.apart,
        full=dict(evidence.full),
        behaviour=evidence.behaviour,
        patterns=evidence.patterns,
        types=types,
        clusterings=groups,
        agreements=agreements,
        numbers=_numbers(evidence, settings, seed),
        ablation_clusterings=effects,
        ablation_agreements=effect_agreements,
        stages=boundaries,
        specialisation=special,
        planted_share=evidence.planted_share,
        temperatures=tuple(Tempered(nbeta, curves, stages(curves, settings, seed)[0]) for nbeta, curves in sorted(evidence.temperatures.items())),
        bends=joints,
        stage_agreement=both,
        partings=_partings(evidence, settings, seed) if pairs else (),
        regression=_regression(evidence, seed, notes),
        seeds=_seeds(evidence, settings, seed, notes),
    )
    if evidence.heads is not None:
        rows, reasons = orderings(evidence.heads, quantities(evidence), seed)
        notes.extend(reasons)
        found = replace(found, orderings=rows, falls=falls(evidence.heads, seed), twins=twins(evidence.heads, evidence.measured.baselines))
    if evidence.circuit in evidence.curves:
        shape, reason = circuit(evidence.curves[evidence.circuit], seed, aligned=evidence.aligned)
        notes.append(reason)
        found = replace(found, circuit=shape)
    found = replace(found, turns=turns_of(evidence, found, settings, seed))
    return replace(found, claims=claims(evidence, found, settings, seed), notes=tuple(dict.fromkeys(note for note in notes if note)))


def _groups(
    curves: Curves | None, types: HeadTypes, settings: AnalysisSettings, seed: int, notes: list[str]
) -> tuple[tuple[Clustering, ...], tuple[Agreement, ...]]:
    """Clusters of heads by some curves, and their agreement with the types."""
    if curves is None:
        return (), ()
    groups, reasons = clusterings(curves, settings, seed)
    if curves.data == _ABLATION:
        reasons = tuple(f"Of ablation effects: {reason[0].lower()}{reason[1:]}" for reason in reasons if "tslearn" not in reason)
    notes.extend(reasons)
    agreements: list[Agreement] = []
    for group in groups:
        found, reason = agreement(group, types, settings, seed)
        if found is not None:
            agreements.append(found)
        else:
            notes.append(reason)
    held = holm(np.array([found.p for found in agreements], dtype=np.float64))
    return groups, tuple(replace(found, p_holm=float(p)) for found, p in zip(agreements, held, strict=True))


def _ablation_curves(evidence: Evidence) -> Curves | None:
    """Effects of mean ablation over the loss on the reference data as curves; None where heads were not ablated."""
    effects = evidence.measured.ablation
    if effects is None or evidence.reference not in effects.data or not effects.normalised or not len(effects.steps):
        return None
    found = effects.quantity("mean" if "mean" in effects.normalised else next(iter(effects.normalised)), evidence.reference)
    values, error = found.values, np.zeros(found.values.shape) if found.stderr is None else found.stderr
    steps, outcome = np.array(found.steps, dtype=np.int64), np.where(np.isfinite(values), "ok", "")
    return Curves(_ABLATION, found.heads, steps, values, error, values - reach(error), values + reach(error), outcome)


def _numbers(evidence: Evidence, settings: AnalysisSettings, seed: int) -> Numbers | None:
    """How many clusters of all heads' curves there are, by the three criteria, by the first method and preprocessing; None for too few curves."""
    if evidence.heads is None or not settings.methods or not settings.preprocessing:
        return None
    whole = complete(evidence.heads)[0]
    try:
        return how_many(whole, settings.methods[0], settings.preprocessing[0], settings, seed)
    except RllcError:  # the notes say the same of every clustering
        return None


def _partings(evidence: Evidence, settings: AnalysisSettings, seed: int) -> tuple[Partings, ...]:
    """Of pairs of heads of a layer on the reference data and on program text, then of heads on each kind of data and the reference."""
    found: list[Partings] = []
    for name in dict.fromkeys((evidence.reference, *[name for name in settings.code if name in evidence.curves][:1])):
        if name not in evidence.curves:
            continue
        curves = evidence.curves[name]
        pairs = [(a, b) for a, b in combinations(curves.parts, 2) if layer_of(a) == layer_of(b)]
        if pairs and _sound(curves):
            found.append(heads_part(curves, seed, pairs=pairs, aligned=evidence.aligned, level=settings.level))
    base = evidence.heads
    for name, curves in evidence.texts.items():
        shared = base is not None and set(base.parts) & set(curves.parts) and len(np.intersect1d(base.steps, curves.steps))
        if base is not None and name != evidence.reference and shared and _sound(curves) and _sound(base):
            found.append(data_part(curves, base, seed, aligned=evidence.aligned, level=settings.level))
    return tuple(found)


def _sound(curves: Curves) -> bool:
    """Whether there are estimates, each with an error above zero."""
    known = np.isfinite(curves.llc) & np.isfinite(curves.stderr)
    return bool(known.any() and (curves.stderr[known] > 0).all())


def _regression(evidence: Evidence, seed: int, notes: list[str]) -> Regression | None:
    """Final λ̂ on the reference data against the number of own multigrams at the last checkpoint that has both."""
    held, curves = evidence.measured.memorised, evidence.heads
    if held is None or curves is None or not len(held.steps) or not len(curves.steps):
        return None
    if held.steps[-1] != curves.steps[-1]:
        notes.append(
            f"There is no regression on memorised multigrams: they were counted at step {held.steps[-1]}, heads were sampled at {curves.steps[-1]}."
        )
        return None
    heads = [head for head in curves.parts if head in held.heads]
    rows = [curves.parts.index(head) for head in heads]
    counted = held.multigrams()[[held.heads.index(head) for head in heads], -1].astype(np.float64)
    try:
        return regress(heads, curves.llc[rows, -1], counted, "memorised multigrams", seed, stderr=curves.stderr[rows, -1])
    except RllcError as error:
        notes.append(error.problem)
        return None


def _seeds(evidence: Evidence, settings: AnalysisSettings, seed: int, notes: list[str]) -> Seeds | None:
    """Types by seed, and heads matched between every two of the seeds that have estimates.

    By attention alone: that is measured of every seed, the classes of affected tokens of the main model only.
    """
    types = head_types(evidence.behaviour, settings)
    if not evidence.siblings or not types.heads:
        return None
    by_seed: Mapping[str, HeadTypes] = {MAIN: types} | {name: head_types(sibling.behaviour, settings) for name, sibling in evidence.siblings.items()}
    counts: TypeCounts = type_counts(by_seed)
    curves = {MAIN: evidence.heads} | {name: sibling.curves.get(evidence.reference) for name, sibling in evidence.siblings.items()}
    behaviour = {MAIN: evidence.behaviour} | {name: sibling.behaviour for name, sibling in evidence.siblings.items()}
    sampled = {name: found for name, found in curves.items() if found is not None}
    try:
        features = seed_features(sampled, {name: behaviour[name] for name in sampled})
        return Seeds(counts, match_seeds(features, seed, types={name: by_seed[name] for name in sampled}))
    except RllcError as error:
        notes.append(f"Heads are not matched across seeds. {error.problem}")
        return Seeds(counts, ())
