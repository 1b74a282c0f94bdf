"""Settings of a run: what is sampled where, and on which engine. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from rllc.behaviour.settings import Checkpoints
from rllc.core.errors import RllcError
from rllc.core.names import DataKey, Part
from rllc.corpus.settings import Documents
from rllc.runs.engines.registry import check_name
from rllc.runs.shards import Shard

_MOST_PROCESSES = 4096
Products = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class SampleSettings:
    """One block of the grid: parts × data × checkpoints.

    Args:
        parts: part expressions; "heads" stands for every head of the model, "random" for one size-matched random part of every layer, `0.random0`
            and so on.
        data: "mixture" for the training mixture, or domains; "/heldout" behind a name takes the held-out split, and "^10" behind that another inverse
            temperature nβ than the sampler's.
        checkpoints: steps; empty for every checkpoint.
        evaluate_on: other data on which the draws are evaluated as well, without moving by it: cells of their own, named "code@prose".
    """

    parts: tuple[str, ...] = ("heads",)
    data: tuple[str, ...] = ("mixture",)
    checkpoints: tuple[int, ...] = ()
    evaluate_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for text in (*self.data, *self.evaluate_on):
            if "@" in text:
                raise RllcError(f"sample names the data {text!r}.", "Name what is evaluated elsewhere in evaluate_on.")
        for text in self.evaluate_on:
            DataKey.parse(text)
        for text in self.parts:
            if text not in ("heads", "random"):
                Part.parse(text)
        for text in self.data:
            DataKey.parse(text)


@dataclass(frozen=True)
class ImportSettings:
    """Checkpoints of a model that was trained elsewhere; `rllc import` writes this table and the model's.

    Args:
        source: a folder or glob of checkpoints, one file or folder of weights, or the id of a hub repository.
        steps: which of them, in training steps.
        revision: the repository's revision of a step, with {step} in the place of the number; by default "step{step}", and the main branch where
            `file` is given. Unused for local files.
        file: where a repository keeps its checkpoints as files of one revision, their name with {step}, or {step:07d} for seven
            digits: "checkpoints/checkpoint_{step:07d}.pth".
        config: what the checkpoints themselves do not say of their model, by the names of their library; it wins over what they say.
        keep: keep every converted checkpoint in the run folder. Without, each is fetched, sampled, measured and given back in its turn, so that the
            disk stays flat; a later change of the grid fetches again what it needs.
    """

    source: str
    steps: tuple[int, ...]
    revision: str = ""
    file: str = ""
    config: Mapping[str, str | bool | int | float] = field(default_factory=dict)
    keep: bool = False

    def __post_init__(self) -> None:
        if not self.source or not self.steps or min(self.steps) < 0 or len(set(self.steps)) < len(self.steps):
            raise RllcError(
                f"imported.source is {self.source!r} with the steps {list(self.steps)}.", "Name where checkpoints lie, and some steps, each once."
            )
        if self.file and "{step" not in self.file and len(self.steps) > 1:
            raise RllcError(f"imported.file is {self.file!r} for {len(self.steps)} steps.", "Write {step} where the name has the number.")


@dataclass(frozen=True)
class SiblingSettings:
    """A model beside the experiment's on the same text: trained with the same recipe from another seed or with fewer layers, or imported.

    It lies in `siblings/<name>` of the run folder, with checkpoints and records of its own.

    Args:
        seed: root of its random streams, its initial weights among them; the experiment's unless given.
        n_layers: its layers; the experiment's unless given.
        checkpoints: steps that are kept beside 0 and the last.
        imported: where it comes from, in an experiment that imports its model.
        sample: blocks of its own grid; none unless given.
    """

    seed: int | None = None
    n_layers: int = 0
    checkpoints: tuple[int, ...] = ()
    imported: ImportSettings | None = None
    sample: tuple[SampleSettings, ...] = ()

    def __post_init__(self) -> None:
        if self.seed is None and not self.n_layers and self.imported is None:
            raise RllcError("A sibling is the experiment's own model.", "Give it another seed, or n_layers.")
        if self.n_layers < 0:
            raise RllcError(f"A sibling has {self.n_layers} layers.", "Give 1 or more, or leave n_layers out.")


@dataclass(frozen=True)
class SamplingSettings:
    """The minibatches that sampling uses; the sampler's own settings are its room's.

    Args:
        batch_size: contexts B of a minibatch; MALA's one batch has `full_batch` of them.
        origin_batches: separate minibatches at the checkpoint itself, for the tilt and for the unpaired estimate's baseline (METHOD 2).
        control_batches: minibatches behind ∇l_n(w*), where the sampler's control variate is on.
        full_batch: contexts of the one batch that MALA samples on.
        documents: "packed" contexts, documents one after the other, or "one a row": one document, cut or filled up with padding that counts nothing.
        fixed_contexts: contexts of a fixed evaluation set on which every draw is evaluated in place of its own minibatch; 0 for none.
        keep_state: keep where the chains stand beside the record, so that more draws continue them exactly; `rllc plan` tells the size.
        share_contexts: keep which tokens carry λ̂, over so many contexts of the data and the page's snippets of its domains, on which every draw is
            evaluated too; 0 for none. No number of the record depends on it.
        share_at: at which of the checkpoints: "all", "last", or so many evenly chosen.
    """

    batch_size: int = 32
    origin_batches: int = 16
    control_batches: int = 64
    full_batch: int = 256
    documents: Documents = "packed"
    fixed_contexts: int = 0
    keep_state: bool = False
    share_contexts: int = 0
    share_at: Checkpoints = "all"

    def __post_init__(self) -> None:
        for name, least in (
            ("batch_size", 1),
            ("origin_batches", 3),
            ("control_batches", 1),
            ("full_batch", 1),
            ("fixed_contexts", 0),
            ("share_contexts", 0),
        ):
            if getattr(self, name) < least:
                raise RllcError(f"sampling.{name} is {getattr(self, name)}, but must be at least {least}.", "Mend the experiment file.")
        if self.share_at not in ("all", "last") and (not isinstance(self.share_at, int) or self.share_at < 1):
            raise RllcError(f'sampling.share_at is {self.share_at!r}, but must be "all", "last" or a number from 1 on.', "Mend the experiment file.")


@dataclass(frozen=True)
class EngineSettings:
    """How the grid is computed, never what it is.

    Args:
        kind: the engine: "local" for processes of this machine, "ray" for a Ray cluster or one that is started here.
        address: of a Ray cluster that is there, "host:port", or "auto" for the one that this machine belongs to; empty to start one here.
        workers: processes that sample side by side; 0 takes one for every core, and with Ray as many as the cluster has room for.
        gpus_per_worker: GPUs that Ray sets aside for a worker, 0.5 for two workers on each; 0 takes one where the cluster has some and `device`
            does not say otherwise.
        unit_timeout: seconds after which a unit is taken for lost and tried again; 0 for twenty times what the finished ones predict, and at
            least ten minutes; before any is finished, what takes 0.25 GFLOP/s, and at most a day. Above 0 one worker is a process of its own
            too, so that it can be ended.
        shard: "2/5" samples the second of five shares of the units alone, beside other calls on the same folder; empty for all.
        threads: threads of each worker. More threads change the order of sums, so equal numbers need equal threads.
        device: "auto" takes a CUDA device where there is one.
        dtype: of the model and of the sampler's state.
        products: type of the unembedding's products of heads with layers behind them; "bfloat16" is faster where the hardware multiplies
            it faster (`benchmarks/roofline.py` measures it) and moves λ̂ by a small part of its standard error.
        chunk: most variants C of a pass; 0 lets the plan choose it from `memory`.
        memory: budget of one pass in megabytes; 0 finds it when the run begins, from what is free, and keeps it in the run folder.
        training_threads: threads of the training loop; 0 takes one for every core.
        records: where the records lie, if not in the run folder: a URL that fsspec reaches, such as "s3://bucket/mine". Runs may share one.
    """

    workers: int = 0
    threads: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    products: Products = "float32"
    chunk: int = 0
    memory: int = 1000
    training_threads: int = 0
    records: str = ""
    kind: str = "local"
    address: str = ""
    gpus_per_worker: float = 0.0
    unit_timeout: float = 0.0
    shard: str = ""

    def __post_init__(self) -> None:
        check_name(self.kind)
        Shard.parse(self.shard)
        if not 0 <= self.gpus_per_worker <= 1:
            raise RllcError(
                f"engine.gpus_per_worker is {self.gpus_per_worker:g}, but a unit is computed on one device: it must be between 0 and 1.",
                "Give 1, or 0.5 to have two workers share a device; more devices are used by more workers.",
            )
        if self.kind == "local" and (self.address or self.gpus_per_worker):
            raise RllcError(
                "engine.address and engine.gpus_per_worker are for the engine ray.", 'Give engine.kind = "ray" with them, or --engine ray.'
            )
        if self.products not in get_args(Products):
            raise RllcError(f"engine.products is {self.products!r}.", f"Choose one of: {', '.join(get_args(Products))}.")
        for name in ("workers", "threads", "training_threads"):
            if getattr(self, name) > _MOST_PROCESSES:
                raise RllcError(f"engine.{name} is {getattr(self, name)}, but must be at most {_MOST_PROCESSES}.", "Mend the experiment file.")
        if self.records and "://" not in self.records:
            raise RllcError(f"engine.records is {self.records!r}, which is no URL.", 'Write "s3://bucket/folder", or "file:///folder" for a folder.')
        for name, least in (("workers", 0), ("threads", 1), ("chunk", 0), ("memory", 0), ("training_threads", 0), ("unit_timeout", 0)):
            if getattr(self, name) < least:
                raise RllcError(f"engine.{name} is {getattr(self, name)}, but must be at least {least}.", "Mend the experiment file.")
