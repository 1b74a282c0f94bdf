"""Shares of tokens in a run: recorded beside the samples, which they leave as they are, and read back with their texts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rllc.core.errors import RllcError
from rllc.core.outcome import Outcome
from rllc.corpus.batches import snippets
from rllc.corpus.tokens import open_corpus
from rllc.model.batch import token_batch
from rllc.records.store import Store
from rllc.runs.experiment import Experiment, parse
from rllc.runs.grid import missing_work, sample_stage
from rllc.runs.keys import KIND, SHARES
from rllc.runs.layout import RunFolder
from rllc.runs.plan import make_plan
from rllc.runs.progress import Reporter
from rllc.runs.sampling import OpenedUnit, Work, sample_unit
from rllc.runs.token_shares import token_shares

from .test_controls import controlled

SAMPLING = "[sampling]\nbatch_size = 2\n"


def asking(finished: Path, data: str, parts: str = '["1:0", "0:1", "1.random0"]', more: str = "share_contexts = 3\n") -> Experiment:
    return controlled(finished, parts, data, changes=(SAMPLING, SAMPLING + more))


@pytest.mark.parametrize("data", ["mixture", "echo/heldout", "shuffled"])
def test_shares_are_of_the_snippets_and_contexts_and_add_up(finished: Path, data: str) -> None:
    experiment = asking(finished, data, more="share_contexts = 3\nfixed_contexts = 3\n")
    corpus = open_corpus(RunFolder(finished).corpus)
    for unit in make_plan(experiment).units:
        if unit.step != 12:
            continue
        for sample in sample_unit(Work(finished, experiment, unit)):
            assert sample.shares is not None
            _, arrays, meta = sample.shares
            domains = ["prose", "echo"] if data != "echo/heldout" else ["echo"]
            assert meta["names"] == (*domains, *(f"{data}, context {i}" for i in (1, 2, 3)))
            length = min(experiment.behaviour.snippet_length, 24)
            first = arrays["tokens"][arrays["text"] == 0]
            shown = snippets(corpus, domains[0], 1, length, experiment.seed)[0]
            assert np.array_equal(np.sort(first), np.sort(shown))
            assert np.array_equal(first, shown) == (data != "shuffled")
            share = arrays["chain_means"].mean(0)
            assert abs(share[:-1].sum() - share[-1]) < 1e-9
            # the contexts are those of the fixed evaluation set, whose λ̂ is the sum over their tokens alone
            tokens_of = arrays["text"][arrays["places"]]
            n, own = len(tokens_of), tokens_of >= len(domains)
            assert abs(share[:-1][own].sum() * n / own.sum() - sample.meta["llc"]) < 2e-5 * (1 + abs(sample.meta["llc"]))
            assert (arrays["tokens"][arrays["places"]] != corpus.bos).all()


def test_a_run_that_is_asked_for_shares_later_adds_them_and_leaves_its_numbers(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    text = (run / "experiment.toml").read_text()
    # the second block of the grid alone, at the last checkpoint
    second = text.index("[[sample]]", text.index("[[sample]]") + 1)
    text = text[: text.index("[[sample]]")] + text[second:].replace("checkpoints = [0, 12]", "checkpoints = [12]")
    (run / "experiment.toml").write_text(text.replace(SAMPLING, SAMPLING + "share_contexts = 2\n"))
    experiment = parse((run / "experiment.toml").read_text())
    before = {path.name: path.read_bytes() for path in (run / "records" / KIND).iterdir()}
    with pytest.raises(RllcError, match=r"holds no shares of tokens of any part on prose.*share_contexts"):
        token_shares(run, "prose")
    folder, store = RunFolder(run), Store(run / "records")
    works = missing_work(experiment, folder, store)
    assert len(works) == len(make_plan(experiment).units) == 6
    sample_stage(experiment, folder, Reporter(quiet=True))
    assert {path.name: path.read_bytes() for path in (run / "records" / KIND).iterdir()} == before
    assert missing_work(experiment, folder, store) == []
    assert len(store.digests(SHARES)) == 10
    found = token_shares(run, "prose")
    assert found.heads == ("0:0", "0:1", "1:0", "1:1", "0.attn")
    assert found.step == 12
    assert found.texts == ("prose", "prose, context 1", "prose, context 2")
    np.testing.assert_allclose(np.nansum(found.share, 1), found.total, rtol=0, atol=1e-9)
    assert found.draws == (16,) * 5
    alone = found.of("prose")
    corpus = open_corpus(folder.corpus)
    assert alone.tokens == tuple(corpus.decode(snippets(corpus, "prose", 1, 24, experiment.seed)[0]))
    assert np.isnan(alone.share[:, 0]).all()
    assert np.isfinite(alone.share[:, 1:]).all()
    assert (alone.stderr[:, 1:] > 0).all()
    place, token, share, stderr = found.top("1:1", 1)[0]
    assert share == np.nanmax(found.share[3])
    assert (token, stderr) == (found.tokens[place], found.stderr[3, place])
    assert token_shares(run, "echo/heldout", 12, ["0.attn"]).heads == ("0.attn",)
    for step, parts, sentence in ((3, (), r"on prose at step 3\. There are some at 12"), (None, ["1:5"], "of 1:5 on prose")):
        with pytest.raises(RllcError, match=sentence):
            token_shares(run, "prose", step, parts)
    with pytest.raises(RllcError, match="no text 'nowhere'"):
        found.of("nowhere")
    with pytest.raises(RllcError, match=r"'1\.mlp' has no shares"):
        found.top("1.mlp")


@pytest.mark.parametrize("keep", ["", "keep_state = true\n"])
def test_shares_asked_for_together_with_more_draws_count_every_draw_once(finished: Path, tmp_path: Path, keep: str) -> None:
    """Against a run that asked for them from the beginning: the same two segments, to the bit."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "records" / KIND)
    text = (run / "experiment.toml").read_text()
    grid = text[text.index("[[sample]]") : text.index("[behaviour]")]
    one = '[[sample]]\nparts = ["1:0", "1:1"]\ndata = ["prose"]\ncheckpoints = [12]\n'
    plain = text.replace(grid, one).replace(SAMPLING, SAMPLING + keep)
    asked = plain.replace(SAMPLING, SAMPLING + "share_contexts = 2\n")
    more = asked.replace("draws = 16", "draws = 24")
    shutil.copytree(run, tmp_path / "early")
    for folder, texts in ((run, (plain, more)), (tmp_path / "early", (asked, more))):
        for given in texts:
            (folder / "experiment.toml").write_text(given)
            sample_stage(parse(given), RunFolder(folder), Reporter(quiet=True))
    late, early = token_shares(run, "prose"), token_shares(tmp_path / "early", "prose")
    assert {record.meta["draws"] for record in Store(run / "records").records(KIND)} == {24}
    assert late.draws == early.draws == (24, 24)
    np.testing.assert_array_equal(late.share, early.share)
    np.testing.assert_array_equal(late.stderr, early.stderr)


