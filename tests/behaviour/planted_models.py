"""Models made by hand, not trained, of which everything that a metric should find is known.

The residual stream has a subspace of its own for every code: BALLAST (one number, large and the same everywhere, so that the norm is a known
scaling), the one-hot TOKEN, and what heads write. Learned positions are of the shortformer kind, one-hot in PLACE. A head with nothing to look
for rests on BOS, where it reads zero. Tokens are 0 (BOS) to V - 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rllc.core.names import Head
from rllc.model.shape import ModelShape

V, T, SHARP, GAIN, BALLAST_SIZE = 24, 32, 40.0, 4.0, 128.0
BALLAST = slice(0, 1)
OPEN, CLOSE = {1: 4, 2: 5, 3: 6}, {4: 1, 5: 2, 6: 3}  # bracket and its partner; 7 … are filler
DEPTH = 6  # brackets nest no deeper
SKIP_TRIGRAMS = ((2, 3, 4), (5, 6, 7), (8, 9, 10), (2, 9, 4))  # A … B → C


@dataclass(frozen=True)
class Planted:
    """A model and what was put into it: `heads` by role; every other head does nothing."""

    shape: ModelShape
    params: dict[str, Tensor]
    heads: Mapping[str, Head] = field(default_factory=dict)

    @property
    def indices(self) -> dict[str, int]:
        """Where each role's head is among the model's heads, layer by layer."""
        return {role: head.layer * self.shape.n_heads + head.index for role, head in self.heads.items()}


class Maker:
    """Writes weights by hand; what reads the normed stream undoes the norm's scaling."""

    def __init__(self, codes: Mapping[str, int], n_layers: int, n_heads: int, d_mlp: int = 0) -> None:
        self.codes, start = {"BALLAST": BALLAST}, 1
        for name, width in {"TOKEN": V, "PLACE": T, **codes, "GUESS": V}.items():
            self.codes[name] = slice(start, start + width)
            start += width
        self.shape = ModelShape(
            n_layers=n_layers, d_model=start, n_heads=n_heads, d_head=2 * V + T, d_vocab=V, n_ctx=T, d_mlp=d_mlp, norm="rmsnorm_pre",
            norm_eps=1e-12, activation="relu",
        )  # fmt: skip
        self.scale = start**0.5 / BALLAST_SIZE
        self.params = {name: torch.zeros(size) for name, size in self.shape.tensors().items()}
        self.params["embed.W_E"][:, BALLAST] = BALLAST_SIZE
        self.params["embed.W_E"][:, self.codes["TOKEN"]] = torch.eye(V)
        self.params["pos.W_pos"][:, self.codes["PLACE"]] = torch.eye(T)
        self.params["unembed.W_U"][self.codes["GUESS"]] = GAIN / self.scale * torch.eye(V)
        self._used: dict[Head, int] = {}

    def look(self, head: Head, query: tuple[str, Tensor], key: tuple[str, Tensor], strength: float = SHARP) -> None:
        """Adds strength · (q·A)·(k·B) to the head's scores: q, k the codes of query and key, A and B matrices from code to a common space."""
        start = self._used.get(head, 0)
        for letter, (code, matrix), factor in (("Q", query, strength * self.shape.d_head**0.5), ("K", key, 1.0)):
            scale = 1.0 if code == "PLACE" else self.scale
            self.params[f"blocks.{head.layer}.attn.W_{letter}"][head.index, self.codes[code], start : start + matrix.shape[1]] = (
                factor / scale * matrix
            )
        self._used[head] = start + query[1].shape[1]

    def rest_on_bos(self, head: Head, strength: float = SHARP / 2) -> None:
        """Where nothing scores higher than `strength`, the head looks at BOS."""
        self.look(head, ("BALLAST", torch.full((1, 1), 1 / BALLAST_SIZE)), ("TOKEN", torch.eye(V)[:, :1]), strength)

    def copy(self, head: Head, source: str, target: str, matrix: Tensor) -> None:
        """The head writes matrix (code to code) of what it reads."""
        n = matrix.shape[0]
        self.params[f"blocks.{head.layer}.attn.W_V"][head.index, self.codes[source], :n] = torch.eye(n) / self.scale
        self.params[f"blocks.{head.layer}.attn.W_O"][head.index, :n, self.codes[target]] = matrix

    def done(self, **heads: Head) -> Planted:
        return Planted(self.shape, self.params, heads)


def _but_bos() -> Tensor:
    return torch.eye(V).index_fill(0, torch.tensor(0), 0.0)


def induction_model() -> Planted:
    """0:1 is a previous-token head, which writes the token before; 1:2 an induction head, whose keys read that and which guesses what it sees."""
    maker = Maker({"BEFORE": V}, n_layers=2, n_heads=4)
    previous, induction = Head(0, 1), Head(1, 2)
    maker.look(previous, ("PLACE", torch.diag(torch.ones(T - 1), -1)), ("PLACE", torch.eye(T)))
    maker.copy(previous, "TOKEN", "BEFORE", _but_bos())
    maker.look(induction, ("TOKEN", torch.eye(V)), ("BEFORE", torch.eye(V)))
    maker.rest_on_bos(induction)
    maker.copy(induction, "TOKEN", "GUESS", _but_bos())
    return maker.done(previous=previous, induction=induction)


