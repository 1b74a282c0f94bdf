"""A calibration as text: tables of health, the advice, a TOML fragment, all numbers as JSON. And the figure's data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rllc.analysis.calibrated import CalibrationMap, Point
from rllc.analysis.stored import map_to_json
from rllc.core.errors import RllcError
from rllc.core.files import write_atomic
from rllc.posterior.calibration import words
from rllc.posterior.calibration.advice import Finalist, Surveyed, summary
from rllc.posterior.calibration.grid import Setting, sampler_at, setting_of
from rllc.posterior.settings import SamplerSettings
from rllc.records.packing import plain
from rllc.runs.calibrating import Calibration
from rllc.runs.calibration_units import parts_of
from rllc.runs.layout import MAP
from rllc.runs.progress import duration

_SIGNS = {"": " ", "refused": "×", "biased": "b", "far": "f", "drifting": "d"}
_LEGEND = (
    "× refused, b biased by the step size, f raises the loss more than removing the part does, d drifting; * recommended, o the experiment's own"
)


def describe(calibration: Calibration, files: Sequence[Path] = (), notes: Sequence[str] = ()) -> str:
    """What a person reads."""
    c, advice = calibration, calibration.advice
    own, chosen = advice.own, advice.chosen
    healthy = sum(s.health.healthy for s in c.surveyed)
    lines = [f"Median λ̂ of {len(own.trials[-1].readings)} parts at step {c.steps[-1]}, {c.place.data}: {_LEGEND}", *_tables(c), ""]
    lines += [f"Recommended: {chosen.setting}, burn_in {chosen.surveyed.burn_in}" if chosen is not None else "Nothing can be recommended."]
    lines += _points(words.reasons(advice, c.experiment.sampler, c.experiment.calibration, healthy, len(c.surveyed), c.control))
    lines += ["", f"The experiment's own settings: {own.setting}, burn_in {c.experiment.sampler.burn_in}"]
    lines += _points(words.standing(own, chosen))
    if chosen is not None:
        lines += ["", "The ranking of the parts"]
        lines += _points(words.ranking(advice))
        lines += ["", "For the experiment file:", "", *fragment(c).splitlines()]
    if files:
        lines += ["", f"Written: {', '.join(str(path) for path in files)}"]
    lines += [*notes, f"This took {duration(c.seconds)}."]
    return "\n".join(lines)


def deliver(calibration: Calibration, folder: Path, show: Callable[[str], None]) -> None:
    """Write the files, show the text. Raises RllcError, after both, where nothing can be recommended."""
    files, notes = write(calibration, folder)
    show(describe(calibration, files, notes))
    if calibration.advice.chosen is None:
        raise nothing_healthy(calibration)


def keep(calibration: Calibration, folder: Path) -> str:
    """Write the files; in a sentence what they say."""
    write(calibration, folder)
    advice = calibration.advice
    if advice.chosen is None:
        said = "no setting that was tried is healthy"
    elif advice.kept:
        said = "the experiment's own settings stand"
    else:
        said = f"{advice.chosen.setting} would be better"
    return f"Calibrated: {said}. {folder} has the reasons."


def fragment(calibration: Calibration) -> str:
    """The `[sampler]` table to paste into the experiment file. Raises RllcError where nothing can be recommended."""
    sampler = recommended(calibration)
    defaults = {f.name: f.default for f in dataclasses.fields(SamplerSettings)}
    rows = [
        f"{name} = {json.dumps(value)}" for name, value in dataclasses.asdict(sampler).items() if name == "sampler" or value != defaults.get(name)
    ]
    own = "the experiment's own step size, localization and nbeta" if calibration.advice.kept else "other settings than the experiment's"
    return "\n".join([f"[sampler] # by `rllc calibrate` at steps {', '.join(map(str, calibration.steps))}: {own}", *rows, ""])


def recommended(calibration: Calibration) -> SamplerSettings:
    """The sampler's settings as recommended, numbers rounded to four digits. Raises RllcError where nothing can be recommended."""
    chosen, base = calibration.advice.chosen, calibration.experiment.sampler
    if chosen is None:
        raise nothing_healthy(calibration)
    there = sampler_at(chosen.setting, base, chains=base.chains, draws=base.draws, burn_in=chosen.surveyed.burn_in)
    return replace(there, step_size=_rounded(there.step_size), localization=_rounded(there.localization), nbeta=_rounded(there.nbeta))


def nothing_healthy(calibration: Calibration) -> RllcError:
    """Why there is no recommendation, and what to do."""
    kinds = [s.health.problems[0].kind for s in calibration.surveyed if s.health.problems]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    lower = kinds.count("refused") + kinds.count("biased") > len(kinds) / 2
    what = "smaller calibration.loss_products and calibration.prior_products" if lower else "more draws, or larger calibration.prior_products"
    return RllcError(
        f"No setting of the grid is healthy at every checkpoint; at the last one, of {len(calibration.surveyed)}: {counts or 'all healthy'}.",
        f"Give the experiment {what}.",
    )


