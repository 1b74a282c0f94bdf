"""Checkpoints of one training run in order: where each is, which step it is of, and opening them one at a time."""

from __future__ import annotations

import glob
import itertools
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rllc.checkpoints import fetching
from rllc.checkpoints.reading import holds_weights, read_state, weights_in
from rllc.checkpoints.sources import HUB, HubSource, Source, TransformerLensSource, at, name_of, source_of, step_of, transformer_lens
from rllc.checkpoints.steps import step_of_files, steps_of_names
from rllc.core.errors import RllcError

_WHOLE = re.compile(r"^(config|checkpoint)\.json$|^(model|pytorch_model)\.(safetensors|bin)$|\.index\.json$|-\d+-of-\d+\.\w+$")  # of one checkpoint
_LABELLED = re.compile(r"(step|iter|checkpoint|ckpt)[-_=]?\d", re.IGNORECASE)


@dataclass(frozen=True)
class Series:
    """Checkpoints by step, ascending. Nothing of them is read until one is opened, except where only a file tells its step."""

    points: tuple[tuple[int, Source], ...]

    def __post_init__(self) -> None:
        points = tuple(sorted(self.points, key=lambda point: point[0]))
        if not points:
            raise RllcError("The series holds no checkpoint.", "Name at least one.")
        for (step, source), (following, other) in itertools.pairwise(points):
            if step == following:
                raise RllcError(f"Two checkpoints are of step {step}: {source} and {other}.", "Leave one of them out.")
        object.__setattr__(self, "points", points)

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps, ascending."""
        return tuple(step for step, _ in self.points)

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[tuple[int, Source]]:
        return iter(self.points)

    @classmethod
    def of(cls, source: str, steps: Sequence[int] = (), revision: str = "", file: str = "") -> Series:
        """Whatever a user may call a series: a folder, a glob, one checkpoint, or a repository of the hub; `steps` of it alone, if given.

        One checkpoint that tells no step is of step 0. A repository needs the steps. It keeps each as a revision, by default "step{step}", or as a
        `file` of one revision, by default of the main branch: "checkpoints/checkpoint_{step:07d}.pth"; {step} stands for the number.
        Raises RllcError where there is nothing, where a step is missing or not told, and as the others here do.
        """
        path = Path(source)
        try:
            path.exists()
        except OSError as error:
            raise RllcError(f"{source[:200]!r} names no checkpoints: {error.strerror or error}.", "Give a folder, a glob, or a file.") from error
        if path.is_file() or (path.is_dir() and holds_weights(path)):
            named = steps_of_names([path.name])[0] if _LABELLED.search(path.name) else None  # a name such as gpt2 tells no step
            step = named if named is not None else step_of_files(path)
            found = cls(((step or 0, path),))
        elif path.is_dir():
            found = cls.from_folder(path)
        elif glob.has_magic(source):
            found = cls.from_glob(source)
        elif HUB.match(source) and steps:
            revision = revision or ("" if file else "step{step}")
            return cls(tuple((step, HubSource(source, at(revision, step), at(file, step))) for step in steps))
        elif HUB.match(source):
            raise RllcError(f"There is nothing at {source}, and of a repository of the hub one has to name the steps.", "Give the steps.")
        else:
            raise RllcError(f"There are no checkpoints at {source}.", 'Give a folder, a glob, a file, or a repository of the hub: "owner/name".')
        if missing := sorted(set(steps) - set(found.steps)):
            raise RllcError(f"{source} has no checkpoint of step {missing[0]}.", f"It has {', '.join(map(str, found.steps))}.")
        return cls(tuple(point for point in found.points if not steps or point[0] in steps))

    @property
    def remote(self) -> bool:
        """Whether some of it is fetched from the hub."""
        return any(isinstance(source, HubSource) for _, source in self.points)

    @classmethod
    def from_folder(cls, folder: Path) -> Series:
        """The checkpoints in a folder: subfolders with weights where there are any, else files of weights, else the folder itself.

        A subfolder or file that is named like a checkpoint (`checkpoint-500`) counts even where its weights are missing, so that a download which
        was cut off is told when it is opened. Weights beside subfolders, a trainer's last ones, are left out.
        Raises RllcError where there are none, or where their steps are not told (`from_list`).
        """
        if not folder.is_dir():
            raise RllcError(f"There is no folder {folder}.", "Check the path.")
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        folders = [path for path in inside if path.is_dir() and (_LABELLED.search(path.name) or holds_weights(path))]
        if folders:
            return cls.from_list(folders)
        whole = any(_WHOLE.search(path.name) for path in inside)
        files = [*weights_in(folder), *(path for path in inside if path.suffix == ".incomplete")]
        if not files:
            there = ", ".join(path.name for path in inside[:8]) or "nothing"
            raise RllcError(f"There are no checkpoints in {folder}: it holds {there}.", "Give the folder whose subfolders or files are checkpoints.")
        return cls.from_list([folder] if whole and not any(_LABELLED.search(path.name) for path in files) else files)

    @classmethod
    def from_glob(cls, pattern: str) -> Series:
        """The files and folders that a glob finds (`**` goes deeper). Raises RllcError where it finds none, and as `from_list` does."""
        found = sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207  # absolute patterns, which Path.glob refuses
        if not found:
            raise RllcError(f"Nothing fits {pattern}.", "Check the pattern; quote it in a shell.")
        return cls.from_list(found)

    @classmethod
    def from_list(cls, items: Sequence[str | Source]) -> Series:
        """Checkpoints as paths, sources or names of the hub ("owner/name@revision"). Steps come from their names, else from their files.

        Raises RllcError where a path does not exist, where two are of one step, and where steps are not told or not clearly.
        """
        sources = [source_of(item) for item in items]
        steps = steps_of_names([name_of(source) for source in sources])
        if len(sources) > 1 and len({name_of(source) for source in sources}) == 1 and all(isinstance(source, Path) for source in sources):
            steps = steps_of_names([str(source) for source in sources])  # runs/step10/model.pt: the names are equal, the folders tell
        told = [step if step is not None else step_of(source) for step, source in zip(steps, sources, strict=True)]
        return cls(tuple(zip(told, sources, strict=True)))

    @classmethod
    def from_mapping(cls, sources: Mapping[int, str | Source]) -> Series:
        """Checkpoints whose steps are given. Raises RllcError where a path does not exist."""
        return cls(tuple((step, source_of(item)) for step, item in sources.items()))

    @classmethod
    def from_transformer_lens(cls, model: str, steps: Sequence[int] | None = None) -> Series:
        """The checkpoints of a model that transformer-lens knows, all or those of `steps`; labels count steps or, for some models, tokens.

        Raises RllcError where transformer-lens is not installed, knows no checkpoints of the model, or none of a step.
        """
        try:
            labels, _ = transformer_lens().loading_from_pretrained.get_checkpoint_labels(model)
        except ValueError as error:
            raise RllcError(f"transformer-lens knows no checkpoints of {model!r}: {error}", "Take a model that it lists with checkpoints.") from error
        missing = sorted(set(steps or ()) - set(labels))
        if missing:
            raise RllcError(f"{model} has no checkpoint of {', '.join(map(str, missing))}.", f"Choose of {', '.join(map(str, labels[:20]))}, ….")
        chosen = [(label, index) for index, label in enumerate(labels) if steps is None or label in steps]
        return cls(tuple((label, TransformerLensSource(model, index)) for label, index in chosen))

    def opened(self, keep: int | None = None) -> Iterator[tuple[int, Path]]:
        """Each step with the folder or file of its checkpoint, fetched when its turn comes.

        `keep` is how many downloaded revisions stay in the hub's cache after their use, the latest ones: 0 keeps the disk flat, None removes nothing.
        Files of one revision go together.
        Revisions that were in the cache before are never removed, nor are local files. Leaving the loop early cleans up as well.
        Raises RllcError where one cannot be fetched, and for a checkpoint of transformer-lens, which has no path: `states` reads those too.
        """
        for step, _, path in self._opened(keep):
            if path is None:
                raise RllcError("A checkpoint that transformer-lens loads has no path.", "Iterate over its weights with `states`.")
            yield step, path

    def states(
        self, *, names: Callable[[str], bool] | None = None, dtype: torch.dtype | None = None, keep: int | None = None
    ) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Each step with its weights, as `read_state` reads them; one set of weights is alive at a time.

        The dictionary is emptied when the next step is asked for: copy what must outlive its turn. `keep` is as in `opened`.
        """
        for step, source, path in self._opened(keep):
            if path is not None:
                state = read_state(path, names=names, dtype=dtype)
            else:
                assert isinstance(source, TransformerLensSource)
                state = source.state()
                for name in [name for name in state if names is not None and not names(name)]:
                    del state[name]
                if dtype is not None:
                    state |= {name: tensor.to(dtype) for name, tensor in state.items() if tensor.is_floating_point()}
            yield step, state
            state.clear()  # the caller's loop still holds the dictionary while the next one is read

    def _opened(self, keep: int | None) -> Iterator[tuple[int, Source, Path | None]]:
        """Each point with its path, None where it has none; downloads beyond `keep` are forgotten as the loop goes on."""
        if keep is not None and keep < 0:
            raise RllcError(f"keep is {keep}.", "Give how many downloads stay, 0 or more, or None for all.")
        ours: deque[tuple[HubSource, Path]] = deque()
        try:
            for step, source in self.points:
                if not isinstance(source, HubSource):
                    yield step, source, source if isinstance(source, Path) else None
                    continue
                before = fetching.cached_commits(source.repo, source.cache) if keep is not None else frozenset()
                folder, path = source.fetch()
                if keep is not None and folder.name not in before and all(folder != other for _, other in ours):
                    ours.append((source, folder))
                yield step, source, path
                _forget(ours, keep)
        finally:
            _forget(ours, keep)


