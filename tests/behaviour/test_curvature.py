"""Curvature and Fisher traces against explicit Hessians and closed forms (METHOD 3.1c; STACK, curvature)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rllc.behaviour.curvature import Prior, curvature
from rllc.behaviour.fisher import fisher
from rllc.behaviour.norms import circuit_ratios, participation_ratio, weight_norm
from rllc.behaviour.part_loss import PartLoss, twice_differentiable
from rllc.core.errors import RllcError
from rllc.core.names import Head, Part
from rllc.model import forward as fw
from rllc.model.shape import ModelShape
from rllc.model.slices import size

from .shapes import SHAPES, some_tokens, weights

SHAPE = ModelShape(n_layers=2, d_model=8, n_heads=2, d_head=4, d_vocab=11, n_ctx=9)
PARTS = ["0:1", "1:0.Q", "1.attn", "unembed"]


@pytest.fixture(scope="module")
def params() -> dict[str, torch.Tensor]:
    return {name: 2 * t for name, t in fw.init_params(SHAPE, 3, torch.float64).items()}


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 11, (5, 9))


def explicit(params: dict[str, torch.Tensor], part: Part, tokens: np.ndarray) -> np.ndarray:
    """[B, d, d] by torch, one context after another."""
    loss = PartLoss(SHAPE, params, part)
    with twice_differentiable():
        found = [torch.autograd.functional.hessian(lambda w, c=c: loss.losses(w, c).mean(), loss.origin.detach()) for c in loss.contexts(tokens)]
    return torch.stack(found).numpy()  # pyright: ignore[reportArgumentType, reportCallIssue]


@pytest.mark.parametrize("name", [*PARTS, "full"])
def test_the_loss_of_a_part_is_the_models(params: dict[str, torch.Tensor], tokens: np.ndarray, name: str) -> None:
    loss = PartLoss(SHAPE, params, Part.parse(name))
    assert loss.size == size(SHAPE, Part.parse(name))
    ours = torch.cat([loss.losses(loss.origin, c)[None] for c in loss.contexts(tokens)])
    torch.testing.assert_close(ours, fw.token_losses(SHAPE, params, torch.tensor(tokens)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", SHAPES)
def test_the_loss_of_a_part_is_that_of_every_kind_of_model(kind: str) -> None:
    """Caps on the logits, tied unembeddings and biases among them."""
    shape = SHAPES[kind]
    params, tokens = weights(shape), some_tokens(3, 4)
    loss = PartLoss(shape, params, Part.parse("1:1"))
    ours = torch.cat([loss.losses(loss.origin, c)[None] for c in loss.contexts(tokens)])
    torch.testing.assert_close(ours, fw.token_losses(shape, params, torch.tensor(tokens)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PARTS)
def test_eigenvalues_and_their_errors_are_those_of_the_explicit_hessian(params: dict[str, torch.Tensor], tokens: np.ndarray, name: str) -> None:
    part = Part.parse(name)
    each = explicit(params, part, tokens)
    values, vectors = np.linalg.eigh(each.mean(0))
    found = curvature(SHAPE, params, part, tokens, top=3).spectrum
    np.testing.assert_allclose(found.eigenvalues, values[::-1][:3], rtol=1e-4)
    within = np.einsum("bij,ik,jk->bk", each, vectors, vectors)[:, ::-1][:, :3]
    np.testing.assert_allclose(found.stderr, within.std(0, ddof=1) / 5**0.5, rtol=1e-2)
    assert (found.residuals < 1e-2 * values[-1]).all()


def test_the_trace_is_unbiased_and_the_eigenvectors_spare_it_noise(params: dict[str, torch.Tensor], tokens: np.ndarray) -> None:
    part = Part.parse("1:0")
    each = explicit(params, part, tokens)
    exact = np.trace(each.mean(0))
    plain, spared = ([curvature(SHAPE, params, part, tokens, top=k, probes=1, seed=s).trace.value for s in range(16)] for k in (0, 6))
    for found in (plain, spared):
        assert abs(np.mean(found) - exact) < 3.5 * np.std(found, ddof=1) / 16**0.5
    assert np.std(spared) < 0.6 * np.std(plain)
    many = curvature(SHAPE, params, part, tokens, top=6, probes=60).trace
    assert many.stderr == pytest.approx(np.trace(each, axis1=1, axis2=2).std(ddof=1) / 5**0.5, rel=0.1)


def test_the_gradient_norm(params: dict[str, torch.Tensor], tokens: np.ndarray) -> None:
    free = params["blocks.1.attn.W_Q"].clone().requires_grad_()
    fw.token_losses(SHAPE, {**params, "blocks.1.attn.W_Q": free}, torch.tensor(tokens)).mean().backward()
    assert free.grad is not None
    part = Part.parse("=blocks.1.attn.W_Q")
    assert curvature(SHAPE, params, part, tokens, top=0).gradient_norm == pytest.approx(float(free.grad.norm()), rel=1e-10)


def test_the_error_of_the_gradient_norm_is_its_scatter_over_contexts(params: dict[str, torch.Tensor]) -> None:
    part, rng = Part.parse("1:0"), np.random.default_rng(1)
    found = [curvature(SHAPE, params, part, rng.integers(0, 11, (24, 9)), top=0, probes=1) for _ in range(40)]
    scatter = np.std([c.gradient_norm for c in found], ddof=1)
    assert np.mean([c.gradient_stderr for c in found]) == pytest.approx(scatter, rel=0.3)  # 40 draws tell a deviation to 11 %


@pytest.mark.parametrize("top", [0, 3])
def test_the_twin_is_that_of_the_explicit_hessian_with_an_error_that_covers_it(params: dict[str, torch.Tensor], tokens: np.ndarray, top: int) -> None:
    part, prior = Part.parse("1:0"), Prior(30.0, 150.0, probes=3, steps=10)
    h = 30 * np.linalg.eigvalsh(explicit(params, part, tokens).mean(0))
    assert (h > -150).all()
    exact = 0.5 * (h / (h + 150)).sum()
    found = [curvature(SHAPE, params, part, tokens, top=top, probes=1, prior=prior, seed=s).twin for s in range(6)]
    values = np.array([t.value for t in found if t is not None])
    assert abs(values.mean() - exact) < 3.5 * values.std(ddof=1) / 6**0.5
    assert values.std(ddof=1) < 0.2 * 0.5 * np.abs(h / (h + 150)).sum()  # so that the line above can fail
    tight = curvature(SHAPE, params, part, tokens, top=top, probes=1, prior=Prior(30.0, 150.0, probes=60, steps=10)).twin
    assert tight is not None
    probes = values.std(ddof=1) * (3 / 60) ** 0.5  # 3 probes a value, 60 here
    assert abs(tight.value - exact) < 3.5 * probes
    each = explicit(params, part, tokens)
    slope = 0.5 * 30 * 150 * np.linalg.matrix_power(np.linalg.inv(30 * each.mean(0) + 150 * np.eye(each.shape[1])), 2)
    changes = np.einsum("ij,bji->b", slope, each)
    assert tight.stderr == pytest.approx(np.hypot(changes.std(ddof=1) / 5**0.5, probes), rel=0.25)


def test_a_quadratic_without_a_posterior_has_no_twin(params: dict[str, torch.Tensor], tokens: np.ndarray) -> None:
    twin = curvature(SHAPE, params, Part.parse("0:1"), tokens, top=0, prior=Prior(30.0, 1e-4)).twin
    assert twin is not None
    assert np.isnan(twin.value)


def test_fisher_of_a_linear_softmax_model_in_closed_form(params: dict[str, torch.Tensor], tokens: np.ndarray) -> None:
    """In the unembedding (W, b) of a row x, `∇ = (x, 1) ⊗ (p - e_y)`: true trace `(‖x‖² + 1)(1 - ‖p‖²)`, which is the Hessian's too."""
    part = Part.parse("unembed")
    t = torch.tensor(tokens)
    p = fw.logits(SHAPE, params, t)[:, :-1].softmax(-1)
    x = fw.norm(SHAPE, params, "ln_final", fw.run_blocks(SHAPE, params, fw.embed(SHAPE, params, t)))[0, :, :-1]
    scale = x.square().sum(-1) + 1
    off = (p - torch.nn.functional.one_hot(t[:, 1:], 11)).square().sum(-1)
    empirical, true = ((scale * y).mean().item() for y in (off, 1 - p.square().sum(-1)))
    runs = [fisher(SHAPE, params, part, tokens, draws=24, seed=s) for s in range(12)]
    for name, exact in (("empirical", empirical), ("true", true)):
        values = [getattr(run, name).value for run in runs]
        assert abs(np.mean(values) - exact) < 3.5 * np.std(values, ddof=1) / 12**0.5
        assert np.std(values, ddof=1) / 12**0.5 < 0.03 * exact  # so that the line above can fail
    assert abs(empirical - true) > 0.1 * true  # and tells the two apart
    assert np.trace(explicit(params, part, tokens).mean(0)) == pytest.approx(true, rel=1e-10)


