"""The harness of `rllc validate`: what fails it, what it derives, and that the fixed list holds what it promises."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch

from rllc.posterior.quadratic import Quadratic
from rllc.posterior.settings import SamplerSettings
from rllc.posterior.truths.singular import deep_linear, smooth_llc
from rllc.posterior.validation import linear, validate
from rllc.posterior.validation.cases import EXACT, LINEAR, SAMPLERS, Case, Derived, Trial, all_cases, all_derived, settings_for
from rllc.posterior.validation.validate import Row, derived_rows, orderings, report, run_trial, selected

SHORT = settings_for("leimkuhler-matthews", 1e-3, 200.0, 30.0, chains=4, draws=200, burn_in=50)
TRUTH = 1000 * 0.5 * 30 * 20 / (30 * 20 + 200)


def toy_case(truth: float, tolerance: float | None = EXACT, settings: SamplerSettings = SHORT, curvature: float = 20.0) -> Case:
    def build() -> Quadratic:
        return Quadratic({"w": torch.zeros(1, 1000)}, {"w": torch.full((1, 1000), curvature)})

    return Case("toy", "quadratic", "3.1", "by hand", [Trial(settings, build, lambda: truth)], tolerance)


def row_of(case: Case) -> Row:
    return run_trial(case, case.trials[0])


def row(name: str, estimate: float, truth: float, sampler: str = "sgld", kind: str = "linear network", stderr: float = 0.1) -> Row:
    return Row(name, kind, "3.5", "given", sampler, 10, estimate, stderr, truth, (estimate - truth) / truth, LINEAR, True, "ok", "", 1.0)


def test_a_right_truth_passes_and_a_wrong_one_fails() -> None:
    right, wrong = row_of(toy_case(TRUTH)), row_of(toy_case(1.05 * TRUTH))
    assert right.passed
    assert right.outcome == "ok"
    assert right.dimension == 1000
    assert right.error == pytest.approx((right.estimate - TRUTH) / TRUTH)
    assert wrong.passed is False
    assert wrong.estimate == right.estimate  # the noise is the case's
    assert report([right], []).passed
    assert not report([right, wrong], []).passed


def test_nothing_judged_is_not_a_pass() -> None:
    told = row_of(toy_case(1.05 * TRUTH, tolerance=None))
    assert told.passed is None
    assert not report([told], []).passed
    assert report([told, row_of(toy_case(TRUTH))], []).passed


def test_an_answer_that_its_error_does_not_resolve_fails() -> None:
    short = replace(SHORT, draws=8, chains=2)
    unresolved = row_of(toy_case(TRUTH, tolerance=0.9, settings=short))
    assert unresolved.passed
    assert row_of(toy_case(unresolved.estimate, tolerance=1.9 * unresolved.stderr / unresolved.estimate, settings=short)).passed is False


def test_a_refused_cell_fails() -> None:
    refused = row_of(toy_case(TRUTH, curvature=200.0))  # ε(nβh + γ) = 6.2
    assert refused.outcome in ("unstable", "nonfinite")
    assert math.isnan(refused.estimate)
    assert refused.passed is False
    assert refused.reason


def test_a_truth_of_zero_is_met_exactly_or_not() -> None:
    assert row_of(toy_case(0.0, tolerance=0.0, curvature=0.0)).passed
    assert row_of(toy_case(0.0, tolerance=0.0, curvature=1e-6)).passed is False


def test_rows_are_derived_sampler_by_sampler() -> None:
    rows = [row("a", 10.0, 12.0, stderr=0.3), row("b", 11.0, 12.0, stderr=0.4), row("a", 1.0, 1.0, "sgnht")]
    limit = Derived("limit", "told", "3.5", "", ["a", "b"], (-1 / 3, 4 / 3), None, None)
    agreement = Derived("agreement", "rescaling", "3.7", "", ["a", "b"], (0.0, 1.0), (1.0, 0.0), 0.2)
    one, other = derived_rows(rows, [limit, agreement])
    assert (one.sampler, one.truth, one.passed) == ("sgld", 12.0, None)
    assert one.estimate == pytest.approx(34 / 3)
    assert one.stderr == pytest.approx(math.hypot(0.1, 1.6 / 3))
    assert (other.estimate, other.truth, other.passed) == (11.0, 10.0, True)
    assert other.stderr == pytest.approx(0.5)
    (failed,) = derived_rows([row("a", 10.0, 12.0), row("b", 13.0, 12.0)], [agreement])
    assert failed.passed is False


def test_order_is_judged_where_truths_differ() -> None:
    kept = [row("a", 10.0, 10.0), row("b", 9.9, 10.5), row("c", 20.0, 20.0), row("d", 31.0, 30.0)]
    (ordering,) = orderings(kept)
    assert (ordering.networks, ordering.pairs, ordering.kendall, ordering.passed) == (4, 5, 1.0, True)  # a and b are too near to tell
    assert ordering.median_error == pytest.approx((0.0 + 1 / 30) / 2)
    (swapped,) = orderings([*kept[:2], row("c", 32.0, 20.0), kept[3]])
    assert swapped.kendall == pytest.approx(3 / 5)
    assert not swapped.passed
    (refused,) = orderings([*kept[:3], row("d", math.nan, 30.0)])
    assert refused.kendall == pytest.approx(-1 / 5)
    (far,) = orderings([row(name, 1.06 * truth, truth) for name, truth in (("a", 1.0), ("b", 2.0), ("c", 3.0))])
    assert far.kendall == 1
    assert not far.passed
    assert orderings([row("a", 1.0, 1.0), row("q", 5.0, 5.0, kind="quadratic")]) == []


def test_an_order_that_is_lost_fails_the_report() -> None:
    assert not report([row("a", 1.0, 1.0), row("b", 0.9, 2.0)], []).passed


def test_the_list_holds_every_exact_case() -> None:
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases)
    assert {case.section for case in cases} >= {"2", "3.1", "3.1b", "3.1c", "3.2", "3.3", "3.4", "3.5", "3.6", "3.7"}
    for case in cases:
        samplers = [trial.settings.sampler for trial in case.trials]
        assert len(set(samplers)) == len(samplers)
        assert set(case.quick) <= set(samplers)
        assert case.tolerance is None or case.tolerance <= (LINEAR if case.kind in ("linear network", "rescaling") else EXACT)
    assert (EXACT, LINEAR, validate.LEAST_KENDALL, validate.LARGEST_MEDIAN) == (0.015, 0.03, 0.95, 0.05)
    names = {case.name for case in cases}
    assert all(set(one.needs) <= names for one in all_derived())


def test_the_quick_list_has_every_judged_kind_and_every_sampler() -> None:
    quick = selected(quick=True)
    assert {trial.settings.sampler for _, trial in quick} == set(SAMPLERS)
    assert {case.kind for case, _ in quick} == {case.kind for case in all_cases() if case.tolerance is not None}
    assert len(quick) < len(selected()) / 3
    assert {trial.settings.sampler for _, trial in selected(["mala", "sgnht"])} == {"mala", "sgnht"}


def test_networks_are_those_that_were_promised() -> None:
    assert len(linear.SHAPES) >= 12
    assert {len(shape.widths) - 1 for shape in linear.SHAPES} == {2, 3, 4, 5}
    points = [shape.point() for shape in linear.SHAPES]
    assert 9e4 < max(point.parameters for point in points) <= 1e5
    truths = [smooth_llc(point.weights) for point in points]
    apart = [(a, b) for a, b in combinations(truths, 2) if abs(a - b) > 0.1 * min(a, b)]
    assert len(apart) > 0.95 * math.comb(len(truths), 2)
    minimal = [shape for shape in linear.SHAPES if shape.stratum]
    assert len(minimal) >= 3
    for shape, point, truth in zip(linear.SHAPES, points, truths, strict=True):
        assert 2 * truth == len(point.curvatures)
        least = deep_linear(shape.widths, shape.rank).llc
        assert truth == least if shape.stratum else truth >= least
    # elsewhere the local value is really another one, by up to a quarter
    assert max(t / deep_linear(s.widths, s.rank).llc for s, t in zip(linear.SHAPES, truths, strict=True)) > 1.2


def test_metropolis_is_kept_to_low_dimensions() -> None:
    for case, trial in selected(["mala"]):
        dimension = sum(w[0].numel() for w in trial.build().origin.values())
        assert dimension <= 50, case.name


CHEAP = {
    ("quadratic", "sgld"),
    ("quadratic", "rmsprop-sgld"),
    ("quadratic, from w* on", "leimkuhler-matthews"),
    ("quadratic, two of three tensors", "leimkuhler-matthews"),
    ("quadratic, tilted", "sgnht"),
    ("Stein ratio of flat directions", "sgld"),
    ("gradient ratio of w^6", "leimkuhler-matthews"),
    ("curvature twin of 5-4-6-3 rank 2", "leimkuhler-matthews"),
    ("20-25-20 rank 5", "leimkuhler-matthews"),
    ("tensor that the loss leaves out", "mala"),
    ("below a read-out of zero", "sgnht"),
}


@pytest.mark.parametrize(
    ("case", "trial"), [pytest.param(c, t, id=f"{c.name}, {t.settings.sampler}") for c, t in selected() if (c.name, t.settings.sampler) in CHEAP]
)
def test_cheap_cases_as_they_are(case: Case, trial: Trial) -> None:
    assert run_trial(case, trial).passed


def test_the_cheap_ones_are_there() -> None:
    assert {(case.name, trial.settings.sampler) for case, trial in selected()} >= CHEAP


@pytest.mark.parametrize(("case", "trial"), [pytest.param(c, t, id=f"{c.name}, {t.settings.sampler}") for c, t in selected(quick=True)])
def test_the_quick_list_runs(case: Case, trial: Trial) -> None:
    """A few steps of each, right or wrong: the losses are met, the truths computed."""
    brief = replace(trial, settings=replace(trial.settings, draws=12, burn_in=4, chains=2))
    seen = run_trial(case, brief)
    assert math.isfinite(seen.estimate)
    assert math.isfinite(seen.truth)
    assert seen.outcome in ("ok", "drifting", "tilted")
