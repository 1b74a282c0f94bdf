from __future__ import annotations

import numpy as np
import pytest

from rllc.behaviour.classes import CLASSES, classify
from rllc.behaviour.closing import Brackets
from rllc.behaviour.ngrams import count_ngrams
from rllc.behaviour.patterns import PatternRules
from rllc.behaviour.skips import SkipTable
from rllc.core.errors import RllcError

NAMES = ["<bos>", "(", ")", "a", "b", "c", "d", "e", "f", "g", "h"]
BOS, V = 0, len(NAMES)


def ids(text: str) -> np.ndarray:
    return np.array([[BOS if token == "|" else NAMES.index(token) for token in row.split()] for row in text.split("\n")])


# a b → c always, twelve times; a → b in half of the cases; g → h eight times.
TABLE = count_ngrams([ids("| " + "a b c a d " * 12 + "g h e " * 8).reshape(-1)], 3, V, BOS)
SKIPS = SkipTable(V, BOS, 5, ids("d e f\ng e f"), np.array([20, 20]), np.array([0.9, 0.1]), np.ones(2), 2)


def classes(row: str, rules: PatternRules | None = None) -> list[str]:
    """The classes of every prediction, by their first letters; a dot where it does not count."""
    found = classify(ids(row), TABLE, SKIPS, Brackets(NAMES, BOS), rules)
    letters = ["".join(name[0] for name, flag in zip(CLASSES, flags, strict=True) if flag) or "." for flags in found.flags[:, 0].T]
    primary = [CLASSES[p][0] if p >= 0 else "." for p in found.primary[0]]
    assert primary == [several[0] for several in letters]
    assert found.counted[0].tolist() == [several != "." for several in letters]
    return letters


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ("| h b a h b", ". o o o i"),  # the pair h b again
        ("| a b c", ". n n"),
        ("| h b c", ". o n"),  # b → c by itself
        ("| g h", ". o"),  # eight times only
        ("| a d a b c a b c", ". n n n n n in in"),  # c → a occurs twelve times of twelve
        ("| ( a h )", ". o o b"),
        ("| d h e f", ". o o s"),
        ("| d e f", ". o o"),  # d right before e is no skip, and e → f is not in the text
        ("| g h e f", ". o o o"),  # a skip n-gram that makes f too unlikely
        ("| d h e f e f", ". o o s o is"),
        # nothing tells a BOS or what stands behind one; the pair a b is repeated, in whatever document of the context: induction heads see both
        ("| a b | a b", ". n . . in"),
        ("| ( h | h )", ". o . . o"),
        ("| d h | e f", ". o . . o"),
    ],
)
def test_contexts_by_hand(row, wanted):
    assert classes(row) == wanted.split()


def test_rules_move_what_counts():
    assert classes("| g h e", PatternRules(occurrences=8)) == [".", "n", "n"]
    assert classes("| a b", PatternRules(probability=0.6)) == [".", "o"]
    assert classes("| g h e f", PatternRules(probability=0.05)) == [".", "o", "o", "s"]


def test_depth_and_names():
    found = classify(ids("| ( ( h ) )\n| a ( b c )"), TABLE, SKIPS, Brackets(NAMES, BOS))
    assert found.depth.tolist() == [[0, 1, 2, 2, 1], [0, 0, 1, 1, 1]]
    assert np.array_equal(found.of("bracket"), found.flags[1])
    with pytest.raises(RllcError, match="There is no class of tokens 'dyck'"):
        found.of("dyck")


@pytest.mark.parametrize(("occurrences", "probability"), [(0, 0.3), (10, -0.1), (10, 1.1)])
def test_rules_that_make_no_sense_are_told(occurrences, probability):
    with pytest.raises(RllcError, match=f"Patterns that occur {occurrences} times and have a probability of {probability}"):
        PatternRules(occurrences, probability)
