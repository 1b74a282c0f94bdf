from __future__ import annotations

import numpy as np
import pytest

from rllc.behaviour.closing import Brackets
from rllc.corpus.planted import brackets as dyck

NAMES = ["<bos>", *"()[]{}", '"', "'", "a", "\n", " ", "()", ")]", ")(", "⏎()", "'t", "f", "“", "”", "⏎␣", "))", "x("]
BOS = 0
READER = Brackets(NAMES, BOS)


def read(*names: str) -> tuple[list[int], list[int]]:
    """Places of closing tokens, and the depth before every token."""
    found = READER.closing(np.array([[NAMES.index(name) for name in names]]))
    return np.flatnonzero(found.closes[0]).tolist(), found.depth[0].tolist()


@pytest.mark.parametrize(
    ("names", "closes", "depth"),
    [
        ("( [ a ] a )", [3, 5], [0, 1, 2, 2, 1, 1]),
        ("( a ) )", [2], [0, 1, 1, 0]),  # one too many closes nothing
        ("( ]", [], [0, 1]),  # another kind neither
        ("[ ( ] )", [2], [0, 1, 2, 0]),  # what was opened inside is forgotten
        ("() ( ()", [], [0, 0, 1]),  # a pair within a token is nothing to remember
        ("( [ a )]", [3], [0, 1, 2, 2]),  # ) closes the outer and forgets [
        ("[ ( )] a", [2], [0, 1, 2, 0]),
        ("( )( a )", [1, 3], [0, 1, 1, 1]),
        ("( ( )) a", [2], [0, 1, 2, 0]),
        ("x( a )", [2], [0, 1, 1]),
        ('" a " a', [2], [0, 1, 1, 0]),
        ('( " ) " )', [2], [0, 1, 2, 0, 1]),  # a quotation mark that the bracket made forgotten opens anew
        ("' a '", [2], [0, 1, 1]),
        ("a 't a '", [], [0, 0, 0, 0]),  # an apostrophe
        ("a ' a ' a", [3], [0, 0, 1, 1, 0]),  # between tokens, as in f'…'
        ("( 't )", [2], [0, 1, 2]),  # behind no letter it opens
        ("' a \n a '", [], [0, 1, 1, 0, 0]),  # the end of a line ends it
        ("' ( ⏎␣ a )", [], [0, 1, 2, 0, 0]),
        ("( ' ⏎␣ a )", [4], [0, 1, 2, 1, 1]),
        ("' a ⏎() a", [], [0, 1, 1, 0]),  # what the token opened itself is not closed from before
        ("“ a \n ”", [3], [0, 1, 1, 1]),
        ("( a <bos> a )", [], [0, 1, 0, 0, 0]),  # no bracket reaches into another document
    ],
)
def test_contexts_by_hand(names, closes, depth):
    parts = [part or "\n" for part in names.split(" ")]
    assert read(*parts) == (closes, depth)


def test_dyck_words_close_half_of_their_tokens():
    """Every closing token of a Dyck word is one, its partner the nearest open one, and the depth is that of the path."""
    rows = dyck(np.random.default_rng(0), 50, 40, [(1, 2), (3, 4), (5, 6)])
    found = READER.closing(rows)
    assert np.array_equal(found.closes, rows % 2 == 0)
    steps = np.where(rows % 2, 1, -1)
    assert np.array_equal(found.depth, steps.cumsum(1) - steps)
    assert found.depth.max() > 8


def test_contexts_do_not_touch_each_other():
    rows = np.array([[1, 9, 9, 2], [9, 2, 9, 2], [5, 1, 2, 6]])
    assert READER.closing(rows).closes.astype(int).tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1]]
