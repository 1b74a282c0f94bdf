"""The experiment file: one TOML file says everything that a run does. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from rllc.analysis.settings import AnalysisSettings
from rllc.behaviour.settings import BehaviourSettings, chosen
from rllc.core import digest
from rllc.core.errors import RllcError
from rllc.core.files import LARGEST_SETTINGS, parse_toml, read_text
from rllc.core.names import DataKey, Part
from rllc.corpus.settings import CorpusSettings, RefinementSettings
from rllc.model.shape import ModelShape
from rllc.model.slices import slices
from rllc.posterior.calibration.settings import CalibrationSettings
from rllc.posterior.settings import ExtraChecks, SamplerSettings, Stopping
from rllc.runs.mapping import plain, settings_from
from rllc.runs.settings import EngineSettings, ImportSettings, SampleSettings, SamplingSettings, SiblingSettings
from rllc.training.settings import CheckpointSchedule, TrainingSettings

MIXTURE = "mixture"
_MOST_CELLS = 1_000_000
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class Experiment:
    """Everything a run does, from text to page; each room owns its own settings.

    Args:
        title: heading of the page.
        seed: root of every random stream.
        mixture: share of each domain in the training text, the data called "mixture".
        training: how the model is trained, or
        imported: where its checkpoints come from.
        sample: blocks of the grid of cells; a cell named twice is sampled once.
        refinements: data of their own, by name.
        siblings: models trained beside the main one, by name.
    """

    corpus: CorpusSettings
    mixture: Mapping[str, float]
    sampler: SamplerSettings
    sample: tuple[SampleSettings, ...]
    training: TrainingSettings | None = None
    imported: ImportSettings | None = None
    model: ModelShape = field(default_factory=ModelShape)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    stopping: Stopping = field(default_factory=Stopping)
    checks: ExtraChecks = field(default_factory=ExtraChecks)
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    behaviour: BehaviourSettings = field(default_factory=BehaviourSettings)
    analysis: AnalysisSettings = field(default_factory=AnalysisSettings)
    refinements: Mapping[str, RefinementSettings] = field(default_factory=dict)
    siblings: Mapping[str, SiblingSettings] = field(default_factory=dict)
    title: str = "How attention heads came to differ"
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.training is None) == (self.imported is None):
            raise RllcError("An experiment either trains a model or imports one.", "Give it the table [training], or [imported], and not both.")
        steps = set(self.checkpoints())
        if self.stopping.target_stderr and self.stopping.max_draws < self.sampler.draws:
            raise RllcError(
                f"stopping.max_draws is {self.stopping.max_draws}, but the sampler makes {self.sampler.draws} draws before the first look.",
                "Raise stopping.max_draws, or lower sampler.draws.",
            )
        if self.sampler.sampler == "mala" and self.sampling.fixed_contexts:
            raise RllcError(
                "MALA is evaluated on the one batch that it samples on.", "Leave sampling.fixed_contexts out, or raise sampling.full_batch."
            )
        if self.sampler.sampler == "mala" and self.sampling.share_contexts:
            raise RllcError("MALA tells no shares of tokens: its draws are points evaluated earlier.", "Leave sampling.share_contexts out.")
        domains = self.domains()
        for name, weight in self.mixture.items():
            if not weight > 0:
                raise RllcError(f"mixture.{name} is {weight}, but a share must be above 0.", "Leave the domain out or give it a share.")
            if domains is not None and name not in domains:
                raise RllcError(f"The mixture names {name!r}, but the corpus has {', '.join(domains)}.", "Name a domain of the corpus.")
        for name in self.siblings:
            self.sibling(name)
        for name, refinement in self.refinements.items():
            self._check_refinement(name, refinement, domains)
        self._check_cells(steps)
        for block in self.sample:
            for part in self.parts_of(block):
                slices(self.model, part)
            if block.evaluate_on and self.sampler.sampler == "mala":
                raise RllcError("MALA's draws are evaluated on its own batch alone.", "Leave sample.evaluate_on out, or take another sampler.")
            for text in (*block.data, *block.evaluate_on):
                name = DataKey.parse(text).name
                if name != MIXTURE and domains is not None and name not in (*domains, *self.refinements):
                    raise RllcError(
                        f"sample.data names {name!r}, but the corpus has {', '.join([*domains, *self.refinements])}.", 'Name a domain or "mixture".'
                    )
            if missing := sorted(set(block.checkpoints) - steps):
                raise RllcError(
                    f"sample.checkpoints names step {missing[0]}, of which there is no checkpoint.",
                    f"There are {', '.join(map(str, sorted(steps)))}.",
                )

    def sibling(self, name: str) -> Experiment:
        """The experiment of a sibling. Raises RllcError where there can be none such."""
        asked = self.siblings[name]
        if not _NAME.fullmatch(name):
            raise RllcError(f"A sibling is called {name!r}, but its folder is called that too.", "Use small letters, digits and hyphens.")
        if (self.imported is None) != (asked.imported is None):
            problem = f"Of the sibling {name!r} and the experiment's model one is imported and one is trained."
            raise RllcError(problem, f"Give the sibling {'a table imported' if asked.imported is None else 'none'}.")
        seeded = {} if asked.seed is None else {"seed": asked.seed}
        kept = CheckpointSchedule(extra=asked.checkpoints)
        return replace(
            self,
            title=f"{self.title}: {name}",
            training=None if self.training is None else replace(self.training, checkpoints=kept, **seeded),
            imported=asked.imported,
            model=replace(self.model, n_layers=asked.n_layers or self.model.n_layers),
            sample=asked.sample,
            refinements={key: refinement for key, refinement in self.refinements.items() if not refinement.refers},
            siblings={},
            **seeded,
        )

    def checkpoints(self) -> tuple[int, ...]:
        """Steps at which there is a checkpoint."""
        if self.imported is not None:
            return tuple(sorted(self.imported.steps))
        return () if self.training is None else self.training.checkpoint_steps()

    def shares_at(self, step: int) -> bool:
        """Whether the cells of a checkpoint keep which tokens carry λ̂."""
        return self.sampling.share_contexts > 0 and step in chosen(self.sampling.share_at, self.checkpoints())

    def domains(self) -> tuple[str, ...] | None:
        """Names of the corpus' domains, or None where only reading the sources can tell."""
        names: list[str] = []
        for source in self.corpus.sources:
            if source.kind == "python":
                names += ["code", "prose"]
            elif source.planted:
                names.append(source.domain or source.kind)
            elif source.domain and not source.domain_column:
                names.append(source.domain)
            else:
                return None
        return tuple(dict.fromkeys(names))

    def parts_of(self, block: SampleSettings) -> tuple[Part, ...]:
        """The parts that a block names, in its order."""
        return tuple(part for text in block.parts for part in self.model.named(text))

    def batch_size(self) -> int:
        """Contexts of the minibatches that the chains see."""
        return self.sampling.full_batch if self.sampler.sampler == "mala" else self.sampling.batch_size

    def widest(self) -> int:
        """Contexts of the largest batch that draws are evaluated on."""
        return max(self.batch_size(), self.sampling.fixed_contexts)

    def refinement_of(self, data: DataKey) -> RefinementSettings | None:
        """The refinement of that name, where it is one."""
        return self.refinements.get(data.name)

    def sampler_at(self, data: DataKey) -> SamplerSettings:
        """The sampler on data of that name, which may tell its own inverse temperature: "code^10"."""
        return replace(self.sampler, nbeta=data.nbeta) if data.nbeta else self.sampler

    def weights_of(self, data: DataKey) -> Mapping[str, float]:
        """The domains behind a data name, with their shares."""
        name = refinement.data if (refinement := self.refinement_of(data)) else data.name
        if not isinstance(name, str):
            return name
        return self.mixture if name == MIXTURE else {name: 1.0}

    def as_dict(self) -> dict[str, Any]:
        """The experiment as JSON-able values."""
        return plain(self)

    def _check_cells(self, steps: set[int]) -> None:
        """The grid is counted before it is made."""
        named = {"heads": self.model.n_layers * self.model.n_heads, "random": self.model.n_layers}
        cells = sum(
            len(block.data) * len(block.checkpoints or steps) * (1 + len(block.evaluate_on)) * sum(named.get(part, 1) for part in block.parts)
            for block in self.sample
        )
        if cells > _MOST_CELLS:
            raise RllcError(f"sample names {cells:,} cells, of which one run takes {_MOST_CELLS:,}.", "Sample fewer parts, data or checkpoints.")

    def _check_refinement(self, name: str, refinement: RefinementSettings, domains: tuple[str, ...] | None) -> None:
        if DataKey.parse(name).name != name:
            raise RllcError(f"The refinement {name!r} names a split, or more.", "Give it a name without / @ and ^.")
        if name in (MIXTURE, *(domains or ())):
            raise RllcError(f"The refinement {name!r} has the name of other data.", "Give it a name of its own.")
        for domain in () if domains is None or refinement.data == MIXTURE else self.weights_of(DataKey(name)):
            if domains is not None and domain not in domains:
                raise RllcError(f"The refinement {name!r} is of {domain!r}, but the corpus has {', '.join(domains)}.", "Name a domain of it.")
        if isinstance(refinement.reference, str):
            if refinement.reference not in self.siblings:
                raise RllcError(
                    f"The refinement {name!r} refers to {refinement.reference!r}, which is no sibling.",
                    f"There are {', '.join(self.siblings)}." if self.siblings else "Give it a table [siblings.<name>], or name a step.",
                )
        elif refinement.refers and refinement.reference not in self.checkpoints():
            raise RllcError(
                f"The refinement {name!r} refers to step {refinement.reference}, of which there is no checkpoint.",
                f"There are {', '.join(map(str, sorted(self.checkpoints())))}.",
            )

    def training_key(self) -> str:
        """Digest of everything that decides the weights, apart from the text itself."""
        if self.imported is not None:
            asked = self.imported
            origin = [asked.source, asked.revision or ("" if asked.file else "step{step}")]
            said = {name: value for name, value in {"file": asked.file, "config": plain(asked.config)}.items() if value}
            return digest.of_json({"imported": origin, "model": self.model.as_dict()} | said)
        return digest.of_json({"mixture": plain(self.mixture), "model": self.model.as_dict(), "training": plain(self.training), "seed": self.seed})


