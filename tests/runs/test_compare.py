from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rllc.analysis.aligned import cells
from rllc.analysis.aligned import difference as cell_difference
from rllc.analysis.curves import curves_of
from rllc.analysis.stored import from_json
from rllc.core.errors import RllcError
from rllc.main import main
from rllc.posterior.difference import difference, holm
from rllc.records.store import Record, Store
from rllc.runs import comparing
from rllc.runs.aligning import aligned_of
from rllc.runs.comparing import compare_run
from rllc.runs.comparison_text import COLUMNS
from rllc.runs.evidence import own_columns
from rllc.runs.recording import traces_of

Key = tuple[int, str, str]
ECHO = "echo/heldout"


def recorded(folder: Path) -> dict[Key, Record]:
    return {(r.meta["step"], r.meta["data"], r.meta["part"]): r for r in Store(folder / "records").records("sample")}


def asked(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """What the command line answers in JSON."""
    assert main(["compare", *map(str, arguments), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def names(answer: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(row["what"], row["a"], row["b"]) for row in answer["comparisons"]]


def changed(monkeypatch: pytest.MonkeyPatch, folder: Path, changes: dict[Key, dict[str, Any]]) -> None:
    """The records of a run, some with another meta."""
    records = recorded(folder)
    for key, meta in changes.items():
        records[key] = replace(records[key], meta=records[key].meta | meta)
    monkeypatch.setattr(comparing, "planned_samples", lambda *_: list(records.values()))


def test_heads_are_compared_each_with_each_on_one_kind_of_data(finished, capsys):
    answer = asked(capsys, finished, "--across", "part", "--data", "prose", "--step", 12)
    heads = ["0:0", "0:1", "1:0", "1:1"]  # 0.attn was sampled there too, and is no head
    assert names(answer) == [("prose, step 12", a, b) for i, a in enumerate(heads) for b in heads[i + 1 :]]
    records = recorded(finished)
    for row in answer["comparisons"]:
        a, b = (records[12, "prose", row[side]] for side in "ab")
        alone = difference(traces_of(a), traces_of(b), shared_noise=False, confidence=0.9)
        assert row["difference"] == pytest.approx(a.meta["llc"] - b.meta["llc"])
        assert (row["llc_a"], row["llc_b"]) == (pytest.approx(a.meta["llc"]), pytest.approx(b.meta["llc"]))
        assert (row["stderr"], row["p"], row["df"]) == (pytest.approx(alone.stderr), pytest.approx(alone.p), alone.df)
        assert row["joint_low"] < row["ci_low"] < row["difference"] < row["ci_high"] < row["joint_high"]
        assert row["aligned"]
    p = np.array([row["p"] for row in answer["comparisons"]])
    np.testing.assert_allclose([row["p_holm"] for row in answer["comparisons"]], holm(p))
    assert answer["compared"] == 6
    assert answer["differ"] == sum(row["p_holm"] <= 0.1 + 1e-12 for row in answer["comparisons"])


def test_minibatches_are_those_of_the_other_head_in_truth(finished):
    """What alignment stands on: the loss at the checkpoint is the same series for all heads of a cell's checkpoint and data."""
    records = recorded(finished)
    np.testing.assert_allclose(records[12, "prose", "0:0"].arrays["baseline"], records[12, "prose", "1:1"].arrays["baseline"], atol=1e-5)
    assert np.std(records[12, "prose", "0:0"].arrays["baseline"]) > 1e-3


def test_kinds_of_data_are_compared_with_one_of_them(finished, capsys):
    answer = asked(capsys, finished, "--across", "data", "--against", "mixture", "--part", "1:0", "L1H1")
    cells = [(part, step) for part in ("1:0", "1:1") for step in (0, 12)]
    assert names(answer) == [(f"{part}, step {step}", data, "mixture") for part, step in cells for data in (ECHO, "prose")]
    records = recorded(finished)
    row = answer["comparisons"][-1]
    alone = difference(traces_of(records[12, "prose", "1:1"]), traces_of(records[12, "mixture", "1:1"]))
    assert (row["difference"], row["stderr"]) == (pytest.approx(alone.difference), pytest.approx(alone.stderr))


def test_kinds_of_data_are_compared_each_with_each_and_the_mixture_is_subtracted(finished, capsys):
    answer = asked(capsys, finished, "--across", "data", "--part", "1:0", "--step", 12)
    assert names(answer) == [("1:0, step 12", ECHO, "prose"), ("1:0, step 12", ECHO, "mixture"), ("1:0, step 12", "prose", "mixture")]


def test_checkpoints_are_compared_each_with_the_one_before(finished, capsys):
    answer = asked(capsys, finished, "--across", "step", "--part", "full")
    assert names(answer) == [("full, mixture", "3", "0"), ("full, mixture", "6", "3"), ("full, mixture", "9", "6"), ("full, mixture", "12", "9")]
    answer = asked(capsys, finished, "--across", "step", "--part", "full", "--step", "0", "12")
    assert names(answer) == [("full, mixture", "12", "0")]
    answer = asked(capsys, finished, "--across", "step", "--part", "full", "--against", "6", "--step", "12", "9")
    assert names(answer) == [("full, mixture", "9", "6"), ("full, mixture", "12", "6")]


def test_parts_that_are_no_heads_are_compared_when_they_are_named(finished, capsys):
    answer = asked(capsys, finished, "--across", "part", "--data", "mixture", "--step", "12", "--part", "full", "1:0")
    assert names(answer) == [("mixture, step 12", "1:0", "full")]
    answer = asked(capsys, finished, "--across", "part", "--step", "12", "--against", "0.attn")
    assert {(what, b) for what, _, b in names(answer)} == {(f"{ECHO}, step 12", "0.attn"), ("prose, step 12", "0.attn")}
    assert asked(capsys, finished, "--across", "part", "--part", "heads", "--data", "mixture", "--step", "0")["compared"] == 6


def test_common_noise_makes_the_difference_of_checkpoints_sharper(finished, capsys):
    """Twelve steps of training change little: the noise of the chains is nearly the same, and cancels."""
    rows = asked(capsys, finished, "--across", "step", "--part", "heads", "--data", "mixture")["comparisons"]
    assert len(rows) == 16
    assert np.mean([row["stderr"] ** 2 for row in rows]) < 0.25 * np.mean([row["stderr_independent"] ** 2 for row in rows])


def test_the_table_is_plain_where_there_is_no_terminal(finished, capsys, monkeypatch):
    changed(monkeypatch, finished, {(12, "prose", "1:0"): {"outcome": "tilted"}})
    assert main(["compare", str(finished), "--across", "data", "--part", "1:0", "1:1"]) == 0
    out, err = capsys.readouterr()
    head, *rest = out.splitlines()
    assert head.split() == list(COLUMNS)
    assert [line[:4].strip() for line in rest[:12]] == ["1:0,", "", "", "1:0,", "", "", "1:1,", "", "", "1:1,", "", ""]  # `what` where it changes
    assert "\x1b" not in out
    assert re.search(r"^12 differences compared, a − b; \d+ differs? from zero at a family-wise level of 10 %", out, re.MULTILINE)
    assert "the cells share the chains' noise" in out
    assert err == ""


def test_without_marks_the_table_has_no_column_for_them(finished, capsys, monkeypatch):
    changed(monkeypatch, finished, {(12, "prose", head): {"outcome": "ok"} for head in ("0:0", "1:0")})
    assert main(["compare", str(finished), "--across", "part", "--part", "0:0", "1:0", "--data", "prose", "--step", "12"]) == 0
    out = capsys.readouterr().out
    assert out.split()[: len(COLUMNS)] == [*COLUMNS[:-1], "prose,"]
    assert "Marked" not in out
    assert "1 difference compared, a − b; " in out


def test_the_table_is_bold_on_a_terminal_where_heads_differ(finished, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(comparing.Comparisons, "differs", lambda _, row: row.b == "0:1")
    assert main(["compare", str(finished), "--across", "part", "--data", "mixture", "--step", "12"]) == 0
    bold = [line for line in capsys.readouterr().out.splitlines() if line.startswith("\x1b[1m")]
    assert len(bold) == 1
    assert "0:1" in bold[0]


def test_csv_has_the_named_columns_and_all_digits_and_says_the_rest_elsewhere(finished, capsys):
    arguments = ["compare", str(finished), "--across", "part", "--data", "prose", "--step", "12"]
    assert main([*arguments, "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert tuple(rows[0])[: len(COLUMNS)] == COLUMNS
    expected = asked(capsys, *arguments[1:])["comparisons"]
    assert [float(row["stderr"]) for row in rows] == [row["stderr"] for row in expected]
    assert {row["aligned"] for row in rows} == {"True"}
    assert "6 differences compared" in err


def test_the_level_is_what_the_confidence_lacks(finished, capsys):
    wide = asked(capsys, finished, "--across", "part", "--data", "prose", "--step", 12, "--confidence", 0.99)["comparisons"]
    narrow = asked(capsys, finished, "--across", "part", "--data", "prose", "--step", 12, "--confidence", 0.5)["comparisons"]
    assert [row["p_holm"] for row in wide] == [row["p_holm"] for row in narrow]
    assert all(w["ci_low"] < n["ci_low"] and w["differs"] <= n["differs"] for w, n in zip(wide, narrow, strict=True))
    assert [row["differs"] for row in narrow] == [row["p_holm"] <= 0.5 for row in narrow]


def test_refused_cells_are_named_and_never_compared(finished, capsys, monkeypatch):
    refused = {"outcome": "nonfinite", "reason": "Chain 1 was not finite at draw 3.", "llc": None, "stderr": None}
    changed(monkeypatch, finished, {(12, "prose", "0:1"): refused})
    answer = asked(capsys, finished, "--across", "part", "--data", "prose", "--step", 12)
    assert [pair[1:] for pair in names(answer)] == [("0:0", "1:0"), ("0:0", "1:1"), ("1:0", "1:1")]
    assert answer["refused"] == ["0:1, prose, step 12: Chain 1 was not finite at draw 3."]
    assert main(["compare", str(finished), "--across", "part", "--data", "prose", "--step", "12"]) == 0
    assert "Refused and not compared: 0:1, prose, step 12: Chain 1 was not finite at draw 3." in capsys.readouterr().out
    assert main(["compare", str(finished), "--across", "part", "--data", "prose", "--step", "12", "--against", "0:1"]) == 2
    assert "There is nothing to compare" in (told := capsys.readouterr().err)
    assert "Chain 1 was not finite" in told


def test_a_checkpoint_that_was_refused_leaves_a_gap_that_is_bridged_and_named(finished, capsys, monkeypatch):
    changed(monkeypatch, finished, {(6, "mixture", "1:0"): {"outcome": "unstable", "reason": "It left."}})
    answer = asked(capsys, finished, "--across", "step", "--part", "1:0", "--data", "mixture")
    assert [pair[1:] for pair in names(answer)] == [("3", "0"), ("9", "3"), ("12", "9")]
    assert answer["refused"] == ["1:0, mixture, step 6: It left."]


def test_marked_cells_are_compared_and_carry_their_mark(finished, capsys, monkeypatch):
    changed(monkeypatch, finished, {(12, "prose", "0:1"): {"outcome": "tilted"}, (12, "prose", "1:0"): {"outcome": "drifting"}})
    rows = asked(capsys, finished, "--across", "part", "--data", "prose", "--step", 12)["comparisons"]
    marks = {(row["a"], row["b"]): row["marks"] for row in rows}
    outcome = recorded(finished)[12, "prose", "0:0"].meta["outcome"]
    assert marks["0:1", "1:0"] == "0:1 tilted; 1:0 drifting"
    assert marks["0:0", "0:1"] == ("" if outcome == "ok" else f"0:0 {outcome}; ") + "0:1 tilted"
    assert main(["compare", str(finished), "--across", "part", "--data", "prose", "--step", "12"]) == 0
    out = capsys.readouterr().out
    assert "0:1 tilted; 1:0 drifting" in out
    assert "Marked cells were compared" in out


def cut(record: Record, evaluations: int) -> Record:
    """A record as it was before its chains were prolonged."""
    arrays = {name: array[..., :evaluations] for name, array in record.arrays.items()}
    (_, discarded), *_ = record.meta["segments"]
    meta = record.meta | {"draws": evaluations - discarded, "segments": [[evaluations, discarded]]}
    return replace(record, arrays=arrays, meta=meta)


def test_a_prolonged_cell_is_compared_by_the_draws_in_common(finished, capsys, monkeypatch):
    records = recorded(finished)
    key = (12, "prose", "0:0")
    records[key] = cut(records[key], 13)
    monkeypatch.setattr(comparing, "planned_samples", lambda *_: list(records.values()))
    (row,) = asked(capsys, finished, "--across", "part", "--data", "prose", "--step", 12, "--part", "0:0", "1:0")["comparisons"]
    expected = traces_of(cut(records[12, "prose", "1:0"], 13))
    assert (row["draws_a"], row["draws_b"]) == (8, 8)
    assert row["llc_b"] == pytest.approx(float(30 * (expected.losses[0] - expected.baseline)[:, 5:].mean()))
    assert row["marks"].endswith("1:0 by 8 of 16 draws")
    assert row["aligned"]


def test_cells_without_draws_in_common_have_independent_errors_and_say_so(finished, capsys, monkeypatch):
    changed(monkeypatch, finished, {(12, "prose", "0:0"): {"step_size": 5e-4}})
    rows = asked(capsys, finished, "--across", "part", "--data", "prose", "--step", 12)["comparisons"]
    assert [row["aligned"] for row in rows] == [False, False, False, True, True, True]
    assert rows[0]["stderr"] == rows[0]["stderr_independent"]
    assert main(["compare", str(finished), "--across", "part", "--data", "prose", "--step", "12"]) == 0
    out = capsys.readouterr().out
    assert "3 pairs had no draws in common (aligned no)" in out
    assert [" no " in f"{line} " for line in out.splitlines()[1:7]] == [True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--across", "part", "--part", "7:7"], r"No cell of part 7:7 is recorded\. Recorded parts: 0:0, 0:1, 1:0, 1:1, 0\.attn, full\."),
        (["--across", "part", "--part", "head"], r"'head' is not a part of a model"),
        (["--across", "data", "--data", "code"], r"No cell of data code is recorded\. Recorded data: echo/heldout, prose, mixture\."),
        (["--across", "data", "--against", "code"], r"No cell of data code is recorded"),
        (["--across", "step", "--step", "5"], r"No cell of step 5 is recorded\. Recorded steps: 0, 3, 6, 9, 12\."),
        (["--across", "step", "--against", "last"], r"'last' is not a training step"),
        (["--across", "part", "--data", "prose", "--step", "3"], r"data prose is recorded together .* recorded on prose at steps 0, 12\."),
        (["--across", "step", "--step", "3"], r"no combination of part and data has cells of two steps"),
        (["--across", "part", "--confidence", "90"], r"The confidence is 90, but must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_compared_is_told_with_what_there_is(finished, capsys, arguments, message):
    assert main(["compare", str(finished), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_folder_without_a_run_or_without_samples(tmp_path, tiny, finished):
    with pytest.raises(RllcError, match="holds no run"):
        compare_run(tmp_path, "part")
    (tmp_path / "experiment.toml").write_text((finished / "experiment.toml").read_text())
    for name in ("corpus", "checkpoints"):
        (tmp_path / name).symlink_to(finished / name)
    with pytest.raises(RllcError, match="holds no sampled cell yet"):
        compare_run(tmp_path, "part")


def test_the_page_s_specialisation_has_the_errors_of_aligned_differences(finished):
    findings, records = from_json((finished / "findings.json").read_text()), recorded(finished)
    assert {s.data for s in findings.specialisation} == {"prose", ECHO}
    for s in findings.specialisation:
        for head, value, stderr in zip(s.heads, s.difference, s.stderr, strict=True):
            alone = difference(traces_of(records[12, s.data, head]), traces_of(records[12, "mixture", head]))
            assert (value, stderr) == (pytest.approx(alone.difference), pytest.approx(alone.stderr))


def test_the_page_s_errors_leave_out_what_is_not_aligned_whole(finished):
    """Refused cells, cells with fewer draws and parts that are no heads; then the page takes errors as independent."""
    records = recorded(finished)
    whole = errors_of(records)
    assert {name: set(errors) for name, errors in whole.items()} == {name: {"0:0", "0:1", "1:0", "1:1"} for name in ("prose", ECHO)}
    alone = difference(*(traces_of(records[12, name, "1:0"]) for name in ("prose", "mixture")))
    assert whole["prose"]["1:0"] == (pytest.approx(alone.stderr), alone.df)
    records[12, "prose", "0:0"] = cut(records[12, "prose", "0:0"], 13)
    records[12, ECHO, "1:0"] = replace(records[12, ECHO, "1:0"], meta=records[12, ECHO, "1:0"].meta | {"outcome": "unstable"})
    records[12, ECHO, "1:1"] = replace(records[12, ECHO, "1:1"], meta=records[12, ECHO, "1:1"].meta | {"nbeta": 31.0})
    some = errors_of(records)
    assert {name: set(errors) for name, errors in some.items()} == {"prose": {"0:1", "1:0", "1:1"}, ECHO: {"0:0", "0:1"}}
    assert some["prose"]["1:0"] == whole["prose"]["1:0"]
    assert aligned_of([], {}) == {}


def errors_of(records: dict[Key, Record]) -> dict[str, dict[str, tuple[float, float]]]:
    """By data and head, the aligned error of the last checkpoint's difference from the mixture, and its degrees of freedom."""
    curves = curves_of(own_columns(list(records.values())), heads=True)
    aligned, last = aligned_of(records.values(), curves), np.array([12])
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for name in curves.keys() - {"mixture"}:
        error = cell_difference(*[cells(curves[which], aligned, curves[name].parts, last) for which in (name, "mixture")])
        known = [i for i in range(len(error.stderr)) if np.isfinite(error.chains[i]).all()]
        found[name] = {curves[name].parts[i]: error[i].one for i in known}
    return found


def test_errors_of_two_heads_are_those_of_their_aligned_traces(finished):
    """The noise of its chains is each head's own: half of the degrees of freedom would be thrown away."""
    records = recorded(finished)
    curves = curves_of(own_columns(list(records.values())), heads=True)["mixture"]
    aligned = aligned_of(records.values(), {"mixture": curves})
    one, other = (cells(curves, aligned, (head,)) for head in ("0:0", "1:1"))
    error = cell_difference(one, other, shared_noise=False)
    for place, step in enumerate(curves.steps.tolist()):
        alone = difference(*(traces_of(records[step, "mixture", head]) for head in ("0:0", "1:1")), shared_noise=False)
        assert error.stderr[0, place] == pytest.approx(alone.stderr)
        assert int(error.df[0, place] + 1e-9) == alone.df
