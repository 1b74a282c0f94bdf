"""The samplers by name: each a module with a State, `init` and `step`."""

from __future__ import annotations

from collections.abc import Mapping

from rllc.posterior.samplers import leimkuhler_matthews, mala, rmsprop_sgld, sgld, sgnht
from rllc.posterior.samplers.base import Sampler
from rllc.posterior.settings import SamplerName

SAMPLERS: Mapping[SamplerName, Sampler] = {
    "sgld": sgld,
    "leimkuhler-matthews": leimkuhler_matthews,
    "rmsprop-sgld": rmsprop_sgld,
    "sgnht": sgnht,
    "mala": mala,
}
