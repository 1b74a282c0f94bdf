"""The samplers by name: each a module with a State, `init` and `step`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

from rllc.posterior import leimkuhler_matthews, sgld
from rllc.posterior.settings import SamplerName, SamplerSettings

if TYPE_CHECKING:
    from jaxtyping import Float


@runtime_checkable
class State(Protocol):
    """What every sampler's state tells: where to evaluate the loss next."""

    @property
    def displacement(self) -> Tensor:
        """`w - w*`, [C, d]."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """A pure pair over an immutable state (ANCHORS, principle 1): randomness comes in as `noise`, standard normal [C, d]."""

    def init(self, displacement: Float[Tensor, "C d"], noise: Float[Tensor, "C d"]) -> State:
        """The state that starts at the displacement."""
        ...

    def step(self, state: Any, gradient: Float[Tensor, "C d"], noise: Float[Tensor, "C d"], settings: SamplerSettings) -> State:
        """The state one step later."""
        ...


SAMPLERS: Mapping[SamplerName, Sampler] = {"sgld": sgld, "leimkuhler-matthews": leimkuhler_matthews}
