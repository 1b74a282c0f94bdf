"""Head types from attention and from the predictions that ablation hurts (METHOD 5 and 6)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from rllc.analysis.findings import Behaviour, HeadTypes
from rllc.analysis.settings import AnalysisSettings

TYPES = ("previous-token", "current-token", "induction", "bracket", "other")
SCORES = {"previous_token": "previous-token", "current_token": "current-token", "prefix_matching": "induction"}


def head_types(behaviour: Behaviour, settings: AnalysisSettings, step: int | None = None, brackets: Collection[str] = ()) -> HeadTypes:
    """The type of each head at one checkpoint (the last, unless given): that of the score which exceeds its threshold by the largest factor.

    A head none of whose scores reaches its threshold is "bracket" where it is one of `brackets`, the heads whose ablation hurts closing brackets (see
    `claims_types.bracket_heads`), else "other"; `score` is NaN for one without scores. Without `brackets` attention alone decides. Raises ValueError
    for a step that was not measured.
    """
    thresholds = {name: float(getattr(settings, name)) for name in SCORES}
    names = [name for name in SCORES if name in behaviour.scores]
    n = len(behaviour.heads)
    unnamed = tuple("bracket" if head in brackets else "other" for head in behaviour.heads)
    if n == 0 or len(behaviour.steps) == 0 or not names:
        return HeadTypes(behaviour.heads, unnamed, np.full(n, np.nan), -1, thresholds)
    at = len(behaviour.steps) - 1 if step is None else behaviour.steps.tolist().index(step)
    scores = np.stack([behaviour.scores[name][:, at] for name in names])  # [names, H]
    ratios = np.where(np.isfinite(scores), scores / np.array([[thresholds[name]] for name in names]), -np.inf)
    best = ratios.argmax(axis=0)
    heads = np.arange(n)
    reached = ratios[best, heads] >= 1
    types = tuple(SCORES[names[i]] if yes else rest for i, yes, rest in zip(best, reached, unnamed, strict=True))
    score = np.where(np.isfinite(ratios[best, heads]), scores[best, heads], np.nan)
    return HeadTypes(behaviour.heads, types, score, int(behaviour.steps[at]), thresholds)
