"""A transformer written by hand, whose heads do exactly what their names say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rllc.model.shape import ModelShape

V, SEGMENT, REPEATS = 24, 7, 4
T = 1 + SEGMENT * REPEATS
TOKEN, PLACE, BEFORE, GUESS = slice(0, V), slice(V, V + T), slice(V + T, 2 * V + T), slice(2 * V + T, 3 * V + T)
SHARP = 300.0


def hand_made(positions: str) -> tuple[ModelShape, dict[str, torch.Tensor]]:
    """Heads: 0:0 previous-token, 0:1 current-token, 0:2 uniform; 1:0 uniform, 1:1 induction (it reads what 0:0 wrote), 1:2 previous-token.

    The residual stream has room for one-hot codes of the token, its place, the token before, and a guess of the next.
    """
    d_head = max(V, T)
    shape = ModelShape(
        n_layers=2, d_model=GUESS.stop, n_heads=3, d_head=d_head, d_vocab=V, n_ctx=T, positions=positions, norm="rmsnorm", norm_eps=1e-12
    )
    params = {name: torch.zeros(size) for name, size in shape.tensors().items()}
    for name in params:
        if name.endswith(".w"):
            params[name] += 1
    params["embed.W_E"][:, TOKEN] = torch.eye(V)
    params["pos.W_pos"][:, PLACE] = torch.eye(T)

    def attend(head: str, query: slice, key: slice, shift: int = 0) -> None:
        """Queries with code i in `query` look for keys with code i - shift in `key`."""
        layer, index = map(int, head.split(":"))
        n = query.stop - query.start
        params[f"blocks.{layer}.attn.W_Q"][index, query, :n] = SHARP * torch.diag(torch.ones(n - shift), -shift)
        params[f"blocks.{layer}.attn.W_K"][index, key, :n] = torch.eye(n)

    def copy(head: str, source: slice, target: slice) -> None:
        layer, index = map(int, head.split(":"))
        n = source.stop - source.start
        params[f"blocks.{layer}.attn.W_V"][index, source, :n] = torch.eye(n)
        params[f"blocks.{layer}.attn.W_O"][index, :n, target] = torch.eye(n)

    attend("0:0", PLACE, PLACE, 1)
    copy("0:0", TOKEN, BEFORE)
    attend("0:1", PLACE, PLACE)
    attend("1:1", TOKEN, BEFORE)
    copy("1:1", TOKEN, GUESS)
    attend("1:2", PLACE, PLACE, 1)
    params["unembed.W_U"][GUESS] = 3 * torch.eye(V)
    return shape, params


def segments(n: int, rng: np.random.Generator) -> np.ndarray:
    """BOS (token 0) and a segment of distinct tokens, repeated [n, T]."""
    rows = np.stack([1 + rng.permutation(V - 1)[:SEGMENT] for _ in range(n)])
    return np.concatenate([np.zeros((n, 1), np.int64), np.tile(rows, (1, REPEATS))], 1)


@pytest.fixture
def repeated() -> np.ndarray:
    return segments(6, np.random.default_rng(0))


@pytest.fixture
def text() -> np.ndarray:
    rows = np.random.default_rng(1).integers(1, V, (5, T))
    rows[:, 0] = 0
    return rows


@pytest.fixture(params=["shortformer", "learned"])
def circuit(request: pytest.FixtureRequest) -> tuple[ModelShape, dict[str, torch.Tensor]]:
    return hand_made(request.param)
