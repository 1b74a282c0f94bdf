from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllc.core.errors import RllcError
from rllc.corpus import sources
from rllc.corpus.settings import CorpusSettings, SourceSettings
from rllc.corpus.sources import Document, HashedSample, fingerprint, gather, held_out

from .conftest import FORMATS

texts = st.lists(st.text(min_size=1, max_size=30).filter(str.strip), min_size=1, max_size=40)


def sample(documents: list[str], max_bytes: int, seed: int = 0) -> list[Document]:
    chosen = HashedSample(max_bytes, seed)
    for text in documents:
        chosen.add(text)
    return chosen.documents()


@given(texts, st.integers(1, 400), st.randoms(use_true_random=False))
def test_the_sample_does_not_depend_on_the_order_of_reading(documents: list[str], cap: int, random):
    shuffled = list(documents)
    random.shuffle(shuffled)
    assert sample(documents, cap) == sample(shuffled, cap)


@given(texts, st.integers(1, 200), st.integers(0, 200))
def test_a_larger_cap_holds_the_smaller_one(documents: list[str], cap: int, more: int):
    small, large = sample(documents, cap), sample(documents, cap + more)
    assert small[:-1] == large[: max(len(small) - 1, 0)]
    if len(large) >= len(small) > 0:
        assert large[len(small) - 1].content.startswith(small[-1].content)


@given(texts, st.integers(1, 400))
def test_the_cap_is_kept_and_filled(documents: list[str], cap: int):
    encoded = [text.encode("utf-8", "replace") for text in documents]
    size = sum(len(document.content) for document in sample(documents, cap))
    assert size <= cap
    assert size == sum(map(len, encoded)) or size >= cap - 30 * 4  # a last character or a blank rest may be left out


def test_the_cap_samples_without_favour():
    kept = [sample([f"{i:04}" for i in range(100)], 200, seed) for seed in range(400)]
    counts = np.bincount([int(document.text) for documents in kept for document in documents], minlength=100)
    assert counts.sum() == 400 * 50
    assert abs(counts - 200).max() < 5 * 10  # binomial: mean 200, sd 10


@given(texts, st.floats(0.05, 0.95), st.integers(0, 5))
def test_no_document_is_on_both_sides(documents: list[str], heldout: float, seed: int):
    chosen = sample(documents + documents[:3], 10**6, seed)
    if len({document.content for document in chosen}) == 1:
        with pytest.raises(RllcError, match="single document, so none can be held out"):
            held_out([document.share for document in chosen], heldout, "x")
        return
    held = held_out([document.share for document in chosen], heldout, "x")
    train, out = ({document.content for document, h in zip(chosen, held, strict=True) if h == side} for side in (False, True))
    assert train
    assert out
    assert not train & out


def test_the_split_is_a_fair_share_and_independent_of_the_sample():
    documents = sample([f"document {i}" for i in range(40_000)], 10**9)
    shares = np.array([document.share for document in documents])
    for part in (shares, shares[:10_000]):  # the first in hashed order are as often held out as any
        held = held_out(part, 0.2, "x").mean()
        assert abs(held - 0.2) < 4 * np.sqrt(0.2 * 0.8 / len(part))


def test_the_split_depends_on_the_seed_and_stays_under_a_cap():
    documents = [f"document {i}" for i in range(500)]
    whole = {document.content: document.share for document in sample(documents, 10**6)}
    assert all(whole[document.content] == document.share for document in sample(documents, 3_000)[:-1])
    other = {document.content: document.share for document in sample(documents, 10**6, seed=1)}
    assert sum((whole[key] < 0.5) != (other[key] < 0.5) for key in whole) > 150


def test_nothing_is_held_out_where_nothing_shall_be():
    assert not held_out([0.5], 0.0, "x").any()


def test_sources_are_gathered_by_domain(tmp_path: Path):
    (tmp_path / "a.txt").write_text("A text of its own.")
    (tmp_path / "rows.jsonl").write_bytes(
        FORMATS["jsonl"]([{"text": "One.", "domain": "laws"}, {"text": "Two.", "domain": "tales"}, {"text": " \n"}])
    )
    one = SourceSettings("files", domain="tales", paths=(str(tmp_path / "a.txt"),))
    rows = SourceSettings("files", domain="rest", paths=(str(tmp_path / "rows.jsonl"),))
    stages: list[tuple[str, float]] = []
    with pytest.raises(RllcError, match="domain 'rest' has no text"):
        gather(CorpusSettings((one, rows)), lambda *stage: stages.append(stage))
    found = gather(CorpusSettings((one, SourceSettings("files", domain="tales", paths=rows.paths))), lambda *stage: stages.append(stage))
    assert {name: {document.text for document in documents} for name, documents in found.items()} == {
        "laws": {"One."},
        "tales": {"A text of its own.", "Two."},
    }
    assert stages[-1] == ("reading text", 1.0)


def test_a_source_has_its_own_cap_below_that_of_the_domain(tmp_path: Path):
    for i in range(20):
        (tmp_path / f"{i}.txt").write_text(f"{i:010}")
    capped = SourceSettings("files", domain="x", paths=(str(tmp_path),), max_bytes=35)
    assert sum(len(document.content) for document in gather(CorpusSettings((capped,)), lambda *_: None)["x"]) == 35
    whole = SourceSettings("files", domain="x", paths=(str(tmp_path),))
    assert sum(len(document.content) for document in gather(CorpusSettings((whole,), max_bytes=50), lambda *_: None)["x"]) == 50


@pytest.mark.parametrize(("name", "content"), [("blank.txt", ""), ("blank.txt", " \n\t"), ("blank.jsonl", "")])
def test_a_domain_without_text_is_refused(tmp_path: Path, name: str, content: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(RllcError, match="The domain 'void' has no text"):
        gather(CorpusSettings((SourceSettings("files", domain="void", paths=(str(tmp_path),)),)), lambda *_: None)


def test_lone_surrogates_and_streams(monkeypatch: pytest.MonkeyPatch):
    asked = {}

    def read_dataset(source: SourceSettings, max_bytes: int, seed: int):
        asked[source.dataset] = (max_bytes, seed)
        return [("web", "a lone \ud800 half"), ("web", "another")]

    monkeypatch.setattr(sources, "read_dataset", read_dataset)
    settings = CorpusSettings((SourceSettings("huggingface", dataset="o/n", domain="web"),), max_bytes=1_000)
    assert {document.text for document in gather(settings, lambda *_: None)["web"]} == {"a lone ? half", "another"}
    assert asked["o/n"][0] == 1_000
    first = asked["o/n"][1]
    gather(CorpusSettings(settings.sources, seed=1), lambda *_: None)
    assert asked["o/n"][1] != first


def test_the_fingerprint_holds_settings_and_text(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one")
    settings = CorpusSettings((SourceSettings("python"), SourceSettings("files", domain="x", paths=(str(tmp_path),)), SourceSettings("echo")))
    before = fingerprint(settings)
    assert fingerprint(settings) == before
    assert before["content"][0]["files"]
    assert before["content"][2] is None
    (tmp_path / "a.txt").write_text("two")
    assert fingerprint(settings) != before
