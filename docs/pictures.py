"""Draws the pictures of the concepts page, from estimates and integrals that are computed here: `python docs/pictures.py` writes docs/pictures/*.svg.

One ink and four colours that stand on light and on dark ground, and that differ for eyes without one kind of cone; the ground itself is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

import rllc

FOLDER = Path(__file__).resolve().parent / "pictures"
INK, BLUE, ORANGE, GREEN, PINK = "#78828e", "#2b8fc9", "#d9702a", "#1f9a76", "#bb5f9c"
CHAINS = (BLUE, ORANGE, GREEN, PINK)
STYLE: dict[Any, Any] = {
    "font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK,
    "axes.labelcolor": INK, "axes.titlecolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK, "legend.frameon": False,
    "legend.labelcolor": INK, "svg.fonttype": "none", "svg.hashsalt": "rllc", "figure.facecolor": "none", "axes.facecolor": "none",
    "savefig.facecolor": "none", "path.simplify_threshold": 0.5,
}  # fmt: skip
SAMPLING: dict[str, Any] = {"localization": 10.0, "nbeta": 100.0, "batch_size": 8, "chains": 4}


class Point(nn.Module):
    """A few parameters `w` in double precision, at w*."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values, dtype=torch.float64))


def bowl(module: nn.Module, batch: Tensor) -> Tensor:
    """½ Σ w²: a regular minimum, whatever the batch."""
    return 0.5 * (module.w**2).sum() + 0 * batch.sum()


def regression(module: nn.Module, batch: Tensor) -> Tensor:
    """½ (y - w·x)² of rows (x, y)."""
    return 0.5 * ((batch[:, -1] - batch[:, :-1] @ module.w) ** 2).mean()


def new(columns: int, width: float = 7.2, height: float = 2.7, **kw: Any) -> tuple[Figure, list[Axes]]:
    """A figure of one row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False, **kw).ravel())


def volume() -> Figure:
    """How fast the volume of low loss shrinks with the loss, for a regular and for a singular minimum."""
    figure, (left, middle, right) = new(3)
    grid = np.linspace(-1, 1, 1201)
    a, b = np.meshgrid(grid, grid)
    bounds = np.geomspace(1e-4, 0.1, 25)
    for ax, loss, color, name in ((left, a**2 + b**2, BLUE, "a² + b²"), (middle, a**2 * b**2, ORANGE, "a² b²")):
        ax.contourf(a[::8, ::8], b[::8, ::8], loss[::8, ::8], levels=[0, 1e-3, 1e-2, 1e-1], colors=[color], alpha=0.35)
        ax.contour(a[::8, ::8], b[::8, ::8], loss[::8, ::8], levels=[1e-3, 1e-2, 1e-1], colors=[color], linewidths=0.8)
        ax.set(title=f"ℓ = {name}", xlabel="a", aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        share = np.array([(loss < bound).mean() for bound in bounds])
        slope = np.polyfit(np.log(bounds[:9]), np.log(share[:9]), 1)[0]
        right.loglog(bounds, share, color=color)
        right.annotate(f"{name}: slope {slope:.2f}", (bounds[6], share[6]), (10, -14), textcoords="offset points", color=color, fontsize=8)
    left.set_ylabel("b")
    right.set(title="share of weights with ℓ < δ", xlabel="δ")
    return figure


def refinement() -> Figure:
    """The law that is sampled, with all weights free and with one; on two kinds of data."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    narrow = x * torch.tensor([1.0, 0.15], dtype=torch.float64)
    figure, axes = new(3, height=3.1, sharex=True, sharey=True)
    grid = np.linspace(-0.8, 0.8, 81)
    a, b = np.meshgrid(grid, grid)
    cases = (("all weights, both inputs", x, "w"), ("weight a alone", x, "w[0:1]"), ("all weights, input of b small", narrow, "w"))
    for ax, (title, inputs, part) in zip(axes, cases, strict=True):
        rows = torch.cat([inputs, torch.zeros(len(inputs), 1, dtype=torch.float64)], dim=1)
        r = rllc.estimate(Point(0.0, 0.0), rows, [part], loss=regression, step_size=5e-3, draws=1500, burn_in=150, **SAMPLING)
        h = (inputs.numpy() ** 2).mean(axis=0)
        energy = SAMPLING["nbeta"] / 2 * (h[0] * a**2 + h[1] * b**2) + SAMPLING["localization"] / 2 * (a**2 + b**2)
        if part == "w":
            for level in (0.05, 0.2, 0.4, 0.6, 0.8):
                ax.contourf(a, b, np.exp(-energy), levels=[level, 1.01], colors=[BLUE], alpha=0.25)
        else:
            density = np.exp(-(SAMPLING["nbeta"] * h[0] + SAMPLING["localization"]) / 2 * grid**2)
            ax.contour(a, b, np.exp(-energy), levels=[0.2, 0.6], colors=[INK], linewidths=0.6, linestyles="dotted")
            ax.scatter(grid, 0 * grid, s=30 * density + 0.01, color=ORANGE, lw=0)
        ax.set(title=f"{title}\nλ̂ = {r.llc:.2f} ± {r.stderr:.2f} ({r.outcome})", xlabel="a", aspect="equal")
    axes[0].set_ylabel("b")
    return figure


