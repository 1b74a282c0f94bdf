"""What is installed and what is run where torch is not: `torch_free.py dependencies` or `torch_free.py paths`, one a line."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("core", "records", "analysis", "figures", "report")


def dependencies() -> list[str]:
    """The package's requirements but torch, with the extras that its tests use."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [
        line
        for line in [*project["dependencies"], *(line for extra in ("data", "paper") for line in project["optional-dependencies"][extra])]
        if not line.startswith("torch")
    ]


def paths() -> list[str]:
    """Tests and sources of the rooms that do without torch."""
    return [f"{top}/{room}" for top in ("tests", "src/rllc") for room in ROOMS if any((ROOT / top / room).glob("*.py"))]


if __name__ == "__main__":
    print("\n".join({"dependencies": dependencies, "paths": paths}[sys.argv[1]]()))
