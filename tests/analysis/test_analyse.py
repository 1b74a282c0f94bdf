from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from planted_curves import HEADS, STEPS, TRUTH, behaviour, curves_from, full_curve, head_curves, patterns

from rllc.analysis.aligned import Aligned
from rllc.analysis.analyse import analyse
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Behaviour, Curves, Findings
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.specialisation import specialisation
from rllc.analysis.stored import FORMAT, from_json, patterns_from_arrays, patterns_to_arrays, to_json
from rllc.core.errors import RllcError

SETTINGS = AnalysisSettings(resamples=20, permutations=50)


def same(one: Any, other: Any) -> bool:
    """Equal in type and value all the way down, NaN equal to NaN."""
    if type(one) is not type(other):
        return False
    if is_dataclass(one):
        return all(same(getattr(one, item.name), getattr(other, item.name)) for item in fields(one))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


@pytest.fixture(scope="module")
def story() -> Findings:
    shift = np.where(TRUTH == 0, 4.0, 0.0)
    heads = {"mix": head_curves(0.1), "code": head_curves(0.1, seed=1, data="code", shift=shift)}
    heads["mix"].llc[15, 3] = np.nan
    heads["code"].ci_high[0, 0], heads["code"].ci_low[0, 0] = np.inf, -np.inf
    return analyse(Evidence(heads, {"mix": full_curve(0.5)[0]}, behaviour(), "mix", patterns(), 0.25), SETTINGS, 0)


def test_the_planted_story_is_told_from_end_to_end(story: Findings) -> None:
    found = story
    assert found.clusterings[0].labels.tolist() == TRUTH[:-1].tolist()
    assert found.clusterings[0].left_out == ("1:7",)
    assert all(told.adjusted_rand == 1.0 for told in found.agreements)
    assert len(found.agreements) == len(found.clusterings) == 12
    assert found.stages is not None
    assert len(found.stages.boundaries) == 2
    (special,) = found.specialisation
    assert (special.data, special.reference, special.step) == ("code", "mix", STEPS[-1])
    np.testing.assert_allclose(special.difference, np.where(TRUTH == 0, 4.0, 0.0), atol=0.5)
    np.testing.assert_allclose(special.stderr, 0.1 * np.sqrt(2))
    assert found.planted_share == 0.25
    assert [note for note in found.notes if "1:7" in note]


def test_findings_survive_their_text(story: Findings) -> None:
    text = to_json(story)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert same(from_json(text, story.patterns), story)
    assert from_json(text).patterns is None
    nothing = analyse(Evidence({}, {}, behaviour(), "mix"), SETTINGS, 0)
    assert same(from_json(to_json(nothing)), nothing)


def test_comparison_of_findings_can_fail(story: Findings) -> None:
    other = from_json(to_json(story), story.patterns)
    other.curves["mix"].llc[0, 0] += 1e-12
    assert not same(other, story)


def test_patterns_survive_their_arrays() -> None:
    arrays, meta = patterns_to_arrays(patterns())
    assert all(not array.dtype.hasobject for array in arrays.values())
    assert same(patterns_from_arrays(arrays, json.loads(json.dumps(meta))), patterns())


def test_stored_findings_that_are_newer_or_damaged_are_sentences(story: Findings) -> None:
    text = to_json(story)
    newer = json.dumps({**json.loads(text), "format": FORMAT + 1})
    with pytest.raises(RllcError, match=rf"format {FORMAT + 1} by a newer version.*Update rllc"):
        from_json(newer)
    content = json.loads(text)
    del content["findings"]["types"]["heads"]
    for damaged in (text[:-10], "[]", "{}", json.dumps({"format": 1, "findings": []}), json.dumps(content)):
        with pytest.raises(RllcError, match=r"stored findings are damaged.*Run the analysis again"):
            from_json(damaged)


def test_nothing_measured_gives_reasons_for_everything() -> None:
    empty = Behaviour((), np.array([], dtype=np.int64), {}, (), np.zeros((0, 0)), np.zeros(0))
    found = analyse(Evidence({}, {}, empty, "mix"), SETTINGS, 0)
    assert found.clusterings == found.agreements == found.specialisation == ()
    assert found.stages is None
    assert found.types.types == ()
    assert [note.split(":")[0] for note in found.notes] == ["There are no clusters", "There are no stages", "There is no specialisation"]


def test_every_cell_refused_gives_reasons_for_everything() -> None:
    nan = np.full((16, len(STEPS)), np.nan)
    heads = {"mix": curves_from(nan, np.nan), "code": curves_from(nan, np.nan, data="code")}
    full = {"mix": curves_from(nan[:1], np.nan, ("full",))}
    found = analyse(Evidence(heads, full, behaviour(), "mix"), SETTINGS, 0)
    assert found.clusterings == ()
    assert found.stages is None
    assert np.isnan(found.specialisation[0].difference).all()
    assert np.isnan(found.specialisation[0].stderr).all()
    assert sum("no clusters" in note for note in found.notes) == 6


def test_heads_unknown_to_behaviour_have_no_agreement() -> None:
    renamed = replace(behaviour(), heads=tuple(f"5:{i}" for i in range(16)))
    found = analyse(Evidence({"mix": head_curves(0.1)}, {}, renamed, "mix"), SETTINGS, 0)
    assert found.agreements == ()
    assert any("no agreement" in note for note in found.notes)


def at_steps(data: str, steps: list[int], llc: list[list[float]], heads: tuple[str, ...] = HEADS[:2]) -> Curves:
    return curves_from(np.array(llc), 0.3, heads, np.array(steps), data)


def test_specialisation_compares_the_last_common_checkpoint_and_never_an_earlier_one() -> None:
    curves = {
        "mix": at_steps("mix", [0, 10, 20], [[1, 2, 3], [1, 2, 3]]),
        "code": at_steps("code", [0, 10], [[5, 7], [5, np.nan]]),
        "prose": at_steps("prose", [20], [[2.5], [2.0]], (HEADS[1], HEADS[5])),
        "echo": at_steps("echo", [7], [[1], [1]]),
    }
    found, reasons = specialisation(curves, "mix")
    code, prose = found
    assert code.step == 10
    np.testing.assert_allclose(code.difference, [5.0, np.nan])
    np.testing.assert_allclose(code.stderr, [np.hypot(0.3, 0.3), np.nan])
    assert prose.heads == (HEADS[1],)
    np.testing.assert_allclose(prose.difference, [-0.5])
    assert reasons == ("There is no specialisation on echo: it shares no checkpoint or no head with mix.",)


def test_errors_of_paired_traces_take_the_place_of_independent_ones() -> None:
    curves = {"mix": at_steps("mix", [0], [[1], [1]]), "code": at_steps("code", [0], [[2], [3]])}
    noise = np.arange(8.0) - 3.5
    shared = np.stack([np.full(8, np.nan), noise])[:, None]  # of the first head no draws are known
    apart = shared + 0.1 * (-1.0) ** np.arange(8)
    aligned = {name: Aligned(HEADS[:2], np.array([0]), values[..., :4], values) for name, values in (("mix", shared), ("code", apart))}
    ((code,), _) = specialisation(curves, "mix", aligned)
    np.testing.assert_allclose(code.stderr, [np.hypot(0.3, 0.3), 0.1 / np.sqrt(3)])  # four chains, ±0.1 apart
    assert code.freedom.tolist() == [np.inf, 3.0]
