from __future__ import annotations

import json
import math
import os
import shlex
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from rllc.checkpoints.reading import check_finite, read_config, read_state
from rllc.core.errors import RllcError


def weights(*names: str) -> dict[str, Tensor]:
    return {name: torch.full((2, 3), float(i)) for i, name in enumerate(names or ("a.weight", "b.weight", "c.weight"))}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


def sharded(folder: Path, *shards: dict[str, Tensor], kind: str = "safetensors", index: bool = True) -> Path:
    """A folder in the hub's layout, in shards."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, promised = ("model" if kind == "safetensors" else "pytorch_model"), {}
    for number, shard in enumerate(shards, 1):
        name = f"{stem}-{number:05d}-of-{len(shards):05d}.{kind}"
        save(folder / name, shard)
        promised |= dict.fromkeys(shard, name)
    if index:
        (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": promised}))
    return folder


def save(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    return path


class Harmful:
    """A pickle of this makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x.pth", "x.bin", "x.ckpt"])
def test_a_file_gives_back_its_tensors(tmp_path: Path, name: str):
    assert equal(read_state(save(tmp_path / name, weights())), weights())
    assert equal(read_state(tmp_path / name, names=lambda name: name.startswith("b")), {"b.weight": weights()["b.weight"]})


def test_a_torch_file_of_the_old_format_is_read(tmp_path: Path):
    torch.save(weights(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert equal(read_state(tmp_path / "old.pt"), weights())


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "ckpt.pt", "weights.safetensors"])
def test_a_folder_with_one_file(tmp_path: Path, name: str):
    save(tmp_path / name, weights())
    torch.save({"lr": 1.0}, tmp_path / "optimizer.pt")
    torch.save({"lr": 1.0}, tmp_path / "training_args.bin")
    torch.save({"lr": 1.0}, tmp_path / "rng_state_0.pth")
    assert equal(read_state(tmp_path), weights())


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_folder_in_shards(tmp_path: Path, kind: str, index: bool):
    sharded(tmp_path, weights("a", "b"), weights("c"), kind=kind, index=index)
    assert equal(read_state(tmp_path), weights("a", "b") | weights("c"))
    assert equal(read_state(tmp_path, names=lambda name: name == "c"), weights("c"))


def test_safetensors_are_taken_where_both_formats_are_there(tmp_path: Path):
    save(tmp_path / "model.safetensors", weights("a"))
    save(tmp_path / "pytorch_model.bin", weights("b"))
    assert equal(read_state(tmp_path), weights("a"))


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict"])
def test_weights_under_a_usual_key(tmp_path: Path, key: str):
    save(tmp_path / "x.pt", {key: OrderedDict(weights()), "optimizer": {"state": {}}, "step": 3})
    assert equal(read_state(tmp_path / "x.pt"), weights())


def test_prefixes_that_all_names_share_are_taken_off(tmp_path: Path):
    plain = weights("transformer.a", "lm_head.b")
    for i, prefix in enumerate(("_orig_mod.", "module.", "module._orig_mod.")):
        save(tmp_path / f"{i}.pt", {"model": {prefix + name: tensor for name, tensor in plain.items()}})
        assert equal(read_state(tmp_path / f"{i}.pt", names=lambda name: name == "transformer.a"), {"transformer.a": plain["transformer.a"]})
    mixed = weights("_orig_mod.a", "b")
    assert equal(read_state(save(tmp_path / "mixed.pt", mixed)), mixed)


def test_the_prefix_of_lightning_is_taken_off_and_that_of_llama_stays(tmp_path: Path):
    llama = weights("model.embed_tokens.weight", "model.norm.weight")
    assert equal(read_state(save(tmp_path / "llama.pt", {"state_dict": llama})), llama)
    lightning = {"pytorch-lightning_version": "2.5", "state_dict": {f"model.{name}": tensor for name, tensor in llama.items()}}
    assert equal(read_state(save(tmp_path / "lightning.ckpt", lightning)), llama)


