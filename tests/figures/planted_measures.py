"""Made-up measurements beside λ̂ that look like a real run's: every kind of `Measured`, with gaps, refused cells and hostile text."""

from __future__ import annotations

from typing import Any

import numpy as np

from rllc.analysis.findings import Floats
from rllc.analysis.measured import (
    Affected,
    Baselines,
    ClassShares,
    Composition,
    Edges,
    Entry,
    HeadEffects,
    Held,
    Measured,
    Memorised,
    NgramScores,
    TokenEffects,
    TokenTables,
)

CLASSES = ("induction", "bracket", "skip_ngram", "ngram", "other")
HOSTILE = ("<b>bold</b>", "</script>", "$x^2$", "\u202e", "\x07", "日本", "&amp;", "␣the", "⏎", '"')
WORDS = ("def", "␣f", "(", "x", ")", ":", "⏎", "␣␣␣␣", "return", "␣x", "␣+", "␣1", *HOSTILE)
EFFECT = {"previous-token": 0.05, "current-token": 0.02, "induction": 0.11, "other": 0.03}
ONSET = {"previous-token": 600.0, "current-token": 150.0, "induction": 1300.0, "other": 220.0}


def word(rng: np.random.Generator) -> str:
    return WORDS[int(rng.integers(len(WORDS)))]


def rise(steps: Any, at: float, width: float = 0.12) -> Floats:
    """From 0 to 1 over log time around a step."""
    return np.asarray(1 / (1 + np.exp(-(np.log10(np.asarray(steps) + 1.0) - np.log10(at + 1)) / width)))


def measured(heads: tuple[str, ...], types: tuple[str, ...], steps: np.ndarray, data: tuple[str, ...], seed: int = 3) -> Measured:
    """All of it; head 0:2 has no ablation at the second checkpoint."""
    rng = np.random.default_rng(seed)
    pairs = tuple((a, b) for a in heads for b in heads if a[0] < b[0])
    return Measured(
        ablation=_effects(heads, types, steps, data, rng),
        ngrams=_ngrams(steps, rng),
        composition=_composition(pairs, types, heads, steps, rng),
        paths=_edges(pairs, heads, types, steps, data, rng),
        tables=_tables(heads, types, steps, data, rng),
        shares=_shares(heads, types, steps, data, rng),
        tokens=_tokens(heads, types, steps, data, rng),
        memorised=_memorised(heads, types, steps, rng),
        baselines=_baselines(heads, types, steps, rng),
    )


def _curves(types: tuple[str, ...], steps: np.ndarray, rng: np.random.Generator) -> Floats:
    return np.stack([EFFECT[t] * rise(steps, ONSET[t]) * rng.uniform(0.6, 1.4) for t in types])


def _effects(heads: Any, types: Any, steps: np.ndarray, data: Any, rng: np.random.Generator) -> HeadEffects:
    effect, error = {}, {}
    for kind, size in (("zero", 1.2), ("mean", 1.0), ("resample", 1.1)):
        values = np.stack([_curves(types, steps, rng) * size * (1.8 if name == "code" else 1.0) for name in data], axis=-1)
        values[2, 1] = np.nan
        effect[kind], error[kind] = values, np.where(np.isfinite(values), 0.002 + 0.06 * np.abs(values), np.nan)
    loss = 3 + 3 * (1 - rise(steps, 200, 0.3))[:, None] + 0.3 * np.arange(len(data))
    return HeadEffects(
        heads, steps, data, effect, error, {k: v / loss for k, v in effect.items()}, {k: v / loss for k, v in error.items()}, loss, 0.03 * loss
    )


def _ngrams(steps: np.ndarray, rng: np.random.Generator) -> NgramScores:
    n = len(steps)
    bigram = 3.1 + 3 * (1 - rise(steps, 60, 0.2)) + 0.4 * rise(steps, 900)
    ratios = np.stack([0.9 + 0.7 * k * rise(steps, 200 * k) for k in (1, 2)])
    skip = 0.95 + 0.3 * rise(steps, 500)
    skip[0] = np.nan
    error = np.full(n, 0.03)
    excess = bigram - 2.9
    return NgramScores(
        steps, bigram, error, 2.9, excess, error, (2, 3), ratios, 0.04 * ratios, 3 / ratios, skip, 0.03 * skip, 3 / skip, np.array([2.9, 2.1])
    )


