"""Sampling some parts from beginning to end: what is known at w*, the chains, their prolongation, the verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rllc.core.errors import RllcError
from rllc.posterior.chains import Chains
from rllc.posterior.curvature import twin
from rllc.posterior.diagnostics import Extras
from rllc.posterior.estimate import series, standard_error
from rllc.posterior.origin import gradient_at_origin, mean_gradient
from rllc.posterior.protocol import Objective, Originated
from rllc.posterior.result import Result, assess
from rllc.posterior.settings import ExtraChecks, SamplerSettings, Stopping, Verdicts
from rllc.posterior.shares import Shares, joined_shares
from rllc.posterior.traces import Floats, OriginGradient, Traces, joined

if TYPE_CHECKING:
    from jaxtyping import Float

Snapshot = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Minibatches:
    """All the data that sampling takes, each kind independent of the others.

    Args:
        sample: for the chains, one an evaluation, in order.
        origin: n ≥ 3 for gradient, curvature and loss at w*; without them neither tilt nor the unpaired estimate is known.
        control: for ∇l_n(w*), where the settings ask for the control variate.
        fixed: one batch to evaluate every draw on, in place of its own minibatch.
        halving: for the chains at half the step size, where that check is asked for.
        elsewhere: of other data by name, one an evaluation each, on which every draw is evaluated too.
        probe: batches whose predictions' shares of λ̂ are wanted.
    """

    sample: Iterable[Any]
    origin: Iterable[Any] = ()
    control: Iterable[Any] = ()
    fixed: Any = None
    halving: Iterable[Any] = ()
    elsewhere: Mapping[str, Iterable[Any]] = field(default_factory=dict[str, Iterable[Any]])
    probe: Sequence[Any] = ()


@dataclass(frozen=True)
class Earlier:
    """Segments that were drawn before, of all the parts of a call, and where their chains stood; without a snapshot they start again at w*.

    `elsewhere` is what they were evaluated on besides, by the names of the call's minibatches of other data.
    """

    traces: Traces
    snapshot: Snapshot | None = None
    elsewhere: Mapping[str, Traces] = field(default_factory=dict[str, Traces])


@dataclass(frozen=True)
class Sampled:
    """What became of each of P parts. Parts that stopped at their target have fewer draws than others."""

    traces: tuple[Traces, ...]  # each with P = 1
    results: tuple[Result, ...]
    origin: OriginGradient | None
    snapshots: tuple[Snapshot, ...]  # where the chains of each part stand, arrays [1, chains, ...]
    elsewhere: tuple[Mapping[str, Traces], ...] = ()  # of each part, by name of other data: its traces with the losses and the baseline there
    shares: tuple[Shares, ...] = ()  # of each part, P = 1, over the draws of this call; none without a probe


def sample(
    objective: Originated[Any],
    batches: Minibatches | Iterable[Any],
    settings: SamplerSettings,
    *,
    noise_seeds: Sequence[Sequence[int]],
    origin_batches: Iterable[Any] = (),
    stopping: Stopping | None = None,
    checks: ExtraChecks | None = None,
    verdicts: Verdicts | None = None,
    earlier: Earlier | None = None,
    narrow: Callable[[Sequence[int]], Originated[Any]] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Sampled:
    """Sample all chains of P parts around w* on shared minibatches, and say what came of it (METHOD 2).

    Args:
        objective: the loss; its `origin` holds the parts' tensors at w*, [P, ...].
        batches: the minibatches of every purpose, or those of the chains alone.
        settings: of the sampler.
        noise_seeds: one integer a chain, [P][chains].
        origin_batches: the same as `Minibatches(origin=...)`, for who gives the chains' minibatches alone.
        stopping: go on until every part's error is small enough. A part that failed is not prolonged.
        checks: what else to compute.
        verdicts: thresholds.
        earlier: what these parts' chains have drawn before; `settings.draws` then counts those draws too.
        narrow: the loss of some of the parts alone, by their places; where given, parts that are done cost nothing more.
        on_step: told (evaluations done, evaluations in all) of each stretch.

    Raises:
        RllcError: the part cannot be sampled, or minibatches ran out.
    """
    data = batches if isinstance(batches, Minibatches) else Minibatches(batches, origin_batches)
    stopping, checks = stopping or Stopping(), checks or ExtraChecks()
    start = objective.origin
    at_origin = list(data.origin)
    origin = gradient_at_origin(objective, start, at_origin) if at_origin else None
    control = mean_gradient(objective, start, data.control) if settings.control_variate else None

    def assessed(traces: Traces, p: int, extras: Extras | None = None) -> Result:
        return assess(traces, None if origin is None else origin.part(p), verdicts, extras)[0]

    chains = Chains(objective, start, settings, noise_seeds, control=control, fixed=data.fixed, elsewhere=data.elsewhere, probe=data.probe)
    shares: list[list[Shares]] = [[] for _ in range(chains.parts)]
    seen: list[dict[str, list[Traces]]] = [{name: [] for name in data.elsewhere} for _ in range(chains.parts)]
    pieces: list[list[Traces]] = [[] for _ in range(chains.parts)]
    results: list[Result | None] = [None] * chains.parts
    done, wanted = 0, settings.draws
    if earlier is not None and earlier.elsewhere.keys() != data.elsewhere.keys():
        raise RllcError("What was drawn before was not evaluated on the same other data.", "Sample anew.")
    if earlier is not None:
        seen = [{name: [traces.part(p)] for name, traces in earlier.elsewhere.items()} for p in range(chains.parts)]
        pieces = [[earlier.traces.part(p)] for p in range(chains.parts)]
        results = [assessed(part, p) for p, (part,) in enumerate(pieces)]
        # whichever has fewest: where it was evaluated elsewhere may have been asked for later
        done = min(traces.settings.draws for traces in (earlier.traces, *earlier.elsewhere.values()))
        wanted = max(settings.draws - done, 4) if settings.draws > done else _further(done, stopping, results)
        if earlier.snapshot is not None:
            chains.restore(earlier.snapshot, earlier.traces.losses.shape[-1])
    snapshots: list[Snapshot] = [{} for _ in pieces]
    stream = iter(data.sample)
    active: list[int] = list(range(chains.parts))
    while True:
        fresh = settings.burn_in + 1 if chains.evaluations == 0 else 0
        traces = chains.advance(stream, fresh + wanted, on_step)
        done += wanted
        standing = chains.snapshot()
        for place, p in enumerate(active):
            pieces[p].append(traces.part(place))
            for name, other in chains.seen_elsewhere.items():
                seen[p][name].append(other.part(place))
            if chains.shares is not None:
                shares[p].append(chains.shares.part(place))
            snapshots[p] = {name: array[place : place + 1] for name, array in standing.items()}
            results[p] = assessed(joined(pieces[p]), p)
        going = [place for place, p in enumerate(active) if _unfinished(results[p], done, stopping)]
        if not going:
            break
        wanted = _further(done, stopping, [results[active[place]] for place in going])
        if narrow is not None and len(going) < len(active):
            active = [active[place] for place in going]
            chains = chains.kept(narrow(active), going)
    whole = tuple(joined(part) for part in pieces)
    extras = _extras(objective, start, data, at_origin, settings, checks, noise_seeds, control, whole)
    final = tuple(assessed(traces, p, extras.part(p)) for p, traces in enumerate(whole))
    elsewhere = tuple({name: joined(parts) for name, parts in of_part.items()} for of_part in seen)
    by_token = tuple(joined_shares(of_part) for of_part in shares if of_part)
    return Sampled(whole, final, origin, tuple(snapshots), elsewhere, by_token)


def _unfinished(result: Result | None, done: int, stopping: Stopping) -> bool:
    if not stopping.target_stderr or done >= stopping.max_draws or result is None or result.estimate is None:
        return False
    return not stopping.reached(result.estimate.llc, result.estimate.stderr)


def _further(done: int, stopping: Stopping, results: Sequence[Result | None]) -> int:
    """Draws to add: what the worst cell wants if its error falls with the root of the draws, at least a quarter more and at most as many again.

    Few looks at growing lengths: each look is another chance to stop on an error that is small by luck.
    """
    wanted = done
    for result in results:
        if result is not None and result.estimate is not None:
            goal = stopping.target_stderr * (abs(result.estimate.llc) if stopping.relative else 1.0)
            wanted = max(wanted, math.inf if goal == 0 else done * (result.estimate.stderr / goal) ** 2)
    more = min(max(wanted - done, done / 4), done)
    return max(4, min(math.ceil(more), stopping.max_draws - done))


def _extras(
    objective: Objective[Any],
    start: Mapping[str, Tensor],
    data: Minibatches,
    at_origin: Sequence[Any],
    settings: SamplerSettings,
    checks: ExtraChecks,
    noise_seeds: Sequence[Sequence[int]],
    control: Mapping[str, Tensor] | None,
    whole: Sequence[Traces],
) -> Extras:
    change, stderr, curved = None, None, None
    if checks.halving:
        finer = replace(settings, step_size=settings.step_size / 2, burn_in=2 * settings.burn_in, draws=2 * settings.draws)
        halved = Chains(objective, start, finer, noise_seeds, control=control, fixed=data.fixed).advance(iter(data.halving), finer.steps + 1)
        before, after = np.concatenate([_mean(traces) for traces in whole], axis=1), _mean(halved)
        # other minibatches, and noise that does other things: as good as independent
        change, stderr = after[0] - before[0], np.hypot(after[1], before[1])
    dimension = sum(math.prod(tensor.shape[1:]) for tensor in start.values())
    if checks.twin_dimension >= dimension and at_origin:
        curved = twin(objective, start, at_origin, settings)
    return Extras(change, stderr, curved)


def _mean(traces: Traces) -> Float[Floats, "2 P"]:
    """λ̂ and its standard error."""
    values = series(traces)
    return np.stack([values.mean(axis=(-2, -1)), standard_error(values)[0]])
