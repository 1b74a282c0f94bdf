from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rllc.checkpoints.resume import drop_resume, load_resume, save_resume
from rllc.checkpoints.store import list_checkpoints, load, save
from rllc.core.errors import RllcError
from rllc.model.shape import ModelShape
from rllc.training.loop import TrainingState, train
from rllc.training.settings import TrainingSettings


def state(fill: float) -> dict[str, torch.Tensor]:
    return {"params/a": torch.full((3,), fill), "first/a": torch.full((3,), fill / 2)}


def test_the_latest_state_comes_back_and_is_the_only_one(tmp_path):
    assert load_resume(tmp_path) is None
    for step in (10, 20):
        save_resume(tmp_path, state(step), {"step": step, "metrics": {"loss": 0.1}})
    saved = load_resume(tmp_path)
    assert saved is not None
    assert saved.facts == {"step": 20, "metrics": {"loss": 0.1}}
    assert all(torch.equal(saved.tensors[name], tensor) for name, tensor in state(20).items())
    assert len(list(tmp_path.iterdir())) == 2
    drop_resume(tmp_path)
    assert list(tmp_path.iterdir()) == []
    drop_resume(tmp_path)


@pytest.mark.parametrize("at", range(1, 7))
def test_a_kill_at_any_rename_or_flush_leaves_a_whole_state(tmp_path, monkeypatch, at):
    save_resume(tmp_path, state(1), {"step": 1})
    calls = []

    class KillError(BaseException):
        pass

    def counting(real):
        def call(*args):
            calls.append(args)
            if len(calls) == at:
                raise KillError
            return real(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counting(os.fsync))
        patch.setattr(Path, "replace", counting(Path.replace))
        with pytest.raises(KillError):
            save_resume(tmp_path, state(2), {"step": 2})
    saved = load_resume(tmp_path)
    assert saved is not None
    assert saved.tensors["params/a"][0].item() == saved.facts["step"] in (1, 2)
    (tmp_path / ".resume-0.safetensors.abcdefgh.tmp").write_bytes(b"what a power cut leaves")
    save_resume(tmp_path, state(3), {"step": 3})
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_keeps_the_state_before(tmp_path, monkeypatch):
    save_resume(tmp_path, state(1), {"step": 1})

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RllcError, match="The disk is full"):
            save_resume(tmp_path, state(2), {"step": 2})
    saved = load_resume(tmp_path)
    assert saved is not None
    assert saved.facts == {"step": 1}


def test_an_old_file_that_will_not_go_is_told(tmp_path, monkeypatch):
    save_resume(tmp_path, state(1), {"step": 1})

    def refuse(self, missing_ok=False):
        if self.name.startswith("resume-"):
            raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(RllcError, match="may not be written here"):
            save_resume(tmp_path, state(2), {"step": 2})
    saved = load_resume(tmp_path)
    assert saved is not None
    assert saved.facts == {"step": 2}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 9}, "written in format 9"),
        ({"digest": "0"}, r"is damaged: its content is not what was written\. Delete .*resume.json; training then starts from the beginning"),
        ({"file": "../elsewhere.safetensors"}, "does not name the file beside it"),
        ({"file": "gone.safetensors"}, "gone.safetensors is damaged: it is missing"),
        ({"facts": 3}, "does not name the file beside it"),
    ],
)
def test_a_damaged_state_is_told(tmp_path, change, sentence):
    save_resume(tmp_path, state(1), {"step": 1})
    path = tmp_path / "resume.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RllcError, match=sentence):
        load_resume(tmp_path)


def test_training_goes_on_from_disk_bit_for_bit(tmp_path):
    shape = ModelShape(n_layers=1, d_model=8, n_heads=2, d_head=4, d_vocab=9, n_ctx=6)
    recipe = TrainingSettings(steps=8, learning_rate=1e-2)
    batches = np.random.default_rng(0).integers(0, 9, (8, 4, 6))
    for item in train(shape, recipe, batches):
        if item.step == 3:
            cut = item.export()
            save_resume(tmp_path, cut.tensors(), cut.facts())
        whole = item.export() if item.step == 8 else None
    saved = load_resume(tmp_path)
    assert saved is not None
    assert whole is not None
    *_, last = train(shape, recipe, batches, TrainingState.restore(shape, saved.tensors, saved.facts))
    again = last.export()
    assert again.metrics == whole.metrics
    assert all(torch.equal(again.tensors()[name], tensor) for name, tensor in whole.tensors().items())


CHILD = """
import os, signal, sys
from pathlib import Path
import torch
from rllc.checkpoints.resume import save_resume
from rllc.checkpoints.store import save
from rllc.model.forward import init_params
from rllc.model.shape import ModelShape

root = Path(sys.argv[1])
shape = ModelShape(n_layers=1, d_model=8, n_heads=2, d_head=4, d_vocab=9, n_ctx=6)
save(root, 1, shape, init_params(shape, 1))
save_resume(root, {"a": torch.ones(3)}, {"step": 1})
replace = Path.replace

def dying(self, target):
    if self.name == "new":
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)

Path.replace = dying
save(root, 2, shape, init_params(shape, 2))
"""


def test_kill_9_before_the_rename_shows_nothing_half_written(tmp_path):
    root = tmp_path / "run"
    assert subprocess.run([sys.executable, "-c", CHILD, str(root)], check=False).returncode == -signal.SIGKILL
    assert [info.step for info in list_checkpoints(root)] == [1]
    assert [path.name.startswith(".step-00000002.") for path in root.iterdir()].count(True) == 1
    resume = load_resume(root)
    assert resume is not None
    assert resume.facts == {"step": 1}
    shape, params, _ = load(root / "step-00000001")
    save(root, 2, shape, params)
    assert [info.step for info in list_checkpoints(root)] == [1, 2]
    assert [path.name for path in root.iterdir() if path.name.startswith(".")] == []
