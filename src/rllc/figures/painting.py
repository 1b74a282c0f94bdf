"""Text painted with a number a token: which tokens carry a head's complexity (METHOD 7), and which its ablation hurts (METHOD 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from rllc.analysis.findings import Findings, Floats
from rllc.analysis.measured import TokenEffects
from rllc.analysis.token_shares import TokenShares
from rllc.figures.drawing import Missing, Painted, Passage, Table
from rllc.figures.head_lines import type_colors
from rllc.figures.palette import type_color
from rllc.figures.token_classes import class_name
from rllc.figures.told import Told, number, step, type_of

_STRONG = 0.99  # the colour is full from this quantile of sizes on: one token must not pale all others


Which = Literal["effect", "complexity"]


def painted_effects(tokens: TokenEffects, f: Findings, told: Told, heads: Sequence[str] = (), snippets: int = 1) -> Painted | Missing:
    """The rise of each token's loss when a head is ablated, painted on text: a passage a head, those with a type first, unless heads are named."""
    if not len(tokens.steps) or not tokens.snippets:
        return Missing("No snippet was measured under ablation.")
    values = tuple(np.concatenate([np.full((len(tokens.heads), 1), np.nan), effect[:, -1, 1:]], axis=1) for effect in tokens.effects)
    caption = (
        f"Rise of each token's loss under {tokens.ablation} ablation of the head at {step(float(tokens.steps[-1]))}, on held-out text"
        f"{_instead(tokens, told)}.{told.planted}"
    )
    return _painted("effect", tokens.heads, tokens.tokens, values, tokens.snippets, f, caption, heads, snippets)


def _instead(tokens: TokenEffects, told: Told) -> str:
    """Where what stands in a head's place comes from."""
    return f"; the mean is that over {told.held_out('ablation')} of {told.mixture or 'the training mixture'}" if tokens.ablation == "mean" else ""


def painted_shares(shares: TokenShares, f: Findings, told: Told, heads: Sequence[str] = (), snippets: int = 1) -> Painted | Missing:
    """Each token's share of a head's λ̂, painted on text: a passage a head, those with a type first, unless heads are named."""
    if not shares.texts:
        return Missing("No per-token share of λ̂ was recorded.")
    caption = (
        f"Each token's share of the head's λ̂ at {step(float(shares.step))} by chains on {shares.data}; shares add up to λ̂ evaluated on "
        f"{'these texts' if len(shares.texts) > 1 else 'this text'}. {told.sampling()}"
    )
    pieces = [shares.of(text) for text in shares.texts]
    tokens, values = [piece.tokens for piece in pieces], [piece.share for piece in pieces]
    return _painted("complexity", shares.heads, tokens, values, shares.texts, f, caption, heads, snippets)


def _painted(
    what: Which,
    heads: Sequence[str],
    tokens: Sequence[Sequence[str]],
    values: Sequence[Floats],
    snippets: Sequence[str],
    f: Findings,
    caption: str,
    chosen: Sequence[str],
    most: int,
) -> Painted | Missing:
    kinds = type_of(f.types)
    typed = [h for h in heads if kinds.get(h, "other") != "other"]
    shown = [h for h in chosen if h in heads] or (typed + [h for h in heads if h not in typed])[:5]
    passages: list[Passage] = []
    strongest: tuple[float, str, str] | None = None
    sizes: list[Floats] = []
    for s in range(min(most, len(snippets))):
        for head in shown:
            row = values[s][heads.index(head)]
            kind = kinds.get(head, "other")
            passages.append(Passage(f"{head} {kind}, {snippets[s]}", tuple(tokens[s]), row, type_color(kind)))
            sizes.append(np.abs(row[np.isfinite(row)]))
            if np.isfinite(row).any():
                top = int(np.nanargmax(row))
                if strongest is None or row[top] > strongest[0]:
                    strongest = (float(row[top]), head, tokens[s][top])
    if strongest is None:
        return Missing("No token of the snippets has a number.")
    limit = float(np.quantile(np.concatenate(sizes), _STRONG)) or 1.0
    unit = "nats" if what == "effect" else "share of λ̂"
    verb = "raises the loss of a token most" if what == "effect" else "has the largest share of λ̂ on a single token"
    title = f"{strongest[1]} {verb}: {strongest[2]!r}, {number(strongest[0])}{' nats' if what == 'effect' else ''}"
    return Painted(title, caption, tuple(passages), limit, unit)


def most_affected(tokens: TokenEffects, f: Findings, told: Told, data: str = "", most: int = 3, before: int = 8) -> Table | Missing:
    """The predictions that each head's ablation hurts most, with what stands before them, as text."""
    data = data if data in tokens.data else told.mixture if told.mixture in tokens.data else next(iter(tokens.data), "")
    if not data or not len(tokens.steps) or not any(tokens.most[tokens.data.index(data)]):
        return Missing("No head's ablation raises the loss of a token.")
    kinds = type_of(f.types)
    rows: list[tuple[str, ...]] = []
    colors: list[str] = []
    found = tokens.most[tokens.data.index(data)]
    for head, color, examples in zip(tokens.heads, type_colors(f.types, tokens.heads), found, strict=True):
        for example in examples[:most]:
            context = "".join(example.before[-before:])
            classes = ", ".join(class_name(c) for c in example.classes) or "–"
            rows.append((head, kinds.get(head, "other"), context[-36:], example.token, f"{number(example.effect)}", classes))
            colors.append(color)
    named = [(e.effect, h, e.token) for h, examples in zip(tokens.heads, found, strict=True) for e in examples]
    top = max(named)
    title = f"The tokens that each head's ablation hurts most; most of all {top[1]} on {top[2]!r} ({number(top[0])} nats)"
    caption = f"Rise of the token's loss under {tokens.ablation} ablation at {step(float(tokens.steps[-1]))} on {data}, with the text before it. "
    columns = ("head", "type", "before", "token", "nats", "classes")
    return Table(title, caption + told.measuring("ablation", data), columns, tuple(rows), (2, 3), tuple(colors))
