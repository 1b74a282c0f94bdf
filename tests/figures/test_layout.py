from __future__ import annotations

import numpy as np
import pytest

from rllc.figures.layout import Grid, band, spread
from rllc.figures.text import label, visible


def test_text_is_made_visible() -> None:
    assert visible("a\u202eb\u200b\ufeff\x00\t") == "a⟨202E⟩b⟨200B⟩⟨FEFF⟩⟨00⟩⇥"
    assert label("<i>&") == "&lt;i&gt;&amp;"


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_panels_tile_the_figure_without_overlap(columns: int) -> None:
    grid = Grid(7, 4, 2, 100, gap=(20, 30), margin=(50, 10, 40, 30))
    places, height = grid.domains(1040, columns)
    rows = -(-7 // columns)
    assert height == rows * 100 + (rows - 1) * 30 + 70
    for i, (x0, x1, y0, y1) in enumerate(places):
        assert 0 <= x0 < x1 <= 1 + 1e-9
        assert 0 <= y0 < y1 <= 1 + 1e-9
        np.testing.assert_allclose((y1 - y0) * (height - 70), 100)
        assert all(x1 <= p[0] or p[1] <= x0 or y1 <= p[2] or p[3] <= y0 for p in places[i + 1 :])


def test_labels_are_spread_within_the_panel() -> None:
    places = spread([5.0, 5.0, 5.1, 9.99, 0.0], 0, 10, 1)
    assert all(b - a >= 1 - 1e-9 for a, b in zip(sorted(places)[:-1], sorted(places)[1:], strict=True))
    assert min(places) >= 0
    assert max(places) <= 10
    assert spread([], 0, 1, 0.1) == []
    crowded = spread([0.5] * 30, 0, 1, 0.1)
    assert crowded == sorted(crowded)
    assert crowded[0] >= 0
    assert crowded[-1] <= 1


def test_a_band_of_nothing_is_nothing() -> None:
    assert band([1, 2], [np.nan, np.nan], [1, 2], "#000000") is None
