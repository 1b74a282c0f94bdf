"""When to save and how fast to learn: step counts of checkpoints and the learning rate of each update. Torch-free."""

from __future__ import annotations

import math

from rllc.core.errors import RllcError


def linear_steps(total: int, count: int) -> tuple[int, ...]:
    """`count` evenly spaced steps, the last of them `total`; step 0 is not among them.

    >>> linear_steps(1000, 4)
    (250, 500, 750, 1000)
    """
    _check(total, count, 1)
    return tuple(round(total * i / count) for i in range(1, count + 1))


def log_steps(total: int, count: int, start: int = 1) -> tuple[int, ...]:
    """`count` distinct steps from `start` to `total`, each about the same ratio above the one before.

    Where the ratio would move less than one step, steps follow each other and the ratio is spread over the rest.

    >>> log_steps(1000, 4)
    (1, 10, 100, 1000)
    >>> log_steps(20, 8)
    (1, 2, 3, 4, 6, 9, 14, 20)
    """
    _check(total, count, start)
    if count == 1:
        return (total,)
    exact = float(start)
    found = [start]
    while len(found) < count:
        remaining = count - len(found)
        exact = max(exact * (total / exact) ** (1 / remaining), found[-1] + 1.0)
        found.append(round(exact))
    return tuple(found)


def paper_steps() -> tuple[int, ...]:
    """The 107 checkpoints at which Wang et al. measured (METHOD 4).

    0 and 100 (2); 200 to 10,000 by 200 (50); to 20,000 by 400 (25); to 50,000 by 1,000 (30): 107 in all.

    >>> len(paper_steps())
    107
    """
    return (0, 100, *range(200, 10_001, 200), *range(10_400, 20_001, 400), *range(21_000, 50_001, 1_000))


def learning_rate(step: int, *, peak: float, total: int, warmup: int, schedule: str, floor: float) -> float:
    """The learning rate of update `step`, counted from 1.

    It rises linearly to `peak` over the first `warmup` updates, then stays ("constant"), or falls to `floor * peak` at update `total`
    along half a cosine ("cosine") or a line ("linear").

    >>> [round(learning_rate(s, peak=1.0, total=12, warmup=4, schedule="cosine", floor=0.1), 3) for s in (1, 4, 8, 12)]
    [0.25, 1.0, 0.55, 0.1]
    """
    if step <= warmup:
        return peak * step / warmup
    if schedule == "constant":
        return peak
    done = (step - warmup) / (total - warmup)
    left = 0.5 * (1 + math.cos(math.pi * done)) if schedule == "cosine" else 1 - done
    return peak * (floor + (1 - floor) * left)


def _check(total: int, count: int, start: int) -> None:
    if count < 1 or start < 1:
        raise RllcError(f"{count} checkpoints from step {start} were asked for.", "Give a positive count and a positive first step.")
    if total - start + 1 < count:
        raise RllcError(
            f"{count} distinct checkpoints do not fit between step {start} and step {total}.", "Ask for fewer checkpoints or train for longer."
        )
