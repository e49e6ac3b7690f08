"""One process to a run: a lock that dies with its holder and says who that is."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from tracking.atomic import storage_errors

NAME = "lock"


class HeldError(RuntimeError):
    """Another process has the run; the message says which, where and since when."""


class RunLock:
    """The exclusive lock of a run directory, held from construction to `release`. Raises HeldError at once, with no byte written."""

    def __init__(self, directory: Path) -> None:
        path = directory / NAME
        with storage_errors(path, 100):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            words = _holder(os.pread(self._descriptor, 4096, 0))
            os.close(self._descriptor)
            raise HeldError(f"{directory}: {words}; wait for it, or begin another run with --new") from None
        if os.fstat(self._descriptor).st_ino != os.stat(path).st_ino:
            os.close(self._descriptor)
            raise HeldError(f"{path}: was removed and made again by another process just now; try once more")
        content = json.dumps({"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat(timespec="seconds")})
        with storage_errors(path, len(content)):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, content.encode(), 0)

    def release(self) -> None:
        """Let the next process in."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _holder(content: bytes) -> str:
    try:
        holder = json.loads(content)
        return f"held by pid {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # it has taken the lock and not yet written who it is
        return "held by another process since a moment ago"
