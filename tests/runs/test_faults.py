"""Numbers, checkpoints and text that go wrong under a run: a sentence says what, and nothing of another model or text is recorded as its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rllc.checkpoints.store import load, save
from rllc.core.errors import RllcError
from rllc.posterior.protocol import Evaluation
from rllc.records.store import Store
from rllc.runs import sampling, unit_data
from rllc.runs.experiment import parse
from rllc.runs.importing import tell_exchanged
from rllc.runs.layout import RunFolder
from rllc.runs.overview import export_table
from rllc.runs.pipeline import run_experiment
from rllc.runs.preparing import corpus_stage
from rllc.runs.progress import Reporter

from .faulty import in_between, log, records, sampled, samples


class Spoiled:
    """An objective that gives NaN for one variant from the n-th call on."""

    def __init__(self, objective: Any, variant: int, what: str, calls: int) -> None:
        self.objective, self.variant, self.what, self.calls = objective, variant, what, calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objective, name)

    def evaluate(self, variants: dict[str, torch.Tensor], context: Any, *, gradients: bool = True) -> Evaluation:
        found = self.objective.evaluate(variants, context, gradients=gradients)
        self.calls -= 1
        if self.calls > 0 or found.gradients is None or len(found.losses) != 4:
            return found
        losses, moved = found.losses.clone(), {name: tensor.clone() for name, tensor in found.gradients.items()}
        if self.what == "loss":
            losses[self.variant] = torch.nan
        else:
            next(iter(moved.values()))[self.variant].view(-1)[0] = torch.nan
        return Evaluation(losses, moved, found.baseline)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_one_chain_of_one_head_that_turns_nan_refuses_its_cell_alone(finished: Path, text: str, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    experiment, store = parse(text), Store(finished / "records")
    unit = next(unit for unit in sampling_units(experiment) if unit.step == 12 and str(unit.data) == "mixture" and str(unit.parts[0]) == "1:0")
    assert [str(part) for part in unit.parts] == ["1:0", "1:1"]
    build = sampling.build_objective
    monkeypatch.setattr(sampling, "build_objective", lambda *given: Spoiled(build(*given), 1, what, 9))  # the second chain of 1:0
    bad, good = sampling.sample_unit(sampling.Work(finished, experiment, unit))
    kept = store.get("sample", good.key)
    assert good.arrays.keys() == kept.arrays.keys()
    for name, array in kept.arrays.items():
        np.testing.assert_array_equal(good.arrays[name], array, strict=True)
    assert {name: value for name, value in kept.meta.items() if name != "seconds"} == plain(good.meta)
    assert bad.meta["outcome"] == "nonfinite"
    assert "llc" not in bad.meta
    assert "chain" in bad.meta["reason"]
    other = store.get("sample", bad.key)
    np.testing.assert_array_equal(bad.arrays["losses"][0], other.arrays["losses"][0])  # the chain beside it went on as before
    assert not np.isfinite(bad.arrays["losses"][1]).all()


def sampling_units(experiment: Any) -> tuple[Any, ...]:
    from rllc.runs.plan import make_plan

    return make_plan(experiment).units


def plain(meta: dict[str, Any]) -> dict[str, Any]:
    """As a record gives it back: without seconds, numbers that are none as null, tuples as lists."""
    import json

    text = json.dumps({name: value for name, value in meta.items() if name != "seconds"}, default=lambda value: value.item())
    return json.loads(text, parse_constant=lambda _: None)


def foreign(out: Path, step: int, of: int) -> None:
    """Other weights of the same shape, whole and with a digest that is right, in the place of a checkpoint's."""
    shape, params, info = load(out / "checkpoints" / f"step-{of:08d}")
    save(out / "checkpoints", step, shape, params, info.metrics)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda out: shutil.rmtree(out / "checkpoints" / "step-00000009"), "There is no checkpoint at .*step-00000009"),
        (lambda out: foreign(out, 9, 3), "The checkpoint of step 9 in .* is another one than when the run began; nothing was computed with it"),
        (lambda out: cut(out / "checkpoints" / "step-00000009" / "weights.safetensors"), "step-00000009/weights.safetensors is damaged"),
    ],
    ids=["deleted", "replaced", "cut"],
)
def test_a_checkpoint_that_changes_after_the_plan(finished: Path, unfinished: Path, text: str, harm: Callable[[Path], None], said: str) -> None:
    """The run ends in a sentence, nothing foreign is recorded; the next one refuses it or makes it again, told, and ends as if nothing had been."""
    with pytest.MonkeyPatch.context() as patch:
        in_between(patch, lambda: harm(unfinished))
        with pytest.raises(RllcError, match=said):
            sampled(text, unfinished)
    assert samples(unfinished).items() <= samples(finished).items()
    if (unfinished / "checkpoints" / "step-00000009").exists():
        for _ in range(2):
            with pytest.raises(RllcError, match=r"step 9 in .* are not those that this run has computed with|weights.safetensors is damaged"):
                sampled(text, unfinished)
        assert samples(unfinished).items() <= samples(finished).items()
        shutil.rmtree(unfinished / "checkpoints" / "step-00000009")  # as the sentence says
    before = records(unfinished)
    sampled(text, unfinished)
    assert "Trained 12 steps" in log(unfinished)
    assert before.items() <= records(unfinished).items()
    assert samples(unfinished) == samples(finished)
    assert (unfinished / "checkpoints/step-00000009/weights.safetensors").read_bytes() == (
        finished / "checkpoints/step-00000009/weights.safetensors"
    ).read_bytes()


