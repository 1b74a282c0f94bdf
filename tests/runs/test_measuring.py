"""The stage that measures: what it tells, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from rllc.core.errors import RllcError
from rllc.records.store import Store
from rllc.runs.experiment import parse
from rllc.runs.layout import RunFolder
from rllc.runs.measures.bench import Bench
from rllc.runs.overview import describe_status
from rllc.runs.pipeline import run_experiment

from .test_measures import text_of


def test_status_does_not_call_measurements_of_other_settings_done(finished: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(finished, folder.root)
    few = text_of(finished, 'measures = ["ablation"]\n[behaviour.ablation]\ncontexts = 3\n')
    run_experiment(few, folder.root, "measure", None, None, quiet=True)
    assert "  measure  done" in describe_status(folder.root)
    folder.experiment.write_text(few.replace("contexts = 3", "contexts = 4"))
    assert "  measure  of other settings, perhaps: `rllc measure` computes what today's ask for" in describe_status(folder.root)
    run_experiment(few.replace("contexts = 3", "contexts = 4"), folder.root, "measure", None, None, quiet=True)
    assert "  measure  done" in describe_status(folder.root)


def test_what_was_measured_before_a_kill_stays(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two kinds of one checkpoint; then only what is missing is measured, and the text is not counted twice."""
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(finished, folder.root)
    for kind in ("ngrams", "text_ngrams"):  # of the finished run
        shutil.rmtree(folder.records / kind)
    settings = 'measures = ["ngrams", "tokens"]\n[behaviour.tokens]\nat = "last"\ndraws = 20\n'
    put, stored = Store.put, list[str]()

    def dying(self: Store, kind: str, *args: Any, **more: Any) -> str:
        if kind == "ngrams" and stored.count("ngrams") == 2:
            raise KeyboardInterrupt
        stored.append(kind)
        return put(self, kind, *args, **more)

    text = text_of(finished, settings)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", dying)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(text, folder.root, "measure", None, None, quiet=True)
    assert stored.count("ngrams") == 2
    assert "measure  not finished: ngrams 2 of 5, tokens 0 of 1 checkpoints" in describe_status(folder.root)
    monkeypatch.setattr("rllc.runs.measures.text.count_ngrams", lambda *_: pytest.fail("counted again"))
    before = {path: path.stat().st_mtime_ns for path in folder.records.rglob("*.npz")}
    again = list[str]()
    monkeypatch.setattr(Store, "put", lambda self, kind, *args, **more: (again.append(kind), put(self, kind, *args, **more))[1])
    run_experiment(text, folder.root, "measure", None, None, quiet=True)
    assert sorted(again) == ["ngrams"] * 3 + ["tokens"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(("table", "sentence"), [
    ('measures = ["ngram"]', r"measures\[0\] is 'ngram', but must be one of"),
    ('[behaviour.memorised]\nat = 0', r'behaviour.memorised.at is 0, but must be "all", "last" or a number from 1 on'),
    ('[behaviour.memorised]\nwithins = [1]', "numbers of contexts from 2 on"),
    ('[behaviour.ablation]\nkinds = []', r"Choose from zero, mean, resample"),
    ('[behaviour.tokens]\noverlap = 0', "Give numbers above 0"),
    ('[behaviour.ngrams]\nprobability = 2', "Give a number from 0 to 1"),
    ('[behaviour.paths]\ncontexts = 1', "behaviour.paths.contexts is 1, but must be at least 2"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_told(finished: Path, table: str, sentence: str) -> None:
    with pytest.raises(RllcError, match=sentence):
        parse(text_of(finished, table + "\n"))


def test_data_that_is_not_there_is_told(finished: Path) -> None:
    experiment = parse(text_of(finished, 'data = ["poetry"]\n'))
    with pytest.raises(RllcError, match=r"behaviour\.data names 'poetry', which the corpus does not have"):
        Bench.of(experiment, RunFolder(finished))
