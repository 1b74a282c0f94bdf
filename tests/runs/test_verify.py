"""Records computed once more: they agree to the bit, and whatever was changed in them is found, their digests made right or not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rllc.core.errors import RllcError
from rllc.core.names import Cell, DataKey, Part
from rllc.posterior.diagnostics import Extras
from rllc.posterior.result import assess, assess_elsewhere
from rllc.records.packing import pack, unpack
from rllc.records.store import Record, Store
from rllc.runs.agreement import PROMISE, compare, untrue
from rllc.runs.pipeline import run_experiment
from rllc.runs.recording import meta_of, origin_of, traces_of
from rllc.runs.sampling import Sample
from rllc.runs.verification_text import render
from rllc.runs.verifying import Verification, verify_run

from .conftest import experiment_text

Change = Callable[[dict[str, Any], dict[str, Any]], None]


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def forge(root: Path, change: Change, chosen: Callable[[Record], bool] = bool) -> list[str]:
    """Change arrays and meta of records and make all their digests right; the cells that were changed."""
    changed = []
    for path in sorted((root / "records" / "sample").iterdir()):
        record, segment = unpack(path.read_bytes())
        if chosen(record):
            arrays, meta = {name: array.copy() for name, array in record.arrays.items()}, dict(record.meta)
            change(arrays, meta)
            path.write_bytes(pack("sample", record.key, arrays, meta, segment))
            changed.append(record.meta["part"])
    assert Store(root / "records").check() == ()  # no digest gives it away
    return changed


def whole(root: Path, cells: int = 45, seed: int = 0) -> Verification:
    return verify_run(root, cells, seed, workers=1, quiet=True)


def test_an_honest_run_agrees_to_the_bit_and_is_left_alone(finished: Path) -> None:
    before = files(finished)
    found = verify_run(finished, cells=4, quiet=True)
    assert found.passed
    assert found.recorded == 45
    assert sum(cell.chosen for cell in found.cells) == 4
    for cell in found.cells:
        assert cell.bits
        assert cell.apart == 0
        assert cell.draws == (16, 16)
    assert files(finished) == before
    text = render(found)
    assert text.count("bit for bit") >= 4
    assert "4 of 45 recorded cells were chosen" in text
    assert "none differs" in text
    assert {c.cell for c in verify_run(finished, 4, seed=1, quiet=True).cells if c.chosen} != {c.cell for c in found.cells if c.chosen}


def of_one(record: Record) -> bool:
    return (record.meta["step"], record.meta["data"], record.meta["part"]) == (9, "mixture", "1:1")


def trace(name: str, place: tuple[int, ...], change: Callable[[float], float]) -> Change:
    """One number of a trace is another."""

    def forged(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
        arrays[name][place] = change(arrays[name][place])

    return forged


def said(name: str, change: Callable[[Any], Any]) -> Change:
    """The record says something else."""

    def forged(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
        if name in meta:
            meta[name] = change(meta[name])

    return forged


def shortened(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    arrays.update({name: array[..., :-2] for name, array in arrays.items()})


def thinned(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    del arrays["stein"]


def moved(by: float) -> Change:
    def forged(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
        arrays["losses"] += by

    return forged


FORGERIES: dict[str, tuple[Change, str]] = {
    "a loss moved by its last bit": (trace("losses", (1, 7), lambda x: np.nextafter(x, 9.0)), "Losses differ by up to"),
    "a baseline": (trace("baseline", (3,), lambda x: x + 0.01), "Losses differ by up to 0.01 nats"),
    "a distance": (trace("sq_distance", (0, 5), lambda x: x + 1), "The losses are equal, but sq_distance is not"),
    "a loss that is no number": (trace("losses", (0, 3), lambda x: x * np.nan), "Losses differ by up to inf"),
    "the number": (said("llc", lambda x: x + 1e-6), "It says llc"),
    "the error": (said("stderr", lambda x: x / 2), "It says stderr"),
    "a diagnostic": (said("rhat", lambda x: x + 1), "It says rhat"),
    "the outcome": (said("outcome", lambda x: "tilted" if x == "ok" else "ok"), "It says outcome"),
    "a trace left out": (thinned, "its traces are not those of its settings and segments"),
    "draws left out": (shortened, "its traces are not those of its settings and segments"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_record_with_right_digests_is_found(copy: Path, name: str) -> None:
    change, message = FORGERIES[name]
    assert forge(copy, change, of_one) == ["1:1"]
    shutil.rmtree(copy / "records" / "compacted")
    for path in (copy / "records" / "sample").iterdir():  # of the rest only what shares its unit, so that little is computed
        record, _ = unpack(path.read_bytes())
        if (record.meta["step"], record.meta["data"]) != (9, "mixture"):
            path.unlink()
    found = whole(copy)
    assert not found.passed
    assert [cell.cell for cell in found.cells if cell.problem] == ["step 9, mixture, 1:1"]
    assert message in render(found)
    assert ": 1 differs." in render(found)


def test_where_something_else_computed_it_the_promise_holds_and_is_told(copy: Path) -> None:
    """Records of another torch may differ by rounding, and by no more."""
    forge(copy, said("torch", lambda x: f"{x}.another"))
    found = whole(copy, cells=2)
    assert found.passed
    assert not any(cell.bits for cell in found.cells)
    assert "to the promise" in render(found)
    assert "1e-06 nats" in render(found)
    chosen = {cell.cell for cell in found.cells}
    forge(copy, moved(0.4 * PROMISE["float32"]))
    rounded = whole(copy, cells=2)
    assert {cell.cell for cell in rounded.cells} == chosen
    assert all(0 < cell.apart <= PROMISE["float32"] for cell in rounded.cells)
    assert not any("Losses" in cell.problem for cell in rounded.cells)
    forge(copy, moved(2 * PROMISE["float32"]))
    assert all("Losses differ" in cell.problem for cell in whole(copy, cells=2).cells)


def elsewhere(change: Change) -> Change:
    """As a record of another torch, which is held to the promise alone."""

    def forged(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
        meta["torch"] = "0.0"
        change(arrays, meta)

    return forged


def unasked(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    """Nothing of its draws is the program's, and all that it says follows from them; by its history none can be computed again."""
    meta["history"][0]["how"] = "restarted"
    arrays["losses"][:, 5:] = arrays["baseline"][5:] + 0.01


