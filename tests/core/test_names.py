"""Names print what they parse and parse what they print; what is no name is refused in a sentence."""

from __future__ import annotations

import pickle
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rllc.core.errors import RllcError
from rllc.core.names import Atom, Cell, DataKey, Head, Part

numbers = st.integers(0, 200)
heads = st.builds(Head, numbers, numbers)
words = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)
atoms = st.one_of(
    st.builds(lambda head, piece: Atom("head", head.layer, head.index, piece), heads, st.sampled_from(("", *"QKVO"))),
    st.builds(Atom, st.sampled_from(("attn", "mlp")), numbers),
    st.builds(Atom, st.sampled_from(("embed", "unembed", "full"))),
    st.lists(words, min_size=1, max_size=4).map(lambda path: Atom("tensor", tensor=".".join(path))),
)
parts = st.lists(atoms, min_size=1, max_size=5).map(lambda found: Part(tuple(found)))
data_keys = st.builds(DataKey, st.from_regex(r"[A-Za-z0-9_.-]+", fullmatch=True), st.sampled_from(("train", "heldout")))


@given(heads)
def test_heads_print_and_parse(head: Head) -> None:
    for text in (str(head), f" {head} ", f"L{head.layer}H{head.index}", f"l{head.layer}h{head.index}", f"0{head.layer}:00{head.index}"):
        assert Head.parse(text) == head
    assert str(head) == f"{head.layer}:{head.index}"


@given(parts)
def test_parts_print_and_parse(part: Part) -> None:
    assert Part.parse(str(part)) == part
    assert Part.parse(str(part).replace("+", " + ")) == part
    assert pickle.loads(pickle.dumps(part)) == part


@given(st.lists(atoms, min_size=1, max_size=5).flatmap(lambda found: st.tuples(st.just(found), st.permutations(found))))
def test_a_union_knows_no_order_and_no_repetition(lists: tuple[list[Atom], list[Atom]]) -> None:
    a, b = (Part(tuple(found)) for found in lists)
    assert a == b == Part.parse("+".join(map(str, lists[1] + lists[0])))
    assert hash(a) == hash(b)
    assert str(a) == str(b)
    assert len(a.atoms) == len(set(lists[0]))


@given(parts, parts)
def test_different_parts_have_different_names(a: Part, b: Part) -> None:
    assert (str(a) == str(b)) == (a == b)


@given(data_keys, st.decimals(min_value="1e-9", max_value="99999999", places=9))
def test_data_at_another_temperature_prints_and_parses(key: DataKey, nbeta: Decimal) -> None:
    assume(float(nbeta) > 0)
    tempered = replace(key, nbeta=float(nbeta))
    assert DataKey.parse(str(tempered)) == tempered
    assert str(tempered).startswith(f"{key}^")
    assert tempered.text == key == tempered.at("other").text
    assert DataKey.parse(f"{tempered}@other").sampled == tempered


@given(data_keys)
def test_data_keys_print_and_parse(key: DataKey) -> None:
    assert DataKey.parse(str(key)) == key
    assert DataKey.parse(f"{key.name}/{key.split}") == key


def test_examples_of_every_kind_of_part() -> None:
    expected = {
        "1:6": Atom("head", 1, 6),
        "L1H6": Atom("head", 1, 6),
        "l1h6.Q": Atom("head", 1, 6, "Q"),
        "12:34.O": Atom("head", 12, 34, "O"),
        "1:g2": Atom("group", 1, 2),
        "1:g2.K": Atom("group", 1, 2, "K"),
        "0.attn": Atom("attn", 0),
        "10.mlp": Atom("mlp", 10),
        "embed": Atom("embed"),
        "unembed": Atom("unembed"),
        "full": Atom("full"),
        "=blocks.0.attn.W_Q": Atom("tensor", tensor="blocks.0.attn.W_Q"),
    }
    for text, atom in expected.items():
        assert Part.parse(text).atoms == (atom,)
    assert str(Part.parse("full+1:6.V + 1:10+1:6+0.mlp+=pos.W_pos")) == "full+1:6+1:6.V+1:10+0.mlp+=pos.W_pos"


def test_only_one_whole_head_is_a_head() -> None:
    assert Part.parse("1:6").head == Part.of_head(1, 6).head == Head(1, 6)
    assert Part.parse("1:6+1:6").head == Head(1, 6)
    for text in ("1:6.Q", "1:6+1:7", "1.attn", "full", "=W"):
        assert Part.parse(text).head is None


@pytest.mark.parametrize("text", ["", "1", "1:", ":6", "-1:6", "1:6:2", "1 : 6", "L1", "1.6", "L1:6", "a:b", "1:6\n2"])
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(RllcError, match=r'does not name an attention head\. Write layer:head, such as "1:6", or "L1H6"'):
        Head.parse(text)


@pytest.mark.parametrize(
    "text",
    ["", "+", "1:6+", "1:6.X", "1:6.q", "1:6.Q.K", "1:g", "1:g2.G", "attn", "1.attention", "1.attn.Q", "Embed", "=", "=1a", "=a b", "=a+=", "all"],
)
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(RllcError, match=r"is not a part of a model\. Write a head 1:6, a piece of it") as caught:
        Part.parse(text)
    assert repr(text) in caught.value.problem


def test_a_part_without_pieces_is_refused() -> None:
    with pytest.raises(RllcError, match="needs at least one piece"):
        Part(())


@pytest.mark.parametrize(
    "text",
    ["", "/train", "co de", "code/test", "code/held/out", "a,b", "code/heldout ", "code^", "code^0", "code^-1", "code^1e9", "code^nan", "a@b^2"],
)
def test_what_names_no_data_is_refused(text: str) -> None:
    with pytest.raises(RllcError, match=r"does not name data\. Write a domain or mixture"):
        DataKey.parse(text)


def test_cells_sort_and_print() -> None:
    cells = [Cell(100, DataKey("prose"), Part.of_head(0, 1)), Cell(20, DataKey("code", "heldout"), Part.parse("full"))]
    assert [str(cell) for cell in sorted(cells)] == ["step 20, code/heldout, full", "step 100, prose, 0:1"]
    assert len({*cells, Cell(100, DataKey("prose"), Part.parse("0:1"))}) == 2
