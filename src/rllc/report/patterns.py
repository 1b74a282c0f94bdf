"""Attention patterns as the page carries them."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from rllc.analysis.findings import Patterns
from rllc.figures.text import visible

BUDGET = 4_000_000  # bytes of deflated patterns before checkpoints are thinned out


def pack(p: Patterns, kinds: dict[str, str], planted: Sequence[str] = ()) -> dict[str, Any]:
    """Patterns as the page reads them: weights deflated and in base64, tokens with hidden characters made visible.

    Shown first: an induction head where there is one, else the first head with a named type, else the first; on repetition (echo) or else
    another planted snippet where there is one.
    """
    wanted = sorted(range(len(p.heads)), key=lambda i: {"induction": 0, "other": 2}.get(kinds.get(p.heads[i], "other"), 1))
    return {
        "heads": list(p.heads),
        "steps": p.steps.tolist(),
        "snippets": [visible(s) for s in p.snippets],
        "tokens": [[visible(t) or "∅" for t in tokens] for tokens in p.tokens],
        "weights": [base64.b64encode(zlib.compress(np.ascontiguousarray(w).tobytes(), 9)).decode() for w in p.weights],
        "first": [_first_snippet(p, planted), wanted[0]],
    }


def thin(p: Patterns, budget: int = BUDGET) -> Patterns:
    """The patterns at fewer checkpoints, the last among them, where all of them would make the page heavy."""
    size = sum(len(zlib.compress(np.ascontiguousarray(w[-1:]).tobytes(), 1)) for w in p.weights)
    most = max(2, budget // max(1, size))
    if len(p.steps) <= most:
        return p
    kept = np.unique(np.linspace(0, len(p.steps) - 1, most).round().astype(int))
    return Patterns(p.heads, p.steps[kept], p.snippets, p.tokens, tuple(w[kept] for w in p.weights))


def _first_snippet(p: Patterns, planted: Sequence[str]) -> int:
    for domain in sorted(planted, key=lambda name: name != "echo"):
        for i, name in enumerate(p.snippets):
            if domain in name:
                return i
    return 0
