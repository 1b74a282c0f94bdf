from __future__ import annotations

import errno
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from rllc.checkpoints.store import CheckpointInfo, checkpoint_name, digest, list_checkpoints, load, read_info, release, save
from rllc.core.errors import RllcError
from rllc.model.forward import init_params
from rllc.model.shape import ModelShape

SHAPE = ModelShape(n_layers=1, d_model=8, n_heads=2, d_head=4, d_vocab=7, n_ctx=5)


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def equal(a, b) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def params():
    return init_params(SHAPE, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_was_saved_is_loaded(tmp_path, dtype):
    params = init_params(SHAPE, 0, dtype)
    saved = save(tmp_path / "run", 100, SHAPE, params, {"loss": 3.25, "icl": math.nan})
    shape, loaded, info = load(tmp_path / "run" / "step-00000100", SHAPE)
    assert shape == SHAPE
    assert equal(loaded, params)
    assert (info.step, info.digest, info.dtype) == (100, digest(params), str(dtype).removeprefix("torch."))
    assert info.metrics == pytest.approx({"loss": 3.25, "icl": math.nan}, nan_ok=True)
    assert saved == replace(info, metrics=saved.metrics)


def test_a_folder_holds_two_files_of_which_one_is_read_by_people(tmp_path, params):
    save(tmp_path, 3, SHAPE, params, {"loss": 1.5})
    assert sorted(content(tmp_path)) == ["step-00000003/checkpoint.json", "step-00000003/weights.safetensors"]
    facts = json.loads((tmp_path / "step-00000003" / "checkpoint.json").read_text())
    assert facts == {
        "format": 1,
        "step": 3,
        "digest": digest(params),
        "dtype": "float32",
        "metrics": {"loss": 1.5},
        "shape": SHAPE.as_dict(),
    }


def test_checkpoints_are_listed_by_step_and_nothing_else_is(tmp_path, params):
    for step in (200, 0, 100_000_000, 30):
        save(tmp_path, step, SHAPE, params)
    (tmp_path / "notes").mkdir()
    (tmp_path / ".step-00000007.abc.tmp").mkdir()
    (tmp_path / "step-00000008").write_text("a file")
    listed = list_checkpoints(tmp_path)
    assert [info.step for info in listed] == [0, 30, 200, 100_000_000]
    assert listed[2] == read_info(tmp_path / checkpoint_name(200))
    assert list_checkpoints(tmp_path / "elsewhere") == ()


def test_the_digest_is_of_names_types_shapes_and_numbers(params):
    name = "blocks.0.attn.W_Q"
    seen = {digest(params)}
    seen.add(digest(params | {name: params[name].double()}))
    seen.add(digest(params | {name: params[name].mT}))
    seen.add(digest(params | {name: params[name] + 1e-6}))
    seen.add(digest({n + "x" if n == name else n: t for n, t in params.items()}))
    assert len(seen) == 5
    assert digest(dict(reversed(params.items()))) in seen
    assert digest(params | {name: params[name].mT.contiguous().mT.requires_grad_()}) == digest(params)


def test_saving_the_same_again_touches_nothing(tmp_path, params):
    save(tmp_path, 3, SHAPE, params)
    weights = tmp_path / "step-00000003" / "weights.safetensors"
    before = weights.stat().st_ino
    save(tmp_path, 3, SHAPE, {n: p.clone() for n, p in params.items()})
    assert weights.stat().st_ino == before


@pytest.mark.parametrize("spoil", [lambda _: None, lambda folder: (folder / "weights.safetensors").write_bytes(b"short")])
def test_a_step_made_anew_replaces_the_old_or_damaged_one(tmp_path, params, spoil):
    save(tmp_path, 3, SHAPE, init_params(SHAPE, 1))
    spoil(tmp_path / "step-00000003")
    save(tmp_path, 3, SHAPE, params)
    assert equal(load(tmp_path / "step-00000003")[1], params)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003"]


def test_what_a_kill_left_aside_is_swept_by_the_same_step(tmp_path, params):
    (tmp_path / ".step-00000003.abcdefgh.tmp" / "new").mkdir(parents=True)
    (tmp_path / ".step-00000004.abcdefgh.tmp").mkdir()
    save(tmp_path, 3, SHAPE, params)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".step-00000004.abcdefgh.tmp", "step-00000003"]


@pytest.mark.parametrize("fail_at", [1, 2])
def test_a_full_disk_leaves_the_earlier_checkpoints_alone(tmp_path, params, monkeypatch, fail_at):
    save(tmp_path, 100, SHAPE, params)
    before = content(tmp_path)
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) == fail_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RllcError, match=r"The disk is full: .* could not be written\. Free some space and run the same command again"):
        save(tmp_path, 200, SHAPE, params)
    assert content(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000100"]


def test_a_refused_rename_brings_the_old_checkpoint_back(tmp_path, params, monkeypatch):
    save(tmp_path, 3, SHAPE, params)
    before = content(tmp_path)
    rename = Path.replace

    def refuse(self, target):
        if self.name == "new":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RllcError, match="The disk is full"):
        save(tmp_path, 3, SHAPE, init_params(SHAPE, 1))
    assert content(tmp_path) == before


