"""The checkpoints of a training as a series: where each lies and which step it is; opened one at a time."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rllc.checkpoints.reading import PICKLED, SAFE, step_of
from rllc.core.errors import RllcError

_NUMBER = re.compile(r"\d+")
_STEP = re.compile(r"(?:step|checkpoint|ckpt|iter)[-_ ]?(\d+)")


@dataclass(frozen=True)
class Series:
    """Checkpoints by step, in order; local paths, or revisions of a repository that are fetched when their turn comes.

    Args:
        places: path or revision of each step.
        repository: id of the hub repository; empty for local files.
    """

    places: Mapping[int, str]
    repository: str = ""

    @classmethod
    def of(cls, source: str | Path, steps: Sequence[int] = (), revision: str = "step{step}") -> Series:
        """A series from a folder of checkpoints, a glob, one file or folder, or the id of a hub repository.

        Local steps are read from the number in which the names differ, or else from the files. One that stands alone and tells none is step 0.

        Args:
            source: what exists on this machine is local; otherwise "owner/name" is a repository.
            steps: these alone. A repository needs them.
            revision: what the repository calls a step.

        Raises RllcError where nothing is found, steps are unclear or missing, or two checkpoints claim one step.
        """
        paths = _local(str(source))
        if paths:
            found = _by_step(paths)
            if missing := sorted(set(steps) - set(found)):
                raise RllcError(f"{source} has no checkpoint of step {missing[0]}.", f"It has {', '.join(map(str, sorted(found)))}.")
            return cls({step: str(found[step]) for step in sorted(steps or found)})
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
            raise RllcError(f"There are no checkpoints at {source}.", "Give a folder, a glob, a file, or the id of a hub repository: owner/name.")
        if not steps:
            raise RllcError(
                f"Which checkpoints of {source} are meant?", "Nothing of that name is on this machine; for a hub repository give the steps."
            )
        return cls({step: revision.format(step=step) for step in sorted(steps)}, str(source))

    @property
    def steps(self) -> tuple[int, ...]:
        """All steps, ascending."""
        return tuple(sorted(self.places))

    @property
    def remote(self) -> bool:
        """Whether the checkpoints are fetched."""
        return bool(self.repository)

    def opened(self) -> Iterator[tuple[int, Path]]:
        """Each step with the place of its files, fetched when it is asked for. Raises RllcError as `fetch` does."""
        for step in self.steps:
            yield step, fetch(self.repository, self.places[step]) if self.remote else Path(self.places[step])


def fetch(repository: str, revision: str) -> Path:
    """The folder of a revision in the hub's cache, downloaded where it is not there yet: config, tokenizer, and weights in one format.

    What was begun is taken up; offline mode (HF_HUB_OFFLINE) looks into the cache alone. Raises RllcError where it cannot be had.
    """
    try:
        import huggingface_hub as hub  # an extra; its modules are loaded when they are named
        from huggingface_hub import constants, errors
    except ImportError as error:
        raise RllcError(f"Fetching {repository} needs the huggingface_hub library.", "Run pip install 'rllc[hf]'.") from error
    try:
        if constants.HF_HUB_OFFLINE:
            return Path(hub.snapshot_download(repository, revision=revision, local_files_only=True))
        names = hub.HfApi().list_repo_files(repository, revision=revision)
        weights = "*.safetensors" if any(name.endswith(".safetensors") for name in names) else "*.bin"
        return Path(hub.snapshot_download(repository, revision=revision, allow_patterns=[weights, "*.json", "*.model", "*.txt"]))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise RllcError(f"The hub has no revision {revision!r} of {repository!r} that you may read.", "Check both names, and your login.") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise RllcError(
            f"The revision {revision!r} of {repository!r} is not in the cache, and the hub is not asked.",
            "Unset HF_HUB_OFFLINE, or fetch it elsewhere.",
        ) from error
    except (OSError, errors.HfHubHTTPError) as error:
        raise RllcError(
            f"The revision {revision!r} of {repository!r} could not be fetched: {' '.join(str(error).split())[:300]}", "Check the network; try again."
        ) from error


def pythia_steps() -> tuple[int, ...]:
    """The steps of every Pythia model: 0, powers of two to 512, then every thousand.

    >>> len(pythia_steps())
    154
    """
    return (0, *(2**i for i in range(10)), *range(1_000, 143_001, 1_000))


def _local(source: str) -> list[Path]:
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        if _holds_weights(path):
            return [path]
        return sorted(child for child in path.iterdir() if _is_weights(child) or (child.is_dir() and _holds_weights(child)))
    return sorted(Path(match) for match in glob.glob(source)) if glob.has_magic(source) else []  # noqa: PTH207  # also absolute patterns


def _is_weights(path: Path) -> bool:
    return path.is_file() and path.suffix in (*SAFE, *PICKLED)


def _holds_weights(folder: Path) -> bool:
    """Whether a folder is a checkpoint, and not a folder of some: it says what it is, or has an index of its shards."""
    names = {child.name for child in folder.iterdir() if child.is_file()}
    weights = {name for name in names if Path(name).suffix in (*SAFE, *PICKLED)}
    return bool(names & {"config.json", "checkpoint.json"} and weights) or any(name.endswith(".index.json") for name in names) or len(weights) == 1


def _by_step(paths: Sequence[Path]) -> dict[int, Path]:
    """Steps from the one number in which the names differ, or from what the checkpoints say of themselves."""
    if len(paths) == 1:
        told, named = step_of(paths[0]), _STEP.search(paths[0].name)
        return {told if told is not None else int(named[1]) if named else 0: paths[0]}
    numbers = [_NUMBER.findall(path.stem if path.is_file() else path.name) for path in paths]
    width = {len(found) for found in numbers}
    differing = [i for i in range(min(width)) if len({int(found[i]) for found in numbers}) > 1] if len(width) == 1 else []
    if len(differing) > 1:
        raise RllcError(
            f"The names of the checkpoints differ in several numbers, {paths[0].name} and {paths[-1].name} for example.",
            "Name them so that only the step differs, or give a glob that takes one series.",
        )
    found: dict[int, Path] = {}
    for path, inside in zip(paths, numbers, strict=True):
        step = int(inside[differing[0]]) if differing else step_of(path)
        if step is None:
            raise RllcError(f"Neither its name nor its files tell which step {path} is of.", "Put the step into the name, such as step1000.")
        if step in found:
            raise RllcError(f"{found[step]} and {path} both are of step {step}.", "Leave one of them out.")
        found[step] = path
    return found
