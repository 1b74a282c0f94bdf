"""Where heads look: attention patterns, and the scores of METHOD 6 (Olsson et al. 2022). Heads are counted layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.behaviour.inputs import pieces
from rllc.core.errors import RllcError
from rllc.model.forward import Capture, embed, run_blocks
from rllc.model.shape import ModelShape

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, UInt

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def text_scores(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Ints, "B T"]) -> tuple[Float[Floats, " H"], Float[Floats, " H"]]:
    """Previous-token and current-token score of every head, 0 to 1: mean attention from position k to k-1, and to k.

    `tokens` start with BOS. Attention to BOS is what a head does that has nothing to do, so queries whose target it is are left out: the means
    run over k = 2 … T-1 and k = 1 … T-1.

    Raises RllcError where the tokens do not fit the model or hold fewer than 3 positions.
    """
    if np.ndim(tokens) == 2 and tokens.shape[1] < 3:
        raise RllcError("The previous-token score needs contexts of at least 3 tokens, BOS included.", "Give longer contexts.")
    previous, current = torch.zeros(2, len(shape.heads()), dtype=torch.float64)
    for batch in pieces(shape, params, tokens, _pattern_size(shape, tokens), "The held-out contexts"):
        pattern = attention_patterns(shape, params, batch)
        previous += pattern.diagonal(-1, 2, 3)[..., 1:].double().mean(-1).sum(1).cpu()
        current += pattern.diagonal(0, 2, 3)[..., 1:].double().mean(-1).sum(1).cpu()
    return (previous / len(tokens)).numpy(), (current / len(tokens)).numpy()


def prefix_matching(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Ints, "B T"], segment: int) -> Float[Floats, " H"]:
    """Prefix-matching score of every head, 0 to 1: attention from a repeated token to the tokens after its earlier occurrences.

    `tokens` are BOS, then a segment of `segment` random tokens again and again. For each position from the second repeat on, the attention to
    all successors of earlier occurrences of its token is summed (one in each earlier repeat, and one more wherever the segment holds a token
    twice); the score is the mean over these positions and over sequences.

    Raises RllcError where the tokens do not fit the model or are no such repeats.
    """
    rows = np.asarray(tokens)
    if rows.ndim == 2 and not (2 <= segment < rows.shape[1] - 1 and np.array_equal(rows[:, 1 + segment :], rows[:, 1:-segment])):
        raise RllcError(
            f"The probe of prefix matching does not repeat a segment of {segment} tokens behind its BOS.", "Give repeated segments and their length."
        )
    total = torch.zeros(len(shape.heads()), dtype=torch.float64)
    for batch in pieces(shape, params, tokens, _pattern_size(shape, tokens), "The repeated segments"):
        pattern = attention_patterns(shape, params, batch)
        found = (pattern * successors(batch)).sum(-1, dtype=torch.float64)
        total += found[..., 1 + segment :].mean(-1).sum(1).cpu()
    return (total / len(rows)).numpy()


def first_token(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Ints, "B T"]) -> Float[Floats, " H"]:
    """First-token score of every head, 0 to 1: mean attention from position k to position 0, over k = 1 … T-1 and contexts.

    `tokens` start with BOS, so that this is how much of the time the head rests (an attention sink). Raises RllcError where they do not fit
    the model.
    """
    total = torch.zeros(len(shape.heads()), dtype=torch.float64)
    for batch in pieces(shape, params, tokens, _pattern_size(shape, tokens), "The held-out contexts"):
        total += attention_patterns(shape, params, batch)[..., 1:, 0].double().mean(-1).sum(1).cpu()
    return (total / len(tokens)).numpy()


def duplicate_token(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Ints, "B T"]) -> Float[Floats, " H"]:
    """Duplicate-token score of every head, 0 to 1: attention from a token to its own earlier occurrences (Wang et al. 2022).

    At every position whose token stood there before, BOS apart, the attention to all those places is summed; the score is the mean over all
    such positions of all contexts. The probe is that of prefix matching, random segments repeated: there everything from the second repeat on
    counts, and nothing else but what the segment holds twice.

    Raises RllcError where the tokens do not fit the model or none of them comes again.
    """
    total, count = torch.zeros(len(shape.heads()), dtype=torch.float64), 0
    for batch in pieces(shape, params, tokens, _pattern_size(shape, tokens), "The repeated segments"):
        earlier = occurrences(batch)
        total += (attention_patterns(shape, params, batch) * earlier).sum((1, 2, 3), dtype=torch.float64).cpu()
        count += int(earlier.any(-1).sum())
    if not count:
        raise RllcError("No token comes again in the probe of the duplicate-token score.", "Give contexts in which tokens repeat.")
    return (total / count).numpy()


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


def _pattern_size(shape: ModelShape, tokens: Ints) -> int:
    return len(shape.heads()) * np.shape(tokens)[-1] ** 2