def _composition(pairs: Any, types: Any, heads: Any, steps: np.ndarray, rng: np.random.Generator) -> Composition:
    kinds = dict(zip(heads, types, strict=True))
    scores = {}
    for kind in "qkv":
        base = 0.06 + 0.01 * rng.standard_normal((len(pairs), 1)) * rise(steps, 300)[None]
        for i, (a, b) in enumerate(pairs):
            if kind == "k" and kinds[a] == "previous-token" and kinds[b] == "induction":
                base[i] += 0.12 * rise(steps, 1000)
        scores[kind] = base
    shape = (len(pairs), len(steps))
    return Composition(pairs, steps, scores, 0.06, dict.fromkeys("qkv", np.full(shape, 2 * 0.06 * 0.006)), dict.fromkeys("qkv", np.full(shape, 50.0)))


def _edges(pairs: Any, heads: Any, types: Any, steps: np.ndarray, data: Any, rng: np.random.Generator) -> Edges:
    kinds = dict(zip(heads, types, strict=True))
    effect = 0.0004 * rng.standard_normal((4, len(pairs), len(steps), len(data)))
    for i, (a, b) in enumerate(pairs):
        if kinds[a] == "previous-token" and kinds[b] == "induction":
            effect[1, i] += 0.02 * rise(steps, 1100)[:, None]
            effect[3, i] += 0.024 * rise(steps, 1100)[:, None]
    direct = np.repeat(_curves(types, steps, rng)[:, :, None], len(data), -1)
    return Edges(
        "mean", heads, pairs, steps, data, ("Q", "K", "V", "QKV"), effect, np.full(effect.shape, 0.0005), direct, 0.05 * direct,
        np.full((len(steps), len(data)), 3.5),
    )  # fmt: skip


def _tables(heads: Any, types: Any, steps: np.ndarray, data: Any, rng: np.random.Generator) -> TokenTables:
    def entries(same: bool) -> tuple[Entry, ...]:
        picked = rng.choice(len(WORDS), (5, 2))
        values = np.sort(rng.uniform(1, 14, 5))[::-1]
        return tuple(Entry(WORDS[a], WORDS[a] if same else WORDS[b], float(v)) for (a, b), v in zip(picked, values, strict=True))

    ov = tuple(tuple(entries(t == "induction") for t in types) for _ in steps)
    qk = tuple(tuple(entries(t == "current-token") for t in types) for _ in steps)
    copying = np.stack([rise(steps, ONSET[t]) * (0.8 if t == "induction" else 0.1) for t in types])
    values = np.repeat(_curves(types, steps, rng)[:, :, None] * 9, len(data), -1)
    return TokenTables(heads, steps, data, ov, qk, copying, values, 0.02 + 0.1 * np.abs(values))


def _shares(heads: Any, types: Any, steps: np.ndarray, data: Any, rng: np.random.Generator) -> ClassShares:
    base = np.tile(np.array([0.18, 0.08, 0.22, 0.4, 0.3]), (len(data), 1))
    shares = np.tile(base, (len(heads), len(steps), 2, 1, 1)).transpose(0, 1, 3, 2, 4)  # H S N F K
    for h, kind in enumerate(types):
        shares[h, ..., 0] += 0.6 * (kind == "induction")
        shares[h, ..., 3] += 0.3 * (kind == "other")
    shares = np.clip(shares + rng.normal(0, 0.02, shares.shape), 0, 1)
    shares[3] = np.nan  # a head whose ablation raises no loss
    low, high = np.clip(shares - 0.06, 0, 1), np.clip(shares + 0.06, 0, 1)
    centre = base[None, None, :, None, :]
    effect = 0.02 * shares[:, :, :, 0, :] * rng.uniform(0.5, 3, (len(heads), 1, 1, 1))
    closing = np.tile(0.2 * np.array([t == "current-token" for t in types])[:, None, None, None] + np.zeros(3), (1, len(steps), len(data), 1))
    return ClassShares(
        "mean", heads, steps, data, CLASSES, (0.01, 0.05), shares, low, high, base, low - centre, high - centre, effect, 0.1 * effect,
        np.tile([400.0, 90.0, 12.0], (len(data), 1)), closing + np.random.default_rng(5).normal(0, 0.01, closing.shape), np.full(closing.shape, 0.01),
    )  # fmt: skip


