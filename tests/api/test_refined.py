"""Refined and padded data through the one call."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import rllc
from rllc.model import forward as fw

from .toys import SHAPE, SMALL, Ours, tokens


def test_everything_counting_is_the_data_itself() -> None:
    plain = rllc.estimate(Ours(), tokens(), "1:0", **SMALL)
    whole = rllc.estimate(Ours(), rllc.Refined(tokens(), positions=lambda ids: ids >= 0), "1:0", **SMALL)
    np.testing.assert_allclose(whole.traces.losses, plain.traces.losses, rtol=0, atol=1e-6)


def test_the_chains_see_what_was_chosen() -> None:
    chosen, model = (3, 7), Ours()
    r = rllc.estimate(model, rllc.Refined(tokens(), positions=lambda ids: np.isin(ids, chosen)), "1:0", **SMALL | {"batch_size": 60})
    ids = tokens()
    each = fw.token_losses(SHAPE, model.params, ids)
    expected = each[torch.isin(ids[:, 1:], torch.tensor(chosen))].mean().item()
    # w* itself, the first evaluation, on a minibatch of five times the whole data
    assert abs(r.traces.losses[0, 0, 0] - expected) < 0.15
    assert abs(r.traces.losses[0, 0, 0] - each.mean().item()) < 1


def test_contexts_are_filtered() -> None:
    ids = tokens()
    kept = ids[(ids == 5).any(1)]
    assert 0 < len(kept) < len(ids)
    some = rllc.estimate(Ours(), rllc.Refined(ids, contexts=lambda rows: (rows == 5).any(1)), "0:1", **SMALL)
    alone = rllc.estimate(Ours(), rllc.Refined(kept, positions=lambda rows: rows >= 0), "0:1", **SMALL)
    np.testing.assert_array_equal(some.traces.losses, alone.traces.losses)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_out_of_the_loss_on_either_side(side: str) -> None:
    ids, real = tokens().clone(), torch.ones(12, 6, dtype=torch.long)
    for row in range(0, 12, 2):
        if side == "right":
            real[row, 4:], ids[row, 4:] = 0, 9
        else:
            real[row, :2], ids[row, :2] = 0, 9
    padded = rllc.estimate(Ours(), {"input_ids": ids, "attention_mask": real}, "1:0", **SMALL)
    again = ids.clone()
    again[real == 0] = 2  # whatever stands there
    other = rllc.estimate(Ours(), {"input_ids": again, "attention_mask": real}, "1:0", **SMALL)
    np.testing.assert_array_equal(padded.traces.losses, other.traces.losses)


def test_against_itself_a_model_has_no_gradient() -> None:
    model = Ours()
    r = rllc.estimate(model, rllc.Refined(tokens(), reference=model), "0:0", **SMALL)
    assert r.traces.losses[0, 0, 0] > 0
    labels = rllc.estimate(model, tokens(), "0:0", **SMALL)
    assert abs(r.record.meta["tilt"]) < 1e-6 < abs(labels.record.meta["tilt"])


@pytest.mark.parametrize(("data", "sentence"), [
    (rllc.Refined([[1, 2, 3]], positions=lambda ids: ids == 9), r"Of 1 contexts none belongs to the refinement"),
    (rllc.Refined([[1, 2, 3]], positions=lambda ids: ids[0]), r"positions answered with \[3\] of int64, but should give \[1, 3\] of bool"),
    (rllc.Refined([[1, 2, 3]], reference=7), r"The reference is a int"),
    ({"input_ids": [[1, 2, 3]], "attention_mask": [[1, 0, 1]]}, r"The attention_mask has gaps within a row"),
    ({"input_ids": [[1, 2, 3]], "attention_mask": [1, 0, 1]}, r"input_ids are \[1, 3\] and attention_mask is \[3\]"),
])  # fmt: skip
def test_what_cannot_be_is_refused(data: object, sentence: str) -> None:
    with pytest.raises(rllc.RllcError, match=sentence):
        rllc.estimate(Ours(), data, "0:0", **SMALL)


def model_of_transformers(seed: int = 0):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = transformers.GPT2Config(vocab_size=11, n_positions=6, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    return transformers.GPT2LMHeadModel(config).double().eval()


def half_padded(side: str) -> dict[str, torch.Tensor]:
    real = torch.ones(12, 6, dtype=torch.long)
    real[::2, 4:] = 0
    return {"input_ids": tokens(), "attention_mask": real if side == "right" else real.flip(1)}


REFINED = {
    "positions": lambda: rllc.Refined(tokens(), positions=lambda ids: ids > 6),
    "contexts": lambda: rllc.Refined(tokens(), contexts=lambda ids: (ids == 5).any(1)),
    "right": lambda: half_padded("right"),
    "left": lambda: half_padded("left"),
    "reference": lambda: rllc.Refined(tokens(), positions=lambda ids: ids > 4, reference=model_of_transformers(1)),
    "mixed": lambda: rllc.Mixed({"a": tokens(), "b": rllc.Refined(tokens(seed=5), positions=lambda ids: ids > 6)}, {"a": 1, "b": 3}),
    "refined mixture": lambda: rllc.Refined(
        rllc.Mixed({"a": tokens(), "b": tokens(seed=5)}), positions=lambda ids: ids != 3, reference=model_of_transformers(1)
    ),
}


@pytest.mark.parametrize("kind", REFINED)
def test_both_roads_take_the_same_loss(kind: str) -> None:
    """Libraries lay weights out in other orders, so that the noise falls on others: the losses at w* are equal, and all the chains' on one part."""
    roads = {road: rllc.estimate(model_of_transformers(), REFINED[kind](), "1:0", road=road, **SMALL) for road in ("native", "general")}
    np.testing.assert_allclose(roads["general"].traces.baseline, roads["native"].traces.baseline, rtol=0, atol=1e-9)
    plain = rllc.estimate(model_of_transformers(), tokens(), "1:0", **SMALL)
    assert np.abs(roads["native"].traces.baseline - plain.traces.baseline).max() > 1e-3
    bare = {road: rllc.estimate(model_of_transformers(), REFINED[kind](), "1:0.O", road=road, **SMALL) for road in ("native", "general")}
    np.testing.assert_allclose(bare["general"].traces.losses, bare["native"].traces.losses, rtol=0, atol=1e-9)