def test_empirical_fisher_of_a_head_is_the_sum_of_single_tokens_gradients(params: dict[str, torch.Tensor], tokens: np.ndarray) -> None:
    part = Part.parse("0:1")
    loss = PartLoss(SHAPE, params, part)
    jacobians = [torch.autograd.functional.jacobian(lambda w, c=c: loss.losses(w, c), loss.origin.detach()) for c in loss.contexts(tokens)]
    exact = torch.stack([j.square().sum(1).mean() for j in jacobians])  # pyright: ignore[reportAttributeAccessIssue]
    found = fisher(SHAPE, params, part, tokens, draws=200).empirical
    assert found.value == pytest.approx(exact.mean().item(), rel=0.08)
    assert found.stderr == pytest.approx((exact.std() / 5**0.5).item(), rel=0.4)


def test_draws_follow_the_seed_and_the_part(params: dict[str, torch.Tensor], tokens: np.ndarray) -> None:
    part = Part.parse("0:1")
    once, again, other = (curvature(SHAPE, params, part, tokens, top=0, seed=s).trace.value for s in (1, 1, 2))
    assert once == again != other
    once, again, other = (fisher(SHAPE, params, part, tokens, draws=1, seed=s).true.value for s in (1, 1, 2))
    assert once == again != other


def test_norms_and_participation_ratios(params: dict[str, torch.Tensor]) -> None:
    prefix = "blocks.1.attn."
    own = [params[prefix + n][1] for n in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")]
    assert weight_norm(SHAPE, params, Part.parse("1:1")) == pytest.approx(float(torch.cat([t.flatten() for t in own]).norm()))
    for found, matrix in zip(circuit_ratios(SHAPE, params, Head(1, 1)), (own[0] @ own[1].T, own[2] @ own[3]), strict=True):
        assert found == pytest.approx(participation_ratio(torch.linalg.svdvals(matrix).numpy()), rel=1e-9)
        assert 1 < found < 4
    assert participation_ratio([]) == participation_ratio([0.0]) == 0


@pytest.mark.parametrize(
    ("options", "message"), [({"top": 10_000}, "10000 eigenvalues"), ({"top": -1}, "-1 eigenvalues"), ({"probes": 0}, "one probe")]
)
def test_what_cannot_be_is_said(params: dict[str, torch.Tensor], tokens: np.ndarray, options: dict[str, int], message: str) -> None:
    with pytest.raises(RllcError, match=message):
        curvature(SHAPE, params, Part.parse("0:1"), tokens, **options)


def test_one_context_is_refused(params: dict[str, torch.Tensor], tokens: np.ndarray) -> None:
    for measure in (curvature, fisher):
        with pytest.raises(RllcError, match="no standard error"):
            measure(SHAPE, params, Part.parse("0:1"), tokens[:1])
    with pytest.raises(RllcError, match="one draw"):
        fisher(SHAPE, params, Part.parse("0:1"), tokens, draws=0)
