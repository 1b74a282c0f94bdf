from __future__ import annotations

import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rllc.corpus.build import build_corpus
from rllc.corpus.settings import CorpusSettings, SourceSettings
from rllc.corpus.tokens import Corpus

WORDS = "the of and head layer token model weight loss prior chain draw step curve stage loop bracket echo nested query key value".split()  # noqa: SIM905


def story(seed: int, words: int = 120) -> str:
    """A text of common words, different for every seed."""
    rng = np.random.default_rng(seed)
    return f"Story {seed}. " + " ".join(rng.choice(WORDS, size=words)) + ".\n"


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of forty short texts of unequal length."""
    folder = tmp_path_factory.mktemp("stories")
    for i in range(40):
        (folder / f"story{i:02}.txt").write_text(story(i, 40 + 11 * i))
    return folder


def planted_sources(tokens: int = 6_400) -> tuple[SourceSettings, ...]:
    return (
        SourceSettings("echo", tokens=tokens, document_tokens=32, segment=(4, 10)),
        SourceSettings("brackets", tokens=tokens, document_tokens=33),
        SourceSettings("markov", tokens=tokens, document_tokens=64, states=6, order=2),
    )


@pytest.fixture(scope="session")
def settings(stories: Path) -> CorpusSettings:
    return CorpusSettings((SourceSettings("files", domain="tales", paths=(str(stories),)), *planted_sources()), vocabulary=300, heldout=0.2)


@pytest.fixture(scope="session")
def corpus(settings: CorpusSettings, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Stories and the three planted domains."""
    return build_corpus(settings, tmp_path_factory.mktemp("corpus"))


def _zst(data: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    return zstandard.ZstdCompressor().compress(data)


def _parquet(rows: list[dict]) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


def _jsonl(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


FORMATS: dict[str, Callable[[list[dict]], bytes]] = {
    "jsonl": _jsonl,
    "jsonl.gz": lambda rows: gzip.compress(_jsonl(rows)),
    "jsonl.xz": lambda rows: lzma.compress(_jsonl(rows)),
    "jsonl.zst": lambda rows: _zst(_jsonl(rows)),
    "parquet": _parquet,
}