def load(path: Path) -> Experiment:
    """Read an experiment file. Raises RllcError for a missing file, broken TOML, or anything the settings refuse."""
    return parse(read(path), str(path))


def read(path: Path) -> str:
    """The text of an experiment file. Raises RllcError where there is none, or none that can be read."""
    remedy = "Give the path of a TOML file, such as experiments/demo.toml."
    try:
        if not path.is_file():
            raise RllcError(f"There is no experiment file {path}.", remedy)
        if path.stat().st_size > LARGEST_SETTINGS:
            raise RllcError(f"The experiment file {path} has {path.stat().st_size:,} bytes, where some thousands are usual.", remedy)
        return read_text(path)
    except (OSError, ValueError) as error:  # no text, or a name that no file can have
        raise RllcError(f"The experiment file {path} could not be read: {error}.", remedy) from error


def parse(text: str, name: str = "experiment") -> Experiment:
    """Read the text of an experiment file; `name` is what errors call it."""
    try:
        table = parse_toml(text)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and tables within tables without end
        raise RllcError(f"{name} is not valid TOML: {str(error)[:300]}.", "Mend the file.") from error
    model = table.setdefault("model", {})
    if isinstance(model, dict) and isinstance(table.get("corpus"), dict):
        # The vocabulary is said once, where the tokenizer is trained.
        model.setdefault("d_vocab", table["corpus"].get("vocabulary", CorpusSettings.vocabulary))
    return settings_from(Experiment, table)


def preset(name: str) -> str:
    """The text of an experiment that ships with the package: "demo" or "quick"."""
    return (resources.files("rllc") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
