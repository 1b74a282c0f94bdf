"""How often does the analysis miss a planted answer? Groups of heads, stages and partings under growing noise, as a table.

python benchmarks/planted.py                       # a few minutes on one core
python benchmarks/planted.py --draws 400 --noise 0.02 0.1 --criterion gap
python benchmarks/planted.py --methods kmeans dtw kshape --draws 20   # needs pip install 'rllc[cluster]'
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict

from rllc.analysis.planted import failure_rates
from rllc.analysis.settings import AnalysisSettings


def main() -> None:
    """Print the table, as text or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.01, 0.03, 0.05, 0.1], help="errors over the range of a curve")
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--resamples", type=int, default=20, help="curves redrawn within their errors, inside each analysis")
    parser.add_argument("--criterion", choices=("silhouette", "gap", "stability"), default="silhouette")
    parser.add_argument("--methods", nargs="+", choices=("kmeans", "hierarchical", "dtw", "kshape"), default=["kmeans", "hierarchical"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    given = parser.parse_args()
    began = time.perf_counter()
    rows = failure_rates(given.noise, given.draws, AnalysisSettings(resamples=given.resamples, criterion=given.criterion), given.seed, given.methods)
    if given.format == "json":
        print(json.dumps([asdict(row) | {"rate": row.rate} for row in rows], indent=1))
        return
    print(f"{'analysis':26}{'noise':>7}{'failed':>9}{'of':>6}   95 % interval of the rate")
    for row in rows:
        print(f"{row.analysis:26}{row.noise:7.2f}{row.failed:9d}{row.draws:6d}   {row.low:.3f} to {row.high:.3f}")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
