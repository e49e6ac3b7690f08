"""What a run knows about itself: its declaration, its stages and its attempts, in one sealed file that names nothing by absolute path."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tracking.atomic import read_sealed, write_sealed
from tracking.kill_points import announce

NAME = "state.json"
FORMAT = "assay run 1"
Status = Literal["RUNNING", "INTERRUPTED", "FAILED", "FINISHED"]

announce("state", "a run's state")


def utc_now() -> str:
    """Wall time in UTC: a label, from which nothing is computed."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class StageState:
    """One stage.

    inputs: fingerprint of everything it depends on; outputs: relative name -> {bytes, sha256}; remarks: plain values that it left.
    code: version of the source that did it.
    """

    name: str
    status: Status
    sequence: int
    started: str
    inputs: str
    duration_s: float | None = None
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    remarks: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    code: str | None = None


@dataclass
class RunState:
    """state.json. run_id: our own name of the run, which survives renaming; attempts: each process that worked on it, with provenance."""

    run_id: str
    fingerprint: str
    declaration: dict[str, Any]
    created: str
    status: Status = "RUNNING"
    ended: str | None = None
    sequence: int = 0
    stages: dict[str, StageState] = field(default_factory=dict)
    attempts: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, directory: Path) -> RunState:
        """The state of the run in `directory`. Raises ContentError where it is damaged."""
        fields = read_sealed(directory / NAME, f"take it from a copy, or move {directory} away and begin again: finished shards stay in it")
        if fields.pop("format", None) != FORMAT:
            raise ValueError(f"{directory / NAME}: format: expected {FORMAT!r}; it was written by another version, begin again with --new")
        return cls(**{**fields, "stages": {name: StageState(**stage) for name, stage in fields["stages"].items()}})

    def write(self, directory: Path) -> None:
        """Replace state.json by this, with the next sequence number."""
        self.sequence += 1
        write_sealed(directory / NAME, {"format": FORMAT} | asdict(self), "state")
