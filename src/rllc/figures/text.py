"""Text that others wrote, made safe to look at: nothing in it stays invisible or turns the line around."""

from __future__ import annotations

import html
import unicodedata

_SIGNS = {"\n": "⏎", "\t": "⇥"}
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def visible(text: str) -> str:
    """The text with every control, format, direction, private or unassigned character shown by a sign of its own.

    >>> visible("a" + chr(7) + "b" + chr(0x202E) + chr(10))
    'a⟨07⟩b⟨202E⟩⏎'
    """
    return "".join(_show(c) if unicodedata.category(c) in _HIDDEN else c for c in text)


def _show(character: str) -> str:
    return _SIGNS.get(character) or f"⟨{ord(character):02X}⟩"


def label(text: object) -> str:
    """Text for a label of a plotly figure, which reads a little HTML.

    >>> label("<b>code</b>")
    '&lt;b&gt;code&lt;/b&gt;'
    """
    return html.escape(visible(str(text)), quote=False)
