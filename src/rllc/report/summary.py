"""The findings in sentences. Nothing is said that the findings do not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from rllc.analysis.findings import Clustering, Curves, Findings, Stages
from rllc.core.outcome import Outcome
from rllc.figures.clusters import cluster_name
from rllc.figures.palette import TYPES
from rllc.figures.specialising import clear_differences
from rllc.figures.told import chance
from rllc.figures.training import SCORES, threshold_of
from rllc.report.data import ReportData, cells, reference_curves
from rllc.report.markup import measure, minus

METHODS = {"kmeans": "K-means", "hierarchical": "Hierarchical clustering", "dtw": "K-means under time warping", "kshape": "k-shape"}


def listed(items: Sequence[str]) -> str:
    """Items as English lists them.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(part for part in (", ".join(items[:-1]), *items[-1:]) if part)


def count(n: int, one: str, many: str = "") -> str:
    """A number of things.

    >>> count(1, "head"), count(16, "head")
    ('1 head', '16 heads')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def interval(low: float, high: float) -> str:
    """Two ends of a range.

    >>> interval(-0.12, 0.19)
    '−0.12 to 0.19'
    """
    return minus(f"{low:.2f} to {high:.2f}")


# What heads learn from planted text of a kind, and of which heads it says something.
_TAUGHT = {
    "echo": ("repetition for induction heads", "induction"),
    "brackets": ("brackets for bracket heads", "brackets"),
    "markov": ("a known law of next tokens for n-grams", "n-grams"),
}


def planted(data: ReportData) -> str:
    """What must stand beside every claim about what planted text teaches."""
    share = data.findings.planted_share
    if share <= 0:
        return "No planted text was in the training mixture."
    found = [d for d in data.domains if d.planted and d.share > 0]
    what = f" ({listed([d.name for d in found])})" if found else ""
    # A description that names no kinds is read with all that planted text may teach.
    taught = [_TAUGHT[kind] for kind in dict.fromkeys(d.kind for d in found) if kind in _TAUGHT] or [*_TAUGHT.values()]
    gives, of = (listed([pair[i] for pair in taught]) for i in (0, 1))
    return f"{100 * share:.3g} % of the training text was planted{what}, which holds {gives}: read what is said of {of} with that."


def by_type(f: Findings) -> dict[str, list[str]]:
    """Heads of each type that occurs, in the order of the palette."""
    found: dict[str, list[str]] = {}
    for name in [*TYPES, *f.types.types]:
        heads = [h for h, t in zip(f.types.heads, f.types.types, strict=True) if t == name]
        if heads:
            found[name] = heads
    return found


def types_sentence(f: Findings) -> str:
    """How many heads of which type, and what decided."""
    if not f.types.heads:
        return "Head types were not decided: no behaviour was measured."
    pieces = [
        f"{count(len(heads), name + ' head')} ({listed(heads)})" if name != "other" else f"{len(heads)} of no named type"
        for name, heads in by_type(f).items()
    ]
    at = f" at step {f.types.step:,}" if f.types.step >= 0 else ""
    brackets = ", brackets by the predictions that their ablation hurts" if "bracket" in f.types.types else ""
    return f"Of {count(len(f.types.heads), 'head')}, by their attention{at}{brackets}: {listed(pieces)}."


def formation(f: Findings) -> dict[str, list[tuple[str, int | None]]]:
    """For each named type its heads, and the first checkpoint from which on the deciding score stays at or above its threshold."""
    found: dict[str, list[tuple[str, int | None]]] = {}
    for score, (_, name) in SCORES.items():
        threshold, table = threshold_of(f.types, score), f.behaviour.scores.get(score)
        heads = by_type(f).get(name, [])
        if threshold is None or table is None or not heads:
            continue
        found[name] = [(h, _stays(table[f.behaviour.heads.index(h)], f.behaviour.steps, threshold)) for h in heads if h in f.behaviour.heads]
    return found


def _stays(score: np.ndarray, steps: np.ndarray, threshold: float) -> int | None:
    below = np.flatnonzero(~(score >= threshold))
    first = int(below[-1]) + 1 if below.size else 0
    return int(steps[first]) if first < len(steps) else None


def formation_sentences(f: Findings) -> list[str]:
    """When the heads of each named type form."""
    sentences = []
    for score, (_, name) in SCORES.items():
        heads = formation(f).get(name)
        if not heads:
            continue
        together: dict[int | None, list[str]] = {}
        for h, step in heads:
            together.setdefault(step, []).append(h)
        told = [f"{listed(hs)} {'not lastingly' if step is None else f'from step {step:,}'}" for step, hs in together.items()]
        title = {"prefix_matching": "Prefix matching"}.get(score, f"The {name} score")
        sentences.append(f"{title} reaches its threshold of {threshold_of(f.types, score):g} and stays there: {'; '.join(told)}.")
    return sentences


def final(curves: Curves) -> dict[str, tuple[float, float, str]]:
    """LLC, standard error and outcome of each head at the last checkpoint of these curves."""
    if not curves.steps.size:
        return {}
    return {p: (float(curves.llc[i, -1]), float(curves.stderr[i, -1]), str(curves.outcome[i, -1])) for i, p in enumerate(curves.parts)}


def llc_sentences(data: ReportData) -> list[str]:
    """Where the wrLLCs end, by type."""
    curves = reference_curves(data)
    if curves is None or not curves.steps.size:
        return ["No head was sampled."]
    ends = {h: (v, e) for h, (v, e, _) in final(curves).items() if np.isfinite(v)}
    missing = [h for h in curves.parts if h not in ends]
    step = f"step {int(curves.steps[-1]):,} on {curves.data}"
    if not ends:
        return [f"No head has an estimate at {step}."]
    low, high = min(ends, key=lambda h: ends[h][0]), max(ends, key=lambda h: ends[h][0])
    sentence = f"At {step} the wrLLC runs from {measure(*ends[low])} ({low}) to {measure(*ends[high])} ({high})."
    ranges = []
    for name, heads in by_type(data.findings).items():
        values = sorted(ends[h][0] for h in heads if h in ends)
        if values:
            span = f"{values[0]:.1f}" if len(values) == 1 else f"{values[0]:.1f} to {values[-1]:.1f}"
            ranges.append(f"{name} {minus(span)}")
    tail = f" {listed(missing)} {'has' if len(missing) == 1 else 'have'} no estimate there." if missing else ""
    return [sentence + (f" By type: {'; '.join(ranges)}." if len(ranges) > 1 else "") + tail]


def stage_sentence(stages: Stages | None) -> str:
    """The boundaries of the stages with their intervals."""
    if stages is None:
        return "Stages were not found: the full model has too few estimates, or was not sampled."
    if not stages.boundaries.size:
        return "The smoothed LLC of the full model has no turning point in log time: no stage boundary was found."
    told = []
    for boundary, interval, share in zip(stages.boundaries, stages.intervals, stages.found_in, strict=True):
        between = f" ({interval[0]:,.0f} to {interval[1]:,.0f})" if np.isfinite(interval).all() else ""
        told.append(f"step {boundary:,.0f}{between}, in {100 * share:.0f} % of resamples")
    turns = {1: "once", 2: "twice"}.get(len(told), f"{len(told)} times")
    return f"The full model's LLC turns {turns}, which bounds its stages: {'; '.join(told)}."


def leading(f: Findings) -> Clustering | None:
    """The clustering that the summary tells: of the last layer's heads, as in the paper; None where heads were not clustered."""
    last = max((layer for c in f.clusterings if (layer := _layer(c.scope)) is not None), default=None)
    return next((c for c in f.clusterings if _layer(c.scope) == last), None)


