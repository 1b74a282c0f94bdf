from __future__ import annotations

import dataclasses
import gc
import json
import re
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch

from rllc.checkpoints import fetching, series
from rllc.checkpoints.reading import read_state
from rllc.checkpoints.series import Series, pythia, pythia_steps
from rllc.checkpoints.sources import HubSource, TransformerLensSource
from rllc.checkpoints.steps import steps_of_names
from rllc.checkpoints.store import save
from rllc.core.errors import RllcError
from rllc.model.forward import init_params
from rllc.model.shape import ModelShape


def checkpoint(path: Path, value: float = 0.0, **facts: Any) -> Path:
    """Weights at a path: a file by its suffix, else a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"a": torch.full((4,), float(value)), "b": torch.zeros(2)}
    if path.suffix in (".pt", ".pth"):
        torch.save({"model": state, **facts}, path)
    elif path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        checkpoint(path / "model.safetensors", value)
        for name, content in facts.items():
            (path / f"{name}.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    "form",
    [
        "step{}",
        "step-{:08d}",
        "checkpoint-{}",
        "ckpt_{}.pt",
        "iter_{:05d}.safetensors",
        "model-{}",
        "pythia-160m-step{}",
        "epoch={}-step={}",
        "step{}-tokens{}B",
        "{}",
    ],
)
def test_steps_are_read_from_names(tmp_path: Path, form: str):
    steps = (1000, 9, 20, 300)
    for step in steps:
        checkpoint(tmp_path / (form.format(step // 7, step) if form.startswith("epoch") else form.format(step, step // 7)), step)
    found = Series.from_folder(tmp_path)
    assert found.steps == (9, 20, 300, 1000)
    assert [int(read_state(path)["a"][0]) for _, path in found.opened()] == [9, 20, 300, 1000]


def test_a_single_name_and_units():
    assert steps_of_names(["step10"]) == steps_of_names(["v10"]) == [10]
    assert steps_of_names(["ckpt_7_step500"]) == [500]
    assert steps_of_names(["gpt2-v1.5"]) == steps_of_names(["gpt2-run7"]) == steps_of_names(["epoch3"]) == [None]
    assert steps_of_names(["iter-10k", "iter-1.5"]) == [10_000, None]


@pytest.mark.parametrize("names", [["run1-at10", "run2-at20"], ["step1-seed1", "step2-seed2"], ["step5-seed1", "step5-seed2"], ["1-1", "1-2", "2-1"]])
def test_names_with_two_changing_numbers_are_refused(names: list[str]):
    with pytest.raises(RllcError, match=rf"hold 2 numbers of which each may be the step: {names[0]}, {names[1]}.*a glob"):
        steps_of_names(names)


def test_two_checkpoints_of_one_step_are_refused(tmp_path: Path):
    checkpoint(tmp_path / "step5")
    checkpoint(tmp_path / "step-05.pt")
    with pytest.raises(RllcError, match=r"Two checkpoints are of step 5: .*step5 and .*step-05\.pt"):
        Series.from_list([tmp_path / "step5", tmp_path / "step-05.pt"])
    with pytest.raises(RllcError, match="holds no checkpoint"):
        Series(())


def test_files_tell_where_names_do_not(tmp_path: Path):
    nano = checkpoint(tmp_path / "nano" / "ckpt.pt", 1, iter_num=70, model_args={"n_layer": 1})
    hf = checkpoint(tmp_path / "hf", trainer_state={"global_step": 50})
    config = checkpoint(tmp_path / "config", config={"step": 60})
    tensor = checkpoint(tmp_path / "tensor.pt", step=torch.tensor(40.0))
    shape = ModelShape(n_layers=1, d_model=8, n_heads=2, d_head=4, d_vocab=7, n_ctx=5)
    ours = save(tmp_path / "own", 30, shape, init_params(shape, 0)).folder.rename(tmp_path / "ours")
    assert Series.from_list([nano, hf, config, tensor, ours]).points == ((30, ours), (40, tensor), (50, hf), (60, config), (70, nano))
    assert Series.from_folder(tmp_path / "nano").points == ((70, nano),)
    assert Series.from_folder(hf).points == ((50, hf),)
    silent = checkpoint(tmp_path / "final")
    with pytest.raises(RllcError, match=r"Nothing tells the training step of .*final: neither its name nor its files.*mapping"):
        Series.from_list([silent])
    assert Series.from_mapping({7: silent, 3: str(hf)}).points == ((3, hf), (7, silent))


def test_folders_of_trainers(tmp_path: Path):
    checkpoint(tmp_path / "run")  # the last weights beside the checkpoints
    for step in (500, 1000):
        torch.save({}, checkpoint(tmp_path / "run" / f"checkpoint-{step}") / "optimizer.pt")
    (tmp_path / "run" / "logs").mkdir()
    assert Series.from_folder(tmp_path / "run").steps == (500, 1000)
    (tmp_path / "run" / "checkpoint-1500").mkdir()  # a download that never came is told, not passed over
    with pytest.raises(RllcError, match=r"There are no weights in .*checkpoint-1500"):
        list(Series.from_folder(tmp_path / "run").states())
    for i in (1, 2):
        checkpoint(tmp_path / "step8" / f"model-{i:05d}-of-00002.safetensors")
    with pytest.raises(RllcError, match="Two shards hold the tensor a"):
        list(Series.from_mapping({8: tmp_path / "step8"}).states())
    assert Series.from_folder(tmp_path / "step8").points == ((8, tmp_path / "step8"),)
    checkpoint(tmp_path / "files" / "ckpt_1.pt")
    (tmp_path / "files" / "ckpt_2.pt.incomplete").touch()
    with pytest.raises(RllcError, match=r"ckpt_2\.pt\.incomplete is a download that was cut off"):
        list(Series.from_folder(tmp_path / "files").states())


def test_globs_and_lists_and_what_is_not_there(tmp_path: Path):
    for step in (10, 20):
        checkpoint(tmp_path / f"step{step}" / "ckpt.pt")
    assert Series.from_glob(str(tmp_path / "step*" / "ckpt.pt")).steps == (10, 20)
    assert Series.from_glob(str(tmp_path / "**" / "step1*")).steps == (10,)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    for call, sentence in [
        (lambda: Series.from_glob(str(tmp_path / "x*")), "Nothing fits"),
        (lambda: Series.from_folder(tmp_path / "x"), "There is no folder"),
        (lambda: Series.from_folder(tmp_path / "empty"), r"There are no checkpoints in .*: it holds notes\.txt"),
        (lambda: Series.from_list(["no/such/file"]), r"There is no checkpoint at no/such/file"),
        (lambda: Series.from_list([tmp_path / "x"]), r"There is no checkpoint at"),
        (lambda: Series.from_list(["org/name@"]), r"There is no checkpoint at"),
        (lambda: Series.from_list(["org/name"]), "Nothing tells the training step of org/name"),
    ]:
        with pytest.raises(RllcError, match=sentence):
            call()


def test_revisions_of_the_hub():
    found = Series.from_list([f"EleutherAI/pythia-160m@step{step}" for step in (1000, 0, 512)])
    assert found.points == tuple((step, HubSource("EleutherAI/pythia-160m", f"step{step}")) for step in (0, 512, 1000))
    assert len(pythia_steps()) == len(set(pythia_steps())) == 154
    assert pythia("EleutherAI/pythia-70m").steps == pythia_steps()
    with pytest.raises(RllcError, match="no checkpoint of step 3"):
        pythia(steps=[2, 3])


@pytest.mark.parametrize("keep", [None, 0, 1])
def test_files_of_one_revision_are_a_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int | None):
    """As the paper's models lie in the hub: one branch, `checkpoints/*_{step}.pth`."""
    snapshots, most = tmp_path / "models--org--name" / "snapshots", 0

    def fetch(repo: str, revision: str | None, *, patterns: tuple[str, ...], cache: Path) -> Path:
        nonlocal most
        assert (repo, revision, patterns[1:]) == ("org/name", None, ("config.json",))
        step = int(re.fullmatch(r"checkpoints/\*_(\d+)\.pth", patterns[0])[1])
        checkpoint(snapshots / "c0" / "checkpoints" / f"run_{step}.pth", float(step))
        ref = snapshots.parent / "refs" / "main"
        ref.parent.mkdir(exist_ok=True)
        ref.write_text("c0")
        most = max(most, len(list((snapshots / "c0" / "checkpoints").iterdir())))
        return snapshots / "c0"

    monkeypatch.setattr(fetching, "fetch", fetch)
    found = Series.of("org/name", [200, 0, 100], file="checkpoints/*_{step}.pth")
    assert [str(source) for _, source in found][2] == "checkpoints/*_200.pth of org/name"
    placed = Series(tuple((step, dataclasses.replace(source, cache=tmp_path)) for step, source in found))
    assert [(step, path.name, float(read_state(path)["a"][0])) for step, path in placed.opened(keep=keep)] == [
        (step, f"run_{step}.pth", step) for step in (0, 100, 200)
    ]
    assert (most, (snapshots / "c0").exists()) == ((1, False) if keep == 0 else (3, True))


