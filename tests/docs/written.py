"""What the pages and notebooks hold: blocks of code, commands, and the names of rllc in them, held against the package."""

from __future__ import annotations

import ast
import inspect
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import rllc
from rllc.posterior.settings import SamplerSettings
from rllc.runs.how import How

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
NOT_RUN = re.compile(r"<!-- not run: (.+) -->\s*$")
_FENCE = re.compile(r"^```(\w+)\s*$")
_SETTINGS = {field.name for kind in (How, SamplerSettings) for field in fields(kind)}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line of the page where it begins, and why it is not run, if so."""

    language: str
    text: str
    line: int
    not_run: str = ""


def blocks(page: Path, language: str) -> list[Block]:
    """The fenced blocks of a page that are in this language."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        if match := _FENCE.match(lines[number].strip()):
            start = number + 1
            while lines[number := number + 1].strip() != "```":
                pass
            reason = NOT_RUN.search(lines[start - 2]) if start > 1 else None
            if match[1] == language:
                found.append(Block(language, "\n".join(lines[start:number]) + "\n", start + 1, reason[1] if reason else ""))
        number += 1
    return found


def commands(page: Path) -> list[str]:
    """Every command after a prompt, without its remark and without where its output goes."""
    lines = [line.strip() for block in blocks(page, "console") for line in block.text.splitlines()]
    return [re.sub(r"\s+(#|>).*$", "", line[2:]) for line in lines if line.startswith("$ ")]


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook, each with its source as one string."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells if cell["cell_type"] == "code"]


def wrong_names(code: str) -> list[str]:
    """Names of rllc that the package lacks, and keywords that its functions do not take.

    >>> wrong_names("rllc.estimate(m, d, chains=2, chainz=2); rllc.estimat(m)")
    ['rllc.estimate does not take chainz', 'there is no rllc.estimat']
    """
    wrong: list[str] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rllc":
            module = __import__(node.module, fromlist=["*"])
            wrong += [f"there is no {node.module}.{alias.name}" for alias in node.names if not hasattr(module, alias.name)]
        elif (name := _of_rllc(node)) and not hasattr(rllc, name):
            wrong.append(f"there is no rllc.{name}")
        elif isinstance(node, ast.Call) and (name := _of_rllc(node.func)) and hasattr(rllc, name):
            taken = inspect.signature(getattr(rllc, name)).parameters
            known = set(taken) | (_SETTINGS if any(p.kind is p.VAR_KEYWORD for p in taken.values()) else set())
            wrong += [f"rllc.{name} does not take {word.arg}" for word in node.keywords if word.arg is not None and word.arg not in known]
    return wrong


def _of_rllc(node: ast.AST) -> str:
    """The attribute, where the node is one of `rllc` itself."""
    return node.attr if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rllc" else ""
