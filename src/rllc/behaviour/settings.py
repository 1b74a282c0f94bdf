"""Settings of behavioural measurements: which are made, at which checkpoints, on how much. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from rllc.core.errors import RllcError

MeasureName = Literal["behaviour", "composition", "ablation", "ngrams", "tokens", "paths", "tables", "memorised", "baselines"]
Ablation = Literal["zero", "mean", "resample"]
Checkpoints = Literal["all", "last"] | int
MEASURES: tuple[MeasureName, ...] = get_args(MeasureName)


@dataclass(frozen=True)
class AblationSettings:
    """How heads are ablated (METHOD 6), for the measurements "ablation" and "tokens".

    Args:
        contexts: number of held-out contexts of each kind of data.
        kinds: what stands in a head's place, for the mean effect: "zero" nothing, "mean" its mean output at each position over these contexts,
            "resample" its output on another of them.
        main: the kind whose effect on single predictions is looked at, by "tokens", "paths" and "memorised".
        at: checkpoints of "ablation".
    """

    contexts: int = 64
    kinds: tuple[Ablation, ...] = ("zero", "mean", "resample")
    main: Ablation = "mean"
    at: Checkpoints = "all"

    def __post_init__(self) -> None:
        _at_least("ablation", self, contexts=2)
        _check_at("ablation", self.at)
        if not self.kinds or not {*self.kinds, self.main} <= set(get_args(Ablation)):
            raise RllcError(
                f"behaviour.ablation has the kinds {list(self.kinds)} and mainly {self.main!r}.", f"Choose from {', '.join(get_args(Ablation))}."
            )


@dataclass(frozen=True)
class NgramSettings:
    """What counts as an n-gram or skip n-gram of the training text, for "ngrams", "tokens" and "memorised".

    Args:
        longest: the longest n.
        least: how often one of three tokens or more, or a skip n-gram, occurs in the counted text, at least.
        window: tokens within which the A of a skip n-gram A … B → C stands before B.
        information: nats by which A makes C likelier behind B, at least.
        probability: how likely a pattern makes its last token, at least, to be one that can be known: a class in context, or memorised.
        tokens: most tokens of each domain's training text that are counted, from its beginning.
        probes: number of the commonest n-grams, and of skip n-grams, that the scores are of.
        at: checkpoints of "ngrams".
    """

    longest: int = 4
    least: int = 10
    window: int = 16
    information: float = 1.0
    probability: float = 0.3
    tokens: int = 20_000_000
    probes: int = 1000
    at: Checkpoints = "all"

    def __post_init__(self) -> None:
        _at_least("ngrams", self, longest=2, least=1, window=2, tokens=1, probes=2)
        _check_at("ngrams", self.at)
        if not 0 <= self.probability <= 1:
            raise RllcError(f"behaviour.ngrams.probability is {self.probability}.", "Give a number from 0 to 1.")


@dataclass(frozen=True)
class CompositionSettings:
    """Composition scores of all pairs of heads.

    Args:
        at: checkpoints.
    """

    at: Checkpoints = "all"

    def __post_init__(self) -> None:
        _check_at("composition", self.at)


@dataclass(frozen=True)
class TokenSettings:
    """Effects of ablation on single predictions.

    Args:
        fractions: shares of all predictions, those most affected, among which classes of tokens are counted.
        draws: of the bootstrap over contexts behind their intervals.
        overlap: share of all predictions, those most affected, that two heads may have in common.
        examples: most affected predictions kept for each head and kind of data, with
        before: tokens before each.
        at: checkpoints.
    """

    fractions: tuple[float, ...] = (0.001, 0.01, 0.05)
    draws: int = 200
    overlap: float = 0.01
    examples: int = 10
    before: int = 16
    at: Checkpoints = "all"

    def __post_init__(self) -> None:
        _at_least("tokens", self, draws=10, examples=0, before=1)
        _check_at("tokens", self.at)
        if not self.fractions or not all(0 < share <= 1 for share in (*self.fractions, self.overlap)):
            raise RllcError(
                f"behaviour.tokens has the fractions {list(self.fractions)} and overlap {self.overlap}.", "Give numbers above 0 and up to 1."
            )


@dataclass(frozen=True)
class PathSettings:
    """Ablation of single paths: from every head to every later one, and to the logits.

    Args:
        contexts: number of held-out contexts of each kind of data.
        at: checkpoints.
    """

    contexts: int = 64
    at: Checkpoints = "last"

    def __post_init__(self) -> None:
        _at_least("paths", self, contexts=2)
        _check_at("paths", self.at)


@dataclass(frozen=True)
class TableSettings:
    """OV and QK circuits as token tables, and direct logit attribution.

    Args:
        entries: strongest entries of each table that are kept, at most `row` of them in one row.
        row: see there; also within how many a row's own token has to stand to count as copied.
        contexts: number of held-out contexts of each kind of data for the attribution.
        at: checkpoints.
    """

    entries: int = 20
    row: int = 5
    contexts: int = 64
    at: Checkpoints = "last"

    def __post_init__(self) -> None:
        _at_least("tables", self, entries=1, row=1, contexts=2)
        _check_at("tables", self.at)


@dataclass(frozen=True)
class MemorisedSettings:
    """Which patterns a head holds (METHOD 6). The thresholds of Wang et al. were not published: these are ours, and counts at others stand beside.

    Args:
        contexts: number of held-out contexts of the mixture that heads are ablated on.
        threshold: nats by which the loss of a pattern's last token must rise, more than.
        within: in how many contexts a pattern must stand, at least.
        consistency: share of these in which the rise has to be above the threshold, more than; 0 to below 1.
        false_discoveries: expected share of false ones among those found, for each head.
        thresholds, withins: others, counts by which are recorded beside.
        examples: patterns of each head that are written out.
        at: checkpoints.
    """

    contexts: int = 1024
    threshold: float = 0.1
    within: int = 5
    consistency: float = 0.5
    false_discoveries: float = 0.05
    thresholds: tuple[float, ...] = (0.03, 0.1, 0.3)
    withins: tuple[int, ...] = (5, 10, 20)
    examples: int = 20
    at: Checkpoints = "last"

    def __post_init__(self) -> None:
        _at_least("memorised", self, contexts=2, within=2, examples=0)
        _check_at("memorised", self.at)
        if not self.thresholds or not self.withins or min(self.withins) < 2:
            raise RllcError(
                f"behaviour.memorised has the thresholds {list(self.thresholds)} and withins {list(self.withins)}.",
                "Give one or more of both, and numbers of contexts from 2 on.",
            )


@dataclass(frozen=True)
class BaselineSettings:
    """Curvature, Fisher information and norms of heads.

    Args:
        contexts: number of held-out contexts of the mixture.
        top: eigenvalues of the Hessian that are found.
        probes: random vectors a context behind its trace.
        draws: of signs, and of labels, a context, behind the two Fisher traces.
        twin_probes: random vectors behind the curvature twin; its error needs two.
        twin_steps: products of the Hessian with each.
        at: checkpoints.
    """

    contexts: int = 16
    top: int = 2
    probes: int = 2
    draws: int = 4
    twin_probes: int = 4
    twin_steps: int = 12
    at: Checkpoints = "last"

    def __post_init__(self) -> None:
        _at_least("baselines", self, contexts=2, top=0, probes=1, draws=1, twin_probes=2, twin_steps=2)
        _check_at("baselines", self.at)


@dataclass(frozen=True)
class BehaviourSettings:
    """What is measured beside λ̂, and the size of the probes, the same at every checkpoint (METHOD 6).

    Args:
        measures: which measurements are made; "behaviour", the attention scores and losses, is always among them.
        data: kinds of data that heads are ablated on: "mixture" and domains; all of them unless given.
        sequences: number of held-out contexts for the previous- and current-token scores, and of repeated segments for prefix matching.
        segment: tokens in a repeated segment; shortened where the repeats would not fit a context.
        repeats: how often the segment stands there.
        contexts: number of held-out contexts of each kind of data for the losses and the in-context-learning score.
        snippets: number of snippets of each domain whose attention patterns are kept.
        snippet_length: tokens in a snippet, BOS included; shortened to the context.
        ablation, ngrams, composition, tokens, paths, tables, memorised, baselines: of the measurements of these names.
    """

    measures: tuple[MeasureName, ...] = ("behaviour", "composition", "ablation", "ngrams")
    data: tuple[str, ...] = ()
    sequences: int = 64
    segment: int = 25
    repeats: int = 4
    contexts: int = 256
    snippets: int = 2
    snippet_length: int = 64
    ablation: AblationSettings = field(default_factory=AblationSettings)
    ngrams: NgramSettings = field(default_factory=NgramSettings)
    composition: CompositionSettings = field(default_factory=CompositionSettings)
    tokens: TokenSettings = field(default_factory=TokenSettings)
    paths: PathSettings = field(default_factory=PathSettings)
    tables: TableSettings = field(default_factory=TableSettings)
    memorised: MemorisedSettings = field(default_factory=MemorisedSettings)
    baselines: BaselineSettings = field(default_factory=BaselineSettings)

    def __post_init__(self) -> None:
        least = {"sequences": 2, "segment": 2, "repeats": 2, "contexts": 2, "snippets": 0, "snippet_length": 2}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise RllcError(f"behaviour.{name} is {getattr(self, name)}, but must be at least {bound}.", "Give a larger number.")
        if unknown := [name for name in self.measures if name not in MEASURES]:
            raise RllcError(f"behaviour.measures names {unknown[0]!r}.", f"Choose from {', '.join(MEASURES)}.")

    def asked(self) -> tuple[MeasureName, ...]:
        """The measurements that are made, cheap ones first."""
        return tuple(name for name in MEASURES if name == "behaviour" or name in self.measures)

    def steps(self, name: MeasureName, steps: Sequence[int]) -> tuple[int, ...]:
        """At which of the ascending steps a measurement is made."""
        return tuple(steps) if name == "behaviour" else chosen(getattr(self, name).at, steps)

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


def chosen(at: Checkpoints, steps: Sequence[int]) -> tuple[int, ...]:
    """The steps that `at` means: all, the last, or so many evenly chosen by their order, the last always among them.

    >>> chosen("last", [0, 10, 30]), chosen(2, [0, 10, 30, 100]), chosen(9, [0, 10])
    ((30,), (0, 100), (0, 10))
    """
    last = len(steps) - 1
    number = min(len(steps), len(steps) if at == "all" else 1 if at == "last" else at)
    return tuple(steps[last - round(i * last / max(number - 1, 1))] for i in reversed(range(number)))


def _at_least(table: str, settings: object, **bounds: int) -> None:
    for name, bound in bounds.items():
        if (value := getattr(settings, name)) < bound:
            raise RllcError(f"behaviour.{table}.{name} is {value}, but must be at least {bound}.", "Give a larger number.")


def _check_at(table: str, at: Checkpoints) -> None:
    if at not in ("all", "last") and (not isinstance(at, int) or at < 1):
        raise RllcError(f'behaviour.{table}.at is {at!r}, but must be "all", "last" or a number from 1 on.', "Mend the experiment file.")
