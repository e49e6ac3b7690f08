"""Shares of work in processes of their own, which end with the one that asked for them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

Share = TypeVar("Share")
Work = Callable[[Share, Callable[[], None]], None]

ORPHAN_CHECK_S = 1.0
REMEDY = "what was finished is kept: ask again, with processes = 1 if memory is short"


class ShareError(RuntimeError):
    """A process that could not finish its share."""


def work_side_by_side(work: Work[Share], shares: Sequence[Share], on_done: Callable[[], None]) -> None:
    """Call work(share, done) in a process for each share; on_done here for each done() there.

    work is a function of a module and shares can be pickled, as both go to new interpreters. Raises ShareError, with its message, where one
    of them raises or dies; the others are ended then, and when this process is interrupted or killed.
    """
    context = multiprocessing.get_context("spawn")
    open_ones: dict[Connection, Any] = {}
    every = []
    try:
        for share in shares:
            ours, theirs = context.Pipe()
            process = context.Process(target=_do, args=(work, theirs, os.getpid()), daemon=True)
            process.start()
            every.append(process)
            theirs.close()
            open_ones[ours] = process
            with suppress(BrokenPipeError):  # it died at its start; what it said and its exit code are heard below
                ours.send(share)  # not as an argument: a large one waits for ever for a process that died before it read
        while open_ones:
            for connection in wait(list(open_ones)):
                assert isinstance(connection, Connection)
                _hear(connection, open_ones, on_done)
    finally:
        for process in every:
            process.terminate()
            process.join()


def _hear(connection: Connection, open_ones: dict[Connection, Any], on_done: Callable[[], None]) -> None:
    try:
        message = connection.recv_bytes().decode()
    except (EOFError, ConnectionResetError):
        process = open_ones.pop(connection)
        process.join()
        if process.exitcode:
            raise ShareError(f"a process ended with exit code {process.exitcode}; {REMEDY}") from None
        return
    if message:
        raise ShareError(message)
    on_done()


def _do(work: Work[Share], connection: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears of it and ends this process
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        work(connection.recv(), lambda: connection.send_bytes(b""))
    except Exception as error:
        connection.send_bytes(f"{type(error).__name__}: {error}".encode(errors="backslashreplace"))
    connection.close()


def _end_with(parent: int) -> None:
    """A killed parent cannot end its children, so that they look."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_S)
    os._exit(1)
