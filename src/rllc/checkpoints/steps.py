"""Which training step a checkpoint is of: from its name beside the names of its series, else from what its files say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rllc.checkpoints.reading import read_facts, read_object
from rllc.core.errors import RllcError

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([kKmMbB](?![A-Za-z]))?", re.ASCII)
_DIGITS = 18  # of a step; longer numbers are digests or dates with all their parts
_STEP_WORDS = ("step", "steps", "iter", "iters", "iteration", "checkpoint", "ckpt", "update", "updates", "batch", "it")
_BESIDE_WORDS = ("epoch", "epochs", "ep", "token", "tokens", "loss", "acc", "ppl", "perplexity")  # numbers that go along with the step
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}
_KEYS = ("iter_num", "global_step", "step", "iteration", "iter")


@dataclass(frozen=True)
class _Number:
    """A number in a name: the word before it, its value (None where it is no whole number), and how often numbers came before it."""

    word: str
    value: int | None
    text: str


def steps_of_names(names: Sequence[str]) -> list[int | None]:
    """The step that each name of a series tells, None where it tells none.

    The step is the number after a word such as step, iter, checkpoint or ckpt; without such a word it is the one number in which the names differ,
    or the only number of a name. Numbers of epochs, tokens and losses may change along with it.
    Raises RllcError where two numbers change and nothing tells which of them is the step.

    >>> steps_of_names(["pythia-160m-step1000", "pythia-160m-step2000", "final"])
    [1000, 2000, None]
    >>> steps_of_names(["ckpt_500.pt", "ckpt_1k.pt"]), steps_of_names(["model-00010", "model-00020"])
    ([500, 1000], [10, 20])
    """
    found = [_numbers(name) for name in names]
    forms = [_form(name) for name in names]
    steps: list[int | None] = []
    for form, numbers in zip(forms, found, strict=True):
        alike = [others for other, others in zip(forms, found, strict=True) if other == form]
        changing = [i for i in range(len(numbers)) if len({others[i].text for others in alike}) > 1 and numbers[i].word not in _BESIDE_WORDS]
        labelled = [i for i, number in enumerate(numbers) if number.word in _STEP_WORDS]
        labelled = [i for i in labelled if i in changing] or sorted(labelled, key=lambda i: _STEP_WORDS.index(numbers[i].word))[:1]
        if len({*changing, *labelled}) > 1 and changing:
            examples = ", ".join([name for name, other in zip(names, forms, strict=True) if other == form][:3])
            raise RllcError(
                f"The names of the checkpoints hold {len({*changing, *labelled})} numbers of which each may be the step: {examples}.",
                "Choose one run by a glob, or give a mapping from steps to checkpoints.",
            )
        place = labelled or changing or ([0] if len(numbers) == 1 and numbers[0].word not in _BESIDE_WORDS else [])
        steps.append(numbers[place[0]].value if place else None)
    return steps


def step_of_files(path: Path) -> int | None:
    """The step that a checkpoint's own files tell: `trainer_state.json`, our `checkpoint.json`, or the torch file; None where none does.

    Raises RllcError where a file is damaged.
    """
    if path.is_dir():
        for name, key in (("trainer_state.json", "global_step"), ("checkpoint.json", "step")):
            if (path / name).exists() and (step := _whole(read_object(path / name).get(key))) is not None:
                return step
    facts = read_facts(path)
    told = next((step for key in _KEYS if (step := _whole(facts.get(key))) is not None), None)
    if told is None and path.is_dir() and (path / "config.json").exists():
        config = read_object(path / "config.json")
        told = next((step for key in _KEYS if (step := _whole(config.get(key))) is not None), None)
    return told


def _numbers(name: str) -> list[_Number]:
    """The numbers of a name, in order, with the word before each."""
    numbers = []
    for match in _NUMBER.finditer(name):
        word = re.search(r"([A-Za-z]+)[-_=. ]*$", name[: match.start()])
        value = int(match[1]) * _UNITS[(match[2] or "").lower()] if match[1].isdigit() and len(match[1]) <= _DIGITS else None
        numbers.append(_Number(word[1].lower() if word else "", value, match[0]))
    return numbers


def _form(name: str) -> str:
    """A name without its numbers: those of one series have it in common."""
    return _NUMBER.sub("#", name)


def _whole(value: Any) -> int | None:
    """A step as a file holds it: a number, or a tensor of one; None otherwise."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**63 or value != int(value):
        return None  # infinity and NaN too
    return int(value)
