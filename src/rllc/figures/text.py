"""Text that others wrote, made safe to look at: nothing in it stays invisible or turns the line around."""

from __future__ import annotations

import html
import unicodedata

_SIGNS = {"\n": "⏎", "\t": "⇥"}
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def hidden(character: str) -> bool:
    """Whether a character is a control, format, direction, private or unassigned one, or ends a line."""
    return unicodedata.category(character) in _HIDDEN


def visible(text: str) -> str:
    """The text with every control, format, direction, private or unassigned character shown by a sign of its own.

    >>> visible("a" + chr(7) + "b" + chr(0x202E) + chr(10))
    'a⟨07⟩b⟨202E⟩⏎'
    """
    return "".join(_show(c) if hidden(c) else c for c in text)


def _show(character: str) -> str:
    return _SIGNS.get(character) or f"⟨{ord(character):02X}⟩"


def on_terminal(text: str) -> str:
    r"""The text with every character that could steer a terminal, or hide in it, shown by one sign; lines stay lines, and its length stays.

    >>> on_terminal(chr(27) + "[2Jx" + chr(0x9B) + chr(10))
    '␛[2Jx�\n'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c == "\n" or not hidden(c) else _sign(c) for c in text)


def _sign(character: str) -> str:
    code = ord(character)
    return " " if character == "\t" else chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "�"


def label(text: object) -> str:
    """Text for a label of a plotly figure, which reads a little HTML.

    >>> label("<b>code</b>")
    '&lt;b&gt;code&lt;/b&gt;'
    """
    return html.escape(visible(str(text)), quote=False)
