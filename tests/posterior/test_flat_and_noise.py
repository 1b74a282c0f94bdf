from __future__ import annotations

import numpy as np
import pytest
import torch

from rllc.core.errors import RllcError
from rllc.posterior.flat import Layout
from rllc.posterior.noise import Noise

CPU = torch.device("cpu")


def tensors(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {"matrix": torch.randn(3, 4, 2).to(dtype), "scalar": torch.randn(3).to(dtype), "cube": torch.randn(3, 2, 2, 2).to(dtype)}


def test_views_of_flatten_are_the_tensors_and_share_memory() -> None:
    original = tensors()
    layout = Layout.of(original)
    flat = layout.flatten(original)
    assert flat.shape == (3, 8 + 1 + 8) == (3, layout.dimension)
    views = layout.views(flat)
    assert list(views) == list(original)
    for name, view in views.items():
        assert torch.equal(view, original[name])
    flat[1, 8] = 7.0
    assert views["scalar"][1] == 7.0


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_the_state_is_fp32_at_least(given: torch.dtype, kept: torch.dtype) -> None:
    original = tensors(given)
    layout = Layout.of(original)
    assert layout.dtype == kept
    assert layout.flatten(original).dtype == kept


def test_mixed_types_take_the_widest() -> None:
    assert Layout.of({"a": torch.zeros(1, 2, dtype=torch.bfloat16), "b": torch.zeros(1, 2, dtype=torch.float64)}).dtype == torch.float64


def test_what_cannot_be_sampled() -> None:
    with pytest.raises(RllcError, match="holds no tensor"):
        Layout.of({})
    with pytest.raises(RllcError, match=r"'ids' is of type torch\.int64, which cannot be sampled"):
        Layout.of({"ids": torch.zeros(1, 2, dtype=torch.int64)})
    with pytest.raises(RllcError, match="differ in their leading axis"):
        Layout.of({"a": torch.zeros(1, 2), "b": torch.zeros(2, 2)})


def test_a_variant_s_stream_depends_on_its_seed_alone() -> None:
    few, many = Noise([1, 2], 50, torch.float32, CPU), Noise([9, 8, 2, 7], 50, torch.float32, CPU)
    for _ in range(3):
        for a, b in zip(few.draw(), many.draw(), strict=True):
            assert torch.equal(a[1], b[2])
            assert not torch.equal(a[0], a[1])


def test_noise_is_standard_normal_and_fresh() -> None:
    noise = Noise([5, 6], 200_000, torch.float64, CPU)
    first, second = noise.draw().normal, noise.draw().normal
    assert first.dtype == torch.float64
    both = torch.cat([first, second], dim=1).numpy()
    np.testing.assert_allclose(both.mean(axis=1), 0, atol=0.01)
    np.testing.assert_allclose(both.var(axis=1), 1, atol=0.01)
    np.testing.assert_allclose(np.corrcoef(both), np.eye(2), atol=0.01)
    assert abs(float((first * second).mean())) < 0.01


def test_uniforms_are_uniform() -> None:
    noise = Noise(list(range(2000)), 1, torch.float64, CPU)
    drawn = torch.cat([noise.draw().uniform for _ in range(5)]).numpy()
    assert ((drawn >= 0) & (drawn < 1)).all()
    np.testing.assert_allclose(np.quantile(drawn, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02)


def test_streams_go_on_from_a_state() -> None:
    noise, other = Noise([5, 6], 9, torch.float32, CPU), Noise([1, 2], 9, torch.float32, CPU)
    noise.draw()
    other.restore(noise.state())
    for a, b in zip(noise.draw(), other.draw(), strict=True):
        assert torch.equal(a, b)
    other.restore(noise.state())
    kept = noise.kept([1])
    noise.draw()
    assert torch.equal(kept.draw().normal[0], other.draw().normal[1])
