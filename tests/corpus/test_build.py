from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from rllc.core.errors import RllcError
from rllc.corpus import build, standard_library
from rllc.corpus.build import build_corpus
from rllc.corpus.settings import CorpusSettings, SourceSettings
from rllc.corpus.tokenizer import train_tokenizer
from rllc.corpus.tokens import Corpus, open_corpus

from .conftest import planted_sources, story


def tales(folder: Path, **more) -> CorpusSettings:
    source = SourceSettings("files", domain="tales", paths=(str(folder),))
    return CorpusSettings(**{"sources": (source,), "vocabulary": 280, "heldout": 0.2} | more)


def texts(corpus: Corpus, domain: str, split: str) -> set[str]:
    found = corpus.domains[domain]
    return {corpus.text(found.document(i)) for i in found.documents_of(split)}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(stories: Path, tmp_path: Path) -> Path:
    """A copy of the stories that a test may change."""
    return Path(shutil.copytree(stories, tmp_path / "stories"))


def test_every_document_is_there_once_on_one_side(corpus: Corpus, stories: Path):
    whole = {path.read_text() for path in stories.iterdir()}
    train, heldout = texts(corpus, "tales", "train"), texts(corpus, "tales", "heldout")
    assert train | heldout == whole
    assert not train & heldout
    assert len(train) > len(heldout) > 0
    for name, domain in corpus.domains.items():
        sides = [{domain.document(i).tobytes() for i in domain.documents_of(split)} for split in ("train", "heldout")]
        assert all(sides), name
        assert not sides[0] & sides[1], name


def test_what_lies_on_disk(corpus: Corpus):
    assert list(corpus.domains) == ["brackets", "echo", "markov", "tales"]
    assert corpus.vocabulary == 300
    assert corpus.specials == (corpus.bos,) == (0,)
    for domain in corpus.domains.values():
        assert isinstance(domain.tokens, np.memmap)
        assert domain.tokens.dtype == np.uint16
        assert (domain.tokens[domain.starts[:-1]] == corpus.bos).all()
        assert (domain.tokens == corpus.bos).sum() == len(domain.starts) - 1
        assert domain.tokens.max() < corpus.vocabulary
        assert domain.heldout.sum() == len(domain.documents_of("heldout"))
        assert domain.planted == (domain.name != "tales")


def test_the_tokenizer_has_seen_training_documents_alone(corpus: Corpus):
    domain = corpus.domains["tales"]
    learned = [corpus.text(domain.document(i)) for i in domain.documents_of("train")]
    assert corpus.tokenizer.read_text() == train_tokenizer(learned, 300).to_str()


def test_a_second_build_opens_the_first(settings: CorpusSettings, corpus: Corpus, monkeypatch: pytest.MonkeyPatch):
    before = {path: path.stat().st_mtime_ns for path in corpus.folder.iterdir()}
    monkeypatch.setattr(build, "gather", lambda *_: pytest.fail("the text was gathered again"))
    again = build_corpus(settings, corpus.folder)
    assert again.digest == corpus.digest
    assert {path: path.stat().st_mtime_ns for path in corpus.folder.iterdir()} == before