def as_json(calibration: Calibration) -> str:
    """Every number."""
    c = calibration
    content = {
        "experiment": {"sampler": dataclasses.asdict(c.experiment.sampler), "calibration": dataclasses.asdict(c.experiment.calibration)},
        "data": c.place.data,
        "steps": list(c.steps),
        "parts": [str(part) for part in parts_of(c.place, c.steps[-1])],
        "removal": c.removal.tolist(),
        "grid": [_row(s) for s in c.surveyed],
        "finalists": [_finalist(f) for f in c.finalists],
        "recommended": None if c.advice.chosen is None else dataclasses.asdict(recommended(c)),
        "kept": c.advice.kept,
        "agreements": [_setting(s) | dataclasses.asdict(a) for s, a in c.advice.agreements],
        "ranking": summary(c.advice.agreements),
        "control": None if c.control is None else [dataclasses.asdict(r) for r in c.control.readings],
        "seconds": c.seconds,
    }
    return json.dumps(plain(content), indent=1, ensure_ascii=False) + "\n"


def as_map(calibration: Calibration) -> CalibrationMap:
    """What the figure shows."""
    c = calibration
    grid = c.experiment.calibration
    shape = (len(grid.nbeta), len(grid.prior_products), len(grid.loss_products))
    # in the order of the grid, behind which the experiment's own settings may stand
    inside = c.surveyed[: int(np.prod(shape))]
    taus = [*((s, a.tau) for s, a in c.advice.agreements)]
    if c.advice.chosen is not None:
        taus.append((c.advice.chosen.setting, 1.0))
    tau = [next((t for there, t in taus if there.same(s.setting)), np.nan) for s in inside]
    llc = [np.nan if s.trial.refused else float(np.median(s.trial.column("llc"))) for s in inside]
    problem = [s.health.problems[0].kind if s.health.problems else "" for s in inside]
    chosen = c.advice.chosen
    return CalibrationMap(
        np.array(grid.loss_products),
        np.array(grid.prior_products),
        np.array(grid.nbeta),
        np.array(llc).reshape(shape),
        np.array(tau).reshape(shape),
        np.array(problem, dtype=np.str_).reshape(shape),
        None if chosen is None else _point(chosen.setting),
        _point(setting_of(c.experiment.sampler)),
        len(c.removal),
        f"step {c.steps[-1]:,}, {c.place.data}",
    )


def write(calibration: Calibration, folder: Path) -> tuple[list[Path], list[str]]:
    """Write the fragment, the numbers and the figure into `folder`; returns the paths, and a note where there is no figure."""
    paths, notes = [folder / "calibration.json", folder / MAP], list[str]()
    write_atomic(paths[0], as_json(calibration))
    write_atomic(paths[1], map_to_json(as_map(calibration)))
    if calibration.advice.chosen is None:
        (folder / "calibration.toml").unlink(missing_ok=True)  # an earlier one would be taken for today's
    else:
        paths.append(folder / "calibration.toml")
        write_atomic(paths[-1], fragment(calibration))
    try:
        from rllc.figures.calibration import write_calibration

        paths += write_calibration(as_map(calibration), folder)
    except RllcError as error:
        notes.append(f"No figure: {error}")
    return paths, notes


def _tables(c: Calibration) -> list[str]:
    grid, own = c.experiment.calibration, setting_of(c.experiment.sampler)
    chosen = None if c.advice.chosen is None else c.advice.chosen.setting
    lines: list[str] = []
    width = len(grid.loss_products)
    places = iter(c.surveyed)
    for nbeta in grid.nbeta:
        lines += ["", f"  nβ {nbeta:<8g} ε nβ/2: " + "".join(f"{x:>12g}" for x in grid.loss_products)]
        for y in grid.prior_products:
            row = [next(places) for _ in range(width)]
            cells = "".join(f"{_cell(s, own, chosen):>12}" for s in row)
            lines.append(f"  ε γ/2 {y:<5g} burn-in {row[0].burn_in:>3}  {cells}")
    for s in places:
        lines += ["", f"  the experiment's own {s.setting}: {_cell(s, own, chosen)}"]
    return lines


def _cell(s: Surveyed, own: Setting, chosen: Setting | None) -> str:
    kind = s.health.problems[0].kind if s.health.problems else ""
    number = "" if s.trial.refused else f"{np.median(s.trial.column('llc')):.2f}"
    mark = ("*" if chosen is not None and s.setting.same(chosen) else "") + ("o" if s.setting.same(own) else "")
    return f"{mark}{number}{_SIGNS[kind]}"


def _points(sentences: Sequence[str]) -> list[str]:
    return [f"  - {sentence}" for sentence in sentences]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _point(s: Setting) -> Point:
    return Point(s.loss_product, s.prior_product, s.nbeta, str(s))


def _setting(s: Setting) -> dict[str, Any]:
    products = {"loss_product": s.loss_product, "prior_product": s.prior_product}
    return products | {"step_size": s.step, "localization": s.localization, "nbeta": s.nbeta}


def _row(s: Surveyed) -> dict[str, Any]:
    numbers = {"burn_in": s.burn_in, "slopes": dataclasses.asdict(s.slopes), "health": dataclasses.asdict(s.health)}
    budget = dataclasses.asdict(s.budget) | {"total": s.budget.total}
    return _setting(s.setting) | numbers | {"budget": budget, "readings": [dataclasses.asdict(r) for r in s.trial.readings]}


def _finalist(f: Finalist) -> dict[str, Any]:
    trials = [{"step": t.step, "readings": [dataclasses.asdict(r) for r in t.readings]} for t in f.trials]
    numbers = {"halving": f.halving, "halving_error": f.halving_error, "budget": dataclasses.asdict(f.budget) | {"total": f.budget.total}}
    return _setting(f.setting) | numbers | {"problems": [p.text for p in f.problems], "trials": trials}
