"""`assay import`: somebody else's trace as one of ours, with where it came from and what was met on the way."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from analysis.trace import CountsTrace, RoutingTrace
from experiments.imported_trace import Draw, ImportedTrace, Said, joined, opened
from experiments.progress import Console
from experiments.readers.contract import ReadError, ReadOptions
from experiments.specs import TraceSpec
from tracking import count_tables
from tracking.atomic import write_json


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `assay import` takes beside its paths."""
    spec = TraceSpec()
    command.add_argument("paths", nargs="+", metavar="PATH", help="files or folders of one model; the format is recognised by content")
    command.add_argument("--out", required=True, metavar="DIRECTORY", help="where the trace is written; a second call goes on with it")
    add_reading(command)
    command.add_argument("--test-share", type=float, default=spec.test_share, help="share of documents that are judged on; the others calibrate")
    command.add_argument("--salt", default=spec.salt, help="of the hash that deals documents to splits")


def add_reading(command: argparse.ArgumentParser) -> None:
    """What a file in a foreign format does not say by itself; the same options wherever such a file is taken."""
    command.add_argument("--format", default=None, help="name of the format, where content does not tell")
    command.add_argument("--domain", action="append", default=[], metavar="LABEL", help="label of a path's documents, one for each path in order")
    command.add_argument("--model", default=None, help="whose routing it is")
    command.add_argument("--n-experts", type=int, default=None, help="experts of a layer, where the file does not say")
    command.add_argument("--top-k", type=int, default=None, help="choices of a token, where the file does not say")
    command.add_argument("--layers", default=None, help="block indices of the MoE layers in order, such as 1,2,3")
    command.add_argument("--moe-layers", type=int, default=None, metavar="N", help="how many MoE layers the model has, where the file does not say; "
                         "it may hold some of them")
    command.add_argument("--leave-out-first", type=int, default=0, metavar="N", help="leave out the first rows of every document, such as those of "
                         "a chat template")
    command.add_argument("--mapping", type=Path, default=None, metavar="TOML", help="what the columns of a plain table mean")


@dataclass(frozen=True)
class Reading:
    """What was said on the command line of files in a foreign format. domains: a label for each path, or none."""

    options: ReadOptions = ReadOptions()
    format: str | None = None
    domains: tuple[str, ...] = ()
    said: Said = Said()

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Reading:
        """The options of add_reading. ReadError for layers that are no numbers."""
        named = arguments.layers.replace(",", " ").split() if arguments.layers else []
        if not all(one.isdecimal() for one in named):
            raise ReadError(f"--layers {arguments.layers}: give block indices such as 1,2,3")
        options = ReadOptions(None, arguments.model, arguments.n_experts, arguments.top_k, tuple(map(int, named)) or None, arguments.mapping)
        if arguments.leave_out_first < 0 or (arguments.moe_layers or 1) < 1:
            raise ReadError("--leave-out-first and --moe-layers: give numbers of rows from 0 and of layers from 1")
        return cls(options, arguments.format, tuple(arguments.domain), Said(arguments.moe_layers, arguments.leave_out_first))

    def refuse_for(self, path: Path) -> None:
        """Raise ReadError where something was said of a trace of ours, which says it itself."""
        if self != Reading():
            raise ReadError(f"{path}: a trace of ours says itself what its model, experts, layers and domains are; leave these options out")

    def trace(self, paths: Sequence[Path], draw: Draw) -> ImportedTrace | CountsTrace:
        """The files as one trace. Raises ReadError."""
        if self.domains and len(self.domains) != len(paths):
            raise ReadError(f"--domain was given {len(self.domains)} times for {len(paths)} paths; give one for each, or none")
        labelled = [replace(self.options, domain=label) for label in self.domains or (self.options.domain,) * len(paths)]
        return joined(opened(paths, labelled, self.format), draw, self.said)


def run(arguments: argparse.Namespace) -> int:
    """Import and say what was met."""
    if not 0 < arguments.test_share <= 1:
        raise ReadError(f"--test-share {arguments.test_share}: give a share above 0, at most 1")
    trace = Reading.of(arguments).trace([Path(path) for path in arguments.paths], Draw(arguments.test_share, arguments.salt))
    directory = Path(arguments.out)
    if isinstance(trace, CountsTrace):
        count_tables.save(trace, directory)
        print(f"{directory}: counts of {len(trace.domains)} domains and {len(trace.counts)} layers; no documents, so nothing can be resampled")
        remarks = [dict(remark) for remark in trace.meta.details.get("remarks", [])]
    else:
        remarks = _stored(trace, directory)
    for remark in remarks:
        share = "" if remark.get("share") is None else f" ({remark['share']:.2%})"
        count = "" if remark.get("count") is None else f" {remark['count']:,}"
        print(f"  {remark['code']}{count}{share}: {remark['words']}")
    return 0


def _stored(trace: ImportedTrace, directory: Path) -> list[dict[str, object]]:
    from experiments.stages.imported import store

    report = store(trace, directory, Console())
    write_json(directory / "collection.json", report)
    domains = dict.fromkeys(row.domain for row in trace.documents)
    print(f"{directory}: {report['rows']:,} tokens of {report['documents']:,} documents in {len(domains)} domains, "
          f"{len(trace.meta.layers)} layers; {report['seconds']:.1f} s")
    return list(report["remarks"])


def whole(path: Path, reading: Reading | None = None) -> RoutingTrace | CountsTrace:
    """A foreign file or folder as it is, every document in the split `test`, for what describes and does not judge. Raises ReadError."""
    return (reading or Reading()).trace([path], Draw(1.0, ""))
