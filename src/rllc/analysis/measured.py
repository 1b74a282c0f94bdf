"""What was measured of a run's checkpoints beside λ̂, stacked over checkpoints: numpy alone, filled from records by `runs`.

Axes: H heads layer by layer ("0:0" first), S checkpoints measured (ascending steps, each kind its own), N kinds of data (the mixture first), E pairs
of an earlier and a later head, F fractions, K classes or kinds of pattern. A kind that was not asked for is None in `Measured`; a number that could
not be measured is NaN. Errors are standard errors over held-out contexts unless said otherwise. Text is a corpus's: escape it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.findings import Floats
from rllc.analysis.learners import chi2_quantile, normal_quantile
from rllc.analysis.ordering import Quantity

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Num

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Pair = tuple[str, str]  # an earlier and a later head


@dataclass(frozen=True)
class HeadEffects:
    """Rise of the mean loss when a head is ablated (METHOD 6), by kind of ablation: "zero", "mean", "resample". Positive where the head helps."""

    heads: tuple[str, ...]
    steps: Int[Ints, " S"]
    data: tuple[str, ...]
    effect: Mapping[str, Float[Floats, "H S N"]]  # nats per token
    stderr: Mapping[str, Float[Floats, "H S N"]]
    normalised: Mapping[str, Float[Floats, "H S N"]]  # effect by the mean loss on the same contexts
    normalised_stderr: Mapping[str, Float[Floats, "H S N"]]  # of the ratio, by contexts
    loss: Float[Floats, "S N"]  # nats per token, of the whole model on these contexts
    loss_stderr: Float[Floats, "S N"]

    def quantity(self, kind: str, data: str) -> Quantity:
        """The normalised effect on one kind of data, for `orderings`. Raises KeyError or ValueError where it was not measured."""
        n = self.data.index(data)
        return Quantity(self.heads, tuple(self.steps.tolist()), self.normalised[kind][:, :, n], self.normalised_stderr[kind][:, :, n])


@dataclass(frozen=True)
class NgramScores:
    """How much of the training text's n-grams the model knows (METHOD 6).

    The bigram score is the cross-entropy, in nats, of the prediction behind one token against the empirical bigram; `bigram_floor`, the entropy of
    that, is the least it can be, and `bigram_excess` their difference. Other scores are the mean held-out loss over the mean loss on the last token
    of the text's commonest n-grams (behind BOS) or skip n-grams: above 1 the model knows them better than the rest. NaN where the text has fewer than
    two of them.
    """

    steps: Int[Ints, " S"]
    bigram: Float[Floats, " S"]
    bigram_stderr: Float[Floats, " S"]
    bigram_floor: float
    bigram_excess: Float[Floats, " S"]
    bigram_excess_stderr: Float[Floats, " S"]
    orders: tuple[int, ...]  # n of each n-gram score, L of them
    ngram: Float[Floats, "L S"]
    ngram_stderr: Float[Floats, "L S"]
    ngram_loss: Float[Floats, "L S"]  # nats, of the last token
    skip: Float[Floats, " S"]
    skip_stderr: Float[Floats, " S"]
    skip_loss: Float[Floats, " S"]
    entropy: Float[Floats, " L"]  # nats: of the training text's next token given n - 1 before it, what knowing n-grams alone comes to


@dataclass(frozen=True)
class Composition:
    """Q-, K- and V-composition of every pair of heads, from the weights, 0 to 1 (Elhage et al. 2021); "q", "k", "v" are the later head's inputs."""

    pairs: tuple[Pair, ...]
    steps: Int[Ints, " S"]
    scores: Mapping[str, Float[Floats, "E S"]]
    baseline: float  # root mean square where what one head writes lies at random to what the other reads
    deviation: Mapping[str, Float[Floats, "E S"]]  # of the squared score then, with the pair's own spectra: its standard deviation
    freedom: Mapping[str, Float[Floats, "E S"]]  # and the degrees of freedom of the χ² that is as skew

    def excess(self, kind: str) -> Float[Floats, "E S"]:
        """Scores of a kind less the baseline."""
        return self.scores[kind] - self.baseline

    def reach(self, kind: str, level: float) -> Float[Floats, "E S"]:
        """The excess that each pair passes with a chance of `level` where its matrices lie at random to each other; NaN where one is zero."""
        freedom = self.freedom[kind]
        beyond = (chi2_quantile(1 - level, freedom) - freedom) / np.sqrt(2 * freedom)
        return np.sqrt(self.baseline**2 + beyond * self.deviation[kind]) - self.baseline

    def table(self, kind: str, place: int, heads: tuple[str, ...]) -> Float[Floats, "H H"]:
        """Scores of a kind at one checkpoint, rows the earlier head, columns the later; NaN where there is no pair."""
        return _table(self.pairs, self.scores[kind][:, place], heads)


