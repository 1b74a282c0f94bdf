"""`rllc validate`: every exact answer of METHOD 3 on this machine, on worker processes, with progress."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from rllc.core.errors import RllcError
from rllc.posterior.settings import SamplerName
from rllc.posterior.validation import cases as listing
from rllc.posterior.validation import validate as comparing
from rllc.posterior.validation.cases import SAMPLERS, Case, Trial
from rllc.posterior.validation.validate import Report, Row
from rllc.runs.engines.local import run_units
from rllc.runs.memory import cores
from rllc.runs.progress import Reporter

Work = tuple[str, SamplerName]  # a case by its name, and who samples it: all that a worker must be told


def validate(*, quick: bool = False, samplers: Sequence[str] = (), workers: int | None = None, quiet: bool = False) -> Report:
    """Sample the cases and compare.

    Args:
        quick: a list of a minute, with a case of every kind and every sampler.
        samplers: these alone; all of them where none is named.
        workers: processes of one thread each; as many as there are cores where not given.
        quiet: without progress.

    Raises:
        RllcError: there is no such sampler.
    """
    unknown = [name for name in samplers if name not in SAMPLERS]
    if unknown:
        raise RllcError(f"There is no sampler {unknown[0]!r}.", f"Choose among: {', '.join(SAMPLERS)}.")
    works = [work for work, (case, _) in _listed().items() if (not samplers or work[1] in samplers) and (not quick or work[1] in case.quick)]
    if not works:
        raise RllcError("The quick list has no case for these samplers.", "Leave out --quick, or name other samplers.")
    reporter = Reporter(quiet)
    rows: dict[Work, Row] = {}
    try:
        with reporter.stage("validate", len(works)) as bar:
            for work, row in run_units(_run, works, workers or cores(), 1):
                rows[work] = row
                bar.advance(1, f"{row.case}, {row.sampler}")
    finally:
        reporter.close()
    return comparing.report([rows[work] for work in works], listing.all_derived())


@lru_cache(maxsize=1)
def _listed() -> dict[Work, tuple[Case, Trial]]:
    return {(case.name, trial.settings.sampler): (case, trial) for case in listing.all_cases() for trial in case.trials}


def _run(work: Work) -> Row:
    """In a worker: cases hold functions, so they are named rather than sent."""
    return comparing.run_trial(*_listed()[work])