def settled(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    meta |= {"outcome": "tilted" if meta["outcome"] == "ok" else "ok", "reason": ""}


def healthy(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    meta |= {"rhat": 1.0, "ess": 1e6, "tilt": 0.0, "outcome": "ok", "reason": ""}


def level(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    """No gradient at the checkpoint, and everything that follows from that."""
    meta["sq_gradient_norm"] = meta["sq_gradient_norm_stderr"] = 0.0
    follow(arrays, meta)


def nearer(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    arrays["sq_distance"] *= 0.999
    follow(arrays, meta)


def follow(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    record = Record("sample", "", {}, arrays, meta)
    meta |= meta_of(traces_of(record), assess(traces_of(record), origin_of(record))[0], origin_of(record))


TO_THE_PROMISE: dict[str, tuple[Change, str]] = {
    "outcome": (settled, "and its own traces say"),
    "diagnostics": (healthy, "and its own traces say"),
    "history": (unasked, "its history is not that of its segment"),
    "gradient": (level, "It says sq_gradient_norm 0, and sampling"),
    "distances": (nearer, "The losses agree, but sq_distance differs by up to"),
}


@pytest.mark.parametrize("name", TO_THE_PROMISE)
def test_a_forged_record_that_says_it_is_of_another_torch_is_found(copy: Path, name: str) -> None:
    change, message = TO_THE_PROMISE[name]
    assert forge(copy, elsewhere(change), of_one) == ["1:1"]
    for path in (copy / "records" / "sample").iterdir():
        record, _ = unpack(path.read_bytes())
        if not of_one(record):
            path.unlink()
    (cell,) = whole(copy).cells
    assert message in cell.problem
    assert not cell.bits


def test_a_cell_of_which_nothing_is_compared_does_not_agree(finished: Path) -> None:
    (record,) = (record for record in Store(finished / "records").records("sample") if of_one(record))
    sample = Sample(Cell(9, DataKey("mixture"), Part.parse("1:1")), record.key, record.arrays, record.meta)
    none = replace(record, meta=record.meta | {"history": [{"draws": 0, "how": "begun"}, {"draws": 16, "how": "restarted"}]})
    assert "none could be computed again" in compare(none, sample, True, "it", ("cpu", "0.0"), False).problem
    assert compare(record, sample, True, "it", ("cpu", "0.0"), False).problem == ""


def test_what_a_check_of_its_own_told_is_no_contradiction(finished: Path) -> None:
    """Halving and twin leave no traces: what a record says of them is taken, and the reason that follows from them."""
    (record,) = (record for record in Store(finished / "records").records("sample") if of_one(record))
    extras = Extras(np.array([5.0]), np.array([0.1]), np.array([1.0]))
    traces, origin = traces_of(record), origin_of(record)
    record = replace(record, meta=record.meta | meta_of(traces, assess(traces, origin, extras=extras)[0], origin))
    assert "half the step size" in record.meta["reason"]
    assert untrue(record) == ""
    older = {name: value for name, value in record.meta.items() if name != "raftery_lewis"}
    assert untrue(replace(record, meta=older)) == ""


@pytest.mark.parametrize("shift", [0.0, 1.0])  # the second drifts there alone
def test_what_was_evaluated_elsewhere_is_held_against_its_chains_record(finished: Path, shift: float) -> None:
    (own,) = (record for record in Store(finished / "records").records("sample") if of_one(record))
    arrays = own.arrays | {"losses": own.arrays["losses"] + shift * np.linspace(0, 1, 21), "baseline": own.arrays["baseline"] - 0.01}
    raw = replace(own, arrays=arrays, meta={name: value for name, value in own.meta.items() if name not in ("origin_batches", "init_loss")})
    traces = traces_of(raw)
    found = assess_elsewhere(assess(traces_of(own), origin_of(own))[0], traces)
    record = replace(raw, meta=raw.meta | meta_of(traces, found, None) | {"evaluated_on": "prose"})
    assert untrue(record, own) == untrue(record) == ""
    for name, value in (("rhat", 9.0), ("stderr", 1e-6)):
        lie = replace(record, meta=record.meta | {name: value})
        assert f"It says {name}" in untrue(lie, own)
        assert f"It says {name}" in untrue(lie)
    for name, value in (("outcome", "tilted"), ("reason", "All is well."), ("sq_distance", 1.0)):
        assert f"It says {name}" in untrue(replace(record, meta=record.meta | {name: value}), own)


def test_a_damaged_record_differs_and_stays_where_it_is(copy: Path) -> None:
    for path in (copy / "records" / "sample").iterdir():
        path.write_bytes(path.read_bytes()[:500])
    before = files(copy)
    found = whole(copy, cells=3)
    assert not found.passed
    assert len(found.cells) >= 3
    assert all("is damaged" in cell.problem for cell in found.cells)
    assert files(copy) == before


def test_chains_that_were_prolonged(tmp_path: Path) -> None:
    """Continued exactly: all draws are computed again, as one run. Started again at the checkpoint: those before."""
    text, out = experiment_text(tmp_path), tmp_path / "run"
    grid = text[text.index("[[sample]]") : text.index("[behaviour]")]
    text = text.replace(grid, '[[sample]]\nparts = ["heads"]\ndata = ["mixture"]\ncheckpoints = [12]\n')
    text = text.replace("batch_size = 2\n", "batch_size = 2\nkeep_state = true\n")

    def longer(draws: int) -> set[str]:
        run_experiment(text.replace("draws = 16", f"draws = {draws}"), out, "sample", None, None, quiet=True)
        return {record.meta["history"][-1]["how"] for record in Store(out / "records").records("sample")}

    def verified(draws: tuple[int, int]) -> None:
        found = whole(out)
        assert found.passed, render(found)
        assert {cell.draws for cell in found.cells} == {draws}
        assert all(not cell.bits and cell.apart <= PROMISE["float32"] for cell in found.cells)
        assert (f"{draws[0]} of {draws[1]}" in render(found)) == (draws[0] < draws[1])

    assert longer(16) == {"begun"}
    assert longer(24) == {"continued"}
    verified((24, 24))
    shutil.rmtree(out / "records" / "state")
    assert longer(30) == {"restarted"}
    verified((24, 30))
    forge(out, said("llc", lambda x: x + 0.01))
    assert all("its own traces say" in cell.problem for cell in whole(out).cells)


def test_nothing_to_verify_is_a_sentence(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(RllcError, match="holds no run"):
        verify_run(tmp_path / "none")
    with pytest.raises(RllcError, match="0 cells are to be verified"):
        verify_run(copy, cells=0)
    shutil.rmtree(copy / "records" / "sample")
    with pytest.raises(RllcError, match="holds no record of what its experiment asks for today"):
        verify_run(copy)
