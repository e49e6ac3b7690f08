"""Ctrl-C and SIGTERM: the first waits for a moment at which nothing is in hand, the second leaves at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Interrupted(SystemExit):
    """The user, or the system, wants this process to stop; its exit status is 128 plus the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class _Waiting:
    """Which signal has come and waits, and how many blocks must end before it is heard."""

    signal: int | None = None
    depth = 0


@contextmanager
def deferred() -> Iterator[None]:
    """A signal that comes in this block is heard at its end, or at a `pause_point` if an outer block defers too."""
    _Waiting.depth += 1
    try:
        yield
    finally:
        _Waiting.depth -= 1
    if not _Waiting.depth:
        pause_point()


def pause_point() -> None:
    """Raise Interrupted if a signal has come: everything finished so far is on disk."""
    if _Waiting.signal is not None:
        number, _Waiting.signal = _Waiting.signal, None
        raise Interrupted(number)


def _handle(number: int, _: FrameType | None) -> None:
    if _Waiting.signal is not None:
        os._exit(128 + number)  # every file is whole or not there, so that leaving needs no tidying
    if not _Waiting.depth:
        raise Interrupted(number)
    _Waiting.signal = number
    print("stopping after the work in hand; once more to leave at once", file=sys.stderr, flush=True)


@contextmanager
def listening() -> Iterator[None]:
    """Handle SIGINT and SIGTERM as above in this block; outside the main thread, where Python cannot, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _handle) for number in HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _Waiting.signal = None
