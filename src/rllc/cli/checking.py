"""Whether the estimator says what is known exactly."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro

from rllc.cli.arguments import Quiet
from rllc.cli.output import print_text
from rllc.core.exit_codes import ExitCode
from rllc.posterior.settings import SamplerName


def validate(
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="A case of every kind and every sampler, in a minute.")] = False,
    samplers: Annotated[tuple[SamplerName, ...], tyro.conf.arg(help="These samplers alone; otherwise all.")] = (),
    format: Annotated[Literal["table", "json"], tyro.conf.arg(help="Format of the answer.")] = "table",  # noqa: A002
    workers: Annotated[int | None, tyro.conf.arg(help="Sampling processes; otherwise one a core.")] = None,
    quiet: Quiet = False,
) -> int:
    """Estimate learning coefficients that are known exactly, and compare. Exit code 1 where one is beyond its tolerance.

    Example: rllc validate --quick

    Example: rllc validate --samplers sgld leimkuhler-matthews --format json > validation.json
    """
    from rllc.runs.validating import validate as compared
    from rllc.runs.validation_text import render

    found = compared(quick=quick, samplers=samplers, workers=workers, quiet=quiet)
    print_text(render(found, format))
    return ExitCode.DONE if found.passed else ExitCode.FOUND
