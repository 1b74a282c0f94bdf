"""Weights of others: every layout, and every way in which a download or a pickle can be wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from rllc.checkpoints.reading import check_finite, read_config, read_state, step_of
from rllc.core.errors import RllcError

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.weight": torch.ones(4, dtype=torch.float16)}


class Malicious:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def sharded(folder: Path, suffix: str) -> Path:
    folder.mkdir()
    places = {}
    for i, (name, tensor) in enumerate(TENSORS.items()):
        file = f"part-{i}{suffix}"
        places[name] = file
        if suffix == ".bin":
            torch.save({name: tensor}, folder / file)
        else:
            safetensors.torch.save_file({name: tensor}, folder / file)
    index = "pytorch_model.bin.index.json" if suffix == ".bin" else "model.safetensors.index.json"
    (folder / index).write_text(json.dumps({"weight_map": places}))
    return folder


def layouts(folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(TENSORS, folder / "one.safetensors")
    torch.save(TENSORS, folder / "plain.pt")
    torch.save({"model": TENSORS, "model_args": {"n_embd": 3}, "iter_num": 70}, folder / "ckpt.pt")
    torch.save({"state_dict": TENSORS, "epoch": 1, "global_step": 12}, folder / "lightning.ckpt")
    whole = folder / "whole"
    whole.mkdir()
    safetensors.torch.save_file(TENSORS, whole / "model.safetensors")
    torch.save({"other": torch.zeros(1)}, whole / "optimizer.bin")  # safetensors come first
    (whole / "config.json").write_text('{"model_type": "gpt2"}')
    own_name = folder / "own_name"
    own_name.mkdir()
    torch.save(TENSORS, own_name / "weights.pth")
    files = {name: folder / name for name in ("one.safetensors", "plain.pt", "ckpt.pt", "lightning.ckpt", "whole", "own_name")}
    return files | {"shards": sharded(folder / "shards", ".safetensors"), "pickled shards": sharded(folder / "pickled", ".bin")}


def assert_the_tensors(found: dict[str, Tensor]) -> None:
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_every_layout_gives_the_same_tensors(tmp_path: Path) -> None:
    for path in layouts(tmp_path / "x").values():
        assert_the_tensors(read_state(path))
        assert list(read_state(path, lambda name: name.startswith("a"))) == ["a.weight"]


def test_configs_and_steps_are_found_where_they_are(tmp_path: Path) -> None:
    files = layouts(tmp_path / "x")
    assert read_config(files["whole"]) == read_config(files["whole"] / "model.safetensors") == {"model_type": "gpt2"}
    assert read_config(files["ckpt.pt"]) == {"n_embd": 3}
    assert read_config(files["plain.pt"]) == read_config(files["shards"]) == {}
    assert (step_of(files["ckpt.pt"]), step_of(files["lightning.ckpt"]), step_of(files["plain.pt"]), step_of(files["whole"])) == (70, 12, None, None)
    (files["whole"] / "trainer_state.json").write_text('{"global_step": 500}')
    assert step_of(files["whole"]) == 500


def test_a_pickle_that_would_run_code_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": TENSORS, "extra": Malicious()}, tmp_path / "evil.pt")
    with pytest.raises(RllcError, match=r"evil\.pt is a pickle that holds more than numbers.* safetensors\.torch\.save_file"):
        read_state(tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "executed").exists()  # it would have


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("name", ["one.safetensors", "plain.pt", "whole", "shards"])
def test_a_file_cut_short_is_told(tmp_path: Path, name: str) -> None:
    path = layouts(tmp_path / "x")[name]
    cut(path if path.is_file() else path / ("model.safetensors" if name == "whole" else "part-1.safetensors"))
    with pytest.raises(RllcError, match=r"cannot be read: .* The download is not finished, or the file is damaged"):
        read_state(path)


def test_what_is_missing_or_no_weight_is_told(tmp_path: Path) -> None:
    files = layouts(tmp_path / "x")
    (files["shards"] / "part-0.safetensors").unlink()
    with pytest.raises(RllcError, match=r"lacks 1 of its 2 shards: part-0\.safetensors\. The download is not finished"):
        read_state(files["shards"])
    (tmp_path / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(RllcError, match=r"is a pointer of git-lfs and holds no weights"):
        read_state(tmp_path / "pointer.safetensors")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "readme.md").write_text("hello")
    with pytest.raises(RllcError, match=r"holds no weights\. It holds readme\.md"):
        read_state(empty)
    with pytest.raises(RllcError, match=r"There are no weights at .*nowhere"):
        read_state(tmp_path / "nowhere")
    with pytest.raises(RllcError, match=r"holds several files of weights and no index"):
        read_state(tmp_path / "x")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(RllcError, match=r"holds no state dict"):
        read_state(tmp_path / "list.pt")
    (files["whole"] / "config.json").write_text("{")
    with pytest.raises(RllcError, match=r"config\.json cannot be read"):
        read_config(files["whole"])


def test_a_tensor_in_two_shards_is_told(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "twice", ".safetensors")
    safetensors.torch.save_file(TENSORS, folder / "part-1.safetensors")
    with pytest.raises(RllcError, match=r"another shard both hold the tensor a\.weight"):
        read_state(folder)


def test_numbers_that_are_none_are_named() -> None:
    check_finite(TENSORS, "It")
    with pytest.raises(RllcError, match=r"It holds 2 numbers that are not finite in b\. The training has failed there"):
        check_finite({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan"), float("inf")])}, "It")
