"""Any fault in any file of a run, met by any verb: an exit code and a sentence, nothing written elsewhere; and mended, the undisturbed run again."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from rllc.core.exit_codes import ExitCode
from rllc.main import main
from rllc.runs.pipeline import run_experiment

from ..runs.conftest import experiment_text
from .bounds import bounded, examples
from .hostile import values

ONE_CELL = ["--part", "1:0", "--data", "mixture"]
# What each verb is called with; RUN is the folder, FILE its experiment.
VERBS = {
    "status": ["RUN"],
    "status, all of it": ["RUN", "--json"],
    "plan": ["FILE", "--out", "RUN"],
    "table": ["RUN", "--format", "csv"],
    "compare": ["RUN", "--across", "part", "--data", "mixture", "--step", "12"],
    "explain": ["RUN", *ONE_CELL, "--step", "12"],
    "doctor": ["RUN"],
    "doctor, mending": ["RUN", "--repair"],
    "verify": ["RUN", "--cells", "1"],
    "train": ["FILE", "--out", "RUN"],
    "sample": ["FILE", "--out", "RUN"],
    "measure": ["FILE", "--out", "RUN"],
    "analyse": ["FILE", "--out", "RUN"],
    "report": ["RUN"],
    "run": ["FILE", "--out", "RUN"],
}
Fault = Callable[[Path], object]


def called(verb: str, folder: Path) -> tuple[int, str, str]:
    """A verb in this process: its exit code and what it printed."""
    words = {"RUN": str(folder), "FILE": str(folder.parent / "experiment.toml")}
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([verb.partition(",")[0], *(words.get(word, word) for word in VERBS[verb])])
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, *(stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]


@pytest.fixture(scope="module", autouse=True)
def _without_pictures() -> Iterator[None]:
    """A page without its figures as files, which take longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rllc.runs.reporting.write_all", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, _without_pictures: None) -> Path:
    """A finished tiny run in a folder with its text and its experiment."""
    home = tmp_path_factory.mktemp("sound")
    text = experiment_text(home)
    (home / "experiment.toml").write_text(text)
    (home / "secret").write_text("nobody's business")
    run_experiment(text, home / "run", "report", None, None, quiet=True)
    return home


