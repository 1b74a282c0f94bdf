"""Refined local learning coefficients of the parts of a neural network (Wang et al., arXiv 2410.02984)."""

from __future__ import annotations

__version__ = "0.1.0"

# Where each name lives. They are loaded when first used (PEP 562), since most of them bring torch; `__init__.pyi` says the same to type checkers.
_HOMES = {
    "rllc.api": ("Result", "Results", "Sweep", "estimate", "sweep"),
    "rllc.core.errors": ("RllcError",),
    "rllc.runs.monitoring": ("Monitor",),
    "rllc.runs.refined": ("Mixed", "Refined"),
    "rllc.checkpoints.importing": ("import_module",),
    "rllc.core.names": ("Part",),
    "rllc.core.outcome": ("Outcome",),
    "rllc.model.shape": ("ModelShape",),
    "rllc.posterior.settings": ("ExtraChecks", "SamplerSettings", "Stopping", "Verdicts"),
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(home), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *(name for names in _HOMES.values() for name in names)})
