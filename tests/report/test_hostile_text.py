"""Text of a corpus and of an experiment file stays text wherever it is written: the page, its words, figures as pages, SVG and captions."""

from __future__ import annotations

import importlib.util
import json
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from rllc.figures.drawing import Painted, Plot, Table
from rllc.figures.whole_set import Drawn, write_all
from rllc.report.build import build_report, render
from rllc.report.data import ReportData
from rllc.report.text import report_markdown

HIDDEN = ("\u202e", "\u200b", "\x1b", "\x07")


def _hostile() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rllc_hostile_drawings", Path(__file__).with_name("hostile_drawings.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hostile = _hostile()


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_only_text(html: str, scripts: int) -> None:
    found = Elements(html).found
    assert sum(tag == "script" for tag, _ in found) == scripts
    assert not {"img", "iframe", "object"} & {tag for tag, _ in found}
    for tag, attributes in found:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert not str(attributes.get("href", "")).strip().lower().startswith("javascript"), (tag, attributes)
    for sign in HIDDEN:
        assert sign not in html, hex(ord(sign))


def test_the_page(small: ReportData, kinds: Drawn) -> None:
    evil = render(hostile.hostile_page(replace(small, drawn=kinds)))
    ours = re.sub(r"<script>.*?</script>", "<script></script>", evil, flags=re.S)  # the programs hold such characters on purpose
    assert_only_text(ours, 7)  # three programs and four pieces of data
    assert ours.count("window.hacked") > 100, "it is there, as text"


def test_the_words(whole: ReportData) -> None:
    words = report_markdown(hostile.hostile_page(whole))
    assert "window.hacked" in words
    assert "<" not in words.replace("&lt;", "")
    assert not [sign for sign in HIDDEN if sign in words]


@pytest.fixture(scope="module")
def kinds(whole: ReportData) -> Drawn:
    """A drawing of every kind."""
    found: dict[object, str] = {}
    for name, drawing in whole.drawn.drawings.items():
        panel = drawing.panels[0] if isinstance(drawing, Plot) else None
        found.setdefault((type(drawing), panel and type(panel.layers[0])), name)
    assert {Plot, Table, Painted} <= {kind[0] for kind in found}  # type: ignore[index]
    return Drawn({name: whole.drawn.drawings[name] for name in found.values()}, {"lacking": "because"})


@pytest.fixture(scope="module")
def some(kinds: Drawn) -> Drawn:
    """The same, hostile."""
    pytest.importorskip("matplotlib")
    return hostile.hostile_drawn(kinds)


@pytest.fixture(scope="module")
def files(some: Drawn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of matplotlib, where such names leave a small panel no room
        write_all(some, folder)
    return folder


def test_figures_as_pages(files: Path, some: Drawn) -> None:
    for name, drawing in some.drawings.items():
        assert_only_text((files / f"{name}.html").read_text(encoding="utf-8"), 3 if isinstance(drawing, Plot) else 0)


def test_svg_files_and_captions(files: Path, some: Drawn) -> None:
    for name in some.drawings:
        tree = ElementTree.parse(files / f"{name}.svg")
        for element in tree.iter():
            assert element.tag.rsplit("}", 1)[-1] not in ("script", "foreignObject", "a", "image") or element.tag.endswith("image"), element.tag
            assert not [key for key in element.attrib if key.lower().startswith("on")]
    text = (files / "captions.json").read_text(encoding="utf-8")
    assert "window.hacked" in text
    assert not [sign for sign in HIDDEN if sign in text or sign in str(json.loads(text))]


RUNS = """() => {
  const p = document.createElement("p");
  p.innerHTML = "<img src=x onerror=\\"window.hacked=1\\">";
  p.setAttribute("onclick", "window.hacked=1");
  document.body.append(p);
  p.click();
  const script = document.createElement("script");
  script.textContent = "window.hacked=1";
  document.body.append(script);
  const a = document.createElement("a");
  a.href = "javascript:window.hacked=1";
  document.body.append(a);
  a.click();
}"""


@pytest.mark.browser
def test_nothing_runs_in_a_browser(browser: Any, small: ReportData, kinds: Drawn, some: Drawn, files: Path, tmp_path: Path) -> None:
    """Neither what the page holds, nor a handler, a script or a link that somebody had put into it; nor the pages of figures."""
    page = browser.new_context().new_page()
    build_report(hostile.hostile_page(replace(small, drawn=kinds)), tmp_path / "report.html")
    page.goto((tmp_path / "report.html").as_uri())
    page.evaluate("() => document.querySelector('[data-figure]').scrollIntoView()")  # a figure is drawn once it is seen
    page.wait_for_function("() => document.querySelector('.main-svg')")
    page.wait_for_timeout(300)
    assert page.evaluate("() => window.hacked") is None
    page.evaluate(RUNS)
    page.wait_for_timeout(300)
    assert page.evaluate("() => window.hacked") is None, "the policy of the page forbids it"
    for name, drawing in some.drawings.items():
        page.goto((files / f"{name}.html").as_uri())
        if isinstance(drawing, Plot):
            page.wait_for_function("() => document.querySelector('.main-svg')")
        assert page.evaluate("() => window.hacked ?? document.querySelectorAll('img').length") == 0
