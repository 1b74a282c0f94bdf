"""What a run's minibatches are and what counts of them, and cells that are evaluated on other data than their chains moved by."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import rllc
from rllc.checkpoints.store import load as load_checkpoint
from rllc.core.errors import RllcError
from rllc.core.names import DataKey
from rllc.corpus.batches import ContextPool, Mixture
from rllc.corpus.settings import Documents
from rllc.corpus.tokens import open_corpus
from rllc.model.batch import TokenBatch
from rllc.model.forward import logits
from rllc.records import table
from rllc.records.store import Record, Store
from rllc.runs.comparing import compare_run
from rllc.runs.experiment import load, parse
from rllc.runs.explaining import explain_cells
from rllc.runs.how import how_from
from rllc.runs.keys import data_key
from rllc.runs.minibatches import open_tokens
from rllc.runs.overview import describe_plan, describe_status
from rllc.runs.pipeline import run_experiment
from rllc.runs.plan import make_plan
from rllc.runs.recording import traces_of
from rllc.runs.refined import MixedRows, PoolBatches, PooledRows
from rllc.runs.sampling import OpenedUnit, Work

from .conftest import EXPERIMENT, experiment_text

GRID = EXPERIMENT[EXPERIMENT.index("[[sample]]") : EXPERIMENT.index("[behaviour]")]
ONE = '[[sample]]\nparts = ["heads"]\ndata = ["{data}"]\ncheckpoints = [12]\n{more}\n'
SETTINGS = {"chains": 2, "draws": 16, "burn_in": 4, "batch_size": 2, "origin_batches": 4, "seed": 3}
HEADS = ("0:0", "0:1", "1:0", "1:1")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The tiny experiment with documents of echo that are half a context, and a run folder with its checkpoints."""
    folder = tmp_path_factory.mktemp("data")
    text = experiment_text(folder).replace("document_tokens = 24\nsegment = [3, 6]", "document_tokens = 11\nsegment = [3, 5]")
    text = text.replace("extra = [0, 3, 6, 9, 12]", "extra = [12]")
    run_experiment(text.replace(GRID, ONE.format(data="echo", more="")), folder / "run", "train", None, None, quiet=True)
    return text, folder / "run"


def grid(text: str, data: str = "prose", more: str = "") -> str:
    """The experiment on four heads at one checkpoint."""
    return text.replace(GRID, ONE.format(data=data, more=more))


def run(text: str, out: Path) -> dict[tuple[str, str], Record]:
    """Sample; the records by part and what they were evaluated on."""
    run_experiment(text, out, "sample", None, None, quiet=True)
    return {(record.meta["part"], record.meta["evaluated_on"]): record for record in Store(out / "records").records("sample")}


def copy_of(home: tuple[str, Path], folder: Path, name: str = "run") -> Path:
    shutil.copytree(home[1], folder / name)
    return folder / name


# --- what counts


def test_no_prediction_of_a_bos_counts(home: tuple[str, Path], tmp_path: Path) -> None:
    text, out = grid(home[0], "echo"), copy_of(home, tmp_path)
    unit = OpenedUnit(Work(out, parse(text), make_plan(parse(text)).units[-1]))
    shape, params, _ = load_checkpoint(out / "checkpoints" / "step-00000012")
    records = run(text, out)
    for t, batch in enumerate(islice(unit.data.stream("sample"), 4)):
        assert isinstance(batch, TokenBatch)
        real = batch.tokens[:, 1:] != unit.corpus.bos
        assert 0 < (~real).sum() <= 4 * len(batch.tokens)
        each = cross_entropy(logits(shape, params, batch.tokens)[:, :-1].transpose(1, 2), batch.tokens[:, 1:], reduction="none")
        by_hand = each[real].double().mean().item()
        assert abs(each.double().mean().item() - by_hand) > 1e-3  # or the test could not fail
        for head in HEADS:
            assert records[head, "echo"].arrays["baseline"][t] == pytest.approx(by_hand, abs=2e-6)


def test_a_pool_in_a_notebook_counts_what_a_run_counts(home: tuple[str, Path], tmp_path: Path) -> None:
    """Bit for bit, on the chains' own data and on other."""
    out = copy_of(home, tmp_path)
    records = run(grid(home[0], "echo", 'evaluate_on = ["prose"]'), out)
    echo, prose = (pool(out, name) for name in ("echo", "prose"))
    checkpoint = out / "checkpoints" / "step-00000012"
    found = rllc.estimate(checkpoint, echo, "heads", data_name="echo", evaluate_on={"prose": prose}, progress=False, **SETTINGS)
    assert set(records) == {(head, data) for head in HEADS for data in ("echo", "prose")}
    for head, result in found.items():
        for name, of_notebook in (("echo", result), ("prose", result.elsewhere["prose"])):
            record = records[head, name]
            for trace, array in of_notebook.traces.arrays().items():
                np.testing.assert_array_equal(array, traces_of(record).arrays()[trace], err_msg=f"{head} {name} {trace}")
            for key in ("llc", "stderr", "ci_low", "outcome", "reason", "data", "evaluated_on", "rhat", "ess"):
                assert of_notebook.meta[key] == record.meta[key], key


