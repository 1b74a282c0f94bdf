"""The multigram circuit in refined LLCs: against a one-layer reference, complexity leaves layer 0 while layer 1 still gains it (METHOD 5)."""

from __future__ import annotations

import numpy as np

from rllc.analysis.comparisons import Circuit
from rllc.analysis.curves import complete, layer_of
from rllc.analysis.findings import Curves, Floats
from rllc.analysis.learners import smoothed
from rllc.core import seeds

_DRAWS = 4000
_LEAST = 4


def circuit(curves: Curves, seed: int, *, draws: int = _DRAWS) -> tuple[Circuit | None, str]:
    """The mean over heads of each layer, where it peaks and how far it falls; or None and the reason, as a sentence.

    Heads that lack an estimate, and checkpoints that most heads lack, are left out, as `curves.complete` says.

    The largest of many estimates is too large by their noise, so a fall from it is there even in a curve that does not change. `fall_p` takes that
    into account: it lays the errors about a constant, which of all curves that never fall is the one that seems to fall furthest. `rise_p` is the
    same for the rise to the peak.
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
    stderr: Floats = np.stack([whole.stderr[row].mean(axis=0) for row in rows])
    places = llc.argmax(axis=1)
    first = int(places[0])
    at = np.arange(len(layers))
    fall = llc[at, places] - llc[:, -1]
    fall_stderr = np.where(places == len(whole.steps) - 1, 0.0, np.hypot(stderr[at, places], stderr[:, -1]))
    later_stderr = np.hypot(stderr[:, first], stderr[:, -1]) if first < len(whole.steps) - 1 else np.zeros(len(layers))
    x = np.log1p(whole.steps.astype(np.float64))
    rise = llc[at, places] - llc[:, 0]
    chance, risen, intervals = np.ones(len(layers)), np.ones(len(layers)), np.full((len(layers), 2), np.nan)
    for i, layer in enumerate(layers):
        noise = stderr[i] * seeds.generator(seed, "circuit", layer).standard_normal((draws, len(whole.steps)))
        if fall[i] > 0:
            chance[i] = (1 + ((noise.max(axis=1) - noise[:, -1]) >= fall[i]).sum()) / (1 + draws)
        if rise[i] > 0:
            risen[i] = (1 + ((noise.max(axis=1) - noise[:, 0]) >= rise[i]).sum()) / (1 + draws)
        if (stderr[i] > 0).all():
            drawn = smoothed(x, llc[i], stderr[i]) + noise
            intervals[i] = np.quantile(whole.steps[drawn.argmax(axis=1)], (0.05, 0.95), method="closest_observation")
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
        rise=rise,
        rise_p=risen,
    ), ""