def test_a_place_where_no_folder_can_be_is_told(tmp_path, params):
    (tmp_path / "file").write_text("")
    with pytest.raises(RllcError, match="could not be written"):
        save(tmp_path / "file", 3, SHAPE, params)


def test_another_shape_than_expected_is_told(tmp_path, params):
    save(tmp_path, 3, SHAPE, params)
    with pytest.raises(RllcError, match="of another shape than expected: n_heads is 2, not 4, positions is shortformer, not rotary"):
        load(tmp_path / "step-00000003", replace(SHAPE, n_heads=4, positions="rotary"))


def test_weights_that_do_not_fit_their_shape_are_refused(tmp_path, params):
    with pytest.raises(RllcError, match=r"The checkpoint of step 3 does not fit its shape: blocks.1.attn.W_K is absent, expected \(2, 8, 4\)"):
        save(tmp_path, 3, replace(SHAPE, n_layers=2), params)
    with pytest.raises(RllcError, match=r"unembed.W_U is \(8, 7\), expected absent"):
        save(tmp_path, 3, replace(SHAPE, tied=True), params)
    assert list_checkpoints(tmp_path) == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_another_type_are_refused(tmp_path, params, dtype):
    half = {n: p.to(dtype) for n, p in params.items()}
    with pytest.raises(RllcError, match=f"holds weights of {str(dtype)[6:]}. Convert all of them to float32"):
        save(tmp_path, 3, SHAPE, half)
    with pytest.raises(RllcError, match="holds weights of float32, float64"):
        save(tmp_path, 3, SHAPE, params | {"unembed.b_U": params["unembed.b_U"].double()})


def test_a_missing_checkpoint_is_told(tmp_path):
    with pytest.raises(RllcError, match=r"There is no checkpoint at .*step-00000009\. Check the folder"):
        load(tmp_path / "step-00000009")


def test_a_newer_format_is_told(tmp_path, params):
    save(tmp_path, 3, SHAPE, params)
    path = tmp_path / "step-00000003" / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(RllcError, match=r"written in format 2; this version of rllc reads up to format 1\. Upgrade"):
        load(path.parent)


def drop(key):
    def spoil(folder: Path) -> None:
        path = folder / "checkpoint.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))

    return spoil


def flip_a_bit(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def foreign_shape(folder: Path) -> None:
    path = folder / "checkpoint.json"
    facts = json.loads(path.read_text())
    facts["shape"]["gating"] = True
    path.write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (flip_a_bit, r"weights.safetensors is damaged: its content is not what was written\. Delete .*step-00000003 and train again"),
        (lambda f: (f / "weights.safetensors").write_bytes(b"\x00" * 4), r"weights.safetensors is damaged: .*[Hh]eader"),
        (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors is damaged: it is missing"),
        (lambda f: (f / "checkpoint.json").write_text("{"), "checkpoint.json is damaged"),
        (lambda f: (f / "checkpoint.json").write_text("[1]"), "checkpoint.json is damaged: it does not name its format"),
        (lambda f: (f / "checkpoint.json").unlink(), "There is no checkpoint at"),
        (drop("format"), "checkpoint.json is damaged: it does not name its format"),
        (drop("digest"), "does not say what a checkpoint must .*digest"),
        (drop("shape"), "does not say what a checkpoint must .*shape"),
        (foreign_shape, "does not say what a checkpoint must .*gating"),
    ],
)
def test_damage_is_told_and_no_weights_come_out(tmp_path, params, spoil, sentence):
    save(tmp_path, 3, SHAPE, params)
    spoil(tmp_path / "step-00000003")
    with pytest.raises(RllcError, match=sentence):
        load(tmp_path / "step-00000003")


def test_weights_put_in_from_another_model_are_told(tmp_path, params):
    """Digest and file agree, but not with the shape."""
    save(tmp_path, 3, SHAPE, params)
    folder = tmp_path / "step-00000003"
    foreign = {"embed.W_E": torch.zeros(2, 2)}
    safetensors.torch.save_file(foreign, folder / "weights.safetensors")
    facts = json.loads((folder / "checkpoint.json").read_text()) | {"digest": digest(foreign)}
    (folder / "checkpoint.json").write_text(json.dumps(facts))
    with pytest.raises(RllcError, match=r"does not fit its shape: blocks.0.attn.W_K is absent"):
        load(folder)


def test_info_travels_as_a_value(tmp_path, params):
    a = save(tmp_path, 3, SHAPE, params)
    shutil.rmtree(a.folder)
    assert a == CheckpointInfo(tmp_path / "step-00000003", 3, SHAPE, digest(params), "float32", {})


def test_weights_are_given_back_and_put_there_again(tmp_path: Path) -> None:
    """Also those that a kill left behind a checkpoint that says they were."""
    params = init_params(SHAPE, 0)
    info = save(tmp_path, 3, SHAPE, params)
    weights = info.folder / "weights.safetensors"
    held = weights.read_bytes()
    release(info.folder)
    assert not weights.exists()
    assert (read_info(info.folder).digest, read_info(info.folder).released) == (info.digest, True)
    with pytest.raises(RllcError, match="were given back after their use"):
        load(info.folder)
    weights.write_bytes(held)
    release(info.folder)
    assert not weights.exists()
    assert not save(tmp_path, 3, SHAPE, params).released
    assert not read_info(info.folder).released
    assert load(info.folder)[2].digest == info.digest
