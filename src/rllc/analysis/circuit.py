"""The multigram circuit in refined LLCs: against a one-layer reference, complexity leaves layer 0 while layer 1 still gains it (METHOD 5)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.aligned import Aligned, Cells, cells, difference, mean
from rllc.analysis.comparisons import Circuit
from rllc.analysis.curves import complete, layer_of
from rllc.analysis.errors import noise, quantile
from rllc.analysis.findings import Curves, Floats
from rllc.core import seeds

_DRAWS = 4000
_LEAST = 4
_LEVEL = 0.05


def circuit(curves: Curves, seed: int, *, aligned: Mapping[str, Aligned] | None = None, draws: int = _DRAWS) -> tuple[Circuit | None, str]:
    """The mean over heads of each layer, where it peaks and how far it falls; or None and the reason, as a sentence.

    Heads that lack an estimate, and checkpoints that most heads lack, are left out, as `curves.complete` says.

    The largest of many estimates is too large by their noise, so a fall from it is there even in a curve that does not change. `fall_p` takes that
    into account: it lays the errors about a constant, which of all curves that never fall is the one that seems to fall furthest. `rise_p` is the
    same for the rise to the peak. `peak_interval` spans the checkpoints at which the mean may be largest.
    """
    whole, _, _ = complete(curves)
    layers = tuple(sorted({layer_of(head) for head in whole.parts}))
    if len(layers) < 2 or len(whole.steps) < _LEAST:
        return None, (
            f"There is no circuit to tell on {curves.data}: {len(layers)} layers have heads with complete curves over {len(whole.steps)} "
            "checkpoints, "
            f"and it needs 2 layers and {_LEAST} checkpoints."
        )
    rows = [[i for i, head in enumerate(whole.parts) if layer_of(head) == layer] for layer in layers]
    llc: Floats = np.stack([whole.llc[row].mean(axis=0) for row in rows])
    errors = [mean(cells(whole, aligned or {}, [whole.parts[i] for i in row])) for row in rows]
    stderr, df = np.stack([error.stderr for error in errors]), np.stack([error.df for error in errors])
    places = llc.argmax(axis=1)
    first = int(places[0])
    at = np.arange(len(layers))
    fall = llc[at, places] - llc[:, -1]
    ended = len(whole.steps) - 1
    fallen = [difference(error[place], error[ended]) for error, place in zip(errors, places, strict=True)]
    gained = [difference(error[ended], error[first]) for error in errors]
    fall_stderr = np.where(places == ended, 0.0, np.array([float(error.stderr) for error in fallen]))
    later_stderr = np.array([float(error.stderr) if first < ended else 0.0 for error in gained])
    rise = llc[at, places] - llc[:, 0]
    chance, risen, intervals = np.ones(len(layers)), np.ones(len(layers)), np.full((len(layers), 2), np.nan)
    for i, layer in enumerate(layers):
        stray = noise(stderr[i], df[i], draws, seeds.generator(seed, "circuit", layer))
        if fall[i] > 0:
            chance[i] = (1 + ((stray.max(axis=1) - stray[:, -1]) >= fall[i]).sum()) / (1 + draws)
        if rise[i] > 0:
            risen[i] = (1 + ((stray.max(axis=1) - stray[:, 0]) >= rise[i]).sum()) / (1 + draws)
        if (stderr[i] > 0).all():
            may = whole.steps[may_be_largest(llc[i], errors[i])]
            intervals[i] = may.min(), may.max()
    return Circuit(
        data=curves.data,
        layers=layers,
        heads=np.array([len(row) for row in rows], dtype=np.int64),
        steps=whole.steps,
        llc=llc,
        stderr=stderr,
        peak=whole.steps[places],
        peak_interval=intervals,
        fall=fall,
        fall_stderr=fall_stderr,
        fall_p=chance,
        later=llc[:, -1] - llc[:, first],
        later_stderr=later_stderr,
        df=df,
        later_df=np.array([float(error.df) for error in gained]),
        rise=rise,
        rise_p=risen,
    ), ""


def may_be_largest(values: Floats, errors: Cells, level: float = _LEVEL) -> NDArray[np.bool_]:
    """Which of these numbers [S] of one curve may truly be its largest: a set that holds the true one with probability 1 - level.

    Those that the largest estimate does not pass by more than the error of the difference allows, one of S - 1 comparisons (Bonferroni; Hsu 1981).
    The largest estimate is always among them.
    """
    top = int(values.argmax())
    apart = difference(errors[[top] * len(values)], errors)
    return values[top] - values <= quantile(1 - level / max(len(values) - 1, 1), apart.df) * apart.stderr
