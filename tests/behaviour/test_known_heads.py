"""Heads made by hand, ablated for real: each is found to know what was planted in it, and no other."""

from __future__ import annotations

import numpy as np

from rllc.behaviour.ablation import ablation_effects
from rllc.behaviour.classes import CLASSES, TokenClasses, classify
from rllc.behaviour.closing import Brackets
from rllc.behaviour.memorised import counts, examples, memorised
from rllc.behaviour.ngrams import count_ngrams
from rllc.behaviour.patterns import PatternRules, find_patterns
from rllc.behaviour.shares import class_shares
from rllc.behaviour.skips import count_skips

from .planted_models import (
    CLOSE,
    OPEN,
    SKIP_TRIGRAMS,
    V,
    bracket_model,
    bracket_text,
    induction_model,
    repeats,
    skip_trigram_model,
    skip_trigram_text,
)

NAMES = [f"w{i}" for i in range(V)]


def classes_of(tokens: np.ndarray, names: list[str] = NAMES) -> TokenClasses:
    text = [tokens.reshape(-1)]
    return classify(tokens, count_ngrams(text, 3, V, 0), count_skips(text, V, 0, 30), Brackets(names, 0))


def mixed_text(n: int, rng: np.random.Generator) -> np.ndarray:
    """Of three rows one has A … B → C, one B → C without its A, one B and filler without A: B alone does not settle C."""
    tokens, is_c = skip_trigram_text(n, rng)
    lone = np.arange(n) % 3 > 0
    tokens[lone[:, None] & np.isin(tokens, [a for a, _, _ in SKIP_TRIGRAMS])] = 12
    bare = (np.arange(n) % 3 > 1)[:, None] & is_c
    tokens[:, 1:][bare] = rng.integers(11, V, int(bare.sum()))
    return tokens


def test_the_skip_trigram_head_holds_its_table_and_no_other_head_does():
    rng = np.random.default_rng(0)
    text, tokens = [mixed_text(3000, rng).reshape(-1)], mixed_text(600, rng)
    model = skip_trigram_model()
    patterns = find_patterns(tokens, count_ngrams(text, 3, V, 0), count_skips(text, V, 0, 30, information=0.2), rules=PatternRules(10, 0.0))
    held = memorised(ablation_effects(model.shape, model.params, tokens), patterns)
    head = model.indices["skip_trigram"]
    assert counts(held.own, patterns)[head].tolist() == [0, 0, len(SKIP_TRIGRAMS)]
    assert {e.text for e in examples(held, patterns, head, NAMES)} == {f"w{a} … w{b} → w{c}" for a, b, c in SKIP_TRIGRAMS}
    assert not np.delete(held.found, head, 0).any()


def test_induction_circuit_and_bracket_matcher_have_their_class():
    rng = np.random.default_rng(1)
    tokens = repeats(60, rng)
    model = induction_model()
    found = classes_of(tokens)
    shares = class_shares(ablation_effects(model.shape, model.params, tokens), found.flags, found.counted, rng, [0.2])
    for role in ("previous", "induction"):
        assert shares.shares[model.indices[role], 0, CLASSES.index("induction")] == 1
        assert shares.excess_interval[model.indices[role], 0, CLASSES.index("induction"), 0] > 0
    idle = np.setdiff1d(np.arange(len(shares.shares)), list(model.indices.values()))
    assert np.isnan(shares.shares[idle]).all()

    tokens, _ = bracket_text(60, rng)
    names = list(NAMES)
    for opening, closing in OPEN.items():
        names[opening], names[closing] = "([{"[opening - 1], ")]}"[opening - 1]
    model = bracket_model()
    found = classes_of(tokens, names)
    assert np.array_equal(found.of("bracket"), np.isin(tokens[:, 1:], list(CLOSE)) & found.counted)
    shares = class_shares(ablation_effects(model.shape, model.params, tokens), found.flags, found.counted, rng, [0.1])
    assert shares.shares[model.indices["bracket"], 0, CLASSES.index("bracket")] == 1
    assert shares.excess_interval[model.indices["bracket"], 0, CLASSES.index("bracket"), 0] > 0.3
