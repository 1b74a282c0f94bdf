from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rllc.core.errors import RllcError
from rllc.corpus.hub import given_tokenizer, read_dataset
from rllc.corpus.settings import SourceSettings


class Rows(list):
    """What `load_dataset` gives, as far as it is used."""

    shuffled: dict[str, Any] | None = None

    def shuffle(self, **how: Any) -> Rows:
        rows = Rows(reversed(self))
        Rows.shuffled = how
        return rows


ROWS = Rows({"text": f"Row {i} has text.", "domain": "even" if i % 2 == 0 else None} for i in range(10))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple, dict]]:
    calls: list[tuple[tuple, dict]] = []

    def load_dataset(*given: Any, **named: Any) -> Rows:
        calls.append((given, named))
        if given[0] == "nowhere/nothing":
            raise FileNotFoundError("no such\ndataset")
        return ROWS

    Rows.shuffled = None
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return calls


def source(**more: Any) -> SourceSettings:
    return SourceSettings("huggingface", **{"dataset": "owner/name", "domain": "odd"} | more)


def test_a_whole_dataset_is_read_by_name(asked: list):
    got = list(read_dataset(source(streaming=False, subset="en", split="validation", revision="abc"), 20, seed=3))
    assert got == [("even" if i % 2 == 0 else "odd", f"Row {i} has text.") for i in range(10)]
    assert asked == [(("owner/name", "en"), {"split": "validation", "streaming": False, "revision": "abc"})]
    assert Rows.shuffled is None


def test_a_stream_is_shuffled_and_left_at_the_cap(asked: list):
    assert [text for _, text in read_dataset(source(shuffle_buffer=7), 20, seed=3)] == ["Row 9 has text.", "Row 8 has text."]
    assert Rows.shuffled == {"seed": 3, "buffer_size": 7}
    assert [text for _, text in read_dataset(source(shuffle_buffer=0), 15, seed=3)] == ["Row 0 has text."]
    assert asked[0] == (("owner/name", None), {"split": "train", "streaming": True, "revision": None})


def test_what_goes_wrong_is_told(asked: list, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(RllcError, match=r"'nowhere/nothing' could not be read: no such dataset Check `dataset`"):
        list(read_dataset(source(dataset="nowhere/nothing"), 20, seed=0))
    with pytest.raises(RllcError, match="Row 1 of owner/name has no text in 'body'"):
        list(read_dataset(source(text_column="body"), 20, seed=0))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RllcError, match=r"'owner/name' needs the package datasets.*rllc\[data\]"):
        list(read_dataset(source(), 20, seed=0))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("streaming", [True, False])
def test_the_library_itself_on_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    pytest.importorskip("datasets", reason="the extra `data` is not installed")
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": f"Row {i}.", "meta": {"set": "a" if i % 2 else "b"}}) + "\n" for i in range(20)))
    here = source(dataset=str(folder), domain_column="meta.set", streaming=streaming)
    assert sorted(read_dataset(here, 10_000, seed=0)) == sorted(("a" if i % 2 else "b", f"Row {i}.") for i in range(20))
    with pytest.raises(RllcError, match=r"could not be read: .*valid"):
        list(read_dataset(source(dataset=str(folder), split="valid", streaming=streaming), 10_000, seed=0))


def test_a_tokenizer_that_nobody_has_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RllcError, match=r"The tokenizer of 'owner/name' could not be fetched: .*Check the name and the network"):
        given_tokenizer("owner/name")
    with pytest.raises(RllcError, match=r"There is no tokenizer at .*nowhere/tokenizer\.json"):
        given_tokenizer("nowhere/tokenizer.json")
