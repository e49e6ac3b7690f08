"""Progress of long stages: bars on a terminal, one line now and then in a log, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LOG_EVERY_S = 10.0


class Task(Protocol):
    """One long piece of work under way."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done."""

    def note(self, text: str) -> None:
        """Show a short remark beside the bar."""


class Progress(Protocol):
    """Where a stage tells how far it is."""

    def stage(self, name: str, total: int | None = None, unit: str = "") -> AbstractContextManager[Task]:
        """Open a task of `total` units (unknown, if None)."""


class _Nothing:
    def advance(self, n: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class Silent:
    """Says nothing; for tests and library use."""

    @contextmanager
    def stage(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Task]:
        """Open a task that shows nothing."""
        yield _Nothing()


class _Bar:
    def __init__(self, bars: RichProgress, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, n: int = 1) -> None:
        self._bars.advance(self._task, n)

    def note(self, text: str) -> None:
        self._bars.update(self._task, note=text)


class _Line:
    """One line at the start, then at most one every ten seconds, then one at the end."""

    def __init__(self, name: str, total: int | None, unit: str) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._done, self._remark = 0, ""
        self._start = self._last = time.monotonic()

    def advance(self, n: int = 1) -> None:
        self._done += n
        if time.monotonic() - self._last >= LOG_EVERY_S:
            self._last = time.monotonic()
            self._print()

    def note(self, text: str) -> None:
        self._remark = text

    def _print(self) -> None:
        elapsed = time.monotonic() - self._start
        rate = self._done / elapsed if elapsed > 0 else 0.0
        left = f", {(self._total - self._done) / rate:.0f} s left" if self._total and rate > 0 else ""
        of = f" of {self._total:,}" if self._total else ""
        print(f"{self._name}: {self._done:,}{of} {self._unit}, {rate:,.0f} {self._unit}/s{left} {self._remark}".rstrip(), file=sys.stderr)

    def close(self) -> None:
        elapsed = time.monotonic() - self._start
        done = f"{self._done:,} {self._unit}, " if self._done else ""
        print(f"{self._name}: {done}{elapsed:.1f} s {self._remark}".rstrip(), file=sys.stderr)


class Console:
    """Bars with rate and time left on a terminal; log lines elsewhere."""

    @contextmanager
    def stage(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Task]:
        """Open a task that shows its rate and the time left."""
        if not sys.stderr.isatty():
            line = _Line(name, total, unit)
            yield line
            line.close()
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        class Rate(TextColumn):
            def render(self, task):  # type: ignore[no-untyped-def]
                from rich.text import Text

                return Text(f"{task.speed:,.0f} {unit}/s" if task.speed and unit else "")

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(""), TimeElapsedColumn(), TimeRemainingColumn(),
                   TextColumn("{task.fields[note]}"))
        with RichProgress(*columns, console=RichConsole(stderr=True)) as bars:
            yield _Bar(bars, bars.add_task(name, total=total, note=""))
