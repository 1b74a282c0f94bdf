"""What is told of a model beside its numbers, where something about it and its data looks wrong."""

from __future__ import annotations

import math

# Of the loss of a model that knows nothing but the size of the vocabulary; a trained one is far below it on text that it can read.
_SHARE = 0.95


def doubtful(loss: float, vocabulary: int) -> tuple[str, ...]:
    """A sentence on a loss at the checkpoint [nats per token] that is no better than guessing; none where it is, or where it is no number.

    A cell without finite losses is refused with a reason of its own. `vocabulary` is 0 where it is not known.

    >>> doubtful(3.2, 50_000), doubtful(12.0, 0)
    ((), ())
    >>> doubtful(11.5, 50_000)[0]
    "The loss at the checkpoint is 11.50 nats per token, and guessing evenly costs 10.82: an untrained model, or a tokenizer that is not the model's."
    """
    if vocabulary < 2 or not _SHARE * math.log(vocabulary) < loss < math.inf:
        return ()
    return (
        f"The loss at the checkpoint is {loss:.2f} nats per token, and guessing evenly costs {math.log(vocabulary):.2f}: an untrained model, or a "
        "tokenizer that is not the model's.",
    )
