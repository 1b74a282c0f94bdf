"""The Content-Security-Policy of pages that run their own scripts, named by their hashes, and reach for nothing."""

from __future__ import annotations

import base64
import hashlib


def policy(*scripts: str, beside: bool = False) -> str:
    """The policy of a page with these inline scripts; with `beside` it loads scripts that lie beside it too, from a disk or a server."""
    allowed = " ".join((*(source_hash(script) for script in scripts), *(("'self'", "file:") if beside else ()))) or "'none'"
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"


def source_hash(script: str) -> str:
    """How a policy names an inline script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
