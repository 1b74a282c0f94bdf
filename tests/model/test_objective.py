"""The batched objective against one plain loss a variant, its weights put in by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from rllc.core.names import Part
from rllc.model import forward as fw
from rllc.model.evaluation import Evaluation
from rllc.model.head_objective import HeadObjective
from rllc.model.objective import GeneralObjective, build_objective
from rllc.model.shape import ModelShape

# Units: parts that share a pass, by the letter of what is asked of each kind.
HEAD_UNITS = [
    ["0:0", "0:1", "0:2"],
    ["1:2", "1:0"],
    ["1:1"],
    *[[f"{layer}:2.{piece}", f"{layer}:0.{piece}"] for layer in (0, 1) for piece in "QKVO"],
    ["0:1.Q+0:1.O", "0:0.Q+0:0.O"],
]
OTHER_UNITS = [
    "0.attn", "1.attn", "0.mlp", "1.mlp", "embed", "unembed", "full", "embed+unembed", "0:1+1:2", "0:0+0:2", "1.attn+0:1.V", "1.mlp+unembed",
    "=pos.W_pos", "=blocks.0.ln1.w", "=blocks.1.ln1.b", "=blocks.1.attn.b_O", "=ln_final.w", "=ln_final.b", "=unembed.b_U", "=blocks.1.attn.W_K",
]  # fmt: skip
SHAPES = {
    "shortformer": {"d_mlp": 11},
    "rotary-rmsnorm-tied": {"positions": "rotary", "norm": "rmsnorm", "tied": True, "d_mlp": 11},
    "learned": {"positions": "learned", "d_mlp": 11},
    "attention-only": {},
}
REALISTIC = ModelShape(n_layers=2, d_model=64, n_heads=4, d_head=16, d_vocab=300, n_ctx=32)


BASE = ModelShape(n_layers=2, d_model=10, n_heads=3, d_head=4, d_vocab=17, n_ctx=9)


def exists(shape: ModelShape, text: str) -> bool:
    return ("mlp" not in text or shape.d_mlp > 0) and all(not a.startswith("=") or a[1:] in shape.tensors() for a in text.split("+"))


OTHER_CASES = [
    pytest.param(replace(BASE, **change), text, id=f"{name}|{text}")
    for name, change in SHAPES.items()
    for text in OTHER_UNITS
    if exists(replace(BASE, **change), text)
]


@pytest.fixture(params=list(SHAPES))
def shape(request: pytest.FixtureRequest) -> ModelShape:
    return replace(BASE, **SHAPES[request.param])


def parse(texts: list[str]) -> tuple[Part, ...]:
    return tuple(map(Part.parse, texts))


def perturbed(origin: dict[str, Tensor], chains: int, scale: float, seed: int = 3) -> dict[str, Tensor]:
    """Chains about the origin of each part, [P * chains, ...], part-major."""
    g = torch.Generator().manual_seed(seed)
    return {
        name: t.repeat_interleave(chains, 0) + scale * torch.randn((len(t) * chains, *t.shape[1:]), generator=g, dtype=t.dtype)
        for name, t in origin.items()
    }


def put_in(params: dict[str, Tensor], part: Part, values: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """A copy of the model with a part's values written into it by hand, and the values as leaves; a head's name ends in its number."""
    model, leaves = {name: tensor.clone() for name, tensor in params.items()}, []
    heads = iter(atom.head for atom in part.atoms)
    single = next(heads) if part.atoms[0].kind == "head" and len({(a.layer, a.head) for a in part.atoms}) == 1 else None
    for name, value in values.items():
        leaf = value.clone().requires_grad_()
        leaves.append(leaf)
        tensor, _, number = name.removesuffix("]").partition("[")
        if number:
            model[tensor][single if single is not None else int(number)] = leaf
        else:
            model[tensor] = leaf
    return model, leaves


def assert_equals_looped_plain_losses(plain: SimpleNamespace, shape: ModelShape, texts: list[str], chains: int, chunk: int) -> Evaluation:
    params, tokens, parts = plain.params(shape), plain.tokens(shape, n=2, length=6), parse(texts)
    objective = build_objective(shape, params, parts, chunk)
    variants = perturbed(objective.origin, chains, 0.3)
    result = objective.evaluate(variants, objective.prepare(tokens))
    assert result.losses.shape == result.baseline.shape == (len(parts) * chains,)
    assert result.gradients is not None
    assert list(result.gradients) == list(variants)
    for c in range(len(parts) * chains):
        model, leaves = put_in(params, parts[c // chains], {name: tensor[c] for name, tensor in variants.items()})
        expected = plain.loss(shape, model, tokens)
        torch.testing.assert_close(result.losses[c], expected.detach(), rtol=0, atol=1e-10)
        for (name, gradient), true in zip(result.gradients.items(), torch.autograd.grad(expected, leaves), strict=True):
            torch.testing.assert_close(gradient[c], true, rtol=0, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")
    baseline = plain.loss(shape, params, tokens)
    torch.testing.assert_close(result.baseline, baseline.expand(len(parts) * chains), rtol=0, atol=1e-10)
    assert (result.losses - result.baseline).abs().min() > 1e-9 or all(t.endswith(".K") for t in texts)
    return result


@pytest.mark.parametrize("texts", HEAD_UNITS, ids="|".join)
def test_heads_and_their_pieces(plain: SimpleNamespace, shape: ModelShape, texts: list[str]) -> None:
    assert isinstance(build_objective(shape, plain.params(shape), parse(texts), 0), HeadObjective)
    assert_equals_looped_plain_losses(plain, shape, texts, chains=2, chunk=0)


@pytest.mark.parametrize(("shape", "text"), OTHER_CASES)
def test_any_other_part(plain: SimpleNamespace, shape: ModelShape, text: str) -> None:
    assert isinstance(build_objective(shape, plain.params(shape), parse([text]), 0), GeneralObjective)
    assert_equals_looped_plain_losses(plain, shape, [text], chains=2, chunk=0)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 6, 7])
def test_chunks_that_cut_through_parts(plain: SimpleNamespace, chunk: int) -> None:
    assert_equals_looped_plain_losses(plain, BASE, ["1:2", "1:0"], chains=3, chunk=chunk)
    assert_equals_looped_plain_losses(plain, BASE, ["0.attn+1:1"], chains=3, chunk=chunk)


def test_a_head_costs_the_same_by_either_way(plain: SimpleNamespace) -> None:
    for text in ("0:1", "1:2", "1:0.V"):
        params, tokens = plain.params(BASE), plain.tokens(BASE)
        quick = build_objective(BASE, params, parse([text]), 0)
        general = GeneralObjective(BASE, params, Part.parse(text), 0)
        variants = perturbed(quick.origin, 3, 0.3)
        a, b = (o.evaluate(variants, o.prepare(tokens)) for o in (quick, general))
        torch.testing.assert_close(a.losses, b.losses, rtol=0, atol=1e-12)
        for name in variants:
            torch.testing.assert_close(a.gradients[name], b.gradients[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("texts", [["0:0", "0:3"], ["1:1.Q", "1:2.Q"], ["0.attn"], ["full"]], ids="|".join)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)], ids=["single", "double"])
def test_the_chunk_moves_no_loss(texts: list[str], dtype: torch.dtype, tolerance: float) -> None:
    """DESIGN, The engine: 1e-6 nats in single precision and 1e-10 in double."""
    params = fw.init_params(REALISTIC, 0, dtype)
    tokens = torch.randint(0, 300, (4, 32), generator=torch.Generator().manual_seed(1))
    results = {}
    for chunk in (0, 1, 2, 3, 5, 8):
        objective = build_objective(REALISTIC, params, parse(texts), chunk)
        results[chunk] = objective.evaluate(perturbed(objective.origin, 4, 0.05), objective.prepare(tokens))
    whole = results.pop(0)
    for result in results.values():
        assert torch.equal(result.baseline, whole.baseline)
        torch.testing.assert_close(result.losses, whole.losses, rtol=0, atol=tolerance)
        for name, gradient in result.gradients.items():
            torch.testing.assert_close(gradient, whole.gradients[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize("texts", [["1:0", "1:3"], ["0:2.V"], ["embed"]], ids="|".join)
def test_the_baseline_is_the_plain_loss_and_the_origin_s(texts: list[str]) -> None:
    params = fw.init_params(REALISTIC, 0)
    tokens = torch.randint(0, 300, (4, 32), generator=torch.Generator().manual_seed(1))
    objective = build_objective(REALISTIC, params, parse(texts), 0)
    result = objective.evaluate(objective.origin, objective.prepare(tokens), gradients=False)
    assert result.losses.dtype == result.baseline.dtype == torch.float64
    torch.testing.assert_close(result.baseline, fw.losses(REALISTIC, params, tokens).expand(len(texts)), rtol=0, atol=5e-7)
    torch.testing.assert_close(result.losses, result.baseline, rtol=0, atol=5e-7)


MANY = [{}, {"positions": "learned", "d_mlp": 48}, {"positions": "rotary", "d_mlp": 48, "parallel": True}]
MANY += [{"positions": "rotary", "norm": "rmsnorm", "d_mlp": 48, "qk_norm": True, "gated_mlp": True, "qkv_bias": False}]
MANY += [{"norm_place": "both", "score_softcap": 2.0, "logit_softcap": 8.0, "d_mlp": 48}, {"norm_place": "post", "norm": "rmsnorm"}]
MANY += [{"logit_softcap": 3.0}]


@pytest.mark.parametrize("chunk", [0, 1, 3])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("change", MANY)
def test_under_a_frozen_zero_output_projection_the_loss_is_the_baseline_to_the_bit(layer: int, chunk: int, change: dict[str, object]) -> None:
    """METHOD 3.6: λ̂ is then exactly 0, in single precision too, wherever the chains have gone."""
    shape = replace(REALISTIC, **change)
    params = {name: t + 0.1 * torch.randn(t.shape, generator=torch.Generator().manual_seed(5)) for name, t in fw.init_params(shape, 0).items()}
    params[f"blocks.{layer}.attn.W_O"][[1, 3]] = 0
    tokens = torch.randint(0, 300, (4, 32), generator=torch.Generator().manual_seed(1))
    for texts in (["{}:1.Q", "{}:3.Q"], ["{}:1.K", "{}:3.K"], ["{}:1.V", "{}:3.V"], ["{}:3.Q+{}:3.K+{}:3.V"], ["{}:1.Q+{}:3.V"]):
        objective = build_objective(shape, params, parse([text.replace("{}", str(layer)) for text in texts]), chunk)
        context = objective.prepare(tokens)
        result = objective.evaluate(perturbed(objective.origin, 4, 3.0), context)
        assert torch.equal(result.losses, result.baseline)
        assert not any(gradient.any() for gradient in result.gradients.values())
    live = build_objective(shape, params, parse([f"{layer}:2.V"]), chunk)
    result = live.evaluate(perturbed(live.origin, 4, 3.0), live.prepare(tokens))
    assert (result.losses - result.baseline).abs().min() > 1e-3


@pytest.mark.parametrize(
    "change", [{}, {"positions": "learned", "norm": "rmsnorm"}, {"positions": "rotary", "tied": True}, {"d_mlp": 11}, {"d_model": 10, "d_mlp": 32}]
)
@pytest.mark.parametrize(("n", "length"), [(1, 5), (3, 9), (5, 7)])
def test_awkward_sizes_are_exact_to_the_bit_too(plain: SimpleNamespace, change: dict[str, object], n: int, length: int) -> None:
    """Row counts and widths that no kernel likes, where a product of all variants' rows at once differs in the last bit from that of one."""
    shape = replace(BASE, **change)
    params, tokens = plain.params(shape, dtype=torch.float32), plain.tokens(shape, n, length)
    for layer in (0, 1):
        params[f"blocks.{layer}.attn.W_O"][:2] = 0
    for texts in (["0:0.V", "0:1.V"], ["1:1.Q", "1:0.Q"], ["0:1.K+1:0.V"], ["0:0.Q+0:1.V"]):
        for chunk in (0, 3):
            objective = build_objective(shape, params, parse(texts), chunk)
            result = objective.evaluate(perturbed(objective.origin, 4, 3.0), objective.prepare(tokens), gradients=False)
            assert torch.equal(result.losses, result.baseline)


