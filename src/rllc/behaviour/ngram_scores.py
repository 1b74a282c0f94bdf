"""How much of the text's n-grams a model knows: bigram, n-gram and skip n-gram scores (METHOD 6; Hoogland et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.behaviour.contexts import Contexts, contexts_of, ratio_and_stderr
from rllc.behaviour.inputs import pieces
from rllc.behaviour.loss_scores import context_losses
from rllc.behaviour.ngrams import NgramTable
from rllc.behaviour.skips import SkipTable
from rllc.core.errors import RllcError
from rllc.model.forward import logits
from rllc.model.shape import ModelShape

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class BigramScore:
    """Of the prediction behind a BOS and one token, in nats; errors are standard errors over contexts.

    `score` is its cross-entropy against the empirical bigram, `floor` that distribution's entropy, which no model can beat, and `excess` their
    difference: the divergence of the model from the bigram. `contexts` is how many contexts were scored.
    """

    score: float
    stderr: float
    floor: float
    excess: float
    excess_stderr: float
    contexts: int


@dataclass(frozen=True)
class ProbeScore:
    """Test loss over the mean loss on probes: 1 is no knowledge of them beyond the rest, more is more. `loss` in nats, of the probes' last token."""

    score: float
    stderr: float
    loss: float
    loss_stderr: float
    probes: int


def bigram_score(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Ints, "B T"] | Contexts, table: NgramTable) -> BigramScore:
    """How close the prediction at position 1 comes to the bigrams of the training text.

    Each context gives the model its BOS and its first token A; the model's distribution of the next token is held against the empirical one
    behind A. Contexts whose A nothing ever follows in the text are left out. Raises RllcError where fewer than two are left.
    """
    level, p = table.level(2), table.probabilities(2)
    first = contexts_of(tokens).tokens[:, 1]
    known = (first != table.bos) & (table.level(1).followed[first] > 0)
    if np.count_nonzero(known) < 2:
        raise RllcError("Fewer than two contexts begin with a token that the counted text continues.", "Give more contexts, or count more text.")
    asked, which = np.unique(first[known], return_inverse=True)
    starts = np.searchsorted(level.keys // table.vocabulary, np.arange(table.vocabulary + 1))  # the bigrams that begin with each token
    rows = np.stack([np.full(len(asked), table.bos), asked], 1)
    crosses: list[float] = []
    for batch in pieces(shape, params, rows, 2 * shape.d_vocab, "The first tokens of the contexts"):
        with torch.no_grad():
            surprise = -logits(shape, params, batch)[:, 1].double().log_softmax(-1).cpu().numpy()
        for row, token in zip(surprise, batch[:, 1].tolist(), strict=True):
            those = slice(starts[token], starts[token + 1])
            crosses.append(float(row[level.keys[those] % table.vocabulary] @ p[those]))
    cross, floor = np.array(crosses)[which], table.entropies(2)[asked][which]
    (score, stderr), (excess, excess_stderr) = _mean(cross), _mean(cross - floor)
    return BigramScore(score, stderr, float(floor.mean()), excess, excess_stderr, len(cross))


def ngram_probes(table: NgramTable, n: int, most: int = 1000) -> Int[Ints, "P {n}+1"]:
    """BOS and each of the `most` commonest n-grams of the text. Raises RllcError where there are fewer than two."""
    level = table.level(n)
    chosen = np.argsort(-level.mass, kind="stable")[:most]
    chosen = chosen[level.counts[chosen] > 0]
    return _behind_bos(table.tokens_of(n)[chosen], table.bos, f"n-grams of {n} tokens")


def skip_probes(skips: SkipTable, frequencies: Float[Floats, " V"], rng: np.random.Generator, most: int = 1000) -> Int[Ints, "P T"]:
    """BOS, then the `most` commonest skip n-grams A … B → C, each in a filling of random tokens; T = window + 3, B and C stand last.

    A stands 2 to `window` tokens before B, all places equally likely; the filling is drawn by `frequencies` (any scale, BOS apart).
    Raises RllcError where the text has fewer than two skip n-grams.
    """
    chosen = np.argsort(-skips.counts, kind="stable")[:most]
    a, b, c = skips.tokens[chosen].T
    weights = np.delete(frequencies, skips.bos)
    filling = np.delete(np.arange(skips.vocabulary), skips.bos)
    rows = rng.choice(filling, (len(chosen), skips.window + 2), p=weights / weights.sum())
    rows[:, -2], rows[:, -1] = b, c
    rows[np.arange(len(chosen)), -2 - rng.integers(2, skips.window + 1, len(chosen))] = a
    return _behind_bos(rows, skips.bos, "skip n-grams")


def probe_score(
    shape: ModelShape, params: Mapping[str, Tensor], probes: Int[Ints, "P T"], losses: Float[Floats, "B S"], counted: Bool[Flags, "B S"] | None = None
) -> ProbeScore:
    """Mean held-out loss over the mean loss on the last token of the probes.

    `losses` are those of held-out contexts, as `context_losses` gives them, and `counted` those that count, all unless given; the error joins that
    over contexts and that over probes. Raises RllcError where the probes do not fit the model, or where there are fewer than two contexts.
    """
    if len(losses) < 2:
        raise RllcError("One context has no standard error.", "Give two held-out contexts or more.")
    loss, loss_stderr = _mean(context_losses(shape, params, probes)[:, -1])
    counted = np.ones(losses.shape, dtype=bool) if counted is None else counted
    test, test_stderr = map(float, ratio_and_stderr(np.sum(losses, -1, where=counted), counted.sum(1).astype(np.float64)))
    score = test / loss
    return ProbeScore(score, score * float(np.hypot(test_stderr / test, loss_stderr / loss)), loss, loss_stderr, len(probes))


def _behind_bos(rows: Ints, bos: int, what: str) -> Ints:
    if len(rows) < 2:
        raise RllcError(f"The counted text has {len(rows)} {what}, and a score needs two or more.", "Count more text, or ask for fewer occurrences.")
    return np.concatenate([np.full((len(rows), 1), bos), rows], 1)


def _mean(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)
