"""A run folder with everything in it damaged, one thing at a time: found, named, mended, and computed anew to the same bits."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rllc.core.errors import RllcError
from rllc.core.files import write_atomic
from rllc.records.index import path_of
from rllc.records.packing import pack, unpack
from rllc.runs.doctor import describe, examine
from rllc.runs.layout import RunFolder
from rllc.runs.overview import export_table
from rllc.runs.pipeline import run_experiment
from rllc.runs.shards import Shard
from rllc.runs.status import status_of


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, which says nothing."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


RECORD = f"records/sample/{'0' * 64}-0.npz"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def first(folder: Path, pattern: str) -> Path:
    return sorted(folder.glob(pattern))[0]


def lie(root: Path) -> None:
    """A number that does not follow from its traces, under a digest that is right."""
    path = first(root, "records/sample/*.npz")
    record, segment = unpack(path.read_bytes())
    path.write_bytes(pack("sample", record.key, record.arrays, record.meta | {"llc": 42.0}, segment))


def whitewash(root: Path) -> None:
    """An outcome that does not follow from its traces, under a digest that is right."""
    for path in sorted(root.glob("records/sample/*.npz")):
        record, segment = unpack(path.read_bytes())
        if record.meta["outcome"] == "drifting":
            path.write_bytes(pack("sample", record.key, record.arrays, record.meta | {"outcome": "ok", "reason": "", "torch": "0.0"}, segment))
            return


def nonsense(root: Path) -> None:
    """A record that says what none does, under a digest that is right."""
    path = sorted(root.glob("records/sample/*.npz"))[-1]
    record, segment = unpack(path.read_bytes())
    path.write_bytes(pack("sample", record.key, record.arrays, record.meta | {"outcome": "<b>x"}, segment))


def indexed(root: Path, **new: Any) -> None:
    """An index that says something else, under a digest that is right: columns by name, a text for all rows, None for one that is gone."""
    path = root / "records" / path_of("sample")
    record, _ = unpack(path.read_bytes())
    arrays = {name: array for name, array in record.arrays.items() if name.rpartition("/")[2] not in new}
    texts = json.loads(arrays["texts"].tobytes()) | {name: [json.dumps(text)] for name, text in new.items() if isinstance(text, str)}
    arrays["texts"] = np.frombuffer(json.dumps(texts).encode(), np.uint8)
    arrays |= {f"text/{name}": np.zeros(45, np.int32) for name, text in new.items() if isinstance(text, str)}
    arrays |= {f"number/{name}": values for name, values in new.items() if isinstance(values, np.ndarray)}
    path.write_bytes(pack("index", record.key, arrays, {}, 0))


def gap(root: Path) -> None:
    """A record of which a segment behind the first is left alone."""
    path = sorted(root.glob("records/sample/*.npz"))[-2]
    path.rename(path.with_name(path.name.replace("-0.npz", "-1.npz")))


def leave(root: Path) -> None:
    """What a kill leaves, in every folder."""
    for path in ("table.csv", "corpus/corpus.json", "checkpoints/resume.json", RECORD, "records/compacted/index-sample.npz"):
        (root / path).with_name(f".{Path(path).name}.k3_x9w0q.tmp").write_bytes(b"half")
    (root / "checkpoints" / ".step-00000003.abcdefgh.tmp" / "new").mkdir(parents=True)
    (root / "checkpoints" / "resume-0123456789abcdef.safetensors").write_bytes(b"old")


# what is done to a run, what the doctor says of it, and what he did about it
HARMS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "record cut": (lambda r: cut(first(r, "records/sample/*.npz")), "records/sample/", "computes it anew"),
    "record altered": (lambda r: first(r, "records/behaviour/*.npz").write_bytes(b"x" * 500), "records/behaviour/", "computes it anew"),
    "record that lies": (lie, "contradicts itself, though its digest is right. It says llc 42", "now lies in"),
    "record that calls itself sound": (whitewash, "contradicts itself.* It says outcome 'ok', and its own traces say 'drifting'", "now lies in"),
    "record of nonsense": (nonsense, "it does not say what became of it", "computes it anew"),
    "gap": (gap, "went on from segment 0, which is missing", "What lies behind the gap"),
    "marker": (lambda r: (r / "records" / "store.json").write_text("{"), "store.json does not tell the format", "written again for format 1"),
    "index": (lambda r: cut(r / "records" / path_of("sample")), "index-sample.npz is damaged", "whoever reads next makes it"),
    "compacted": (lambda r: first(r, "records/compacted/*.zarr/zarr.json").write_text("{"), ".zarr is damaged", "It was removed"),
    "weights": (lambda r: cut(r / "checkpoints/step-00000006/weights.safetensors"), "weights.safetensors is damaged", "checkpoints-step-00000006"),
    "checkpoint": (lambda r: (r / "checkpoints/step-00000003/checkpoint.json").write_text(""), "checkpoint.json is damaged", "step-00000003"),
    "origin": (lambda r: cut(r / "checkpoints/training.json"), "does not tell what the checkpoints were trained from", "from provenance.json"),
    "resume": (lambda r: (r / "checkpoints/resume.json").write_text("{}"), "resume.json is damaged", "moved to damaged/checkpoints-resume.json"),
    "corpus": (lambda r: cut(first(r, "corpus/*.tokens.npy")), "corpus.*is damaged", "moved to damaged/corpus"),
    "findings": (lambda r: cut(r / "findings.json"), "stored findings are damaged", "moved to damaged/findings.json"),
    "page": (lambda r: cut(r / "report.html"), "report.html is not whole", "moved to damaged/report.html"),
    "table": (lambda r: (r / "table.csv").write_text(""), "table.csv is not whole", "moved to damaged/table.csv"),
    "provenance": (lambda r: cut(r / "provenance.json"), "provenance.json is damaged", "moved to damaged/provenance.json"),
    "budget": (lambda r: (r / "budget.json").write_text("?"), "budget.json is damaged", "budget was written again from provenance.json"),
    "leftovers": (leave, "7 leftovers of interrupted writes", "They were removed"),
}


def test_a_sound_run_is_called_sound_and_left_alone(finished: Path, copy: Path) -> None:
    for repair in (False, True):
        found = examine(copy, repair)
        assert found.sound
        assert not [finding for _, finding in found.findings if finding.wrong]
        assert "Nothing is wrong" in describe(found)
        assert "45 sample" in describe(found)
        assert contents(copy) == contents(finished)


@pytest.mark.parametrize("name", HARMS)
def test_every_harm_is_found_named_and_mended(copy: Path, name: str) -> None:
    harm, said, done = HARMS[name]
    harm(copy)
    before = contents(copy)
    found = examine(copy)
    assert not found.sound
    (wrong,) = [finding for _, finding in found.findings if finding.wrong]
    assert re.search(said, wrong.what)
    assert "--repair" in wrong.remedy
    assert contents(copy) == before, "looking changed something"
    mended = examine(copy, repair=True)
    assert mended.sound
    (wrong,) = [finding for _, finding in mended.findings if finding.wrong]
    assert done in wrong.mended
    assert examine(copy).sound
    if name != "leftovers" and name not in ("index", "compacted"):
        gone = set(before) - set(contents(copy))
        kept = b"".join(contents(copy)[path] for path in contents(copy) if "damaged/" in path)
        assert all(before[path] in kept for path in gone), "something was deleted"


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({"llc": np.full(45, 777.0)}, "says something else of 45 files than they say: the llc of"),
        ({"llc": None}, "the llc of"),
        ({"step": None}, "is damaged"),
        ({"draws": np.full(45, 7.5)}, "is damaged"),
        ({"outcome": "no such"}, "is damaged"),
        ({"part": "no such"}, "is damaged"),
    ],
)
def test_an_index_with_a_right_digest_is_held_against_its_records(finished: Path, copy: Path, new: dict[str, Any], said: str) -> None:
    indexed(copy, **new)
    (wrong,) = [finding.what for _, finding in examine(copy).findings if finding.wrong]
    assert said in wrong
    status_of(copy)  # of whatever an index says, nobody stumbles over it
    indexed(copy, **new)
    assert examine(copy, repair=True).sound
    assert export_table(copy, "csv") == export_table(finished, "csv")
    assert examine(copy).sound


def test_after_all_of_it_at_once_the_next_run_is_the_run_that_nobody_disturbed(finished: Path, copy: Path, no_pictures: None) -> None:
    (copy / "notes.txt").write_text("mine")
    (copy / "records" / "sample" / "notes.txt").write_text("mine too")
    for name, (harm, _, _) in HARMS.items():
        if name not in ("provenance", "record that lies", "record that calls itself sound"):  # of these there must be something left to read
            harm(copy)
    found = examine(copy, repair=True)
    assert found.sound, describe(found)
    assert "records/sample holds 1 files that are no records" in describe(found).replace(str(copy) + "/", "")
    run_experiment((finished / "experiment.toml").read_text(), copy, "report", None, None, quiet=True)

    def numbers(folder: Path) -> pd.DataFrame:
        return pd.read_csv(io.BytesIO(export_table(folder, "csv"))).drop(columns="seconds")

    pd.testing.assert_frame_equal(numbers(copy), numbers(finished), check_exact=True)
    assert examine(copy).sound
    assert (copy / "notes.txt").read_text() == "mine"
    assert (copy / "records" / "sample" / "notes.txt").read_text() == "mine too"


def test_what_cannot_be_mended_is_said_to_stay(copy: Path) -> None:
    (copy / "experiment.toml").write_text("title = ")
    (copy / "records" / "store.json").write_text('{"format": 99}')
    facts = copy / "checkpoints" / "step-00000000" / "checkpoint.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"format": 99}))
    before = contents(copy)
    found = examine(copy, repair=True)
    assert not found.sound
    assert contents(copy) == before
    text = describe(found)
    assert "is not valid TOML" in text
    assert "format 99 by a newer version" in text
    assert "this version of rllc reads up to format" in text
    assert "3 things are wrong" in text


def test_weights_that_were_exchanged_are_not_those_of_the_run(copy: Path) -> None:
    shutil.rmtree(copy / "checkpoints" / "step-00000006")
    shutil.copytree(copy / "checkpoints" / "step-00000003", copy / "checkpoints" / "step-00000006")
    facts = copy / "checkpoints" / "step-00000006" / "checkpoint.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"step": 6}))
    (wrong,) = [finding for _, finding in examine(copy, repair=True).findings if finding.wrong]
    assert wrong.open
    assert "The weights of step 6 are not those that provenance.json names" in wrong.what


@pytest.mark.parametrize("shard", ["", "2/3"])
def test_a_run_at_work_is_not_disturbed(copy: Path, shard: str) -> None:
    leave(copy)
    with RunFolder(copy).locked(Shard.parse(shard)):
        found = examine(copy)
        assert "A run is at work here" in describe(found)
        assert "leftovers" not in describe(found)
        with pytest.raises(RllcError, match="Another run is at work"):
            examine(copy, repair=True)
    assert not examine(copy).sound


def test_a_sibling_and_what_nobody_named(copy: Path) -> None:
    sibling = copy / "siblings" / "stranger"
    shutil.copytree(copy / "records", sibling / "records")
    cut(first(sibling, "records/sample/*.npz"))
    (sibling / "findings.json").write_text("mine")
    before = contents(sibling)
    found = examine(copy, repair=True)
    assert found.sound
    text = describe(found)
    assert "stranger: The record" in text
    assert "The experiment names no such sibling" in text
    assert contents(sibling) == before


def test_nothing_is_mended_behind_a_link(copy: Path, tmp_path: Path) -> None:
    """Neither in a sibling that is one, named or not, nor in folders of the run that are."""
    mine = tmp_path / "mine"
    for name in ("findings.json", "report.html", "table.csv", "damaged/findings.json", "records/store.json", ".table.csv.abcdefgh.tmp"):
        write_atomic(mine / name, "mine")
    (copy / "siblings").mkdir()
    (copy / "siblings" / "mine").symlink_to(mine)
    before = contents(mine)
    found = examine(copy, repair=True)
    assert found.sound
    assert "mine: " in describe(found)
    (copy / "damaged").symlink_to(mine / "damaged")
    cut(copy / "findings.json")
    text = describe(examine(copy, repair=True))
    assert "damaged is a link, and a run writes nothing where it leads" in text
    assert "It could not be mended" in text
    text = (copy / "experiment.toml").read_text()
    (copy / "experiment.toml").write_text(f"{text}\n[siblings.mine]\nseed = 7\n")
    assert "siblings/mine is a link" in describe(examine(copy, repair=True)).replace("\n", " ")
    assert contents(mine) == before


def test_damage_that_cannot_be_moved_stays_told(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(copy / "findings.json")
    cut(first(copy, "records/sample/*.npz"))

    def refuse(self: Path, target: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", refuse)
    found = examine(copy, repair=True)
    assert not found.sound
    text = describe(found)
    assert text.count("WRONG") == text.count("It could not be mended") == 2
    assert "2 things are wrong" in text


def test_no_run_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "thing.txt").write_text("")
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(RllcError, match="holds no run"):
            examine(folder)


KILLED = """
import os, sys
from pathlib import Path
from rllc.core.files import write_aside
def write(temporary):
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), 9)
write_aside(Path(sys.argv[1]), write)
"""


def test_what_a_kill_really_leaves_is_a_leftover(copy: Path) -> None:
    for path in ("findings.json", RECORD):
        done = subprocess.run([sys.executable, "-c", KILLED, str(copy / path)], check=False)
        assert done.returncode == -9
    assert "2 leftovers" in describe(examine(copy))
    assert "They were removed" in describe(examine(copy, repair=True))
    write_atomic(copy / "notes.tmp", "a user's")
    assert examine(copy).sound
    assert (copy / "notes.tmp").exists()
