from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rllc.behaviour.loss_scores import context_losses
from rllc.behaviour.memorised import Memorised, MemorisedRules, counts, examples, memorised, sensitivity
from rllc.behaviour.ngrams import NgramTable, count_ngrams
from rllc.behaviour.patterns import PatternRules, Patterns, find_patterns
from rllc.behaviour.skips import SkipTable, count_skips
from rllc.core.errors import RllcError

from .planted_ngrams import BOS, STRENGTH, TRIPLES, T, V, planted_contexts, skip_model

NAMES = [f"w{i}" for i in range(V)]
ANY = PatternRules(occurrences=1, probability=0.0)
NO_SKIPS = SkipTable(V, BOS, 5, np.zeros((0, 3), np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0), 0)


def toy(contexts: list[int]) -> Patterns:
    """Patterns with nothing nested, each once in so many contexts of its own column: effects are then free to be written."""
    occurrences = [(p, c, p) for p, n in enumerate(contexts) for c in range(n)]
    n = len(contexts)
    return Patterns(("2-gram",), np.zeros(n, np.int64), np.ones((n, 2), np.int64), np.full(n, -1), np.array(contexts), np.array(occurrences))


@pytest.fixture(scope="module")
def text() -> np.ndarray:
    return planted_contexts(1, 400)


@pytest.fixture(scope="module")
def skips() -> SkipTable:
    return count_skips([planted_contexts(0, 4000).reshape(-1)], V, BOS, window=12, information=0.5)


@pytest.fixture(scope="module")
def table() -> NgramTable:
    return count_ngrams([planted_contexts(0, 4000).reshape(-1)], 3, V, BOS)


def test_occurrences_and_what_narrows_what(text, table, skips):
    patterns = find_patterns(text, table, skips, 3, ANY)
    assert patterns.kinds == ("2-gram", "3-gram", "skip")
    assert {patterns.kinds[k] for k in patterns.kind.tolist()} == set(patterns.kinds)
    for p in [0, 1, 500, *np.flatnonzero(patterns.kind == 1)[:40].tolist(), *np.flatnonzero(patterns.kind == 2).tolist()]:
        words = [t for t in patterns.tokens[p].tolist() if t >= 0]
        here = patterns.occurrences[patterns.occurrences[:, 0] == p, 1:].tolist()
        wider = patterns.within[p]
        if patterns.kinds[patterns.kind[p]] == "skip":
            rows = [(b, t) for b, t in here if text[b, t + 1] == words[2] and text[b, t] == words[1] and words[0] in text[b, max(t - 12, 1) : t - 1]]
            assert rows == list(map(tuple, here))
        else:
            n = len(words)
            assert here == [[b, t - 1] for b in range(400) for t in range(n, T) if text[b, t - n + 1 : t + 1].tolist() == words]
        assert patterns.contexts[p] == len({b for b, _ in here}) >= 3
        assert (wider >= 0) == (len(words) == 3)
        if wider >= 0:
            assert patterns.tokens[wider].tolist() == [*words[1:], -1]
            assert patterns.within[wider] == -1


def test_rules_and_predictions_that_do_not_count_leave_patterns_out(text, table, skips):
    every, likely = find_patterns(text, table, skips, 3, ANY), find_patterns(text, table, skips, 3, PatternRules())
    assert 4 <= len(likely) < len(every) / 10
    assert {likely.text(p, NAMES) for p in range(len(likely)) if likely.kind[p] == 2} == {f"w{a} … w{b} → w{c}" for a, b, c in TRIPLES}
    half = np.ones((400, T - 1), bool)
    half[:200] = False
    assert find_patterns(text, table, skips, 3, ANY, half).occurrences[:, 1].min() == 200
    none = find_patterns(text, table, skips, 3, ANY, half & False)
    assert len(none) == 0
    assert memorised(np.zeros((2, 400, T - 1)), none).found.shape == (2, 0)