def pool(out: Path, name: str, documents: Documents = "packed") -> ContextPool:
    return ContextPool(open_corpus(out / "corpus"), Mixture.of(name), "train", 24, documents)


def test_the_general_road_and_mixtures_count_none_either(home: tuple[str, Path]) -> None:
    echo = pool(home[1], "echo")
    native, general = (PoolBatches(echo, native).draw(np.random.default_rng(0), 16) for native in (True, False))
    assert torch.equal(native.tokens, general["input_ids"])
    assert torch.equal(native.rows, general["rows"])
    tokens, marked = MixedRows([PooledRows(echo)], [1.0]).rows(np.random.default_rng(0), 16)
    assert (marked == (tokens != echo.bos))[:, 1:].all()
    assert not marked[:, 1:].all()


def test_documents_one_a_row(home: tuple[str, Path], tmp_path: Path) -> None:
    one = '[sampling]\ndocuments = "one a row"'
    text, out = grid(home[0], "echo").replace("[sampling]", one), copy_of(home, tmp_path)
    unit = OpenedUnit(Work(out, parse(text), make_plan(parse(text)).units[0]))
    for batch in islice(unit.data.stream("sample"), 3):
        assert isinstance(batch, TokenBatch)
        assert (batch.tokens[:, :11] != unit.corpus.bos)[:, 1:].all()  # a whole document of 11 tokens ...
        assert (batch.tokens[:, 11:] == unit.corpus.bos).all()  # ... and padding
        assert batch.rows is not None
        assert len(batch.rows) == 2 * 10
    packed = run(grid(home[0], "echo"), out)
    run(text, out)
    both = [record for record in Store(out / "records").records("sample") if record.meta["part"] == "1:0"]
    assert {record.meta["documents"] for record in both} == {"packed", "one a row"}  # under keys of their own
    assert [record.meta["documents"] for record in both if record.digest == packed["1:0", "echo"].digest] == ["packed"]
    with pytest.raises(RllcError, match=r"sampling\.documents is 'rows', but must be one of 'packed', 'one a row'"):
        parse(grid(home[0]).replace("[sampling]", '[sampling]\ndocuments = "rows"'))
    with pytest.raises(RllcError, match="The pool has one document a row, and a loss of your own"):
        open_tokens(pool(out, "echo", "one a row"), "echo", how_from({}), 0, 0, alone=True)


# --- evaluated elsewhere


def test_chains_are_the_same_whatever_they_are_evaluated_on(home: tuple[str, Path], tmp_path: Path) -> None:
    bare = run(grid(home[0]), copy_of(home, tmp_path, "bare"))
    out = copy_of(home, tmp_path, "watched")
    text = grid(home[0], more='evaluate_on = ["echo", "mixture/heldout", "prose"]')
    watched = run(text, out)
    assert set(watched) == {(head, data) for head in HEADS for data in ("prose", "echo", "mixture/heldout")}
    for head in HEADS:
        assert watched[head, "prose"].digest == bare[head, "prose"].digest
        for name, array in bare[head, "prose"].arrays.items():
            np.testing.assert_array_equal(array, watched[head, "prose"].arrays[name])
        assert watched[head, "echo"].meta["data"] == "prose"
        np.testing.assert_array_equal(watched[head, "echo"].arrays["sq_distance"], bare[head, "prose"].arrays["sq_distance"])
        assert (watched[head, "echo"].arrays["losses"] != bare[head, "prose"].arrays["losses"]).all()
    assert "12 cells recorded, 12 planned" in describe_status(out)
    assert "prose 4, prose@echo 4, prose@mixture/heldout 4" in describe_plan(load(out / "experiment.toml"))
    rows = table.frame(watched.values())
    assert {*rows["data"]} == {"prose"}
    assert {*rows["evaluated_on"]} == {"prose", "echo", "mixture/heldout"}
    more = ("", 'evaluate_on = ["echo"]', 'evaluate_on = ["echo", "mixture"]')
    one, two, three = (make_plan(parse(grid(home[0], more=given))).cost for given in more)
    assert two > one
    assert three - two == pytest.approx(two - one)


def test_what_was_evaluated_elsewhere_is_compared_and_explained(home: tuple[str, Path], tmp_path: Path) -> None:
    out = copy_of(home, tmp_path)
    records = run(grid(home[0], more='evaluate_on = ["echo"]'), out)
    found = compare_run(out, "data", parts=["1:0"])
    (row,) = found.rows
    assert {row.a, row.b} == {"prose", "prose@echo"}
    difference = records["1:0", row.a.split("@")[-1]].meta["llc"] - records["1:0", row.b.split("@")[-1]].meta["llc"]
    assert row.found.difference == pytest.approx(difference)
    (heading, _, _), *others = explain_cells(out, ["1:0"], ["prose@echo"])
    assert heading.startswith("step 12, prose@echo, 1:0")
    assert not others


