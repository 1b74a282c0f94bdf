"""What counts of a context counts in every measurement: losses by hand, means and donors without padding, curvature of the loss that is sampled."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rllc.behaviour.ablation import ablation_effects
from rllc.behaviour.baselines import baselines
from rllc.behaviour.contexts import Contexts, contexts_of, ratio_and_stderr
from rllc.behaviour.curvature import curvature
from rllc.behaviour.fisher import fisher
from rllc.behaviour.loss_scores import context_losses, loss_scores
from rllc.behaviour.measure import Probes, measure
from rllc.behaviour.ngram_scores import probe_score
from rllc.behaviour.part_loss import PartLoss, twice_differentiable
from rllc.behaviour.paths import direct_effects
from rllc.core.errors import RllcError
from rllc.core.names import Part
from rllc.model import forward as fw
from rllc.model.batch import counted
from rllc.model.shape import ModelShape

from .shapes import SHAPES, hooked_losses, some_tokens, untouched, weights
from .test_ablation import by_loops, written

SHAPE = ModelShape(n_layers=1, d_model=8, n_heads=2, d_head=4, d_vocab=5, n_ctx=9)
BOS = 0
# Two packed rows, one with a BOS inside and one without; and a document of three tokens with padding.
ROWS = np.array([[0, 1, 2, 0, 3, 4, 1, 2, 2], [0, 2, 2, 3, 1, 4, 4, 1, 3], [0, 3, 1, 0, 0, 0, 0, 0, 0]])


def of_rows(rows: np.ndarray) -> Contexts:
    return Contexts(rows, rows[:, 1:] != BOS)


def known() -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """A model whose prediction is the same everywhere, and what a token costs it in nats."""
    params = {name: torch.zeros_like(p) for name, p in fw.init_params(SHAPE, 0).items()}
    bias = torch.tensor([-3.0, 1.0, 0.5, 0.0, 2.0])
    return params | {"unembed.b_U": bias}, -bias.double().log_softmax(0).numpy()


def test_the_loss_is_that_of_the_tokens_that_count() -> None:
    """By hand: 7 + 8 + 2 tokens, none of them BOS, all of one weight however they lie in rows."""
    params, cost = known()
    scores = loss_scores(SHAPE, params, of_rows(ROWS))
    tokens = [1, 2, 3, 4, 1, 2, 2, 2, 2, 3, 1, 4, 4, 1, 3, 3, 1]
    assert scores.loss == pytest.approx(cost[tokens].mean(), rel=1e-6)
    sums = np.array([cost[tokens[:7]].sum(), cost[tokens[7:15]].sum(), cost[tokens[15:]].sum()])
    left = sums - scores.loss * np.array([7, 8, 2])
    assert scores.stderr == pytest.approx(np.sqrt((left**2).sum() * 3 / 2) / 17, rel=1e-6)
    assert scores.by_position[2] == pytest.approx(cost[3], rel=1e-6)  # of the middle row alone
    assert scores.by_position[0] == pytest.approx(cost[[1, 2, 3]].mean(), rel=1e-6)
    assert loss_scores(SHAPE, params, ROWS).loss > scores.loss + 0.5  # BOS is dear here
    # T = 9: early are the tokens at 1 and 2, late those at 3, 4 and 5; the third row has nothing late.
    by_row = np.array([cost[[3, 4]].mean() - cost[[1, 2]].mean(), cost[[3, 1, 4]].mean() - cost[2]])
    assert scores.icl == pytest.approx(by_row.mean(), rel=1e-6)
    assert scores.icl_stderr == pytest.approx(by_row.std(ddof=1) / 2**0.5, rel=1e-6)


def test_what_nothing_tells_is_no_number() -> None:
    params, cost = known()
    short = loss_scores(SHAPE, params, of_rows(ROWS[[2, 2, 2]]))
    assert short.loss == pytest.approx(cost[[3, 1]].mean(), rel=1e-6)
    assert np.isnan(short.icl)
    assert np.isnan(short.icl_stderr)
    assert np.isnan(short.by_position[2:]).all()


def test_every_average_of_a_measurement_is_over_what_counts() -> None:
    params = {name: 3 * p for name, p in fw.init_params(SHAPE, 1).items()}
    contexts = of_rows(ROWS)
    losses = context_losses(SHAPE, params, contexts)
    inside = losses[contexts.counted]
    found = measure(SHAPE, params, Probes(ROWS[:2], np.array([[0, 1, 2, 1, 2, 1, 2]]), 2, {"x": contexts}, {}))
    assert found.losses[0] == pytest.approx(inside.mean(), rel=1e-9)
    assert inside.mean() != pytest.approx(losses.mean(), rel=0.05)
    probes = np.array([[0, 1, 2], [0, 3, 4]])
    score = probe_score(SHAPE, params, probes, losses, contexts.counted)
    last = context_losses(SHAPE, params, probes)[:, -1]
    assert score.score == pytest.approx(inside.mean() / last.mean(), rel=1e-9)
    relative = found.losses_stderr[0] / inside.mean(), last.std(ddof=1) / 2**0.5 / last.mean()
    assert score.stderr == pytest.approx(score.score * np.hypot(*relative), rel=1e-9)


def test_the_error_of_equal_contexts_is_that_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(2, 1, (4, 6, 8))
    mean, stderr = contexts_of(np.zeros((6, 9), dtype=np.int64)).mean(values)
    np.testing.assert_allclose(mean, values.mean((1, 2)), rtol=1e-12)
    np.testing.assert_allclose(stderr, values.mean(2).std(1, ddof=1) / 6**0.5, rtol=1e-12)
    assert np.isnan(ratio_and_stderr(np.ones((2, 1)), np.ones(1))[1]).all()


def test_contexts_end_with_the_last_token_that_counts() -> None:
    assert of_rows(ROWS).lengths.tolist() == [9, 9, 3]
    assert of_rows(np.array([[0, 1, 0, 2, 0], [0, 0, 0, 0, 0]])).lengths.tolist() == [4, 1]


def test_flags_that_do_not_fit_are_told() -> None:
    with pytest.raises(RllcError, match=r"Contexts of the shape \(3, 9\) have \(3, 9\) flags"):
        Contexts(ROWS, ROWS != BOS)
    with pytest.raises(RllcError, match="No prediction of the contexts counts"):
        of_rows(np.zeros((2, 4), dtype=np.int64))
    with pytest.raises(RllcError, match=r"The contexts have the shape \(9,\)"):
        contexts_of(ROWS[0])


# --- padding in ablation


def padded(rows: int, seed: int, lengths: list[int]) -> Contexts:
    tokens = np.maximum(some_tokens(rows, seed), 1)
    tokens[:, 0], tokens[:, 1] = BOS, 1 + np.arange(rows)  # no two begin alike
    return of_rows(np.where(np.arange(9) < np.array(lengths)[:, None], tokens, BOS))


def test_padding_enters_no_mean() -> None:
    shape = SHAPES["gpt2"]
    params, contexts = weights(shape), padded(4, 0, [9, 4, 6, 6])
    clean = written(shape, params, contexts.tokens)
    inside = torch.from_numpy(np.arange(9) < contexts.lengths[:, None])[:, None, :, None]
    mean = [(out * inside).sum(0, keepdim=True) / inside.sum(0, keepdim=True) for out in clean]
    expected = by_loops(shape, params, contexts.tokens, mean)
    np.testing.assert_allclose(ablation_effects(shape, params, contexts, "mean")[:, contexts.counted], expected[:, contexts.counted], atol=1e-10)
    plain = ablation_effects(shape, params, contexts.tokens, "mean")
    assert np.abs(plain - expected)[:, contexts.counted].max() > 1e-2


def test_where_no_reference_reaches_the_mean_is_that_of_the_last_place() -> None:
    shape = SHAPES["bare"]
    params, reference, tokens = weights(shape), padded(3, 1, [4, 5, 5]), some_tokens(2, 2)
    clean = written(shape, params, reference.tokens)
    inside = torch.from_numpy(np.arange(9) < reference.lengths[:, None])[:, None, :, None]
    mean = [(out * inside).sum(0, keepdim=True) / inside.sum(0, keepdim=True).clamp(min=1) for out in clean]
    for out in mean:
        out[:, :, 5:] = out[:, :, 4:5]
    np.testing.assert_allclose(ablation_effects(shape, params, tokens, "mean", reference), by_loops(shape, params, tokens, mean), atol=1e-10)


@pytest.mark.parametrize("own", [True, False])
def test_a_donor_reaches_as_far_as_what_it_stands_for(own: bool) -> None:
    """Every row has one donor, the same for all heads, and padding stands for no token; nobody is as long as the first row but one of 8 tokens."""
    shape = SHAPES["bare"]
    params, contexts = weights(shape), padded(6, 3, [9, 3, 8, 3, 5, 5])
    reference = None if own else padded(5, 4, [4, 8, 2, 8, 5])
    given = reference or contexts
    clean = written(shape, params, given.tokens)
    for seed in range(3):
        effects = ablation_effects(shape, params, contexts, "resample", reference, seed=seed)[0]  # of head 0:0
        for row in range(6):
            one, counts = contexts.tokens[row : row + 1], contexts.counted[row]
            base, fits = hooked_losses(shape, params, one, untouched)[0], []
            for donor in range(len(given.tokens)):

                def hook(name: str, layer: int, value: torch.Tensor, donor: int = donor) -> torch.Tensor:
                    if (name, layer) == ("out", 0):
                        value = value.clone()
                        value[:, 0] = clean[0][donor, 0]
                    return value

                if np.allclose(effects[row, counts], (hooked_losses(shape, params, one, hook)[0] - base)[counts], atol=1e-10):
                    fits.append(donor)
            assert len(fits) == 1
            assert given.lengths[fits[0]] >= contexts.lengths[row] - 1
            assert not own or fits[0] != row


def test_the_only_long_context_takes_the_longest_other() -> None:
    shape = SHAPES["bare"]
    params, contexts = weights(shape), padded(3, 3, [9, 3, 6])
    effects = direct_effects(shape, params, contexts, "resample")[:, 0]
    out = written(shape, params, contexts.tokens)

    def hook(name: str, _: int, value: torch.Tensor) -> torch.Tensor:
        return value + (out[0][2, 0] - out[0][0, 0]) if name == "final" else value

    clean = hooked_losses(shape, params, contexts.tokens[:1], untouched)
    np.testing.assert_allclose(effects[0], (hooked_losses(shape, params, contexts.tokens[:1], hook) - clean)[0], atol=1e-10)


# --- curvature


@pytest.fixture(scope="module")
def params() -> dict[str, torch.Tensor]:
    return {name: 2 * t for name, t in fw.init_params(SHAPE, 3, torch.float64).items()}


PART = Part.parse("unembed")  # in which the loss is convex, and flat along as many directions as rows of it have numbers


@pytest.fixture(scope="module")
def hessians(params: dict[str, torch.Tensor]) -> np.ndarray:
    """[B, d, d], of the sum of the losses that count in each context."""
    loss, found = PartLoss(SHAPE, params, PART), []
    for context, flags in zip(loss.contexts(ROWS), ROWS[:, 1:] != BOS, strict=True):
        with twice_differentiable():
            each = torch.autograd.functional.hessian(lambda w, c=context, f=flags: loss.losses(w, c)[torch.from_numpy(f)].sum(), loss.origin.detach())
        assert isinstance(each, torch.Tensor)
        found.append(each.numpy())
    return np.array(found)


def test_the_gradient_is_that_of_the_loss_that_is_sampled(params: dict[str, torch.Tensor]) -> None:
    free = {name: p.clone().requires_grad_() for name, p in params.items()}
    fw.losses(SHAPE, free, counted(torch.from_numpy(ROWS), torch.from_numpy(ROWS != BOS))).sum().backward()
    exact = torch.cat([g.flatten() for name in ("W_U", "b_U") if (g := free[f"unembed.{name}"].grad) is not None]).norm()
    assert curvature(SHAPE, params, PART, of_rows(ROWS), top=0).gradient_norm == pytest.approx(float(exact), rel=1e-9)


def test_the_hessian_is_that_of_the_loss_that_is_sampled(params: dict[str, torch.Tensor], hessians: np.ndarray) -> None:
    contexts, exact = of_rows(ROWS), hessians.sum(0) / 17
    found = curvature(SHAPE, params, PART, contexts, top=2).spectrum
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(exact)[::-1][:2], rtol=1e-4)
    within = np.einsum("bij,i,j->b", hessians, found.vectors[0], found.vectors[0])
    left = within - within.sum() / 17 * np.array([7, 8, 2])
    assert found.stderr[0] == pytest.approx(np.sqrt((left**2).sum() * 3 / 2) / 17, rel=1e-3)
    assert curvature(SHAPE, params, PART, ROWS, top=1).spectrum.eigenvalues[0] != pytest.approx(found.eigenvalues[0], rel=3e-3)
    nearly_all = curvature(SHAPE, params, PART, contexts, top=44)  # of 45, so that nothing is left to chance
    assert nearly_all.trace.value == pytest.approx(np.trace(exact), rel=1e-6)
    assert np.trace(hessians.mean(0) / 8) != pytest.approx(np.trace(exact), rel=0.05)  # so that the line above can fail


def test_fisher_is_of_the_tokens_that_count(params: dict[str, torch.Tensor]) -> None:
    """In the unembedding (W, b) of a row x, `∇ = (x, 1) ⊗ (p - e_y)`: every token's squared norm by hand."""
    params = {name: 2 * p for name, p in params.items()}  # sure of itself
    contexts, t = of_rows(ROWS), torch.from_numpy(ROWS)
    p = fw.logits(SHAPE, params, t)[:, :-1].softmax(-1)
    x = fw.norm(SHAPE, params, "ln_final", fw.run_blocks(SHAPE, params, fw.embed(SHAPE, params, t)))[0, :, :-1]
    scale = x.square().sum(-1) + 1
    off = (p - torch.nn.functional.one_hot(t[:, 1:], 5)).square().sum(-1)
    here = torch.from_numpy(contexts.counted)
    exact = {"empirical": float((scale * off)[here].mean()), "true": float((scale * (1 - p.square().sum(-1)))[here].mean())}
    runs = [fisher(SHAPE, params, Part.parse("unembed"), contexts, draws=30, seed=s) for s in range(12)]
    plain = {"empirical": float((scale * off).mean()), "true": float((scale * (1 - p.square().sum(-1))).mean())}
    for name, value in exact.items():
        values = [getattr(run, name).value for run in runs]
        error = np.std(values, ddof=1) / 12**0.5
        assert abs(np.mean(values) - value) < 3.5 * error
        assert abs(plain[name] - value) > 4 * error  # so that the line above can fail
    table, head = baselines(SHAPE, params, contexts, heads=SHAPE.heads()[1:], top=1, draws=2, seed=4), Part.parse("0:1")
    assert table.values["fisher_empirical"][0] == pytest.approx(fisher(SHAPE, params, head, contexts, draws=2, seed=4).empirical.value, rel=1e-12)
    assert table.values["top_eigenvalue"][0] == pytest.approx(curvature(SHAPE, params, head, contexts, top=1).spectrum.eigenvalues[0], rel=1e-3)
