"""What the model learns from outside: bigrams, n-grams, skip n-grams and in-context learning over training (METHOD 6)."""

from __future__ import annotations

import numpy as np

from rllc.analysis.findings import Behaviour
from rllc.analysis.learners import normal_quantile
from rllc.analysis.measured import NgramScores
from rllc.figures.axis import StepAxis
from rllc.figures.drawing import Layer, Line, Missing, Panel, Plot, Rule, Scale
from rllc.figures.head_lines import REACH
from rllc.figures.layout import bounds
from rllc.figures.palette import DATA, INK, MUTED, Style
from rllc.figures.told import TEST_LEVEL, Told, listed, step, with_error

FLOOR = Style(MUTED, "dash", "line-ew", "", 1.2)
SCORE = Style(INK, "solid", "circle", "o", 2.0)


def ngrams_and_context(scores: NgramScores, behaviour: Behaviour, told: Told) -> Plot | Missing:
    """Cross-entropy with the empirical bigram over its floor; loss over that on n-grams and on skip n-grams; the in-context-learning score."""
    axis = StepAxis.of(scores.steps, behaviour.steps)
    panels: list[Panel] = []
    if np.isfinite(scores.bigram).any():
        reach = REACH * scores.bigram_stderr
        layers: list[Layer] = [Rule(scores.bigram_floor, upright=False, style=FLOOR, label="entropy of the bigram")]
        layers.append(Line(scores.steps, scores.bigram, SCORE, "bigram", scores.bigram - reach, scores.bigram + reach))
        span = bounds(scores.bigram - reach, scores.bigram + reach, [scores.bigram_floor])
        panels.append(Panel("Bigrams", tuple(layers), Scale(steps=axis), Scale("cross-entropy (nats)", span)))
    lines: list[Layer] = [Rule(1.0, upright=False, style=FLOOR)]
    entries: list[tuple[str, Style]] = []
    ratios = [*zip([f"{n}-gram" for n in scores.orders], scores.ngram, scores.ngram_stderr, strict=True), ("skip", scores.skip, scores.skip_stderr)]
    edges: list[np.ndarray] = [np.array([1.0])]
    for i, (name, values, errors) in enumerate(ratios):
        if np.isfinite(values).any():
            low, high = values - REACH * errors, values + REACH * errors
            lines.append(Line(scores.steps, values, DATA[i % len(DATA)], name, low, high, end=name, group=name))
            edges += [low, high]
            entries.append((name, DATA[i % len(DATA)]))
    if entries:
        panels.append(Panel("n-grams and skip n-grams", tuple(lines), Scale(steps=axis), Scale("loss of text / loss on these", bounds(*edges))))
    if np.isfinite(behaviour.icl).any():
        reach = REACH * behaviour.errors[1]
        low, high = behaviour.icl - reach, behaviour.icl + reach
        icl = (Rule(0.0, upright=False, style=FLOOR), Line(behaviour.steps, behaviour.icl, SCORE, "in-context learning", low, high))
        y = Scale("late minus early loss (nats)", bounds(behaviour.icl, low, high, zero=True))
        panels.append(Panel("In-context learning", icl, Scale(steps=axis), y))
    if not panels:
        return Missing("No n-gram score and no in-context-learning score was measured.")
    caption = (
        "Left: cross-entropy of the prediction behind one token with the training text's bigram, over its entropy. Middle: mean loss of "
        "held-out text, each token with all of its context before it, over the loss on the last token of the commonest n-grams, each alone behind "
        "the "
        "first token of a context, and of skip n-grams, each in random filling; above 1 where the pattern's end costs less, which the title "
        "says where it is beyond the error, all scores and checkpoints held together (Bonferroni). Right: loss late in the context minus loss early. "
        "Bands: 95 %. "
    )
    return Plot(_title(scores, behaviour), caption + told.measuring("n-grams", told.mixture), tuple(panels), len(panels), 2.4, tuple(entries))


def _title(scores: NgramScores, behaviour: Behaviour) -> str:
    said: list[str] = []
    excess = scores.bigram_excess
    if np.isfinite(excess).any():
        best = int(np.nanargmin(excess))
        above = with_error(float(excess[best]), float(scores.bigram_excess_stderr[best]))
        said.append(f"behind one token, at least {above} nats above the bigram's entropy ({step(float(scores.steps[best]))})")
    ends = [(f"{n}-grams", *row) for n, *row in zip(scores.orders, scores.ngram, scores.ngram_stderr, strict=True)]
    ends = [row for row in (*ends, ("skip n-grams", scores.skip, scores.skip_stderr)) if np.isfinite(row[1]).any()]
    tries = len(ends) * len(scores.steps)
    if ends:
        firsts = [f"{name} {_first_above(scores.steps, row, errors, tries)}" for name, row, errors in ends]
        said.append(f"held-out text costs more a token than the end of a common pattern alone: {listed(firsts)}")
    fine = np.flatnonzero(np.isfinite(behaviour.icl))
    if fine.size:
        last = int(fine[-1])
        said.append(f"in-context score {with_error(float(behaviour.icl[last]), float(behaviour.errors[1][last]))} nats at the end")
    text = "; ".join(said)
    return text[0].upper() + text[1:] if text else "n-gram and in-context scores over training"


def _first_above(steps: np.ndarray, row: np.ndarray, errors: np.ndarray, tries: int) -> str:
    """From which checkpoint on a score stays above 1 by more than its error, so many scores tried together."""
    fine = np.flatnonzero(np.isfinite(row) & np.isfinite(errors))
    reach = normal_quantile(1 - TEST_LEVEL / max(tries, 1))
    level = fine[row[fine] - 1 <= reach * errors[fine]]
    after = fine[fine > level[-1]] if level.size else fine
    return f"from {step(float(steps[after[0]]))} on" if after.size else "not at the end"
