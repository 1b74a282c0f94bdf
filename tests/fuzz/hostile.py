"""Hostile values: what a broken or malicious file may hold in the place of an honest one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

CONTROLS = "\x00\x07\x1b[2J\x1b]0;owned\x07\r\n\t\x7f\x9b31m\u202e\u2066\u200b\ufeff\ue000"
HTML = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1><a href=javascript:hacked=1>"
WORDS = (
    "",
    " ",
    "..",
    "../..",
    "/etc/passwd",
    "a/../../b",
    "a\x00b",
    "~nobody-here/x",
    "**.txt",
    "x" * 300,
    "1:6",
    "٣:١",
    "heads",
    "mixture",
    "code@",
    "\x1b[31m",
    HTML,
    CONTROLS,
)
numbers = st.one_of(
    st.sampled_from([0, 1, -1, 2, 3, 5, 2**31, 2**31 - 1, 2**63, -(2**63), 10**9, 10**15, 10**30, 10**400, -(10**400)]),
    st.integers(-10, 3000),
    st.sampled_from([0.0, -0.0, 1e-320, 1e308, -1e308, math.inf, -math.inf, math.nan, 0.5, 1.5]),
    st.floats(),
)
texts = st.one_of(st.sampled_from(WORDS), st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
values = st.recursive(
    st.one_of(numbers, texts, st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


def toml(value: Any) -> str:
    """A value as TOML writes it inline."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf") if math.isinf(value) else repr(value)
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml(str(key))} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value)


def document(table: Mapping[str, Any]) -> str:
    """A table as the text of a TOML file, one line a key."""
    return "".join(f"{toml(key)} = {toml(value)}\n" for key, value in table.items())
