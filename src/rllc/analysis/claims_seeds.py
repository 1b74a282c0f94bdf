"""The claim that several seeds grow the same types of heads (METHOD 5)."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np

from rllc.analysis.comparisons import Claim, Number
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Behaviour, Findings
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.types import SCORES, head_types
from rllc.analysis.verdicts import Condition, any_of, decide, effect, flagged, lacking


def same_types(evidence: Evidence, findings: Findings, settings: AnalysisSettings) -> Claim:
    """Whether several seeds show the same types."""
    names = ("types of this model that every seed has", "match of heads by behaviour to their LLC")
    found = findings.seeds
    steps = shared_steps(evidence)
    if found is None or len(found.counts.seeds) < 2:
        conditions = [lacking(name, "no other seed of this shape was measured (see the notes)") for name in names]
    else:
        conditions = [_all_have(names[0], evidence, settings)]
        ours = [match for match in found.matches if match.one == found.counts.seeds[0]]
        worst = max((match.held_out_p for match in ours), default=float("nan"))
        distance = max((match.held_out for match in ours), default=float("nan"))
        title = names[1] if steps != 1 else f"{names[1]} at one checkpoint"
        if np.isfinite(worst):
            told = f"as close by chance in {worst:.2g}"
            conditions.append(Condition(Number(title, distance, p=worst), worst <= settings.level, False, told=told))
        else:
            conditions.append(lacking(title, "the seeds share no estimates (see the notes)"))
    counts = [] if found is None else [
        Number(f"{name} heads of {seed}", float(n))
        for seed, row in zip(found.counts.seeds, found.counts.counts, strict=True)
        for name, n in zip(found.counts.types, row, strict=True)
    ]  # fmt: skip
    what = "LLC curves" if steps != 1 else "final LLCs (the seeds share one checkpoint with estimates, so that no curve was compared)"
    return decide(
        "seeds",
        "Models from several seeds grow heads of the same types.",
        "For every type that the main model has, every seed has a head whose score is above the type's threshold by more than its error (Bonferroni "
        "over heads and seeds); and heads matched by behaviour alone, within layers, have "
        f"{what} that lie closer than those of heads matched at random "
        f"(p at most {settings.level:g} for the worst seed). Not seen where a type that the main model surely has is missing from a seed: every head "
        "is below the threshold by more than its error.",
        conditions,
        counts,
        flagged(
            (evidence.heads, None, False),
            *[
                (None if mine is None else replace(mine, data=name), None, False)
                for name, sibling in evidence.siblings.items()
                for mine in [sibling.curves.get(evidence.reference)]
            ],
        ),
    )


def shared_steps(evidence: Evidence) -> int:
    """How many checkpoints every seed has estimates at; 0 where a seed has none."""
    curves = [evidence.heads, *[sibling.curves.get(evidence.reference) for sibling in evidence.siblings.values()]]
    steps = [found.steps for found in curves if found is not None]
    return len(reduce(np.intersect1d, steps)) if steps else 0


def _all_have(title: str, evidence: Evidence, settings: AnalysisSettings) -> Condition:
    """That every seed has every type of the main model."""
    seeds = {"this model": evidence.behaviour, **{name: sibling.behaviour for name, sibling in evidence.siblings.items()}}
    main = head_types(evidence.behaviour, settings).types
    own = [name for name in SCORES.values() if name in main]
    if not own:
        return lacking(title, "no head of this model has a named type")
    kept, absent, unsure = 0, list[str](), list[str]()
    for kind in own:
        have = [_has(kind, behaviour, settings, len(own) * (len(seeds) - 1)) for behaviour in seeds.values()]
        kept += all(c.met for c in have)
        if have[0].met and any(c.refused for c in have[1:]):
            absent.append(kind)
        unsure += [f"{kind} in {name}" for name, c in zip(seeds, have, strict=True) if not c.met and kind not in absent]
    told = f"{', '.join(absent)} is not found in every seed" if absent else f"not sure by the errors of the scores: {', '.join(unsure)}"
    return Condition(Number(title, kept / len(own)), kept == len(own), bool(absent), 1.0, told if kept < len(own) else "")


def _has(kind: str, behaviour: Behaviour, settings: AnalysisSettings, among: int) -> Condition:
    """That some head of one seed is surely of a type; refused where every head's score is surely below the threshold."""
    score = next(name for name, of in SCORES.items() if of == kind)
    if score not in behaviour.scores or not behaviour.scores[score].size:
        return lacking(kind, "it was not measured")
    values, errors, types = behaviour.scores[score][:, -1], behaviour.error(score)[:, -1], head_types(behaviour, settings).types
    conditions: list[Condition] = []
    for head, value, error, of in zip(behaviour.heads, values, errors, types, strict=True):
        excess = float(value) - float(getattr(settings, score))
        condition = effect(head, excess, float(error), 0.0, settings.level, tries=len(values), among=among)
        conditions.append(replace(condition, met=condition.met and of == kind))  # a head of two high scores is of one type
    return any_of(kind, conditions, "it was not measured")
