"""Settings of the objective: how the loss of many variants is computed, never what it is. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from rllc.core.errors import RllcError


@dataclass(frozen=True)
class EngineSettings:
    """How variants are batched.

    Args:
        chunk: most variants C computed at once; 0 lets the plan choose by `memory`.
        memory: budget of one evaluation in megabytes, from which the plan chooses the chunk.
        dtype: "float32" or "float64", of the frozen network's products.
    """

    chunk: int = 0
    memory: int = 1000
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float64"):
            raise RllcError(f"engine.dtype is {self.dtype!r}.", "Choose float32 or float64.")
        if self.chunk < 0 or self.memory < 1:
            raise RllcError("engine.chunk must not be negative and engine.memory must be at least 1 (megabyte).", "Mend the experiment file.")
