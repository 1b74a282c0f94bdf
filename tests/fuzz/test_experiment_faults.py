"""Experiment files and command lines that once ended in a traceback, a hang, or a terminal that obeyed a title."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rllc.cli.output import print_bytes, print_error, print_plain
from rllc.main import main
from rllc.runs.experiment import parse, preset
from rllc.runs.overview import describe_plan
from rllc.runs.progress import Reporter

from .bounds import command, outcome, refused
from .hostile import CONTROLS, toml

QUICK = preset("quick")
FAULTS = {
    "no end of brackets": ("seed = 0", "seed = " + "[" * 20_000),
    "no end of tables": ("seed = 0", "seed = " + "{a = " * 20_000),
    "thousands of digits": ("seed = 0", "seed = " + "9" * 5000),
    "beyond a float": ("step_size = 1e-3", "step_size = 1" + "0" * 400),
    "not a number": ("code = 0.40", "code = nan"),
    "infinite": ("code = 0.40", "code = inf"),
    "a long value": ("seed = 0", 'seed = "' + "x" * 100_000 + '"'),
    "a long key": ("seed = 0", "x" * 100_000 + " = 0"),
    "a million layers": ("n_layers = 2", "n_layers = 1000000"),
    "a billion heads": ("n_heads = 4", "n_heads = 1000000000"),
    "heads by layers": ("n_layers = 2\nd_model = 32\nn_heads = 4", "n_layers = 1000\nd_model = 32\nn_heads = 1000"),
    "a billion checkpoints": ("extra = [0,", "linear = 1000000000\nextra = [0,"),
    "a table of a huge order": ('kind = "brackets"', 'kind = "markov"\norder = 100000000'),
    "a domain of all memory": ("tokens = 100_000", "tokens = 1000000000000"),
    "a vocabulary beyond all": ("vocabulary = 512", "vocabulary = 100000000000000000000"),
    "a million processes": ("[model]", "[engine]\nworkers = 1000000\n[model]"),
    "a name of no domain": ('kind = "echo"', 'kind = "echo"\ndomain = "../x"'),
    "a sibling elsewhere": ("[model]", '[siblings."../../x"]\nseed = 1\n[model]'),
    "a sibling of nothing": ("[model]", '[siblings."a\\u0000b"]\nseed = 1\n[model]'),
    "a refinement elsewhere": ("[model]", '[refinements."../x"]\ninduction = true\n[model]'),
    "a part of many digits": ('parts = ["heads", "full"]', f'parts = ["{"9" * 5000}:0"]'),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_a_sentence(name: str) -> None:
    old, new = FAULTS[name]
    assert old in QUICK
    refused(lambda: parse(QUICK.replace(old, new, 1)), megabytes=200)


def test_many_heads_are_planned_in_time() -> None:
    """Planning once went through all tensors with every head: 76 s for a model of 50 layers."""
    text = QUICK.replace("n_layers = 2", "n_layers = 30").replace("n_heads = 4", "n_heads = 16")
    assert "cells" in str(outcome(lambda: describe_plan(parse(text)), seconds=60))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x00", b"title = \x1b[31m", b"seed = [[[["])
def test_the_command_line_ends_with_2(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "e.toml"
    path.write_bytes(content)
    for arguments in (["plan", str(path)], ["run", str(path), "--out", str(tmp_path / "out")], ["calibrate", str(path), "--out", str(tmp_path)]):
        assert main(arguments) == 2
        assert capsys.readouterr().err.startswith("rllc: ")
    assert main(["plan", str(tmp_path)]) == 2
    assert main(["plan", str(tmp_path / ("x" * 300))]) == 2


def test_too_little_memory_is_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def fails(*_: object) -> None:
        raise MemoryError("Unable to allocate 7 TiB")

    monkeypatch.setattr("rllc.runs.experiment.load", fails)
    assert main(["plan", "e.toml"]) == 2
    assert "more memory than there is (Unable to allocate 7 TiB)" in capsys.readouterr().err


def steers(text: str) -> bool:
    """Whether a terminal would take something in a text for an order, or a reader for something else."""
    return any(not c.isprintable() and c != "\n" for c in text)


def test_a_title_does_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = QUICK.replace('title = "A toy run of every stage"', f"title = {toml(CONTROLS)}")
    for folder in (tmp_path / "plan.toml", tmp_path / "run" / "experiment.toml"):
        folder.parent.mkdir(exist_ok=True)
        folder.write_text(text)
    assert main(["plan", str(tmp_path / "plan.toml")]) == 0
    assert main(["status", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert said.count("␛[2J") == 2
    assert not steers(said)


@pytest.mark.parametrize("key", ["x", "mixture"])
def test_an_error_does_not_steer_the_terminal(tmp_path: Path, key: str) -> None:
    path = tmp_path / "e.toml"
    path.write_text(
        QUICK.replace("[model]", f"[{key}.{toml(CONTROLS)}]\n[model]") if key == "x" else QUICK + f"\n[siblings.{toml(CONTROLS)}]\nseed = 1"
    )
    done = command("plan", path)
    assert done.returncode == 2, done.stderr
    assert not steers(done.stderr)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_is_printed_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    print_plain(CONTROLS)
    print_error(CONTROLS)
    print_bytes(f"part,reason\n1:6,{CONTROLS}\n".encode())
    assert not steers(out.getvalue() + err.getvalue())


@pytest.mark.parametrize("terminal", [True, False])
def test_a_reporter_passes_on_no_orders_and_no_markup(tmp_path: Path, terminal: bool) -> None:
    stream = io.StringIO()
    reporter = Reporter(log=tmp_path / "log.jsonl", console=Console(file=stream, force_terminal=terminal, color_system=None, width=200))
    hostile: Any = CONTROLS + "[bold]x[/nothing]"
    with reporter.stage(hostile, 2.0) as bar:
        bar.note(hostile)
        bar.advance(1.0, hostile)
    reporter.line(hostile)
    reporter.event(hostile, hostile, part=hostile)
    reporter.close()
    for text in (stream.getvalue(), (tmp_path / "log.jsonl").read_text()):
        assert "\x1b]0;owned" not in text
        assert "\x07" not in text
        assert "\u202e" not in text
        assert "[/nothing]" in text
