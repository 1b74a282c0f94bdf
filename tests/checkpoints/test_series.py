"""Which step is which checkpoint, and that no more than one is opened at a time."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch

from rllc.checkpoints import series as module
from rllc.checkpoints.reading import read_state
from rllc.checkpoints.series import Series, pythia_steps
from rllc.core.errors import RllcError


def put(path: Path, value: float = 0.0) -> Path:
    """A file of weights, or a folder that holds one and a config."""
    if path.suffix == ".safetensors":
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file({"w": torch.full((2,), value)}, path)
    elif path.suffix == ".pt":
        torch.save({"w": torch.full((2,), value), "iter_num": int(value)}, path)
    else:
        put(path / "model.safetensors", value)
        (path / "config.json").write_text("{}")
    return path


@pytest.mark.parametrize("names", [
    ["step0", "step1000", "step512"],
    ["checkpoint-00", "checkpoint-1000", "checkpoint-512"],
    ["gpt2-v3_step_0.safetensors", "gpt2-v3_step_1000.safetensors", "gpt2-v3_step_512.safetensors"],
    ["model 1 iter 0000", "model 1 iter 1000", "model 1 iter 0512"],
])  # fmt: skip
def test_steps_are_the_number_that_differs(tmp_path: Path, names: list[str]) -> None:
    for name, step in zip(names, (0, 1000, 512), strict=True):
        put(tmp_path / name, step)
    (tmp_path / "notes.txt").write_text("no checkpoint")
    found = Series.of(tmp_path)
    assert found.steps == (0, 512, 1000)
    assert not found.remote
    assert {step: read_state(path)["w"][0].item() for step, path in found.opened()} == {0: 0.0, 512: 512.0, 1000: 1000.0}
    assert Series.of(str(tmp_path / "*1000*")).steps == (1000,)
    assert Series.of(tmp_path, steps=(1000, 0)).steps == (0, 1000)
    with pytest.raises(RllcError, match=r"has no checkpoint of step 7\. It has 0, 512, 1000"):
        Series.of(tmp_path, steps=(7,))


def test_where_names_are_silent_the_files_tell(tmp_path: Path) -> None:
    for name, step in (("early.pt", 3), ("late.pt", 90)):
        put(tmp_path / name, step)
    assert Series.of(tmp_path).steps == (3, 90)
    for name, step in (("first", 10), ("second", 20)):
        folder = put(tmp_path / "folders" / name, step)
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    assert Series.of(tmp_path / "folders").steps == (10, 20)
    put(tmp_path / "folders" / "third")
    with pytest.raises(RllcError, match=r"Neither its name nor its files tell which step .*third is of"):
        Series.of(tmp_path / "folders")


def test_one_checkpoint_alone(tmp_path: Path) -> None:
    assert Series.of(put(tmp_path / "gpt2")).steps == (0,)
    assert Series.of(put(tmp_path / "gpt2-step700")).steps == (700,)
    assert Series.of(put(tmp_path / "x.pt", 5)).steps == (5,)


@pytest.mark.parametrize(("names", "sentence"), [
    (["seed1-step10", "seed2-step20"], r"differ in several numbers, seed1-step10 and seed2-step20"),
    (["step10", "step010", "step20"], r"step010 and .*step10 both are of step 10"),
    (["a", "step5"], r"Neither its name nor its files tell which step .*a is of"),
])  # fmt: skip
def test_what_is_unclear_is_asked_back(tmp_path: Path, names: list[str], sentence: str) -> None:
    for name in names:
        put(tmp_path / name)
    with pytest.raises(RllcError, match=sentence):
        Series.of(tmp_path)


def test_what_is_nowhere_is_told(tmp_path: Path) -> None:
    with pytest.raises(RllcError, match=r"There are no checkpoints at .*nowhere"):
        Series.of(tmp_path / "nowhere")
    with pytest.raises(RllcError, match=r"Which checkpoints of some/model are meant\?.* for a hub repository give the steps"):
        Series.of("some/model")


def test_revisions_are_fetched_when_their_turn_comes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(module, "fetch", lambda *which: asked.append(which) or tmp_path)
    series = Series.of("EleutherAI/pythia-14m", steps=(1000, 0), revision="step{step}")
    assert series.remote
    opened = series.opened()
    assert asked == []
    assert next(opened) == (0, tmp_path)
    assert asked == [("EleutherAI/pythia-14m", "step0")]
    assert next(opened) == (1000, tmp_path)
    assert asked[1:] == [("EleutherAI/pythia-14m", "step1000")]


def hub_cache(folder: Path, repository: str, revision: str) -> Path:
    """A cache as the hub's library writes it."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    model = folder / f"models--{repository.replace('/', '--')}"
    put(model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / revision).write_text(commit)
    return model / "snapshots" / commit


def offline(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    real = hub.snapshot_download
    monkeypatch.setattr(hub, "snapshot_download", lambda *args, **options: real(*args, **options, cache_dir=cache))


def test_offline_a_cached_revision_is_used_and_another_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    snapshot = hub_cache(tmp_path, "some/model", "step512")
    offline(monkeypatch, tmp_path)
    assert [(step, path.resolve()) for step, path in Series.of("some/model", steps=(512,)).opened()] == [(512, snapshot.resolve())]
    with pytest.raises(RllcError, match=r"The revision 'step7' of 'some/model' is not in the cache"):
        list(Series.of("some/model", steps=(7,)).opened())


@pytest.mark.parametrize(("files", "wanted"), [
    (["config.json", "model.safetensors", "pytorch_model.bin"], "*.safetensors"),
    (["config.json", "pytorch_model.bin"], "*.bin"),
])  # fmt: skip
def test_only_one_format_of_weights_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: list[str], wanted: str) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked: dict[str, object] = {}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "HfApi", lambda: SimpleNamespace(list_repo_files=lambda *_, **__: files))
    monkeypatch.setattr(hub, "snapshot_download", lambda repository, **options: asked.update(options, repository=repository) or str(tmp_path))
    assert module.fetch("some/model", "step1") == tmp_path
    assert (asked["repository"], asked["revision"]) == ("some/model", "step1")
    assert [p for p in asked["allow_patterns"] if p in ("*.safetensors", "*.bin")] == [wanted]


def test_pythia_s_steps() -> None:
    assert pythia_steps()[:12] == (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
    assert pythia_steps()[-1] == 143_000
