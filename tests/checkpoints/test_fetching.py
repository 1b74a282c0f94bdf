from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch

from rllc.checkpoints import fetching
from rllc.checkpoints.fetching import cached_commits, choose, fetch, forget
from rllc.checkpoints.reading import read_config, read_state
from rllc.core.errors import RllcError

huggingface_hub = pytest.importorskip("huggingface_hub", reason="the extra `hf` is not installed")
constants = pytest.importorskip("huggingface_hub.constants")
errors = pytest.importorskip("huggingface_hub.errors")

A, B = "a" * 40, "b" * 40
BOTH = [
    "config.json",
    "model.safetensors",
    "pytorch_model.bin",
    "tokenizer.json",
    "README.md",
    "onnx/model.onnx",
    "flax_model.msgpack",
    "training_args.bin",
]
SHARDS = [f"model-{i:05d}-of-00002.safetensors" for i in (1, 2)]


def in_cache(cache: Path, repo: str, commit: str, ref: str, files: dict[str, bytes], tree: list[str] | None = None) -> Path:
    """A revision in the hub's own layout: blobs, links to them, a ref, and where given the listing of the repository's files."""
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    for folder in (root / "blobs", root / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "refs" / ref).write_text(commit)
    for name, data in files.items():
        blob = root / "blobs" / f"{hash(data) & (2**64 - 1):064x}"
        blob.write_bytes(data)
        (snapshot / name).symlink_to(blob)
    if tree is not None:
        (root / "trees").mkdir(exist_ok=True)
        listing = {name: {"size": 1, "blob_id": "0" * 40} for name in tree}
        (root / "trees" / f"{commit}.json").write_text(json.dumps({"format_version": 1, "files": listing}))
    return snapshot


def weights(value: float) -> bytes:
    return safetensors.torch.save({"a": torch.full((64,), float(value))})


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # what HF_HUB_OFFLINE=1 sets when the library is imported


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("tree", [None, BOTH])
def test_without_network_the_cache_is_taken(tmp_path: Path, tree: list[str] | None):
    files = {"model.safetensors": weights(1), "config.json": b'{"model_type": "gpt2"}', "tokenizer.json": b"{}"}
    snapshot = in_cache(tmp_path, "org/name", A, "step1000", files, tree)
    folder = fetch("org/name", "step1000", cache=tmp_path)
    assert folder.resolve() == snapshot.resolve()
    assert read_state(folder)["a"].tolist() == [1] * 64
    assert read_config(folder) == {"model_type": "gpt2"}
    assert fetch("org/name", A, cache=tmp_path) == folder
    assert fetch("org/name", "step1000", patterns=["*.safetensors"], cache=tmp_path) == folder
    with pytest.raises(RllcError, match=r"No file of org/name@step1000 fits \*\.pth"):
        fetch("org/name", "step1000", patterns=["*.pth"], cache=tmp_path)


