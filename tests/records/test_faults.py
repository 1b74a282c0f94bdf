"""The store under faults that are real: killed writers, full and read-only disks, limits, torn and altered files."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rllc
from rllc.core import files
from rllc.core.errors import RllcError
from rllc.core.files import is_leftover, write_atomic
from rllc.records.index import fresh_problems
from rllc.records.store import DamagedRecordError, Store
from rllc.records.table import stored_frame

SOURCES = str(Path(rllc.__file__).parent.parent)
WRITER = """
import sys
import numpy as np
from pathlib import Path
from rllc.records.store import Store
store, start = Store(Path(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
for i in range(start, start + 100_000):
    losses = np.random.default_rng(i).normal(size=(4, 400))
    store.put("sample", {"i": i}, {"losses": losses}, {"step": i, "part": "0:0", "data": "mixture", "outcome": "ok", "llc": float(losses.mean())})
"""


def losses(i: int) -> np.ndarray:
    return np.random.default_rng(i).normal(size=(4, 400))


def put(store: Store, numbers: range) -> None:
    for i in numbers:
        meta = {"step": i, "part": "0:0", "data": "mixture", "outcome": "ok", "llc": float(losses(i).mean())}
        store.put("sample", {"i": i}, {"losses": losses(i)}, meta)


def writer(root: Path, start: int) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": SOURCES}
    return subprocess.Popen([sys.executable, "-c", WRITER, str(root), str(start)], env=environment, stdout=subprocess.PIPE, text=True)


def assert_all_true(root: Path) -> int:
    """Every record that can be seen is whole and holds the numbers of its key; how many there are."""
    records = list(Store(root).records("sample"))
    for record in records:
        np.testing.assert_array_equal(record.arrays["losses"], losses(record.key["i"]))
        assert record.meta["llc"] == float(losses(record.key["i"]).mean())
    return len(records)


def test_two_writers_killed_again_and_again_leave_only_whole_records(tmp_path: Path) -> None:
    """kill -9 at random moments, of two processes at work on the same records at once."""
    rng, seen = random.Random(1), 0
    for turn in range(3):
        processes = [writer(tmp_path, seen), writer(tmp_path, seen)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        time.sleep(0.05 + 0.15 * rng.random())
        for process in processes:
            process.send_signal(signal.SIGKILL)
            assert process.wait(30) == -9
            assert process.stdout is not None
            process.stdout.close()
        before, seen = seen, assert_all_true(tmp_path)
        assert seen > before, f"nothing was written in turn {turn}"
        assert len(stored_frame(Store(tmp_path))) == seen
    assert Store(tmp_path).check() == ()
    others = [path.name for path in (tmp_path / "sample").iterdir() if path.suffix != ".npz"]
    assert all(is_leftover(name) for name in others)


# A small disk of its own: real errors of a real file system, where this user may have one.
DISK = """
set -e
mount -t tmpfs -o size={size} tmpfs {folder}
{python} - <<'PYTHON'
{code}
PYTHON
"""


def on_a_disk(folder: Path, size: str, code: str) -> str:
    """Run `code`, which finds its disk as `disk`, in namespaces of its own; its output. Skips where that is not permitted."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    folder.mkdir()
    prelude = f"from pathlib import Path\nimport sys\nsys.path[:0] = [{SOURCES!r}, {str(Path(__file__).parent)!r}]\ndisk = Path({str(folder)!r})\n"
    prelude += "from rllc.core.errors import RllcError\nfrom rllc.records.store import Store\nfrom rllc.records.table import stored_frame\n"
    script = DISK.format(size=size, folder=folder, python=sys.executable, code=prelude + textwrap.dedent(code))
    done = subprocess.run(["unshare", "-rm", "bash", "-c", script], capture_output=True, text=True, check=False, timeout=120)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no disk of its own is permitted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_disk_that_runs_full_keeps_what_it_has(tmp_path: Path) -> None:
    told = on_a_disk(
        tmp_path / "disk",
        "256k",
        """
        import os
        import numpy as np
        def put(store, i):
            store.put("sample", {"i": i}, {"losses": np.random.default_rng(i).normal(size=(4, 400))}, {"step": i, "part": "0:0", "outcome": "ok"})
        store, n = Store(disk / "records"), 0
        while True:
            try:
                put(store, n)
            except RllcError as error:
                print(error)
                break
            n += 1
        assert n > 3
        assert sorted(r.key["i"] for r in Store(disk / "records").records("sample")) == list(range(n))
        assert all(p.suffix in (".npz", ".json") for p in disk.rglob("*") if p.is_file()), "something was left behind"
        assert len(stored_frame(store)) == n  # whose index finds no room either
        (disk / "records" / "sample" / os.listdir(disk / "records" / "sample")[0]).unlink()
        put(Store(disk / "records"), n)
        print("went on")
        """,
    )
    assert "The disk is full" in told
    assert told.endswith("went on\n")


def test_a_read_only_disk_can_be_looked_at(tmp_path: Path) -> None:
    told = on_a_disk(
        tmp_path / "disk",
        "4m",
        """
        import subprocess
        store = Store(disk)
        for i in range(3):
            store.put("sample", {"i": i}, {}, {"step": i, "part": "0:0", "outcome": "ok"})
        victim = disk / "sample" / f"{store.digests('sample')[0]}-0.npz"
        victim.write_bytes(b"torn")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert len(stored_frame(Store(disk))) == 2
        for problem in Store(disk).check():
            print(problem)
        try:
            Store(disk).put("sample", {"i": 9}, {}, {})
        except RllcError as error:
            print(error)
        assert victim.exists()
        """,
    )
    assert "is damaged and could not be set aside" in told
    assert "may not be written here. Choose a folder that you may write to." in told


def in_a_child(action: Callable[[], None]) -> str:
    """What `action` raises as RllcError in a process of its own, which it may spoil; "" where it raises nothing."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, from Python 3.12 on: the child starts none
        child = os.fork()
    if child == 0:
        try:
            action()
            os.write(write, b"")
        except RllcError as error:
            os.write(write, str(error).encode())
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        told = stream.read().decode()
    os.waitpid(child, 0)
    return told


def test_a_limit_on_the_size_of_files_is_a_sentence(tmp_path: Path) -> None:
    put(Store(tmp_path), range(2))
    before = sorted(tmp_path.rglob("*"))

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        put(Store(tmp_path), range(2, 3))

    assert "would be larger than files may be here" in in_a_child(limited)
    assert sorted(tmp_path.rglob("*")) == before
    assert assert_all_true(tmp_path) == 2


def test_a_folder_of_somebody_else_is_a_sentence() -> None:
    """The superuser may write anywhere: the child becomes nobody first."""
    root = Path(tempfile.mkdtemp())
    try:
        put(Store(root), range(2))
        for path in (root, *root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)

        def as_nobody() -> None:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            store = Store(root)
            assert len(stored_frame(store)) == 2
            put(store, range(2, 3))

        assert "may not be written here. Choose a folder that you may write to." in in_a_child(as_nobody)
        assert assert_all_true(root) == 2
    finally:
        for path in (root, *(path for path in root.rglob("*") if path.is_dir())):
            path.chmod(stat.S_IRWXU)
        shutil.rmtree(root)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells which file a descriptor is of")
def test_what_a_power_loss_can_take_is_on_the_disk_before_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content before the rename, the name after it, and every folder that had to be made."""
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def flushed(descriptor: int) -> None:
        events.append(f"flush {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"content")
    assert events[:2] == [f"flush {tmp_path.name}", "flush a"]
    assert events[2].startswith("flush .file.")
    assert events[3:] == ["rename", "flush b"]
    events.clear()
    write_atomic(path, b"copy", durable=False)
    assert events == ["rename"]


@pytest.mark.parametrize("moment", ["write", "flush", "rename", "flush of the folder"])
def test_no_error_at_any_moment_leaves_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = {"write": (Path, "write_bytes"), "flush": (os, "fsync"), "rename": (Path, "replace"), "flush of the folder": (files, "sync_folder")}
    with monkeypatch.context() as patch:
        patch.setattr(*place[moment], full)
        with pytest.raises(RllcError, match="The disk is full"):
            write_atomic(path, b"new content")
    assert path.read_bytes() == (b"new content" if moment == "flush of the folder" else b"old")
    assert list(tmp_path.iterdir()) == [path]


@settings(max_examples=30)
@given(st.data())
def test_whatever_happens_to_files_is_found_and_computed_anew(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Cut, stretched, altered, emptied, exchanged: what can be read afterwards is what was written, and a second run makes all of it again."""
    root = tmp_path_factory.mktemp("store")
    put(Store(root), range(3))
    if data.draw(st.booleans()):
        stored_frame(Store(root))  # an index that knows them
    paths = sorted((root / "sample").iterdir())
    for path in data.draw(st.lists(st.sampled_from(paths), min_size=1, unique=True)):
        content = bytearray(path.read_bytes())
        what = data.draw(st.sampled_from(["cut", "stretch", "alter", "empty", "exchange", "zeros"]))
        place = data.draw(st.integers(0, len(content) - 1))
        if what == "alter":
            content[place] ^= data.draw(st.integers(1, 255))
        elif what == "zeros":  # as a file system leaves what was never flushed
            content[place:] = bytes(len(content) - place)
        changed = {"cut": content[:place], "stretch": content + content[:place], "empty": b"", "exchange": paths[0].read_bytes()}
        path.write_bytes(changed.get(what, content))
    told = fresh_problems(Store(root))
    assert all(isinstance(problem, DamagedRecordError) for problem in told)
    sound = assert_all_true(root)
    assert sound >= 3 - len(paths)
    assert sound + len(told) >= 3
    put(Store(root), range(3))
    assert assert_all_true(root) == 3
    assert sorted(stored_frame(Store(root))["step"]) == [0, 1, 2]
