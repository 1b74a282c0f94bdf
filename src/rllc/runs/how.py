"""How one call of the notebook API measures: the sampler's settings, the minibatches, the engine, in one place. Torch-free."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict, get_args

from rllc.core.errors import RllcError
from rllc.corpus.settings import Documents
from rllc.posterior.settings import ExtraChecks, SamplerName, SamplerSettings, Stopping, Verdicts
from rllc.runs.settings import Products

Road = Literal["auto", "native", "general"]
# What the paper used for its two-layer model (METHOD 2): where nothing else is known, a place to start from.
PAPERS = {"step_size": 1e-3, "localization": 200.0, "nbeta": 30.0, "chains": 4, "draws": 200, "burn_in": 0}
_LEAST = {
    "batch_size": 1,
    "origin_batches": 0,
    "control_batches": 1,
    "full_batch": 1,
    "fixed_contexts": 0,
    "share_contexts": 0,
    "chunk": 0,
    "memory": 0,
    "context": 0,
    "most_contexts": 1,
}


class Settings(TypedDict, total=False):
    """What `rllc.estimate` and `rllc.sweep` take by name; `rllc.estimate` says what each is."""

    sampler: SamplerName | SamplerSettings
    step_size: float
    localization: float
    nbeta: float
    chains: int
    draws: int
    burn_in: int
    weight_decay: float
    bounding_box: float
    control_variate: bool
    rmsprop_decay: float
    rmsprop_stabilizer: float
    thermostat_diffusion: float
    batch_size: int
    origin_batches: int
    control_batches: int
    full_batch: int
    fixed_contexts: int
    share_contexts: int
    seed: int
    stopping: Stopping | None
    checks: ExtraChecks | None
    verdicts: Verdicts | None
    road: Road
    loss: Any
    train_mode: bool
    tokenizer: Any
    column: str
    context: int
    documents: Documents
    most_contexts: int
    collate: Any
    dtype: Literal["auto", "float32", "float64"]
    device: Literal["auto", "cpu", "cuda"]
    products: Products
    chunk: int
    memory: int


@dataclass(frozen=True)
class How:
    """The settings of a call, checked; `rllc.estimate` says what each is. Raises RllcError where a value is out of its range."""

    sampler: SamplerSettings
    batch_size: int = 32
    origin_batches: int = 16
    control_batches: int = 64
    full_batch: int = 256
    fixed_contexts: int = 0
    share_contexts: int = 0
    seed: int = 0
    stopping: Stopping | None = None
    checks: ExtraChecks | None = None
    verdicts: Verdicts | None = None
    road: Road = "auto"
    loss: Any = None
    train_mode: bool = False
    tokenizer: Any = None
    column: str = ""
    context: int = 0
    documents: Documents = "packed"
    most_contexts: int = 16_384
    collate: Any = None
    dtype: Literal["auto", "float32", "float64"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    products: Products = "float32"
    chunk: int = 0
    memory: int = 1000

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise RllcError(f"{name} must be a whole number of at least {least}, but {value!r} was given.", f"Set {name} to {least} or more.")
        if 0 < self.origin_batches < 3:
            raise RllcError(f"origin_batches is {self.origin_batches}, too few for an error of the gradient.", "Give at least 3, or 0 for none.")
        choices = {"road": Road, "dtype": Literal["auto", "float32", "float64"], "device": Literal["auto", "cpu", "cuda"], "products": Products}
        choices["documents"] = Documents
        for name, kind in choices.items():
            if getattr(self, name) not in get_args(kind):
                raise RllcError(f"{name} is {getattr(self, name)!r}.", f"Choose one of: {', '.join(get_args(kind))}.")
        if self.stopping is not None and self.stopping.target_stderr and self.stopping.max_draws < self.sampler.draws:
            raise RllcError(
                f"stopping.max_draws is {self.stopping.max_draws}, but the sampler makes {self.sampler.draws} draws before the first look.",
                "Raise max_draws, or lower draws.",
            )

    @property
    def widest(self) -> int:
        """Contexts, or samples, of the largest minibatch that the chains see."""
        return max(self.full_batch if self.sampler.sampler == "mala" else self.batch_size, self.fixed_contexts)


def how_from(given: Mapping[str, Any]) -> How:
    """The settings of a call from what was given by name; what is left out is as in the paper (`PAPERS`), or as `How` has it.

    Raises RllcError for a name that is no setting, for a value out of range, and where the sampler is described twice.

    >>> how_from({"nbeta": 10.0}).sampler.nbeta
    10.0
    """
    own = {field.name for field in fields(How)} - {"sampler"}
    sampling = {field.name for field in fields(SamplerSettings)} - {"sampler"}
    for name in given:
        if name not in own | sampling | {"sampler"}:
            near = difflib.get_close_matches(name, [*sorted(own | sampling), "sampler"], 1)
            hint = f"Perhaps you meant {near[0]!r}." if near else f"The settings are sampler, {', '.join(sorted(own | sampling))}."
            raise RllcError(f"There is no setting {name!r}.", hint)
    sampler = given.get("sampler", "sgld")
    chosen = {name: value for name, value in given.items() if name in sampling}
    if not isinstance(sampler, SamplerSettings):
        sampler = SamplerSettings(sampler, **(PAPERS | chosen))
    elif chosen:
        raise RllcError(f"sampler is given as settings that say everything, and {next(iter(chosen))} beside it.", "Say it in one place.")
    return How(sampler, **{name: value for name, value in given.items() if name in own})
