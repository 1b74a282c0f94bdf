from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

import rllc.records.places as places
from rllc.core import files
from rllc.core.errors import RllcError
from rllc.records.compaction import compact
from rllc.records.index import opened
from rllc.records.packing import key_digest
from rllc.records.places import LocalPlace, open_place
from rllc.records.store import DamagedRecordError, Store
from rllc.records.table import frame, stored_frame

from ..s3 import s3_served

ARRAYS = {"losses": np.arange(12.0).reshape(2, 6), "baseline": np.arange(6.0)}


class RenamingFileSystem(LocalFileSystem):
    """A file system whose put is not known to be whole, as of a server behind ssh."""

    protocol = "renaming"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).removeprefix("renaming://"))


def meta(i: int) -> dict[str, Any]:
    return {"step": i, "part": f"0:{i}", "data": "mixture", "evaluated_on": "mixture", "outcome": "ok", "llc": i / 3, "chains": 2}


@pytest.fixture(params=["memory", "renaming", pytest.param("s3", marks=pytest.mark.soak)])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "s3":
        with s3_served(monkeypatch) as bucket:
            yield f"{bucket}/mine"
        return
    if request.param == "renaming":
        fsspec.register_implementation("renaming", RenamingFileSystem, clobber=True)
        yield f"renaming://{tmp_path}/store"
        return
    yield f"memory://{tmp_path.name}"
    MemoryFileSystem.store.clear()


def test_a_store_at_a_url_is_a_store(url: str) -> None:
    """Everything that a folder can: put, find, prolong, list, open as a table, in stores opened one after another."""
    assert list(Store(url).records("sample")) == []
    assert Store(url).kinds() == []
    names = [Store(url).put("sample", {"i": i}, ARRAYS, meta(i)) for i in range(5)]
    Store(url).put("sample", {"i": 0}, ARRAYS, meta(0) | {"llc": 7.0}, segment=1)
    Store(url).put("behaviour", {}, {}, {"step": 1})
    store = Store(url)
    assert store.kinds() == ["behaviour", "sample"]
    assert store.digests("sample") == sorted(names)
    assert store.segments("sample", {"i": 0}) == 2
    np.testing.assert_array_equal(store.get("sample", names[0]).arrays["losses"], np.concatenate([ARRAYS["losses"]] * 2, axis=1))
    assert store.get("sample", {"i": 3}).meta == meta(3)
    assert not store.has("sample", {"i": 9})
    with pytest.raises(KeyError):
        store.get("sample", {"i": 9})
    table = stored_frame(store, "mine")
    assert table.equals(frame(Store(url).records("sample"), "mine"))
    assert table.loc[table.step == 0, "llc"].item() == 7.0
    assert store.check() == ()


def test_what_is_there_at_a_url_is_never_rewritten(url: str) -> None:
    for seconds in (1.0, 2.0):
        Store(url).put("sample", {"i": 1}, ARRAYS, {"seconds": seconds})
    assert Store(url).get("sample", {"i": 1}).meta == {"seconds": 1.0}


def test_a_damaged_record_at_a_url_is_set_aside(url: str) -> None:
    names = [Store(url).put("sample", {"i": i}, ARRAYS, meta(i)) for i in range(2)]
    fs, root = fsspec.url_to_fs(url)
    path = f"{root}/sample/{names[0]}-0.npz"
    fs.pipe_file(path, fs.cat_file(path)[:-30])
    with pytest.raises(DamagedRecordError, match=f"{url}/sample/{names[0]}.*was damaged.*Run the same command again"):
        Store(url).get("sample", names[0])
    store = Store(url)
    assert not store.has("sample", names[0])
    assert fs.ls(f"{root}/damaged", detail=False)[0].endswith(f"sample-{names[0]}-0.npz")
    assert store.kinds() == ["sample"]
    store.put("sample", {"i": 0}, ARRAYS, meta(0))
    fs.pipe_file(path, b"torn again")
    with pytest.raises(DamagedRecordError, match=rf"damaged/sample-{names[0]}-0\.npz\.1\."):
        Store(url).get("sample", names[0])
    assert len(fs.ls(f"{root}/damaged", detail=False)) == 2
    store = Store(url)
    store.put("sample", {"i": 0}, ARRAYS, meta(0))
    assert len(list(store.records("sample"))) == 2


