"""One execution of an experiment in its directory: held by one process, resumed stage by stage, refused when the declaration changed."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from tracking import provenance
from tracking.atomic import PART, StorageError, sha256_file, storage_errors, write_json
from tracking.run_lock import NAME as LOCK
from tracking.run_lock import HeldError, RunLock
from tracking.run_state import NAME as STATE
from tracking.run_state import RunState, StageState, Status, utc_now
from tracking.signals import Interrupted, deferred, listening
from tracking.trace_meta import difference_table, differences, fingerprint
from tracking.untrusted import inside, safe_name

__all__ = ["HeldError", "Run", "RunError", "Stage"]

DECLARATION = "declaration.json"
ORPHANS = "orphans"


class RunError(RuntimeError):
    """A run that cannot go on as asked; the message names what differs and the remedies."""


class Stage:
    """A stage under way. remarks: plain values to keep with it."""

    def __init__(self, directory: Path, state: StageState) -> None:
        self._directory, self._state = directory, state
        self.remarks: dict[str, Any] = {}

    def output(self, path: Path | str) -> Path:
        """Name a file of the run directory that this stage has written; the stage is done again when it is gone or changed."""
        full = inside(self._directory, self._directory.resolve() / path if not Path(path).is_absolute() else path)
        relative = full.relative_to(self._directory.resolve()).as_posix()
        self._state.outputs[relative] = {"bytes": full.stat().st_size, "sha256": sha256_file(full)}
        return full


class Run:
    """A run held by this process. Make one with `open` or `resume`, use it as a context: leaving it writes the state and frees the lock."""

    def __init__(self, directory: Path, lock: RunLock, state: RunState, notices: Sequence[str]) -> None:
        self.directory, self.state, self.notices = directory, state, list(notices)
        self._lock, self._before = lock, state.status
        self._signals = ExitStack()
        self._order: list[str] = []

    @classmethod
    def open(cls, root: Path, name: str, declaration: Mapping[str, Any], *, new: bool = False) -> Run:
        """Begin the run `name` under `root`, or go on with it; new: under the next free name instead.

        Raises StorageError where nothing can be written, HeldError when another process has it, and RunError, with a table of field, was
        and is, when it was begun with another declaration; all before any work.
        """
        safe_name(name, "run")
        _check_writable(root)
        directory = _next_free(root, name) if new else root / name
        with storage_errors(directory, 0):
            directory.mkdir(exist_ok=True)
        return cls._enter(directory, dict(declaration))

    @classmethod
    def resume(cls, root: Path, run: str) -> Run:
        """Go on with a run, by its directory or by its name under `root`, under the declaration that it began with."""
        directory = next((path for path in (Path(run), root / run) if (path / STATE).is_file()), None)
        if directory is None:
            raise RunError(f"{run}: no run there and none of that name under {root}; `assay list` shows them")
        return cls._enter(directory, None)

    @classmethod
    def _enter(cls, directory: Path, declaration: dict[str, Any] | None) -> Run:
        _check_writable(directory)
        lock = RunLock(directory)
        try:
            state, notices = _load(directory, declaration)
            run = cls(directory, lock, state, notices)
            run._begin_attempt()
        except BaseException:
            lock.release()
            raise
        return run

    def _begin_attempt(self) -> None:
        if self._before == "RUNNING" and self.state.attempts:
            self.notices.append(f"{self.directory.name}: an earlier process ended without a word; going on after its last finished stage")
        self.state.status, self.state.ended = "RUNNING", None
        self.state.attempts.append({"sequence": self.state.sequence + 1, "utc": utc_now(), **provenance.snapshot()})
        self._write()
        write_json(self.directory / DECLARATION, self.state.declaration)
        self._signals.enter_context(listening())
        for notice in self.notices:
            print(notice, file=sys.stderr)

    @property
    def name(self) -> str:
        """Name of the run's directory, a label: the run may be moved and renamed."""
        return self.directory.resolve().name

    @property
    def run_id(self) -> str:
        """The run's own name, which stays."""
        return self.state.run_id

    @property
    def declaration(self) -> dict[str, Any]:
        """The resolved declaration that the run began with."""
        return self.state.declaration

    @property
    def started_ms(self) -> int:
        """Wall clock of the run's beginning, UTC milliseconds; a label that stays the same over attempts."""
        return int(datetime.fromisoformat(self.state.created).timestamp() * 1000)

    @property
    def resume_command(self) -> str:
        """What to type to go on."""
        return f"assay resume {self.directory}"

    def needs(self, name: str, inputs: str, faults: Sequence[str] = ()) -> bool:
        """Whether stage `name` is still to do: never finished, finished from other inputs, its outputs gone or changed, or `faults` found.

        faults: what is wrong with large outputs that are checked elsewhere, such as StoredTrace.faults().
        """
        reason = self._why(name, inputs, faults)
        if reason:
            print(f"stage {name}: again, {reason}", file=sys.stderr)
        return reason != ""

    def _why(self, name: str, inputs: str, faults: Sequence[str]) -> str | None:
        """Why a stage is to be done again; "" if it is not, None if it was never finished."""
        stage = self.state.stages.get(name)
        if stage is None or stage.status != "FINISHED":
            return None
        if stage.inputs != inputs:
            return "its inputs have changed"
        changed = [relative for relative, listed in stage.outputs.items() if not _intact(self.directory / relative, listed)]
        return "; ".join([*faults, *(f"{relative} is gone or changed" for relative in changed)])

    @contextmanager
    def stage(self, name: str, inputs: str, *, defers: bool = False) -> Iterator[Stage]:
        """Do a stage in this block; it is finished when the block ends without an exception.

        defers: a signal waits for the next pause_point of the stage (TraceWriter.write_shard is one) instead of raising where it falls.
        """
        safe_name(name, "stage")
        state = StageState(name, "RUNNING", self.state.sequence + 1, utc_now(), inputs)
        self.state.stages[name] = state
        self._write()
        stage, started = Stage(self.directory, state), time.monotonic()
        try:
            if defers:
                with deferred():
                    yield stage
            else:
                yield stage
        except BaseException as error:
            state.status = "INTERRUPTED" if isinstance(error, Interrupted | KeyboardInterrupt) else "FAILED"
            state.error = f"{type(error).__name__}: {error}"[:2000]
            state.duration_s = time.monotonic() - started
            raise
        state.status, state.duration_s, state.remarks = "FINISHED", time.monotonic() - started, stage.remarks
        self._write()

    def finish(self) -> None:
        """Mark the run as finished: every stage has been done or was found done."""
        self.state.status = self._before = "FINISHED"
        self.state.ended = utc_now()
        self._write()

    def _write(self) -> None:
        with deferred():
            self.state.write(self.directory)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Write how it ended, print how to go on, and free the lock."""
        self._signals.close()
        status: Status = "INTERRUPTED" if self._before == "RUNNING" else self._before
        if error is not None:
            status = "INTERRUPTED" if isinstance(error, Interrupted | KeyboardInterrupt) else "FAILED"
        try:
            if status != self.state.status:
                self.state.status, self.state.ended = status, utc_now()
                self.state.write(self.directory)
        except (StorageError, OSError) as failure:
            print(f"{failure}; the state stays as it was", file=sys.stderr)
        finally:
            self._lock.release()
        if status == "INTERRUPTED" and error is not None:
            print(f"interrupted; what is finished is kept. Go on with: {self.resume_command}", file=sys.stderr, flush=True)


def _check_writable(directory: Path) -> None:
    """Raise StorageError, before any work, where a file cannot be made in `directory` (made itself, if it is not there)."""
    probe = directory / f".writable-{secrets.token_hex(4)}{PART}"
    with storage_errors(probe, 1):
        directory.mkdir(parents=True, exist_ok=True)
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        probe.unlink()


def _next_free(root: Path, name: str) -> Path:
    for number in range(1, 100_000):
        directory = root / (name if number == 1 else f"{name}-{number}")
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        return directory
    raise RunError(f"{root}: no free name for another {name}; remove old runs")


def _load(directory: Path, declaration: dict[str, Any] | None) -> tuple[RunState, list[str]]:
    """The state in `directory`, new if there is none, and what was set aside. Raises RunError where the declaration is another."""
    if (directory / STATE).exists():
        state = RunState.read(directory)
        _same_declaration(directory, state, _read_declaration(directory) if declaration is None else declaration)
    elif declaration is None or any(path.name not in (LOCK, ORPHANS) and path.suffix != PART for path in directory.iterdir()):
        raise RunError(f"{directory}: holds files but no {STATE}; it is not a run: move it away, or begin under another root")
    else:
        state = RunState(secrets.token_hex(8), fingerprint(declaration), declaration, utc_now())
    return state, _sweep(directory)


def _read_declaration(directory: Path) -> Any:
    import json

    try:
        return json.loads((directory / DECLARATION).read_bytes())
    except FileNotFoundError:  # a death before it was written; the state has it
        return RunState.read(directory).declaration
    except ValueError as error:
        raise RunError(f"{directory / DECLARATION}: not JSON ({error}); remove it, the state has another copy") from error


def _same_declaration(directory: Path, state: RunState, declaration: Any) -> None:
    changed = differences(state.declaration, declaration)
    if changed:
        raise RunError(f"{directory}: the declaration has changed since this run began; restore what it was, or begin another run with "
                       f"--new\n{difference_table(changed)}")


def _sweep(directory: Path) -> list[str]:
    """Move what a dead process left half written into orphans/, and say so."""
    notices = []
    for path in sorted(directory.rglob(f"*{PART}")):
        if ORPHANS in path.relative_to(directory).parts or path.is_symlink():
            continue
        with storage_errors(path, 0):
            (directory / ORPHANS).mkdir(exist_ok=True)
            path.rename(directory / ORPHANS / path.name)
        notices.append(f"{path}: half written by a process that died; set aside in {directory / ORPHANS}")
    return notices


def _intact(path: Path, listed: Mapping[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == listed["bytes"] and sha256_file(path) == listed["sha256"]