def test_an_index_may_name_tensors_by_their_wrapped_names(tmp_path: Path):
    sharded(tmp_path, weights("_orig_mod.a"), weights("_orig_mod.b"))
    assert sorted(read_state(tmp_path)) == ["a", "b"]
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["_orig_mod.lost"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(RllcError, match=r"promises the tensor _orig_mod\.lost"):
        read_state(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_dtype_is_kept_or_converted(tmp_path: Path, dtype: torch.dtype):
    path = save(tmp_path / "x.safetensors", {"a": torch.arange(4).to(dtype), "position_ids": torch.arange(4)})
    assert {name: tensor.dtype for name, tensor in read_state(path).items()} == {"a": dtype, "position_ids": torch.int64}
    converted = read_state(path, dtype=torch.float32)
    assert converted["a"].dtype == torch.float32
    assert converted["a"].tolist() == [0, 1, 2, 3]
    assert converted["position_ids"].dtype == torch.int64


def test_masks_pass(tmp_path: Path):
    masks = {"h.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8), "attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool)}
    assert equal(read_state(save(tmp_path / "x.safetensors", masks)), masks)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.float8_e4m3fn])
def test_quantised_weights_are_refused_by_name(tmp_path: Path, dtype: torch.dtype):
    path = save(tmp_path / "x.safetensors", weights("a") | {"h.0.weight": torch.ones(4, 4).to(dtype)})
    with pytest.raises(RllcError, match=rf"The tensor h\.0\.weight of .* is {str(dtype)[6:]}, where floating weights are expected"):
        read_state(path)
    assert equal(read_state(path, names=lambda name: name == "a"), weights("a"))


def test_a_pickle_that_would_execute_code_is_refused_and_the_safe_way_named(tmp_path: Path):
    path, touched = tmp_path / "bad.pt", tmp_path / "touched"
    torch.save({"model": weights(), "config": Harmful(touched)}, path)
    for read in (read_state, read_config):
        with pytest.raises(RllcError, match=r"bad\.pt is refused: .* could execute code \(it calls \w+\.mkdir\)") as refusal:
            read(path)
    assert not touched.exists()
    python, flag, code = shlex.split(refusal.value.remedy[refusal.value.remedy.index("python -c") :])
    assert (python, flag) == ("python", "-c")
    exec(code, {})  # the line that the remedy shows does what it says
    assert touched.exists()
    assert equal(read_state(tmp_path / "bad.safetensors"), weights())


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
@pytest.mark.parametrize("left", [0, 5, 0.5, 0.95])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, name: str, left: float):
    path = save(tmp_path / name, {"a": torch.zeros(1000)})
    data = path.read_bytes()
    path.write_bytes(data[: int(left * len(data)) if isinstance(left, float) else left])
    reasons = "is empty|is not a whole safetensors file|is cut off|could not be read"
    with pytest.raises(RllcError, match=rf"x\.(safetensors|pt) ({reasons}).*Download it again"):
        read_state(path)


def test_stand_ins_for_weights_are_refused(tmp_path: Path):
    pointer = tmp_path / "model.safetensors"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(RllcError, match=r"is a pointer of git-LFS.*git lfs pull"):
        read_state(tmp_path)
    pointer.unlink()
    pointer.symlink_to(tmp_path / "gone")
    with pytest.raises(RllcError, match=r"is a link to a file that is missing"):
        read_state(tmp_path)
    cut = tmp_path / "model.safetensors.incomplete"
    cut.write_bytes(b"x")
    with pytest.raises(RllcError, match="is a download that was cut off"):
        read_state(cut)
    with pytest.raises(RllcError, match=r"none\.pt could not be read: No such file"):
        read_state(tmp_path / "none.pt")
    with pytest.raises(RllcError, match=r"notes\.md is no file of weights"):
        read_state(save(tmp_path / "notes.md", {}))


@pytest.mark.parametrize("place", [".", ".cache/huggingface/download", "../../blobs"])
def test_a_folder_whose_download_was_cut_off(tmp_path: Path, place: str):
    folder = tmp_path / "snapshots" / "0123"
    folder.mkdir(parents=True)
    (folder / place).mkdir(parents=True, exist_ok=True)
    (folder / place / "abc.incomplete").write_bytes(b"x")
    with pytest.raises(RllcError, match=r"holds no weights yet: a download was cut off \(abc\.incomplete\)"):
        read_state(folder)


def test_a_folder_without_weights_lists_what_is_there(tmp_path: Path):
    with pytest.raises(RllcError, match=r"There are no weights in .*: it is empty"):
        read_state(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "logs").mkdir()
    with pytest.raises(RllcError, match=r"There are no weights in .*: it holds config\.json, logs/\."):
        read_state(tmp_path)


