"""What the records of kind "sample" hold, by name: the columns of the table and the traces. Whoever samples reads this, and needs no pandas."""

from __future__ import annotations

from typing import Literal

# column: (kind, unit or meaning); the order is that of the table
COLUMNS: dict[str, tuple[Literal["text", "count", "number"], str]] = {
    "run": ("text", "name of the run"),
    "step": ("count", "training step of the checkpoint"),
    "part": ("text", "part of the weights that was sampled"),
    "data": ("text", "data that was sampled on"),
    "evaluated_on": ("text", "data that the loss was evaluated on"),
    "sampler": ("text", "sampler"),
    "step_size": ("number", "step size ε"),
    "localization": ("number", "localization γ"),
    "nbeta": ("number", "inverse temperature nβ"),
    "chains": ("count", "chains"),
    "draws": ("count", "draws a chain"),
    "burn_in": ("count", "draws left out at the start"),
    "estimator": ("text", "estimator and its revision"),
    "llc": ("number", "paired estimate of the LLC; empty for a refused cell"),
    "stderr": ("number", "standard error of llc"),
    "ci_low": ("number", "lower end of the interval of llc"),
    "ci_high": ("number", "upper end of the interval of llc"),
    "df": ("number", "degrees of freedom of that interval"),
    "llc_unpaired": ("number", "estimate with one baseline from other batches"),
    "tilt": ("number", "term of the gradient in llc"),
    "tilt_stderr": ("number", "standard error of tilt"),
    "rhat": ("number", "split R-hat"),
    "ess": ("number", "effective sample size, draws"),
    "stein_ratio": ("number", "Stein identity over the restricted dimension"),
    "stein_expected": ("number", "what stein_ratio is at equilibrium under the prior"),
    "geweke": ("number", "Geweke's z of the chain-averaged paired series, first tenth against last half"),
    "hw_discard": ("number", "Heidelberger and Welch: share of draws to leave out before the series is stationary; empty where none is enough"),
    "hw_halfwidth": ("number", "Heidelberger and Welch: half width of the interval of the rest over its mean"),
    "raftery_lewis": ("number", "Raftery and Lewis: draws that the median takes over those of independent draws"),
    "init_loss": ("number", "loss at the checkpoint, nats per token"),
    "outcome": ("text", "what became of the cell"),
    "reason": ("text", "why, as a sentence"),
    "seconds": ("number", "seconds of computing"),
    "key": ("text", "digest of the record"),
}
TRACES: dict[str, tuple[str, ...]] = {
    "losses": ("chain", "draw"),
    "baseline": ("draw",),
    "gradient_dot": ("chain", "draw"),
    "sq_distance": ("chain", "draw"),
    "sq_gradient": ("chain", "draw"),
    "force_dot": ("chain", "draw"),
    "stein": ("chain", "draw"),
    "log_acceptance": ("chain", "draw"),
    "fixed_losses": ("chain", "draw"),
}
