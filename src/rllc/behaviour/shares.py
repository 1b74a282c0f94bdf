"""Which classes of tokens a head's ablation hurts most: shares among its most affected predictions, with intervals over contexts. Numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rllc.behaviour.contexts import ratio_and_stderr
from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ClassShares:
    """Axes: H heads, F fractions, K classes; every interval is a pair [..., 2], low and high.

    Args:
        fractions: [F] of the counted predictions that are looked at, those whose loss the ablation raises most.
        shares: [H, F, K] share of each class among them; classes may overlap, so they need not sum to 1. NaN where no loss rises.
        interval: [H, F, K, 2].
        base: [K] share of each class among all counted predictions.
        base_interval: [K, 2].
        excess_interval: [H, F, K, 2] of `shares - base`, drawn together: the class is the head's where it lies above 0.
        looked_at: [H, F] how many predictions these were: the fraction, or fewer where the loss of fewer rises.
    """

    fractions: Floats
    shares: Float[Floats, "H F K"]
    interval: Float[Floats, "H F K 2"]
    base: Float[Floats, " K"]
    base_interval: Float[Floats, "K 2"]
    excess_interval: Float[Floats, "H F K 2"]
    looked_at: NDArray[np.int64]


def class_shares(
    effects: Float[Floats, "H B S"],
    flags: Bool[Flags, "K B S"],
    counted: Bool[Flags, "B S"],
    rng: np.random.Generator,
    fractions: Sequence[float] = (0.001, 0.01, 0.05),
    draws: int = 400,
    level: float = 0.95,
) -> ClassShares:
    """Shares of classes among each head's most affected predictions.

    `effects` are the rises in loss, in nats, when a head is ablated, `flags` and `counted` as in `TokenClasses`. For each fraction f the f · N
    predictions of largest rise are taken (rounded up, N counted ones), as far as their rise is positive. Intervals are percentiles of a bootstrap
    over contexts, not tokens, since tokens of a context are no independent evidence: each draw takes contexts with replacement and chooses the
    most affected predictions anew.

    Raises RllcError where arrays hold numbers that are not finite, nothing is counted, contexts are fewer than two, or fractions make no sense.
    """
    if len(counted) < 2 or not counted.any():
        raise RllcError(f"Shares over {len(counted)} contexts with {counted.sum()} predictions have no interval.", "Give two contexts or more.")
    if not np.isfinite(effects).all():
        raise RllcError("The effects of ablation hold numbers that are not finite.", "Look at the weights of this checkpoint.")
    if not fractions or not 0 < min(fractions) <= max(fractions) <= 1 or draws < 2 or not 0 < level < 1:
        raise RllcError(
            f"Fractions {list(fractions)}, {draws} draws and an interval of {level} were asked for.",
            "Use fractions and an interval between 0 and 1, and two draws or more.",
        )
    context = np.nonzero(counted)[0]
    members = flags[:, counted]  # [K, N]
    wanted = np.array(fractions, dtype=np.float64)
    # Row 0 is the contexts as they are; the others say how often a draw took each.
    times = np.concatenate([np.ones((1, len(counted)), np.int64), rng.multinomial(len(counted), np.full(len(counted), 1 / len(counted)), draws)])
    sizes = np.bincount(context, minlength=len(counted))
    by_context = np.stack([np.bincount(context, member, len(counted)) for member in members], 1)
    totals = times @ sizes
    bases = (times @ by_context) / np.maximum(totals, 1)[:, None]  # [1 + draws, K]
    shares = np.empty((1 + draws, len(effects), len(wanted), len(flags)))
    looked_at = np.empty((len(effects), len(wanted)), np.int64)
    for h, effect in enumerate(effects[:, counted]):
        order = np.argsort(-effect, kind="stable")[: np.count_nonzero(effect > 0)]
        weights, chosen = context[order], members[:, order]
        for d, (time, total) in enumerate(zip(times, totals, strict=True)):
            shares[d, h], reached = _top(time[weights], chosen, np.ceil(wanted * total - 1e-9))
            if d == 0:
                looked_at[h] = reached
    ends = (0.5 - level / 2, 0.5 + level / 2)

    def interval(values: Floats) -> Floats:
        """Percentiles over the draws in which the head raised any loss; NaN where in none."""
        out = np.full((*values.shape[1:], 2), np.nan)
        defined = ~np.isnan(values).all(0)
        out[defined] = np.nanquantile(values[:, defined], ends, 0).T
        return out

    return ClassShares(
        wanted,
        shares[0],
        interval(shares[1:]),
        bases[0],
        interval(bases[1:]),
        interval(shares[1:] - bases[1:, None, None]),
        looked_at,
    )


def effects_by_depth(
    effects: Float[Floats, "H B S"], closing: Bool[Flags, "B S"], depth: Int[Ints, "B S"], depths: int = 3
) -> tuple[Float[Floats, "H D"], Float[Floats, "H D"], Float[Floats, " D"]]:
    """Mean rise of the loss over closing brackets and quotes by how many are open before them, in nats (METHOD 5, appendix).

    Args:
        effects: rise of every prediction's loss, by head.
        closing: predictions that close something.
        depth: brackets and quotations open before each; `depths` stands for as many or more.

    Returns the means for 1, 2 … `depths` open, their standard errors over contexts, and how many predictions each is of; NaN where there are none.
    """
    members = np.stack([closing & (np.minimum(depth, depths) == d) for d in range(1, depths + 1)]).astype(np.float64)
    return *ratio_and_stderr(np.einsum("hbs,dbs->hdb", effects, members), members.sum(2)[None]), members.sum((1, 2))


def _top(times: NDArray[np.int64], members: Flags, sizes: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Shares [F, K] among the first `sizes` of ordered predictions that count `times` each, and how many those are."""
    reached = np.cumsum(times)
    have = np.minimum(sizes, reached[-1] if len(reached) else 0)
    stop = np.searchsorted(reached, have)  # the last prediction that is needed, perhaps not all its times
    shares = np.full((len(sizes), len(members)), np.nan)
    for f, (size, last) in enumerate(zip(have, stop, strict=True)):
        if size > 0:
            taken = times[: last + 1].astype(np.float64)
            taken[-1] -= reached[last] - size
            shares[f] = members[:, : last + 1] @ taken / size
    return shares, have.astype(np.int64)