def test_a_planted_table_of_skip_ngrams_is_found_to_the_last_entry(text, table, skips):
    """Head 0:1 of the planted model holds the four; the others hold nothing. Each of them raises the loss by the same, known amount."""
    shape, params = skip_model()
    whole = context_losses(shape, params, text)
    effects = []
    for h in range(3):
        w = params["blocks.0.attn.W_O"].clone()
        w[h] = 0
        effects.append(context_losses(shape, params | {"blocks.0.attn.W_O": w}, text) - whole)
    patterns = find_patterns(text, table, skips, rules=ANY)
    held = memorised(np.array(effects), patterns)
    assert counts(held.found, patterns).tolist() == [[0, 0, 0], [0, 0, 4], [0, 0, 0]]
    assert np.array_equal(held.found, held.own)  # B → C stands half of the time without its A: at most half is what the binomial test is against
    rise = np.log(V) - np.log((V - 1 + np.exp(STRENGTH)) / np.exp(STRENGTH))
    assert held.mean[1][held.found[1]] == pytest.approx(np.full(4, rise), rel=1e-3)
    shown = examples(held, patterns, 1, NAMES)
    assert {example.text for example in shown} == {f"w{a} … w{b} → w{c}" for a, b, c in TRIPLES}
    assert all(example.kind == "skip" and example.contexts >= 40 for example in shown)
    assert examples(held, patterns, 0, NAMES) == []


def test_noise_blurs_what_is_found_but_not_what_is_the_heads_own(text, table, skips):
    """Four skip n-grams held, 3 nats each. With noise B → C rises in more than half of its contexts: it is found, and for their sake alone."""
    patterns = find_patterns(text, table, skips, rules=ANY)
    held = [p for p in np.flatnonzero(patterns.kind == 2).tolist() if tuple(patterns.tokens[p].tolist()) in TRIPLES]
    there = patterns.occurrences[np.isin(patterns.occurrences[:, 0], held)]
    effects = 0.5 * np.random.default_rng(4).standard_normal((3, 400, T - 1))
    effects[0, there[:, 1], there[:, 2]] += 3
    result = memorised(effects, patterns)
    assert np.flatnonzero(result.own[0]).tolist() == held
    assert counts(result.found, patterns)[0, 0] >= 2
    assert result.found[1:].sum() == 0


def planted_trigrams(text: np.ndarray, table: NgramTable) -> tuple[Patterns, np.ndarray, set[int]]:
    """Effects of one nat on three trigrams of the text, of another head on one bigram."""
    patterns = find_patterns(text, table, NO_SKIPS, 3, ANY)
    trigrams = np.flatnonzero(patterns.kind == 1)[:3]
    # a bigram that is common enough for trigrams to end in it
    bigram = np.bincount(patterns.within[patterns.within >= 0]).argmax()
    effects = np.zeros((2, 400, T - 1))
    for h, those in enumerate((trigrams, [bigram])):
        rows = patterns.occurrences[np.isin(patterns.occurrences[:, 0], those)]
        effects[h, rows[:, 1], rows[:, 2]] = 1
    return patterns, effects, {*trigrams.tolist()}


def test_planted_ngrams_are_found_with_their_counts(text, table):
    patterns, effects, trigrams = planted_trigrams(text, table)
    held = memorised(effects, patterns, MemorisedRules(contexts=3, consistency=0.0))
    assert set(np.flatnonzero(held.found[0])) == trigrams
    assert counts(held.own, patterns).tolist() == [[0, 3, 0], [1, 0, 0]]
    narrower = counts(held.found, patterns)[1]
    assert narrower[0] == 1
    assert narrower[1] >= 1  # the trigrams that end in the bigram are found with it, and are not the head's own
    assert not examples(held, patterns, 1, NAMES)[1:]
    assert len(examples(held, patterns, 1, NAMES, 99, own=False)) == 1 + narrower[1]


