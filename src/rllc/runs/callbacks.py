"""A monitor as a callback of the trainers that people use."""

from __future__ import annotations

from typing import Any

from rllc.core.errors import RllcError
from rllc.runs.monitoring import Monitor


def trainer_callback(monitor: Monitor) -> Any:
    """A `TrainerCallback` for the Trainer of transformers: looks before the first update and after each, and closes the monitor at the end.

    Raises RllcError where transformers is not installed.
    """
    try:
        from transformers import TrainerCallback
    except ImportError as error:
        raise RllcError("The Trainer's callback needs transformers.", "Run pip install 'rllc[hf]'.") from error

    class MonitorCallback(TrainerCallback):
        """Tells the monitor of every update."""

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ARG002
            monitor.step(state.global_step, model)

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ARG002
            monitor.step(state.global_step, model)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            monitor.close()

    return MonitorCallback()


def lightning_callback(monitor: Monitor, attribute: str = "model") -> Any:
    """A `Callback` for Lightning, which is told of every batch; `attribute` is where the LightningModule keeps the model, itself if it has none such.

    Raises RllcError where Lightning is not installed.
    """
    try:
        from lightning.pytorch import Callback  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise RllcError("Lightning's callback needs lightning.", "Run pip install 'rllc[lightning]'.") from error

    class MonitorCallback(Callback):
        """Tells the monitor of every update."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            monitor.step(trainer.global_step, getattr(pl_module, attribute, pl_module))

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
            monitor.step(trainer.global_step, getattr(pl_module, attribute, pl_module))

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            monitor.close()

    return MonitorCallback()
