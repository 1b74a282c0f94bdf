"""Every exit code through the real command, in a process of its own, as a shell or a scheduler sees it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rllc.core.exit_codes import ExitCode, listed
from rllc.runs.log import read_log

ROOT = Path(__file__).resolve().parents[2]
# The real command line, but for what `status` does: these are about what comes out of a verb.
ANOTHER = """
import sys, time
from pathlib import Path
from rllc.cli import reading
from rllc.main import VERBS, program

def status(folder: reading.Folder) -> None:
    from rllc.runs.layout import RunFolder
    from rllc.runs.session import session

    with session(RunFolder(folder), "sample", True), RunFolder(folder).locked():
        {body}

VERBS["status"] = status
sys.exit(program())
"""
SLEEP = 'print("ready", flush=True); time.sleep(120)'
# It is interrupted in a finalizer, where Python can raise nothing; what comes next would take two minutes.
FINALIZER = 'type("Held", (), {"__del__": lambda self: (print("ready", flush=True), time.sleep(2))})(); time.sleep(120)'
# It is interrupted while something is loaded that tries, and excepts whatever comes.
LOADING = """from rllc.core.signals import held
        with held():
            print("ready", flush=True)
            try:
                time.sleep(2)
            except BaseException:
                pass
        time.sleep(120)"""
AT_EXIT = 'import atexit; atexit.register(lambda: (print("ready", flush=True), time.sleep(120)))'


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rllc.main", *arguments]


def another(body: str, folder: Path) -> list[str]:
    return [sys.executable, "-c", ANOTHER.format(body=body), "status", str(folder)]


def ended(arguments: list[str]) -> tuple[int, str]:
    done = subprocess.run(arguments, capture_output=True, text=True, env=os.environ.copy(), check=False, timeout=120)
    return done.returncode, done.stderr


def test_done_and_all_codes_are_listed_in_the_help() -> None:
    done = subprocess.run(command("--help"), capture_output=True, text=True, env=os.environ.copy(), check=False)
    assert done.returncode == ExitCode.DONE
    assert listed() in done.stdout
    assert [int(line.split()[0]) for line in listed().splitlines()] == [0, 1, 2, 70, 130, 143]


def test_the_page_lists_all_codes_with_their_meaning() -> None:
    page = (ROOT / "docs" / "howto" / "watch.md").read_text(encoding="utf-8")
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)] == list(ExitCode)


def test_something_found(tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text("seed = ")
    code, _ = ended(command("doctor", str(tmp_path)))
    assert code == ExitCode.FOUND


@pytest.mark.parametrize("arguments", [("status", "nowhere"), ("status",), ("status", "nowhere", "--colour"), ("smaple",)])
def test_a_mistake(arguments: tuple[str, ...]) -> None:
    code, said = ended(command(*arguments))
    assert code == ExitCode.MISTAKE
    assert said
    assert "Traceback" not in said


def test_a_verb_that_there_is_not_is_told_with_the_nearest() -> None:
    assert ended(command("rnu", "x.toml", "--out", "y"))[1] == "rllc: There is no verb 'rnu'. Perhaps you meant 'run'.\n"
    assert "`rllc --help` lists them" in ended(command("\x1b[31m"))[1]


def test_a_fault_has_its_traceback_here_and_in_the_log(tmp_path: Path) -> None:
    code, said = ended(another(r'raise ZeroDivisionError("\x1b[2Jno")', tmp_path))
    assert code == ExitCode.FAULT
    assert "ZeroDivisionError: ␛[2Jno" in said
    assert "a fault of rllc itself" in said
    last = read_log(tmp_path / "log.jsonl")[-1]
    assert (last["exit_code"], last["exception"], last["reason"]) == (ExitCode.FAULT, "ZeroDivisionError", "\x1b[2Jno")


@pytest.mark.parametrize("body", [SLEEP, FINALIZER, LOADING])
@pytest.mark.parametrize(("sent", "code", "outcome"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_a_signal_unwinds_the_run(tmp_path: Path, sent: signal.Signals, code: int, outcome: str, body: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background is deaf to it, and so are its children
    process: Any = subprocess.Popen(another(body, tmp_path), stdout=-1, stderr=-1, text=True, env=os.environ.copy())
    assert process.stdout.readline() == "ready\n"
    assert (tmp_path / "live" / "run.json").is_file()
    process.send_signal(sent)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert "Traceback" not in said
    assert "The same command goes on where it was." in said
    assert not (tmp_path / "live").exists()
    last = read_log(tmp_path / "log.jsonl")[-1]
    assert (last["event"], last["exit_code"], last["outcome"]) == ("run_ended", code, outcome)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_end_changes_nothing_and_ends_it(tmp_path: Path, sent: signal.Signals) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process: Any = subprocess.Popen(another(AT_EXIT, tmp_path), stdout=-1, stderr=-1, text=True, env=os.environ.copy())
    assert process.stdout.readline() == "ready\n"
    process.send_signal(sent)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == ExitCode.DONE


def unread(arguments: list[str], stream: str) -> tuple[int, str]:
    """The exit code of a command whose standard output or error nobody reads from the beginning, and what it says on the other one."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        other = "stderr" if stream == "stdout" else "stdout"
        done = subprocess.run(arguments, **{stream: writing, other: subprocess.PIPE}, text=True, check=False, timeout=300)
    finally:
        os.close(writing)
    return done.returncode, getattr(done, other)