def test_a_folder_with_several_files_asks_for_one(tmp_path: Path):
    for step in (1, 2):
        save(tmp_path / f"ckpt_{step}.pt", weights())
    with pytest.raises(RllcError, match=r"holds 2 files of weights: ckpt_1\.pt, ckpt_2\.pt.*as a series"):
        read_state(tmp_path)


@pytest.mark.parametrize("index", [True, False])
def test_a_missing_shard_is_named(tmp_path: Path, index: bool):
    sharded(tmp_path, weights("a"), weights("b"), index=index)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(RllcError, match=r"lacks 1 of 2 shards.*: (model-00002-of-00002\.safetensors|number 2)\."):
        read_state(tmp_path)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_two_shards_with_one_tensor_are_refused(tmp_path: Path, kind: str):
    sharded(tmp_path, weights("a", "b"), weights("c", "b"), kind=kind)
    with pytest.raises(RllcError, match=r"Two shards hold the tensor b: .*-00001-of-00002\.\w+ and .*-00002-of-00002"):
        read_state(tmp_path)


def test_an_index_that_does_not_hold_what_it_says(tmp_path: Path):
    sharded(tmp_path, weights("a"), weights("b"))
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["lost"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(RllcError, match="promises the tensor lost in model-00001"):
        read_state(tmp_path)
    for bad in ({"weight_map": {"a": "../other/model.safetensors"}}, {"weight_map": {}}, {}):
        index.write_text(json.dumps(bad))
        with pytest.raises(RllcError, match="does not name its shards"):
            read_state(tmp_path)


def test_what_is_no_state_dict_is_refused(tmp_path: Path):
    with pytest.raises(RllcError, match=r"no state dict.*: 'lr' is a float"):
        read_state(save(tmp_path / "x.pt", {"lr": 0.1}))
    with pytest.raises(RllcError, match=r"no state dict.*: it is empty"):
        read_state(save(tmp_path / "x.pt", {}))
    with pytest.raises(RllcError, match="holds a list"):
        read_state(save(tmp_path / "x.pt", [1, 2]))
    with pytest.raises(RllcError, match=r"None of the 3 tensors of .* called a\.weight, b\.weight, c\.weight"):
        read_state(save(tmp_path / "x.pt", weights()), names=lambda name: name == "z")


def test_weights_that_are_not_finite_are_named():
    good = {"a": torch.ones(3), "attn.IGNORE": torch.tensor(-math.inf), "ids": torch.arange(3)}
    check_finite(good, "The checkpoint")
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(RllcError, match=r"The checkpoint is not finite: 1 of 2 values of b are NaN or infinite"):
            check_finite(good | {"b": torch.tensor([0.0, value])}, "The checkpoint")


def test_configs(tmp_path: Path):
    assert read_config(save(tmp_path / "bare" / "x.safetensors", weights())) == {}
    assert read_config(tmp_path / "bare") == {}
    save(tmp_path / "hf" / "model.safetensors", weights())
    (tmp_path / "hf" / "config.json").write_text('{"model_type": "gpt2"}')
    assert read_config(tmp_path / "hf") == read_config(tmp_path / "hf" / "model.safetensors") == {"model_type": "gpt2"}
    nano = {"model": weights(), "model_args": {"n_layer": 2, "n_head": 3}, "iter_num": 7, "config": {"learning_rate": 0.1}}
    save(tmp_path / "nano" / "ckpt.pt", nano)
    assert read_config(tmp_path / "nano") == read_config(tmp_path / "nano" / "ckpt.pt") == nano["model_args"]
    assert read_config(save(tmp_path / "tl.pth", {"state_dict": weights(), "cfg": {"d_model": 4}})) == {"d_model": 4}
    (tmp_path / "hf" / "config.json").write_text('{"model_type"')
    with pytest.raises(RllcError, match=r"config\.json is not readable as JSON"):
        read_config(tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text("[]")
    with pytest.raises(RllcError, match=r"config\.json holds a list"):
        read_config(tmp_path / "hf")
    with pytest.raises(RllcError, match="There is no checkpoint at"):
        read_config(tmp_path / "nowhere")
