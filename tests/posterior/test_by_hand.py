"""Every step of every sampler, written out once more."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from chain_toys import toy

from rllc.posterior.chains import run_chains
from rllc.posterior.noise import Noise
from rllc.posterior.protocol import Evaluation, Tensors
from rllc.posterior.quadratic import MinibatchNoise, Quadratic
from rllc.posterior.settings import SamplerName, SamplerSettings

SAMPLERS = get_args(SamplerName)
PAPER = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=3, draws=8, burn_in=2)


def test_records_and_steps_are_those_of_a_loop_by_hand() -> None:
    """All evaluations of one chain, written out from METHOD 2."""
    for sampler in SAMPLERS:
        check_by_hand(sampler)


EPS, GAMMA, NBETA = 1e-4, 200.0, 30.0


def kicked(sampler: str, t: int, memory: dict[str, Any], gradient: torch.Tensor, pull: torch.Tensor, xi: torch.Tensor) -> torch.Tensor:
    """w_{t+1} - w_t of each sampler in its own words; `memory` is what it carries along. MALA accepts all these small steps."""
    if sampler in ("sgld", "mala"):
        return -EPS / 2 * pull + EPS**0.5 * xi
    if sampler == "leimkuhler-matthews":
        return -EPS / 2 * pull + EPS**0.5 * (memory["xi"] + xi) / 2
    if sampler == "rmsprop-sgld":
        memory["V"] = gradient**2 if t == 0 else 0.9 * memory["V"] + 0.1 * gradient**2
        scale = 1 / (1.5 + memory["V"] ** 0.5)
        return -EPS / 2 * scale * pull + (EPS * scale) ** 0.5 * xi
    if t == 0:
        memory |= {"u": (EPS / 1.75) ** 0.5 * memory["xi"], "alpha": torch.tensor(0.25, dtype=torch.float64)}
    alpha = memory["alpha"]
    memory["u"] = (1 - alpha) * memory["u"] - EPS / 2 * pull + (EPS * 0.25) ** 0.5 * xi
    memory["alpha"] = alpha + 0.25**2 * ((2 - alpha) * (memory["u"] @ memory["u"]) / (len(xi) * EPS) - 1)
    return memory["u"]


def check_by_hand(sampler: SamplerName) -> None:
    settings = replace(
        PAPER, sampler=sampler, step_size=EPS, chains=1, draws=4, burn_in=0, rmsprop_decay=0.9, rmsprop_stabilizer=1.5, thermostat_diffusion=0.25
    )
    h, g = torch.linspace(1, 60, 20, dtype=torch.float64), torch.linspace(-1, 1, 20, dtype=torch.float64)
    w_star = torch.linspace(2, 3, 20, dtype=torch.float64)
    objective = Quadratic({"w": w_star[None]}, {"w": h[None]}, {"w": g[None]}, offset_noise=0.5, constant=2.0)
    traces = run_chains(objective, objective.origin, range(5), settings, [[11]])
    noise = Noise([11], 20, torch.float64, torch.device("cpu"))
    memory: dict[str, Any] = {"xi": noise.draw().normal[0]}
    w = w_star.clone()
    for t in range(5):
        v, batch = w - w_star, 0 if sampler == "mala" else t
        gradient = g + h * v
        pull = NBETA * gradient + GAMMA * v
        expected = {
            "losses": 2.0 + objective.prepare(batch).offset[0] + (g * v + h * v * v / 2).sum(),
            "gradient_dot": v @ gradient,
            "sq_distance": v @ v,
            "sq_gradient": gradient @ gradient,
            "force_dot": v @ pull,
        }
        if sampler == "sgld":
            expected["stein"] = EPS / 4 * pull @ pull
        elif sampler == "leimkuhler-matthews":
            expected["stein"] = EPS / 4 * (pull @ pull - GAMMA * 20 - 2 * NBETA / EPS**0.5 * memory["xi"] @ gradient)
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(traces, name)[0, 0, t], float(value), rtol=1e-9, atol=1e-12, err_msg=f"{sampler} {name}")
        np.testing.assert_allclose(traces.baseline[0, t], 2.0 + float(objective.prepare(batch).offset[0]))
        xi = noise.draw().normal[0]
        w = w + kicked(sampler, t, memory, gradient, pull, xi)
        memory["xi"] = xi
        if sampler == "rmsprop-sgld":
            scale = 1 / (1.5 + memory["V"] ** 0.5)
            np.testing.assert_allclose(traces.stein[0, 0, t], float(EPS / 4 * pull @ (scale * pull)))


def test_the_metropolis_ratio_is_that_of_the_densities() -> None:
    """`U - U' + log q(w|w') - log q(w'|w)` with the Gaussian densities of SGLD's step, written out."""
    settings = replace(PAPER, step_size=EPS, chains=1, draws=6, burn_in=0, weight_decay=50.0)
    objective = toy(parts=1, dtype=torch.float64)
    objective = replace(objective, offset_noise=0.0, stretch_noise=0.0, gradient_noise={})
    path: list[torch.Tensor] = []

    class Watched(Quadratic):
        def evaluate(self, variants: Tensors, context: MinibatchNoise, *, gradients: bool = True) -> Evaluation:
            path.append(torch.cat([tensor.detach().flatten() for tensor in variants.values()]))
            return super().evaluate(variants, context, gradients=gradients)

    watched = Watched(**{f.name: getattr(objective, f.name) for f in fields(objective)})
    traces = run_chains(watched, watched.origin, range(7), settings, [[3]])
    w_star, h, g = (
        torch.cat([d["a"].flatten(), d["b"].flatten()])
        for d in (objective.origin, objective.curvature, objective.gradient | {"b": torch.zeros(1, 7, dtype=torch.float64)})
    )

    def potential(w: torch.Tensor) -> torch.Tensor:
        v = w - w_star
        return NBETA * (g * v + h * v * v / 2).sum() + GAMMA / 2 * v @ v + 25.0 * w @ w

    def log_q(to: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
        v = of - w_star
        mean = of - EPS / 2 * (NBETA * (g + h * v) + GAMMA * v + 50.0 * of)
        return -((to - mean) @ (to - mean)) / (2 * EPS)

    assert np.isnan(traces.log_acceptance[0, 0, 0])
    for t in range(1, 7):
        ratio = potential(path[t - 1]) - potential(path[t]) + log_q(path[t - 1], path[t]) - log_q(path[t], path[t - 1])
        np.testing.assert_allclose(traces.log_acceptance[0, 0, t], float(ratio), rtol=1e-6, atol=1e-8)
