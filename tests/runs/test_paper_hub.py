"""The experiment on the authors' released models, on a small local copy of the hub's layout: names, files and columns as there, sizes not."""

from __future__ import annotations

import random
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from rllc.analysis.stored import from_json
from rllc.checkpoints.store import digest, list_checkpoints
from rllc.corpus.tokenizer import train_tokenizer
from rllc.model.forward import init_params
from rllc.model.shape import ModelShape
from rllc.records.store import Store
from rllc.runs.experiment import parse
from rllc.runs.layout import RunFolder
from rllc.runs.pipeline import run_experiment
from rllc.runs.recorded import planned_samples

from ..fuzz.hostile import document
from .conftest import WORDS

datasets = pytest.importorskip("datasets")
pytest.importorskip("huggingface_hub")
TEXT = (Path(__file__).parents[2] / "experiments" / "paper-hub.toml").read_text()
STEPS = (0, 200, 1000, 50_000)
SIZES = {"d_model": 16, "n_heads": 2, "d_head": 8, "n_ctx": 24, "d_vocab": 280, "vocabulary": 280, "chains": 2, "draws": 8, "batch_size": 2}


def shape(layers: int) -> ModelShape:
    return ModelShape(n_layers=layers, d_model=16, n_heads=2, d_head=8, d_vocab=280, n_ctx=24, positions="shortformer")


def in_cache(root: Path, repo: str, name: str) -> Path:
    """Where a file of a repository's main branch lies in the hub's cache."""
    folder = root / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text("c0ffee")
    path = folder / "snapshots" / "c0ffee" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def texts(column: str, seed: int) -> datasets.Dataset:
    rng = random.Random(seed)
    return datasets.Dataset.from_dict({column: [" ".join(rng.choice(WORDS) for _ in range(60)) + "." for _ in range(40)]})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The two models, the tokenizer and the two data sets."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    for layers, steps in ((2, STEPS), (1, STEPS[-1:])):
        for step in steps:
            state = {name.replace("pos.W_pos", "pos_embed.W_pos"): t for name, t in init_params(shape(layers), step + layers).items()}
            mask = torch.ones(24, 24, dtype=torch.bool).tril()
            state |= {f"blocks.{i}.attn.{name}": value for i in range(layers) for name, value in (("mask", mask), ("IGNORE", torch.tensor(-1e5)))}
            torch.save(state, in_cache(cache, f"georgeyw/L{layers}W256-3m-rr", f"checkpoints/checkpoint_{step:07d}.pth"))
    tokenizer = train_tokenizer((row["contents"] for row in texts("contents", 0)), 280)
    in_cache(cache, "georgeyw/TinyStories-tokenizer-5k", "tokenizer.json").write_text(tokenizer.to_str())
    for name, column, seed in (("dsir-pile-1m-2", "contents", 0), ("pile-github", "text", 1)):
        texts(column, seed).to_parquet(tmp_path / "sets" / name / "data" / "train-00000-of-00001.parquet")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def small(hub: Path) -> str:
    """The shipped experiment with small numbers; the data sets alone change their names, for a library that reads no others offline."""
    text = TEXT.replace('"timaeus/', f'"{hub}/sets/')
    text = re.sub(r"steps = \[\n.*?\n\]", f"steps = {list(STEPS)}", text, flags=re.DOTALL)
    text, count = re.subn(r"checkpoints = \[0, 1000, .*\]", f"checkpoints = {list(STEPS)}", text)
    assert count == 1
    for name, value in SIZES.items():
        text, count = re.subn(rf"(?m)^{name} = \d+$", f"{name} = {value}", text)
        assert count, name
    return text.replace("[engine]", "[engine]\nworkers = 1")


def fewest(asked: dict[str, Any]) -> dict[str, Any]:
    """The experiment on as few contexts as there can be."""
    behaviour = asked["behaviour"] | {"sequences": 4, "contexts": 4, "snippets": 1}
    for name in ("ablation", "paths", "tables", "memorised", "baselines"):
        behaviour[name] = behaviour.get(name, {}) | {"contexts": 4}
    behaviour["memorised"] |= {"within": 2, "withins": [2]}
    return asked | {"behaviour": behaviour, "analysis": {"resamples": 10, "permutations": 20}}


@pytest.mark.filterwarnings("ignore")  # the data sets' library on closing its files
def test_the_released_models_are_read_by_their_names_and_make_the_paper_s_page(hub: Path, no_pictures: None) -> None:
    """Everything that the shipped file asks for, to the page: sampled, measured on the fewest contexts, calibrated and judged."""
    text, folder = document(fewest(tomllib.loads(small(hub)))), RunFolder(hub / "run")
    run_experiment(text, folder.root, "report", None, None, quiet=True)
    for place, layers, steps in ((folder, 2, STEPS), (folder.sibling("one-layer"), 1, STEPS[-1:])):
        infos = list_checkpoints(place.checkpoints)
        assert [info.step for info in infos] == list(steps)
        for info in infos:
            assert info.shape == shape(layers)
            assert info.digest == digest(init_params(shape(layers), info.step + layers))
            assert info.released == (layers == 2)  # the one-layer model is what refinements are held against
    records = planned_samples(parse(text), folder, Store(folder.records))
    assert {(r.meta["step"], r.meta["data"], r.meta["part"]) for r in records} == {
        (step, data, f"{layer}:{head}")
        for step in STEPS
        for data in ("mixture", "code", "circuit", "shuffled")
        for layer in (0, 1)
        for head in (0, 1)
    } | {(step, "mixture", part) for step in STEPS for part in ("full", "0.random0", "1.random0")} | {(step, "mixture^23", "full") for step in STEPS}
    assert len(from_json(folder.findings.read_text(encoding="utf-8")).claims) == 22
    shown = set(re.findall(r'id="figure-([a-z-]+)"', folder.report.read_text(encoding="utf-8")))
    assert {"heads", "against-one-layer", "edges", "paths-to-logits", "painted-shares", "controls", "ov-circuits", "attention-scores"} <= shown


def test_the_paper_s_own_numbers_are_in_the_file() -> None:
    experiment = parse(TEXT)
    steps = experiment.checkpoints()
    assert (len(steps), steps[:4], steps[-2:]) == (107, (0, 100, 200, 400), (49_000, 50_000))
    sampler = experiment.sampler
    assert (sampler.step_size, sampler.localization, sampler.nbeta, sampler.chains, sampler.draws) == (1e-3, 200, 30, 4, 200)
    model = experiment.model
    assert sum(torch.Size(size).numel() for size in model.tensors().values()) == 3_355_016
