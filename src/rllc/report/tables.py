"""A table of words as a value, which the page shows as HTML and the report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rllc.figures.text import visible
from rllc.report.markup import Markup, table


@dataclass(frozen=True)
class Words:
    r"""Rows under a head, all text.

    >>> print(Words(("a", "b"), (("x|y", "1"),), "A caption.", numbers=(1,)).markdown)
    A caption.
    <BLANKLINE>
    | a | b |
    |---|--:|
    | x\|y | 1 |
    """

    head: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    caption: str
    numbers: tuple[int, ...] = ()  # columns set flush right
    long: tuple[int, ...] = ()  # columns that may wrap

    @property
    def html(self) -> Markup:
        """The table on the page; empty without rows."""
        return table(self.head, self.rows, self.caption, self.numbers, self.long) if self.rows else Markup("")

    @property
    def markdown(self) -> str:
        """Caption and table in Markdown, in which no cell is markup; empty without rows."""
        if not self.rows:
            return ""
        ruler = "|".join("--:" if i in self.numbers else "---" for i in range(len(self.head)))
        lines = [escaped(self.caption), "", _line(self.head), f"|{ruler}|"]
        return "\n".join([*lines, *(_line(row) for row in self.rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escaped, cells))} |"


def escaped(text: str) -> str:
    """Text in Markdown in which nothing is markup; line breaks become spaces."""
    for character in "\\`*_[]|":
        text = text.replace(character, f"\\{character}")
    return " ".join(visible(text).replace("&", "&amp;").replace("<", "&lt;").split())
