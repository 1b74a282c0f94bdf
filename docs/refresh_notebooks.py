"""Run every notebook anew and keep its outputs: `make notebooks`, or this file with the names of some.

Each runs in a kernel of its own, on as many threads as OMP_NUM_THREADS says. What tells of the machine or of the moment is taken out, so that a
notebook changes only where its numbers do.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent / "notebooks"
LARGEST = 400_000  # bytes of a notebook, so that it reads well on a code host


def is_progress(output: NotebookNode) -> bool:
    """Whether an output is a line of `rllc.runs.progress`."""
    return bool(re.match(r"\s*Sweep( …|: \d+ %)", output.get("data", {}).get("text/plain", "")))


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """What is printed piece by piece as one piece, and of a bar of progress the last state."""
    found: list[NotebookNode] = []
    for output in outputs:
        if found and is_progress(output) and is_progress(found[-1]):
            found[-1] = output
        elif found and output.output_type == found[-1].output_type == "stream":
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def refresh(path: Path) -> None:
    """Execute one notebook and write it back. Raises nbclient's error where a cell fails, and ValueError where the file would be too large."""
    notebook = nbformat.read(path, as_version=4)
    began = time.monotonic()
    NotebookClient(
        notebook,
        timeout=1800,
        kernel_name="python3",
        resources={"metadata": {"path": str(HERE)}},
    ).execute()
    tidy(notebook)
    text = nbformat.writes(notebook)
    if len(text) > LARGEST:
        raise ValueError(f"{path.name} would have {len(text):,} bytes, and {LARGEST:,} is the limit: draw fewer points, or fewer figures")
    path.write_text(text + "\n", encoding="utf-8")
    print(f"{path.name}: {time.monotonic() - began:.0f} s, {len(text):,} bytes")


def tidy(notebook: NotebookNode) -> None:
    """Take out what tells of the machine or of the moment."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            # what libraries say of this machine's terminal and folders is no result
            cell.outputs = joined([output for output in cell.outputs if output.get("name") != "stderr"])
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = re.sub(
                    r"(?<![\w.])/(tmp|home|root|work|Users|var)/\S+",
                    "…",
                    output.text,
                )
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }


if __name__ == "__main__":
    wanted = sys.argv[1:]
    for found in sorted(HERE.glob("*.ipynb")):
        if not wanted or found.stem in wanted:
            refresh(found)
