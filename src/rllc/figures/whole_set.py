"""All that a run can draw of the catalogue, and all of it written into a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rllc.core.files import write_atomic
from rllc.figures.catalogue import CATALOGUE
from rllc.figures.drawing import Drawing, Missing
from rllc.figures.interactive import write_page
from rllc.figures.material import Material
from rllc.figures.printed import printed
from rllc.figures.printing import STYLE, matplotlib_or_sentence, save
from rllc.figures.text import visible


@dataclass(frozen=True)
class Drawn:
    """What was drawn, by name, and why the rest was not."""

    drawings: Mapping[str, Drawing] = field(default_factory=dict[str, Drawing])
    lacking: Mapping[str, str] = field(default_factory=dict[str, str])


def draw_all(material: Material) -> Drawn:
    """Every figure of the catalogue whose data is there, in its order; a sentence for each of the others."""
    drawings: dict[str, Drawing] = {}
    lacking: dict[str, str] = {}
    for entry in CATALOGUE:
        drawn = entry.draw(material)
        if drawn is None:
            lacking[entry.name] = f"It needs {entry.needs}."
        elif isinstance(drawn, Missing):
            lacking[entry.name] = drawn.why
        else:
            drawings[entry.name] = drawn
    return Drawn(drawings, lacking)


def write_all(drawn: Drawn, folder: Path) -> list[Path]:
    """Write every drawing as PNG, SVG and an interactive page, and `captions.json` with titles, captions and what is lacking; returns the paths.

    Raises RllcError where matplotlib is not installed or the folder cannot be written.
    """
    mpl = matplotlib_or_sentence()
    paths: list[Path] = []
    with mpl.rc_context(STYLE):
        for name, drawing in drawn.drawings.items():
            paths += [*save(printed(drawing), folder, name), write_page(drawing, folder, name)]
    stands_for = {entry.name: entry.stands_for for entry in CATALOGUE}
    told = {name: {"shows": stands_for[name], "title": visible(d.title), "caption": visible(d.caption)} for name, d in drawn.drawings.items()}
    text = json.dumps({"drawn": told, "lacking": {name: visible(why) for name, why in drawn.lacking.items()}}, ensure_ascii=False, indent=1)
    paths.append(folder / "captions.json")
    write_atomic(paths[-1], text.encode())
    return paths
