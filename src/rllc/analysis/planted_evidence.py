"""Evidence with a known answer to every claim of the paper: worlds in which all hold, none holds, chance alone rules, or noise hides everything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.evidence import Evidence, Sibling
from rllc.analysis.findings import Behaviour, Curves, Floats
from rllc.analysis.learners import normal_quantile
from rllc.analysis.measured import Baselines, ClassShares, Composition, Edges, Measured, Memorised, NgramScores, TokenEffects
from rllc.analysis.planted import estimated
from rllc.core import seeds

World = Literal["true", "false", "chance", "noisy"]
WORLDS: tuple[World, ...] = get_args(World)
MIX, CODE, CIRCUIT = "mixture", "code", "circuit"
HEADS = tuple(f"{layer}:{head}" for layer in range(2) for head in range(8))
PAIRS = tuple((a, b) for a in HEADS[:8] for b in HEADS[8:])
STEPS = np.unique(np.r_[0, np.round(np.geomspace(1, 50_000, 41)).astype(np.int64)])
X = np.log1p(STEPS.astype(np.float64))
PREVIOUS, CURRENT, INDUCTION, BRACKET = (1, 4), (5,), (14, 15), 3
SIMPLE = (*PREVIOUS, *CURRENT, *INDUCTION, BRACKET)
_OFFSET = 5.0  # by which layer 1 exceeds layer 0 by chance, in LLC and in whatever else
_NULLS = ("fisher_true", "top_eigenvalue", "weight_norm", "gradient_norm")
_CLASSES = ("induction", "bracket", "skip_ngram", "ngram", "other")


@dataclass(frozen=True)
class Plan:
    """What a world holds: places in log(step + 1), and sizes."""

    onsets: tuple[float, float, float, float]  # bigrams, n-grams, previous-token, induction
    turns: tuple[float, ...]  # of the LLC
    noise: float  # of estimates and scores, over their range
    peak: float  # of layer 0 against one layer; beyond the end for none
    late: float  # what layer 1 gains behind that peak
    shift: float  # of a boundary at another temperature


PLANS: dict[World, Plan] = {
    "true": Plan((3.0, 5.0, 7.0, 9.0), (5.0, 7.0, 9.0), 0.01, 7.5, 1.0, 0.3),
    "false": Plan((9.0, 7.0, 5.0, 3.0), (4.0, 6.0, 8.0), 0.01, 3.0, 0.0, 0.0),
    "chance": Plan((4.0, 4.0, 8.0, 8.0), (), 0.03, 99.0, 0.0, 0.0),
    "noisy": Plan((3.0, 5.0, 7.0, 9.0), (5.0, 7.0, 9.0), 2.0, 7.5, 1.0, 0.3),
}


def planted_evidence(world: World, seed: int) -> Evidence:
    """Evidence of one world: two layers of eight heads, 37 checkpoints, a model's LLC, code, a one-layer reference, two siblings, baselines.

    In "true" every claim of `claims` holds; in "false" every one is turned about or plainly absent, but that heads differ and have types (see
    `alike`, `typeless`). In "chance" there is nothing behind any of them: types, counts and turns are dealt at random, effects are noise, and all
    of layer 1 lies above layer 0, five baselines too. "noisy" is "true" behind errors of twice the range of everything.
    """
    plan, rng = PLANS[world], seeds.generator(seed, "planted evidence", world)
    final = _finals(world, rng)
    noise = 10 * plan.noise
    simple = np.isin(np.arange(16), SIMPLE)
    late = np.clip((X - 4) / (X[-1] - 4), 0, 1)
    hump = np.exp(-(((X - 6) / 1.5) ** 2))
    # Which heads share the shape of their curves: their kind where it is true, else every second one, or dealt at random.
    shape = {"false": np.arange(16) % 2 == 0, "chance": rng.permutation(16) % 2 == 0}.get(world, simple)
    clean = final[:, None] * late + np.where(shape, 25.0, 0.0)[:, None] * hump
    heads = _curves(MIX, HEADS, clean, noise, rng)
    rise = np.zeros(16)
    if world in ("true", "noisy"):
        rise[list(INDUCTION)] = (4.0, 2.0)
    behaviour, planted_turns = _behaviour(world, plan, rng), plan.turns or tuple(np.sort(rng.uniform(2.5, 9.5, 3)))
    siblings = {f"seed-{i}": _sibling(world, clean, behaviour, noise, rng) for i in (1, 2)}
    return Evidence(
        curves={MIX: heads, CODE: _curves(CODE, HEADS, clean + rise[:, None] * late, noise, rng), CIRCUIT: _circuit(plan, noise, rng)},
        full={MIX: _curves(MIX, ("full",), _turning(planted_turns)[None], 10 * noise, rng)},
        behaviour=behaviour,
        reference=MIX,
        measured=_measured(world, plan, final, planted_turns, rng),
        siblings=siblings,
        circuit=CIRCUIT,
        temperatures={23.0: _curves(MIX, ("full",), _turning(tuple(t + plan.shift for t in planted_turns))[None], 10 * noise, rng)},
        nbeta=30.0,
    )


def alike(evidence: Evidence, seed: int) -> Evidence:
    """The same, the curves of all heads one curve but for noise: no head differs from another."""
    heads = evidence.curves[MIX]
    noise = float(np.sqrt((heads.stderr**2).mean()))
    clean = np.broadcast_to(heads.llc.mean(axis=0), heads.llc.shape)
    return replace(evidence, curves={**evidence.curves, MIX: _curves(MIX, HEADS, clean, noise, seeds.generator(seed, "alike"))})


def typeless(evidence: Evidence) -> Evidence:
    """The same, every score a third as large: no head reaches a threshold."""
    scores = {name: values / 3 for name, values in evidence.behaviour.scores.items()}
    return replace(evidence, behaviour=replace(evidence.behaviour, scores=scores))


def _finals(world: World, rng: np.random.Generator) -> Floats:
    """Final LLC of each head: simple ones low where it is true, high where it is false, anything by chance."""
    spread = rng.uniform(-1, 1, 16)
    if world == "chance":
        return 10 + 3 * spread + _OFFSET * np.repeat((0.0, 1.0), 8)
    low = np.isin(np.arange(16), SIMPLE)
    return np.where(low, 4.0 if world != "false" else 14.0, 12.0 if world != "false" else 8.0) + spread


def _curves(data: str, parts: tuple[str, ...], clean: Floats, noise: float, rng: np.random.Generator) -> Curves:
    return estimated(data, parts, STEPS, clean, noise, rng)[0]


def _turning(turns: tuple[float, ...]) -> Floats:
    """A curve [S] that rises and falls between its turns, 100 high."""
    corners = np.array([X[0], *turns, X[-1]])
    heights = np.where(np.arange(len(corners)) % 2 == 0, 0.0, 100.0)
    return np.asarray(np.interp(X, corners, heights), dtype=np.float64)


def _logistic(place: float) -> Floats:
    return 1 / (1 + np.exp(-(X - place) / 0.25))


def _behaviour(world: World, plan: Plan, rng: np.random.Generator) -> Behaviour:
    scores: dict[str, Floats] = {}
    named = (("previous_token", PREVIOUS, plan.onsets[2]), ("current_token", CURRENT, 2.0), ("prefix_matching", INDUCTION, plan.onsets[3]))
    for name, heads, place in named:
        rows = np.full((16, len(STEPS)), 0.05)
        height = 0.25 if world == "chance" else 0.6  # by chance the best lie at their threshold, where a false one is called seen most easily
        rows[list(heads)] += height * _logistic(place)
        scores[name] = rows
    error = 0.005 if world in ("true", "false") else 0.05 if world == "chance" else 0.6
    drawn = {name: np.clip(values + error * rng.standard_normal(values.shape), -2, 2) for name, values in scores.items()}
    stderr = {name: np.full(values.shape, error) for name, values in scores.items()}
    if world == "noisy":  # types are known, how far the scores reach is not
        drawn["current_token"][list(CURRENT), -1] = drawn["prefix_matching"][list(INDUCTION), -1] = 0.65
        drawn["previous_token"][list(PREVIOUS), -1] = 0.65
        for values in drawn.values():
            values[:, -1] = np.where(values[:, -1] == 0.65, 0.65, 0.05)
    losses = np.array([6 - 3 * X / X[-1]])
    return Behaviour(HEADS, STEPS, drawn, (MIX,), losses, np.zeros(len(STEPS)), stderr)


def _sibling(world: World, clean: Floats, behaviour: Behaviour, noise: float, rng: np.random.Generator) -> Sibling:
    """Another seed: heads of a layer in another order; without induction heads where no claim holds, curves dealt anew by chance."""
    order = np.concatenate([rng.permutation(8), 8 + rng.permutation(8)])
    dealt = np.concatenate([rng.permutation(8), 8 + rng.permutation(8)]) if world == "chance" else order
    scores = {name: values[order].copy() for name, values in behaviour.scores.items()}
    if world == "false":
        scores["prefix_matching"][:] = 0.05
    elif world == "chance":  # every type is there, so that the match of heads alone decides
        for name, heads in (("previous_token", PREVIOUS), ("prefix_matching", INDUCTION)):
            scores[name][np.isin(order, heads), -1] = 0.6
    return Sibling({MIX: _curves(MIX, HEADS, clean[dealt], noise, rng)}, replace(behaviour, scores=scores))


def _circuit(plan: Plan, noise: float, rng: np.random.Generator) -> Curves:
    """Against one layer: layer 0 peaks and falls, or climbs to the end; layer 1 goes on gaining, or stays."""
    end = float(X[-1])
    falls = np.interp(X, [0, plan.peak, end], [0, 10, 4]) if plan.peak < end else np.full(len(X), 10.0)
    gains = np.interp(X, [0, min(plan.peak, end - 1), end], [0, 6, 6 + 6 * plan.late])
    clean = np.where(np.arange(16)[:, None] < 8, falls, gains)
    return _curves(CIRCUIT, HEADS, clean, noise, rng)


def _measured(world: World, plan: Plan, final: Floats, turns: tuple[float, ...], rng: np.random.Generator) -> Measured:
    size = {"true": 1.0, "false": 0.0, "chance": 0.0, "noisy": 1.0}[world]
    error = {"true": 0.1, "false": 0.01, "chance": 0.3, "noisy": 2.0}[world]  # over the size of an effect
    last, seven = STEPS[-1:], {pair: i for i, pair in enumerate(PAIRS)}[(HEADS[7], HEADS[13])]
    effect = np.zeros(len(PAIRS))
    effect[seven] = size
    found = effect + error * rng.standard_normal(len(PAIRS))
    direct = 1 + error * rng.standard_normal((16, 1, 1))
    edges = Edges("mean", HEADS, PAIRS, last, (MIX,), ("QKV",), found[None, :, None, None], np.full((1, len(PAIRS), 1, 1), error),
                  direct, np.full((16, 1, 1), error), np.full((1, 1), 3.0))  # fmt: skip
    deviation = 0.1 * {"noisy": 2.5}.get(world, 0.1)
    scores = {kind: (0.1 + deviation * np.clip(rng.standard_normal(len(PAIRS)), -3, 3))[:, None] for kind in "qkv"}
    squared = np.full((len(PAIRS), 1), 2 * 0.1 * deviation)  # deviation of the squared score
    scores["k"][seven, 0] = 0.1 + {"true": 0.5, "noisy": 0.3}.get(world, float(scores["k"][seven, 0]) - 0.1)
    return Measured(
        ngrams=_ngrams(plan, rng),
        composition=Composition(PAIRS, last, scores, 0.1, dict.fromkeys("qkv", squared), dict.fromkeys("qkv", np.full(squared.shape, 1e4))),
        paths=edges,
        shares=_shares(size, error, rng),
        tokens=_tokens(size, 0.5 * error, rng),
        memorised=_memorised(world, final, rng),
        baselines=_baselines(world, plan, final, turns, rng),
    )


def _ngrams(plan: Plan, rng: np.random.Generator) -> NgramScores:
    noise, none = np.full(len(STEPS), plan.noise), np.full(len(STEPS), np.nan)
    excess = 1 - _logistic(plan.onsets[0]) + noise * rng.standard_normal(len(STEPS))
    loss = (8 - 7.5 * _logistic(plan.onsets[1]) + 7.5 * noise * rng.standard_normal(len(STEPS)))[None]
    score = (8 - 4 * X / X[-1]) / loss  # whose half-way point lies behind that of the loss
    error = np.abs(score / loss) * 7.5 * noise
    return NgramScores(STEPS, excess + 3, noise, 3.0, excess, noise, (3,), score, error, loss, none, none, none, np.array([2.0]))


def _shares(size: float, error: float, rng: np.random.Generator) -> ClassShares:
    base = np.array([[0.1, 0.02, 0.2, 0.3, 0.4]])
    share = np.broadcast_to(base, (16, 1, 1, 1, 5)).copy()
    share[BRACKET, 0, 0, 0, 1] += 0.5 * size
    for head in range(16):
        if head not in SIMPLE:
            share[head, 0, 0, 0, 3] += 0.4 * size
    share = share + 0.3 * error * rng.standard_normal(share.shape)
    half = normal_quantile(0.975) * 0.3 * error
    excess, nothing = share - base[:, None], np.zeros((16, 1, 1, 5))
    kind = ("mean", HEADS, STEPS[-1:], (MIX,), _CLASSES, (0.01,))
    return ClassShares(*kind, share, share - half, share + half, base, excess - half, excess + half, nothing, nothing)


def _tokens(size: float, error: float, rng: np.random.Generator) -> TokenEffects:
    correlation = error * rng.standard_normal((16, 16, 2, 1))
    correlation[7, 13, 1, 0] += 0.7 * size
    spread = np.full(correlation.shape, error)
    return TokenEffects("mean", HEADS, STEPS[[0, -1]], (), (), (), _CLASSES, (), (MIX,), (), correlation, spread, np.abs(correlation), 0.01)


def _memorised(world: World, final: Floats, rng: np.random.Generator) -> Memorised:
    counted = {"false": 40 - 2 * final, "chance": rng.uniform(0, 30, 16) + 10 * np.repeat((0.0, 1.0), 8), "noisy": 2 * final}.get(world, 2 * final)
    if world == "noisy":
        counted = rng.permutation(counted)  # what the estimates say of the order is noise as well
    own: NDArray[np.int64] = np.round(np.maximum(counted, 0)).astype(np.int64)[:, None, None]
    by = own[:, :, None, None, :]
    return Memorised(
        HEADS, STEPS[-1:], ("2-gram",), own, own, 1000, 0.1, 5, (0.1,), (5,), by, by, ((),) * 16, "planted", np.zeros((16, 1, 0), np.bool_)
    )


def _baselines(world: World, plan: Plan, final: Floats, turns: tuple[float, ...], rng: np.random.Generator) -> Baselines:
    """One that orders heads at the end and turns where the LLC does, in worlds where it should; by chance five that do neither."""
    noise = 20 * plan.noise
    values: dict[str, Floats] = {}
    for name in ("hessian_trace", *(_NULLS if world == "chance" else ())):
        by_chance = rng.uniform(5, 15, 16) + _OFFSET * np.repeat((0.0, 1.0), 8)
        base = {"false": 30 - final, "chance": by_chance}.get(world, final)
        shape = {"false": X / X[-1], "chance": _turning(tuple(np.sort(rng.uniform(2.5, 9.5, 3)))) / 100}.get(world, _turning(turns) / 100)
        values[name] = base[:, None] * (X / X[-1]) + 20 * shape + noise * rng.standard_normal((16, len(STEPS)))
    return Baselines(HEADS, STEPS, values, {name: np.full((16, len(STEPS)), noise) for name in values}, dict.fromkeys(values, "nats"))