@pytest.mark.usefixtures("offline")
def test_what_the_cache_does_not_hold_is_told(tmp_path: Path):
    in_cache(tmp_path, "org/name", A, "main", {"config.json": b"{}"}, BOTH)
    with pytest.raises(RllcError, match=r"org/name@step5 is not in the cache, and the hub cannot be reached\. .*HF_HUB_OFFLINE"):
        fetch("org/name", "step5", cache=tmp_path)
    with pytest.raises(RllcError, match=r"other/name is not in the cache"):
        fetch("other/name", cache=tmp_path)
    with pytest.raises(RllcError, match=r"Of org/name the cache holds a part only"):
        fetch("org/name", cache=tmp_path)
    in_cache(tmp_path, "org/bare", B, "main", {"config.json": b"{}"})
    with pytest.raises(RllcError, match=r"The cached copy of org/bare has no weights at its top: it holds none"):
        fetch("org/bare", cache=tmp_path)
    with pytest.raises(RllcError, match=r"a/b/c is no name of a repository"):
        fetch("a/b/c", cache=tmp_path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A hub with settable files; what it was asked to download is noted."""
    state = SimpleNamespace(names=BOTH, asked=[], error=None)

    def list_repo_files(self: Any, repo: str, *, revision: str | None = None) -> list[str]:
        if state.error:
            raise state.error
        return list(state.names)

    def snapshot_download(repo: str, **how: Any) -> str:
        state.asked.append((repo, how["revision"], how["allow_patterns"]))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", list_repo_files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return state


def test_one_format_is_downloaded(hub: SimpleNamespace, tmp_path: Path):
    fetch("org/name", "v1")
    hub.names = [name for name in BOTH if name != "model.safetensors"]
    fetch("org/name")
    (tmp_path / "x.pth").touch()
    fetch("org/name", patterns=["*.pth"])
    assert hub.asked == [
        ("org/name", "v1", ["model.safetensors", "config.json", "tokenizer.json"]),
        ("org/name", None, ["pytorch_model.bin", "config.json", "tokenizer.json"]),
        ("org/name", None, ["*.pth"]),
    ]


def test_the_choice_of_files():
    indices = ["model.safetensors.index.json", "pytorch_model.bin.index.json"]
    assert choose([*SHARDS, *indices, "pytorch_model-00001-of-00001.bin", "config.json"], "it") == [*SHARDS, indices[0], "config.json"]
    assert choose(["model.safetensors", "model.fp16.safetensors"], "it") == ["model.safetensors"]
    assert choose(["ckpt.pt", "optimizer.pt", "sub/model.safetensors", "sub/config.json"], "it") == ["ckpt.pt"]
    with pytest.raises(RllcError, match=r"it has no weights at its top: it holds sub/x_1\.pth.*patterns="):
        choose(["sub/x_1.pth", "config.json"], "it")
    with pytest.raises(RllcError, match="it holds none that rllc reads"):
        choose(["README.md", "training_args.bin"][:1], "it")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("GatedRepoError", r"org/name@v1 is gated.*hf auth login"),
        ("RepositoryNotFoundError", r"The hub has no repository for org/name@v1, or it is private.*Check the name"),
        ("RevisionNotFoundError", r"org/name@v1 does not exist: the repository has no such revision.*branches"),
    ],
)
def test_the_errors_of_the_hub_are_sentences(hub: SimpleNamespace, kind: str, sentence: str):
    httpx = pytest.importorskip(errors.HTTPError.__module__.partition(".")[0])
    response = httpx.Response(404, request=httpx.Request("GET", "https://hub.invalid"))
    hub.error = getattr(errors, kind)("no", response=response)
    with pytest.raises(RllcError, match=sentence):
        fetch("org/name", "v1")
    assert not hub.asked


def test_a_broken_connection_is_told(hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    httpx = pytest.importorskip(errors.HTTPError.__module__.partition(".")[0])
    hub.error = httpx.ConnectError("no route")

    def broken(*_: Any, **__: Any) -> str:
        raise httpx.ReadTimeout("timed\nout")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    with pytest.raises(RllcError, match=r"org/name could not be fetched: timed out\. Run again"):
        fetch("org/name", cache=tmp_path)


def test_a_revision_is_forgotten_and_what_others_share_stays(tmp_path: Path):
    assert cached_commits("org/name", tmp_path / "nowhere") == frozenset()
    shared = {"config.json": b"{}"}
    first = in_cache(tmp_path, "org/name", A, "step1", shared | {"model.safetensors": weights(1)})
    second = in_cache(tmp_path, "org/name", B, "step2", shared | {"model.safetensors": weights(2)})
    assert cached_commits("org/name", tmp_path) == {A, B}
    assert cached_commits("org/other", tmp_path) == frozenset()
    blobs = len(list((tmp_path / "models--org--name" / "blobs").iterdir()))
    assert forget(first, tmp_path) == len(weights(1))
    assert cached_commits("org/name", tmp_path) == {B}
    assert len(list((tmp_path / "models--org--name" / "blobs").iterdir())) == blobs - 1
    assert read_config(second) == {}
    assert read_state(second)["a"][0] == 2


def test_names():
    assert fetching.name_of("org/name", "v1") == "org/name@v1"