def _tokens(heads: Any, types: Any, steps: np.ndarray, data: Any, rng: np.random.Generator) -> TokenEffects:
    snippets = ("code 1", "prose 1")
    tokens = tuple(tuple(WORDS[int(k)] for k in rng.integers(0, len(WORDS), 90)) for _ in snippets)
    effects = tuple(rng.standard_normal((len(heads), len(steps), 90)) * 0.05 + rng.gamma(0.15, 0.6, (len(heads), len(steps), 90)) for _ in snippets)
    for table in effects:
        table[..., 0] = 0.0
    most = tuple(
        tuple(
            tuple(Affected(tuple(WORDS[int(k)] for k in rng.integers(0, len(WORDS), 10)), word(rng), 3.0 - i, ("induction",))
                  for i in range(3))
            for _ in heads
        )
        for _ in data
    )  # fmt: skip
    shape = (len(heads), len(heads), len(steps), len(data))
    half = rng.normal(0, 0.06, shape[:2])
    correlation = np.clip((half + half.T)[:, :, None, None] + np.zeros(shape), -1, 1)
    first, second = heads.index("0:1"), heads.index("1:6") if "1:6" in heads else 0
    for a, b in ((first, second), (second, first)):
        correlation[a, b] = 0.62
    overlap = np.clip(correlation + 0.05, 0, 1)
    for i in range(len(heads)):
        correlation[i, i] = overlap[i, i] = 1.0
    overlap[3] = overlap[:, 3] = np.nan
    return TokenEffects(
        "mean", heads, steps, snippets, tokens, effects, CLASSES, tuple(np.full(90, -1) for _ in snippets), data, most, correlation,
        np.full(shape, 0.03), overlap, 0.01,
    )  # fmt: skip


def _memorised(heads: Any, types: Any, steps: np.ndarray, rng: np.random.Generator) -> Memorised:
    size = {"previous-token": 40, "current-token": 120, "induction": 15, "other": 420}
    kinds = ("2-gram", "3-gram", "skip")
    shape = (len(heads), len(steps), len(kinds))
    ends = np.array([size[t] * rng.uniform(0.7, 1.3) for t in types])
    own = np.round(ends[:, None, None] * rise(steps, 500)[None, :, None] * np.array([0.5, 0.3, 0.2])).astype(np.int64)
    thresholds, least = (0.1, 0.2, 0.5, 1.0), (3, 5, 10)
    scale = np.array([2.2, 1.0, 0.4, 0.12])[:, None] * np.array([1.3, 1.0, 0.6])
    own_by = np.round(own[:, :, None, None, :] * scale[None, None, :, :, None]).astype(np.int64)
    examples = tuple(tuple(Held(f"{word(rng)} → {word(rng)}", "2-gram", 2.0 - 0.3 * i, 0.2, 14) for i in range(3)) for _ in heads)
    assert own.shape == shape
    return Memorised(
        heads, steps, kinds, own * 2, own, 5000, 0.2, 5, thresholds, least, own_by * 2, own_by, examples, "ab12", np.zeros((*shape[:2], 4), bool)
    )


def _baselines(heads: Any, types: Any, steps: np.ndarray, rng: np.random.Generator) -> Baselines:
    units = {
        "hessian_trace": "nats",
        "top_eigenvalue": "nats",
        "curvature_twin": "",
        "fisher_true": "nats",
        "weight_norm": "",
        "qk_participation": "",
        "ov_participation": "",
    }
    values, stderr = {}, {}
    for i, name in enumerate(units):
        values[name] = (1 + i) * np.stack([rise(steps, ONSET[t] * (1 + 0.2 * i)) * rng.uniform(5, 12) for t in types])
        stderr[name] = 0.08 * values[name] if i < 4 else np.full(values[name].shape, np.nan)
    values["hessian_trace"][5, 3] = np.nan
    return Baselines(heads, steps, values, stderr, units)