def test_the_numbers_are_those_of_two_tests_over_contexts():
    patterns = toy([6, 9])
    doubled = Patterns(
        **{**vars(patterns), "occurrences": np.array([(p, c, t) for p, c, _ in patterns.occurrences.tolist() for t in (2 * p, 2 * p + 1)])}
    )
    effects = np.random.default_rng(0).normal(0.4, 0.5, (3, 9, 4))
    held = memorised(effects, doubled, MemorisedRules(threshold=0.2))
    for h in range(3):
        units = [effects[h, :6, :2].mean(1), effects[h, :, 2:].mean(1)]
        p = [
            max(stats.ttest_1samp(unit, 0.2, alternative="greater").pvalue, stats.binomtest((unit > 0.2).sum(), len(unit), 0.5, "greater").pvalue)
            for unit in units
        ]
        assert held.mean[h] == pytest.approx([unit.mean() for unit in units])
        assert held.stderr[h] == pytest.approx([stats.sem(unit) for unit in units])
        assert held.consistency[h] == pytest.approx([(unit > 0.2).mean() for unit in units])
        assert held.adjusted[h] == pytest.approx([min(2 * min(p), max(p)), max(p)] if p[0] < p[1] else [max(p), min(2 * min(p), max(p))])
        assert held.found[h].tolist() == [a <= 0.05 for a in held.adjusted[h]]


def test_noise_alone_is_taken_for_memory_as_often_as_the_level_says():
    """1,000 heads that do nothing but noise: any find at all in 5 % of them (Benjamini-Hochberg on nulls), ±2.4 % at 3.5 sd."""
    noise = np.random.default_rng(1).standard_normal((1000, 12, 60))
    held = memorised(noise, toy([12] * 60), MemorisedRules(threshold=0.0, consistency=0.0))
    assert 0.026 <= held.found.any(1).mean() <= 0.074
    strict = memorised(noise[:300], toy([12] * 60), MemorisedRules(threshold=0.0))
    assert strict.found.any(1).mean() < 0.026  # what the binomial test takes away


def test_among_planted_patterns_the_false_ones_keep_to_their_share():
    """Twenty of sixty patterns are real; at a level of 20 % Benjamini-Hochberg lets in 20 % · 40 / 60 = 13.3 % false ones on average."""
    effects = np.random.default_rng(2).standard_normal((600, 12, 60))
    effects[:, :, :20] += 1.2
    held = memorised(effects, toy([12] * 60), MemorisedRules(threshold=0.0, consistency=0.0, false_discoveries=0.2))
    false = held.found[:, 20:].sum(1) / np.maximum(held.found.sum(1), 1)
    assert abs(false.mean() - 0.1333) < 3.5 * false.std() / 600**0.5
    assert held.found[:, :20].mean() > 0.8


def test_sensitivity_counts_what_each_rule_alone_finds(text, table):
    patterns, effects, _ = planted_trigrams(text, table)
    effects += 0.2 * np.random.default_rng(3).standard_normal(effects.shape)
    thresholds, contexts = (0.0, 0.3, 0.9, 1.5), (3, 6)
    found, own = sensitivity(effects, patterns, thresholds, contexts, MemorisedRules(consistency=0.0))
    assert found.shape == own.shape == (2, 4, 2, 3)
    for e, threshold in enumerate(thresholds):
        for m, least in enumerate(contexts):
            held: Memorised = memorised(effects, patterns, MemorisedRules(threshold, least, 0.0))
            assert np.array_equal(found[:, e, m], counts(held.found, patterns))
            assert np.array_equal(own[:, e, m], counts(held.own, patterns))
            assert held.tried == (patterns.contexts >= least).sum()
    assert found[:, 1].sum() > 0
    assert found[:, 3].sum() == 0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: memorised(np.zeros((1, 5, 2)), toy([6, 6])), "effects are of 5 contexts with 2 predictions, and patterns stand outside"),
        (lambda: memorised(np.full((1, 6, 2), np.inf), toy([6, 6])), "hold numbers that are not finite"),
        (lambda: sensitivity(np.zeros((1, 6, 2)), toy([6, 6]), [0.1], [5]), "Patterns in 5 contexts or more were asked for; all that were gathered"),
        (lambda: MemorisedRules(contexts=1), r"contexts=1.* were asked for"),
        (lambda: MemorisedRules(false_discoveries=0.0), r"false_discoveries=0\.0"),
        (lambda: MemorisedRules(consistency=1.0), r"consistency=1\.0"),
        (lambda: find_patterns(np.zeros((2, 4), np.int64), count_ngrams([np.array([0, 1, 2])], 2, V, BOS), NO_SKIPS, 1), "in 1 contexts were asked"),
    ],
)
def test_what_makes_no_sense_is_told(call, sentence):
    with pytest.raises(RllcError, match=sentence):
        call()
