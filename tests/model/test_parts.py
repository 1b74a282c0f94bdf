"""Parts as a lens: what belongs to a part, counted by hand, and the laws of taking out and putting back."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rllc.core.errors import RllcError
from rllc.core.names import Part
from rllc.model.parts import insert, select, stack
from rllc.model.shape import ModelShape
from rllc.model.slices import first_layer, size, slices, within_one_head

PAPER = ModelShape()
SHAPES = (
    ModelShape(n_layers=2, d_model=10, n_heads=3, d_head=4, d_vocab=17, n_ctx=9, d_mlp=11),
    ModelShape(n_layers=3, d_model=6, n_heads=2, d_head=4, d_vocab=13, n_ctx=8, d_mlp=7, positions="rotary", norm="rmsnorm", tied=True),
    ModelShape(n_layers=11, d_model=2, n_heads=3, d_head=3, d_vocab=5, n_ctx=4, d_mlp=3, positions="learned", norm="rmsnorm"),
)


def numbered(shape: ModelShape) -> dict[str, Tensor]:
    """Weights that are all different: each holds its own number."""
    params, start = {}, 0
    for name, lengths in shape.tensors().items():
        params[name] = torch.arange(start, start + math.prod(lengths), dtype=torch.float64).reshape(lengths)
        start += math.prod(lengths)
    return params


def marked(shape: ModelShape, text: str) -> dict[str, Tensor]:
    """The weights of a part, by METHOD 1 and the grammar of parts, as a mask."""
    mask = {name: torch.zeros(lengths, dtype=torch.bool) for name, lengths in shape.tensors().items()}
    for atom in text.split("+"):
        place, _, piece = atom.partition(".")
        if atom == "full":
            whole = list(mask)
        elif atom.startswith("="):
            whole = [atom[1:]]
        elif atom == "embed":
            whole = ["embed.W_E"]
        elif atom == "unembed":
            whole = ["unembed.b_U", "embed.W_E" if shape.tied else "unembed.W_U"]
        elif piece in ("attn", "mlp"):
            whole = [name for name in mask if name.split(".")[:3][1:] == [place, piece]]
        else:
            whole = []
            layer, head = place.split(":")
            for kind in piece or "QKVO":
                mask[f"blocks.{layer}.attn.W_{kind}"][int(head)] = True
                if kind != "O":
                    mask[f"blocks.{layer}.attn.b_{kind}"][int(head)] = True
        for name in whole:
            mask[name][...] = True
    return mask


def atoms(shape: ModelShape) -> st.SearchStrategy[str]:
    layer, head = st.integers(0, shape.n_layers - 1), st.integers(0, shape.n_heads - 1)
    return st.one_of(
        st.builds("{}:{}".format, layer, head),
        st.builds("{}:{}.{}".format, layer, head, st.sampled_from("QKVO")),
        st.builds("{}.{}".format, layer, st.sampled_from(("attn", "mlp"))),
        st.sampled_from(("embed", "unembed", "full")),
        st.sampled_from(sorted(shape.tensors())).map("={}".format),
    )


@st.composite
def shaped_parts(draw: st.DrawFn, n: int = 1) -> tuple[ModelShape, list[str]]:
    """A shape and n unions of one to four atoms, overlapping as they may."""
    shape = draw(st.sampled_from(SHAPES))
    return shape, [draw(st.lists(atoms(shape), min_size=1, max_size=4).map("+".join)) for _ in range(n)]


def fresh(shape: ModelShape, part: Part, start: float, variants: int = 0) -> dict[str, Tensor]:
    """New values of a part, all different, with an axis of variants in front where asked."""
    values = {}
    for name, tensor in select(shape, numbered(shape), part).items():
        lengths = (variants, *tensor.shape) if variants else tensor.shape
        values[name] = torch.arange(start, start + math.prod(lengths), dtype=torch.float64).reshape(lengths)
        start += math.prod(lengths)
    return values


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@given(shaped_parts())
def test_a_part_holds_exactly_its_weights_each_once(case: tuple[ModelShape, list[str]]) -> None:
    shape, (text,) = case
    part, params, mask = Part.parse(text), numbered(shape), marked(shape, text)
    expected = torch.cat([params[name][mask[name]] for name in params]).tolist()
    found = torch.cat([tensor.flatten() for tensor in select(shape, params, part).values()]).tolist()
    assert len(found) == len(set(found))
    assert sorted(found) == sorted(expected)
    assert size(shape, part) == len(expected)
    written = insert(shape, params, part, fresh(shape, part, -1e6))
    assert all(torch.equal(written[name] != params[name], mask[name]) for name in params)


@given(shaped_parts())
def test_laws_of_one_part(case: tuple[ModelShape, list[str]]) -> None:
    shape, (text,) = case
    part, params = Part.parse(text), numbered(shape)
    a, b = fresh(shape, part, -1e6), fresh(shape, part, -2e6)
    assert equal(select(shape, insert(shape, params, part, a), part), a)  # put-get
    assert equal(insert(shape, params, part, select(shape, params, part)), params)  # get-put
    assert equal(insert(shape, insert(shape, params, part, a), part, b), insert(shape, params, part, b))  # put-put
    assert equal(params, numbered(shape))  # nothing was written in place


@given(shaped_parts(n=2))
def test_disjoint_parts_commute_and_others_do_not(case: tuple[ModelShape, list[str]]) -> None:
    shape, texts = case
    p, q = map(Part.parse, texts)
    params, a, b = numbered(shape), fresh(shape, p, -1e6), fresh(shape, q, -2e6)
    masks = [marked(shape, text) for text in texts]
    disjoint = not any((masks[0][name] & masks[1][name]).any() for name in params)
    first, second = (insert(shape, insert(shape, params, x, u), y, v) for x, u, y, v in ((p, a, q, b), (q, b, p, a)))
    assert equal(first, second) == disjoint
    union = Part.parse("+".join(texts))
    assert size(shape, union) == sum(int((masks[0][name] | masks[1][name]).sum()) for name in params)


@given(shaped_parts())
def test_variants_in_front_are_inserted_each_into_its_own_model(case: tuple[ModelShape, list[str]]) -> None:
    shape, (text,) = case
    part, params = Part.parse(text), numbered(shape)
    values = fresh(shape, part, -1e6, variants=3)
    batched, touched = insert(shape, params, part, values), {s.tensor for s in slices(shape, part)}
    for c in range(3):
        alone = insert(shape, params, part, {name: tensor[c] for name, tensor in values.items()})
        assert all(torch.equal(batched[name][c] if name in touched else batched[name], alone[name]) for name in params)


def test_values_get_their_gradients_through_the_insertion_and_the_model_none() -> None:
    shape, part = SHAPES[0], Part.parse("0:1+1.attn+embed")
    params = {name: tensor.requires_grad_() for name, tensor in numbered(shape).items()}
    values = {name: tensor.requires_grad_() for name, tensor in fresh(shape, part, 0.0, variants=2).items()}
    total = sum(tensor.sum() for tensor in insert(shape, params, part, values).values())
    assert all((g == 1).all() for g in torch.autograd.grad(total, list(values.values()), retain_graph=True))
    kept = torch.autograd.grad(total, params["blocks.0.attn.W_Q"])[0]
    assert kept[:, 0, 0].tolist() == [2, 0, 2]  # two variants read heads 0 and 2 of the model, none its head 1


def test_select_copies() -> None:
    params = numbered(SHAPES[0])
    select(SHAPES[0], params, Part.parse("full"))["embed.W_E"].zero_()
    select(SHAPES[0], params, Part.parse("0:1"))["blocks.0.attn.W_Q[1]"].zero_()
    assert equal(params, numbered(SHAPES[0]))


def test_slices_are_named_and_ordered_as_the_tensors_are() -> None:
    assert list(select(SHAPES[0], numbered(SHAPES[0]), Part.parse("1:2.Q+0:1+0:0.V"))) == [
        "blocks.0.attn.W_Q[1]",
        "blocks.0.attn.W_K[1]",
        "blocks.0.attn.W_V[0]",
        "blocks.0.attn.W_V[1]",
        "blocks.0.attn.b_Q[1]",
        "blocks.0.attn.b_K[1]",
        "blocks.0.attn.b_V[0]",
        "blocks.0.attn.b_V[1]",
        "blocks.0.attn.W_O[1]",
        "blocks.1.attn.W_Q[2]",
        "blocks.1.attn.b_Q[2]",
    ]


def test_the_paper_s_model_and_its_heads_have_the_paper_s_numbers_of_weights() -> None:
    """METHOD 1: 32,864 of 3,355,016; four matrices of 256 × 32 and three biases of 32."""
    assert sum(math.prod(lengths) for lengths in PAPER.tensors().values()) == 3_355_016
    assert {size(PAPER, Part.of_head(head.layer, head.index)) for head in PAPER.heads()} == {32_864}
    sizes = {
        "full": 3_355_016,
        "embed": 1_280_000,
        "unembed": 1_285_000,
        "0.attn": 8 * 32_864 + 256,
        "1:6.Q": 8_224,
        "1:6.O": 8_192,
        "=pos.W_pos": 262_144,
        "=ln_final.b": 256,
        "1:6+1:6.Q+1:6": 32_864,
        "1:6+1:7": 65_728,
        "1:6+1.attn": 8 * 32_864 + 256,
        "full+embed+0:0": 3_355_016,
    }
    assert {text: size(PAPER, Part.parse(text)) for text in sizes} == sizes
    assert size(replace(PAPER, tied=True), Part.parse("embed+unembed")) == 1_285_000


@pytest.mark.parametrize(("text", "layer"), [
    ("0:1", 0), ("1:1", 1), ("1.attn", 1), ("1.mlp", 1), ("=blocks.1.ln1.w", 1), ("=blocks.0.ln2.b", 0), ("embed", 0), ("full", 0),
    ("unembed", 2), ("=ln_final.w", 2), ("=pos.W_pos", 0), ("1:0+unembed", 1), ("1:0+0:2.K", 0),
])  # fmt: skip
def test_first_layer_that_a_part_changes(text: str, layer: int) -> None:
    assert first_layer(SHAPES[0], Part.parse(text)) == layer


def test_a_tied_unembedding_changes_the_embedding() -> None:
    assert first_layer(SHAPES[1], Part.parse("unembed")) == 0


@pytest.mark.parametrize(("text", "inside"), [
    ("0:1", True), ("0:1.Q", True), ("0:1.Q+0:1.V", True), ("0:1+0:2", False), ("0:1.Q+1:1.Q", False), ("0.attn", False), ("0:1+=ln_final.w", False),
])  # fmt: skip
def test_within_one_head(text: str, inside: bool) -> None:
    assert within_one_head(SHAPES[0], Part.parse(text)) is inside


@pytest.mark.parametrize(("text", "named"), [
    ("2:0", "2:0"), ("0:3", "0:3"), ("0:0+7.attn", "7.attn"), ("0.mlp", "0.mlp"), ("=blocks.0.attn.W_X", "=blocks.0.attn.W_X"), ("=W_Q", "=W_Q"),
])  # fmt: skip
def test_a_part_that_the_model_does_not_have_is_refused_in_a_sentence(text: str, named: str) -> None:
    shape = replace(SHAPES[0], d_mlp=0)
    with pytest.raises(RllcError, match=rf"The part '{named}' of '{named}|The part '{named}' of '0:0\+{named}") as caught:
        slices(shape, Part.parse(text))
    assert "layers 0 to 1, heads 0 to 2 in each, no MLP" in caught.value.remedy


GROUPED = replace(SHAPES[0], n_heads=4, n_kv_heads=2)


@pytest.mark.parametrize(("text", "held"), [
    ("1:3", "W_Q[3] b_Q[3] W_O[3]"),
    ("1:3.O", "W_O[3]"),
    ("1:g1", "W_Q[2] W_Q[3] W_K[1] W_V[1] b_Q[2] b_Q[3] b_K[1] b_V[1] W_O[2] W_O[3]"),
    ("1:g1.K", "W_K[1] b_K[1]"),
    ("1:g0.Q", "W_Q[0] W_Q[1] b_Q[0] b_Q[1]"),
])  # fmt: skip
def test_a_head_with_shared_keys_owns_its_queries_and_output_and_a_group_the_rest(text: str, held: str) -> None:
    assert [str(s) for s in slices(GROUPED, Part.parse(text))] == [f"blocks.1.attn.{name}" for name in held.split()]
    assert within_one_head(GROUPED, Part.parse(text)) is (":g" not in text)


def test_in_a_model_without_shared_keys_a_group_is_a_head() -> None:
    assert slices(SHAPES[0], Part.parse("1:g2")) == slices(SHAPES[0], Part.parse("1:2"))


@pytest.mark.parametrize(("text", "inside"), [("0:1", False), ("0:1.Q", False), ("0:1.K+0:1.V", False), ("0:1.V", True), ("0:1.V+0:1.O", True)])
def test_a_head_whose_queries_scale_those_of_others_is_not_within_itself(text: str, inside: bool) -> None:
    wide = replace(SHAPES[0], qk_norm=True, qk_norm_over="layer")
    assert within_one_head(wide, Part.parse(text)) is inside
    assert within_one_head(replace(wide, qk_norm_over="head"), Part.parse(text))


def test_shared_keys_cannot_be_named_as_a_head_s() -> None:
    with pytest.raises(RllcError, match=r"'0:3\.V' of '0:3\.V' is shared by heads 2 to 3 of its layer\. Name it by the group: 0:g1\.V\."):
        slices(GROUPED, Part.parse("0:3.V"))
    with pytest.raises(RllcError, match=r"heads 0 to 3 in each, groups g0 to g1"):
        slices(GROUPED, Part.parse("0:g2"))


def test_biases_that_a_model_lacks_are_in_no_part() -> None:
    shape = replace(SHAPES[0], qkv_bias=False)
    assert [str(s) for s in slices(shape, Part.parse("1:0"))] == [f"blocks.1.attn.W_{piece}[0]" for piece in "QKVO"]


def test_a_shape_tells_what_is_beyond_the_paper_s_only_where_it_differs() -> None:
    assert list(ModelShape().as_dict())[-1] == "tied"
    assert ModelShape(rotary_scaling=(8.0, 1.0, 4.0, 64.0), tied=True).as_dict()["rotary_scaling"] == [8.0, 1.0, 4.0, 64.0]
    assert ModelShape(qkv_bias=False).as_dict()["qkv_bias"] is False
    assert ModelShape(local_layers=(1,)).as_dict()["local_layers"] == [1]


def test_parts_of_equal_shape_are_stacked_under_the_names_of_the_first() -> None:
    shape, params = SHAPES[0], numbered(SHAPES[0])
    stacked = stack(shape, params, tuple(map(Part.parse, ("0:2.Q", "0:0.Q", "0:1.Q"))))
    assert list(stacked) == ["blocks.0.attn.W_Q[2]", "blocks.0.attn.b_Q[2]"]
    assert torch.equal(stacked["blocks.0.attn.W_Q[2]"], params["blocks.0.attn.W_Q"][[2, 0, 1]])
    with pytest.raises(RllcError, match=r"The parts 0:1\.Q, 0:1\.O do not have equal shapes\. Sample them in separate units\."):
        stack(shape, params, (Part.parse("0:1.Q"), Part.parse("0:1.O")))


@pytest.mark.parametrize("name", ["n_layers", "d_model", "n_heads", "d_head", "d_vocab", "n_ctx"])
def test_a_size_below_one_is_refused(name: str) -> None:
    with pytest.raises(RllcError, match=rf"model\.{name} is 0, but must be at least 1\. Give a positive number\."):
        ModelShape(**{name: 0})


@pytest.mark.parametrize(("wrong", "sentence"), [
    ({"d_mlp": -1}, r"model\.d_mlp is -1, but must not be negative"),
    ({"positions": "sinusoidal"}, r"model\.positions is 'sinusoidal', which is unknown\. Choose one of: shortformer, learned, rotary"),
    ({"norm": "batchnorm"}, r"model\.norm is 'batchnorm', which is unknown"),
    ({"activation": "swish"}, r"model\.activation is 'swish', which is unknown"),
    ({"positions": "rotary", "d_head": 5}, r"an even number of a head's 5 numbers, and here they would turn 5"),
    ({"positions": "rotary", "rotary_dim": 34}, r"of a head's 32 numbers, and here they would turn 34"),
    ({"n_kv_heads": 3}, r"model\.n_kv_heads is 3, which does not divide the 8 heads"),
    ({"rotary_scaling": (8.0, 1.0)}, r"model\.rotary_scaling is \[8\.0, 1\.0\], but has one number or four"),
    ({"norm_place": "before"}, r"model\.norm_place is 'before', which is unknown\. Choose one of: pre, post, both"),
    ({"qk_norm_over": "model"}, r"model\.qk_norm_over is 'model', which is unknown\. Choose one of: head, layer"),
    ({"logit_softcap": -30.0}, r"model\.logit_softcap is -30\.0, but must not be negative"),
    ({"local_layers": (0, 2)}, r"model\.local_layers is \[0, 2\]\. Give some of the layers 0 to 1, or none"),
])  # fmt: skip
def test_a_shape_that_does_not_fit_together_is_refused(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(RllcError, match=sentence):
        ModelShape(**wrong)


def test_a_shape_survives_json_and_lists_its_tensors(plain: SimpleNamespace) -> None:
    for shape in plain.FAMILY.values():
        assert ModelShape(**shape.as_dict()) == shape
        names = set(shape.tensors())
        assert ("unembed.W_U" in names) is not shape.tied
        assert ("pos.W_pos" in names) is (shape.positions != "rotary")
        assert ("blocks.1.mlp.W_in" in names) is bool(shape.d_mlp)
        norms = {f"ln{i}{behind}" for i in (1, 2) for behind in ("", "_post") if f"blocks.1.ln{i}{behind}.w" in names}
        places = {"pre": {"ln1", "ln2"}, "post": {"ln1_post", "ln2_post"}, "both": {"ln1", "ln2", "ln1_post", "ln2_post"}}[shape.norm_place]
        assert norms == (set() if shape.norm.endswith("_pre") else places if shape.d_mlp else {name for name in places if "1" in name})
        assert ("ln_final.b" in names) is (shape.norm == "layernorm" and shape.norm_bias)
        assert ("ln_final.w" in names) is (not shape.norm.endswith("_pre"))
    assert [str(head) for head in plain.SMALL.heads()] == ["0:0", "0:1", "0:2", "1:0", "1:1", "1:2"]