@pytest.mark.parametrize("road", ["native", "general"])
def test_a_padded_row_has_the_loss_and_the_positions_of_the_row_alone(road: str) -> None:
    model, row = model_of_transformers(), tokens(1, 4)
    with torch.no_grad():
        model.transformer.wpe.weight.mul_(20)  # so that a position that is off by one shows
        # from the logits, since the library rounds its own loss to fp32
        expected, moved = (
            torch.nn.functional.cross_entropy(model(row, position_ids=places[None]).logits[0, :-1], row[0, 1:]).item()
            for places in (torch.arange(4), torch.arange(2, 6))
        )
    assert abs(moved - expected) > 1e-3
    for ids, mask in ((torch.cat([row * 0 + 9, row], 1)[:, 2:], [0, 0, 1, 1, 1, 1]), (torch.cat([row, row * 0 + 9], 1)[:, :6], [1, 1, 1, 1, 0, 0])):
        padded = {"input_ids": ids, "attention_mask": torch.tensor([mask])}
        r = rllc.estimate(model, padded, "1:0", road=road, **SMALL)
        np.testing.assert_allclose(r.traces.baseline, expected, rtol=0, atol=1e-9)


def test_a_module_that_cannot_be_converted_is_a_reference_too() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(2)
    sizes = {"vocab_size": 11, "hidden_size": 8, "num_layers": 1, "num_heads": 2, "max_position_embeddings": 6, "intermediate_size": 16}
    other = transformers.GPTNeoForCausalLM(transformers.GPTNeoConfig(attention_types=[[["global"], 1]], **sizes)).train()
    refined = rllc.Refined(tokens(), positions=lambda ids: ids > 6, reference=other)
    roads = {road: rllc.estimate(model_of_transformers(), refined, "1:0.O", road=road, **SMALL) for road in ("native", "general")}
    np.testing.assert_allclose(roads["general"].traces.losses, roads["native"].traces.losses, rtol=0, atol=1e-6)
    assert other.training
    assert other.transformer.h[0].training


