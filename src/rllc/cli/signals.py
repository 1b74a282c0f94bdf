"""What ends a command from outside: interrupts from the keyboard, and the SIGTERM of schedulers. Both unwind, wherever they come in."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rllc.core.exit_codes import ExitCode

_AGAIN = 0.05  # seconds


@contextmanager
def in_order() -> Iterator[None]:
    """A SIGTERM unwinds as an interruption does: workers end, the log tells of it, and nothing is left behind.

    Either may come in where nothing can be raised, such as a finalizer or the callback of a weak reference. Python would print it and go on; here it
    is sent again a little later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    here, pending = threading.get_ident(), list[threading.Timer]()
    handler, hook = signal.getsignal(signal.SIGTERM), sys.unraisablehook

    def end(*_: object) -> None:
        sys.exit(ExitCode.TERMINATED)

    def lost(unraisable: sys.UnraisableHookArgs) -> None:
        error = unraisable.exc_value
        number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM
        if error is None or ExitCode.of(error) not in (ExitCode.INTERRUPTED, ExitCode.TERMINATED):
            hook(unraisable)
            return
        timer = threading.Timer(_AGAIN, signal.pthread_kill, (here, number))
        timer.daemon = True
        pending.append(timer)
        timer.start()

    signal.signal(signal.SIGTERM, end)
    sys.unraisablehook = lost
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for timer in pending:
            timer.cancel()
        signal.signal(signal.SIGTERM, handler)


def at_the_end(code: int) -> None:
    """All is done, and this process is about to end with that code: whoever interrupts it now has it end at once, without a word."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(code))
