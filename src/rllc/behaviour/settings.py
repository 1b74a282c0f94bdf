"""Settings of behavioural measurements: how much is looked at. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from rllc.core.errors import RllcError


@dataclass(frozen=True)
class BehaviourSettings:
    """The size of the probes, the same at every checkpoint (METHOD 6).

    Args:
        sequences: number of held-out contexts for the previous- and current-token scores, and of repeated segments for prefix matching.
        segment: tokens in a repeated segment; shortened where the repeats would not fit a context.
        repeats: how often the segment stands there.
        contexts: number of held-out contexts of each kind of data for the losses and the in-context-learning score.
        snippets: number of snippets of each domain whose attention patterns are kept.
        snippet_length: tokens in a snippet, BOS included; shortened to the context.
    """

    sequences: int = 64
    segment: int = 25
    repeats: int = 4
    contexts: int = 256
    snippets: int = 2
    snippet_length: int = 64

    def __post_init__(self) -> None:
        least = {"sequences": 1, "segment": 2, "repeats": 2, "contexts": 2, "snippets": 0, "snippet_length": 2}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise RllcError(f"behaviour.{name} is {getattr(self, name)}, but must be at least {bound}.", "Give a larger number.")

    def segment_length(self, context: int) -> int:
        """Tokens in a segment, so that BOS and all repeats fit `context` tokens. Raises RllcError where two tokens do not.

        >>> BehaviourSettings().segment_length(1024), BehaviourSettings().segment_length(64)
        (25, 15)
        """
        length = min(self.segment, (context - 1) // self.repeats)
        if length < 2:
            raise RllcError(
                f"A context of {context} tokens is too short for a segment repeated {self.repeats} times.",
                "Give a longer context or lower behaviour.repeats.",
            )
        return length
