from __future__ import annotations

from pathlib import Path

import pytest

from rllc.core.errors import RllcError
from rllc.main import main
from rllc.records.store import Store
from rllc.runs.explaining import explain_cells, rows_of


def test_every_diagnostic_is_told_with_its_verdict(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(finished), "--part", "L1H0", "--data", "mixture", "--step", "12"]) == 0
    text = capsys.readouterr().out
    record = next(
        r for r in Store(finished / "records").records("sample") if (r.meta["part"], r.meta["data"], r.meta["step"]) == ("1:0", "mixture", 12)
    )
    assert text.startswith(
        f"step 12, mixture, 1:0: {record.meta['outcome']}, {record.meta['llc']:.3g} ± {record.meta['stderr']:.2g}; 2 chains × 16 draws"
    )
    for name in (
        "finite",
        "stiffness",
        "rhat",
        "stein_ratio",
        "tilt",
        "step_limit",
        "geweke",
        "heidelberger_welch",
        "acceptance",
        "[checks] halving",
    ):
        assert name in text


def test_the_verdicts_are_those_of_the_record(finished: Path) -> None:
    """Made anew from the stored traces, they say what the record said."""
    for record in Store(finished / "records").records("sample"):
        rows = rows_of(record)
        worst = {verdict.split(":")[0] for _, _, _, verdict in rows if verdict} - {"ok"}
        assert (record.meta["outcome"] in worst) if worst else record.meta["outcome"] == "ok"
        assert all(verdict.split(": ", 1)[1] in record.meta["reason"] for _, _, _, verdict in rows if ": " in verdict)


def test_a_refused_cell_says_why(finished: Path, tmp_path: Path) -> None:
    record = next(Store(finished / "records").records("sample"))
    losses = record.arrays["losses"].copy()
    losses[1, 9] = float("nan")
    record.arrays["losses"] = losses
    verdicts = {name: verdict for name, _, _, verdict in rows_of(record)}
    assert verdicts["finite"].startswith("nonfinite: Of 2 chains, counted from 0, these stopped being finite: 1 at step 9.")
    assert verdicts["drift"] == ""  # nothing else can be said


def test_names_that_match_nothing(finished: Path) -> None:
    with pytest.raises(RllcError, match=r"No cell of part 1:1\.Q is recorded\. Recorded parts: 0:0"):
        explain_cells(finished, parts=["1:1.Q"])
    marked = [r for r in Store(finished / "records").records("sample") if r.meta["outcome"] != "ok"]
    if marked:
        assert len(explain_cells(finished)) == len(marked)
    else:
        with pytest.raises(RllcError, match=r"No cell of .* is marked or refused"):
            explain_cells(finished)


def test_checks_that_traces_cannot_tell_come_from_the_record(finished: Path) -> None:
    """ε-halving and the curvature twin were measured beside the chains: their numbers, and the advice, must not be lost."""
    record = next(r for r in Store(finished / "records").records("sample") if r.meta["outcome"] == "ok")
    record.meta.update(halving=-5 * abs(record.meta["llc"]), halving_stderr=0.01 * abs(record.meta["llc"]), twin=1.25)
    told = {name: (value, verdict) for name, value, _, verdict in rows_of(record)}
    assert told["halving"][1].startswith("ok: At half the step size the estimate changes by")
    assert told["twin"][0] == "1.25"
