"""Claims about the stages of training: their order by behaviour, and whether the LLC turns where behaviour sets in (METHOD 5)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.comparisons import Claim, Number, Turns
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Findings, Floats
from rllc.analysis.onsets import Onset, coincidence, lag, nearest_allowed, onset
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.verdicts import Condition, decide, effect, flagged, lacking
from rllc.core import seeds

MARKS = {
    "bigrams": "The bigram score",
    "n-grams": "The loss on n-grams",
    "previous-token": "The previous-token score",
    "induction": "Prefix matching",
}
_SCORES = {"previous-token": "previous_token", "induction": "prefix_matching"}


def marks(evidence: Evidence, settings: AnalysisSettings, seed: int) -> dict[str, Onset]:
    """The onset of each of `MARKS` that was measured.

    Of bigrams: the excess of the bigram score over its floor, which falls; of n-grams: the mean loss on the last token of the commonest ones, of
    all orders from 3 on (or of what orders there are), which falls; of heads: the largest score of any head, which rises. The n-gram score itself
    divides by that loss, so that half of its way comes late, the later the better n-grams are known in the end.
    """
    found: dict[str, Onset] = {}

    def add(name: str, steps: NDArray[np.int64], values: Floats, stderr: Floats, falls: bool = False) -> None:
        found[name] = onset(name, steps, values, stderr, seeds.generator(seed, "onset", name), falls=falls, level=settings.level)

    if (grams := evidence.measured.ngrams) is not None:
        add("bigrams", grams.steps, grams.bigram_excess, grams.bigram_excess_stderr, falls=True)
        rows = [i for i, order in enumerate(grams.orders) if order >= 3 and np.isfinite(grams.ngram_loss[i]).any()] or list(range(len(grams.orders)))
        if rows:
            error = loss_error(grams.ngram_loss[rows], grams.ngram[rows], grams.ngram_stderr[rows])
            add("n-grams", grams.steps, grams.ngram_loss[rows].mean(axis=0), error.mean(axis=0), falls=True)
    for name, score in _SCORES.items():
        if len(evidence.behaviour.heads) and score in evidence.behaviour.scores:
            values, error = evidence.behaviour.scores[score], evidence.behaviour.error(score)
            best = np.where(np.isfinite(values), values, -np.inf).argmax(axis=0)
            at = np.arange(len(evidence.behaviour.steps))
            add(name, evidence.behaviour.steps, values[best, at], error[best, at])
    return found


def loss_error(loss: Floats, score: Floats, stderr: Floats) -> Floats:
    """Errors of losses by those of scores, held-out loss over this loss: at most as large a share, for the score's error holds both losses'."""
    return np.abs(loss) * stderr / np.abs(score)


def stage_order(found: dict[str, Onset], evidence: Evidence, settings: AnalysisSettings) -> Claim:
    """Stages LM1 to LM4 in their order."""
    names = list(MARKS)
    among = len(names) + 1
    conditions: list[Condition] = []
    for earlier, later in pairwise(names):
        title = f"lag of {later} behind {earlier}"
        missing = [name for name in (earlier, later) if name not in found]
        still = [name for name in (earlier, later) if name in found and not len(found[name].before)]
        if missing:
            conditions.append(lacking(title, f"{' and '.join(MARKS[name].lower() for name in missing)} was not measured", "log steps"))
        elif still:
            conditions.append(lacking(title, f"{' and '.join(MARKS[name].lower() for name in still)} does not change beyond its errors", "log steps"))
        else:
            value, low, high = lag(found[earlier], found[later], settings.level, among)
            conditions.append(Condition(Number(title, value, low, high, unit="log steps"), low > 0, high < 0))
    for name, score in _SCORES.items():
        conditions.append(_reached(evidence, name, score, settings, among))
    beside = [Number(f"onset of {name}", mark.step, *mark.interval, unit="step") for name, mark in found.items()]
    if (grams := evidence.measured.ngrams) is not None:
        error = loss_error(grams.skip_loss, grams.skip, grams.skip_stderr)
        generator = seeds.generator(0, "onset", "skip")
        skip = onset("skip n-grams", grams.steps, grams.skip_loss, error, generator, falls=True, level=settings.level)
        beside.append(Number("onset of skip n-grams", skip.step, *skip.interval, unit="step"))
    return decide(
        "stages",
        "Training passes through stages in this order: bigrams (LM1), n-grams and skip n-grams (LM2), previous-token heads (LM3), induction heads "
        "(LM4).",
        "Each mark sets in where it has come half of its largest change: the bigram score's excess over its floor, the loss on n-grams, the largest "
        "previous-token score, the largest prefix matching. Each must set in surely later than the one before it, by the errors of both and "
        "the distance of checkpoints, and both scores of heads must reach the thresholds that name a type. One that surely sets in earlier, "
        "or a threshold that no head reaches, refuses the claim.",
        conditions,
        beside,
    )


def _reached(evidence: Evidence, name: str, score: str, settings: AnalysisSettings, among: int) -> Condition:
    title, threshold = f"largest {name} score above its threshold of {getattr(settings, score):g}", float(getattr(settings, score))
    if score not in evidence.behaviour.scores or not evidence.behaviour.scores[score].size:
        return lacking(title, f"{MARKS[name].lower()} was not measured")
    values, errors = evidence.behaviour.scores[score], evidence.behaviour.error(score)
    place = np.unravel_index(int(np.where(np.isfinite(values), values, -np.inf).argmax()), values.shape)
    tries = int(np.isfinite(values).sum())  # the largest of all heads at all checkpoints
    return effect(title, float(values[place]) - threshold, float(errors[place]), 0.0, settings.level, tries=tries, among=among)


def boundaries(found: dict[str, Onset], evidence: Evidence, findings: Findings, settings: AnalysisSettings, seed: int) -> Claim:
    """Boundaries of the LLC at the onsets of behaviour."""
    title = "mean distance of boundaries from the nearest onset"
    events = [mark for mark in found.values() if len(mark.before)]
    if findings.stages is None:
        condition = lacking(title, "the LLC of the full model has no stages to tell (see the notes)", "log steps")
    elif not len(findings.stages.boundaries):
        condition = lacking(title, "the LLC of the full model has no turn beyond its errors", "log steps")
    elif len(events) < 2:
        condition = lacking(title, f"{len(events)} marks of behaviour have an onset, and it takes 2", "log steps")
    else:
        stages = findings.stages
        turns = coincidence("onsets", stages.boundaries, np.array([mark.step for mark in events]), seeds.generator(seed, "boundaries"))
        nearest = float(nearest_allowed(turns.distance, stages.intervals, stages.boundaries, events).mean())
        condition = near(title, turns, nearest, settings)
    beside = [] if findings.stages is None else [
        Number(f"boundary {i + 1}", float(step), float(low), float(high), unit="step")
        for i, (step, (low, high)) in enumerate(zip(findings.stages.boundaries, findings.stages.intervals, strict=True))
    ]  # fmt: skip
    return decide(
        "boundaries",
        "The zeros of the smoothed derivative of the LLC over log time are the boundaries of the stages: behaviour sets in there.",
        f"The mean distance in log(step + 1) of the LLC's boundaries from the nearest onset of a mark, against boundaries laid at random over the "
        f"part of training in which anything happens. Seen where it is at most {settings.stage_window:g} and as small by chance in at most "
        f"{settings.level:.0%}; not seen where even the nearest places that both intervals allow lie further apart than {settings.stage_window:g}.",
        [condition],
        beside,
        flagged((evidence.full.get(evidence.reference), ("full",), False)),
    )


def near(title: str, turns: Turns, nearest: float, settings: AnalysisSettings) -> Condition:
    """The condition that places lie at events; `nearest` is the least mean distance that the intervals allow."""
    number = Number(title, turns.mean, nearest, p=turns.p, unit="log steps")
    told = f"{turns.mean:.2g} log steps, where chance gives {turns.by_chance:.2g} (p = {turns.p:.2g})"
    if nearest > settings.stage_window:
        return Condition(number, False, True, settings.stage_window, f"at least {nearest:.2g} log steps, more than {settings.stage_window:g}")
    return Condition(number, turns.p <= settings.level and turns.mean <= settings.stage_window, False, settings.stage_window, told)
