"""`rllc calibrate` on the tiny run: what it prints, writes, keeps and refuses."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

from rllc.main import main
from rllc.posterior.calibration.grid import Setting
from rllc.records.store import Store
from rllc.runs import calibrating
from rllc.runs.calibrating import Ask, spread
from rllc.runs.calibration_units import KIND
from rllc.runs.experiment import parse

GRID = """
[calibration]
loss_products = [0.015, 0.03]
prior_products = [0.1, 0.15]
nbeta = [30]
draws = 12
finalists = 1
final_draws = 12
control_draws = 12
"""


@pytest.fixture(scope="module")
def asked(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An experiment file with a small grid, and a run folder with the trained model of the finished run."""
    folder = tmp_path_factory.mktemp("calibrating")
    (folder / "run").mkdir()
    for name in ("corpus", "checkpoints"):
        (folder / "run" / name).symlink_to(finished / name)
    (folder / "e.toml").write_text((finished / "experiment.toml").read_text() + GRID)
    return folder / "e.toml", folder / "run"


def call(asked: tuple[Path, Path], *more: str) -> list[str]:
    return ["calibrate", str(asked[0]), "--out", str(asked[1]), "--quiet", *more]


PARTS = ("0:1", "1:0", "1:1")  # the fewest that have an order worth comparing
BOTH = ("--parts", *PARTS, "--checkpoints", "3", "12")