@dataclass(frozen=True)
class Edges:
    """Rise of the mean loss, in nats per token, when a direct path is ablated: from a head to a later one's input, and from a head to the logits."""

    ablation: str  # "zero", "mean" or "resample"
    heads: tuple[str, ...]
    pairs: tuple[Pair, ...]  # none in a model of one layer
    steps: Int[Ints, " S"]
    data: tuple[str, ...]
    inputs: tuple[str, ...]  # I of them: "Q", "K", "V", and all together, "QKV"
    effect: Float[Floats, "I E S N"]
    stderr: Float[Floats, "I E S N"]
    direct: Float[Floats, "H S N"]  # to the logits
    direct_stderr: Float[Floats, "H S N"]
    loss: Float[Floats, "S N"]  # of the whole model on these contexts

    def helps(self, inputs: int, place: int, n: int, level: float) -> Bool[Flags, " E"]:
        """Which edges' effects are above zero beyond their errors, all edges tried together (Bonferroni)."""
        reach = normal_quantile(1 - level / max(len(self.pairs), 1)) * self.stderr[inputs, :, place, n]
        return self.effect[inputs, :, place, n] > reach

    def table(self, inputs: str, data: str, place: int) -> Float[Floats, "H H"]:
        """Effects at one checkpoint on one kind of data, rows the earlier head, columns the later; NaN where there is no pair."""
        values = self.effect[self.inputs.index(inputs), :, place, self.data.index(data)]
        return _table(self.pairs, values, self.heads)


@dataclass(frozen=True)
class Entry:
    """One strong entry of a token-by-token matrix: reading `token`, the head writes `other` (OV), or asking for it looks at `other` (QK)."""

    token: str
    other: str
    value: float  # logits (OV: times the size of the last stream; QK: attention score), less the row's mean


@dataclass(frozen=True)
class TokenTables:
    """OV and QK circuits of every head as their strongest entries, largest first, and what heads add to the logit of the right token."""

    heads: tuple[str, ...]
    steps: Int[Ints, " S"]
    data: tuple[str, ...]
    ov: tuple[tuple[tuple[Entry, ...], ...], ...]  # by checkpoint, head
    qk: tuple[tuple[tuple[Entry, ...], ...], ...]  # likewise; empty where no table is one head's
    copying: Float[Floats, "H S"]  # share of tokens looked at that OV answers with themselves among its largest entries, 0 to 1
    attribution: Float[Floats, "H S N"]  # mean direct logit attribution of the token that comes next, logits
    attribution_stderr: Float[Floats, "H S N"]


@dataclass(frozen=True)
class ClassShares:
    """Which classes of tokens heads' ablation hurts: shares among a head's most affected predictions (METHOD 6), 95 % intervals over contexts.

    Classes overlap, so shares need not sum to 1. A class is a head's own where `excess_low` is above 0.
    """

    ablation: str
    heads: tuple[str, ...]
    steps: Int[Ints, " S"]
    data: tuple[str, ...]
    classes: tuple[str, ...]  # K: "induction", "bracket", "skip_ngram", "ngram", "other"
    fractions: tuple[float, ...]  # F of all predictions, those whose loss rises most
    shares: Float[Floats, "H S N F K"]  # NaN where no loss rises
    low: Float[Floats, "H S N F K"]
    high: Float[Floats, "H S N F K"]
    base: Float[Floats, "N K"]  # share of the class among all predictions
    excess_low: Float[Floats, "H S N F K"]  # of shares less base
    excess_high: Float[Floats, "H S N F K"]
    effect: Float[Floats, "H S N K"]  # mean rise of the loss over a class's predictions, nats; NaN where there are none
    effect_stderr: Float[Floats, "H S N K"]
    closers: Float[Floats, "N D"] | None = None  # predictions that close a bracket or quotation, by how many are open before: 1, 2 … D or more
    closer_effect: Float[Floats, "H S N D"] | None = None  # mean rise of the loss over those, nats; NaN where there are none
    closer_stderr: Float[Floats, "H S N D"] | None = None

    @property
    def usual(self) -> int:
        """The fraction nearest to a hundredth: among fewer predictions a few tokens decide."""
        return int(np.abs(np.log(np.array(self.fractions)) - np.log(0.01)).argmin())

    def own(self, place: int, n: int, fraction: int, level: float) -> Bool[Flags, "H K"]:
        """Which classes but "other" exceed their base beyond the error, all heads and classes tried together (Bonferroni, bootstrap error)."""
        where = (slice(None), place, n, fraction)
        value = self.shares[where] - self.base[n]
        error = (self.excess_high[where] - self.excess_low[where]) / (2 * normal_quantile(0.975))
        named = np.array([name != "other" for name in self.classes])
        return (value > normal_quantile(1 - level / max(len(self.heads) * int(named.sum()), 1)) * error) & named


