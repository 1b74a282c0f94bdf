"""How λ̂ depends on the sampler's settings: a grid of ε·nβ/2 and ε·γ/2 at each nβ (METHOD 2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from rllc.analysis.calibrated import CalibrationMap
from rllc.figures.drawing import Cells, Missing, Panel, Plot, in_words
from rllc.figures.told import number, plural

SIGNS = {"refused": "×", "biased": "b", "far": "f", "drifting": "~"}


def settings_grid(found: CalibrationMap) -> Plot | Missing:
    """Median λ̂ of the parts, and below it how far they keep the order that they have under the recommended settings; a column a temperature."""
    healthy = found.problem == ""
    values = np.where(np.isfinite(found.llc) & (found.llc > 0), found.llc, np.nan)
    if not np.isfinite(values).any():
        return Missing("No setting of the grid gave an estimate.")
    log = np.log10(values)
    low, high = float(np.nanmin(log)), float(np.nanmax(log))
    rows, columns = tuple(f"{y:.3g}" for y in found.prior_products), tuple(f"{x:.3g}" for x in found.loss_products)
    above: list[Panel] = []
    below: list[Panel] = []
    for n, beta in enumerate(found.nbeta):
        numbers = in_words(found.llc[n], 1, "×")
        texts = tuple(
            tuple(f"{t} {SIGNS.get(str(p), '?')}".strip() if p and t != "×" else t for t, p in zip(ts, ps, strict=True))
            for ts, ps in zip(numbers, found.problem[n], strict=True)
        )
        words: dict[str, Any] = {"row_title": "ε γ/2" if n == 0 else "", "column_title": "ε nβ/2"}
        above.append(
            Panel(
                f"median λ̂, nβ {beta:g}", (Cells(log[n], rows, columns, low, high if high > low else low + 1, texts=texts, name="log10 λ̂", **words),)
            )
        )
        order = Cells(found.tau[n], rows, columns, -1.0, 1.0, "diverging", in_words(found.tau[n]), name="Kendall τ", **words)
        below.append(Panel(f"τ of the parts' order, nβ {beta:g}", (order,)))
    fine = healthy & np.isfinite(values)
    worst = found.tau[fine & np.isfinite(found.tau)]
    order_words = f", and the parts keep their order to Kendall τ {number(float(worst.min()))} or better" if worst.size else ""
    span = f"from {number(float(values[fine].min()), 1)} to {number(float(values[fine].max()), 1)}" if fine.any() else "nowhere healthy"
    title = f"Over {int(fine.sum())} of {fine.size} settings without a complaint the median λ̂ runs {span}{order_words}"
    advice = f" Recommended: {found.recommended.text}." if found.recommended is not None else ""
    caption = (
        f"Median over {plural(found.parts, 'part')}, {found.where}. ×: refused; b: biased by the step size; f: raises the loss more than removing "
        f"the part "
        f"does; ~: drifting after the burn-in.{advice} The experiment's own: {found.own.text}."
    )
    return Plot(title, caption, (*above, *below), len(found.nbeta), 0.85 + 0.2 * len(rows), width=max(5.2, min(6.8, 1 + 2.6 * len(found.nbeta))))