def test_what_a_run_computed_anew_while_a_batch_was_read_stays(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = Store(url).put("sample", {"i": 0}, ARRAYS, meta(0))
    fs, root = fsspec.url_to_fs(url)
    path = f"{root}/sample/{name}-0.npz"
    good = fs.cat_file(path)
    fs.pipe_file(path, b"no record")
    reader = Store(url)
    read_each = reader.place.read_each

    def overtaken(paths: Any) -> Any:
        for read in list(read_each(paths)):
            with pytest.raises(DamagedRecordError):
                Store(url).get("sample", name)
            fs.pipe_file(path, good)
            yield read

    monkeypatch.setattr(reader.place, "read_each", overtaken)
    assert opened(reader, "sample").problems == ()
    assert Store(url).get("sample", name).meta == meta(0)
    assert len(fs.ls(f"{root}/damaged", detail=False)) == 1


def test_a_large_file_is_read_where_it_ends_as_a_record_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "read_regular", lambda path, most=500: files.read_regular(path, most))
    store = Store(tmp_path)
    name = store.put("sample", {"i": 0}, {"losses": np.arange(2000.0)}, meta(0))
    assert Store(tmp_path).get("sample", name).meta == meta(0)
    path = tmp_path / "sample" / f"{name}-0.npz"
    os.truncate(path, path.stat().st_size + 100_000)
    with pytest.raises(OSError, match="where such files have 500 at most"):
        store.place.read(f"sample/{name}-0.npz")
    with pytest.raises(DamagedRecordError, match="was damaged"):
        store.get("sample", name)


def test_whoever_only_looks_sets_nothing_aside(url: str) -> None:
    name = Store(url).put("sample", {"i": 1}, ARRAYS, meta(1))
    fs, root = fsspec.url_to_fs(url)
    fs.pipe_file(f"{root}/sample/{name}-0.npz", b"no record")
    (problem,) = Store(url, sets_aside=False).check()
    assert "rllc doctor --repair" in str(problem)
    assert Store(url).has("sample", name)


