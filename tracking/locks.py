"""Locks that die with their holder: flock on a file beside what it guards, no process ids, nothing stale (faults spec §2.8)."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 120.0  # a database migration takes 3 s, on a busy machine ten times that


class LockError(RuntimeError):
    """A lock that another process keeps; the message names its file."""


@contextmanager
def locked(path: Path, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold the exclusive lock of `path`. Raises LockError when another process keeps it for `patience_s`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LockError(f"{path}: held by another process for {patience_s:.0f} s; `fuser {path}` names it") from None
                time.sleep(0.02)
        yield


class Presence:
    """Says that this process is at work on `path`, and tells whether any other is. Use `alone` only under an exclusive lock of its own."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = path.open("a")
        fcntl.flock(self._handle, fcntl.LOCK_SH)

    def alone(self) -> bool:
        """Whether no other living process is present."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            fcntl.flock(self._handle, fcntl.LOCK_SH)  # a failed upgrade drops the shared lock too
        return True

    def leave(self) -> None:
        """Be no longer present."""
        self._handle.close()
