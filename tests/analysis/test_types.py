from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted_curves import STEPS, TRUTH, behaviour

from rllc.analysis.findings import Behaviour
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.types import head_types
from rllc.core.errors import RllcError

NAMES = ("induction", "previous-token", "other")


def test_planted_types_are_found_and_their_thresholds_stated() -> None:
    found = head_types(behaviour(), AnalysisSettings())
    assert found.types == tuple(NAMES[kind] for kind in TRUTH)
    np.testing.assert_allclose(found.score, np.choose(TRUTH, [0.5, 0.6, 0.1]))
    assert found.step == STEPS[-1]
    assert found.thresholds == {"previous_token": 0.3, "current_token": 0.3, "prefix_matching": 0.3}


def test_another_checkpoint_decides_when_asked() -> None:
    assert set(head_types(behaviour(), AnalysisSettings(), step=0).types) == {"other"}
    with pytest.raises(ValueError, match="7 is not in list"):
        head_types(behaviour(), AnalysisSettings(), step=7)


def scores(previous: float, current: float, prefix: float) -> Behaviour:
    named = {"previous_token": previous, "current_token": current, "prefix_matching": prefix}
    return Behaviour(("0:0",), np.array([5]), {name: np.array([[value]]) for name, value in named.items()}, (), np.zeros((0, 1)), np.zeros(1))


@pytest.mark.parametrize(
    ("values", "type_", "score"),
    [
        ((0.3, 0.0, 0.0), "previous-token", 0.3),
        ((0.29, 0.0, 0.0), "other", 0.29),
        ((0.4, 0.5, 0.3), "current-token", 0.5),
        ((0.6, 0.0, 0.35), "induction", 0.35),  # 3.5 times its threshold against twice
        ((float("nan"), 0.0, 0.35), "induction", 0.35),
    ],
)
def test_the_score_farthest_beyond_its_threshold_decides(values: tuple[float, float, float], type_: str, score: float) -> None:
    settings = AnalysisSettings(prefix_matching=0.1) if values[0] == 0.6 else AnalysisSettings()
    found = head_types(scores(*values), settings)
    assert found.types == (type_,)
    assert found.score.tolist() == [score]


def test_heads_without_scores_are_other_with_no_score() -> None:
    unknown = head_types(scores(*[float("nan")] * 3), AnalysisSettings())
    assert unknown.types == ("other",)
    assert np.isnan(unknown.score).all()
    nothing = head_types(replace(behaviour(), scores={}), AnalysisSettings())
    assert set(nothing.types) == {"other"}
    assert nothing.step == -1


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"previous_token": 0.0}, "previous_token is 0.0.*share of attention"),
        ({"prefix_matching": 1.5}, "prefix_matching is 1.5"),
        ({"methods": ("dbscan",)}, "methods.*kmeans, hierarchical"),
        ({"preprocessing": ("log",)}, "preprocessing.*raw, standardised"),
        ({"n_clusters": 1}, "n_clusters is 1.*0 or a number from 2 on"),
        ({"max_clusters": 1}, "max_clusters is 1"),
        ({"resamples": 1}, "resamples is 1.*from 10 on"),
        ({"stage_window": 0.0}, "stage_window is 0.0"),
    ],
)
def test_settings_out_of_range_are_sentences(values: dict[str, object], match: str) -> None:
    with pytest.raises(RllcError, match=match):
        AnalysisSettings(**values)  # pyright: ignore[reportArgumentType]


def test_brackets_name_heads_that_attention_does_not() -> None:
    told = behaviour()
    attention = head_types(told, AnalysisSettings())
    free = attention.types.index("other")
    named = attention.types.index("induction")
    found = head_types(told, AnalysisSettings(), brackets=(told.heads[free], told.heads[named]))
    assert found.types == tuple("bracket" if i == free else kind for i, kind in enumerate(attention.types))
    assert head_types(replace(told, scores={}), AnalysisSettings(), brackets=told.heads[:1]).types[:2] == ("bracket", "other")
