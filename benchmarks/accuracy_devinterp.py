"""devinterp's side of `accuracy.py`: λ̂ of one head a layer by its SGLD, with its default baseline and with one on the chains' own minibatches.

Both numbers are worked out from its stored draws, so that its `llc`, which averages the burn-in in, does not stand in its way. Its default takes the
baseline from 32 minibatches, whatever the number of draws; then the error of the baseline has to shrink with that of the draws, which is what the
extrapolation assumes. Where `num_init_loss_batches` is the number of steps, without burn-in or shuffling, its baseline happens to be on
the minibatches of the draws: that is a paired estimate, which its documentation does not speak of. The way from w* is then in the average, and its
share falls as 1/n.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accuracy import TARGETS, Floats, Row, Sampled, Way
from peers_language import theirs, twin

from rllc.checkpoints.store import checkpoint_name, load
from rllc.core.names import DataKey, Part
from rllc.model.batch import token_batch
from rllc.runs.experiment import Experiment
from rllc.runs.layout import RunFolder
from rllc.runs.plan import make_unit
from rllc.runs.sampling import OpenedUnit, Work


def rows(given: argparse.Namespace, experiment: Experiment, step: int, parts: tuple[Part, ...], small: tuple[Floats, Floats]) -> Iterator[Row]:
    """Both baselines at each batch size, of the first of the parts."""
    part = parts[0]
    sgld = replace(experiment.sampler, sampler="sgld")
    shape, params, _ = load(RunFolder(given.run).checkpoints / checkpoint_name(step), experiment.model)
    model = twin(shape, params)
    for batch in given.their_batches:
        way = Way("", sgld, batch)
        sampled = Sampled(given.run, experiment, step, (part,), way)
        reference = float(sampled.reference(given.reference_draws, given.reference_chains)[0][0])
        steps = way.burn_in + given.their_draws
        for name, burn_in, baseline in (("devinterp", way.burn_in, 32), ("devinterp, paired by chance", 0, steps)):
            errors, seconds = [], []
            for seed in range(given.seeds):
                answer = theirs(
                    params,
                    shape,
                    str(part),
                    contexts(given.run, experiment, step, part, batch, seed, max(steps, baseline)),
                    chains=given.chains,
                    draws=steps - burn_in,
                    burn_in=burn_in,
                    batch_size=batch,
                    seed=seed,
                    step_size=sgld.step_size,
                    localization=sgld.localization,
                    nbeta=sgld.nbeta,
                    num_init_loss_batches=baseline,
                    model=model,
                )
                errors.append(answer.from_draws - reference)
                seconds.append(answer.seconds / (given.chains * steps))
            error, each = math.sqrt(np.mean(np.square(errors))) / reference, float(np.median(seconds))
            yield Row(
                layer=part.atoms[0].layer,
                by=f"{name}, batch {batch}",
                llc=reference,
                bias=reference / float(small[0][0]) - 1,
                bias_error=float(small[1][0] / small[0][0]),
                ms_per_chain_step=1e3 * each,
                error=error,
                seconds=tuple(each * given.chains * (burn_in + (steps - burn_in) * (error / target) ** 2) for target in TARGETS),
                extrapolated=tuple(error > target for target in TARGETS),
            )


def contexts(run: Path, experiment: Experiment, step: int, part: Part, batch: int, seed: int, n: int) -> torch.Tensor:
    """The minibatches that ours would get under this seed, one after another [n·B, T]."""
    own = replace(experiment, seed=seed, sampling=replace(experiment.sampling, batch_size=batch))
    unit = make_unit(own, step, DataKey.parse("mixture"), (part,))
    batches = OpenedUnit(Work(run, own, unit)).data.batches("sample", n)
    return torch.cat([token_batch(batch).tokens for batch in batches])
