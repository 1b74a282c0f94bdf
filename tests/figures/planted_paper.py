"""A whole made-up run for the catalogue of figures: findings, measurements, partings, regression, orders, seeds, controls, calibration."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from rllc.analysis.across_seeds import match_seeds, seed_features, type_counts
from rllc.analysis.calibrated import CalibrationMap, Point
from rllc.analysis.circuit import circuit
from rllc.analysis.comparisons import Seeds
from rllc.analysis.falls import falls
from rllc.analysis.findings import Agreement, Bends, Clustering, Curves, Findings, Numbers, StageAgreement, Stages, Tempered
from rllc.analysis.learners import ward_tree
from rllc.analysis.measured import Measured, TokenEffects
from rllc.analysis.ordering import orderings
from rllc.analysis.parting import data_part, heads_part
from rllc.analysis.regression import regress
from rllc.analysis.token_shares import TokenShares
from rllc.analysis.twins import twins
from rllc.figures.material import Material
from rllc.figures.over_seeds import SeedRun
from rllc.figures.told import Told

TOLD = Told(
    "2 layers of 8 heads",
    "SGLD",
    1e-3,
    200,
    30,
    chains=4,
    draws=200,
    burn_in=10,
    batch=32,
    context=128,
    mixture="train",
    contexts={"losses": 251, "scores": 61, "ablation": 67, "n-grams": 257, "paths": 71, "attribution": 73, "multigrams": 1031, "baselines": 7},
    took={"baselines": "They take 3 random vectors of 5 products."},
    planted_share=0.25,
)


def load(name: str) -> ModuleType:
    """A module beside this one: tests are collected without a package, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location(f"rllc_planted_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def material() -> Material:
    """A run of 16 heads on four kinds of data, with everything that the catalogue can draw."""
    synthetic, measures = load("synthetic"), load("planted_measures")
    f = _findings(synthetic)
    curves, heads = f.curves["train"], f.behaviour.heads
    found: Measured = measures.measured(heads, f.types.types, f.behaviour.steps[::2], ("train", "code", "prose"))
    assert found.memorised is not None
    assert found.baselines is not None
    assert found.ablation is not None
    last, place = found.memorised.multigrams()[:, -1].astype(np.float64), list(curves.steps).index(found.memorised.steps[-1])
    quantities = found.baselines.quantities() | {"multigrams": found.memorised.quantity(), "mean ablation": found.ablation.quantity("mean", "train")}
    seeds = _seeds(synthetic, f)
    features = seed_features({n: r.curves for n, r in seeds.items()}, dict.fromkeys(seeds, f.behaviour))
    types = {n: r.types for n, r in seeds.items()}
    against = _against(curves)
    f = replace(
        f,
        curves={**f.curves, "against": against},
        apart=("against",),
        partings=(heads_part(curves, 0), *(data_part(f.curves[d], curves, 0) for d in ("code", "prose", "echo"))),
        regression=regress(heads, curves.llc[:, place], last, "multigrams", 0, stderr=curves.stderr[:, place], permutations=200),
        orderings=orderings(curves, quantities, 0, resamples=50, permutations=200)[0],
        circuit=circuit(against, 0)[0],
        falls=falls(curves, 0),
        twins=twins(curves, found.baselines),
        seeds=Seeds(type_counts(types), match_seeds(features, 0, types=types, permutations=100)),
    )
    shares = _shares(heads, found.tokens)
    return Material(told=TOLD, findings=f, measured=found, controls=_controls(curves), seeds=seeds, calibration=_calibration(), shares=shares)


def _shares(heads: tuple[str, ...], effects: TokenEffects | None) -> TokenShares | None:
    if effects is None:
        return None
    share = np.concatenate([np.where(np.arange(t.shape[-1]) == 0, np.nan, t[:, -1] / 40) for t in effects.effects], axis=1)
    of = np.repeat(np.arange(len(effects.tokens)), [len(text) for text in effects.tokens])
    tokens, n = tuple(token for text in effects.tokens for token in text), len(heads)
    total = np.nansum(share, axis=1)
    return TokenShares(
        heads, "train", 3000, tokens, effects.snippets, of, share, np.full(share.shape, 0.01), total, np.full(n, 0.1), (200,) * n, ("ok",) * n
    )


def _findings(synthetic: ModuleType) -> Findings:
    f: Findings = synthetic.findings()
    rng = np.random.default_rng(5)
    b, steps = f.behaviour, f.behaviour.steps
    more = {name: rng.uniform(0.01, 0.2, (len(b.heads), 1)) * np.linspace(0.2, 1, len(steps)) for name in ("duplicate_token", "first_token")}
    more["duplicate_token"][4, 2:5] = np.nan
    keep = [h for h in b.heads if h != "1:3"]
    points = np.stack([f.curves["train"].llc[b.heads.index(h)] for h in keep])
    labels = np.array([{"induction": 0, "previous-token": 0, "current-token": 1, "other": 2}[f.types.types[b.heads.index(h)]] for h in keep])
    together = np.clip((labels[:, None] == labels[None]) * 0.85 + rng.uniform(0, 0.15, (15, 15)), 0, 1)
    np.fill_diagonal(together, 1.0)
    sizes = np.arange(1, 7)
    numbers = Numbers(
        sizes, np.array([np.nan, 0.5, 0.61, 0.55, 0.4, 0.35]), np.array([0.1, 0.5, 0.8, 0.79, 0.75, 0.7]), np.full(6, 0.04),
        np.array([1.0, 0.9, 0.88, 0.6, 0.5, 0.5]), np.full(6, 0.1), {"silhouette": 3, "gap": 3, "stability": 3},
    )  # fmt: skip
    clusterings: list[Clustering] = []
    agreements: list[Agreement] = []
    for scope in ("all", "layer 0", "layer 1"):
        own = [i for i, h in enumerate(keep) if scope in ("all", f"layer {h[0]}")]
        for method in ("kmeans", "hierarchical", "dtw", "kshape"):
            for preprocessing in ("raw", "standardised", "minmax"):
                tree = ward_tree(points) if method == "hierarchical" and scope == "all" else None
                found = Clustering(
                    method, scope, preprocessing, tuple(keep[i] for i in own), labels[own], 3, 0.61, 0.88, (0.7, 1.0), tree, ("1:3",), "log",
                    together if tree is not None else None,
                )  # fmt: skip
                clusterings.append(found)
                agreements.append(_agreement(method, scope, float(rng.uniform(-0.2, 0.9)), preprocessing))
    bends = Bends(
        "full", np.array([80.0, 340.0, 900.0]), np.array([[50, 120], [300, 420], [800, 1100.0]]),
        np.array([0.9, 0.95, 0.8]), np.array([1.0, 9, -5, 12]),
        np.array([False, True, True]), f.full["train"].llc[0], 1.1, np.array([90.0, 70, 60, 50]),
    )  # fmt: skip
    both = StageAgreement(
        np.array([np.nan, 330, 850.0]),
        np.array([80.0, 340, 900]),
        np.array([1, -1, 1]),
        np.array([np.nan, 0.03, 0.06]),
        np.array([False, True, True]),
    )
    return replace(
        f,
        behaviour=replace(b, scores=b.scores | more),
        clusterings=tuple(clusterings),
        agreements=tuple(agreements),
        numbers=replace(numbers, method="kmeans", preprocessing="raw", time="log"),
        ablation_clusterings=tuple(clusterings[:12]),
        ablation_agreements=tuple(agreements[:12]),
        bends=bends,
        stage_agreement=both,
        temperatures=(_colder(f.stages),) if f.stages is not None else (),
    )


def _colder(stages: Stages) -> Tempered:
    """The same stages at nβ 23, all a quarter later, with the first boundary lost."""
    moved = replace(stages, smooth_steps=1.25 * stages.smooth_steps, boundaries=1.25 * stages.boundaries[1:], intervals=1.25 * stages.intervals[1:])
    return Tempered(23.0, stages.curve, moved)


def _agreement(method: str, scope: str, index: float, preprocessing: str) -> Agreement:
    """An index beyond its own 95 % point above 0.3, and beyond chance among 36 above 0.6."""
    p = 0.0002 if index > 0.6 else 0.02 if index > 0.3 else 0.4
    return Agreement(method, scope, index, np.eye(3, dtype=np.int64), ("a", "b", "c"), (-0.2, 0.3), preprocessing, "log", p)


def _against(curves: Curves) -> Curves:
    """Layer 0 peaks and falls, layer 1 goes on rising."""
    t = np.log1p(curves.steps) / np.log1p(curves.steps[-1])
    shape = np.stack([np.sin(np.pi * t**2) * 8 + 2 * t if part.startswith("0") else 9 * t**2 for part in curves.parts])
    llc = shape * np.linspace(0.8, 1.2, len(shape))[:, None]
    error = np.full(llc.shape, 0.3)
    return replace(curves, data="against", llc=llc, stderr=error, ci_low=llc - 0.6, ci_high=llc + 0.6, outcome=np.full(llc.shape, "ok"))


def _controls(curves: Curves) -> dict[str, Curves]:
    def one(name: str, llc: np.ndarray, steps: np.ndarray) -> Curves:
        return Curves(
            name, tuple(f"part {i}" for i in range(len(llc))), steps, llc, np.full(llc.shape, 0.3), llc - 0.7, llc + 0.7, np.full(llc.shape, "ok")
        )

    t = np.log1p(curves.steps) / np.log1p(curves.steps[-1])
    return {
        "random part": one("train", np.stack([6 * t, 6.5 * t]), curves.steps),
        "untrained": one("train", np.array([[0.8]]), np.array([0])),
        "shuffled tokens": one("shuffled", 2.5 * t[None], curves.steps),
    }


def _seeds(synthetic: ModuleType, f: Findings) -> dict[str, SeedRun]:
    runs = {"seed 0": SeedRun(f.curves["code"], f.types)}
    for i in (1, 2, 3):
        rng = np.random.default_rng(40 + i)
        c = synthetic.head_curves("code", f.curves["code"].parts, f.curves["code"].steps, rng)
        kinds = list(f.types.types)
        kinds[3] = "induction" if i == 2 else "other"
        runs[f"seed {i}"] = SeedRun(c, replace(f.types, types=tuple(kinds)))
    return runs


def _calibration() -> CalibrationMap:
    x, y, beta = np.array([0.0015, 0.005, 0.015, 0.05]), np.array([0.01, 0.03, 0.1, 0.3]), np.array([23.0, 30.0])
    llc = 4 + 3 * np.log10(x / x[0])[None, None] + np.log10(y[::-1] / y[0])[None, :, None] + np.array([0, 0.4])[:, None, None]
    problem = np.full(llc.shape, "", dtype="<U8")
    problem[:, -1, -1], problem[:, 0, 0] = "refused", "drifting"
    llc[:, -1, -1] = np.nan
    tau = np.where(np.isfinite(llc), np.linspace(0.6, 1, 4)[None, None], np.nan)
    own = Point(0.015, 0.1, 30.0, "ε 0.001, γ 200, nβ 30")
    return CalibrationMap(x, y, beta, llc, tau, problem, own, own, 16, "step 3,000, train")
