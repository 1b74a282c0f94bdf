from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from rllc.records.store import Store
from rllc.runs.pipeline import run_experiment

WORDS = ["river", "stone", "quiet", "under", "paper", "light", "seven", "garden", "north", "copper", "window", "salt", "evening", "winter"]

EXPERIMENT = """
title = "A tiny run"
seed = 3

[corpus]
vocabulary = 280
heldout = 0.25
[[corpus.sources]]
kind = "files"
domain = "prose"
domain_column = ""
paths = ["{text}"]
[[corpus.sources]]
kind = "echo"
tokens = 6000
document_tokens = 24
segment = [3, 6]

[mixture]
prose = 0.75
echo = 0.25

[model]
n_layers = 2
d_model = 16
n_heads = 2
d_head = 4
n_ctx = 24

[training]
steps = 12
batch_size = 4
learning_rate = 3e-3
[training.checkpoints]
extra = [0, 3, 6, 9, 12]

[sampler]
sampler = "sgld"
step_size = 1e-3
localization = 200
nbeta = 30
chains = 2
draws = 16
burn_in = 4

[sampling]
batch_size = 2
origin_batches = 4

[engine]
workers = {workers}
training_threads = 1

[[sample]]
parts = ["heads", "full"]
data = ["mixture"]
[[sample]]
parts = ["heads", "0.attn"]
data = ["prose", "echo/heldout"]
checkpoints = [0, 12]

[behaviour]
sequences = 4
contexts = 4
snippets = 1

[analysis]
resamples = 10
permutations = 20
"""


def write_text(folder: Path, documents: int = 40, seed: int = 0) -> Path:
    """A folder of small documents of random words."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    for i in range(documents):
        lines = [" ".join(rng.choice(WORDS) for _ in range(9)) + "." for _ in range(8)]
        (folder / f"{i:02d}.txt").write_text("\n".join(lines) + "\n")
    return folder


def experiment_text(folder: Path, workers: int = 1) -> str:
    """The tiny experiment on text in `folder`, which is written where it is missing."""
    text = folder / "text"
    if not text.exists():
        write_text(text)
    return EXPERIMENT.format(text=text, workers=workers)


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """The text of the tiny experiment."""
    return experiment_text(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny run; read it, do not change it."""
    folder = tmp_path_factory.mktemp("finished")
    run_experiment(experiment_text(folder), folder / "run", "report", None, None, quiet=True)
    return folder / "run"


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page without its figures as files, which take longer than all the rest; `finished` has them."""
    monkeypatch.setattr("rllc.runs.reporting.write_all", lambda *_: None)


def forget(folder: Path, *steps: int) -> None:
    """Remove the sampled cells of some checkpoints."""
    store = Store(folder / "records")
    for record in list(store.records("sample")):
        if record.meta["step"] in steps:
            for path in store.files("sample", record.digest):
                path.unlink()


@pytest.fixture
def unfinished(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that lacks the five cells of step 9."""
    shutil.copytree(finished, tmp_path / "run")
    forget(tmp_path / "run", 9)
    return tmp_path / "run"


@pytest.fixture
def text(finished: Path) -> str:
    """The finished run's experiment."""
    return (finished / "experiment.toml").read_text()