@dataclass(frozen=True)
class Affected:
    """One prediction whose loss a head's ablation raises much, with what stands before it."""

    before: tuple[str, ...]  # the tokens before it, the nearest last
    token: str
    effect: float  # nats
    classes: tuple[str, ...]


@dataclass(frozen=True)
class TokenEffects:
    """Rise of single predictions' losses when a head is ablated: on snippets, for painting; the most affected; which heads affect the same ones."""

    ablation: str
    heads: tuple[str, ...]
    steps: Int[Ints, " S"]
    snippets: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]  # of each snippet, T strings
    effects: tuple[Float[Floats, "H S T"], ...]  # of each snippet, nats; 0 for its first token, which nothing predicts
    classes: tuple[str, ...]
    primary: tuple[Int[Ints, " T"], ...]  # of each snippet, index of each token's class, -1 for none
    data: tuple[str, ...]
    most: tuple[tuple[tuple[Affected, ...], ...], ...]  # at the last checkpoint, by kind of data, head: largest first
    correlation: Float[Floats, "H H S N"]  # of two heads' effects over predictions
    correlation_stderr: Float[Floats, "H H S N"]  # by leaving contexts out
    overlap: Float[Floats, "H H S N"]  # of two heads' `overlap_fraction` most affected predictions, the share that is both's; NaN where one has none
    overlap_fraction: float


@dataclass(frozen=True)
class Held:
    """One memorised pattern of a head, as text "a b → c" or "a … b → c"."""

    text: str
    kind: str
    mean: float  # rise in nats, over contexts
    stderr: float
    contexts: int


@dataclass(frozen=True)
class Memorised:
    """Numbers of n-grams and skip n-grams of the text that each head holds (METHOD 6), by the stated rule and by others beside it.

    `own` counts each piece of knowledge once: a head that holds B → C is not counted for all A B → C besides. `patterns` is a digest: where it is the
    same for two models, their `held` run over the same P patterns and can be compared one by one (with a one-layer model, say).
    """

    heads: tuple[str, ...]
    steps: Int[Ints, " S"]
    kinds: tuple[str, ...]  # K: "2-gram", "3-gram", …, "skip"
    found: Int[Ints, "H S K"]
    own: Int[Ints, "H S K"]
    tried: int  # patterns tried for each head
    threshold: float  # nats, of `found` and `own`
    contexts: int  # least number of contexts, of these
    thresholds: tuple[float, ...]  # X tried beside
    least: tuple[int, ...]  # M numbers of contexts tried beside
    found_by: Int[Ints, "H S X M K"]
    own_by: Int[Ints, "H S X M K"]
    examples: tuple[tuple[Held, ...], ...]  # at the last checkpoint, by head, own ones, the largest rise first
    patterns: str
    held: Bool[Flags, "H S P"]  # own

    def multigrams(self, own: bool = True) -> Int[Ints, "H S"]:
        """All kinds together: the number of memorised multigrams of METHOD 5."""
        return (self.own if own else self.found).sum(-1)

    def quantity(self) -> Quantity:
        """The number of own multigrams, for `orderings`; its error is not known."""
        return Quantity(self.heads, tuple(self.steps.tolist()), self.multigrams().astype(np.float64))


@dataclass(frozen=True)
class Baselines:
    """What else is said of a head beside λ̂: curvature, Fisher information, norms; by name, units in `units`.

    "hessian_trace", "top_eigenvalue", "second_eigenvalue", "spectrum_participation", "fisher_empirical", "fisher_true", "gradient_norm",
    "weight_norm", "qk_participation", "ov_participation".
    """

    heads: tuple[str, ...]
    steps: Int[Ints, " S"]
    values: Mapping[str, Float[Floats, "H S"]]
    stderr: Mapping[str, Float[Floats, "H S"]]  # NaN where a number has no error
    units: Mapping[str, str]

    def quantities(self) -> dict[str, Quantity]:
        """Every baseline, for `orderings`."""
        steps, found = tuple(self.steps.tolist()), dict[str, Quantity]()
        for name, values in self.values.items():
            error = self.stderr[name]
            found[name] = Quantity(self.heads, steps, values, None if np.isnan(error).all() else error)
        return found


@dataclass(frozen=True)
class Measured:
    """Everything that a run measured beside attention scores and losses (`Behaviour` has those); None for what it was not asked for."""

    ablation: HeadEffects | None = None
    ngrams: NgramScores | None = None
    composition: Composition | None = None
    paths: Edges | None = None
    tables: TokenTables | None = None
    shares: ClassShares | None = None
    tokens: TokenEffects | None = None
    memorised: Memorised | None = None
    baselines: Baselines | None = None


def _table(pairs: tuple[Pair, ...], values: Num[Floats, " E"], heads: tuple[str, ...]) -> Float[Floats, "H H"]:
    table = np.full((len(heads), len(heads)), np.nan)
    for (earlier, later), value in zip(pairs, values, strict=True):
        table[heads.index(earlier), heads.index(later)] = value
    return table
