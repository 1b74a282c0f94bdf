from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from rllc.core.errors import RllcError
from rllc.core.names import DataKey, Part
from rllc.runs.experiment import load, parse, preset
from rllc.runs.mapping import plain, settings_from
from rllc.runs.plan import make_plan


@dataclass(frozen=True)
class Inner:
    rate: float = 1.0
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    many: tuple[Inner, ...] = ()
    pair: tuple[int, int] = (1, 2)
    either: int | str = 0
    flag: bool = False


def test_tables_become_settings_and_come_back():
    table = {"name": "x", "inner": {"rate": 2, "kind": "b"}, "many": [{"rate": 0.5}], "pair": [3, 4], "either": "word", "flag": True}
    made = settings_from(Outer, table)
    assert made == Outer("x", Inner(2.0, "b"), (Inner(0.5),), (3, 4), "word", True)
    assert isinstance(made.inner.rate, float)
    assert settings_from(Outer, plain(made)) == made


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "x", "inner": {"rte": 1}}, r"unknown key 'inner\.rte'\. Perhaps you meant 'rate'"),
        ({"name": "x", "zzz": 1}, r"unknown key 'zzz'\. Known keys are name, inner"),
        ({}, "lacks 'name'"),
        ({"name": 3}, "name is 3, but must be a string"),
        ({"name": "x", "flag": 1}, "flag is 1, but must be true or false"),
        ({"name": "x", "pair": [1, True]}, r"pair\[1\] is True, but must be a whole number"),
        ({"name": "x", "pair": [1, 2, 3]}, "pair is .* but must be a list of a whole number"),
        ({"name": "x", "either": 1.5}, "either is 1.5, but must be a whole number or a string"),
        ({"name": "x", "inner": {"kind": "c"}}, "inner.kind is 'c', but must be one of 'a', 'b'"),
        ({"name": "x", "inner": 3}, "inner is 3, but must be a table"),
    ],
)
def test_what_does_not_fit_is_told(table, message):
    with pytest.raises(RllcError, match=message):
        settings_from(Outer, table)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "experiments").glob("*.toml")), ids=lambda path: path.stem)
def test_what_ships_as_an_experiment_is_one(path: Path):
    experiment = load(path)
    assert make_plan(experiment).cells
    assert all(make_plan(experiment.sibling(name)) for name in experiment.siblings)


def test_presets_are_experiments():
    for name in ("demo", "quick"):
        experiment = parse(preset(name))
        assert experiment.model.d_vocab == experiment.corpus.vocabulary == 512
        assert experiment.domains() == ("code", "prose", "echo", "brackets")
    demo = parse(preset("demo"))
    assert sum(demo.mixture.values()) == pytest.approx(1)
    assert demo.mixture["echo"] == 0.25
    # METHOD 2, in the natural products
    assert demo.sampler.step_size * demo.sampler.localization / 2 == pytest.approx(0.1)
    assert demo.sampler.step_size * demo.sampler.nbeta / 2 == pytest.approx(0.015)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("draws = 16", "drwas = 16", r"unknown key 'sampler\.drwas'\. Perhaps you meant 'draws'"),
        ('parts = ["heads", "full"]', 'parts = ["heads", "5:0"]', r"The part '5:0' .* does not exist in this model\. It has layers 0 to 1"),
        ('parts = ["heads", "full"]', 'parts = ["haeds"]', "'haeds' is not a part of a model"),
        ('data = ["mixture"]', 'data = ["poems"]', "sample.data names 'poems', but the corpus has prose, echo"),
        ("prose = 0.75", "poems = 0.75", "The mixture names 'poems', but the corpus has prose, echo"),
        ("prose = 0.75", "prose = -1", "mixture.prose is -1.0, but a share must be above 0"),
        ("checkpoints = [0, 12]", "checkpoints = [0, 7]", "names step 7, of which there is no checkpoint. There are 0, 3, 6, 9, 12"),
        ("step_size = 1e-3", "step_size = 0.1", "cannot be stable"),
        ("seed = 3", "seed = ", "is not valid TOML"),
        ("workers = 1", "workers = -1", "engine.workers is -1, but must be at least 0"),
        ("origin_batches = 4", "origin_batches = 1", "sampling.origin_batches is 1, but must be at least 3"),
    ],
)
def test_bad_experiments_are_told_in_a_sentence(tiny, old, new, message):
    assert old in tiny
    with pytest.raises(RllcError, match=message):
        parse(tiny.replace(old, new))


def test_a_missing_file(tmp_path):
    with pytest.raises(RllcError, match="There is no experiment file"):
        load(tmp_path / "none.toml")


def test_names_become_parts_and_data(tiny):
    experiment = parse(tiny)
    parts = experiment.parts_of(experiment.sample[0])
    assert [str(part) for part in parts] == ["0:0", "0:1", "1:0", "1:1", "full"]
    assert parts[0] == Part.of_head(0, 0)
    assert experiment.weights_of(DataKey("mixture")) == {"prose": 0.75, "echo": 0.25}
    assert experiment.weights_of(DataKey("echo", "heldout")) == {"echo": 1.0}
