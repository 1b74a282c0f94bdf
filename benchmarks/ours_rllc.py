"""The cases of `trust.py` through rllc: its protocol, its one call, and the key of its records."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from trust_cases import Case

from rllc.core import digest, seeds
from rllc.core.names import Cell, DataKey, Part
from rllc.posterior.protocol import Evaluation, Tensors
from rllc.posterior.sampling import Sampled, sample
from rllc.posterior.settings import SamplerName, SamplerSettings
from rllc.runs.experiment import parse, preset
from rllc.runs.keys import KIND, record_key

__all__ = ["KIND", "key_of", "ours"]


@dataclass(frozen=True)
class Objective:
    """A case in rllc's protocol: the items' mean loss of all variants at once."""

    case: Case

    @property
    def origin(self) -> Tensors:
        """w*, of one part."""
        return {"w": self.case.origin[None]}

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        """The items themselves."""
        return batch

    def evaluate(self, variants: Tensors, context: torch.Tensor, *, gradients: bool = True) -> Evaluation:
        """Losses, gradients and the loss at w* on the same items."""
        w = variants["w"].detach().requires_grad_(gradients)
        losses = self.case.loss(w, context).mean(dim=1)
        grads = {"w": torch.autograd.grad(losses.sum(), w)[0]} if gradients else None
        return Evaluation(losses.detach(), grads, self.case.loss(self.case.origin[None], context).mean(dim=1).expand(len(w)))


def ours(case: Case, seed: int, sampler: SamplerName = "sgld", first: int = 0) -> Sampled:
    """Sample a case with rllc. Minibatches are drawn with replacement from the items first … first + case.items - 1."""
    c = case.chain
    settings = SamplerSettings(sampler, c.step_size, c.localization, c.nbeta, c.chains, c.draws, c.burn_in)

    def batches(purpose: str, n: int) -> list[torch.Tensor]:
        generator = seeds.generator(seed, case.name, purpose)
        return [torch.from_numpy(first + generator.integers(0, case.items, case.batch)) for _ in range(n)]

    noise = [[seeds.derive(seed, case.name, "noise", chain) for chain in range(c.chains)]]
    return sample(Objective(case), batches("sample", settings.steps + 1), settings, noise_seeds=noise, origin_batches=batches("origin", 16))


def key_of(case: Case, first: int = 0, part: str = "0:0") -> dict[str, Any]:
    """The key under which `rllc run` would keep this cell: digests of the weights and of the text, the part, the sampler, ..."""
    c = case.chain
    sampler = SamplerSettings("sgld", c.step_size, c.localization, c.nbeta, c.chains, c.draws, c.burn_in)
    experiment = replace(parse(preset("quick")), sampler=sampler)
    weights, text = digest.of_arrays({"w": case.origin.numpy()}), digest.of_json(list(range(first, first + case.items)))
    return record_key(experiment, Cell(0, DataKey("mixture"), Part.parse(part)), weights, text)
