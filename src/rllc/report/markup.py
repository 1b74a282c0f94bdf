"""HTML in small pieces. Whatever comes from outside passes through `esc`."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rllc.figures.text import visible

VOID = ("br", "hr", "input")  # elements without content or an end


class Markup(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


def esc(text: object) -> Markup:
    """Any value as text in HTML: escaped, hidden characters made visible. Markup passes unchanged.

    >>> esc("<script>"), esc(Markup("<b>"))
    ('&lt;script&gt;', '<b>')
    """
    return text if isinstance(text, Markup) else Markup(html.escape(visible(str(text))))


def join(pieces: Iterable[object], between: str = "") -> Markup:
    """Pieces one after the other, each escaped unless it is markup."""
    return Markup(between.join(esc(p) for p in pieces))


def tag(name: str, *content: object, **attributes: object) -> Markup:
    """An element. Attributes of value None or False are left out; `class_` and `data_x` are written class and data-x.

    >>> tag("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    """
    written = ""
    for name_, value in attributes.items():
        if value is not None and value is not False:
            key = name_.rstrip("_").replace("_", "-")
            written += f" {key}" if value is True else f' {key}="{esc(value)}"'
    return Markup(f"<{name}{written}>" if name in VOID else f"<{name}{written}>{join(content)}</{name}>")


def paragraph(*content: object, **attributes: object) -> Markup:
    """A paragraph; empty content gives nothing."""
    return tag("p", *content, **attributes) if any(str(c) for c in content) else Markup("")


def table(
    head: Sequence[object], rows: Sequence[Sequence[object]], caption: str = "", numbers: Iterable[int] = (), long: Iterable[int] = ()
) -> Markup:
    """A table that scrolls in its own frame; `numbers` are the columns set flush right, `long` those that may wrap."""
    classes = dict.fromkeys(numbers, "n") | dict.fromkeys(long, "long")
    top = join(tag("th", cell, scope="col", class_=classes.get(i)) for i, cell in enumerate(head))
    body = (
        tag(
            "tr",
            *(tag("th" if i == 0 else "td", cell, scope="row" if i == 0 else None, class_=classes.get(i)) for i, cell in enumerate(row)),
        )
        for row in rows
    )
    inner = tag("table", tag("thead", tag("tr", top)), tag("tbody", *body))
    title = tag("p", caption, class_="caption") if caption else ""
    return join([title, tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption or "table")])


def definitions(pairs: Mapping[str, Any]) -> Markup:
    """Names and values side by side."""
    return tag("dl", *(tag("div", tag("dt", name.replace("_", " ")), tag("dd", value_text(value))) for name, value in pairs.items()), class_="facts")


def value_text(value: Any) -> str:
    """A setting as a reader writes it.

    >>> value_text(3355016), value_text(0.001), value_text(True), value_text(None), value_text([1, 2])
    ('3,355,016', '0.001', 'yes', 'none', '1, 2')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 1000 else str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(value_text(v) for v in value)
    return str(value)


def decimals(error: float) -> int:
    """How many decimals an error leaves meaningful: those of its first two figures.

    >>> decimals(0.31), decimals(0.021), decimals(12.0)
    (2, 3, 0)
    """
    return min(6, max(0, 1 - math.floor(math.log10(error)))) if error > 0 else 2


def measure(value: float, error: float = math.nan, digits: int | None = None) -> str:
    """A number with its error, to the digits that the error leaves meaningful, or as many decimals as asked for.

    >>> measure(7.6123, 0.312), measure(123.4, 12.0), measure(0.5), measure(float("nan"))
    ('7.61 ± 0.31', '123 ± 12', '0.50', 'none')
    """
    if not math.isfinite(value):
        return "none"
    if not math.isfinite(error) or error <= 0:
        return minus(f"{value:.2f}")
    digits = decimals(error) if digits is None else digits
    return minus(f"{value:,.{digits}f} ± {error:,.{digits}f}")


def minus(text: str) -> str:
    """The text with a true minus sign."""
    return text.replace("-", "−")


def embed(name: str, value: Any) -> Markup:
    """A value as JSON that a script of the page reads; nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="{esc(name)}">{text}</script>')
