"""`assay measure` and `assay metrics`: every number a trace gives, and what each number means."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.audit.flaw import FAMILIES
from analysis.gates import gated
from analysis.registry import find
from analysis.survey import Row, SurveyPlan, survey
from analysis.trace import CountsTrace, RoutingTrace, TraceError
from tracking.atomic import write_text

if TYPE_CHECKING:
    from experiments.importing import Reading


def open_trace(path: Path, reading: Reading | None = None) -> RoutingTrace:
    """The trace of a run directory, a trace directory, or a file or folder in a foreign format; TraceError says what was looked for.

    reading: what the files of a foreign format do not say.
    """
    for directory in (path, path / "trace"):
        if (directory / "manifest.json").is_file():
            from experiments.readers.assay import bounded
            from tracking.traces import StoredTrace

            if reading is not None:
                reading.refuse_for(path)
            bounded(directory)
            return StoredTrace.open(directory)
    if not path.exists():
        raise TraceError(f"{path}: no trace; give a run directory, its trace directory (with manifest.json), or a file that `assay import` knows")
    from experiments.importing import whole

    trace = whole(path, reading)
    if isinstance(trace, CountsTrace):
        raise TraceError(f"{path}: holds counts and no documents, so that nothing can be resampled; describe it with: make experiment EXP=atlas")
    return trace


FAMILIES_OF = {  # module of analysis.metrics -> what the audit calls what its numbers are made of; others rest on everything
    "usage": ("loads",), "association": ("loads", "domains"), "specialization": ("loads", "domains"), "coactivation": ("loads",),
    "coactivation_clusters": ("loads",), "information": ("slots", "layers"), "excess": ("slots", "layers"), "coupling": ("slots", "layers"),
    "transfer": ("slots", "layers", "domains"), "sequence": ("slots", "sequence"), "repetition": ("slots", "sequence"),
    "entropy": ("router_entropy",), "frequency": ("router_entropy", "types"), "zipf": ("types",)}
FLAWED = "flawed_trace"


def rows_of(trace: RoutingTrace, plan: SurveyPlan, accepted: Collection[str] = ()) -> Iterator[Row]:
    """The survey of a trace; `plan.split` must have documents. A number that a finding of the audit invalidates is gated, unless accepted."""
    from analysis.audit import invalidating
    from experiments.inspecting import findings

    flaws = findings(trace, plan.split)
    for row in survey(trace, plan):
        module = find(row.metric).function.__module__.rpartition(".")[2]
        spoiled = invalidating(flaws, ("intervals", *FAMILIES_OF.get(module, FAMILIES)), accepted)
        reason = f"{FLAWED}: {', '.join(one.code for one in spoiled)}; see assay inspect, or --accept what does no harm" if spoiled else None
        yield replace(row, estimate=gated(row.estimate, reason))


def destination(path: Path) -> Path:
    """The file to write, checked before anything is counted; ValueError for another ending than .csv or .json, or a folder that is not there."""
    if path.suffix not in (".csv", ".json"):
        raise ValueError(f"--out {path}: rows are written as .csv or .json")
    if not path.parent.is_dir():
        raise ValueError(f"--out {path}: the folder {path.parent} is not there; make it first")
    return path


def written(rows: Sequence[Row], path: Path) -> None:
    """Write rows as CSV or JSON, by the file's ending (see destination)."""
    flat = [row.to_json() for row in rows]
    if path.suffix == ".json":
        write_text(path, json.dumps(flat, indent=1, allow_nan=False) + "\n")
        return
    text = io.StringIO()
    table = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(flat)
    write_text(path, text.getvalue())


def line(row: Row) -> str:
    """A row for the eye: value with its interval, null and status."""
    one, fields = row.estimate, row.to_json()
    value = "-" if one.value is None else _number(one.value)
    interval = "" if one.low is None or one.high is None else f"[{_number(one.low)}, {_number(one.high)}]"
    null = "" if one.null is None else f"null {_number(one.null)}"
    where = " > ".join(key.removeprefix("model.") for key in row.layers) if len(row.layers) < 3 else f"{len(row.layers)} layers"
    words = "" if row.status == "estimated" else f"{row.status}{f': {row.reason}' if row.reason else ''}"
    return f"{row.metric:<28} {where:<44} {fields['part']:<12} {value:>9} {interval:<22} {one.unit:<18} {null:<16} {words}".rstrip()


def catalogue() -> list[dict[str, Any]]:
    """The register of metrics, one entry each."""
    from analysis.registry import every

    return [{"id": one.id, "definition": one.definition, "unit": one.unit, "undefined": one.undefined, "interval": one.estimator,
             "seed": one.seed, "seed_form": one.seed_form, "source": one.source} for one in every().values()]


def _number(x: float) -> str:
    return f"{x:.4g}" if abs(x) >= 1e-4 or x == 0 else "0.0000" if x > 0 else "-0.0000"
