"""The engines by name. Torch-free, and no engine is imported before it is wanted; settings look here for what names there are."""

from __future__ import annotations

import atexit
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from rllc.runs.engines.job import Engine
    from rllc.runs.settings import EngineSettings

# Where the class of each engine is; it is made from the engine's settings.
ENGINES = {
    "local": "rllc.runs.engines.local:LocalEngine",
    "ray": "rllc.runs.engines.on_ray:RayEngine",
}

_open: dict[Any, Engine] = {}


def check_name(name: str) -> None:
    """Raises RllcError where there is no engine of that name."""
    if name not in ENGINES:
        raise RllcError(f"There is no engine {name!r}.", f"Choose one of: {', '.join(ENGINES)}.")


def engine(settings: EngineSettings) -> Engine:
    """The engine of these settings. It stays open for further jobs, its workers with what they have loaded, until `close`.

    Raises RllcError for an unknown name, and as the engine does where it cannot be had.
    """
    if settings not in _open:
        check_name(settings.kind)
        module, name = ENGINES[settings.kind].split(":")
        _open[settings] = getattr(import_module(module), name)(settings)
    return _open[settings]


def close() -> None:
    """End every engine that is open, with its workers."""
    while _open:
        _open.popitem()[1].close()


atexit.register(close)