def skip_trigram_model() -> Planted:
    """One layer; 0:2 holds SKIP_TRIGRAMS: from B it looks at A, and A says C. Where A is absent it rests on BOS."""
    maker = Maker({}, n_layers=1, n_heads=4)
    head = Head(0, 2)
    asks, says = torch.zeros(2, V, V)
    for a, b, c in SKIP_TRIGRAMS:
        asks[b, a] = says[a, c] = 1
    maker.look(head, ("TOKEN", asks), ("TOKEN", torch.eye(V)))
    maker.rest_on_bos(head)
    maker.copy(head, "TOKEN", "GUESS", says)
    return maker.done(skip_trigram=head)


def bracket_model() -> Planted:
    """0:0 counts open brackets less closed ones, the MLP writes the depth as a code, 1:1 looks at the innermost bracket that is open and guesses
    its partner: the latest opening one of the depth at which the query stands, itself included; BOS at depth 0."""
    maker = Maker({"COUNT": 1, "DEPTH": DEPTH + 1}, n_layers=2, n_heads=3, d_mlp=3 * (DEPTH + 1))
    depth, matcher = Head(0, 0), Head(1, 1)
    # BOS outweighs all others together by far, so that the others' weights are one constant each, exp(-12), and their sum is a count.
    maker.rest_on_bos(depth, 12.0)
    count = torch.zeros(V, 1)
    count[list(OPEN)], count[list(CLOSE)] = np.exp(12.0), -np.exp(12.0)
    maker.copy(depth, "TOKEN", "COUNT", count)
    w_in, b_in, w_out = (maker.params[f"blocks.0.mlp.{name}"] for name in ("W_in", "b_in", "W_out"))
    for d in range(DEPTH + 1):  # a hat over d of three ramps
        w_in[maker.codes["COUNT"], 3 * d : 3 * d + 3] = 1 / maker.scale
        b_in[3 * d : 3 * d + 3] = torch.tensor([1.0 - d, -d, -1.0 - d])
        w_out[3 * d : 3 * d + 3, maker.codes["DEPTH"].start + d] = torch.tensor([1.0, -2.0, 1.0])
    latest = torch.arange(T, dtype=torch.float32)[:, None]
    opens = torch.zeros(V, 1)
    opens[[0, *OPEN]] = 1
    ballast = torch.full((1, 1), 1 / BALLAST_SIZE)
    maker.look(matcher, ("DEPTH", torch.eye(DEPTH + 1)), ("DEPTH", torch.eye(DEPTH + 1)), 12.0 * T)
    maker.look(matcher, ("BALLAST", ballast), ("TOKEN", opens), 12.0 * T)
    maker.look(matcher, ("BALLAST", ballast), ("PLACE", latest), 10.0)
    partner = torch.zeros(V, V)
    for opening, closing in OPEN.items():
        partner[opening, closing] = 1
    maker.copy(matcher, "TOKEN", "GUESS", partner)
    return maker.done(depth=depth, bracket=matcher)


def repeats(n: int, rng: np.random.Generator, segment: int = 7, times: int = 4) -> np.ndarray:
    """BOS and a segment of distinct random tokens, again and again [n, 1 + segment · times]: what the induction circuit predicts."""
    rows = np.stack([1 + rng.permutation(V - 1)[:segment] for _ in range(n)])
    return np.concatenate([np.zeros((n, 1), np.int64), np.tile(rows, (1, times))], 1)


def random_text(n: int, rng: np.random.Generator, length: int = T) -> np.ndarray:
    """BOS and uniform tokens [n, length]."""
    rows = rng.integers(1, V, (n, length))
    rows[:, 0] = 0
    return rows


def skip_trigram_text(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """BOS, filler (11 …) and one skip-trigram A … B C a row, [n, T], and which predictions are of its C, [n, T - 1]."""
    tokens = rng.integers(11, V, (n, T))
    planted = np.zeros((n, T - 1), bool)
    tokens[:, 0] = 0
    for row in range(n):
        a, b, c = SKIP_TRIGRAMS[row % len(SKIP_TRIGRAMS)]
        early, late = int(rng.integers(1, T // 2)), int(rng.integers(T // 2, T - 1))
        tokens[row, [early, late, late + 1]] = a, b, c
        planted[row, late] = True
    return tokens, planted


def bracket_text(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """BOS and nested brackets with filler between, [n, T], and at each position which is the innermost bracket open there (0 = none), [n, T]."""
    tokens, match = np.zeros((2, n, T), np.int64)
    for row in range(n):
        stack: list[int] = []
        for place in range(1, T):
            choice = rng.random()
            if stack and choice < 0.35:
                tokens[row, place] = OPEN[int(tokens[row, stack.pop()])]
            elif len(stack) < DEPTH and choice < 0.7:
                tokens[row, place] = rng.integers(1, 4)
                stack.append(place)
            else:
                tokens[row, place] = rng.integers(7, V)
            match[row, place] = stack[-1] if stack else 0
    return tokens, match