def test_a_run_goes_on_where_nobody_reads_what_it_tells(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text(tiny)
    code, _ = unread(command("train", str(tmp_path / "experiment.toml"), "--out", str(tmp_path / "run")), "stderr")
    assert code == ExitCode.DONE
    events = read_log(tmp_path / "run" / "log.jsonl")
    assert (events[-1]["event"], events[-1]["outcome"]) == ("run_ended", "done")
    assert any("Trained 12 steps" in event.get("text", "") for event in events)


def test_a_mistake_that_nobody_reads_keeps_its_code() -> None:
    assert unread(command("status", "nowhere"), "stderr")[0] == ExitCode.MISTAKE


@pytest.mark.parametrize("verb", ["status", "table", "explain", "compare", "--help"])
def test_whoever_leaves_a_verb_that_prints_is_no_fault(verb: str, finished: Path) -> None:
    asked = {"compare": ["--across", "part"], "--help": []}.get(verb, [])
    code, said = unread(command(verb, *([str(finished)] if verb != "--help" else []), *asked), "stdout")
    assert code == ExitCode.DONE, said
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


def sent(arguments: list[str], where: str) -> tuple[int, str]:
    """The exit code of a command whose streams a shell sends somewhere, and what it says on those that are left."""
    script = f'"$@" {where}'
    done = subprocess.run(["sh", "-c", script, "sh", *arguments], capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr


FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")


@FULL
def test_a_run_goes_on_where_the_disk_of_its_errors_is_full(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text(tiny)
    arguments = command("corpus", str(tmp_path / "experiment.toml"), "--out", str(tmp_path / "run"))
    assert sent(arguments, "2>/dev/full") == (ExitCode.DONE, "")
    assert read_log(tmp_path / "run" / "log.jsonl")[-1]["outcome"] == "done"


@FULL
@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-", ">/dev/full 2>/dev/full", ">&- 2>&-"])
@pytest.mark.parametrize("arguments", [("plan", "nothing.toml"), ("smaple",)])
def test_a_mistake_keeps_its_code_where_it_cannot_be_told(arguments: tuple[str, ...], where: str) -> None:
    assert sent(command(*arguments), where) == (ExitCode.MISTAKE, "")


@FULL
@pytest.mark.parametrize("verb", ["status", "table", "explain", "--help"])
def test_output_that_cannot_be_written_is_a_sentence(verb: str, finished: Path) -> None:
    asked = [] if verb == "--help" else [str(finished)]
    code, said = sent(command(verb, *asked), ">/dev/full")
    assert code == ExitCode.MISTAKE
    assert said.startswith("rllc: The output could not be written: No space left on device.")
    assert said.count("\n") == 1
    assert sent(command(verb, *asked), ">&-") == (ExitCode.DONE, "")


@pytest.fixture
def obeying(finished: Path, tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A copy of the finished run, and what goes before a command that is to obey permissions, which the superuser does not."""
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if prefix and not shutil.which("setpriv"):
        pytest.skip("nothing makes the superuser obey")
    shutil.copytree(finished, tmp_path / "run")
    yield tmp_path / "run", prefix
    for path in (tmp_path / "run").rglob("*"):
        path.chmod(0o755)


@pytest.mark.parametrize(
    ("verb", "what", "named"),
    [
        ("verify", "checkpoints", ""),
        ("verify", "checkpoints/step-00000006", ""),
        ("report", "findings.json", ""),
        ("status", "records", "/store.json"),
    ],
)
def test_what_may_not_be_read_is_a_sentence(obeying: tuple[Path, list[str]], verb: str, what: str, named: str) -> None:
    root, prefix = obeying
    (root / what).chmod(0)
    code, said = ended([*prefix, *command(verb, str(root))])
    assert code == ExitCode.MISTAKE, said
    assert f"rllc: {root / what}{named} " in said
    assert "Traceback" not in said
    if verb == "report":
        last = read_log(root / "log.jsonl")[-1]
        assert (last["exit_code"], last["outcome"]) == (ExitCode.MISTAKE, "stopped")
        assert last["reason"] in said


def test_the_doctor_goes_on_where_something_may_not_be_read(obeying: tuple[Path, list[str]]) -> None:
    root, prefix = obeying
    closed = [root / "checkpoints" / "step-00000006", root / "records" / "sample"]
    (root / "table.csv").write_text("")
    for path in closed:
        path.chmod(0)
    done = subprocess.run([*prefix, *command("doctor", str(root))], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == ExitCode.FOUND, done.stderr
    assert f"{closed[0]} may not be read here." in done.stdout
    assert f"{closed[1]} could not be read" in done.stdout
    assert f"{root / 'table.csv'} is not whole." in done.stdout


@pytest.mark.parametrize("body", ['raise BrokenPipeError(32, "to a worker")', "sys.exit(1)"])
def test_another_pipe_that_breaks_and_an_exit_of_somebody_else_are_faults(body: str, tmp_path: Path) -> None:
    code, said = ended(another(body, tmp_path))
    assert code == ExitCode.FAULT
    assert "a fault of rllc itself" in said
    last = read_log(tmp_path / "log.jsonl")[-1]
    assert (last["event"], last["exit_code"], last["outcome"]) == ("run_ended", ExitCode.FAULT, "failed")
