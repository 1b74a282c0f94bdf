"""How often does each claim of the paper get each verdict where the answer is known? A table: claims by worlds (see rllc.analysis.planted_evidence).

python benchmarks/claims.py                          # a quarter of an hour on one free core
python benchmarks/claims.py --worlds chance --draws 400
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict

from rllc.analysis.comparisons import VERDICTS
from rllc.analysis.planted_claims import verdict_rates
from rllc.analysis.planted_evidence import WORLDS


def main() -> None:
    """Print the table, as text or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    given = parser.parse_args()
    began = time.perf_counter()
    rows = verdict_rates(given.worlds, given.draws, given.seed)
    if given.format == "json":
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    print(f"{'claim':22}{'world':9}" + "".join(f"{name:>13}" for name in VERDICTS) + f"   of {given.draws}")
    for row in rows:
        print(f"{row.claim:22}{row.world:9}" + "".join(f"{count:13d}" for count in row.counts))
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