def test_a_grid_is_asked_for_by_one_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first questions go one by one, as a worker has them; hundreds cost no request each."""
    asked: list[str] = []
    info, ls = MemoryFileSystem.info, MemoryFileSystem.ls
    monkeypatch.setattr(MemoryFileSystem, "info", lambda self, path: asked.append("info") or info(self, path))
    monkeypatch.setattr(MemoryFileSystem, "ls", lambda self, *a, **k: asked.append("ls") or ls(self, *a, **k))
    writer = Store("memory://grid")
    for i in range(0, 400, 2):
        writer.put("sample", {"i": i}, {}, {})
    asked.clear()
    store = Store("memory://grid")
    assert [store.has("sample", {"i": i}) for i in range(400)] == [i % 2 == 0 for i in range(400)]
    assert asked.count("info") == 32
    assert asked.count("ls") == 1
    store.put("sample", {"i": 1}, {}, {})  # and what it writes itself it knows
    assert store.has("sample", {"i": 1})
    MemoryFileSystem.store.clear()


def test_a_write_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("renaming", RenamingFileSystem, clobber=True)
    store = Store(f"renaming://{tmp_path}/store")
    store.put("sample", {"i": 0}, ARRAYS, {})

    def broken(self: object, source: str, target: str, **kwargs: object) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    with monkeypatch.context() as patch:
        patch.setattr(RenamingFileSystem, "mv", broken)
        with pytest.raises(RllcError, match="could not be written: Connection reset by peer"):
            store.put("sample", {"i": 1}, ARRAYS, {})
    assert len(list((tmp_path / "store" / "sample").iterdir())) == 1
    store.put("sample", {"i": 1}, ARRAYS, {})
    assert len(list(store.records("sample"))) == 2


@pytest.mark.parametrize("call", ["cat_file", "info", "ls"])
def test_whatever_a_cloud_s_library_raises_is_a_sentence(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    class NoCredentialsError(Exception):
        pass

    store = Store("memory://shut")

    def refuse(*args: object, **kwargs: object) -> None:
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(MemoryFileSystem, call, refuse)
    with pytest.raises(RllcError, match="could not be read: NoCredentialsError: Unable to locate credentials"):
        {
            "cat_file": lambda: Store("memory://shut"),
            "info": lambda: store.has("sample", {}),
            "ls": lambda: store.digests("sample"),
        }[call]()


class RememberingFileSystem(MemoryFileSystem):
    """Answers from its last listing, as s3fs does, until it is told that this may be out of date."""

    protocol = "remembering"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    listed: ClassVar[dict[str, Any]] = {}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).removeprefix("remembering://"))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        if path not in self.listed:
            self.listed[path] = super().ls(path, detail=True, **kwargs)
        return self.listed[path] if detail else [entry["name"] for entry in self.listed[path]]

    def info(self, path: str, **kwargs: Any) -> Any:
        path = self._strip_protocol(path)
        folder = path.rpartition("/")[0]
        if folder in self.listed and path not in [entry["name"] for entry in self.listed[folder]]:
            raise FileNotFoundError(path)
        return super().info(path, **kwargs)

    def invalidate_cache(self, path: str | None = None) -> None:  # noqa: ARG002
        self.listed.clear()


def test_a_new_store_sees_what_another_process_has_recorded_since_a_listing() -> None:
    fsspec.register_implementation("remembering", RememberingFileSystem, clobber=True)
    store = Store("remembering://shared")
    store.put("sample", {"i": 0}, ARRAYS, meta(0))
    assert len(store.digests("sample")) == 1
    path = f"/shared/sample/{key_digest('sample', {'i': 1})}-0.npz"
    # written by somebody else, of whom this file system hears nothing
    elsewhere = Store("memory://elsewhere")
    elsewhere.put("sample", {"i": 1}, ARRAYS, meta(1))
    RememberingFileSystem.store[path] = MemoryFileSystem.store.pop(path.replace("/shared", "/elsewhere"))
    RememberingFileSystem.listed.setdefault("/shared/sample", store.place.fs.ls("/shared/sample"))  # type: ignore[attr-defined]
    assert Store("remembering://shared").has("sample", {"i": 1})
    MemoryFileSystem.store.clear()


RECORDS_ONE = """
import sys
from rllc.records.store import Store
Store(sys.argv[1]).put("sample", {"i": 1}, {}, {"step": 1})
"""


@pytest.mark.soak
def test_two_processes_on_s3_see_each_other_s_records(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_served(monkeypatch) as bucket:
        url = f"{bucket}/mine"
        Store(url).put("sample", {"i": 0}, {}, meta(0))
        assert len(Store(url).digests("sample")) == 1
        subprocess.run([sys.executable, "-c", RECORDS_ONE, url], check=True)
        assert Store(url).has("sample", {"i": 1})
        assert Store(url).segments("sample", {"i": 1}) == 1


def test_urls_that_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RllcError, match="'nowhere://x' is no place for records"):
        Store("nowhere://x")

    def missing(url: str, **kwargs: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", missing)
    with pytest.raises(RllcError, match=r"s3://bucket/mine, which needs a package that is not installed: Install s3fs"):
        Store("s3://bucket/mine")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:9/x", "zip:///none.zip", "reference://x", "generic://x"])
def test_a_place_that_cannot_be_reached_is_a_sentence_of_one_line(url: str) -> None:
    with pytest.raises(RllcError, match=r"which cannot be reached: [A-Za-z]+Error: .*Check the address") as told:
        Store(url)
    assert "\n" not in str(told.value)


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    place = open_place(f"file://{tmp_path}/records")
    assert isinstance(place, LocalPlace)
    Store(f"file://{tmp_path}/records").put("sample", {"i": 1}, ARRAYS, {})
    assert Store(tmp_path / "records").has("sample", key_digest("sample", {"i": 1}))


def test_a_copy_for_other_programs_is_made_in_a_folder_alone() -> None:
    store = Store("memory://elsewhere")
    store.put("sample", {"i": 0}, ARRAYS, meta(0))
    with pytest.raises(RllcError, match=r"memory://elsewhere is no folder.*Copy the records"):
        compact(store)
    assert len(opened(store, "sample").stamps) == 1
    MemoryFileSystem.store.clear()
