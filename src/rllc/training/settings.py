"""Settings of training: the recipe, and when weights are kept. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from rllc.core.errors import RllcError
from rllc.training.schedule import learning_rate, linear_steps, log_steps, paper_steps

_MOST = 100_000  # checkpoints of one kind, which are counted one by one


@dataclass(frozen=True)
class CheckpointSchedule:
    """Which steps are kept: the union of the kinds below, always with step 0 and the last.

    Args:
        log: number of steps at equal ratios.
        log_from: the first of these.
        linear: number of evenly spaced steps.
        paper: the 107 steps of Wang et al. (METHOD 4), as far as training goes.
        extra: further steps.

    >>> CheckpointSchedule(log=3, linear=2, extra=(7,)).steps(100)
    (0, 1, 7, 10, 50, 100)
    """

    log: int = 0
    log_from: int = 1
    linear: int = 0
    paper: bool = False
    extra: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if max(self.log, self.linear) > _MOST:
            raise RllcError(f"training.checkpoints asks for {max(self.log, self.linear)} checkpoints.", f"Ask for at most {_MOST:,}.")
        if min(self.log, self.linear) < 0 or self.log_from < 1:
            raise RllcError("Counts of checkpoints must not be negative, and log_from must be at least 1.", "Mend training.checkpoints.")

    def steps(self, total: int) -> tuple[int, ...]:
        """The steps in order, for a training of `total` updates. Raises RllcError where the counts do not fit."""
        outside = [step for step in self.extra if not 0 <= step <= total]
        if outside:
            raise RllcError(
                f"training.checkpoints.extra names step {outside[0]}, but training runs from step 0 to {total}.",
                "Leave the step out or train for longer.",
            )
        found = {0, total, *self.extra}
        if self.log:
            found.update(log_steps(total, self.log, self.log_from))
        if self.linear:
            found.update(linear_steps(total, self.linear))
        if self.paper:
            found.update(step for step in paper_steps() if step <= total)
        return tuple(sorted(found))


@dataclass(frozen=True)
class TrainingSettings:
    """An AdamW recipe. The defaults are that of Wang et al. (METHOD 4).

    Weight decay acts on every tensor, biases, norms and embeddings too, as in the paper's TransformerLens recipe.

    Args:
        steps: number of updates.
        batch_size: sequences in an update.
        learning_rate: at its peak.
        warmup: updates over which the learning rate rises linearly.
        schedule: "constant" after warm-up, or a fall to `floor * learning_rate` along "cosine" or "linear".
        floor: fraction of the learning rate at the last update; unused by "constant".
        weight_decay: decoupled, in units of the learning rate.
        betas: decay of AdamW's moving means of gradients and squared gradients.
        eps: added to the root of the latter.
        grad_clip: greatest norm of the whole gradient; 0 does not clip.
        seed: of the initial weights.
        dtype: "float32" or "float64", of weights and moments.
        checkpoints: which steps are kept.

    Raises RllcError where a number makes no sense.
    """

    steps: int = 50_000
    batch_size: int = 100
    learning_rate: float = 1e-3
    warmup: int = 0
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    floor: float = 0.0
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    grad_clip: float = 0.0
    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    checkpoints: CheckpointSchedule = field(default_factory=CheckpointSchedule)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise RllcError(f"training.{name} is {getattr(self, name)}, but must be at least 1.", "Give a positive number.")
        if not 0 < self.learning_rate < math.inf:
            raise RllcError(f"training.learning_rate is {self.learning_rate}, but must be positive.", "Start from 1e-3.")
        if not 0 <= self.warmup <= self.steps:
            raise RllcError(
                f"training.warmup is {self.warmup}, but must lie between 0 and training.steps, which is {self.steps}.", "Shorten the warm-up."
            )
        if self.schedule not in ("constant", "cosine", "linear"):
            raise RllcError(f"training.schedule is {self.schedule!r}.", "Choose constant, cosine or linear.")
        if self.dtype not in ("float32", "float64"):
            raise RllcError(f"training.dtype is {self.dtype!r}.", "Choose float32 or float64.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise RllcError(f"training.betas are {self.betas}, but must lie from 0 up to, not including, 1.", "Start from (0.9, 0.999).")
        for name in ("weight_decay", "eps", "grad_clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise RllcError(f"training.{name} is {getattr(self, name)}, but must not be negative.", "Give 0 or a positive number.")
        if not 0 <= self.floor <= 1:
            raise RllcError(f"training.floor is {self.floor}, but is a fraction of the learning rate.", "Give a number from 0 to 1.")

    def rate(self, step: int) -> float:
        """The learning rate of update `step`, counted from 1."""
        return learning_rate(step, peak=self.learning_rate, total=self.steps, warmup=self.warmup, schedule=self.schedule, floor=self.floor)

    def checkpoint_steps(self) -> tuple[int, ...]:
        """The steps that are kept, in order, with 0 and the last."""
        return self.checkpoints.steps(self.steps)


# METHOD 4, with the checkpoints at which the paper measured.
PAPER = TrainingSettings(checkpoints=CheckpointSchedule(paper=True))

# A small model in minutes: with a quarter of the text repeating itself, induction heads form between steps 1,500 and 2,000 at d_model 128.
SMALL = replace(
    PAPER,
    steps=3_000,
    batch_size=32,
    learning_rate=5e-3,
    warmup=100,
    betas=(0.9, 0.98),
    checkpoints=CheckpointSchedule(log=10, log_from=30),
)

PRESETS = {"paper": PAPER, "small": SMALL}
