"""Head types from behaviour (METHOD 5 and 6)."""

from __future__ import annotations

import numpy as np

from rllc.analysis.findings import Behaviour, HeadTypes
from rllc.analysis.settings import AnalysisSettings

TYPES = ("previous-token", "current-token", "induction", "other")
SCORES = {"previous_token": "previous-token", "current_token": "current-token", "prefix_matching": "induction"}


def head_types(behaviour: Behaviour, settings: AnalysisSettings, step: int | None = None) -> HeadTypes:
    """The type of each head at one checkpoint (the last, unless given): that of the score which exceeds its threshold by the largest factor.

    A head none of whose scores reaches its threshold is "other", and so is one without scores (then `score` is NaN). Raises ValueError for a step
    that was not measured.
    """
    thresholds = {name: float(getattr(settings, name)) for name in SCORES}
    names = [name for name in SCORES if name in behaviour.scores]
    n = len(behaviour.heads)
    if n == 0 or len(behaviour.steps) == 0 or not names:
        return HeadTypes(behaviour.heads, ("other",) * n, np.full(n, np.nan), -1, thresholds)
    at = len(behaviour.steps) - 1 if step is None else behaviour.steps.tolist().index(step)
    scores = np.stack([behaviour.scores[name][:, at] for name in names])  # [names, H]
    ratios = np.where(np.isfinite(scores), scores / np.array([[thresholds[name]] for name in names]), -np.inf)
    best = ratios.argmax(axis=0)
    heads = np.arange(n)
    reached = ratios[best, heads] >= 1
    types = tuple(SCORES[names[i]] if yes else "other" for i, yes in zip(best, reached, strict=True))
    score = np.where(np.isfinite(ratios[best, heads]), scores[best, heads], np.nan)
    return HeadTypes(behaviour.heads, types, score, int(behaviour.steps[at]), thresholds)
