"""What every test runs under: one thread, fixed seeds, hypothesis without chance, shapes checked, no silent loss of the browser tests."""

from __future__ import annotations

import os
import random
import re
import sys
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy or torch is loaded: thread counts change the order of sums
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from .shape_checks import check_shapes

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("ci", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def annotated_modules(source: Path) -> list[str]:
    """Modules below `source` whose borders carry jaxtyping shapes."""
    files = sorted(path for path in source.rglob("*.py") if "jaxtyping" in path.read_text(encoding="utf-8"))
    return [".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__") for path in files]


check_shapes(annotated_modules(ROOT / "src"))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """The global generators start equal in every test; shipped code takes its randomness as an argument and never reads them."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
        torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Several processes: a file's tests stay together, and all that read the finished run of tests/runs, so that what they share is made once."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    readers = {
        f"tests/runs/{path.name}" for path in (ROOT / "tests" / "runs").glob("test_*.py") if re.search(r"\bfinished\b", path.read_text("utf-8"))
    }

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return "finished" if file in readers else file

    return Together(config, log)


_browser_passed: list[str] = []


def _browser_required() -> bool:
    return os.environ.get("RLLC_REQUIRE_BROWSER", "") not in ("", "0")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Where a browser is required, a skipped browser test has failed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("browser") and _browser_required():
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"RLLC_REQUIRE_BROWSER is set, and this browser test was skipped: {reason}"
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed and "browser" in report.keywords:
        _browser_passed.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    worker = hasattr(session.config, "workerinput")
    if _browser_required() and not worker and not session.config.option.collectonly and not _browser_passed and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _browser_required() and not _browser_passed:
        terminalreporter.write_line("RLLC_REQUIRE_BROWSER is set, and no browser test has passed.", red=True)
