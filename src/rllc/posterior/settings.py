"""Settings of the sampler and of the verdicts on what it drew. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from rllc.core.errors import RllcError

SamplerName = Literal["sgld", "leimkuhler-matthews", "rmsprop-sgld", "sgnht", "mala"]


@dataclass(frozen=True)
class SamplerSettings:
    """How to draw from the local posterior `p(w) ∝ exp{-nβ l(w) - (γ/2)‖w - w*‖² - (κ/2)‖w‖²}` (METHOD 1 and 2).

    Steps are natural in the products `ε·nβ/2` and `ε·γ/2`. A chain makes `burn_in + draws` steps from w*, one draw a step. The
    last fields belong to one sampler each, which their names tell, and mean nothing to the others.

    >>> SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=4, draws=200, burn_in=0).steps
    200

    Raises:
        RllcError: a value is out of its range, or `ε·(γ + κ) ≥ 4`, where the prior alone makes the steps unstable.
    """

    sampler: SamplerName
    step_size: float  # ε
    localization: float  # γ, strength of the Gaussian prior around w*
    nbeta: float  # nβ, the inverse temperature times the number of samples; 0 samples the prior alone
    chains: int
    draws: int  # kept, per chain
    burn_in: int  # steps left out before the first draw
    weight_decay: float = 0.0  # κ, strength of an optional Gaussian prior around zero
    bounding_box: float = 0.0  # walls at |w_i - w*_i| = this, which reflect; 0 for none
    control_variate: bool = False  # ∇l_B(w) - ∇l_B(w*) + ∇l_n(w*) in place of ∇l_B(w)
    rmsprop_decay: float = 0.99  # α of the running second moment V; 1 freezes it at the first gradient
    rmsprop_stabilizer: float = 0.1  # what is added to √V
    thermostat_diffusion: float = 0.1  # a, below 1: about the friction of the thermostat without minibatch noise

    def __post_init__(self) -> None:
        if self.sampler not in get_args(SamplerName):
            raise RllcError(f"There is no sampler {self.sampler!r}.", f"Choose one of: {', '.join(get_args(SamplerName))}.")
        if not (math.isfinite(self.step_size) and self.step_size > 0):
            raise RllcError(f"step_size must be a finite number above zero, but {self.step_size} was given.", "Set step_size to a positive number.")
        least_zero = ("localization", "nbeta", "weight_decay", "bounding_box")
        for name, value in ((name, getattr(self, name)) for name in least_zero):
            if not (math.isfinite(value) and value >= 0):
                raise RllcError(f"{name} must be a finite number, zero or more, but {value} was given.", f"Set {name} to a number of at least 0.")
        if not (self.precision or self.bounding_box):
            raise RllcError(
                "localization is 0, so nothing holds the chains near the checkpoint.", "Set localization above 0, or give a bounding_box."
            )
        if not (0 <= self.rmsprop_decay <= 1 and math.isfinite(self.rmsprop_stabilizer) and self.rmsprop_stabilizer > 0):
            raise RllcError("rmsprop_decay must lie in 0 … 1 and rmsprop_stabilizer above 0.", "Use 0.99 and 0.1, for example.")
        if not 0 < self.thermostat_diffusion < 1:
            raise RllcError(f"thermostat_diffusion must lie between 0 and 1, but {self.thermostat_diffusion} was given.", "Use 0.1, for example.")
        if self.control_variate and self.sampler == "mala":
            raise RllcError("MALA samples one fixed batch, where a control variate has nothing to do.", "Leave control_variate out.")
        # four draws are what the two batch means and the diagnostics need at the very least
        for name, value, least in (("chains", self.chains, 1), ("draws", self.draws, 4), ("burn_in", self.burn_in, 0)):
            if value != int(value) or value < least:
                raise RllcError(f"{name} must be a whole number of at least {least}, but {value} was given.", f"Set {name} to {least} or more.")
        if self.sampler != "mala" and self.largest_step * self.precision >= 4:
            raise RllcError(
                f"step_size {self.step_size:g} with localization {self.localization:g} cannot be stable: "
                f"their product is {self.largest_step * self.precision:g}, and from 4 on every chain diverges, whatever the loss.",
                f"Set step_size well below {4 / self.precision * self.step_size / self.largest_step:g}; their product is commonly 0.2.",
            )

    @property
    def precision(self) -> float:
        """γ + κ, the curvature of the priors."""
        return self.localization + self.weight_decay

    @property
    def largest_step(self) -> float:
        """ε, or what preconditioning makes of it at most."""
        return self.step_size / self.rmsprop_stabilizer if self.sampler == "rmsprop-sgld" else self.step_size

    @property
    def steps(self) -> int:
        """Steps that one chain makes; it is evaluated once more than that, the first time at w* itself."""
        return self.burn_in + self.draws


@dataclass(frozen=True)
class Verdicts:
    """Where a diagnostic becomes an outcome (DESIGN, one vocabulary of outcomes), and the confidence of intervals."""

    confidence: float = 0.90  # of the interval around λ̂, two-sided
    tilt_errors: float = 2.0  # a tilt term counts beyond this many of its own standard errors, and of λ̂'s
    tilt_share: float = 0.10  # ... and beyond this share of |λ̂|
    drift_confidence: float = 0.99  # two-sided; high, since a sweep tests hundreds of cells
    drift_share: float = 0.10  # ... and beyond this share of |λ̂|, or of the mean ‖w - w*‖²
    rhat: float = 1.1  # split R-hat of the chain-averaged series ...
    rhat_chi2: float = 6.63  # ... beyond what this quantile of χ²₁ (99 %) allows at its effective draws
    stein_share: float = 0.10  # shortfall of the Stein ratio from its expectation ...
    stein_errors: float = 3.0  # ... beyond this many of its standard errors
    ess: float = 10.0  # fewer effective draws are told
    step_share: float = 0.25  # εA/4 of the steepest direction at w* that is told; the bias there is then a third
    halving_share: float = 0.10  # change of λ̂ at half the step size that is told, of |λ̂| ...
    halving_errors: float = 2.0  # ... and beyond this many standard errors
    stiffness: float = 0.75  # εA/4 of the directions that carry the loss; there SGLD reads four times too high, and at 1 steps are unstable
    distance: float = 4.0  # times the ‖w - w*‖² that the localization allows
    excess: float = 4.0  # times the loss that equipartition allows; as many as SGLD's bias makes of it at that stiffness


@dataclass(frozen=True)
class Stopping:
    """Chains go on until every cell has its error, or the draws run out.

    The first look is after the sampler's own `draws`. A look costs nothing but is taken because of what was seen, so the error of a cell
    that stopped early is a little too small on average (`benchmarks/coverage.py` reports by how much).

    Raises:
        RllcError: a value is out of its range.
    """

    target_stderr: float = 0.0  # standard error of λ̂ to reach; 0 for no target
    relative: bool = False  # the target is a share of |λ̂|
    max_draws: int = 0  # per chain; 0 for the sampler's own draws

    def __post_init__(self) -> None:
        if not (math.isfinite(self.target_stderr) and self.target_stderr >= 0):
            raise RllcError(f"target_stderr must be a finite number, zero or more, but {self.target_stderr} was given.", "Use 0.05, for example.")
        if self.max_draws and not self.target_stderr:
            raise RllcError("max_draws is where to give up on a target_stderr, and there is none.", "Give a target_stderr, or raise draws.")
        if self.max_draws < 0 or (self.target_stderr and not self.max_draws):
            raise RllcError("A target_stderr needs max_draws, the number of draws at which to give up.", "Set max_draws to 1000, for example.")

    def reached(self, llc: float, stderr: float) -> bool:
        """Whether an estimate is as precise as asked for.

        >>> Stopping(0.05, relative=True, max_draws=400).reached(llc=-2.0, stderr=0.1)
        True
        """
        return stderr <= self.target_stderr * (abs(llc) if self.relative else 1.0)


@dataclass(frozen=True)
class ExtraChecks:
    """Diagnostics that cost sampling or gradients of their own.

    Raises:
        RllcError: a value is out of its range.
    """

    halving: bool = False  # sample again at half the step size, with twice the steps
    twin_dimension: int = 0  # parts of at most this many coordinates get the curvature twin (METHOD 3.1c), from their whole Hessian

    def __post_init__(self) -> None:
        if self.twin_dimension < 0:
            raise RllcError(f"twin_dimension must be zero or more, but {self.twin_dimension} was given.", "Use 500, for example.")
