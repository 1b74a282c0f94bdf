"""A made-up run that looks like a real one: 16 heads, 12 checkpoints, 4 kinds of data, some cells tilted, one refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rllc.analysis.findings import (
    Agreement,
    Behaviour,
    Clustering,
    Curves,
    Findings,
    HeadTypes,
    Patterns,
    Specialisation,
    Stages,
)

STEPS = np.array([0, 30, 100, 200, 400, 700, 1000, 1400, 1800, 2200, 2600, 3000])
MIXTURE = "train"
DATA = (MIXTURE, "code", "prose", "echo")
TYPES = {"0:1": "previous-token", "0:4": "previous-token", "0:5": "current-token", "1:6": "induction", "1:7": "induction"}


def heads_of(layers: int) -> tuple[str, ...]:
    return tuple(f"{layer}:{h}" for layer in range(layers) for h in range(8))


def _rise(steps: np.ndarray, at: float, width: float = 0.35) -> np.ndarray:
    return 1 / (1 + np.exp(-(np.log10(steps + 1) - np.log10(at + 1)) / (width / 4)))


def head_curves(data: str, heads: tuple[str, ...], steps: np.ndarray, rng: np.random.Generator) -> Curves:
    shift = {"code": 1.25, "prose": 0.9, "echo": 0.55}.get(data, 1.0)
    llc = np.empty((len(heads), len(steps)))
    for p, head in enumerate(heads):
        kind = TYPES.get(head, "other")
        final = {"previous-token": 9, "current-token": 12, "induction": 7, "other": 19}[kind] + rng.uniform(-1.5, 1.5) + 2 * int(head[0])
        onset = {"previous-token": 600, "current-token": 150, "induction": 1300, "other": 220}[kind]
        boost = 2.1 if kind == "induction" and data in ("code", "echo") else 1.0
        llc[p] = final * shift * boost * (0.12 + 0.88 * _rise(steps, onset, 0.5)) + rng.normal(0, 0.18, len(steps))
    stderr = 0.15 + 0.025 * np.abs(llc) + rng.uniform(0, 0.15, llc.shape)
    outcome = np.full(llc.shape, "ok", dtype="<U9")
    if data != MIXTURE:
        outcome[:, : len(steps) // 3] = "tilted"
    outcome[2 % len(heads), 1] = "drifting"
    if data == MIXTURE and len(heads) > 11 and len(steps) > 6:
        outcome[11, 6] = "unstable"
        llc[11, 6] = stderr[11, 6] = np.nan
    return Curves(data, heads, steps, llc, stderr, llc - 2.2 * stderr, llc + 2.2 * stderr, outcome)


def findings(layers: int = 2, steps: np.ndarray = STEPS, data: tuple[str, ...] = DATA, context: int = 64, patterns: bool = True) -> Findings:
    rng = np.random.default_rng(0)
    heads = heads_of(layers)
    types = tuple(TYPES.get(h, "other") for h in heads)
    curves = {d: head_curves(d, heads, steps if d == MIXTURE else steps[:: 2 if len(steps) > 4 else 1], rng) for d in data}
    stages = _stages(steps, rng)
    scores = {
        name: np.stack([(0.55 + rng.uniform(-0.1, 0.1) if t == kind else rng.uniform(0.01, 0.08)) * _rise(steps, at, 0.3) + 0.015 for t in types])
        for name, kind, at in (
            ("previous_token", "previous-token", 700),
            ("current_token", "current-token", 150),
            ("prefix_matching", "induction", 1500),
        )
    }
    finals = np.array([{"train": 3.1, "code": 2.6, "prose": 3.5, "echo": 1.9}.get(d, 3.0) for d in data])
    losses = finals[:, None] + (6.24 - finals[:, None]) * (1 - 0.6 * _rise(steps, 90, 0.6) - 0.4 * _rise(steps, 1200, 0.6))
    behaviour = Behaviour(heads, steps, scores, data, losses, -0.5 * _rise(steps, 1500, 0.3), *_errors(scores, losses))
    deciding = np.array([max(s[i, -1] for s in scores.values()) for i in range(len(heads))])
    thresholds = {"previous_token": 0.3, "current_token": 0.3, "prefix_matching": 0.3}
    head_types = HeadTypes(heads, types, deciding, int(steps[-1]), thresholds)
    labels = np.array([{"induction": 0, "previous-token": 0, "current-token": 1, "other": 2}[t] for t in types])
    confusion = np.array([[int(((labels == m) & (np.array(types) == y)).sum()) for m in range(3)] for y in _type_names(types)])
    left = tuple(h for h, row in zip(heads, curves[data[0]].llc, strict=True) if not np.isfinite(row).all())
    keep = np.array([h not in left for h in heads])
    clusterings = (
        Clustering("kmeans", "all", "standardised", tuple(np.array(heads)[keep]), labels[keep], 3, 0.61, 0.88, (0.7, 1.0), None, left),
        Clustering(
            "hierarchical",
            "all",
            "standardised",
            tuple(np.array(heads)[keep]),
            labels[keep],
            3,
            0.58,
            0.83,
            (0.62, 1.0),
            _tree(int(keep.sum())),
            left,
        ),
    )
    agreements = tuple(Agreement(m, "all", 0.71, confusion, _type_names(types), (-0.12, 0.19)) for m in ("kmeans", "hierarchical"))
    special = tuple(
        Specialisation(heads, d, MIXTURE, curves[d].llc[:, -1] - curves[MIXTURE].llc[:, -1], np.hypot(curves[d].stderr[:, -1], 0.2))
        for d in data
        if d != MIXTURE and MIXTURE in data
    )
    return Findings(
        curves=curves,
        full={MIXTURE: stages.curve},
        behaviour=behaviour,
        patterns=attention(heads, steps, context, rng) if patterns else None,
        types=head_types,
        clusterings=clusterings,
        agreements=agreements,
        stages=stages,
        specialisation=special,
        planted_share=0.25,
        notes=("Head 1:3 left the clustering: its curve lacks step 1,000.",),
    )


def _errors(scores: dict[str, np.ndarray], losses: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Of scores, losses and the in-context-learning score."""
    return {name: 0.01 + 0.02 * values for name, values in scores.items()}, 0.03 * losses, np.full(losses.shape[1], 0.02)