def test_chains_that_are_evaluated_elsewhere_are_prolonged_as_one_long_run(home: tuple[str, Path], tmp_path: Path) -> None:
    text = grid(home[0], more='evaluate_on = ["echo"]').replace("batch_size = 2\n", "batch_size = 2\nkeep_state = true\n")
    more = text.replace("draws = 16", "draws = 24")
    out = copy_of(home, tmp_path, "short")
    run(text, out)
    prolonged, long = run(more, out), run(more, copy_of(home, tmp_path, "long"))
    assert set(prolonged) == set(long)
    for key, record in prolonged.items():
        assert record.segments == 2
        assert record.meta["prolonged"] == "16 draws; 8 more, exactly as in one run"
        for name, array in traces_of(long[key]).arrays().items():
            np.testing.assert_array_equal(traces_of(record).arrays()[name], array, err_msg=f"{key} {name}")
        assert record.meta["llc"] == long[key].meta["llc"]


def test_elsewhere_can_be_asked_for_later_and_go_on_then(home: tuple[str, Path], tmp_path: Path) -> None:
    """The chains' own record has two segments by then and the other one: they start again together."""
    out = copy_of(home, tmp_path)
    first, second = grid(home[0]), grid(home[0]).replace("draws = 16", "draws = 24")
    run(first, out)
    own = run(second, out)
    later = run(second.replace("checkpoints = [12]", 'checkpoints = [12]\nevaluate_on = ["echo"]'), out)
    assert later["1:0", "prose"].segments == own["1:0", "prose"].segments == 2
    assert (later["1:0", "echo"].segments, later["1:0", "echo"].meta["draws"]) == (1, 24)
    last = run(second.replace("draws = 24", "draws = 30").replace("checkpoints = [12]", 'checkpoints = [12]\nevaluate_on = ["echo"]'), out)
    assert [(last["1:0", name].segments, last["1:0", name].meta["draws"]) for name in ("prose", "echo")] == [(3, 30), (2, 30)]
    ends = [traces_of(last["1:0", name]) for name in ("prose", "echo")]
    for name in ("sq_distance", "force_dot"):  # the last segment is of the same chains
        np.testing.assert_array_equal(*(getattr(traces, name)[..., -11:] for traces in ends))
    np.testing.assert_array_equal(ends[1].sq_distance[..., -11], 0)
    before = (out / "log.jsonl").read_text()
    run(second.replace("draws = 24", "draws = 30").replace("checkpoints = [12]", 'checkpoints = [12]\nevaluate_on = ["echo"]'), out)
    assert "Prolonging" not in (out / "log.jsonl").read_text()[len(before) :]


def test_what_has_fewer_draws_elsewhere_is_mended_once(home: tuple[str, Path], tmp_path: Path) -> None:
    """The chains' own record has 24 draws when it is evaluated elsewhere by 16: the same command twice changes nothing the second time."""
    out = copy_of(home, tmp_path)
    with_echo = grid(home[0], more='evaluate_on = ["echo"]')
    long = with_echo.replace("draws = 16", "draws = 24")
    run(grid(home[0]).replace("draws = 16", "draws = 24"), out)
    run(with_echo, out)
    once, twice = run(long, out), run(long, out)
    assert once["1:0", "echo"].meta["draws"] == 24
    for key, record in once.items():
        assert (record.segments, record.meta["llc"]) == (twice[key].segments, twice[key].meta["llc"])


def test_data_of_one_content_and_two_names_is_not_one_record(home: tuple[str, Path]) -> None:
    """Minibatches are seeded by the name."""
    named = "".join(f'[refinements.{name}]\ndata = "echo"\ninduction = true\n' for name in ("a", "b"))
    experiment = parse(grid(home[0]).replace("[behaviour]", named + "[behaviour]"))
    keys = [data_key(experiment, DataKey(name), {}, "corpus") for name in ("a", "b")]
    assert keys[0] != keys[1]
    assert keys[0] == keys[1] | {"name": "a"}


@pytest.mark.parametrize(("old", "new", "sentence"), [
    ('data = ["prose"]', 'data = ["prose@echo"]', r"sample names the data 'prose@echo'. Name what is evaluated elsewhere in evaluate_on"),
    ('data = ["prose"]', 'data = ["prose"]\nevaluate_on = ["tales"]', r"sample.data names 'tales', but the corpus has prose, echo"),
    ('sampler = "sgld"', 'sampler = "mala"', "MALA's draws are evaluated on its own batch alone"),
])  # fmt: skip
def test_what_cannot_be_evaluated_elsewhere_is_refused(home: tuple[str, Path], old: str, new: str, sentence: str) -> None:
    text = grid(home[0], more='evaluate_on = ["echo"]' if "evaluate_on" not in new else "")
    assert old in text
    with pytest.raises(RllcError, match=sentence):
        parse(text.replace(old, new))
