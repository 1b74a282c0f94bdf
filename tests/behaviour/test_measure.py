from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch

from rllc.behaviour.attention import duplicate_token, first_token, prefix_matching, snippet_pattern, text_scores
from rllc.behaviour.loss_scores import loss_scores
from rllc.behaviour.measure import Probes, measure
from rllc.behaviour.settings import BehaviourSettings
from rllc.core.errors import RllcError
from rllc.corpus.planted import repeated_segments

SEGMENT = 7


@pytest.fixture
def probes(text, repeated) -> Probes:
    return Probes(text, repeated, SEGMENT, {"code": text, "echo": repeated}, {"code 1": text[0], "echo": repeated[0, :9]})


def test_a_measurement_holds_every_score_by_its_name(circuit, probes):
    shape, params = circuit
    found = measure(shape, params, probes)
    previous, current = text_scores(shape, params, probes.text)
    assert [str(head) for head in found.heads] == ["0:0", "0:1", "0:2", "1:0", "1:1", "1:2"]
    assert list(found.scores) == ["previous_token", "current_token", "prefix_matching", "first_token", "duplicate_token"]
    assert np.array_equal(found.scores["previous_token"], previous)
    assert np.array_equal(found.scores["current_token"], current)
    assert np.array_equal(found.scores["prefix_matching"], prefix_matching(shape, params, probes.repeated, SEGMENT))
    assert np.array_equal(found.scores["first_token"], first_token(shape, params, probes.text))
    assert np.array_equal(found.scores["duplicate_token"], duplicate_token(shape, params, probes.repeated))
    assert found.data == ("code", "echo")
    for i, tokens in enumerate(probes.contexts.values()):
        scores = loss_scores(shape, params, tokens)
        assert (found.losses[i], found.losses_stderr[i], found.icl[i], found.icl_stderr[i]) == (
            scores.loss,
            scores.stderr,
            scores.icl,
            scores.icl_stderr,
        )
        assert np.array_equal(found.position_losses[i], scores.by_position)
    assert found.losses.dtype == np.float64
    assert found.snippets == ("code 1", "echo")
    assert [p.shape for p in found.patterns] == [(6, 29, 29), (6, 9, 9)]
    assert np.array_equal(found.patterns[1], snippet_pattern(shape, params, probes.snippets["echo"]))


def test_measuring_twice_gives_the_same_and_leaves_the_weights(circuit, probes):
    shape, params = circuit
    before = {name: p.clone() for name, p in params.items()}
    a, b = measure(shape, params, probes), measure(shape, params, probes)
    assert all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.name not in ("scores", "scores_stderr", "patterns"))
    assert all(np.array_equal(a.scores[name], b.scores[name]) for name in a.scores)
    assert all(np.array_equal(a.scores_stderr[name], b.scores_stderr[name]) for name in a.scores)
    assert all(torch.equal(p, before[name]) for name, p in params.items())


def test_nothing_to_look_at_is_no_error(circuit, text, repeated):
    found = measure(*circuit, Probes(text, repeated, SEGMENT, {}, {}))
    assert (found.data, found.losses.shape, found.patterns) == ((), (0,), ())


def test_weights_that_are_not_finite_are_told(circuit, probes):
    shape, params = circuit
    params["ln_final.w"][3] = float("nan")
    with pytest.raises(RllcError, match=r"not finite, in ln_final\.w"):
        measure(shape, params, probes)


def test_contexts_of_two_lengths_are_told(text, repeated):
    with pytest.raises(RllcError, match="differ in length: code 29, prose 20"):
        Probes(text, repeated, SEGMENT, {"code": text, "prose": text[:, :20]}, {})


def test_the_corpus_rooms_probe_fits(circuit):
    rows = repeated_segments(np.random.default_rng(0), 8, SEGMENT, 4, 24, 0)
    assert prefix_matching(*circuit, rows, SEGMENT)[4] > 0.9


def test_segments_fit_the_context():
    settings = BehaviourSettings()
    assert [settings.segment_length(context) for context in (1024, 101, 100, 64, 9)] == [25, 25, 24, 15, 2]
    with pytest.raises(RllcError, match="A context of 8 tokens is too short for a segment repeated 4 times"):
        settings.segment_length(8)


@pytest.mark.parametrize("name", ["sequences", "segment", "repeats", "contexts", "snippets", "snippet_length"])
def test_sizes_that_make_no_sense_are_told(name):
    with pytest.raises(RllcError, match=f"behaviour.{name} is -1, but must be at least"):
        BehaviourSettings(**{name: -1})


def test_settings_do_not_need_torch():
    code = "import sys, rllc.behaviour.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
