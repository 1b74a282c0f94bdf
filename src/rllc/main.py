"""The command line: parse, call one function, print (ANCHORS, principle 16). Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import sys
import traceback
from difflib import get_close_matches

import tyro

from rllc.cli import care, checking, planning, reading, stages
from rllc.cli.output import print_error, write_error
from rllc.cli.signals import at_the_end, in_order
from rllc.core.errors import RllcError
from rllc.core.exit_codes import ExitCode, listed
from rllc.core.files import refusal
from rllc.core.streams import goes_nowhere, has_left, standing

_EXAMPLES = """Examples:
  rllc demo                                            train a small transformer here and look at its heads
  rllc plan experiments/demo.toml                      what a run will compute, before it does
  rllc run experiments/demo.toml --out runs/demo       everything; the same command again goes on where it was
  rllc calibrate experiments/demo.toml --out runs/demo which step size, localization and nbeta to sample with
  rllc status runs/demo                                how far it is, also from another terminal; with --watch 2 again and again
  rllc table runs/demo --format csv > llc.csv          the numbers
  rllc compare runs/demo --across part --data code     which heads differ, with errors
  rllc validate --quick                                learning coefficients that are known exactly, estimated here
  rllc doctor runs/demo                                what is wrong in a run folder, and with --repair mend it
  rllc verify runs/demo                                compute some recorded cells again, and compare
"""

_CODES = f"Exit codes:\n{listed()}\n"

# With what the parsing of arguments and a signal end this process.
_ENDS = (ExitCode.DONE, ExitCode.MISTAKE, ExitCode.TERMINATED)

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
    """Run the command line; returns the exit code, one of `ExitCode`. Raises SystemExit with such a code for --help, wrong arguments and SIGTERM."""
    given = sys.argv[1:] if arguments is None else arguments
    with in_order(), standing():
        try:
            _check_verb(given)
            code = tyro.extras.subcommand_cli_from_dict(
                VERBS,
                prog="rllc",
                description=f"Refined local learning coefficients: how the parts of a network develop over training.\n\n{_EXAMPLES}\n{_CODES}",
                args=arguments,
            )
        except SystemExit as error:
            if error.code == ExitCode.TERMINATED:
                print_error("Ended by a SIGTERM. The same command goes on where it was.")
            if error.code in (None, *_ENDS):
                if not _came_out() and not error.code:
                    raise SystemExit(ExitCode.MISTAKE) from error
                raise
            _tell(error)  # some library's
            return ExitCode.FAULT
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, BrokenPipeError) and has_left(sys.stdout):  # and no other pipe is broken, such as one to a worker
                goes_nowhere(sys.stdout)
                return ExitCode.DONE
            _tell(error)
            _came_out()
            return ExitCode.of(error)
        if not _came_out():
            return ExitCode.MISTAKE
    return code or ExitCode.DONE


def _check_verb(arguments: list[str]) -> None:
    """Raises SystemExit for a verb that there is not, as for other wrong arguments; the parser would take it for an option of some verb."""
    verb = arguments[0] if arguments else ""
    if verb and not verb.startswith("-") and verb not in VERBS:
        near = get_close_matches(verb, VERBS, 1)
        print_error(f"There is no verb {verb!r}. {f'Perhaps you meant {near[0]!r}.' if near else '`rllc --help` lists them.'}")
        raise SystemExit(ExitCode.MISTAKE)


def _came_out() -> bool:
    """Whether the last of the output came out, or nobody reads it; otherwise it is told, and nothing of it waits for the end of this process."""
    try:
        if not has_left(sys.stdout):
            sys.stdout.flush()
            return True
    except BrokenPipeError:
        pass  # it left just now
    except RllcError as error:
        print_error(str(error))
        return False
    goes_nowhere(sys.stdout)
    return True


def _tell(error: BaseException) -> None:
    """What ended the command, on standard error."""
    if isinstance(error, RllcError) or refusal(error):
        print_error(str(refusal(error) or error))
    elif isinstance(error, MemoryError):
        print_error(f"This takes more memory than there is ({str(error)[:200] or 'none is left'}). Ask for less at once, or take a larger machine.")
    elif isinstance(error, KeyboardInterrupt):
        print_error("Interrupted. The same command goes on where it was.")
    else:
        write_error("".join(traceback.format_exception(error)))
        print_error("This is a fault of rllc itself. Please report it with the lines above; what was finished is kept.")


def program() -> int:
    """`main`, of a process that ends with it."""
    code = main()
    at_the_end(code)
    return code


if __name__ == "__main__":
    sys.exit(program())
