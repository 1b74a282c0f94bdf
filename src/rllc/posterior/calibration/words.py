"""The advice in sentences, each with the number that it rests on."""

from __future__ import annotations

import math

import numpy as np

from rllc.core.outcome import Outcome
from rllc.posterior.calibration.advice import Advice, Budget, Finalist, summary
from rllc.posterior.calibration.settings import CalibrationSettings
from rllc.posterior.calibration.trial import Trial
from rllc.posterior.settings import SamplerSettings

_FLAT = 0.2  # of the slope in γ and nβ: below it λ̂ is on a plateau, ...
_STEEP = 0.7  # ... and above it the localization sets its scale
_PRIOR = 0.9  # of the loss that the prior alone allows: above it the data hardly hold the weights


def reasons(
    advice: Advice, base: SamplerSettings, settings: CalibrationSettings, healthy: int, surveyed: int, control: Trial | None = None
) -> tuple[str, ...]:
    """Why the chosen setting, or why none.

    Args:
        advice: what was decided.
        base: the experiment's sampler.
        settings: the limits.
        healthy: settings of the grid that were healthy at the last checkpoint ...
        surveyed: ... of this many.
        control: the chains with nβ = 0 at the chosen step size and localization.
    """
    chosen = advice.chosen
    if chosen is None:
        return (f"No setting that was sampled longer is healthy at every checkpoint; {healthy} of {surveyed} are at the last one, in short runs.",)
    return (
        _choice(advice, chosen, settings, healthy, surveyed),
        _cells(chosen),
        _step_size(chosen),
        _burn_in(chosen, base, settings),
        _plateau(chosen),
        *(_locality(chosen)),
        *(() if control is None else (_control(chosen, control),)),
        _precision(chosen, base),
    )


def standing(own: Finalist, chosen: Finalist | None) -> tuple[str, ...]:
    """What the experiment's own settings look like, and how their numbers compare with the chosen ones'."""
    if own.problems:
        verdict = "They are not healthy. " + " ".join(dict.fromkeys(p.text for p in own.problems))
    else:
        verdict = f"They are healthy at every checkpoint that was looked at. Error budget {budget(own.budget)}."
    lines = [verdict]
    if chosen is not None and not own.setting.same(chosen.setting):
        ratio = own.trials[-1].column("llc") / chosen.trials[-1].column("llc")
        if np.isfinite(ratio).any():
            lines.append(f"A typical part's λ̂ is {np.nanmedian(ratio):.2f} times that of the recommended settings at the last checkpoint.")
    return tuple(lines)


def ranking(advice: Advice) -> tuple[str, ...]:
    """How much the order of the parts depends on the settings."""
    found = summary(advice.agreements)
    if not found:
        return ("Too few parts, or no other healthy setting: the order of the parts was not compared.",)
    worst, least = min(((s, a) for s, a in advice.agreements if math.isfinite(a.tau)), key=lambda pair: pair[1].tau)
    lines = [
        f"Kendall τ of the parts' order at the recommended setting with that at each other healthy one ({found['settings']:.0f} in short runs): "
        f"median {found['median']:.2f}, minimum {least.tau:.2f} (at {worst}). Sampling errors alone would give about {found['noise']:.2f}."
    ]
    if math.isfinite(found["kept"]):
        lines.append(
            f"Of the pairs of parts that both settings tell apart by two standard errors ({100 * found['told_apart']:.0f} % of all pairs), "
            f"{100 * found['kept']:.0f} % keep their order."
        )
    else:
        lines.append("No pair of parts is told apart by two standard errors at both settings: the order needs more draws than these.")
    return tuple(lines)


def budget(b: Budget) -> str:
    """An error budget in words."""
    shares = f"step size {_percent(b.bias)}, sampling {_percent(b.noise)}, γ and nβ {_percent(b.change)}, tilt {_percent(b.tilt)}"
    return f"{_percent(b.total)} of λ̂ ({shares})"


def _choice(advice: Advice, chosen: Finalist, settings: CalibrationSettings, healthy: int, surveyed: int) -> str:
    region = f"{healthy} of {surveyed} settings are healthy."
    if advice.kept:
        return (
            f"{region} The experiment's own settings are kept: no other has an error budget {settings.gain:g} times smaller. "
            f"Theirs is {budget(chosen.budget)}."
        )
    return f"{region} Of those that were sampled longer this one has the smallest error budget: {budget(chosen.budget)}."


def _cells(chosen: Finalist) -> str:
    cells = sum(len(t.readings) for t in chosen.trials)
    marked = {mark: sum(round(t.share(mark) * len(t.readings)) for t in chosen.trials) for mark in (Outcome.DRIFTING, Outcome.TILTED)}
    told = " and ".join(f"{count} {mark}" for mark, count in marked.items() if count)
    steps = ", ".join(str(t.step) for t in chosen.trials)
    return f"None of {cells} cells at steps {steps} is refused{f'; {told}' if told else ', and none is marked'}."