def _type_names(types: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(t for t in ("previous-token", "current-token", "induction", "other") if t in types)


def _tree(n: int) -> np.ndarray:
    """A chain of merges: every step joins the next leaf to what there is."""
    rows, cluster = [], 0
    for i in range(1, n):
        rows.append([float(cluster), float(i), 0.4 + 0.35 * i, float(i + 1)])
        cluster = n + i - 1
    return np.array(rows)


def _stages(steps: np.ndarray, rng: np.random.Generator) -> Stages:
    fine = np.expm1(np.linspace(np.log1p(steps[0]), np.log1p(steps[-1]), 200))
    shape = lambda t: 4 + 34 * _rise(t, 120, 0.5) - 8 * _rise(t, 600, 0.35) + 30 * _rise(t, 1500, 0.3)  # noqa: E731
    llc = (shape(steps) + rng.normal(0, 0.7, len(steps)))[None]
    stderr = np.full_like(llc, 0.9)
    outcome = np.full(llc.shape, "ok", dtype="<U9")
    curve = Curves(MIXTURE, ("full",), steps, llc, stderr, llc - 2 * stderr, llc + 2 * stderr, outcome)
    inside = [b for b in (330.0, 850.0) if b < steps[-1]]
    intervals = np.array([[0.8 * b, 1.25 * b] for b in inside]).reshape(-1, 2)
    return Stages(curve, fine, shape(fine), np.array(inside), intervals, np.full(len(inside), 0.93))


WORDS = (
    "def",
    "␣f",
    "(",
    "x",
    ")",
    ":",
    "⏎",
    "␣␣␣",
    "return",
    "␣x",
    "␣+",
    "␣1",
    "<b>",
    "</script>",
    "\u202e",
    "é",
    "\x07",
    '"',
    "'",
    "&",
    "␣the",
    "␣head",
)


def attention(heads: tuple[str, ...], steps: np.ndarray, context: int, rng: np.random.Generator) -> Patterns:
    snippets = ("code 1", "prose 1", "echo")
    shown = steps[:: max(1, len(steps) // 6)]
    tokens = [tuple(WORDS[int(k)] for k in rng.integers(0, len(WORDS), context)) for _ in snippets]
    segment = [f"␣w{int(k)}" for k in rng.integers(0, 400, context // 4)]
    tokens[2] = tuple((segment * 5)[:context])
    weights = []
    for s in range(len(snippets)):
        block = np.zeros((len(shown), len(heads), context, context))
        for h, head in enumerate(heads):
            kind = TYPES.get(head, "other")
            logits = rng.normal(0, 1.2, (context, context))
            for k, step in enumerate(shown):
                strong = np.zeros((context, context))
                rows = np.arange(context)
                if kind == "previous-token":
                    strong[rows[1:], rows[:-1]] = 7 * _rise(np.array([step]), 700)[0]
                elif kind == "current-token":
                    strong[rows, rows] = 6 * _rise(np.array([step]), 150)[0]
                elif kind == "induction" and s == 2:
                    back = context // 4 - 1
                    strong[rows[back:], rows[: context - back]] = 8 * _rise(np.array([step]), 1500)[0]
                scores = np.where(np.tri(context) > 0, logits * min(1, step / 500) + strong, -np.inf)
                e = np.exp(scores - scores.max(-1, keepdims=True))
                block[k, h] = e / e.sum(-1, keepdims=True)
        weights.append(np.round(block * 255).astype(np.uint8))
    return Patterns(heads, shown, snippets, tuple(tokens), tuple(weights))


def table(f: Findings) -> list[dict[str, Any]]:
    """Tidy rows of every cell, with the columns of `rllc table`."""
    rng = np.random.default_rng(1)
    rows = []
    for curves in [*f.curves.values(), *f.full.values()]:
        for p, part in enumerate(curves.parts):
            for s, step in enumerate(curves.steps):
                outcome = str(curves.outcome[p, s])
                rows.append(
                    {
                        "run": "demo",
                        "step": int(step),
                        "part": part,
                        "data": curves.data,
                        "evaluated_on": curves.data,
                        "sampler": "sgld",
                        "step_size": 1e-3,
                        "localization": 200.0,
                        "nbeta": 30.0,
                        "chains": 4,
                        "draws": 60,
                        "burn_in": 10,
                        "estimator": "paired",
                        "llc": float(curves.llc[p, s]),
                        "stderr": float(curves.stderr[p, s]),
                        "ci_low": float(curves.ci_low[p, s]),
                        "ci_high": float(curves.ci_high[p, s]),
                        "llc_unpaired": float(curves.llc[p, s] + rng.normal(0, 1)),
                        "tilt": float(rng.gamma(1, 0.1)) + (1.5 if outcome == "tilted" else 0),
                        "rhat": float("nan") if outcome == "unstable" else 1 + float(rng.gamma(1.2, 0.02)) + (0.2 if outcome == "drifting" else 0),
                        "ess": float(rng.uniform(40, 220)),
                        "stein_ratio": float(rng.normal(1.0, 0.01)),
                        "outcome": outcome,
                        "seconds": float(rng.uniform(0.5, 2)),
                        "key": f"{p:02x}{s:02x}" * 8,
                    }
                )
    return rows


def all_refused(f: Findings, data: str, head: str) -> Findings:
    """The same findings with one head's curve refused throughout."""
    c = f.curves[data]
    row = c.parts.index(head)
    fields = {name: getattr(c, name).copy() for name in ("llc", "stderr", "ci_low", "ci_high", "outcome")}
    for name, values in fields.items():
        values[row] = "unstable" if name == "outcome" else np.nan
    return replace(f, curves=f.curves | {data: replace(c, **fields)})