def test_a_mixture_draws_in_proportion_and_says_so() -> None:
    ones, twos = torch.full((4, 6), 1), torch.full((4, 6), 2)
    r = rllc.estimate(Ours(), rllc.Mixed({"a": ones, "b": twos}, {"a": 3, "b": 1}), "1:0", **SMALL | {"batch_size": 4000, "draws": 4})
    alone = {name: rllc.estimate(Ours(), ids, "1:0", **SMALL).traces.baseline[0, 0] for name, ids in (("a", ones), ("b", twos))}
    share = (r.traces.baseline[0] - alone["b"]) / (alone["a"] - alone["b"])
    assert abs(share - 0.75).max() < 4 * (0.75 * 0.25 / 4000) ** 0.5
    assert share.std() > 0
    assert r.notes[0] == "A mixture: a 0.75, b 0.25."


@pytest.mark.parametrize("road", ["native", "general"])
def test_two_refinements_are_compared_on_common_noise(road: str) -> None:
    """Against itself a model is at its minimum, and on labels far from it."""
    model = model_of_transformers()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(15 if parameter.ndim == 2 else 1)
    some = rllc.Refined(tokens(), positions=lambda ids: ids > 4)
    data = {"some": some, "again": some, "itself": rllc.Refined(tokens(), reference=model)}
    settings = SMALL | {"chains": 8, "draws": 40, "batch_size": 12}
    found = rllc.sweep(model, data, "1:0", progress=False, road=road, **settings).run()
    rows = found.differences("data").set_index(["a", "b"])
    assert rows["aligned"].all()
    same, other = rows.loc[("again", "some")], rows.loc[("itself", "some")]
    assert not same["differs"]
    assert abs(same["difference"]) < 3 * same["stderr"]
    assert other["differs"]
    assert abs(other["difference"]) > 4 * other["stderr"]
    # the chains' noise is common, and what is common cancels
    assert same["stderr"] < np.hypot(*(found.select(data=name).cells[0].stderr for name in ("again", "some")))


@pytest.mark.parametrize(("data", "sentence"), [
    (lambda: rllc.Mixed({}), r"A mixture of no data"),
    (lambda: rllc.Mixed({"a": tokens()}, {"b": 1}), r"The weights are of b and the data of a"),
    (lambda: rllc.Mixed({"a": tokens()}, {"a": 0}), r"The weight of 'a' is 0"),
    (lambda: rllc.Mixed({"a": tokens(), "b": tokens(length=5)}), r"The contexts of 'b' have 5 tokens, and others of the mixture 6"),
    (lambda: rllc.Mixed({"a": rllc.Refined(tokens(), reference=Ours())}), r"'a' of the mixture is refined in a way that cannot be mixed"),
    (lambda: rllc.Refined(tokens(), reference=Ours(shape=dataclasses.replace(SHAPE, d_vocab=13))), r"The reference predicts 13 tokens and the model"),
])  # fmt: skip
def test_mixtures_and_references_that_cannot_be(data, sentence: str) -> None:
    with pytest.raises(rllc.RllcError, match=sentence):
        rllc.estimate(Ours(), data(), "0:0", **SMALL)


# --- evaluated elsewhere


@pytest.mark.parametrize("sampler", ["sgld", "leimkuhler-matthews", "rmsprop-sgld", "sgnht"])
def test_evaluated_on_its_own_data_the_chains_see_their_own_losses(sampler: str) -> None:
    """A function from a number to a batch gives them the very same minibatches."""

    def batch(number: int) -> torch.Tensor:
        return tokens(3, seed=number)

    r = rllc.estimate(Ours(), batch, ["1:0", "1:1"], evaluate_on={"same": batch, "b": tokens(seed=3)}, sampler=sampler, **SMALL)
    alone = rllc.estimate(Ours(), batch, ["1:0", "1:1"], sampler=sampler, **SMALL)
    for part in ("1:0", "1:1"):
        np.testing.assert_array_equal(r[part].traces.losses, alone[part].traces.losses)  # no chain moves by the others
        own, other = r[part].elsewhere["same"], r[part].elsewhere["b"]
        np.testing.assert_allclose(own.traces.losses, r[part].traces.losses, rtol=0, atol=1e-6)
        np.testing.assert_allclose(own.traces.baseline, r[part].traces.baseline, rtol=0, atol=1e-6)
        assert own.llc == pytest.approx(r[part].llc, abs=1e-3, nan_ok=True)
        assert (own.stderr, own.diagnostics.ess) == pytest.approx((r[part].stderr, r[part].diagnostics.ess), rel=1e-2, nan_ok=True)
        assert np.abs(other.traces.losses - own.traces.losses).max() > 1e-3