def test_a_rebuild_is_identical_byte_for_byte(settings: CorpusSettings, corpus: Corpus, tmp_path: Path):
    build_corpus(settings, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(corpus.folder)


def test_changed_text_changes_the_digest_and_leaves_nothing_behind(folder: Path, tmp_path: Path):
    before = build_corpus(tales(folder), tmp_path / "corpus")
    (folder / "story07.txt").write_text((folder / "story07.txt").read_text().replace("Story 7", "Storey 7"))
    after = build_corpus(tales(folder), tmp_path / "corpus")
    assert after.digest != before.digest
    assert after.inputs != before.inputs
    assert build_corpus(tales(folder), tmp_path / "fresh").digest == after.digest
    assert contents(tmp_path / "fresh") == contents(tmp_path / "corpus")


@pytest.mark.parametrize("changed", [{"vocabulary": 281}, {"heldout": 0.4}, {"seed": 1}, {"max_bytes": 9_000}])
def test_changed_settings_change_the_digest(stories: Path, tmp_path: Path, changed: dict):
    assert build_corpus(tales(stories), tmp_path / "a").digest != build_corpus(tales(stories, **changed), tmp_path / "b").digest


def test_the_folder_of_the_text_is_said_once(
    stories: Path, settings: CorpusSettings, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # relative paths start at `path`, not here
    relative = tuple(dataclasses.replace(s, paths=tuple(Path(p).name for p in s.paths)) for s in settings.sources)
    moved = build_corpus(dataclasses.replace(settings, sources=relative, path=str(stories.parent)), tmp_path / "moved")
    assert moved.digest == corpus.digest
    assert settings.placed() is settings


def test_a_larger_cap_keeps_every_document_on_its_side(stories: Path, tmp_path: Path):
    small, large = (build_corpus(tales(stories, max_bytes=size), tmp_path / str(size)) for size in (20_000, 40_000))
    assert sum(small.domains["tales"].bytes.values()) == 20_000
    whole = {path.read_text() for path in stories.iterdir()}
    for split, other in (("train", "heldout"), ("heldout", "train")):
        kept = texts(small, "tales", split) & whole  # without the one that was cut
        assert kept <= texts(large, "tales", split)
        assert not kept & texts(large, "tales", other)
    assert len(large.domains["tales"].starts) > len(small.domains["tales"].starts)


def test_a_damaged_corpus_is_built_anew_and_a_newer_one_left_alone(stories: Path, tmp_path: Path):
    first = build_corpus(tales(stories), tmp_path)
    good = contents(tmp_path)
    next(tmp_path.glob("tales-*.tokens.npy")).write_bytes(b"torn")
    assert build_corpus(tales(stories), tmp_path).digest == first.digest
    assert contents(tmp_path) == good
    header = json.loads((tmp_path / "corpus.json").read_text())
    (tmp_path / "corpus.json").write_text(json.dumps(header | {"format": 99}))
    newer = contents(tmp_path)
    with pytest.raises(RllcError, match=r"written by a newer version of rllc \(format 99"):
        build_corpus(tales(stories), tmp_path)
    assert contents(tmp_path) == newer


def test_a_full_disk_leaves_the_former_corpus(stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = build_corpus(tales(stories), tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(RllcError, match="The disk is full"):
        build_corpus(tales(stories, seed=1), tmp_path)
    assert open_corpus(tmp_path).digest == first.digest


@pytest.mark.parametrize("stop", ["write_domain", "write_header"])
def test_a_build_cut_short_leaves_one_whole_corpus_or_none(stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, stop, killed)
        with pytest.raises(KeyboardInterrupt):
            build_corpus(tales(stories), tmp_path)
    with pytest.raises(RllcError, match="There is no corpus in"):
        open_corpus(tmp_path)
    first = build_corpus(tales(stories), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(build, stop, killed)
        with pytest.raises(KeyboardInterrupt):
            build_corpus(tales(stories, seed=1), tmp_path)
    assert open_corpus(tmp_path).digest == first.digest
    second = build_corpus(tales(stories, seed=1), tmp_path)
    assert second.digest != first.digest
    build_corpus(tales(stories, seed=1), tmp_path / "fresh")
    assert contents(tmp_path / "fresh") == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


def test_bad_text_is_refused_in_sentences(tmp_path: Path, stories: Path):
    with pytest.raises(RllcError, match=r"A vocabulary of 50000 was asked for, but this text allows only \d+ tokens"):
        build_corpus(tales(stories, vocabulary=50_000), tmp_path / "corpus")
    (tmp_path / "one.txt").write_text(story(0))
    with pytest.raises(RllcError, match="'tales' has a single document, so none can be held out"):
        build_corpus(tales(tmp_path / "one.txt"), tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()
    assert build_corpus(tales(tmp_path / "one.txt", heldout=0.0, vocabulary=260), tmp_path / "corpus").domains["tales"].train_documents == 1
    cut = SourceSettings("files", domain="tales", paths=(str(tmp_path / "one.txt"),), document_characters=60)
    assert build_corpus(CorpusSettings((cut,), vocabulary=260), tmp_path / "corpus").domains["tales"].heldout.any()


def test_planted_domains_need_no_text(tmp_path: Path):
    corpus = build_corpus(CorpusSettings(planted_sources(), vocabulary=257), tmp_path)
    assert corpus.vocabulary == 257
    with pytest.raises(RllcError, match="A vocabulary of 300 was asked for, but this text allows only 257"):
        build_corpus(CorpusSettings(planted_sources(), vocabulary=300), tmp_path)


def test_planted_domains_have_names_of_their_own(stories: Path, tmp_path: Path):
    text = SourceSettings("files", domain="echo", paths=(str(stories),))
    for sources in ((text, planted_sources()[0]), (planted_sources()[0], planted_sources()[0])):
        with pytest.raises(RllcError, match="Two sources name the domain 'echo'"):
            build_corpus(CorpusSettings(sources, vocabulary=257), tmp_path)
    twice = (planted_sources()[0], dataclasses.replace(planted_sources()[0], domain="echo-long"))
    corpus = build_corpus(CorpusSettings(twice, vocabulary=257), tmp_path)
    assert not np.array_equal(corpus.domains["echo"].tokens, corpus.domains["echo-long"].tokens)


def test_a_given_tokenizer_is_taken_as_it_is(corpus: Corpus, stories: Path, tmp_path: Path):
    given = tmp_path / "given.json"
    shutil.copy(corpus.tokenizer, given)
    again = build_corpus(tales(stories, tokenizer=str(given)), tmp_path / "again")
    assert np.array_equal(again.domains["tales"].tokens, corpus.domains["tales"].tokens)
    assert again.vocabulary == 300
    other = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    other.add_special_tokens(["<s>"])
    other.save(str(given))
    before = again.inputs
    assert build_corpus(tales(stories, tokenizer=str(given)), tmp_path / "again").inputs != before
    with pytest.raises(RllcError, match=r"The tokenizer has no token for '\(' alone"):
        build_corpus(CorpusSettings((SourceSettings("brackets"),), tokenizer=str(given)), tmp_path / "again")


def test_the_standard_library_gives_code_and_prose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    library = tmp_path / "library"
    library.mkdir()
    for i in range(12):
        (library / f"m{i}.py").write_text(f'"""{story(i)}"""\nvalue = {i}\n' * 2)
    monkeypatch.setattr(standard_library, "library_root", lambda: library)
    corpus = build_corpus(CorpusSettings((SourceSettings("python"),), vocabulary=270), tmp_path / "corpus")
    assert list(corpus.domains) == ["code", "prose"]
    assert len(corpus.domains["code"].starts) == len(corpus.domains["prose"].starts) == 13
    assert "docstrings taken out" in corpus.domains["code"].description
    assert "value = 3" in "".join(texts(corpus, "code", "train") | texts(corpus, "code", "heldout"))


def test_progress_is_told_by_stage(settings: CorpusSettings, tmp_path: Path):
    told: list[tuple[str, float]] = []
    build_corpus(settings, tmp_path, lambda *stage: told.append(stage))
    stages = list(dict.fromkeys(stage for stage, _ in told))
    assert stages == ["reading text", "training the tokenizer", "encoding tales", "planting echo", "planting brackets", "planting markov"]
    for stage in stages:
        shares = [share for name, share in told if name == stage]
        assert shares == sorted(shares)
        assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_a_wide_vocabulary_takes_wider_tokens():
    tokens, starts = build._joined([np.array([70_000]), np.array([], dtype=np.int64)], 1, 70_001)
    assert tokens.dtype == np.uint32
    assert tokens.tolist() == [1, 70_000, 1]
    assert starts.tolist() == [0, 2, 3]
    assert build._joined([np.array([65_535])], 1, 65_536)[0].dtype == np.uint16
