"""Cells that get more draws: exactly where their chains were kept, with a burn-in of their own where not, and until a target is met."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rllc.core.names import Part
from rllc.records.store import Record, Store
from rllc.records.table import stored_frame
from rllc.runs.agreement import PROMISE
from rllc.runs.doctor import examine
from rllc.runs.experiment import parse
from rllc.runs.keys import STATE
from rllc.runs.layout import RunFolder
from rllc.runs.overview import describe_plan, describe_status
from rllc.runs.pipeline import run_experiment
from rllc.runs.plan import make_plan, state_bytes
from rllc.runs.recording import origin_of, traces_of
from rllc.runs.verifying import verify_run

from .conftest import EXPERIMENT, experiment_text

SHORT = EXPERIMENT[EXPERIMENT.index("[[sample]]") : EXPERIMENT.index("[behaviour]")]  # the whole grid
ONE = '[[sample]]\nparts = ["heads"]\ndata = ["mixture"]\ncheckpoints = [12]\n'


def small(text: str) -> str:
    """The tiny experiment on four heads at one checkpoint."""
    assert SHORT in text
    return text.replace(SHORT, ONE)


def changed(text: str, *changes: tuple[str, str]) -> str:
    text = small(text)
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def run(text: str, out: Path) -> dict[str, Record]:
    run_experiment(text, out, "sample", None, None, quiet=True)
    return {record.meta["part"]: record for record in Store(out / "records").records("sample")}


def log(out: Path) -> str:
    return (out / "log.jsonl").read_text(encoding="utf-8")


KEEP = ("batch_size = 2\n", "batch_size = 2\nkeep_state = true\n")
MORE, MOST = ("draws = 16", "draws = 24"), ("draws = 16", "draws = 30")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The tiny experiment's text, and a run folder with its checkpoints: trained once for all tests here."""
    folder = tmp_path_factory.mktemp("home")
    text = experiment_text(folder)
    run_experiment(small(text), folder / "run", "train", None, None, quiet=True)
    return text, folder / "run"


@pytest.fixture
def tiny(home: tuple[str, Path]) -> str:
    return home[0]


@pytest.fixture
def trained(home: tuple[str, Path], tmp_path: Path) -> Path:
    """A copy of the trained run folder."""
    shutil.copytree(home[1], tmp_path / "run")
    return tmp_path / "run"


def test_kept_chains_go_on_as_one_long_run(tiny: str, trained: Path, home: tuple[str, Path], tmp_path: Path) -> None:
    """Twice prolonged, against a run of the whole length: every trace of every cell, bit for bit, and so the estimate."""
    for change in ((), (MORE,), (MOST,)):
        prolonged = run(changed(tiny, KEEP, *change), trained)
    shutil.copytree(home[1], tmp_path / "long")
    long = run(changed(tiny, MOST), tmp_path / "long")
    assert len(long) == 4
    for part, record in prolonged.items():
        assert record.segments == 3
        for name, array in traces_of(long[part]).arrays().items():
            np.testing.assert_array_equal(traces_of(record).arrays()[name], array, err_msg=f"{part} {name}")
        assert {name: record.meta[name] for name in ("llc", "stderr", "rhat", "outcome", "draws")} == {
            name: long[part].meta[name] for name in ("llc", "stderr", "rhat", "outcome", "draws")
        }
        assert record.meta["prolonged"] == "16 draws; 8 more, exactly as in one run; 6 more, exactly as in one run"
        assert long[part].meta["prolonged"] == ""


def table(out: Path) -> pd.DataFrame:
    return stored_frame(RunFolder(out).store())[["part", "llc", "stderr", "rhat", "draws", "outcome", "reason"]]