def test_on_quadratics_the_answer_elsewhere_is_known() -> None:
    """Under exp{-nβ ½ Σ h v² - (γ/2) v²} a loss ½ Σ k v² rises by ½ Σ k / a, a = nβ h + γ; a step ε widens each variance by 1 / (1 - ε a / 4)."""
    h, k = torch.tensor([1.0, 4.0, 2.0, 9.0], dtype=torch.float64), torch.tensor([3.0, 0.0, 2.0, 1.0], dtype=torch.float64)

    class Bowls(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))

    def loss(module, batch):
        return 0.5 * (batch[0] * module.w**2).sum()

    nbeta, gamma, step = 20.0, 5.0, 8e-3
    settings = {"nbeta": nbeta, "localization": gamma, "step_size": step, "chains": 400, "draws": 240, "burn_in": 100, "batch_size": 1}
    r = rllc.estimate(Bowls(), h[None], "w", loss=loss, evaluate_on={"other": k[None], "double": 2 * h[None]}, origin_batches=3, **settings)
    a = nbeta * h + gamma
    variance = 1 / (a * (1 - step * a / 4))
    for result, curvature in ((r, h), (r.elsewhere["other"], k)):
        exact = float(nbeta * 0.5 * (curvature * variance).sum())
        assert abs(result.llc - exact) < 3.5 * result.stderr
        assert result.stderr < 0.02 * exact
    assert r.elsewhere["double"].llc == pytest.approx(2 * r.llc, rel=1e-12)  # and that without any chance


def test_elsewhere_is_in_every_table(tmp_path) -> None:
    r = rllc.estimate(Ours(), tokens(), "1:0", data_name="code", evaluate_on={"prose": tokens(seed=3)}, **SMALL)
    rows = r.to_pandas().sort_values("evaluated_on")
    assert rows[["data", "evaluated_on"]].values.tolist() == [["code", "code"], ["code", "prose"]]
    assert rows["llc"].tolist() == pytest.approx([r.llc, r.elsewhere["prose"].llc], nan_ok=True)
    several = rllc.Results((r, rllc.estimate(Ours(), tokens(), "1:1", data_name="code", **SMALL)))
    assert several.to_pandas()["evaluated_on"].tolist().count("prose") == 1
    assert several._repr_html_().count("<td") == 3 * 8
    assert "evaluated on prose" in repr(several)
    place = {"setting": "evaluated_on=prose", "part": "1:0", "data": "code", "step": 0}
    for tree in (r.to_xarray()["elsewhere/prose"].to_dataset(), several.to_xarray().to_dataset().sel(place)):
        assert float(tree["llc"]) == pytest.approx(r.elsewhere["prose"].llc, nan_ok=True)
        np.testing.assert_array_equal(tree["losses"], r.elsewhere["prose"].traces.losses[0])
    assert "evaluated on prose" in r._repr_html_()
    assert "with the chains of code" in r._repr_html_()
    assert "no learning coefficient of prose" in r.elsewhere["prose"]._repr_html_()
    assert "1:0 on code, evaluated on prose at step 0: nβ (E[l] - l(w*)) = " in str(r.elsewhere["prose"])