def test_a_file_s_glob_that_fits_several_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a_7.pth", "b_7.pth"):
        checkpoint(tmp_path / name)
    monkeypatch.setattr(fetching, "fetch", lambda *_, **__: tmp_path)
    with pytest.raises(RllcError, match=r"Not one file but 2 of org/name fit \*_7\.pth: a_7\.pth, b_7\.pth\. Name it closer"):
        HubSource("org/name", file="*_7.pth").fetch()


class Hub:
    """A hub whose `org/name@stepN` is the commit `cN`, downloaded into a cache of the hub's own layout; what that held at most is counted."""

    def __init__(self, cache: Path, monkeypatch: pytest.MonkeyPatch, held: tuple[str, ...] = ()) -> None:
        self.cache, self.most = cache, 0
        self.snapshots = cache / "models--org--name" / "snapshots"
        for revision in held:
            self.fetch("org/name", revision)
        monkeypatch.setattr(fetching, "fetch", self.fetch)

    def series(self, *steps: int) -> Series:
        return Series.from_list([HubSource("org/name", f"step{step}", cache=self.cache) for step in steps])

    def held(self) -> list[str]:
        return sorted(path.name for path in self.snapshots.glob("c*"))

    def fetch(self, repo: str, revision: str, **_: Any) -> Path:
        assert repo == "org/name"
        commit = revision.replace("step", "c")
        if commit not in self.held():
            checkpoint(self.snapshots / commit, float(commit[1:]))
            ref = self.snapshots.parent / "refs" / revision
            ref.parent.mkdir(exist_ok=True)
            ref.write_text(commit)
        self.most = max(self.most, len(self.held()))
        return self.snapshots / commit


