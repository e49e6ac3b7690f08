"""`assay inspect`: what is wrong with a trace, how much of it is touched, what that does to numbers, and what to do about it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from analysis.trace import SPLITS, CountsTrace, RoutingTrace, TraceError
from tracking import count_tables
from tracking.atomic import write_text

if TYPE_CHECKING:
    from analysis.audit import Flaw
    from experiments.importing import Reading

SCHEMA = "assay-audit/1"
WIDTH = 118


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `assay inspect` takes."""
    command.add_argument("traces", nargs="+", metavar="TRACE", help="run (directory or name), trace directory, or a file or folder that `assay "
                         "import` knows; several are also held against each other")
    from experiments.importing import add_reading

    command.add_argument("--split", default="all", choices=("all", *SPLITS), help="documents to look at")
    command.add_argument("--json", default=None, metavar="FILE", help="write the findings")
    command.add_argument("--accept", action="append", default=[], metavar="CODE", help="a finding that is known and accepted; it stays in the list")
    add_reading(command)


def opened(path: Path, reading: Reading | None = None) -> RoutingTrace | CountsTrace:
    """A trace with its rows, or the tables of a source that kept only counts; reading: what a foreign file does not say. Raises TraceError."""
    from experiments.readers import assay

    directory = assay.directory_of(path)
    if directory is not None and count_tables.is_counts(directory):
        assay.bounded(directory)
        if reading is not None:
            reading.refuse_for(path)
        return count_tables.load(directory)
    if path.exists() and directory is None:
        from experiments.importing import whole

        return whole(path, reading)
    from experiments.measuring import open_trace

    return open_trace(path, reading)


def findings(trace: RoutingTrace | CountsTrace, split: str | None = None) -> tuple[Flaw, ...]:
    """Every flaw of a trace. TraceError for rows that are no trace, or a split without documents."""
    from analysis.audit import audit, audit_tables

    if isinstance(trace, CountsTrace):
        return audit_tables(trace)
    if not any(split in (None, one.split) for one in trace.documents):
        raise TraceError(f"split {split or 'all'!r}: no documents; choose among {', '.join(dict.fromkeys(one.split for one in trace.documents))}")
    return audit(trace, split)


def run(root: Path, arguments: argparse.Namespace) -> int:
    """Print the findings of every trace, and write them if asked; findings are no failure."""
    from analysis.audit import differing_meta
    from experiments.importing import Reading
    from experiments.readers.contract import ReadError

    accepted = known(arguments.accept)
    split = None if arguments.split == "all" else arguments.split
    out = None if arguments.json is None else Path(arguments.json)
    if out is not None and not out.parent.is_dir():
        raise ValueError(f"--json {out}: the folder {out.parent} is not there; make it first")
    reading = Reading.of(arguments)
    labels = reading.domains or (None,) * len(arguments.traces)
    if len(labels) != len(arguments.traces):
        raise ReadError(f"--domain was given {len(labels)} times for {len(arguments.traces)} traces; give one for each, or none")
    traces = {name: opened(Path(name) if Path(name).exists() else root / name, replace(reading, domains=() if label is None else (label,)))
              for name, label in zip(arguments.traces, labels)}
    found = {name: findings(trace, split) for name, trace in traces.items()}
    apart = differing_meta([trace.meta for trace in traces.values()])
    for name, flaws in found.items():
        print("\n".join(lines(name, flaws, accepted)))
    if apart is not None:
        print("\n".join(lines("together", (apart,), accepted)))
    if out is not None:
        together = [] if apart is None else [apart.to_json()]
        write_text(out, json.dumps({"schema": SCHEMA, "split": arguments.split, "accepted": sorted(accepted), "together": together, "traces": [
            {"trace": name, **content(flaws, accepted)} for name, flaws in found.items()]}, indent=1, allow_nan=False) + "\n")
    return 0


def known(codes: Sequence[str]) -> frozenset[str]:
    """The accepted codes. ValueError for one that no finding has."""
    from analysis.audit import CODES

    unknown = sorted(set(codes) - set(CODES))
    if unknown:
        raise ValueError(f"accept {', '.join(unknown)}: no finding has this code; one of {', '.join(sorted(CODES))}")
    return frozenset(codes)


def content(flaws: Sequence[Flaw], accepted: Collection[str]) -> dict[str, Any]:
    """Findings as plain values, each with whether it was accepted."""
    return {"findings": [{**one.to_json(), "accepted": one.code in accepted} for one in flaws]}


def lines(name: str, flaws: Sequence[Flaw], accepted: Collection[str]) -> list[str]:
    """The findings for the eye: code, count, share, then what was seen, what follows and what to do."""
    out = [f"{name}: {'nothing found' if not flaws else f'{len(flaws)} findings'}"]
    for one in flaws:
        mark = "accepted" if one.code in accepted else one.severity
        out.append(f"  {one.code:<22} {mark:<13} {one.count:>12,} of {one.of:,} {one.unit} ({one.share:.2%})")
        for head, text in (("seen", one.words), ("where", "; ".join(one.where)), ("so", one.consequence), ("do", one.remedy)):
            if text:
                out += [f"    {head if not i else '':<6} {part}" for i, part in enumerate(wrap(text, WIDTH))]
    return out