def _step_size(chosen: Finalist) -> str:
    s = chosen.surveyed.slopes
    text = f"ε: the discretisation adds at least {_percent(chosen.budget.bias)} to λ̂ in the worst part (METHOD 3.1)"
    if math.isfinite(s.step_size):
        text += f"; over the grid d log λ̂/d log ε is {s.step_size:.2f} ± {s.step_size_error:.2f}"
    if math.isfinite(chosen.halving):
        text += f"; sampling again at half the step size puts it at {100 * chosen.halving:.0f} ± {100 * chosen.halving_error:.0f} %"
    return text + "."


def _burn_in(chosen: Finalist, base: SamplerSettings, settings: CalibrationSettings) -> str:
    y, steps = chosen.setting.prior_product, chosen.surveyed.burn_in
    text = f"burn_in: flat directions lack (1 - {y:g})^2t of their spread, which {steps} steps bring below {_percent(settings.relaxation)}"
    if base.burn_in != steps:
        text += f" (the experiment's {base.burn_in} leave {_percent(abs(1 - y) ** (2 * base.burn_in))})"
    moved, reach = chosen.trials[-1].settled()
    if not math.isfinite(moved):
        return f"{text}."
    drifts = abs(moved) > reach
    text += (
        f". After it {'Σλ̂ still moves' if drifts else 'no drift of Σλ̂ is seen'}: {100 * moved:+.0f} ± {100 * reach:.0f} % from first to last third."
    )
    return text + (" Raise burn_in beyond that." if drifts else "")


def _plateau(chosen: Finalist) -> str:
    s = chosen.surveyed.slopes
    if not math.isfinite(s.localization):
        return "γ and nβ: the grid is too small to tell how λ̂ answers to them."
    text = f"γ and nβ: d log λ̂/d log γ is {s.localization:.2f}"
    text += f" and d log λ̂/d log nβ {s.nbeta:.2f}" if math.isfinite(s.nbeta) else " (nβ was not varied)"
    if s.size < _FLAT:
        return f"{text}: λ̂ is on a plateau."
    if s.size > _STEEP:
        return f"{text}: no plateau, the localization sets the scale of λ̂. Compare numbers only at equal γ and nβ."
    return f"{text}: the slope of a shoulder, not a plateau. Compare numbers at equal γ and nβ."


def _locality(chosen: Finalist) -> tuple[str, ...]:
    share = chosen.surveyed.health.removal
    if not math.isfinite(share):
        return ()
    rise = float(np.median(chosen.trials[-1].column("rise")))
    text = f"Near the checkpoint: a typical part's chains raise the loss by {rise:.2g} nats a token, {share:.2f} times what zeroing its weights does"
    bent = float(np.median(chosen.trials[-1].column("gradient_ratio")))
    return (f"{text}. nβ E[(w - w*)·ĝ]/λ̂ is {bent:.2f}, where a quadratic has 2.",)


def _control(chosen: Finalist, control: Trial) -> str:
    found, expected = (float(control.column(name).mean()) for name in ("stein_ratio", "stein_expected"))
    error = float(np.sqrt((control.column("stein_stderr") ** 2).sum())) / len(control.readings)
    text = f"nβ = 0 control: λ̂ reads {np.abs(control.column('llc')).max():g} and the Stein ratio {found:.3f} ± {error:.3f}, {expected:.3f} expected"
    last = chosen.trials[-1]
    alone, held_rise = float(control.rises.mean()), float(last.rises.mean())
    if not (alone > 0 and held_rise > 0):
        return f"{text}."
    held = held_rise / alone
    error = held * math.hypot(control.total_error, last.total_error)
    text += f"; at nβ {chosen.setting.nbeta:g} the loss rises {held:.2f} ± {error:.2f} times as much as under that prior alone"
    if held > _PRIOR:
        return f"{text}: the data hardly hold the weights, and λ̂ is close to nβ times what Gaussian noise of variance 1/γ does to the loss."
    return f"{text}: the data hold the weights." if held + 2 * error < _PRIOR else f"{text}."


def _precision(chosen: Finalist, base: SamplerSettings) -> str:
    last = chosen.trials[-1]
    noise = last.error * math.sqrt(last.rises.shape[1] * last.rises.shape[2] / (base.chains * base.draws))
    llc = last.column("llc")
    text = f"Precision: {base.chains} chains × {base.draws} draws give a typical part a standard error of {_percent(noise)}"
    if llc.size > 1 and np.mean(llc) > 0:
        text += f", where the parts spread by {_percent(float(np.std(llc) / np.mean(llc)))}"
    if noise > 0.1:
        text += f"; 10 % would take about {base.draws * (noise / 0.1) ** 2:.0f} draws"
    return text + "."


def _percent(share: float) -> str:
    if not math.isfinite(share):
        return "unknown" if math.isnan(share) else "without limit"
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"