def chain() -> Figure:
    """Four chains of one estimate, and their running mean."""
    figure, (left, right) = new(2)
    burn_in = 100
    r = rllc.estimate(Point(*[0.0] * 20), torch.zeros(16, 1), "w", loss=bowl, step_size=4e-3, draws=400, burn_in=burn_in, **SAMPLING)
    above = r.traces.losses[0] - r.traces.baseline[0]
    left.axvspan(0, burn_in, color=INK, alpha=0.15, lw=0)
    for values, color in zip(above, CHAINS, strict=True):
        left.plot(np.arange(len(values))[::2], values[::2], lw=0.7, color=color)
    left.set(title="4 chains; burn-in is grey", xlabel="step", ylabel="ℓ(w) − ℓ(w*), nats")
    running = r.draws.cumsum(axis=1) / np.arange(1, r.draws.shape[1] + 1)
    for values, color in zip(running, CHAINS, strict=True):
        right.plot(values, lw=0.8, color=color, alpha=0.7)
    right.plot(running.mean(axis=0), lw=1.8, color=INK)
    right.axhspan(*r.interval, color=INK, alpha=0.2, lw=0)
    curvature = SAMPLING["nbeta"] + SAMPLING["localization"]
    truth = 10 * SAMPLING["nbeta"] / curvature / (1 - 4e-3 * curvature / 4)  # METHOD 3.1
    right.axhline(truth, color=INK, ls=":", lw=1.2)
    right.set(title=f"λ̂ = {r.llc:.2f} ± {r.stderr:.2f} ({r.outcome}); exact: {truth:.2f}", xlabel="draw", ylabel="nβ × mean so far", ylim=(4, 16))
    return figure


def tilt() -> Figure:
    """Away from the minimum the chains find lower losses: the estimate falls, to below zero, and is marked."""
    figure, (left, right) = new(2)
    v = np.linspace(-0.8, 0.8, 200)
    for gradient, color in ((0.0, BLUE), (0.3, ORANGE)):
        left.plot(v, gradient * v + v**2 / 2, color=color)
        a = SAMPLING["nbeta"] + SAMPLING["localization"]
        density = np.exp(-a / 2 * (v + SAMPLING["nbeta"] * gradient / a) ** 2)
        left.fill_between(v, -0.12, -0.12 + 0.08 * density, color=color, alpha=0.4, lw=0)
    left.axvline(0, color=INK, lw=0.8, ls=":")
    left.annotate("w*", (0, 0.42), (3, 0), textcoords="offset points")
    left.set(title="loss, and below it where chains stay", xlabel="w − w*", ylabel="ℓ(w) − ℓ(w*)", ylim=(-0.13, 0.5))
    slopes = [0.0, 0.03, 0.06, 0.1, 0.15]
    h, nb, g = 1.0, SAMPLING["nbeta"], SAMPLING["localization"]
    fine = np.linspace(0, 0.16, 80)
    right.plot(fine, nb * h / (2 * (nb * h + g)) - nb**2 * fine**2 * (nb * h / 2 + g) / (nb * h + g) ** 2, color=INK, lw=1, label="exact at ε → 0")
    for slope in slopes:
        r = rllc.estimate(
            Point(0.0), torch.full((16, 1), slope, dtype=torch.float64), "w", loss=lambda m, batch: batch.mean() * m.w.sum() + 0.5 * (m.w**2).sum(),
            step_size=1e-3, draws=3000, burn_in=200, **(SAMPLING | {"chains": 8}),
        )  # fmt: skip
        ok = r.outcome == "ok"
        right.errorbar(slope, r.llc, abs(np.array([r.interval]).T - r.llc), color=BLUE, capsize=2, marker="o", markerfacecolor=BLUE if ok else "none")
        right.annotate(str(r.outcome), (slope, r.llc), (6, 4), textcoords="offset points", fontsize=8)
    right.axhline(0, color=INK, lw=0.6)
    right.set(title="λ̂ against the gradient at w*", xlabel="gradient at w*", ylabel="λ̂", xlim=(-0.008, 0.18), ylim=(-0.8, 0.65))
    right.legend(loc="lower left")
    return figure


