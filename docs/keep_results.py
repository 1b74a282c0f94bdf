"""Keep what a finished run found as small files beside the documentation: `python docs/keep_results.py RUN NAME` writes docs/results/NAME.

Kept are the page's words, the verdicts on the claims, the table of cells, what the analysis found as numbers, what the run was made with, and some
of its figures.
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

FOLDER = Path(__file__).resolve().parent / "results"
COLUMNS = ("step", "data", "part", "llc", "stderr", "ci_low", "ci_high", "rhat", "ess", "stein_ratio", "init_loss", "outcome")
DIGITS = 5


def rounded(value: Any) -> Any:
    """Every number to `DIGITS` digits: what is kept is to be read and drawn, not to be computed with."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


def keep(run: Path, place: Path, figures: list[str]) -> None:
    """Copy what is kept of a run into `place`, which is made anew."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "figures").mkdir(parents=True)
    words = (run / "report.md").read_text(encoding="utf-8")
    for name in figures:
        shutil.copy(run / "figures" / f"{name}.png", place / "figures")
        # Under the sentence of the figure, the figure.
        words = re.sub(rf"^(- \*\*.*\(`{name}`\)\\\n.*)$", rf"\1\n\n  ![{name}](figures/{name}.png)", words, flags=re.M)
    (place / "report.md").write_text(words, encoding="utf-8")
    table = pd.read_csv(run / "table.csv")
    table[list(COLUMNS)].to_csv(place / "table.csv", index=False, float_format=f"%.{DIGITS}g")
    findings = json.loads((run / "findings.json").read_text(encoding="utf-8"))
    text = json.dumps(rounded(findings), separators=(",", ":"), ensure_ascii=False)
    (place / "findings.json.xz").write_bytes(lzma.compress(text.encode(), preset=9))
    asked = (run / "experiment.toml").read_text(encoding="utf-8")
    (place / "experiment.toml").write_text(re.sub(r'^path = "/.*"$', 'path = "text"', asked, flags=re.M), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("name", help="what the results are called")
    parser.add_argument("--figures", nargs="*", default=[], help="names of figures to keep as pictures")
    arguments = parser.parse_args()
    keep(arguments.run, FOLDER / arguments.name, arguments.figures)
