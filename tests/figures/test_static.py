from __future__ import annotations

import struct
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rllc.analysis.findings import Findings
from rllc.core.errors import RllcError
from rllc.figures.curves import picked
from rllc.figures.printing import DPI
from rllc.figures.static import write_static

pytest.importorskip("matplotlib")
NAMES = ("loss_and_stages", "heads", "clusters", "domains", "specialisation", "behaviour")


def png_dpi(content: bytes) -> float:
    """Dots an inch, from the chunk that says dots a metre."""
    assert content.startswith(b"\x89PNG")
    at = content.index(b"pHYs") + 4
    return struct.unpack(">I", content[at : at + 4])[0] * 0.0254


@pytest.fixture(scope="module")
def written(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    paths = write_static(synthetic.findings(layers=1), tmp_path_factory.mktemp("figures"), "train")
    return {p.name: p.read_bytes() for p in paths}


def test_every_main_figure_is_written_twice(written: dict[str, bytes]) -> None:
    assert set(written) == {f"{name}.{ending}" for name in NAMES for ending in ("png", "svg")}
    for name, content in written.items():
        if name.endswith("png"):
            assert png_dpi(content) == pytest.approx(DPI, abs=0.1)
        else:
            assert b"<svg" in content
            assert b"<dc:date>" not in content


def test_the_same_findings_give_the_same_bytes(synthetic: ModuleType, tmp_path: Path) -> None:
    f = synthetic.findings()
    few = replace(f, curves={"train": picked(f.curves["train"], [0, 11])}, clusterings=(), full={}, behaviour=replace(f.behaviour, scores={}))
    first, second = ({p.name: p.read_bytes() for p in write_static(few, tmp_path / name)} for name in "ab")
    assert len(first) == 8
    assert first == second


def test_what_cannot_be_drawn_is_left_out(synthetic: ModuleType, tmp_path: Path) -> None:
    f: Findings = synthetic.findings(layers=1, steps=np.array([0, 1000]))
    bare = replace(f, stages=None, specialisation=(), clusterings=(), full={}, behaviour=replace(f.behaviour, scores={}))
    assert {p.stem for p in write_static(bare, tmp_path)} == {"loss_and_stages", "heads", "domains"}
    nothing = replace(bare, curves={}, behaviour=replace(bare.behaviour, data=(), losses=np.empty((0, 2))))
    assert write_static(nothing, tmp_path) == []


def test_a_refused_curve_and_five_clusters_still_draw(synthetic: ModuleType, tmp_path: Path) -> None:
    f = synthetic.all_refused(synthetic.findings(), "train", "0:1")
    five = replace(f.clusterings[0], heads=f.curves["train"].parts, labels=np.arange(16) % 5)
    behaviour = replace(f.behaviour, scores={}, data=(), losses=np.empty((0, 12)))
    only = replace(
        f, clusterings=(five,), curves={"train": picked(f.curves["train"], [0, 1, 2, 3, 8])}, specialisation=(), behaviour=behaviour, full={}
    )
    assert {p.stem for p in write_static(only, tmp_path)} == {"heads", "clusters", "domains"}


def test_without_matplotlib_a_sentence_says_so(findings: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RllcError, match=r"drawn by matplotlib, which is not installed. Install it with: pip install 'rllc\[paper\]'"):
        write_static(findings, tmp_path)
