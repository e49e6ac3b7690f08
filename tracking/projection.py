"""What of a run is shown in MLflow, as plain values that MLflow accepts."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MAX_KEY = 250  # characters; MLflow 3.17, mlflow/utils/validation.py
MAX_PARAM = 6000
MAX_TAG = 8000
MAX_DATASET_DIGEST = 36
MAX_STEP = 2 ** 63
STATUSES = ("RUNNING", "FINISHED", "FAILED", "KILLED")

Point = tuple[str, float, int]


@dataclass(frozen=True)
class Projection:
    """A run as its MLflow page shows it; grows from stage to stage, and a replay of it changes nothing.

    experiment: name of the hypothesis. run_name: "<model> <VERDICT>", below 20 characters to be seen whole. run_id: our own name of it.
    status: one of STATUSES, RUNNING until the last stage ended. started_ms, ended_ms: wall clock of the run in UTC milliseconds, from
    its state file: every metric carries started_ms, which makes a replay hit the same rows.
    metrics: (name, value, step) in the order in which they are logged; the first becomes the comparison page's axis. None: undefined.
    note: Markdown. datasets: (name, digest, source, context). artifacts: (local file or directory, folder in MLflow, "" for the root).
    """

    experiment: str
    run_name: str
    run_id: str
    status: str
    started_ms: int
    ended_ms: int | None = None
    params: Mapping[str, object] = field(default_factory=dict)
    metrics: Sequence[tuple[str, float | None, int]] = ()
    tags: Mapping[str, object] = field(default_factory=dict)
    note: str = ""
    datasets: Sequence[tuple[str, str, str, str]] = ()
    artifacts: Sequence[tuple[Path, str]] = ()

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"Projection.status is {self.status!r}; use one of {', '.join(STATUSES)}")


@dataclass(frozen=True)
class Accepted:
    """A projection under MLflow's rules; `unpublished` names each thing that those rules kept out, with the reason."""

    params: dict[str, str]
    points: tuple[Point, ...]
    tags: dict[str, str]
    unpublished: tuple[str, ...]


def mlflow_name(name: str) -> str:
    """`name` with every run of characters that MLflow refuses replaced by one "_"; never empty, at most MAX_KEY characters."""
    clean = re.sub(r"[^\w.\- :/]+", "_", name).strip()
    clean = posixpath.normpath(clean).lstrip("/") if clean else "_"  # "a//b" and "../a" would "resolve to other names"
    clean = "_" + clean.lstrip(".") if clean.startswith("..") or clean == "." else clean
    return clean[:MAX_KEY].rstrip("/ ") or "_"


def _distinct(names: Sequence[str]) -> dict[str, str]:
    """MLflow's name for each of `names`, numbered where two would fall together."""
    chosen: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        if name in chosen:
            continue
        base = candidate = mlflow_name(name)
        number = 1
        while candidate in taken:
            number += 1
            candidate = f"{base[:MAX_KEY - 6]}_{number}"
        taken.add(candidate)
        chosen[name] = candidate
    return chosen


def _texts(values: Mapping[str, object], longest: int, kind: str) -> tuple[dict[str, str], list[str]]:
    names = _distinct(list(values))
    kept, refused = {}, []
    for name, value in values.items():
        if value is None:
            continue
        text = str(value)
        if len(text) > longest:
            refused.append(f"{kind} {name} ({len(text)} characters, MLflow takes {longest})")
        else:
            kept[names[name]] = text
    return kept, refused


def _points(metrics: Sequence[tuple[str, float | None, int]]) -> tuple[list[Point], list[str]]:
    names = _distinct([name for name, _, _ in metrics])
    kept, refused = [], []
    for name, value, step in metrics:
        if value is None or not math.isfinite(value):
            why = "undefined" if value is None or math.isnan(value) else f"{value}"
            refused.append(f"metric {name} step {step} ({why})")
        elif not -MAX_STEP <= step < MAX_STEP:
            refused.append(f"metric {name} step {step} (no 64-bit integer)")
        else:
            kept.append((names[name], float(value), int(step)))
    return kept, refused


def accept(projection: Projection) -> Accepted:
    """The projection under MLflow's rules: clean names, finite values, lengths within limits; the rest is named."""
    params, long_params = _texts(projection.params, MAX_PARAM, "param")
    points, undefined = _points(projection.metrics)
    tags, long_tags = _texts(projection.tags, MAX_TAG, "tag")
    return Accepted(params, tuple(points), tags, (*long_params, *undefined, *long_tags))


def shortened(lines: Sequence[str], longest: int = MAX_TAG) -> str:
    """`lines` joined by newlines; what passes `longest` characters is replaced by a count of the lines left out."""
    kept: list[str] = []
    room = longest - 40
    for number, line in enumerate(lines):
        room -= len(line) + 1
        if room < 0:
            return "\n".join([*kept, f"... and {len(lines) - number} more lines"])
        kept.append(line)
    return "\n".join(kept)
