"""Which planted text a run's data hold, by kind."""

from __future__ import annotations

from pathlib import Path

from rllc.corpus.build import build_corpus
from rllc.runs.evidence import planted_kinds
from rllc.runs.experiment import parse
from rllc.runs.layout import RunFolder

from .conftest import experiment_text

BRACKETS = '[[corpus.sources]]\nkind = "brackets"\ndomain = "nested"\ntokens = 4000\ndocument_tokens = 25\n[mixture]\n'


def test_planted_kinds_are_told_by_the_data_that_hold_them(tmp_path: Path) -> None:
    """Brackets that stand in the corpus and not in the mixture are no part of the training text."""
    text = experiment_text(tmp_path).replace("[mixture]\n", BRACKETS)
    folder = RunFolder(tmp_path / "run")
    without, mixed = parse(text), parse(text.replace("echo = 0.25", "echo = 0.125\nnested = 0.125"))
    build_corpus(mixed.corpus, folder.corpus)
    domains = {"echo": ("echo",), "nested": ("brackets",)}
    assert planted_kinds(without, folder) == {"mixture": ("echo",)} | domains
    assert planted_kinds(mixed, folder) == {"mixture": ("echo", "brackets")} | domains