def test_a_checkpoint_that_is_exchanged_while_others_are_measured(unfinished: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(unfinished / "records" / "behaviour")
    reading = load

    def read(folder: Path, shape: Any) -> Any:
        if folder.name == "step-00000003":
            foreign(unfinished, 6, 12)
        return reading(folder, shape)

    monkeypatch.setattr("rllc.runs.measures.unit.load", read)
    with pytest.raises(RllcError, match=r"The checkpoint of step 6 in .* is another one"):
        run_experiment(text, unfinished, "measure", None, None, quiet=True)
    assert {record.meta["step"] for record in Store(unfinished / "records").records("behaviour")} == {0, 3}


def test_a_deleted_checkpoint_below_the_state_that_training_goes_on_from(finished: Path, unfinished: Path, text: str) -> None:
    """A training that was killed late, of which an early checkpoint is gone, begins anew: going on would never make it."""
    steps = unfinished / "checkpoints"
    shutil.rmtree(steps)
    shutil.rmtree(unfinished / "records")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rllc.runs.preparing.drop_resume", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_experiment(text, unfinished, "train", None, None, quiet=True)
    shutil.rmtree(steps / "step-00000003")
    run_experiment(text, unfinished, "train", None, None, quiet=True)
    for step in (0, 3, 6, 9, 12):
        name = f"checkpoints/step-{step:08d}/weights.safetensors"
        assert (unfinished / name).read_bytes() == (finished / name).read_bytes()


def test_text_that_changes_between_two_runs_is_refused_and_nothing_of_the_run_is_lost(tmp_path: Path, finished: Path, text: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    source = tmp_path / "text"
    shutil.copytree(finished.parent / "text", source)
    here = text.replace(str(finished.parent / "text"), str(source))
    before, table = {path.name: path.read_bytes() for path in (copy / "corpus").iterdir()}, export_table(copy, "csv")
    sampled(here, copy)  # moved, but the same text: the same corpus
    page = source / "03.txt"
    was = page.read_text()
    page.write_text(was.replace("river", "copper"))
    for _ in range(2):
        with pytest.raises(
            RllcError, match=r"The text of the corpus, or a setting of it, is another one than the checkpoints beside .* were trained"
        ):
            sampled(here, copy)
    now = {path.name: path.read_bytes() for path in (copy / "corpus").iterdir()}
    assert {name: content for name, content in now.items() if name != "corpus.json"} == {
        name: content for name, content in before.items() if name != "corpus.json"
    }
    assert export_table(copy, "csv") == table
    page.write_text(was)
    kept = records(copy)
    sampled(here, copy)
    assert records(copy) == kept
    assert samples(copy) == samples(finished)


def scribble(out: Path) -> None:
    """Other tokens in the file that a run has mapped."""
    path = next((out / "corpus").glob("prose-*.tokens.npy"))
    with path.open("r+b") as stream:
        stream.seek(-4000, os.SEEK_END)
        stream.write(b"\7\0" * 1000)


def touch(out: Path) -> None:
    """The same tokens, written again."""
    path = next((out / "corpus").glob("prose-*.tokens.npy"))
    path.write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("harm", "said"),
    [(scribble, "tokens.npy is not what was written"), (touch, "was written to while it was read; what was computed meanwhile is not kept")],
)
@pytest.mark.parametrize("when", ["in a unit", "between units"])
def test_tokens_that_change_on_the_disk_while_chains_run(
    finished: Path, unfinished: Path, text: str, harm: Callable[[Path], None], said: str, when: str
) -> None:
    unit_data._opened.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        if when == "between units":
            in_between(patch, lambda: harm(unfinished))
        else:
            run = sampling.sample

            def sample(*given: Any, **named: Any) -> Any:
                harm(unfinished)
                return run(*given, **named)

            patch.setattr(sampling, "sample", sample)
        if (harm, when) == (touch, "between units"):
            sampled(text, unfinished)
        else:
            with pytest.raises(RllcError, match=said):
                sampled(text, unfinished)
            assert samples(unfinished).items() < samples(finished).items()
    sampled(text, unfinished)  # the text is as it was: the tokens are made again
    assert samples(unfinished) == samples(finished)


def test_another_corpus_in_the_place_of_the_run_s_after_the_plan(finished: Path, unfinished: Path, text: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    run_experiment(text.replace("seed = 3\n", "seed = 3\n", 1).replace("tokens = 6000", "tokens = 6024"), other, "corpus", None, None, quiet=True)

    def exchange() -> None:
        shutil.rmtree(unfinished / "corpus")
        shutil.copytree(other / "corpus", unfinished / "corpus")

    with pytest.MonkeyPatch.context() as patch:
        in_between(patch, exchange)
        with pytest.raises(RllcError, match=r"The corpus in .* is another one than when the run began"):
            sampled(text, unfinished)
    assert samples(unfinished).items() <= samples(finished).items()
    sampled(text, unfinished)
    assert samples(unfinished) == samples(finished)


def test_other_weights_and_another_text_of_an_imported_model_are_told(unfinished: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was trained on that text, and the weights are somebody else's to change: cells are of other keys then."""
    folder, reporter = RunFolder(unfinished), Reporter()
    tell_exchanged(folder, reporter)
    assert capsys.readouterr().err == ""
    foreign(unfinished, 6, 3)
    tell_exchanged(folder, reporter)
    assert "the weights of steps 6 are others than before: whatever was computed with those is computed anew" in capsys.readouterr().err
    folder.training.unlink()  # as where nothing was trained
    corpus_stage(parse(text.replace("tokens = 6000", "tokens = 6024")), folder, reporter)
    assert "The text is another one than before: whatever was computed on the former is computed anew" in capsys.readouterr().err