@pytest.mark.parametrize("road", ["native", "general"])
def test_the_chains_do_not_know_that_they_are_watched(road: str) -> None:
    model, other = model_of_transformers(), rllc.Refined(tokens(seed=3), positions=lambda ids: ids > 6, reference=model_of_transformers(1))
    watched = rllc.estimate(model, half_padded("left"), "1:0", road=road, evaluate_on={"b": other, "c": tokens(seed=4)}, **SMALL)
    alone = rllc.estimate(model, half_padded("left"), "1:0", road=road, **SMALL)
    assert watched.road == road
    for name, array in alone.traces.arrays().items():
        np.testing.assert_array_equal(watched.traces.arrays()[name], array)
    assert watched.record.digest == alone.record.digest
    assert len({one.record.digest for one in (watched, *watched.elsewhere.values())}) == 3


def bowls(elsewhere: float, **settings: float) -> rllc.Result:
    class Bowl(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))

    def loss(module, batch):
        return (batch * (0.5 * module.w**2).sum()).mean()

    one = torch.ones(1, dtype=torch.float64)
    given = {"step_size": 1e-2, "nbeta": 10.0, "localization": 1.0, "draws": 200, "burn_in": 50, "batch_size": 1} | settings
    return rllc.estimate(Bowl(), one, "w", loss=loss, evaluate_on={"b": elsewhere * one}, **given)


def test_neither_size_nor_sign_marks_what_is_evaluated_elsewhere() -> None:
    """Equipartition bounds the loss that moves the chains, and nothing else."""
    for factor in (200.0, -3.0):
        r = bowls(factor)
        other = r.elsewhere["b"]
        assert r.outcome == rllc.Outcome.OK
        assert other.outcome == rllc.Outcome.OK
        assert other.llc == pytest.approx(factor * r.llc, rel=1e-9)
        assert other.stderr == pytest.approx(abs(factor) * r.stderr, rel=1e-9)


def test_what_is_not_finite_elsewhere_has_no_number_there_alone() -> None:
    r = bowls(float("inf"), draws=40)
    assert r.outcome == rllc.Outcome.OK
    assert r.elsewhere["b"].outcome == rllc.Outcome.NONFINITE
    assert np.isnan(r.elsewhere["b"].llc)
    assert r.to_pandas().set_index("evaluated_on")["llc"].isna().to_dict() == {"data": False, "b": True}


def test_what_still_moves_elsewhere_is_marked_there() -> None:
    """The flat direction, which the chains' own loss does not see, has spread over a small part of its range."""

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(40, dtype=torch.float64))

    def loss(module, batch):
        return 0.5 * (batch[0] * module.w**2).sum()

    steep, flat = torch.zeros(1, 40, dtype=torch.float64), torch.zeros(1, 40, dtype=torch.float64)
    steep[:, :20], flat[:, 20:] = 10.0, 1.0
    settings = {"step_size": 1e-3, "nbeta": 30.0, "localization": 1.0, "draws": 500, "burn_in": 50, "batch_size": 1}
    r = rllc.estimate(Two(), steep, "w", loss=loss, evaluate_on={"flat": flat}, verdicts=rllc.Verdicts(stein_share=9.0), **settings)
    other = r.elsewhere["flat"]
    assert other.outcome == rllc.Outcome.DRIFTING
    assert "On this data the number moved by" in other.reason
    assert other.diagnostics.drift > 10 * r.diagnostics.drift


def test_other_data_goes_by_another_name() -> None:
    with pytest.raises(rllc.RllcError, match=r"evaluate_on names 'data', as the data is called that the chains move by\. Give it another name"):
        rllc.estimate(Ours(), tokens(), "1:0", evaluate_on={"data": tokens(seed=3)}, **SMALL)


def test_a_refused_cell_is_refused_everywhere() -> None:
    r = rllc.estimate(Ours(), tokens(), "1:0", evaluate_on={"b": tokens(seed=3)}, **SMALL | {"step_size": 0.019, "nbeta": 1e5})
    assert r.outcome.refused
    assert r.elsewhere["b"].outcome.refused
    assert np.isnan(r.elsewhere["b"].llc)
    with pytest.raises(rllc.RllcError, match="Take another sampler to evaluate elsewhere"):
        rllc.estimate(Ours(), tokens(), "1:0", evaluate_on={"b": tokens()}, sampler="mala", **SMALL)