def _layer(scope: str) -> int | None:
    return None if scope == "all" else int(scope.removeprefix("layer "))


def cluster_sentence(clustering: Clustering, f: Findings) -> str:
    """One clustering: who is with whom, how stable it is and how far it agrees with the types."""
    groups = [
        f"{cluster_name(m)} = {listed([h for h, k in zip(clustering.heads, clustering.labels, strict=True) if k == m])}"
        for m in sorted({int(k) for k in clustering.labels})
    ]
    low, high = clustering.stability_interval
    sentence = f"{METHODS.get(clustering.method, clustering.method)} on {clustering.preprocessing} curves ({clustering.scope}): {'; '.join(groups)}."
    sentence += f" Stability under resampling: {clustering.stability:.2f} ({interval(low, high)})."
    agreement = next((a for a in f.agreements if matches(clustering, a)), None)
    if agreement is not None and np.isfinite(agreement.adjusted_rand):
        a, b = agreement.chance_interval
        sentence += (
            f" Agreement with the head types (adjusted Rand index): {measure(agreement.adjusted_rand)}, by chance within layers {interval(a, b)}"
        )
        sentence += f" ({chance(agreement.p_holm)} for all clusterings together)." if np.isfinite(agreement.p_holm) else "."
    elif agreement is not None:
        sentence += " Agreement with the head types is not defined here: there is but one type and one cluster."
    return sentence


def matches(clustering: Clustering, agreement: object) -> bool:
    """Whether an agreement is about this clustering."""
    same = [getattr(agreement, name, "") == getattr(clustering, name) for name in ("method", "scope", "time")]
    preprocessing = getattr(agreement, "preprocessing", "")
    return all(same) and preprocessing in ("", clustering.preprocessing)


def specialisation_sentences(data: ReportData) -> list[str]:
    """For each kind of data how many heads differ from the mixture, and how far the largest difference goes."""
    sentences = []
    clear = clear_differences(data.findings.specialisation)
    for s in data.findings.specialisation:
        known = np.flatnonzero(np.isfinite(s.difference) & np.isfinite(s.stderr))
        if not known.size:
            sentences.append(f"On {s.data} no head can be compared with {s.reference}.")
            continue
        top = known[np.argmax(np.abs(s.difference[known]))]
        amount = measure(float(s.difference[top]), float(s.stderr[top]))
        sentences.append(
            f"On {s.data}, {int(clear[s.data].sum())} of {count(int(known.size), 'head')} differ from {s.reference} beyond their "
            f"errors, all heads and kinds of text held together (Holm); the largest difference, {s.heads[top]}'s, is {amount}."
        )
    return sentences


def outcomes(data: ReportData) -> Counter[str]:
    """How many cells came to which outcome."""
    return Counter(str(row.get("outcome") or "") for row in cells(data))


def cells_sentence(data: ReportData) -> str:
    """How many cells are sound, marked and refused."""
    found = outcomes(data)
    if not found:
        return "No cell was sampled."
    refused = {o.value: found[o.value] for o in Outcome if o.refused and found[o.value]}
    marked = {o.value: found[o.value] for o in Outcome if not o.refused and o is not Outcome.OK and found[o.value]}
    pieces = [f"{found['ok']:,} ok"]
    for name, group in (("marked", marked), ("refused", refused)):
        detail = f" ({listed([f'{n:,} {o}' for o, n in group.items()])})" if group else ""
        pieces.append(f"{sum(group.values()):,} {name}{detail}")
    told = f"Of {count(sum(found.values()), 'cell')} sampled, {listed(pieces)}."
    return f"{told} A marked cell keeps its number and its mark; a refused one has no number."