def test_shares_cells_and_draws_asked_for_in_one_edit_are_all_there_after_one_run(finished: Path, tmp_path: Path) -> None:
    """A cell that is evaluated elsewhere is sampled anew with more draws; its shares are of the first segment that is there, then of what follows."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "records" / KIND)
    text = (run / "experiment.toml").read_text()
    grid = text[text.index("[[sample]]") : text.index("[behaviour]")]
    one = '[[sample]]\nparts = ["1:0"]\ndata = ["prose"]\ncheckpoints = [12]\n'
    plain = text.replace(grid, one)
    everything = plain.replace(SAMPLING, SAMPLING + "share_contexts = 2\n").replace("draws = 16", "draws = 24")
    everything = everything.replace("checkpoints = [12]\n", 'checkpoints = [12]\nevaluate_on = ["echo"]\n')
    for given in (plain, everything):
        (run / "experiment.toml").write_text(given)
        sample_stage(parse(given), RunFolder(run), Reporter(quiet=True))
    assert token_shares(run, "prose").draws == (24,)


def test_later_segments_have_shares_even_where_the_one_before_has_none(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "records" / KIND)
    text = (run / "experiment.toml").read_text()
    grid = text[text.index("[[sample]]") : text.index("[behaviour]")]
    plain = text.replace(grid, '[[sample]]\nparts = ["1:0"]\ndata = ["prose"]\ncheckpoints = [12]\n')
    asked = plain.replace(SAMPLING, SAMPLING + "share_contexts = 2\n")
    told = []
    for given in (
        plain,
        plain.replace("draws = 16", "draws = 24"),
        asked.replace("draws = 16", "draws = 24"),
        asked.replace("draws = 16", "draws = 34"),
    ):
        (run / "experiment.toml").write_text(given)
        sample_stage(parse(given), RunFolder(run), Reporter(quiet=True))
        told.append(token_shares(run, "prose").draws if "share_contexts" in given else ())
    assert told == [(), (), (16,), (16 + 10,)]  # of 24, and of 34


def test_a_refused_cell_has_no_shares(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    text = (run / "experiment.toml").read_text().replace(SAMPLING, SAMPLING + "share_contexts = 2\n").replace("nbeta = 30", "nbeta = 3e8")
    grid = text[text.index("[[sample]]") : text.index("[behaviour]")]
    text = text.replace(grid, '[[sample]]\nparts = ["1:0"]\ndata = ["prose"]\ncheckpoints = [12]\n')
    (run / "experiment.toml").write_text(text)
    sample_stage(parse(text), RunFolder(run), Reporter(quiet=True))
    found = token_shares(run, "prose")
    assert Outcome(found.outcome[0]).refused
    for values in (found.share, found.stderr, found.total, found.total_stderr):
        assert np.isnan(values).all()
    assert found.top("1:0") == []


def test_asking_for_shares_leaves_the_chunk_of_a_pass(finished: Path) -> None:
    """Or the very losses would round otherwise under one key; the probe is evaluated in pieces no larger than the chains' minibatches."""
    small = ("[engine]", "[engine]\nmemory = 1")
    bare, many = (controlled(finished, '["heads"]', "prose", changes=small), controlled(finished, '["heads"]', "prose", changes=small))
    many = replace(many, sampling=replace(many.sampling, share_contexts=64))
    assert [unit.chunk for unit in make_plan(bare).units] == [unit.chunk for unit in make_plan(many).units]
    probe = OpenedUnit(Work(finished, many, make_plan(many).units[-1])).data.probe()
    assert max(len(token_batch(batch).tokens) for batch in probe.batches) <= many.sampling.batch_size
    assert len(probe.names) == 65


def test_mala_tells_none(finished: Path) -> None:
    with pytest.raises(RllcError, match="MALA tells no shares"):
        parse((finished / "experiment.toml").read_text().replace('"sgld"', '"mala"').replace(SAMPLING, SAMPLING + "share_contexts = 2\n"))