def pairing() -> Figure:
    """The loss of a minibatch at w and at w*, and their difference."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 20, generator=generator, dtype=torch.float64)
    rows = torch.cat([x, torch.randn(4000, 1, generator=generator, dtype=torch.float64)], dim=1)
    fitted = torch.linalg.lstsq(rows[:, :-1], rows[:, -1:]).solution.ravel()
    r = rllc.estimate(
        Point(*fitted.tolist()),
        rows,
        "w",
        loss=regression,
        step_size=2e-3,
        draws=400,
        burn_in=150,
        **(SAMPLING | {"batch_size": 32, "origin_batches": 32}),
    )
    figure, (left, right) = new(2)
    kept = r.traces.kept
    steps = np.arange(60)
    left.plot(steps, r.traces.losses[0, 0, kept][:60], color=ORANGE, lw=1.2, label="at w, one chain")
    left.plot(steps, r.traces.baseline[0, kept][:60], color=BLUE, lw=1.2, label="at w*, same minibatch")
    left.set(title="loss of 60 minibatches", xlabel="draw", ylabel="nats")
    left.legend(loc="upper left", fontsize=8)
    left.set_ylim(top=1.35 * r.traces.losses[0, 0, kept][:60].max() - 0.1)
    nbeta = SAMPLING["nbeta"]
    paired = r.draws.mean(axis=0)
    alone = nbeta * (r.traces.losses[0][:, kept].mean(axis=0) - r.traces.baseline[0, kept].mean())
    right.hist(alone, bins=40, color=ORANGE, alpha=0.55, label=f"minus a constant: sd {alone.std():.1f}")
    right.hist(paired, bins=np.linspace(alone.min(), alone.max(), 41), color=BLUE, alpha=0.75, label=f"paired: sd {paired.std():.1f}")
    right.set(title=f"nβ × loss above w*, draws; λ̂ = {r.llc:.1f} ± {r.stderr:.1f}", xlabel="mean of 4 chains", yticks=[])
    right.set_ylim(top=1.4 * right.get_ylim()[1])
    right.legend(loc="upper right", fontsize=8)
    return figure


def outcomes() -> Figure:
    """Chains of an estimate that is believed, and of three that are marked or refused."""
    figure, axes = new(4, height=2.4)
    sloped = lambda m, batch: 0.1 * m.w.sum() + 0.5 * (m.w**2).sum() + 0 * batch.sum()  # noqa: E731
    cases = ((bowl, 4e-3, 60), (bowl, 2e-5, 0), (sloped, 4e-3, 60), (bowl, 3.62e-2, 60))
    for ax, (loss, step_size, burn_in) in zip(axes, cases, strict=True):
        r = rllc.estimate(Point(*[0.0] * 20), torch.zeros(16, 1), "w", loss=loss, step_size=step_size, draws=200, burn_in=burn_in, **SAMPLING)
        above = np.where(np.isfinite(r.traces.losses[0]), r.traces.losses[0], np.nan) - r.traces.baseline[0]
        for values, color in zip(above, CHAINS, strict=True):
            ax.plot(values, lw=0.7, color=color)
        number = "no number" if r.outcome.refused else f"λ̂ = {r.llc:.2f}"
        ax.set(title=f"{r.outcome}\n{number}", xlabel="step")
    axes[0].set_ylabel("ℓ(w) − ℓ(w*), nats")
    return figure


def main() -> None:
    """Draw all of them."""
    FOLDER.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    with mpl.rc_context(STYLE):
        for draw in (volume, refinement, chain, tilt, pairing, outcomes):
            draw().savefig(FOLDER / f"{draw.__name__}.svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
