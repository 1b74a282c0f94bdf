"""Signals that end a command, held back for a while."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def held() -> Generator[None]:
    """Interrupts and SIGTERM come in after what is inside: of 70 sent while torch was imported, 7 were swallowed by whatever it tries and excepts.

    By handlers and not by a mask, which is of one thread, while a signal goes to any.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None is one that is not Python's
        for number in came[:1]:
            signal.raise_signal(number)