@pytest.mark.parametrize(("keep", "left", "most"), [(None, ["c1", "c2", "c3", "c4", "c5"], 5), (0, ["c2"], 2), (2, ["c2", "c4", "c5"], 4)])
def test_downloads_are_removed_and_what_was_there_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int | None, left: list[str], most: int
):
    hub = Hub(tmp_path, monkeypatch, held=("step2",))
    found = hub.series(*range(1, 6))
    assert [(step, path.name, path.exists()) for step, path in found.opened(keep=keep)] == [(step, f"c{step}", True) for step in range(1, 6)]
    assert (hub.held(), hub.most) == (left, most)


def test_leaving_the_loop_early_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hub = Hub(tmp_path, monkeypatch)
    opened = hub.series(1, 2).opened(keep=0)
    next(opened)
    assert hub.held() == ["c1"]
    opened.close()
    assert hub.held() == []
    with pytest.raises(RllcError, match="keep is -1"):
        next(hub.series(1).opened(keep=-1))


def test_one_set_of_weights_is_alive_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for step in range(4):
        checkpoint(tmp_path / f"step{step}", step)
    alive: list[weakref.ref] = []
    at_reading: list[int] = []

    def read(path: Path, **how: Any) -> dict[str, torch.Tensor]:
        gc.collect()
        at_reading.append(sum(ref() is not None for ref in alive))
        state = read_state(path, **how)
        alive.extend(weakref.ref(tensor) for tensor in state.values())
        return state

    monkeypatch.setattr(series, "read_state", read)
    seen = []
    for step, state in Series.from_folder(tmp_path).states(names=lambda name: name == "a", dtype=torch.float64):
        seen.append((step, [(name, tensor.dtype, tensor[0].item()) for name, tensor in state.items()]))
    assert seen == [(step, [("a", torch.float64, step)]) for step in range(4)]
    assert at_reading == [0] * 4
    assert len(alive) == 4