@pytest.fixture(scope="module")
def printed(asked: tuple[Path, Path]) -> str:
    """What the first call prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(call(asked, *BOTH)) == 0
    return out.getvalue()


def test_it_prints_health_advice_and_a_fragment(printed: str):
    for words in (
        "Median λ̂ of 3 parts at step 12, mixture",
        "× refused, b biased",
        "Recommended: ε ",
        "The experiment's own settings: ε 0.001, γ 200, nβ 30, burn_in 4",
        "which 22 steps bring below 1.0 % (the experiment's 4 leave 43 %)",
        "nβ = 0 control: λ̂ reads 0 and the Stein ratio",
        "Kendall τ",
        "[sampler]",
        "calibration.toml",
    ):
        assert words in printed, words


def test_the_fragment_takes_the_place_of_the_experiments_own(asked: tuple[Path, Path], printed: str):
    experiment, run = asked
    fragment = (run / "calibration" / "calibration.toml").read_text()
    assert all(line in printed for line in fragment.splitlines())
    table = tomllib.loads(fragment)
    assert set(table) == {"sampler"}
    before, rest = experiment.read_text().split("[sampler]")
    found = parse(before + fragment + "\n[sampling]" + rest.split("[sampling]", 1)[1])
    assert found.sampler.step_size == table["sampler"]["step_size"]
    assert found.sampler.burn_in == 22
    assert (found.sampler.chains, found.sampler.draws) == (2, 16)


def test_every_number_is_in_the_json(asked: tuple[Path, Path], printed: str):
    found = json.loads((asked[1] / "calibration" / "calibration.json").read_text())
    assert found["parts"] == list(PARTS)
    assert found["steps"] == [3, 12]
    assert len(found["grid"]) == 4
    row = next(r for r in found["grid"] if (r["loss_product"], r["prior_product"]) == (0.015, 0.1))
    assert (row["step_size"], row["localization"], row["burn_in"]) == (pytest.approx(1e-3), pytest.approx(200), 22)
    assert row["readings"][0]["llc"] == pytest.approx(30 * row["readings"][0]["rise"])
    assert row["health"]["bias"] >= 0.05
    assert found["control"][0]["llc"] == 0
    assert {t["step"] for t in found["finalists"][0]["trials"]} == {3, 12}


def test_a_second_call_computes_nothing_and_says_the_same(asked: tuple[Path, Path], printed: str, monkeypatch, capsys):
    def never(*_: object) -> None:
        raise AssertionError("nothing is left to compute")

    monkeypatch.setattr(calibrating, "run_units", never)
    assert main(call(asked, *BOTH)) == 0
    again = capsys.readouterr().out
    assert again.rsplit("This took", 1)[0] == printed.rsplit("This took", 1)[0]


def test_a_lost_record_is_computed_again_with_the_same_numbers(asked: tuple[Path, Path], printed: str):
    store = Store(asked[1] / "records")
    name = next(d for d in store.digests(KIND) if store.get(KIND, d).key["what"] == "trial")
    before = store.get(KIND, name).arrays["rises"]
    (store.root / KIND / f"{name}-0.npz").unlink()
    calibrating.calibrate(asked[0].read_text(), asked[1], Ask(checkpoints=(3, 12), parts=PARTS), quiet=True)
    np.testing.assert_array_equal(store.get(KIND, name).arrays["rises"], before)


def test_settings_have_noise_and_minibatches_of_their_own(asked: tuple[Path, Path], printed: str):
    # shared ones would make settings agree by having the same errors
    store = Store(asked[1] / "records")
    trials = [r for r in (store.get(KIND, d) for d in store.digests(KIND)) if r.key["what"] == "trial" and r.key["step"] == 12]
    short = [
        r.arrays["rises"] for r in trials if r.key["sampler"]["draws"] == 12 and r.key["sampler"]["chains"] == 1 and r.key["parts"] == ["1:0", "1:1"]
    ]
    assert len(short) == 4
    correlations = np.corrcoef([r.ravel() for r in short])[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 0.75


def test_other_parts_data_and_sampler(asked: tuple[Path, Path], capsys):
    others = ("--parts", "1:0", "1:1", "0:0", "--data", "prose/heldout", "--sampler", "leimkuhler-matthews")
    assert main(call(asked, "--quick", "--checkpoints", "12", *others)) == 0
    text = capsys.readouterr().out
    assert "3 parts at step 12, prose/heldout" in text
    assert 'sampler = "leimkuhler-matthews"' in text
    assert "adds at least 0.0 % to λ̂" in text


def test_nothing_healthy_is_told_with_the_table_and_exit_code_2(asked: tuple[Path, Path], tmp_path: Path, capsys):
    experiment = tmp_path / "e.toml"
    experiment.write_text(
        asked[0]
        .read_text()
        .replace("prior_products = [0.1, 0.15]", "prior_products = [0.5, 0.6]")
        .replace("localization = 200", "localization = 900")
    )
    stale = asked[1] / "calibration" / "calibration.toml"
    stale.parent.mkdir(exist_ok=True)
    stale.write_text("[sampler]\n")
    assert main(call((experiment, asked[1]), "--checkpoints", "12")) == 2
    told = capsys.readouterr()
    assert "Nothing can be recommended" in told.out
    assert "No setting of the grid is healthy" in told.err
    assert "smaller calibration.loss_products" in told.err
    assert not stale.exists(), "an earlier fragment would be taken for today's"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (["--checkpoints", "5"], "step 5"),
        (["--parts", "9:9"], "9:9"),
        (["--data", "poems"], "poems"),
    ],
)
def test_what_is_not_there(asked: tuple[Path, Path], change, match, capsys):
    assert main(call(asked, *change)) == 2
    assert match in capsys.readouterr().err


def test_before_training(asked: tuple[Path, Path], tmp_path: Path, capsys):
    assert main(call((asked[0], tmp_path / "none"))) == 2
    assert "Run `rllc train` first" in capsys.readouterr().err


def test_a_sampler_without_a_grid(asked: tuple[Path, Path], tmp_path: Path, capsys):
    experiment = tmp_path / "e.toml"
    experiment.write_text(asked[0].read_text().replace('sampler = "sgld"', 'sampler = "sgnht"'))
    assert main(call((experiment, asked[1]))) == 2
    assert "--sampler sgld" in capsys.readouterr().err


def test_default_checkpoints_leave_the_untrained_model_out():
    assert spread([0, 10]) == (10,)
    assert spread([0]) == (0,)
    assert spread(range(0, 1000, 100)) == (300, 600, 900)


def test_settings_off_the_grid_are_tried_too(asked: tuple[Path, Path], tmp_path: Path, capsys):
    experiment = tmp_path / "e.toml"
    experiment.write_text(asked[0].read_text().replace("localization = 200", "localization = 250"))
    assert main(call((experiment, asked[1]), "--parts", *PARTS, "--checkpoints", "12")) == 0
    text = capsys.readouterr().out
    assert "the experiment's own ε 0.001, γ 250, nβ 30: " in text
    assert Setting(0.015, 0.125, 30.0).localization == pytest.approx(250)


def test_a_run_calibrates_where_it_is_asked_to_and_once(finished: Path, tmp_path: Path) -> None:
    """After its cells; what `rllc calibrate` finds in the same folder is the same, and takes no chain."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (path := tmp_path / "e.toml").write_text((finished / "experiment.toml").read_text() + GRID + "in_run = true\n")
    command = [str(path), "--out", str(folder), "--quiet"]
    assert main(["sample", *command]) == 0
    files = {file: file.stat().st_mtime_ns for file in (folder / "calibration").iterdir()}
    told = json.loads((folder / "calibration" / "calibration.json").read_text())
    assert (folder / "log.jsonl").read_text().count("Calibrated: ") == 1
    assert "calibrate" in json.loads((folder / "timings.json").read_text())
    records = Store(folder / "records").digests(KIND)
    assert main(["sample", *command]) == 0
    assert {file: file.stat().st_mtime_ns for file in (folder / "calibration").iterdir()} == files
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["calibrate", *command]) == 0
    assert Store(folder / "records").digests(KIND) == records
    again = json.loads((folder / "calibration" / "calibration.json").read_text())
    assert again | {"seconds": 0} == told | {"seconds": 0}
