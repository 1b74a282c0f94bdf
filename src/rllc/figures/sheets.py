"""Tables and painted text, in matplotlib and as HTML. Tokens are a corpus's text: nothing of it is read as markup or as mathematics."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np

from rllc.figures.drawing import DEEPEST, NEGATIVE, POSITIVE, Painted, Passage, Table, tint
from rllc.figures.palette import INK, MUTED, RULE, alpha
from rllc.figures.printing import printable
from rllc.figures.text import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZE = 7.0  # points
_ROW = 0.165  # inches
_MONO = 0.602  # width of a character of the fixed font, in its size
_LONGEST = 46  # characters of a cell of a table


def printed_sheet(sheet: Table | Painted) -> Figure:
    """A table or painted text as a matplotlib figure, title and caption included."""
    return _printed_table(sheet) if isinstance(sheet, Table) else _printed_text(sheet)


def sheet_html(sheet: Table | Painted) -> str:
    """A table or painted text as HTML without a script; title and caption are left to the page."""
    return _table_html(sheet) if isinstance(sheet, Table) else _text_html(sheet)


def _canvas(sheet: Table | Painted, height: float) -> tuple[Figure, Any]:
    """A figure with axes in inches, y downwards, that hold `height` inches of content."""
    from rllc.figures.printed import framed

    figure, (_, bottom, _, share) = framed(sheet.title, sheet.caption, sheet.width, height)
    ax = figure.add_axes((0, bottom, 1, share))
    ax.set_xlim(0, sheet.width)
    ax.set_ylim(height, 0)
    ax.set_axis_off()
    return figure, ax


def _printed_table(table: Table) -> Figure:
    cells = [[_short(printable(cell)) for cell in row] for row in (table.columns, *table.rows)]
    wide = [max(len(row[c]) for row in cells) * (1.12 if c in table.tokens else 1.0) + 2 for c in range(len(table.columns))]
    shares = np.array(table.widths or wide, dtype=np.float64)
    room = table.width - 0.2
    size = float(np.clip(room * 72 / (sum(wide) * _MONO), 4.5, _SIZE))
    if not table.widths:  # no wider than its text needs
        room = min(room, sum(wide) * _MONO * size / 72)
    left = 0.1 + np.concatenate([[0.0], np.cumsum(shares / shares.sum())]) * room
    height = _ROW * (len(cells) + 0.4)
    figure, ax = _canvas(table, height)
    for r, row in enumerate(cells):
        y = _ROW * (r + 0.5 + (0.3 if r else 0))
        for c, text in enumerate(row):
            family = "DejaVu Sans Mono" if c in table.tokens and r else "DejaVu Sans"
            color = MUTED if not r else table.colors[r - 1] if c == 0 and table.colors else INK
            weight = "bold" if c == 0 and r else "normal"
            ax.text(left[c], y, text, va="center", fontsize=size, family=family, color=color, fontweight=weight, clip_on=True)
        if r > 1 and table.rows[r - 1][0] != table.rows[r - 2][0]:
            ax.plot([0.1, 0.1 + room], [y - _ROW / 2] * 2, color=RULE, linewidth=0.5)
    ax.plot([0.1, 0.1 + room], [_ROW * 1.15] * 2, color=MUTED, linewidth=0.7)
    return figure


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _lines(passage: Passage, characters: int) -> list[list[tuple[str, float]]]:
    """The tokens of a passage in lines of so many characters; a line ends behind a token that ends one."""
    lines: list[list[tuple[str, float]]] = [[]]
    left = characters
    for token, value in zip(passage.tokens, np.asarray(passage.values, dtype=np.float64), strict=True):
        text = printable(token)
        while len(text) > characters:  # a token longer than a line goes on in the next
            lines.append([(text[:characters], float(value))])
            text, left = text[characters:], 0
        if len(text) > left:
            lines.append([])
            left = characters
        lines[-1].append((text, float(value)))
        left -= len(text)
        if text.endswith("⏎"):
            left = 0
    return [line for line in lines if line]


def _printed_text(painted: Painted) -> Figure:
    step = _SIZE * _MONO / 72
    characters = int((painted.width - 0.3) / step)
    blocks = [_lines(passage, characters) for passage in painted.passages]
    height = 0.34 + sum(_ROW * (len(lines) + 1.55) for lines in blocks)
    figure, ax = _canvas(painted, height)
    _printed_scale(ax, painted)
    y = 0.34
    from matplotlib.patches import Rectangle

    for passage, lines in zip(painted.passages, blocks, strict=True):
        ax.text(0.1, y + _ROW * 0.6, printable(passage.title), va="center", fontsize=7.5, fontweight="bold", color=passage.color)
        y += _ROW * 1.25
        for line in lines:
            x = 0.12
            for text, value in line:
                if np.isfinite(value):
                    color, opacity = tint(value, -painted.limit, painted.limit, "diverging")
                    ax.add_patch(Rectangle((x, y), len(text) * step, _ROW * 0.96, facecolor=color, alpha=opacity, linewidth=0))
                ax.text(x, y + _ROW / 2, text, va="center", fontsize=_SIZE, family="DejaVu Sans Mono", color=INK)
                x += len(text) * step
            y += _ROW
        y += _ROW * 0.3
    return figure


def _printed_scale(ax: Any, painted: Painted) -> None:
    from matplotlib.patches import Rectangle

    cells, wide = 40, 1.8
    for i in range(cells):
        color, opacity = tint(painted.limit * (2 * (i + 0.5) / cells - 1), -painted.limit, painted.limit, "diverging")
        ax.add_patch(Rectangle((0.3 + wide * i / cells, 0.04), wide / cells, 0.11, facecolor=color, alpha=opacity, linewidth=0))
    for share, value in ((0.0, -painted.limit), (0.5, 0.0), (1.0, painted.limit)):
        text = f"{value:.2g}".replace("-", "−")
        ax.text(0.3 + wide * share, 0.23, text, ha="center", va="center", fontsize=6.3, color=MUTED)
    ax.text(0.3 + wide + 0.2, 0.095, printable(painted.unit), va="center", fontsize=7, color=MUTED)


def _esc(text: object) -> str:
    return html.escape(visible(str(text)))


def _table_html(table: Table) -> str:
    head = "".join(f'<th scope="col">{_esc(name)}</th>' for name in table.columns)
    rows: list[str] = []
    for r, row in enumerate(table.rows):
        cells: list[str] = []
        for c, text in enumerate(row):
            color = f"color:{table.colors[r]};" if c == 0 and table.colors else ""
            font = "font-family:monospace;white-space:pre;" if c in table.tokens else ""
            name = "th" if c == 0 else "td"
            style = f' style="{color}{font}"' if color or font else ""
            cells.append(f"<{name}{style}>{_esc(text)}</{name}>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<table class="words"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _text_html(painted: Painted) -> str:
    limit = f"{painted.limit:.2g}"
    strip = f"linear-gradient(90deg,{alpha(NEGATIVE, DEEPEST)},{alpha(NEGATIVE, 0)} 50%,{alpha(POSITIVE, 0)} 50%,{alpha(POSITIVE, DEEPEST)})"
    bar = f'<span style="display:inline-block;width:9em;height:.8em;background:{strip}"></span>'
    blocks = [f'<p class="scale">−{limit} {bar} {limit} {_esc(painted.unit)}</p>']
    for passage in painted.passages:
        tokens: list[str] = []
        for token, value in zip(passage.tokens, np.asarray(passage.values, dtype=np.float64), strict=True):
            shown = _esc(token) + ("\n" if visible(token).endswith("⏎") else "")
            if not np.isfinite(value):
                tokens.append(f"<span>{shown}</span>")
                continue
            color, opacity = tint(float(value), -painted.limit, painted.limit, "diverging")
            told = _esc(f"{value:+.3g} {painted.unit}".replace("-", "−"))
            tokens.append(f'<span style="background:{alpha(color, round(opacity, 3))}" title="{told}">{shown}</span>')
        text = f'<pre style="white-space:pre-wrap;overflow-wrap:anywhere">{"".join(tokens)}</pre>'
        blocks.append(f'<div class="passage"><h3 style="color:{passage.color}">{_esc(passage.title)}</h3>{text}</div>')
    return f'<div class="painted">{"".join(blocks)}</div>'
