"""What measuring costs: operations by counting the matrix products of every kind, as the plan counts sampling's. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from rllc.behaviour.settings import MeasureName
from rllc.model.cost import forward_operations
from rllc.runs.experiment import MIXTURE, Experiment
from rllc.runs.measures.kinds import lacking
from rllc.runs.measures.steps import asked_steps
from rllc.runs.memory import cores

# Products with a Hessian that Lanczos takes before it looks at its eigenvalues for the first time; it stops then or goes on, which none can tell.
_LANCZOS = 20
# A product with the Hessian goes back through a gradient's graph: about so many forward passes. A backward pass is about two.
_PRODUCT, _BACKWARD = 6, 2
# What no matrix product is, and so is not in these numbers.
NOT_COUNTED: Mapping[MeasureName, str] = {
    "composition": "composition as a whole",
    "ngrams": "counting the training text's n-grams once",
    "tokens": "classes of tokens and bootstraps",
    "memorised": "finding and testing patterns",
    "baselines": "Lanczos where it needs more than its first round",
}


@dataclass(frozen=True)
class Measuring:
    """The measurements of an experiment.

    Args:
        steps: how many checkpoints each is made at, in the order in which they are made.
        cost: floating-point operations of each, at all its checkpoints.
        workers: that measure side by side.
    """

    steps: Mapping[MeasureName, int]
    cost: Mapping[MeasureName, float]
    workers: int

    def seconds(self, rate: float) -> float:
        """Wall time at `rate` operations a second and worker."""
        return sum(self.cost.values()) / rate / self.workers

    @property
    def not_counted(self) -> tuple[str, ...]:
        """What else takes time, in words."""
        return tuple(NOT_COUNTED[name] for name in self.steps if name in NOT_COUNTED)


def plan_measuring(experiment: Experiment, sibling: bool = False, workers: int | None = None) -> Measuring:
    """What is measured of an experiment, or of that of a sibling, and what it takes, on as many workers as the experiment says unless told."""
    names: list[MeasureName] = [name for name in experiment.behaviour.asked() if not lacking(name, experiment.model)]
    steps: dict[MeasureName, tuple[int, ...]] = {name: asked_steps(experiment, name, sibling) for name in names}
    costs: dict[MeasureName, float] = {
        name: sum(one_checkpoint(experiment, name, shared=_shares(experiment, name, step, steps)) for step in steps[name]) for name in names
    }
    return Measuring({name: len(found) for name, found in steps.items()}, costs, workers or experiment.engine.workers or cores())


def one_checkpoint(experiment: Experiment, name: MeasureName, shared: bool = False) -> float:
    """Operations of one kind of measurement of one checkpoint; `shared` where "tokens" takes the effects that "ablation" has measured."""
    return _Counts(experiment).of(name, shared)


def cost_of(experiment: Experiment, names: Collection[MeasureName]) -> float:
    """Operations of some measurements of one checkpoint that one worker makes together."""
    shared = "ablation" in names and experiment.behaviour.ablation.main in experiment.behaviour.ablation.kinds
    return sum(one_checkpoint(experiment, name, shared) for name in names)


def _shares(experiment: Experiment, name: MeasureName, step: int, steps: Mapping[MeasureName, tuple[int, ...]]) -> bool:
    told = experiment.behaviour.ablation
    return name == "tokens" and step in steps.get("ablation", ()) and told.main in told.kinds


class _Counts:
    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.shape, self.settings = experiment, experiment.model, experiment.behaviour
        # Where only the sources can tell the domains, those of the mixture stand for them.
        self.domains = experiment.domains() or tuple(experiment.mixture)
        self.data = self.settings.data or (MIXTURE, *self.domains)
        self.context = experiment.model.n_ctx

    def of(self, name: MeasureName, shared: bool) -> float:
        counts: dict[MeasureName, Callable[[], float]] = {
            "behaviour": self.behaviour,
            "ablation": self.ablation,
            "ngrams": self.ngrams,
            "tokens": lambda: self.tokens(shared),
            "paths": self.paths,
            "tables": self.tables,
            "memorised": lambda: self.ablated(self.settings.memorised.contexts, self.settings.ablation.main),
            "baselines": self.baselines,
        }
        return counts[name]() if name in counts else 0.0

    def forward(self, contexts: int, length: int = 0, start: int = 0, read_out: bool = True) -> float:
        """Of some contexts, of the model's length unless given."""
        return contexts * forward_operations(self.shape, length or self.context, start, read_out)

    def ablated(self, contexts: int, kind: str, length: int = 0, reference: int = 0) -> float:
        """Effects of every head: a clean pass, what stands in its place, and of each head everything behind its layer."""
        clean = self.forward(contexts, length)
        instead = self.forward(reference or contexts, length, read_out=False) if kind != "zero" else 0.0
        written = 2 * (length or self.context) * self.shape.d_head * self.shape.d_model
        behind = sum(self.forward(1, length, layer + 1) + written for layer in range(self.shape.n_layers))
        return clean + instead + contexts * self.shape.n_heads * behind

    def behaviour(self) -> float:
        told = self.settings
        repeated = 1 + told.segment_length(self.context) * told.repeats
        scores = self.forward(told.sequences, read_out=False) + self.forward(told.sequences, repeated, read_out=False)
        shown = self.forward(told.snippets * len(self.domains), min(told.snippet_length, self.context), read_out=False)
        return scores + self.forward(told.contexts * (1 + len(self.domains))) + shown

    def ablation(self) -> float:
        told = self.settings.ablation
        return len(self.data) * (self.forward(told.contexts) + sum(self.ablated(told.contexts, kind) for kind in told.kinds))

    def tokens(self, shared: bool) -> float:
        told = self.settings.ablation
        length = min(self.settings.snippet_length, self.context)
        reference = told.contexts if told.main == "mean" else 1
        shown = self.settings.snippets * len(self.domains) * self.ablated(1, told.main, length, reference)
        return shown + (0.0 if shared else len(self.data) * self.ablated(told.contexts, told.main))

    def ngrams(self) -> float:
        told, probes = self.settings.ngrams, 0.0
        for length in (*range(3, told.longest + 2), told.window + 3):  # n-grams of 2 tokens and more, and skip n-grams, each behind a BOS
            probes += self.forward(told.probes, length) if length <= self.context else 0.0
        return self.forward(self.settings.contexts) + self.forward(self.settings.contexts, 2) + probes

    def paths(self) -> float:
        shape, tokens = self.shape, self.context
        clean = self.forward(1) + (self.forward(1, read_out=False) if self.settings.ablation.main != "zero" else 0.0)
        change = 2 * tokens * shape.d_head * shape.d_model
        received = 3 * change + 2 * tokens * tokens * shape.d_head + change  # Q, K and V anew, the pattern, what is written
        pairs = [layer * shape.n_heads**2 * (change + received + self.forward(1, start=layer + 1)) for layer in range(1, shape.n_layers)]
        direct = shape.n_heads * shape.n_layers * (change + self.forward(1, start=shape.n_layers))
        once = 4 * (clean + sum(pairs)) if pairs else 0.0  # into Q, K, V, and all three
        return len(self.data) * self.settings.paths.contexts * (once + clean + direct + self.forward(1))

    def tables(self) -> float:
        shape = self.shape
        v, d, k = shape.d_vocab, shape.d_model, shape.d_head
        heads, told = shape.n_heads * shape.n_layers, self.settings.tables
        circuits = heads * 2 * v * (2 * d * k + d * v + 3 * d * k + k * v)
        attributed = self.forward(told.contexts, read_out=False) + told.contexts * heads * 2 * self.context * d * (k + 1)
        return circuits + len(self.data) * attributed

    def baselines(self) -> float:
        told, heads = self.settings.baselines, self.shape.n_heads
        products = told.probes + (_LANCZOS + told.top if told.top else 0) + told.twin_probes * told.twin_steps
        passes = 1 + _BACKWARD + products * _PRODUCT + 1 + 2 * told.draws * _BACKWARD
        return told.contexts * heads * sum(passes * self.forward(1, start=layer) for layer in range(self.shape.n_layers))
