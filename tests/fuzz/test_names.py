"""Names of parts and data: read, printed and read again, or refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rllc.core.errors import RllcError
from rllc.core.names import DataKey, Head, Part

from .bounds import command, examples, outcome, refused
from .hostile import WORDS

PIECES = [
    "1:6",
    "L1H6",
    "0:g2",
    ".Q",
    ".K",
    "+",
    " ",
    "1.attn",
    "2.mlp",
    "0.random3",
    "=blocks.0.attn.W_Q",
    "full",
    "embed",
    "@",
    "/",
    "heldout",
    "-1",
]
names = st.one_of(st.sampled_from(WORDS), st.text(max_size=30), st.lists(st.sampled_from([*PIECES, *WORDS]), max_size=5).map("".join))


@examples(100)
@given(names)
@example("9" * 5000 + ":0")
@example("1:" + "9" * 5000)
@example("²:1")
@example("+".join(["1:6"] * 50_000))
def test_parts(text: str) -> None:
    found = outcome(lambda: Part.parse(text))
    if isinstance(found, Part):
        assert Part.parse(str(found)) == found
        assert str(found).isprintable()
    outcome(lambda: Head.parse(text))


@examples(100)
@given(names)
@example("a" * 100_000)
@example("code@prose@echo")
@example("a/../b")
def test_data(text: str) -> None:
    found = outcome(lambda: DataKey.parse(text))
    if not isinstance(found, RllcError):
        assert DataKey.parse(str(found)) == found
        assert "/" not in found.name
        assert str(found).isprintable()


@pytest.mark.parametrize("text", ["9" * 5000 + ":0", "0." + "random" + "9" * 5000, "1" * 5000 + ".attn", "0:g" + "9" * 5000])
def test_a_number_of_thousands_of_digits_names_no_part(text: str) -> None:
    assert "is not a part" in str(refused(lambda: Part.parse(text)))


@pytest.mark.parametrize("arguments", [("plan", "x" * 300), ("status", "a/../../nowhere"), ("compare", "nowhere", "--across", "part"), ("plan", ".")])
def test_a_path_that_is_none_is_exit_code_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
