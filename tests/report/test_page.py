from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rllc.analysis.findings import Findings, Patterns
from rllc.core.errors import RllcError
from rllc.report.build import bounded, build_report, colors, render
from rllc.report.data import LEFT_OUT, ReportData, cells, mixture_of, table_rows
from rllc.report.patterns import pack, thin


class Reader(HTMLParser):
    """The page as a reader meets it: text outside scripts and styles, and every element with its attributes."""

    void = frozenset({"meta", "br", "input", "img", "link", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.elements, self.open = "", [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closes another element"

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text += data


def embedded(html: str, name: str) -> Any:
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', html, re.S)[1])  # type: ignore[index]


@pytest.fixture(scope="module")
def reader(html: str) -> Reader:
    return Reader(html)


def test_the_page_is_well_formed_and_of_bearable_size(html: str, reader: Reader) -> None:
    assert reader.open == []
    assert len(html.encode()) < 8e6
    ids = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(ids) == len(set(ids))
    targets = [str(a["href"])[1:] for tag, a in reader.elements if tag == "a" and str(a.get("href")).startswith("#")]
    assert set(targets) <= set(ids)
    assert [t for t in targets if t != "main"] == [
        "summary", "run", "claims", "stages", "heads", "clusters", "specialisation", "behaviour", "patterns-of-attention", "circuit",
        "beside", "seeds", "health", "numbers", "notes",
    ]  # fmt: skip


def test_nothing_is_fetched(reader: Reader) -> None:
    for tag, attributes in reader.elements:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base")
        assert "src" not in attributes
        assert not str(attributes.get("href", "#")).startswith(("http", "//"))
        assert not [name for name in attributes if name.startswith("on")], "inline handlers"


def test_the_policy_names_exactly_the_scripts_of_the_page(html: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#x27;", "'")  # type: ignore[index]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split("; ")}
    assert rules["default-src"] == ["'none'"]
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    scripts = re.findall(r"<script>(.*?)</script>", html, re.S)
    assert len(scripts) == 3
    assert rules["script-src"] == [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]


def test_the_findings_are_told(reader: Reader) -> None:
    for words in (
        "2 previous-token heads (0:1 and 0:4), 1 current-token head (0:5), 2 induction heads (1:6 and 1:7) and 11 of no named type",
        "Prefix matching reaches its threshold of 0.3 and stays there: 1:6 and 1:7 from step 1,800.",
        "turns twice, which bounds its stages: step 330 (264 to 412), in 93 % of resamples",
        "Stability under resampling: 0.88 (0.70 to 1.00).",
        "adjusted Rand index): 0.71, by chance within layers −0.12 to 0.19.",
        "1 refused (1 unstable)",
        "Left out for want of a complete curve: 1:3.",
        "Not sampled on its own: brackets.",
        "corpus.sources[1].kind = 'echo'",
        "The learning rate warms up over 100 steps.",
        "Head 1:3 left the clustering",
        "10 min 31 s",
    ):
        assert words in reader.text, words


def test_every_section_that_speaks_of_induction_says_what_was_planted(html: str) -> None:
    said = "25 % of the training text was planted (echo)"
    sections = re.findall(r'<section id="([\w-]+)".*?</section>', html, re.S)
    bodies = dict(zip(sections, re.findall(r"<section id=.*?</section>", html, re.S), strict=True))
    for name in ("summary", "heads", "clusters", "specialisation", "behaviour", "patterns-of-attention"):
        assert said in bodies[name], name
    for name, body in bodies.items():
        assert "induction" not in body or said in body or name in ("stages", "run", "numbers", "notes", "health"), name


def test_no_planted_text_is_said_as_well(small: ReportData) -> None:
    text = Reader(render(replace(small, findings=replace(small.findings, planted_share=0.0)))).text
    assert "No planted text was in the training mixture." in text
    assert "was planted (" not in text


def test_the_refused_cell_stands_with_its_reason(html: str, data: ReportData, small: ReportData) -> None:
    health = html[html.index('<section id="health"') :]
    assert "A chain left the neighbourhood that the localization allows" in health
    row = re.search(r"<th scope=\"row\">1:3</th>.*?</tr>", health, re.S)[0]  # type: ignore[index]
    assert "1,000" in row
    assert "unstable" in row
    refused = [r for r in cells(data) if r["outcome"] == "unstable"]
    told = replace(small, table=[{**r, "reason": "Chain 2 went away."} for r in refused])
    assert "Chain 2 went away." in render(told)


def test_all_figures_of_the_page_are_embedded(html: str, reader: Reader) -> None:
    placed = [a["data-figure"] for _, a in reader.elements if "data-figure" in a]
    figures = embedded(html, "figures")
    assert sorted(figures) == sorted(placed)
    assert {"losses", "full", "heads", "clusters-0", "confusion-0", "tree-1", "domains", "specialisation", "scores", "health"} <= set(placed)
    assert all(a.get("aria-label") for _, a in reader.elements if "data-figure" in a)


def test_the_table_is_embedded_whole(html: str, data: ReportData) -> None:
    found = embedded(html, "cells")
    columns, rows = table_rows(data)
    assert found["columns"] == columns
    assert found["rows"] == [list(r.values()) for r in rows]
    refused = next(r for r in rows if r["outcome"] == "unstable")
    assert refused["llc"] is None


def test_attention_survives_packing(html: str, data: ReportData) -> None:
    found, patterns = embedded(html, "patterns"), data.findings.patterns
    assert patterns is not None
    for packed, weights in zip(found["weights"], patterns.weights, strict=True):
        np.testing.assert_array_equal(np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8).reshape(weights.shape), weights)
    assert found["first"] == [2, patterns.heads.index("1:6")], "an induction head on the planted snippet"
    assert "⟨202E⟩" in found["tokens"][0]
    assert "\u202e" not in html


def test_heavy_patterns_lose_checkpoints_but_never_the_last(data: ReportData, small: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = data.findings.patterns
    assert patterns is not None
    light = thin(patterns, budget=200_000)
    assert 2 <= len(light.steps) < len(patterns.steps)
    assert light.steps[-1] == patterns.steps[-1]
    assert light.steps[0] == patterns.steps[0]
    np.testing.assert_array_equal(light.weights[0][-1], patterns.weights[0][-1])
    assert thin(patterns) is patterns
    from rllc.report import inspection

    monkeypatch.setattr(inspection, "thin", lambda p: thin(p, 1))
    assert f"2 of {len(patterns.steps)} checkpoints are here" in render(replace(small, findings=replace(small.findings, patterns=patterns)))


def test_patterns_without_a_named_type_or_planted_text_start_at_the_first() -> None:
    p = Patterns(("0:0", "0:1"), np.array([1]), ("code",), (("", "a"),), (np.zeros((1, 2, 2, 2), np.uint8),))
    packed = pack(p, {})
    assert packed["first"] == [0, 0]
    assert packed["tokens"] == [["∅", "a"]]
    assert pack(p, {"0:1": "current-token"})["first"] == [0, 1]


EVIL = "</script><script>hacked=1</script><img src=x onerror=hacked=1>\u202e"


def test_text_from_outside_stays_text(small: ReportData) -> None:
    f = small.findings
    assert f.patterns is not None
    tokens = tuple(tuple(EVIL for _ in t) for t in f.patterns.tokens)
    f = replace(f, patterns=replace(f.patterns, tokens=tokens, snippets=(EVIL, "b", "c")), notes=(EVIL,))
    hostile = replace(
        small,
        findings=f,
        title=EVIL,
        notes=(EVIL,),
        settings={EVIL: EVIL},
        model={EVIL: EVIL},
        machine={EVIL: EVIL},
        seconds={EVIL: 1.0},
        created=EVIL,
        domains=tuple(replace(d, name=EVIL, description=EVIL) for d in small.domains),
        table=[{**r, "data": EVIL, "part": EVIL, "reason": EVIL, "outcome": "unstable"} for r in cells(small)[:2]],
    )
    reader = Reader(render(hostile))
    assert [tag for tag, _ in reader.elements].count("script") == 7, "three programs and four pieces of data"
    assert "img" not in [tag for tag, _ in reader.elements]
    assert reader.text.count("<script>hacked=1") > 8
    assert "\u202e" not in reader.text


def variant(synthetic: ModuleType, data: ReportData, **changes: Any) -> ReportData:
    f: Findings = replace(data.findings, **changes)
    return replace(data, findings=f, table=synthetic.table(f))


def test_what_is_missing_is_said(synthetic: ModuleType, data: ReportData) -> None:
    f = data.findings
    bare = replace(
        variant(synthetic, data, patterns=None, stages=None, clusterings=(), agreements=(), specialisation=(), curves={"train": f.curves["train"]}),
        settings={}, model={}, domains=(), sampler={}, machine={}, versions={}, seconds={}, table=(), notes=(), created="",
    )  # fmt: skip
    html = render(bare)
    text = Reader(html).text
    for words in (
        "Attention patterns were not recorded",
        "Stages were not found",
        "Heads were not clustered",
        "Only one kind of data was sampled",
        "There is no table of cells to download",
        "The shape of the model was not recorded",
    ):
        assert words in text, words
    assert 'id="patterns"' not in html
    assert "Dashed lines are stage boundaries" not in text


def test_a_run_without_any_sample_still_has_a_page(data: ReportData) -> None:
    f = replace(data.findings, curves={}, full={}, clusterings=(), specialisation=(), stages=None, notes=())
    types = replace(f.types, heads=(), types=(), score=np.array([]), thresholds={})
    behaviour = replace(f.behaviour, heads=(), scores={}, data=(), losses=np.empty((0, 12)), losses_stderr=None, icl=np.full(12, np.nan))
    text = Reader(render(replace(data, findings=replace(f, types=types, behaviour=behaviour), table=(), notes=(), mixture=""))).text
    for words in (
        "No cell was sampled.",
        "No head was sampled, so there is nothing to show here.",
        "No head was sampled on any data.",
        "Head types were not decided",
        "The analysis left no further notes.",
    ):
        assert words in text, words


def test_a_refused_curve_and_a_missing_domain_are_named(synthetic: ModuleType, data: ReportData) -> None:
    f = synthetic.all_refused(data.findings, "train", "0:1")
    without = {name: c for name, c in f.curves.items() if name != "prose"}
    text = Reader(render(replace(data, findings=replace(f, curves=without), table=()))).text
    assert "No estimate at any checkpoint: 0:1." in text
    assert "Not sampled on its own: prose and brackets." in text
    assert "0:1 has no estimate there." in text


def test_one_layer(small: ReportData) -> None:
    html = render(small)
    assert embedded(html, "figures")["heads"]["layout"]["meta"]["grid"]["panels"] == 1
    assert "Of 8 heads" in html


def test_a_frame_and_mappings_give_the_same_table(data: ReportData) -> None:
    columns, rows = table_rows(data)
    frame = pd.DataFrame(list(data.table))
    frame["chains"] = frame["chains"].astype("Int64")
    frame.loc[0, "chains"] = pd.NA
    again, from_frame = table_rows(replace(data, table=frame))
    assert again == columns
    assert from_frame[0]["chains"] is None
    assert from_frame[1:] == rows[1:]
    json.dumps(from_frame, allow_nan=False)


def test_cells_come_from_the_curves_where_there_is_no_table(data: ReportData) -> None:
    assert len(cells(replace(data, table=()))) == 492
    assert mixture_of(replace(data, mixture="")) == "train"
    assert table_rows(replace(data, table=[{"a": np.float64("inf"), "b": Path("x")}])) == (["a", "b"], [{"a": None, "b": "x"}])


def test_the_same_run_gives_the_same_page(small: ReportData) -> None:
    assert render(small) == render(small)


def test_dark_colours_are_there_without_scripts_too() -> None:
    css = colors()
    assert "@media (prefers-color-scheme:dark){:root:not([data-theme])" in css
    light, dark = (set(re.findall(r"--([\w-]+):", block)) for block in css.split("\n")[:2])
    assert light == dark


def test_a_folder_that_cannot_be_written_is_a_sentence(small: ReportData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RllcError, match=r"could not be written"):
        build_report(small, tmp_path / "file" / "report.html")


def test_a_page_that_grows_too_large_leaves_out_what_lies_in_files_and_says_so(synthetic: ModuleType, data: ReportData) -> None:
    few = variant(synthetic, data, clusterings=data.findings.clusterings[:2])
    sizes = [len(render(replace(few, without=LEFT_OUT[:n])).encode()) for n in range(len(LEFT_OUT) + 1)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[3] > sizes[4]
    assert bounded(few, sizes[0]) == render(few)
    smaller = bounded(few, sizes[1])
    assert len(smaller.encode()) == sizes[1]
    assert "They are left out to keep this page small" in smaller
    least = bounded(few, sizes[4])
    assert "Cells of the last checkpoint" in least
    assert {row[embedded(least, "cells")["columns"].index("step")] for row in embedded(least, "cells")["rows"]} == {3000}
    with pytest.raises(RllcError, match="would be larger than"):
        bounded(few, sizes[4] - 1)