def pythia_steps() -> tuple[int, ...]:
    """The steps of which Pythia has revisions, called `step0`, `step1`, and so on.

    >>> steps = pythia_steps()
    >>> len(steps), steps[:4], steps[10:13], steps[-1]
    (154, (0, 1, 2, 4), (512, 1000, 2000), 143000)
    """
    return (0, *(2**i for i in range(10)), *range(1000, 143_001, 1000))


def pythia(model: str = "EleutherAI/pythia-160m", steps: Sequence[int] | None = None) -> Series:
    """A Pythia model of the hub at its steps, all or some. Raises RllcError for a step that Pythia has no revision of.

    >>> [str(source) for _, source in pythia("EleutherAI/pythia-70m", [1000, 0])]
    ['EleutherAI/pythia-70m@step0', 'EleutherAI/pythia-70m@step1000']
    """
    chosen = pythia_steps() if steps is None else steps
    missing = sorted(set(chosen) - set(pythia_steps()))
    if missing:
        raise RllcError(f"Pythia has no checkpoint of step {missing[0]}.", "It has 0, the powers of two up to 512, and each thousand up to 143000.")
    return Series(tuple((step, HubSource(model, f"step{step}")) for step in chosen))


def _forget(ours: deque[tuple[HubSource, Path]], keep: int | None) -> None:
    """Remove the oldest downloads from the hub's cache until `keep` are left."""
    while keep is not None and len(ours) > keep:
        source, path = ours.popleft()
        fetching.forget(path, source.cache)
