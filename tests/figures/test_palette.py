from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from rllc.core.outcome import Outcome
from rllc.figures import palette
from rllc.figures.palette import DARK, DATA, INK, MIXTURE, MUTED, OUTCOMES, PANEL, PAPER, TYPES, data_styles, type_color, type_style

# Machado, Oliveira and Fernandes 2009, severity 1
BLINDNESS = {
    "none": np.eye(3),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
}


def linear(color: str) -> np.ndarray:
    c = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    high, low = sorted((float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def themed(color: str, dark: bool) -> str:
    return DARK[color] if dark else color


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("styles", [tuple(TYPES.values()), (MIXTURE, *DATA[:4])], ids=["types", "data"])
def test_lines_differ_for_every_kind_of_sight(styles: tuple[palette.Style, ...], blindness: str, dark: bool) -> None:
    seen = [lab(BLINDNESS[blindness] @ linear(themed(s.color, dark))) for s in styles]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) > 17


@pytest.mark.parametrize("dark", [False, True])
def test_lines_and_text_stand_out_from_the_page(dark: bool) -> None:
    for background in (themed(PAPER, dark), themed(PANEL, dark)):
        for style in (*TYPES.values(), MIXTURE, *DATA):
            assert contrast(themed(style.color, dark), background) >= 3, style
        for text in (INK, MUTED, *(type_color(t) for t in TYPES)):
            assert contrast(themed(text, dark), background) >= 4.5, text
    for name, fill in OUTCOMES.items():
        label = PAPER if palette.MARKS[name] == "×" else INK
        assert contrast(themed(label, dark), themed(fill, dark)) >= 4.5, name


def test_every_colour_has_a_dark_twin_and_no_two_share_one() -> None:
    drawn = {PAPER, PANEL, INK, MUTED, palette.RULE, palette.FAINT, *OUTCOMES.values(), *(s.color for s in (*TYPES.values(), *DATA, MIXTURE))}
    assert drawn <= set(DARK)
    assert len(set(DARK.values())) == len(DARK)
    assert not set(DARK) & set(DARK.values()), "a colour restyled twice would change again"


def test_types_and_data_differ_by_more_than_colour() -> None:
    for styles in (list(TYPES.values()), list(DATA[:3])):
        assert len({(s.dash, s.symbol) for s in styles}) == len(styles)
    assert set(OUTCOMES) == {o.value for o in Outcome} | {""}


def test_styles_of_data_put_the_mixture_in_ink_and_never_fail() -> None:
    names = [f"d{i}" for i in range(9)]
    styles = data_styles([*names, "train"], "train")
    assert styles["train"] is MIXTURE
    assert len(styles) == 10
    assert "train" not in data_styles(names, "train")
    assert type_style("something new") is TYPES["other"]
    assert [TYPES["induction"].line, TYPES["current-token"].line] == ["-", "--"]