@pytest.mark.parametrize("texts", [["0:0", "0:1", "0:2"], ["1:1", "1:2"], ["1.attn"]], ids="|".join)
def test_batched_chains_equal_looped_chains(plain: SimpleNamespace, texts: list[str]) -> None:
    """Five steps of gradient descent with noise: every chain alone, and all of them in one batch."""
    shape, chains, parts = BASE, 3, parse(texts)
    params = plain.params(shape)
    count = chains * len(parts)

    def walk(objective: HeadObjective | GeneralObjective, w: dict[str, Tensor], noise: list[dict[str, Tensor]]) -> Tensor:
        trace = []
        for step in range(5):
            result = objective.evaluate(w, objective.prepare(plain.tokens(shape, seed=step)))
            trace.append(result.losses)
            w = {name: t - 0.1 * result.gradients[name] + noise[step][name] for name, t in w.items()}
        return torch.stack(trace)

    together = build_objective(shape, params, parts, 0)
    zero = {name: torch.zeros_like(t) for name, t in together.origin.items()}
    noise = [perturbed(zero, chains, 0.05, seed=step) for step in range(5)]
    batched = walk(together, {name: t.repeat_interleave(chains, 0) for name, t in together.origin.items()}, noise)
    assert batched.shape == (5, count)
    assert (batched[1:].diff(dim=1).abs() > 1e-6).all()
    for c in range(count):
        alone = build_objective(shape, params, (parts[c // chains],), 0)
        own = [dict(zip(alone.origin, (t[c : c + 1] for t in n.values()), strict=True)) for n in noise]
        torch.testing.assert_close(walk(alone, alone.origin, own)[:, 0], batched[:, c], rtol=0, atol=1e-10)


@pytest.mark.parametrize("layer", [0, 1])
def test_permuting_the_heads_of_a_model_permutes_their_losses(plain: SimpleNamespace, shape: ModelShape, layer: int) -> None:
    order = [2, 0, 1]
    params, tokens = plain.params(shape), plain.tokens(shape)
    moved = dict(params)
    for name in params:
        if name.startswith(f"blocks.{layer}.attn.") and not name.endswith("b_O"):
            moved[name] = params[name][order]
    heads = parse([f"{layer}:{h}" for h in range(3)])
    before, after = build_objective(shape, params, heads, 0), build_objective(shape, moved, heads, 0)
    variants = perturbed(before.origin, 2, 0.3)
    rows = [2 * h + chain for h in order for chain in range(2)]
    renamed = {name: tensor[rows] for name, tensor in variants.items()}
    a, b = before.evaluate(variants, before.prepare(tokens)), after.evaluate(renamed, after.prepare(tokens))
    assert a.losses.unique().numel() == 6
    torch.testing.assert_close(b.losses, a.losses[rows], rtol=0, atol=1e-12)
    torch.testing.assert_close(b.baseline, a.baseline, rtol=0, atol=1e-12)
    for name in variants:
        torch.testing.assert_close(b.gradients[name], a.gradients[name][rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize("texts", [["0:0", "0:2"], ["full"]], ids="|".join)
def test_without_gradients_the_losses_are_the_same_and_nothing_is_kept(plain: SimpleNamespace, texts: list[str]) -> None:
    objective = build_objective(BASE, plain.params(BASE), parse(texts), 2)
    context = objective.prepare(plain.tokens(BASE))
    variants = {name: t.requires_grad_() for name, t in perturbed(objective.origin, 3, 0.3).items()}
    probe, full = objective.evaluate(variants, context, gradients=False), objective.evaluate(variants, context)
    assert probe.gradients is None
    assert torch.equal(probe.losses, full.losses)
    assert torch.equal(probe.baseline, full.baseline)
    tensors = [probe.losses, probe.baseline, full.losses, full.baseline, *full.gradients.values()]
    assert not any(t.requires_grad for t in tensors)
    assert all(t.grad is None for t in variants.values())


@pytest.mark.parametrize("texts", [["0:0", "0:2"], ["embed+1:1"]], ids="|".join)
def test_evaluating_changes_neither_model_nor_variants_nor_context(plain: SimpleNamespace, texts: list[str]) -> None:
    params, tokens = plain.params(BASE), plain.tokens(BASE)
    objective = build_objective(BASE, params, parse(texts), 2)
    variants = perturbed(objective.origin, 2, 0.3)
    before = {name: t.clone() for name, t in variants.items()}
    context = objective.prepare(tokens)
    first, second = objective.evaluate(variants, context), objective.evaluate(variants, context)
    assert torch.equal(first.losses, second.losses)
    assert all(torch.equal(first.gradients[name], second.gradients[name]) for name in variants)
    assert all(torch.equal(variants[name], before[name]) for name in variants)
    assert all(torch.equal(params[name], t) for name, t in plain.params(BASE).items())


def test_a_variant_that_is_not_finite_leaves_the_others_alone(plain: SimpleNamespace) -> None:
    params, tokens = plain.params(BASE), plain.tokens(BASE)
    objective = build_objective(BASE, params, parse(["0:0", "0:2"]), 0)
    context, variants = objective.prepare(tokens), perturbed(objective.origin, 2, 0.3)
    sound = objective.evaluate(variants, context)
    variants["blocks.0.attn.W_V[0]"][1] = float("inf")
    result = objective.evaluate(variants, context)
    assert result.losses.isfinite().tolist() == [True, False, True, True]
    kept = [0, 2, 3]
    torch.testing.assert_close(result.losses[kept], sound.losses[kept], rtol=0, atol=1e-12)
    for name, gradient in result.gradients.items():
        torch.testing.assert_close(gradient[kept], sound.gradients[name][kept], rtol=0, atol=1e-12)


@pytest.mark.parametrize("texts", [["0:0", "1:0"], ["0:0", "0:1.Q"], ["0:0.Q", "0:0.K"], ["0.attn", "1.attn"], ["0:0", "embed"], []], ids="|".join)
def test_parts_that_cannot_share_a_pass_are_refused(plain: SimpleNamespace, texts: list[str]) -> None:
    with pytest.raises(ValueError, match="cannot share one pass"):
        build_objective(BASE, plain.params(BASE), parse(texts), 0)


def test_variants_that_do_not_divide_among_the_parts_are_refused(plain: SimpleNamespace) -> None:
    objective = build_objective(BASE, plain.params(BASE), parse(["0:0", "0:2"]), 0)
    variants = {name: torch.cat([t, t[:1]]) for name, t in objective.origin.items()}
    with pytest.raises(ValueError, match="3 variants do not divide among 2 parts"):
        objective.evaluate(variants, objective.prepare(plain.tokens(BASE)))


def test_an_objective_tells_the_chunk_that_memory_left_it(plain: SimpleNamespace) -> None:
    objective = build_objective(BASE, plain.params(BASE), parse(["1:0", "1:1"]), 4)
    assert objective.chunk == 4
    context, variants = objective.prepare(plain.tokens(BASE)), perturbed(objective.origin, 4, 0.3)
    whole = objective.evaluate(variants, context)
    inner = objective._losses

    def short(values: dict[str, Tensor], owner: Tensor, context: object) -> Tensor:
        if len(owner) > 2:
            raise MemoryError
        return inner(values, owner, context)

    objective._losses = short
    again = objective.evaluate(variants, context)
    assert objective.chunk == 2
    torch.testing.assert_close(again.losses, whole.losses, rtol=0, atol=1e-12)
    for name, gradient in again.gradients.items():
        torch.testing.assert_close(gradient, whole.gradients[name], rtol=0, atol=1e-12)
