"""`rllc validate` from the command line: exit codes, formats, workers."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from rllc.core.errors import RllcError
from rllc.main import main
from rllc.posterior.quadratic import Quadratic
from rllc.posterior.validation import cases as listing
from rllc.posterior.validation.cases import Case, Trial, settings_for
from rllc.runs import validating, validation_text

TRUTH = 500 * 0.5 * 30 * 20 / (30 * 20 + 200)


def case(name: str, truth: float, tolerance: float | None = 0.015, curvature: float = 20.0) -> Case:
    def build() -> Quadratic:
        return Quadratic({"w": torch.zeros(1, 500)}, {"w": torch.full((1, 500), curvature)})

    settings = settings_for("leimkuhler-matthews", 1e-3, 200.0, 30.0, chains=4, draws=200, burn_in=50)
    other = replace(settings, sampler="sgnht", burn_in=200)
    return Case(name, "quadratic", "3.1", "by hand", [Trial(settings, build, lambda: truth), Trial(other, build, lambda: truth)], tolerance)


@pytest.fixture
def listed(monkeypatch):
    """Let the cases be these, for this process."""

    def let(*these: Case) -> None:
        monkeypatch.setattr(listing, "all_cases", lambda: these)
        monkeypatch.setattr(listing, "all_derived", lambda: ())
        validating._listed.cache_clear()

    yield let
    validating._listed.cache_clear()


def test_right_answers_are_exit_code_0(listed, capsys):
    listed(case("right", TRUTH), case("told", 1.2 * TRUTH, tolerance=None))
    assert main(["validate", "--workers", "1", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["case", "section", "sampler", "d"]
    assert lines[1].split()[:4] == ["right", "3.1", "leimkuhler-matthews", "500"]
    assert lines[2].split()[:2] == ["sgnht", "500"]  # the case is named once
    assert [line.split()[-1] for line in lines[1:5]] == ["ok", "ok", "told", "told"]
    assert "2 answers judged, 0 beyond tolerance" in lines[-2]


def test_a_wrong_answer_is_exit_code_1(listed, capsys):
    listed(case("right", TRUTH), case("wrong", 1.05 * TRUTH))
    assert main(["validate", "--workers", "1", "--quiet", "--samplers", "leimkuhler-matthews"]) == 1
    out = capsys.readouterr().out
    assert out.count("FAILED") == 1
    assert "2 answers judged, 1 beyond tolerance" in out


def test_a_refused_answer_says_why_and_is_null_in_json(listed, capsys):
    listed(case("unstable", TRUTH, curvature=200.0))
    assert main(["validate", "--workers", "1", "--quiet", "--samplers", "leimkuhler-matthews"]) == 1
    assert "Lower the step size." in capsys.readouterr().out
    assert main(["validate", "--workers", "1", "--quiet", "--samplers", "leimkuhler-matthews", "--format", "json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["estimate"], row["error"], row["passed"], row["truth"]) == (None, None, False, TRUTH)


def test_json_holds_every_number(listed, capsys):
    listed(case("right", TRUTH))
    assert main(["validate", "--workers", "1", "--quiet", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is True
    assert [row["sampler"] for row in found["rows"]] == ["leimkuhler-matthews", "sgnht"]
    for row in found["rows"]:
        assert {"case", "kind", "section", "source", "dimension", "stderr", "tolerance", "outcome", "seconds"} <= set(row)
        assert row["error"] == pytest.approx((row["estimate"] - TRUTH) / TRUTH)


def test_an_unknown_sampler_is_a_users_mistake(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["validate", "--samplers", "hmc"])
    assert ended.value.code == 2
    with pytest.raises(RllcError, match="no sampler 'hmc'"):
        validating.validate(samplers=["hmc"])


def test_progress_is_told_apart_from_the_answer(listed, capsys):
    listed(case("right", TRUTH))
    assert main(["validate", "--workers", "1"]) == 0
    captured = capsys.readouterr()
    assert "validate …" in captured.err
    assert "validate …" not in captured.out


def test_numbers_do_not_depend_on_the_workers(capsys):
    """The real list, on processes of their own, where cases are found by name."""
    there = validating.validate(quick=True, samplers=["rmsprop-sgld"], workers=2, quiet=True)
    assert there.passed
    assert [row.case for row in there.rows] == [case.name for case in listing.all_cases() if "rmsprop-sgld" in case.quick]
    here = validating._run(("quadratic", "rmsprop-sgld"))
    assert replace(here, seconds=0.0) in [replace(row, seconds=0.0) for row in there.rows]


def test_orderings_and_errors_without_a_number_are_told_in_words():
    row = validating.Row("a", "linear network", "3.5", "given", "sgld", 10, math.nan, math.nan, 2.0, math.nan, 0.03, False, "unstable", "Why.", 1.0)
    ordering = validating.comparing.Ordering("sgld", 2, 1, 0.5, math.inf, False)
    text = validation_text.render(validating.Report((row,), (ordering,)), "table")
    assert "Kendall τ 0.500 over 1 pairs" in text.plain
    assert "a, sgld: Why." in text.plain
    assert any("red" in str(span.style) for span in text.spans)
