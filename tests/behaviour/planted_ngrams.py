"""Texts with planted skip n-grams, and one-layer models that know a table and nothing else."""

from __future__ import annotations

import numpy as np
import torch

from rllc.model.shape import ModelShape

V, T, BOS = 40, 24, 0
TRIPLES = ((1, 11, 21), (2, 12, 22), (3, 13, 23), (4, 11, 24))  # A … B → C; two share their B
_KEYS = sorted({a for a, _, _ in TRIPLES})
STRENGTH = 5.0


def planted_contexts(seed: int, n: int) -> np.ndarray:
    """Contexts of random tokens [n, T]; in every second one A … B → C is planted, and in as many of the others B → C without its A.

    The tokens A stand nowhere else, so that A … B → C holds always, and B → C half of the time by itself.
    """
    rng = np.random.default_rng(seed)
    rows = rng.choice(np.setdiff1d(np.arange(V), [BOS, *_KEYS]), (n, T))
    rows[:, 0] = BOS
    end = rng.integers(13, T, n)
    a, b, c = np.array(TRIPLES)[np.arange(n) // 2 % len(TRIPLES)].T
    every = np.arange(n)
    rows[every, end - 1], rows[every, end] = b, c
    rows[every[::2], (end - 1 - rng.integers(2, 10, n))[::2]] = a[::2]
    # B behind A by chance would be followed by any token: it makes room for another
    after = (np.cumsum(np.isin(rows, _KEYS), 1) > 0) & np.isin(rows, [b for _, b, _ in TRIPLES])
    after[every, end - 1] = False
    rows[after] = 30
    return rows


def skip_model() -> tuple[ModelShape, dict[str, torch.Tensor]]:
    """One layer of three heads: 0:1 holds the skip n-grams, the others do nothing. The logit of C behind A … B is STRENGTH, all others are 0.

    Every query looks at BOS, except that B prefers its A, if that is there; A's value is the logit of C.
    """
    codes = len(TRIPLES)
    shape = ModelShape(n_layers=1, d_model=3 * V, n_heads=3, d_head=V, d_vocab=V, n_ctx=T, norm="rmsnorm", norm_eps=1e-12)
    params = {name: torch.zeros(size) for name, size in shape.tensors().items()}
    for name in params:
        if name.endswith(".w"):
            params[name] += 1
    params["embed.W_E"][:, :V] = torch.eye(V)
    query, key, value, out = (params[f"blocks.0.attn.W_{z}"][1] for z in "QKVO")
    query[:V, codes] = 100
    key[BOS, codes] = 1
    for i, (a, b, c) in enumerate(TRIPLES):
        query[b, i] = 100
        key[a, i] = 2
        value[a, i] = 1
        out[i, V + c] = 1
    # the norm makes a token's code √(3V) long; what the head adds to it weighs as much after the last norm
    params["unembed.W_U"][V : 2 * V] = STRENGTH * torch.eye(V) / (3 * V) ** 0.5 * (1 + 1 / (3 * V)) ** 0.5
    return shape, params


def bigram_model(law: np.ndarray) -> tuple[ModelShape, dict[str, torch.Tensor]]:
    """A model whose prediction behind token a is law[a] [V, V], whatever came before."""
    size = len(law)
    shape = ModelShape(n_layers=1, d_model=size, n_heads=1, d_head=4, d_vocab=size, n_ctx=T, norm="rmsnorm", norm_eps=1e-12)
    params = {name: torch.zeros(s) for name, s in shape.tensors().items()}
    for name in params:
        if name.endswith(".w"):
            params[name] += 1
    params["embed.W_E"] += torch.eye(size)
    params["unembed.W_U"] += torch.from_numpy(np.log(np.maximum(law, 1e-12)) / size**0.5).float()
    return shape, params
