"""Checkpoints from strangers: read, or refused in a sentence; nothing in them runs, claims memory or leads elsewhere."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from rllc.checkpoints import store
from rllc.checkpoints.foreign import NotImportable
from rllc.checkpoints.importing import import_state
from rllc.checkpoints.reading import check_finite, read_config, read_facts, read_object, read_state
from rllc.checkpoints.resume import load_resume
from rllc.checkpoints.series import Series
from rllc.checkpoints.steps import step_of_files, steps_of_names
from rllc.core.errors import RllcError
from rllc.model.shape import ModelShape

from .bounds import examples, outcome, refused
from .hostile import CONTROLS, values

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch warns of sparse tensors and of legacy files

SHAPE = ModelShape(n_layers=1, d_model=4, n_heads=2, d_head=2, d_vocab=5, n_ctx=3)
STATE = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2)}


def safetensors_with(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def read(path: Path) -> dict[str, torch.Tensor]:
    found = read_state(path)
    check_finite(found, str(path))
    return found


def torch_bytes(content: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({self.path!r}, 'w').close()",)


KINDS = ("safetensors", "pt", "old")
HEADERS = [
    safetensors_with({}, length=2**63),
    safetensors_with({}, length=2**64 - 1),
    safetensors_with({}, length=100_000_001),
    safetensors_with({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}, bytes(4)),
    safetensors_with({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}}, bytes(4)),
    safetensors_with({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**60]}}, bytes(4)),
    safetensors_with({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4)),
    safetensors_with({"a": {"dtype": "PYTHON", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    safetensors_with({"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}, bytes(4)),
    safetensors_with({"a": {"dtype": "F8_E8M0", "shape": [4], "data_offsets": [0, 4]}}, bytes(4)),
    safetensors_with({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
    safetensors_with({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
    safetensors_with({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)),
    safetensors_with(b"[" * 100_000),
    safetensors_with(b"\xff\xfe\x00"),
    safetensors_with({}),
    b"\x00",
]


@pytest.mark.parametrize("content", HEADERS, ids=range(len(HEADERS)))
def test_a_header_that_lies(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    outcome(lambda: read(path), megabytes=300)
    ours = tmp_path / "step-00000001"
    store.save(tmp_path, 1, SHAPE, {name: torch.zeros(size) for name, size in SHAPE.tensors().items()})
    (ours / "weights.safetensors").write_bytes(content)
    assert "damaged" in str(refused(lambda: store.load(ours), megabytes=300))


@examples(30)
@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=4), st.integers(1, 3000), st.sampled_from(["safetensors", "pt", "old"])
)
def test_changed_and_cut_bytes(tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], kept: int, kind: str) -> None:
    folder = tmp_path_factory.mktemp("weights")
    old = {"_use_new_zipfile_serialization": False} if kind == "old" else {}
    sound = save(STATE) if kind == "safetensors" else torch_bytes({"model": STATE, "step": 3}, **old)
    content = bytearray(sound)
    for place, value in changes:
        content[place % len(content)] = value
    for name, bad in (("changed", bytes(content)), ("cut", sound[: kept % len(sound)])):
        path = folder / f"{name}.{'safetensors' if kind == 'safetensors' else 'pt'}"
        path.write_bytes(bad)
        outcome(lambda p=path: read(p))
        outcome(lambda p=path: step_of_files(p))


@pytest.mark.parametrize("how", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "old"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, how: dict[str, Any], suffix: str) -> None:
    proof, path = tmp_path / "proof", tmp_path / f"model{suffix}"
    for content in (torch_bytes({"model": STATE, "extra": Touch(proof)}, **how), pickle.dumps(Touch(proof)), torch_bytes(Touch(proof), **how)):
        path.write_bytes(content)
        refused(lambda: read(path))
        refused(lambda: read_facts(path))
        refused(lambda: step_of_files(path))
    assert not proof.exists()


STRANGE = {
    "a huge view of one number": {"a": torch.zeros(1).expand(2**40)},
    "a tensor without numbers": {"a": torch.empty(2**40, device="meta")},
    "a sparse tensor": {"a": torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (2**20,), check_invariants=False)},
    "complex numbers": {"a": torch.zeros(2, dtype=torch.complex64)},
    "no names": {3: torch.zeros(2), None: torch.ones(1)},
    "a list": [torch.zeros(2)],
    "a table that holds itself": {"model": {}},
    "infinite step": {"model": STATE, "step": float("inf")},
    "no step": {"model": STATE, "step": float("nan"), "iter_num": torch.tensor(float("inf"))},
    "a step beyond all": {"model": STATE, "step": 10**400},
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_contents(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(torch_bytes(STRANGE[name]))
    outcome(lambda: read(path), megabytes=300)
    outcome(lambda: step_of_files(path))
    outcome(lambda: read_config(path))


@pytest.mark.parametrize("name", ["a huge view of one number", "a tensor without numbers", "a sparse tensor"])
def test_what_is_no_array_of_numbers_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(torch_bytes(STRANGE[name]))
    refused(lambda: read(path), megabytes=300)


def test_a_bomb_of_a_torch_file_is_not_unpacked(tmp_path: Path) -> None:
    path, sound = tmp_path / "model.pt", torch_bytes(STATE)
    with zipfile.ZipFile(io.BytesIO(sound)) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for member in old.namelist():
            if not member.endswith("data.pkl"):
                new.writestr(member, old.read(member), zipfile.ZIP_STORED)
        with new.open(next(n for n in old.namelist() if n.endswith("data.pkl")), "w", force_zip64=True) as stream:
            for _ in range(600):
                stream.write(bytes(2**20))
    assert "claims to hold" in str(refused(lambda: read(path), megabytes=150))


@pytest.mark.parametrize("name", ["..", "../outside.safetensors", "/etc/passwd", "a\x00b", ".", "", "sub/x.safetensors", 3, None, ["x"]])
def test_an_index_leads_nowhere_else(tmp_path: Path, name: Any) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.safetensors").write_bytes(save(STATE))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a.weight": name}}))
    refused(lambda: read(folder))


def test_links_in_a_circle_and_to_nothing(tmp_path: Path) -> None:
    for name, target in (("a.pt", "b.pt"), ("b.pt", "a.pt"), ("model.safetensors", "nothing"), ("c.pt", "/proc/self/mem"), ("d.pt", ".")):
        (tmp_path / name).symlink_to(target)
        refused(lambda n=name: read(tmp_path / n))


@examples(4)
@given(values)
def test_any_checkpoint_json(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    folder = tmp_path_factory.mktemp("run") / "step-00000001"
    store.save(folder.parent, 1, SHAPE, {name: torch.zeros(size) for name, size in SHAPE.tensors().items()})
    facts = json.loads((folder / "checkpoint.json").read_text())
    for key in facts:
        (folder / "checkpoint.json").write_text(json.dumps(facts | {key: value}))
        outcome(lambda: store.load(folder))
        outcome(lambda: store.list_checkpoints(folder.parent))
    for name in facts["shape"]:
        (folder / "checkpoint.json").write_text(json.dumps(facts | {"shape": facts["shape"] | {name: value}}))
        outcome(lambda: store.load(folder))


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"a":' * 50_000, "9" * 5000, '{"format": 1e999}', "\x00", "\xff"])
def test_json_that_is_none(tmp_path: Path, text: str) -> None:
    for name in ("config.json", "resume.json", "trainer_state.json"):
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    outcome(lambda: read_object(tmp_path / "config.json"))
    outcome(lambda: step_of_files(tmp_path))
    refused(lambda: load_resume(tmp_path))


GPT2 = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 4, "n_positions": 3, "vocab_size": 5, "activation_function": "gelu_new"}
LLAMA = {"model_type": "llama", "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 5, "intermediate_size": 8}
KEYS = [*GPT2, *LLAMA, "num_key_value_heads", "head_dim", "rope_theta", "rope_scaling", "rms_norm_eps", "tie_word_embeddings", "hidden_act"]
KEYS += ["max_position_embeddings", "quantization_config", "sliding_window", "layer_norm_epsilon", "rope_parameters", "layer_types", "model_args"]


@examples(60)
@given(st.sampled_from([GPT2, LLAMA]), st.dictionaries(st.sampled_from(KEYS), values, max_size=3))
def test_any_config(config: dict[str, Any], changes: dict[str, Any]) -> None:
    outcome(lambda: import_state(STATE, config | changes), seconds=20)


@examples(100)
@given(st.lists(st.text(max_size=20) | st.sampled_from(["step" + "9" * 5000, "ckpt_1k.pt", CONTROLS, "epoch1-step5", "1.5b"]), max_size=4))
def test_any_names_of_a_series(names: list[str]) -> None:
    outcome(lambda: steps_of_names(names))


@pytest.mark.parametrize("source", ["", "..", "/", "\x00", "x" * 5000, "[", "**", "a/b", "~nobody/x", "/dev/zero", "/proc/self/mem", "{step}"])
def test_any_source_of_a_series(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = outcome(lambda: Series.of(source), seconds=20)
    assert isinstance(found, Series | RllcError | NotImportable)