def test_a_prolonged_cell_whose_first_segment_is_damaged_is_computed_anew(tiny: str, trained: Path, home: tuple[str, Path], tmp_path: Path) -> None:
    """What went on from the lost segment goes aside with it, and so does the state behind it: all later runs are those that nobody disturbed."""
    for change in ((), (MORE,)):
        run(changed(tiny, KEEP, *change), trained)
    expected = table(trained)
    path = sorted((trained / "records" / "sample").glob("*-0.npz"))[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert run(changed(tiny, KEEP, MORE), trained)
    pd.testing.assert_frame_equal(table(trained), expected, check_exact=True)
    assert "2 kept states of chains were of segments that are there no more" in log(trained)
    found = examine(trained, repair=True)
    assert not [finding.what for _, finding in found.findings if "record" in finding.what and finding.wrong]
    assert verify_run(trained, cells=4, workers=1, quiet=True).passed
    prolonged = run(changed(tiny, KEEP, MOST), trained)
    shutil.copytree(home[1], tmp_path / "long")
    run(changed(tiny, KEEP, MOST), tmp_path / "long")
    after, long = table(trained), table(tmp_path / "long")
    assert after[["part", "draws", "outcome"]].equals(long[["part", "draws", "outcome"]])
    # cells of one unit with unequally many segments are prolonged apart, which the promise covers: nβ times two losses
    np.testing.assert_allclose(after["llc"], long["llc"], rtol=0, atol=30 * 2 * PROMISE["float32"])
    assert sorted(record.segments for record in prolonged.values()) == [2, 3, 3, 3]


def test_a_segment_beside_one_that_it_did_not_go_on_from_is_set_aside(tiny: str, trained: Path) -> None:
    """As stores of earlier versions hold them: a first segment that was computed anew, and the old second one."""
    for change in ((), (MORE,)):
        run(changed(tiny, *change), trained)
    first, second = (sorted((trained / "records" / "sample").glob(f"*-{n}.npz"))[0] for n in (0, 1))
    stale = second.read_bytes()
    first.unlink()
    found = examine(trained)
    assert [f for _, f in found.findings if f.open and "went on from segment 0, which is missing" in f.what]
    expected = run(changed(tiny, MORE), trained)
    assert not second.exists()
    second.write_bytes(stale)
    found = examine(trained)
    assert [f for _, f in found.findings if f.open and "it went on from another segment than the one before it" in f.what]
    before = table(trained)
    assert not second.exists()
    numbers = {record.meta["part"]: record.meta["llc"] for record in expected.values()}
    assert dict(zip(before["part"], before["llc"], strict=True)) == numbers
    assert run(changed(tiny, MOST), trained).keys() == expected.keys()


def test_chains_that_were_not_kept_start_again_and_the_record_says_so(tiny: str, trained: Path) -> None:
    first = run(small(tiny), trained)
    records = run(changed(tiny, MORE), trained)
    for part, record in records.items():
        traces = traces_of(record)
        assert [tuple(segment) for segment in traces.segments] == [(21, 5), (13, 5)]
        assert record.meta["draws"] == len(traces.kept) == 24
        assert record.meta["prolonged"] == "16 draws; 8 more, started again at the checkpoint with a burn-in of their own"
        np.testing.assert_array_equal(traces.losses[0, :, :21], first[part].arrays["losses"])
        np.testing.assert_array_equal(traces.sq_distance[..., 21], 0)
        assert (traces.baseline[0, 21:] != traces.baseline[0, :13]).all()  # minibatches and noise of their own
        origin = origin_of(record)
        assert origin is not None
        assert origin.loss[0] == record.meta["init_loss"]
    before = log(trained)
    assert run(changed(tiny, MORE), trained).keys() == records.keys()
    assert "Prolonging" in before
    assert "Prolonging" not in log(trained)[len(before) :]
    assert "4 cells recorded, 4 planned" in describe_status(trained)


def test_a_target_is_met_or_the_cap_is_and_the_saving_is_told(tiny: str, trained: Path) -> None:
    stopping = ("[sampling]", "[stopping]\ntarget_stderr = 0.2\nmax_draws = 120\n[sampling]")
    records = run(changed(tiny, stopping), trained)
    for record in records.values():
        assert record.meta["draws"] == 120 or record.meta["stderr"] <= 0.2
        assert record.segments == 1
    draws = [record.meta["draws"] for record in records.values()]
    assert min(draws) < 120
    assert f"with {sum(draws):,} draws a chain in all where the cap allows 480" in log(trained)
    assert "up to" in describe_plan(parse(changed(tiny, stopping)))
    tighter = ("[sampling]", "[stopping]\ntarget_stderr = 0.12\nmax_draws = 150\n[sampling]")
    after = run(changed(tiny, tighter), trained)
    for part, record in after.items():
        assert record.meta["draws"] == 150 or record.meta["stderr"] <= 0.12
        assert record.meta["draws"] >= records[part].meta["draws"]


@pytest.mark.parametrize("sampler", ["sgld", "leimkuhler-matthews", "rmsprop-sgld", "sgnht", "mala"])
def test_every_sampler_runs_and_its_state_is_as_large_as_planned(tiny: str, trained: Path, sampler: str) -> None:
    step = {"rmsprop-sgld": "1e-4", "mala": "1e-5"}.get(sampler, "1e-3")
    keep = KEEP if sampler != "mala" else (KEEP[0], f"{KEEP[1]}full_batch = 8\n")
    text = changed(tiny, keep, ('sampler = "sgld"', f'sampler = "{sampler}"'), ("step_size = 1e-3", f"step_size = {step}"))
    records = run(text, trained)
    experiment = parse(text)
    store = Store(trained / "records")
    for record in records.values():
        assert record.meta["outcome"] in ("ok", "drifting", "tilted")
        assert record.meta["sampler"] == sampler
        assert record.meta["halving"] is record.meta["twin"] is None
        key = {"of": record.digest, "segment": 0}
        size = sum(array.nbytes for array in store.get(STATE, key).arrays.values())
        planned = state_bytes(experiment, Part.parse(record.meta["part"]))
        assert planned == pytest.approx(size, rel=0.01)
    assert make_plan(experiment).state_bytes == 4 * planned
    assert "of kept chains" in describe_plan(experiment)


def test_checks_that_cost_something_are_recorded(tiny: str, trained: Path) -> None:
    """ε-halving of every part; the curvature twin of those that are small enough, which a head's queries are, and a head is not."""
    text = changed(tiny, ('parts = ["heads"]', 'parts = ["1:0.Q", "1:1"]'), ("draws = 16", "draws = 8"))
    records = run(text.replace("[engine]", "[checks]\nhalving = true\ntwin_dimension = 100\n[engine]"), trained)
    assert {part: record.meta["twin"] is not None for part, record in records.items()} == {"1:0.Q": True, "1:1": False}
    assert all(record.meta["halving"] is not None for record in records.values())


def test_a_fixed_evaluation_set_and_a_control_variate(tiny: str, trained: Path) -> None:
    plain = run(small(tiny), trained)
    text = changed(
        tiny,
        ("batch_size = 2\n", "batch_size = 2\nfixed_contexts = 8\ncontrol_batches = 8\n"),
        ("burn_in = 4", "burn_in = 4\ncontrol_variate = true"),
    )
    run(text, trained)
    records = [record for record in Store(trained / "records").records("sample") if record.meta["fixed_contexts"] == 8]
    assert len(records) == 4
    for record in records:
        assert record.arrays["fixed_losses"].shape == (2, 21)
        fixed = 30 * (record.arrays["fixed_losses"][:, 5:] - record.meta["fixed_baseline"])
        assert record.meta["llc"] == pytest.approx(fixed.mean())
        assert record.meta["control_variate"]
        assert record.meta["llc"] != plain[record.meta["part"]].meta["llc"]


def test_a_grid_that_has_all_it_wants_is_told_by_the_index_and_no_record_is_read(
    home: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, out = changed(home[0]), tmp_path / "run"
    shutil.copytree(home[1], out)
    run(text, out)
    read, got = Store.get, list[str]()

    def counted(self: Store, kind: str, key: Any) -> Record:
        got.append(kind)
        return read(self, kind, key)

    monkeypatch.setattr(Store, "get", counted)
    run_experiment(text, out, "sample", None, None, quiet=True)
    assert got == []
    run_experiment(changed(home[0], MORE), out, "sample", None, None, quiet=True)
    assert len(got) >= 4  # those that are gone on with are proven
