"""λ̂ and its error from traces (METHOD 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # pyright: ignore[reportMissingTypeStubs]

from rllc.posterior.traces import Floats, Traces

if TYPE_CHECKING:
    from jaxtyping import Float

BATCH_MEANS = 8


@dataclass(frozen=True)
class Estimate:
    """A local learning coefficient with its error. Dimensionless: nβ times nats per token."""

    llc: float  # paired: on the minibatches, or on the fixed evaluation set where there is one
    stderr: float
    ci_low: float
    ci_high: float
    df: int  # degrees of freedom of the t interval
    llc_unpaired: float  # for parity with peers; NaN where no separate baseline was taken
    nbeta: float
    chains: int
    draws: int  # per chain


def standard_error(series: Float[Floats, "*cells chains draws"]) -> tuple[Float[Floats, "*cells"], NDArray[np.int64]]:
    """Standard error of the mean over chains and draws, and its degrees of freedom (METHOD 2, Error).

    The larger of two: the batch means of the chain-averaged series, which see autocorrelation and the minibatch noise that
    all chains share; and the spread of chain means over √chains, which sees chains that never mix. Either alone is too small
    where the other's cause rules. Covered is the randomness of the chains' noise and of the minibatches, for the stationary law of this
    sampler at this step size and this checkpoint. Not covered: the bias of the discretisation (halve ε), a burn-in that was too short (see
    the drift), which contexts a fixed evaluation set holds, and anything about other checkpoints or seeds of the training.

    There are eight batches (fewer below 16 draws), whatever the length: a batch must outlast the autocorrelation, and the t
    interval with 7 degrees of freedom pays for their small number.

    Args:
        series: any number per chain and draw: paired losses of a cell, or the difference of two cells' on shared minibatches.
    """
    of_chains, batches = means_of(series)
    chains, number = of_chains.shape[-1], batches.shape[-1]
    stderr = np.asarray(batches.std(axis=-1, ddof=1) / np.sqrt(number))
    df = np.full(stderr.shape, number - 1, np.int64)
    if chains > 1:
        spread = of_chains.std(axis=-1, ddof=1) / np.sqrt(chains)
        df = np.where(spread > stderr, chains - 1, df)
        stderr = np.asarray(np.maximum(stderr, spread))
    return stderr, df


def means_of(series: Float[Floats, "*cells chains draws"]) -> tuple[Float[Floats, "*cells chains"], Float[Floats, "*cells batches"]]:
    """Means of the chains, and of eight batches of draws averaged over chains: all that `standard_error` looks at, of a cell or of a difference."""
    draws, means = series.shape[-1], series.mean(axis=-2)
    number = min(BATCH_MEANS, draws // 2)
    length = draws // number
    return series.mean(axis=-1), means[..., draws - number * length :].reshape(*means.shape[:-1], number, length).mean(axis=-1)


def t_quantile(df: NDArray[np.int64] | int, confidence: float) -> Floats:
    """How many standard errors a two-sided interval of this confidence reaches.

    >>> round(float(t_quantile(7, 0.90)), 3)
    1.895
    """
    return np.asarray(stdtrit(df, (1 + confidence) / 2), np.float64)


def paired(traces: Traces) -> Float[Floats, "P chains draws"]:
    """`nβ (l_B(w_t) - l_B(w*))` on the same minibatch B, for every kept draw; its mean is λ̂ (METHOD 2, Paired estimate)."""
    difference = traces.losses - traces.baseline[:, None, :]
    return traces.settings.nbeta * difference[..., traces.kept]


def on_fixed_set(traces: Traces) -> Float[Floats, "P chains draws"] | None:
    """`nβ (l(w_t) - l(w*))` on the fixed evaluation set, for every kept draw; None where none was asked for."""
    if traces.fixed_losses is None or traces.fixed_baseline is None:
        return None
    return traces.settings.nbeta * (traces.fixed_losses[..., traces.kept] - traces.fixed_baseline[:, None, None])


def series(traces: Traces) -> Float[Floats, "P chains draws"]:
    """What λ̂ is the mean of: the fixed evaluation set's series where there is one, the paired series otherwise."""
    fixed = on_fixed_set(traces)
    return paired(traces) if fixed is None else fixed


def unpaired(traces: Traces, init_loss: Float[Floats, " P"]) -> Float[Floats, " P"]:
    """λ̂ as peers take it: losses of w_burn_in … w_{steps-1}, w* among them without burn-in, minus one loss on other minibatches."""
    losses = traces.losses[..., traces.kept - 1]
    return traces.settings.nbeta * (losses.mean(axis=(-2, -1)) - init_loss)


def estimate(traces: Traces, *, confidence: float = 0.90, init_loss: Floats | None = None) -> list[Estimate]:
    """λ̂ of every part. Whether a cell may have a number at all is `result.assess`'s to say: here a NaN stays one.

    Args:
        traces: of P parts.
        confidence: of the two-sided interval.
        init_loss: [P] mean loss at w* on separate minibatches, for `llc_unpaired`.
    """
    values, settings = series(traces), traces.settings
    llc = values.mean(axis=(-2, -1))
    stderr, df = standard_error(values)
    reach = t_quantile(df, confidence) * stderr
    parity = np.full_like(llc, np.nan) if init_loss is None else unpaired(traces, init_loss)
    return [
        Estimate(
            llc=float(llc[p]),
            stderr=float(stderr[p]),
            ci_low=float(llc[p] - reach[p]),
            ci_high=float(llc[p] + reach[p]),
            df=int(df[p]),
            llc_unpaired=float(parity[p]),
            nbeta=settings.nbeta,
            chains=settings.chains,
            draws=settings.draws,
        )
        for p in range(traces.parts)
    ]
