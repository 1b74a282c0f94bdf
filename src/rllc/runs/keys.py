"""What decides the numbers of a cell and of the data behind it: the keys under which the store keeps them. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rllc.core.names import Cell, DataKey
from rllc.corpus.batches import Mixture
from rllc.runs.experiment import Experiment
from rllc.runs.mapping import plain

KIND = "sample"
STATE = "state"  # where the chains of a record stand
SHARES = "shares"  # what tokens add to a record's number
# The revision of the estimator: raise it with every change that moves a number, so that old records are not mistaken for new ones. So does one of a
# verdict or its words, for a record's outcome and reason are held against its traces (`rllc.runs.agreement.untrue`).
ESTIMATOR = "paired-4"


def record_key(experiment: Experiment, cell: Cell, weights: Mapping[int | str, str], corpus_digest: str) -> dict[str, Any]:
    """What decides a cell's numbers, but for the number of draws: weights, part, data, loss, sampler, dtype, seed, estimator.

    Args:
        weights: digest of the checkpoints by step, and of siblings' last ones by name, those that refinements refer to among them.
    """
    refinement = experiment.refinement_of(cell.data)
    key = {
        "estimator": ESTIMATOR,
        "weights": weights[cell.step],
        "step": cell.step,
        "part": str(cell.part),
        "data": data_key(experiment, cell.data, weights, corpus_digest),
        "loss": "labels" if refinement is None or not refinement.refers else "reference",
        "sampler": {name: value for name, value in plain(experiment.sampler_at(cell.data)).items() if name != "draws"},
        "sampling": {name: value for name, value in plain(experiment.sampling).items() if name not in ("keep_state", "share_contexts", "share_at")},
        "dtype": experiment.engine.dtype,
        "seed": experiment.seed,
    }
    if experiment.engine.products != "float32":
        key["products"] = experiment.engine.products
    if cell.data.nbeta:
        key["called"] = str(cell.data.sampled)  # a record tells its data's name: that of the same posterior in another experiment is another
    if cell.data.elsewhere:
        key["evaluated_on"] = data_key(experiment, DataKey.parse(cell.data.elsewhere), weights, corpus_digest)
    checks = plain(experiment.checks)
    return key | ({"checks": checks} if any(checks.values()) else {})


def record_keys(
    experiment: Experiment, cells: Iterable[Cell], weights: Mapping[int | str, str], corpus_digest: str
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """The cells with their `record_key`, quickly enough for a grid of 10⁵; those are left out whose weights, or what they refer to, are not given."""
    of_data: dict[DataKey, dict[str, Any]] = {}
    for cell in cells:
        try:
            if cell.data not in of_data:
                of_data[cell.data] = record_key(experiment, cell, weights, corpus_digest)
            yield cell, of_data[cell.data] | {"weights": weights[cell.step], "step": cell.step, "part": str(cell.part)}
        except KeyError:
            continue


def state_key(record_digest: str, segment: int) -> dict[str, Any]:
    """What the state behind a record's segment is called."""
    return {"of": record_digest, "segment": segment}


def shares_key(experiment: Experiment, record_digest: str, segment: int) -> dict[str, Any]:
    """What the shares of tokens behind a record's segment are called."""
    told = experiment.behaviour
    texts = {"contexts": experiment.sampling.share_contexts, "snippets": told.snippets, "snippet_length": told.snippet_length}
    return {"of": record_digest, "segment": segment, "revision": "shares-1"} | texts


def data_key(experiment: Experiment, data: DataKey, weights: Mapping[int | str, str], corpus_digest: str) -> dict[str, Any]:
    """What decides the minibatches of a data name, which they are seeded by, and what they are held against."""
    mixture, refinement = Mixture(data.name, experiment.weights_of(data)), experiment.refinement_of(data)
    key: dict[str, Any] = {
        "name": data.name,
        "corpus": corpus_digest,
        "weights": dict(mixture.weights),
        "split": data.split,
        "context": experiment.model.n_ctx,
    }
    if refinement is None:
        return key
    refined = {name: value for name, value in plain(refinement).items() if name not in ("data", "reference") and value}
    if not isinstance(refinement.data, str):
        refined["mixed"] = True  # a mixture of the same weights that refines nothing has other minibatches
    return key | refined | ({"reference": weights[refinement.reference]} if refinement.refers else {})