@pytest.fixture
def lens(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """A module in the place of transformer-lens; what was loaded is noted."""
    loaded: list[tuple[str, int]] = []

    def from_pretrained_no_processing(name: str, *, checkpoint_index: int) -> Any:
        loaded.append((name, checkpoint_index))
        if name == "broken":
            raise ValueError("no\nsuch")
        return SimpleNamespace(state_dict=lambda: {"blocks.0.attn.W_Q": torch.full((2,), float(checkpoint_index)), "mask": torch.ones(1, dtype=bool)})

    def get_checkpoint_labels(name: str) -> tuple[list[int], str]:
        if name == "plain":
            raise ValueError("Model plain is not checkpointed.")
        return [0, 10, 100], "step"

    module: Any = SimpleNamespace(
        HookedTransformer=SimpleNamespace(from_pretrained_no_processing=from_pretrained_no_processing),
        loading_from_pretrained=SimpleNamespace(get_checkpoint_labels=get_checkpoint_labels),
    )
    monkeypatch.setitem(sys.modules, "transformer_lens", module)
    monkeypatch.setitem(sys.modules, "transformer_lens.loading_from_pretrained", module.loading_from_pretrained)
    return loaded


def test_runs_of_transformer_lens_are_loaded_when_their_turn_comes(lens: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch):
    assert Series.from_transformer_lens("toy").steps == (0, 10, 100)
    found = Series.from_transformer_lens("toy", [100, 10])
    assert found.points == ((10, TransformerLensSource("toy", 1)), (100, TransformerLensSource("toy", 2)))
    assert lens == []
    states = found.states(dtype=torch.float64)
    step, state = next(states)
    assert (step, lens) == (10, [("toy", 1)])
    assert (state["blocks.0.attn.W_Q"].dtype, state["blocks.0.attn.W_Q"][0], state["mask"].dtype) == (torch.float64, 1, torch.bool)
    assert [(step, sorted(state)) for step, state in found.states(names=lambda name: "W_Q" in name)] == [
        (10, ["blocks.0.attn.W_Q"]),
        (100, ["blocks.0.attn.W_Q"]),
    ]
    with pytest.raises(RllcError, match="has no path"):
        next(found.opened())
    with pytest.raises(RllcError, match="checkpoint 0 of broken in transformer-lens could not be loaded: no such"):
        TransformerLensSource("broken", 0).state()
    with pytest.raises(RllcError, match="knows no checkpoints of 'plain'"):
        Series.from_transformer_lens("plain")
    with pytest.raises(RllcError, match=r"toy has no checkpoint of 11\. Choose of 0, 10, 100"):
        Series.from_transformer_lens("toy", [10, 11])
    monkeypatch.setitem(sys.modules, "transformer_lens", None)
    with pytest.raises(RllcError, match=r"need the package transformer-lens.*rllc\[tl\]"):
        Series.from_transformer_lens("toy")


def test_what_a_user_calls_a_series(tmp_path: Path) -> None:
    for step in (0, 512, 1000):
        folder = tmp_path / "run" / f"step{step}"
        folder.mkdir(parents=True)
        safetensors.torch.save_file({"w": torch.full((2,), float(step))}, folder / "model.safetensors")
    run = str(tmp_path / "run")
    assert Series.of(run).steps == Series.of(run + "/step*").steps == (0, 512, 1000)
    assert Series.of(run, steps=(1000, 0)).steps == (0, 1000)
    assert Series.of(run + "/step512").steps == (512,)
    (tmp_path / "run" / "step512").rename(tmp_path / "gpt2")
    assert Series.of(str(tmp_path / "gpt2")).steps == (0,)
    assert not Series.of(run).remote
    with pytest.raises(RllcError, match=r"has no checkpoint of step 7\. It has 0, 1000"):
        Series.of(run, steps=(7,))
    with pytest.raises(RllcError, match=r"There are no checkpoints at .*nowhere"):
        Series.of(str(tmp_path / "nowhere"))
    with pytest.raises(RllcError, match=r"There is nothing at some/model, and of a repository of the hub one has to name the steps"):
        Series.of("some/model")
    hub = Series.of("some/model", steps=(1000, 0), revision="at-{step}")
    assert hub.remote
    assert [str(source) for _, source in hub] == ["some/model@at-0", "some/model@at-1000"]
