"""The command line: parse, call one function, print (ANCHORS, principle 16). Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import os
import sys

import tyro

from rllc.cli import care, checking, planning, reading, stages
from rllc.cli.output import print_error
from rllc.core.errors import RllcError

_EXAMPLES = """Examples:
  rllc demo                                            train a small transformer here and look at its heads
  rllc plan experiments/demo.toml                      what a run will compute, before it does
  rllc run experiments/demo.toml --out runs/demo       everything; the same command again goes on where it was
  rllc calibrate experiments/demo.toml --out runs/demo which step size, localization and nbeta to sample with
  rllc status runs/demo                                how far it is
  rllc table runs/demo --format csv > llc.csv          the numbers
  rllc compare runs/demo --across part --data code     which heads differ, with errors
  rllc validate --quick                                learning coefficients that are known exactly, estimated here
  rllc doctor runs/demo                                what is wrong in a run folder, and with --repair mend it
  rllc verify runs/demo                                compute some recorded cells again, and compare
"""

VERBS = {
    "demo": stages.demo,
    "run": stages.run,
    "corpus": stages.corpus,
    "train": stages.train,
    "import": planning.import_,
    "plan": planning.plan,
    "sample": stages.sample,
    "measure": stages.measure,
    "analyse": stages.analyse,
    "report": stages.report,
    "status": reading.status,
    "table": reading.table,
    "compare": reading.compare,
    "explain": reading.explain,
    "validate": checking.validate,
    "calibrate": planning.calibrate,
    "doctor": care.doctor,
    "verify": care.verify,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 where a check found something wrong, 2 for a user's mistake, 130 interrupted."""
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            VERBS,
            prog="rllc",
            description=f"Refined local learning coefficients: how the parts of a network develop over training.\n\n{_EXAMPLES}",
            args=arguments,
        )
    except RllcError as error:
        print_error(str(error))
        return 2
    except MemoryError as error:
        print_error(f"This takes more memory than there is ({str(error)[:200] or 'none is left'}). Ask for less at once, or take a larger machine.")
        return 2
    except KeyboardInterrupt:
        print_error("Interrupted. The same command goes on where it was.")
        return 130
    except BrokenPipeError:
        # Whoever read our output has left; leave no complaint at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code or 0


if __name__ == "__main__":
    sys.exit(main())
