"""Where heads look: attention patterns, and the scores of METHOD 6 (Olsson et al. 2022). Heads are counted layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.behaviour.contexts import ratio_and_stderr
from rllc.behaviour.inputs import pieces
from rllc.core.errors import RllcError
from rllc.model.forward import Capture, embed, run_blocks
from rllc.model.shape import ModelShape

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, UInt

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


SCORES = ("previous_token", "current_token", "prefix_matching", "first_token", "duplicate_token")
Score = tuple[Floats, Floats]  # of every head [H], and its standard error over contexts [H]


def attention_scores(
    shape: ModelShape, params: Mapping[str, Tensor], text: Int[Ints, "B T"], repeated: Int[Ints, "R U"], segment: int
) -> dict[str, tuple[Float[Floats, " H"], Float[Floats, " H"]]]:
    """All scores by the names of `SCORES`, each with its standard error over contexts: previous, current and first token on `text`, prefix
    matching and duplicate token on `repeated`. The functions below say what they are.

    Raises RllcError as those do. The error of a single context is NaN.
    """
    previous, current, first = _on_text(shape, params, text)
    prefix, duplicate = _on_repeats(shape, params, repeated, segment)
    return dict(zip(SCORES, (previous, current, prefix, first, duplicate), strict=True))


def text_scores(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Ints, "B T"]) -> tuple[Float[Floats, " H"], Float[Floats, " H"]]:
    """Previous-token and current-token score of every head, 0 to 1: mean attention from position k to k-1, and to k.

    `tokens` start with BOS. Attention to BOS is what a head does that has nothing to do, so queries whose target it is are left out: the means
    run over k = 2 … T-1 and k = 1 … T-1.

    Raises RllcError where the tokens do not fit the model or hold fewer than 3 positions.
    """
    previous, current, _ = _on_text(shape, params, tokens)
    return previous[0], current[0]


def first_token(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Ints, "B T"]) -> Float[Floats, " H"]:
    """First-token score of every head, 0 to 1: mean attention from position k to position 0, over k = 1 … T-1 and contexts.

    `tokens` start with BOS, so that this is how much of the time the head rests (an attention sink). Raises RllcError as `text_scores` does.
    """
    return _on_text(shape, params, tokens)[2][0]


def prefix_matching(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Ints, "B T"], segment: int) -> Float[Floats, " H"]:
    """Prefix-matching score of every head, 0 to 1: attention from a repeated token to the tokens after its earlier occurrences.

    `tokens` are BOS, then a segment of `segment` random tokens again and again. For each position from the second repeat on, the attention to
    all successors of earlier occurrences of its token is summed (one in each earlier repeat, and one more wherever the segment holds a token
    twice); the score is the mean over these positions and over sequences.

    Raises RllcError where the tokens do not fit the model or are no such repeats.
    """
    return _on_repeats(shape, params, tokens, segment)[0][0]


def duplicate_token(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Ints, "B T"]) -> Float[Floats, " H"]:
    """Duplicate-token score of every head, 0 to 1: attention from a token to its own earlier occurrences (Wang et al. 2022).

    At every position whose token stood there before, BOS apart, the attention to all those places is summed; the score is the mean over all
    such positions of all contexts. The probe is that of prefix matching, random segments repeated: there everything from the second repeat on
    counts, and nothing else but what the segment holds twice.

    Raises RllcError where the tokens do not fit the model or none of them comes again.
    """
    return _over(_by_context(shape, params, tokens, "The repeated segments", _duplicates))[0]


def _on_text(shape: ModelShape, params: Mapping[str, Tensor], tokens: Ints) -> list[Score]:
    if np.ndim(tokens) == 2 and tokens.shape[1] < 3:
        raise RllcError("The previous-token score needs contexts of at least 3 tokens, BOS included.", "Give longer contexts.")

    def read(pattern: Tensor, _: Tensor) -> Tensor:
        ways = pattern.diagonal(-1, 2, 3)[..., 1:], pattern.diagonal(0, 2, 3)[..., 1:], pattern[..., 1:, 0]
        return torch.stack([attended.double().mean(-1) for attended in ways])

    found = _by_context(shape, params, tokens, "The held-out contexts", read)
    return [ratio_and_stderr(score, np.ones(score.shape[-1])) for score in found]


def _on_repeats(shape: ModelShape, params: Mapping[str, Tensor], tokens: Ints, segment: int) -> tuple[Score, Score]:
    rows = np.asarray(tokens)
    if rows.ndim == 2 and not (2 <= segment < rows.shape[1] - 1 and np.array_equal(rows[:, 1 + segment :], rows[:, 1:-segment])):
        raise RllcError(
            f"The probe of prefix matching does not repeat a segment of {segment} tokens behind its BOS.", "Give repeated segments and their length."
        )

    def read(pattern: Tensor, batch: Tensor) -> Tensor:
        found = (pattern * successors(batch)).sum(-1, dtype=torch.float64)[..., 1 + segment :].mean(-1)
        return torch.cat([found[None], _duplicates(pattern, batch)])

    prefix, *duplicate = _by_context(shape, params, tokens, "The repeated segments", read)
    return ratio_and_stderr(prefix, np.ones(prefix.shape[-1])), _over(np.stack(duplicate))


def _duplicates(pattern: Tensor, batch: Tensor) -> Tensor:
    """[2, H, B]: attention to earlier occurrences of the own token, and at how many positions there is one."""
    earlier = occurrences(batch)
    attended = (pattern * earlier).sum((2, 3), dtype=torch.float64)
    return torch.stack([attended, earlier.any(-1).sum(-1).to(attended).expand_as(attended)])


def _over(duplicates: Floats) -> Score:
    """The score of duplicate tokens, given both by context."""
    if not duplicates[1].any():
        raise RllcError("No token comes again in the probe of the duplicate-token score.", "Give contexts in which tokens repeat.")
    return ratio_and_stderr(*duplicates)


def _by_context(
    shape: ModelShape, params: Mapping[str, Tensor], tokens: Ints, what: str, read: Callable[[Tensor, Tensor], Tensor]
) -> Float[Floats, "K H B"]:
    """K numbers of every head and context, which `read` takes from patterns [H, B, T, T] and tokens, a few contexts at a time."""
    size = len(shape.heads()) * np.shape(tokens)[-1] ** 2
    found = [read(attention_patterns(shape, params, batch), batch).cpu().numpy() for batch in pieces(shape, params, tokens, size, what)]
    return np.concatenate(found, -1)


def occurrences(tokens: Int[Tensor, "B T"]) -> Bool[Tensor, "B T T"]:
    """Whether key k is an earlier occurrence of query q's token: 1 ≤ k < q and the tokens are equal (BOS is no occurrence).

    >>> occurrences(torch.tensor([[0, 5, 6, 5]]))[0, 3].tolist()
    [False, True, False, False]
    """
    same = tokens[:, :, None] == tokens[:, None]
    same[:, :, 0] = False
    return same.tril(-1)


def successors(tokens: Int[Tensor, "B T"]) -> Bool[Tensor, "B T T"]:
    """Whether key k follows an earlier occurrence of query q's token: token k-1 equals token q, and 1 ≤ k-1 < q (BOS is no occurrence).

    >>> successors(torch.tensor([[0, 5, 6, 5]]))[0, 3].tolist()
    [False, False, True, False]
    """
    same = torch.zeros(*tokens.shape, tokens.shape[1], dtype=torch.bool, device=tokens.device)
    same[:, :, 2:] = tokens[:, :, None] == tokens[:, None, 1:-1]
    return same.tril()


@torch.no_grad()
def attention_patterns(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Tensor, "B T"]) -> Float[Tensor, "H B T T"]:
    """Attention of every head of every layer, row = query, in one forward pass."""
    capture = Capture()
    run_blocks(shape, params, embed(shape, params, tokens), capture=capture)
    return torch.cat([layer[0].transpose(0, 1) for layer in capture.attention])


def snippet_pattern(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Ints, " T"]) -> UInt[NDArray[np.uint8], "H T T"]:
    """Attention × 255 of every head on one snippet, rounded, row = query, for looking at. Raises RllcError where it does not fit the model."""
    (batch,) = pieces(shape, params, np.asarray(tokens)[None], 1, "The snippets")
    pattern = attention_patterns(shape, params, batch)[:, 0]
    return (pattern * 255).round().to(torch.uint8).cpu().numpy()
