"""Where one checkpoint comes from: a path, the hub, or transformer-lens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rllc.checkpoints import fetching
from rllc.checkpoints.steps import step_of_files
from rllc.core.errors import RllcError

HUB = re.compile(r"^[\w.-]+/[\w.-]+$")
STEP = re.compile(r"\{step(?::(0?\d*d))?\}")


@dataclass(frozen=True)
class HubSource:
    """A checkpoint in the hub: a repository at a revision, or one file of it (`fetching.fetch`)."""

    repo: str
    revision: str | None = None
    file: str | None = None  # the file that alone is the checkpoint, perhaps a glob that fits no other; by default the weights at the top
    cache: Path | None = None  # the hub's cache; the usual place by default

    def __str__(self) -> str:
        name = fetching.name_of(self.repo, self.revision)
        return name if self.file is None else f"{self.file} of {name}"

    def fetch(self) -> tuple[Path, Path]:
        """The revision's folder in the cache, and the checkpoint there: the folder itself or the file; downloaded where needed.

        Raises RllcError as `fetching.fetch` does, and where the glob fits several files.
        """
        folder = fetching.fetch(self.repo, self.revision, patterns=None if self.file is None else (self.file, "config.json"), cache=self.cache)
        if self.file is None:
            return folder, folder
        found = sorted(folder.glob(self.file))
        if len(found) != 1:
            names = ", ".join(str(path.relative_to(folder)) for path in found[:5]) or "none"
            raise RllcError(
                f"Not one file but {len(found)} of {fetching.name_of(self.repo, self.revision)} fit {self.file}: {names}.", "Name it closer."
            )
        return folder, found[0]


@dataclass(frozen=True)
class TransformerLensSource:
    """A checkpoint that transformer-lens knows by number: it alone holds the table of labels, so it is asked, when the weights are wanted."""

    model: str
    index: int

    def __str__(self) -> str:
        return f"checkpoint {self.index} of {self.model} in transformer-lens"

    def state(self) -> dict[str, Tensor]:
        """The weights as transformer-lens names them, without its processing of them. Raises RllcError where it is not installed or refuses."""
        try:
            model = transformer_lens().HookedTransformer.from_pretrained_no_processing(self.model, checkpoint_index=self.index)
        except (OSError, ValueError, IndexError) as error:
            raise RllcError(
                f"{self} could not be loaded: {' '.join(str(error).split())[:200]}.", "Check the model's name and the network."
            ) from error
        return dict(model.state_dict())


Source = Path | HubSource | TransformerLensSource


def at(name: str, step: int) -> str | None:
    """A name with the number of a step in it, with zeros in front where a width is asked for; None where there is no name.

    >>> at("checkpoints/checkpoint_{step:07d}.pth", 500), at("step{step}", 500), at("", 500)
    ('checkpoints/checkpoint_0000500.pth', 'step500', None)
    """
    return STEP.sub(lambda found: format(step, found[1] or "d"), name) or None


def source_of(item: str | Source) -> Source:
    """A path, or a name of the hub where there is no such path."""
    if not isinstance(item, str | Path):
        return item
    if Path(item).exists() or Path(item).is_symlink():
        return Path(item)
    repo, at, revision = str(item).partition("@")
    if isinstance(item, str) and HUB.match(repo) and bool(at) == bool(revision):
        return HubSource(repo, revision or None)
    raise RllcError(f"There is no checkpoint at {item}.", 'Give a path that exists, or a name of the hub: "owner/name@revision".')


def name_of(source: Source) -> str:
    """What may tell the step of a source."""
    if isinstance(source, Path):
        return source.name
    return str(source.index) if isinstance(source, TransformerLensSource) else source.revision or source.repo


def step_of(source: Source) -> int:
    """The step that a source's files tell. Raises RllcError where they do not."""
    step = step_of_files(source) if isinstance(source, Path) else None
    if step is None:
        raise RllcError(f"Nothing tells the training step of {source}: neither its name nor its files.", "Give a mapping from steps to checkpoints.")
    return step


def transformer_lens() -> Any:
    """The module, an extra that is slow to import."""
    try:
        import transformer_lens  # pyright: ignore[reportMissingImports]
        import transformer_lens.loading_from_pretrained  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise RllcError("Checkpoints by number need the package transformer-lens.", 'Install it: pip install "rllc[tl]".') from error
    return transformer_lens