def copied(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder again: the run is a copy, the text the same."""
    home = tmp_path_factory.mktemp("copy")
    for name in ("run", "text"):
        shutil.copytree(sound / name, home / name)
    for name in ("experiment.toml", "secret"):
        shutil.copy2(sound / name, home / name)
    return home


def files_of(run: Path) -> list[Path]:
    """Every file but locks, in an order that does not depend on the disk."""
    return sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file() and not path.name.startswith(".lock"))


def kinds_of(run: Path) -> list[list[Path]]:
    """The files by what they are, so that the many records are not all that is ever drawn."""
    kinds: dict[tuple[str, str], list[Path]] = {}
    for path in files_of(run):
        kinds.setdefault((path.parts[0], "".join(path.suffixes[-2:])), []).append(path)
    return list(kinds.values())


def outside(home: Path) -> dict[str, bytes]:
    """What lies beside the run; the name of a link to nowhere else counts as nothing."""
    return {str(path): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file() and "run" not in path.relative_to(home).parts[:1]}


def put_in(tree: Any, where: list[int], value: Any) -> Any:
    """A JSON tree with a value at a place that the numbers lead to."""
    if not where or not isinstance(tree, dict | list) or not tree:
        return value
    if isinstance(tree, dict):
        name = sorted(tree)[where[0] % len(tree)]
        return {**tree, name: put_in(tree[name], where[1:], value)}
    index = where[0] % len(tree)
    return [*tree[:index], put_in(tree[index], where[1:], value), *tree[index + 1 :]]


def other_bytes(path: Path, changes: list[tuple[int, int]]) -> None:
    content = bytearray(path.read_bytes())
    for place, byte in changes:
        if content:
            content[place % len(content)] = byte
    path.write_bytes(content)


def instead(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink()
    make(path)


@st.composite
def faults(draw: st.DrawFn, run: Path) -> tuple[Path, str, Fault]:
    """A file of a run, the name of a fault, and the fault."""
    path = draw(st.sampled_from(draw(st.sampled_from(kinds_of(run)))))
    changes = draw(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 255)), min_size=1, max_size=4))
    number = draw(st.integers(0, 5000))
    other = (run / draw(st.sampled_from(files_of(run)))).read_bytes()
    kinds: dict[str, Fault] = {
        "changed": lambda p: other_bytes(p, changes),
        "cut": lambda p: os.truncate(p, min(number, p.stat().st_size)),
        "longer": lambda p: p.write_bytes(p.read_bytes() + bytes(number)),
        "empty": lambda p: os.truncate(p, 0),
        "gone": lambda p: p.unlink(),
        "another file": lambda p: p.write_bytes(other),
        "a folder": lambda p: instead(p, lambda q: q.mkdir()),
        "a pipe": lambda p: instead(p, os.mkfifo),
        "a link elsewhere": lambda p: instead(p, lambda q: q.symlink_to(run_home(p) / "secret")),
        "a link to itself": lambda p: instead(p, lambda q: q.symlink_to(q)),
        "a link to zeros": lambda p: instead(p, lambda q: q.symlink_to("/dev/zero")),
    }
    if path.suffix == ".json":
        where, value = draw(st.lists(st.integers(0, 50), max_size=6)), draw(values)
        kinds["another value"] = lambda p: p.write_text(json.dumps(put_in(json.loads(p.read_text()), where, value)))
    name = draw(st.sampled_from(sorted(kinds)))
    return path, name, kinds[name]


def run_home(path: Path) -> Path:
    """The folder that a path's run is in."""
    return next(parent for parent in path.parents if (parent / "secret").exists())


@examples(12)
@given(st.data())
def test_any_verb_meets_any_fault(sound: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path, name, fault = data.draw(faults(sound / "run"))
    verb = data.draw(st.sampled_from(sorted(VERBS)))
    event(f"{verb} met {name}")
    home = copied(sound, tmp_path_factory)
    fault(home / "run" / path)
    before = outside(home)
    with bounded(120, 800):
        code, _, said = called(verb, home / "run")
    event(f"exit code {code}")
    assert code in (ExitCode.DONE, ExitCode.FOUND, ExitCode.MISTAKE), f"{verb} met {path} {name}: {said}"
    assert "Traceback" not in said, said
    if code == ExitCode.MISTAKE:
        assert said.strip(), "ended without a word"
    assert outside(home) == before
    shutil.rmtree(home)


def may_be_linked(path: Path) -> bool:
    """A user's folder on another disk, or a checkpoint, which is only read: what is in it is the run's."""
    return path.parts[0] in ("corpus", "checkpoints") or path.parts == ("records",)


@examples(6)
@given(st.data())
def test_any_verb_meets_a_linked_folder(sound: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """In the place of a folder that a run makes lies a link to one of somebody's, with the same in it, whole or damaged, and a precious copy."""
    run = sound / "run"
    folders = sorted(path.relative_to(run) for pattern in ("*", "records/*") for path in run.glob(pattern) if path.is_dir())
    made = [Path(name) for name in ("damaged", "figures", "calibration", "live", "records/damaged", "siblings/theirs")]
    path = data.draw(st.sampled_from([*(path for path in folders if not may_be_linked(path)), *made]))
    verb, torn = data.draw(st.sampled_from(sorted(VERBS))), data.draw(st.booleans())
    event(f"{verb} met {path} elsewhere")
    home = copied(sound, tmp_path_factory)
    link, mine = home / "run" / path, home / "mine"
    link.parent.mkdir(exist_ok=True)
    if link.is_dir():
        link.rename(mine)
    else:
        shutil.copytree(run, mine)
    for file in [file for file in sorted(mine.rglob("*")) if torn and file.is_file()]:
        file.write_bytes(b"torn")
    (mine / "precious.zarr").mkdir()
    (mine / "precious.zarr" / "zarr.json").write_text("mine")
    link.symlink_to(mine)
    before = outside(home)
    with bounded(120, 800):
        code, _, said = called(verb, home / "run")
    assert code in (ExitCode.DONE, ExitCode.FOUND, ExitCode.MISTAKE), f"{verb} met {path} elsewhere: {said}"
    assert "Traceback" not in said, said
    assert outside(home) == before
    shutil.rmtree(home)


@examples(3)
@given(st.data())
def test_mended_it_is_the_undisturbed_run_or_refused(sound: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path, name, fault = data.draw(faults(sound / "run"))
    event(f"{path.parts[0]}: {name}")
    home = copied(sound, tmp_path_factory)
    fault(home / "run" / path)
    with bounded(240, 800):
        mended, _, found = called("doctor, mending", home / "run")
        code, _, said = called("run", home / "run")
        table = called("table", home / "run")
    event(f"exit codes {mended} and {code}")
    assert mended in (ExitCode.DONE, ExitCode.FOUND, ExitCode.MISTAKE), found
    assert code in (ExitCode.DONE, ExitCode.MISTAKE), f"{path} {name}: {said}"
    if code == ExitCode.DONE:
        assert table[:2] == called("table", sound / "run")[:2], f"{path} {name}"
    else:
        assert said.strip()
    shutil.rmtree(home)
