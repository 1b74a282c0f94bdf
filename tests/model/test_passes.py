"""Passes that halve where memory runs short."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rllc.model.evaluation import Passes


class Short:
    """Losses that find no memory for more than so many variants at a time."""

    def __init__(self, holds: int, error: Exception) -> None:
        self.holds, self.error, self.tried = holds, error, []

    def __call__(self, values: dict[str, Tensor], rows: slice) -> Tensor:
        count = rows.stop - rows.start
        self.tried.append(count)
        if count > self.holds:
            raise self.error
        return values["w"].square().sum(1)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …")]
)
def test_a_pass_that_finds_no_memory_is_halved_for_good(error: Exception) -> None:
    w = torch.randn(11, 3, dtype=torch.float64)
    passes, short = Passes(0), Short(3, error)
    for tried in ([11, 5, 2, 2, 2, 2, 2, 1], [2, 2, 2, 2, 2, 1]):
        result = passes.evaluate({"w": w}, torch.tensor(1.0), True, short)
        torch.testing.assert_close(result.losses, w.square().sum(1))
        assert result.gradients is not None
        torch.testing.assert_close(result.gradients["w"], 2 * w)
        assert short.tried == tried
        short.tried.clear()
    assert passes.chunk == 2


@pytest.mark.parametrize(("holds", "error"), [(0, MemoryError("none")), (3, RuntimeError("shapes do not fit")), (3, ValueError("no"))])
def test_other_errors_and_one_variant_without_memory_are_raised(holds: int, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        Passes(0).evaluate({"w": torch.ones(4, 2)}, torch.tensor(1.0), True, Short(holds, error))
