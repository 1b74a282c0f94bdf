"""How a claim is decided: conditions with two stated error rates, and what they come to together.

A condition is a number that the claim wants above zero, with the least size that would matter. It is

- met, where the number is above zero beyond its error: of conditions that hold nothing, at most a share `level` is met;
- refused, where even the upper end of its interval is below the least size: of conditions that hold that size, at most a share `level` is refused;
- open otherwise: the interval covers both answers, or there is no number.

A number that is both above zero and below the least size is refused: it is there, and too small to be what the claim says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.comparisons import Claim, Number
from rllc.analysis.errors import quantile
from rllc.analysis.findings import Curves, Floats
from rllc.analysis.learners import normal_quantile
from rllc.analysis.regression import centred_in

NAN = float("nan")


@dataclass(frozen=True)
class Condition:
    """One condition of a claim, already decided; `told` says why in place of the usual words, such as what an open one lacks."""

    number: Number
    met: bool
    refused: bool
    least: float = 0.0
    told: str = ""


def effect(
    name: str,
    value: float,
    stderr: float,
    least: float,
    level: float,
    *,
    df: float = np.inf,
    tries: int = 1,
    among: int = 1,
    unit: str = "",
    missing: str = "",
) -> Condition:
    """A condition on a number with an error of normal noise, known or estimated.

    Args:
        name: what the number is, as the reader meets it.
        value: the number.
        stderr: its standard error; 0 where it is exact.
        least: the least size that would matter, above 0.
        level: of either error.
        df: degrees of freedom of stderr; infinite where it is known.
        tries: how many numbers this one was chosen from as the largest (Bonferroni).
        among: how many conditions the claim joins by "and", any of which refuses it (Bonferroni).
        unit: of the number.
        missing: why it is not known, where value or stderr is NaN.
    """
    if not (np.isfinite(value) and np.isfinite(stderr)):
        return lacking(name, missing or "it was not measured", unit)
    low = value - float(quantile(1 - level / tries, df)) * stderr
    high = value + float(quantile(1 - level / among, df)) * stderr
    return Condition(Number(name, value, low, high, unit=unit), low > 0 and high >= least, high < least, least)


def beyond_chance(
    name: str, value: float, low: float, high: float, p: float, least: float, level: float, *, unit: str = "", missing: str = ""
) -> Condition:
    """A condition on a number with a p-value against zero; the upper end of its interval can refuse it. `low` is for the reader."""
    if not np.isfinite(value):
        return lacking(name, missing or "it was not measured", unit)
    refused = bool(np.isfinite(high) and high < least)
    return Condition(Number(name, value, low, high, p, unit), bool(np.isfinite(p) and p <= level) and value > 0 and not refused, refused, least)


def reliability(values: Floats, stderr: Floats | None, layers: NDArray[np.int64] | None = None) -> float:
    """Share of the variance of values [H], with layers [H] of that within layers, that their errors [H] do not explain, 0..1; 1 without errors.

    >>> reliability(np.array([0.0, 2.0]), np.array([1.0, 1.0]))
    0.5
    """
    groups = np.zeros(len(values), dtype=np.int64) if layers is None else layers
    freedom = len(values) - len(np.unique(groups))
    spread = float((centred_in(values, groups) ** 2).sum()) / freedom if freedom > 0 else 0.0
    if stderr is None or spread <= 0:
        return 1.0
    return max(1 - float(np.mean(stderr**2)) / spread, 0.0)


def correlation_interval(found: float, n: int, level: float, trust: float, layers: int = 1) -> tuple[float, float]:
    """One-sided ends of a rank correlation over n heads (Fieller, Hartley and Pearson 1957) within so many layers, each of which takes a head's say.

    Errors of the numbers take from a correlation, so the upper end, which may refuse a claim, is divided by the root of `trust`, the product of both
    reliabilities (Spearman 1904): numbers that are mostly noise refuse nothing, and neither do fewer than four heads.
    """
    n -= layers - 1
    if n < 4:
        return -1.0, 1.0
    half, centre = normal_quantile(1 - level) * np.sqrt(1.06 / (n - 3)), np.arctanh(np.clip(found, -0.999, 0.999))
    high = float(np.tanh(centre + half))
    enlarged = high / np.sqrt(trust) if trust > 0 else 1.0
    return float(np.tanh(centre - half)), 1.0 if trust <= 0 else float(min(max(enlarged, high), 1.0))


def out_of_reach(condition: Condition, shuffled: Floats, level: float, what: str) -> Condition:
    """The same; where it is open because even the largest of the `shuffled` numbers [R] comes by chance more often than `level`, it says so."""
    reachable = float((shuffled >= np.nanmax(shuffled) - 1e-9).mean()) if np.isfinite(shuffled).any() else 0.0
    if condition.met or condition.refused or reachable <= level or not np.isfinite(condition.number.value):
        return condition
    return replace(condition, told=f"even the best {what} is chance in {reachable:.0%}, so that it cannot be seen with so few")


def lacking(name: str, missing: str, unit: str = "") -> Condition:
    """A condition on a number that there is none of, and why."""
    return Condition(Number(name, NAN, unit=unit), False, False, told=missing)


def any_of(name: str, conditions: Sequence[Condition], missing: str) -> Condition:
    """Met where one of them is met, refused where all are; the number is that of the one which stands out most.

    Each must have been made with `tries` = how many there are.
    """
    if not conditions:
        return lacking(name, missing)
    known = [c for c in conditions if np.isfinite(c.number.value) or c.refused]
    if not known:
        return lacking(name, conditions[0].told or missing)
    best = max(known, key=lambda c: (c.met, not c.refused, c.number.low - c.least if np.isfinite(c.number.low) else c.number.value))
    met = any(c.met for c in conditions)
    refused = not met and all(c.refused for c in conditions)
    number = Number(f"{name} ({best.number.name})", best.number.value, best.number.low, best.number.high, best.number.p, best.number.unit)
    return Condition(number, met, refused, best.least, "" if met else best.told)


def flagged(*used: tuple[Curves | None, Sequence[str] | None, bool]) -> str:
    """How many of the estimates that decide are tilted or drifting, as a sentence; "" where none is.

    Args:
        used: curves, which of their parts (all, unless given), and whether the last checkpoint alone has a say.
    """
    found: dict[str, set[tuple[str, str, int]]] = {"tilted": set(), "drifting": set()}
    cells: set[tuple[str, str, int]] = set()
    for curves, parts, last in used:
        if curves is None or not len(curves.steps):
            continue
        for i, part in enumerate(curves.parts):
            if parts is not None and part not in parts:
                continue
            for s in range(len(curves.steps) - 1 if last else 0, len(curves.steps)):
                if np.isfinite(curves.llc[i, s]):
                    cell = (curves.data, part, int(curves.steps[s]))
                    cells.add(cell)
                    if str(curves.outcome[i, s]) in found:
                        found[str(curves.outcome[i, s])].add(cell)
    said = [f"{len(cells_of)} {name}" for name, cells_of in found.items() if cells_of]
    return f"Of the {len(cells)} estimates that decide, {' and '.join(said)}." if said else ""


def decide(
    id: str,  # noqa: A002
    sentence: str,
    test: str,
    conditions: Sequence[Condition],
    beside: Sequence[Number] = (),
    doubts: str = "",
) -> Claim:
    """The claim that all conditions together make: refused by any, seen where all are met, else not to be told.

    `beside` are numbers for the reader that had no say; `doubts` follow the reason, such as what `flagged` says.
    """
    claim = _decide(id, sentence, test, conditions, beside)
    return replace(claim, why=f"{claim.why} {doubts}") if doubts else claim


def _decide(id: str, sentence: str, test: str, conditions: Sequence[Condition], beside: Sequence[Number]) -> Claim:  # noqa: A002
    numbers = (*(c.number for c in conditions), *beside)
    refused = [c for c in conditions if c.refused]
    if refused:
        return Claim(id, sentence, test, "not seen", numbers, f"{'; '.join(_refusal(c) for c in refused)}.")
    if conditions and all(c.met for c in conditions):
        return Claim(id, sentence, test, "seen", numbers, "Every condition is met.")
    told = [_open(c) for c in conditions if not c.met]
    return Claim(id, sentence, test, "cannot tell", numbers, f"{'; '.join(told) or 'Nothing was measured'}.")


def _refusal(condition: Condition) -> str:
    number = condition.number
    if condition.told:
        return f"{number.name}: {condition.told}"
    return f"{number.name} is at most {_text(number.high)}, and {_text(condition.least)} would be the least that counts"


def _open(condition: Condition) -> str:
    number = condition.number
    if condition.told:
        return f"{number.name}: {condition.told}"
    if np.isfinite(number.p):
        return f"{number.name} may be chance (p = {number.p:.2g}), or up to {_text(number.high)}"
    return f"{number.name} may be anything from {_text(number.low)} to {_text(number.high)}, which covers both answers"


def _text(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "unknown"
