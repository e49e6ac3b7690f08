"""Corpus and collection of a run whose routing was recorded elsewhere: the documents of its files, and their rows into the run's own store."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.trace import SPLITS, CountsTrace, TraceError
from experiments import claims
from experiments.collection import counts_of_rows
from experiments.evaluation_files import plain
from experiments.imported_trace import Draw, ImportedTrace, Said, joined, opened
from experiments.readers.contract import ReadError, ReadOptions, Remark
from experiments.specs import TraceSpec
from experiments.stages.collect import keep_type_counts
from tracking import count_tables
from tracking.atomic import write_json
from tracking.shards import TYPES

TALLY = "remarks-{:08d}.json"  # beside the shard of this number

if TYPE_CHECKING:
    from experiments.declaration import Experiment
    from experiments.progress import Progress
    from experiments.stages.context import Context
    from tracking.traces import StoredTrace


def open_declared(spec: TraceSpec) -> ImportedTrace | CountsTrace:
    """The declared files as one trace. Raises ReadError, naming file, place and remedy."""
    paths = [Path(path).expanduser() for path in spec.paths]
    labels = spec.domains or (None,) * len(paths)
    options = [ReadOptions(label, spec.model, spec.n_experts, spec.top_k, spec.layers, Path(spec.mapping) if spec.mapping else None)
               for label in labels]
    return joined(opened(paths, options, spec.format), Draw(spec.test_share, spec.salt),
                  Said(spec.moe_layers, spec.leave_out_first))


def documents(context: Context) -> dict[str, Any]:
    """The corpus stage: which documents the files hold, by domain and split, and the digest that they are recognised by."""
    trace = context.imported
    manifest = _counts_manifest(trace) if isinstance(trace, CountsTrace) else _manifest(trace)
    write_json(context.directory / "corpus" / "manifest.json", plain(manifest))
    return {"sha256": manifest["sha256"], "documents": manifest["n_documents"]}


def _manifest(trace: ImportedTrace) -> dict[str, Any]:
    counts = Counter((row.domain, row.split) for row in trace.documents)
    domains = list(dict.fromkeys(row.domain for row in trace.documents))
    return {"origin": trace.meta.details["imported"], "sha256": trace.digest, "n_documents": len(trace.documents),
            "documents": {domain: {split: counts[domain, split] for split in SPLITS} for domain in domains}, "empty_domains": []}


def _counts_manifest(trace: CountsTrace) -> dict[str, Any]:
    files = trace.meta.details["imported"]
    return {"origin": files, "sha256": counts_digest(trace),
            "n_documents": 0, "domains": list(trace.domains), "empty_domains": []}


def counts_digest(trace: CountsTrace) -> str:
    """What the files of a trace without rows are recognised by."""
    return " ".join(one["sha256"] for one in trace.meta.details["imported"])


def model(context: Context) -> dict[str, Any]:
    """The model stage: nothing is trained or opened; the files say whose routing it is."""
    return {"model": context.imported.meta.model}


def collect(context: Context) -> dict[str, Any]:
    """The collect stage: every row into the run's store, shard by shard, or the tables where only counts were kept."""
    trace = context.imported
    directory = context.directory / "trace"
    if isinstance(trace, CountsTrace):
        digest = count_tables.save(trace, directory)
        write_json(directory / "collection.json", plain({"remarks": trace.meta.details.get("remarks", [])}))
        return {"digest": digest, "rows": 0}
    report = store(trace, directory, context.progress)
    _keep_type_counts(context)
    write_json(directory / "collection.json", plain(report))
    return {"digest": context.trace.digest, "rows": context.trace.n_tokens}


def require(experiment: Experiment) -> None:
    """Read the declared files as far as their first rows, before a run directory exists.

    Raises ReadError for what cannot be read, TraceError where a hypothesis needs a column that the source did not record.
    """
    trace = open_declared(experiment.trace)
    if isinstance(trace, CountsTrace):
        return
    first = next((batch for _, batch in trace.numbered()), None)
    if first is None:
        raise ReadError(f"{', '.join(experiment.trace.paths)}: not a row; a trace needs at least one")
    for name in experiment.hypotheses:
        missing = [one for one in getattr(claims.of(name), "NEEDS", ()) if getattr(first, one) is None]
        if missing:
            raise TraceError(f"{', '.join(experiment.trace.paths)}: columns {', '.join(missing)}: absent, and hypothesis {name!r} is about "
                             "them; take a trace whose source records them")


def _keep_type_counts(context: Context) -> None:
    """Type frequencies of the calibration documents; the strings of the types are not known."""
    trace = context.trace
    if TYPES in (trace.manifest.columns or ()):
        documents = [row for row in trace.documents if row.split != "test"]
        rows = (batch for split in ("train", "calibration") for batch in trace.batches(split=split, columns=()))
        keep_type_counts(context, counts_of_rows(documents, rows, trace.meta.vocabulary_size), ())


def store(trace: ImportedTrace, directory: Path, progress: Progress) -> dict[str, Any]:
    """Write the rows of a foreign trace as a trace of ours in `directory`, or go on with it; returns rows, seconds and remarks.

    A shard that is finished is not read again: what it adds to the remarks is kept beside it. Raises TraceError for rows that are no routing.
    """
    import numpy as np

    from tracking.traces import StoredTrace, TraceWriter

    began = time.monotonic()
    writer = TraceWriter.create_or_resume(directory, trace.meta, trace.documents)
    lost = sum(not trace.remember(number, _tally(directory, number)) for number in sorted(writer.finished))
    with progress.stage("import", None, "tokens") as task:
        for number, batch in trace.numbered(writer.finished):
            if not len(batch):
                raise ReadError(f"{trace.parts[0].path}: batch {number} has no row; its documents are empty: leave them out")
            if trace.tally(number) is not None:  # before its shard: none is finished without
                write_json(directory / TALLY.format(number), trace.tally(number))
            writer.write_shard(number, batch, np.unique(batch.document).tolist())
            task.advance(len(batch))
    writer.finish()
    stored: StoredTrace = StoredTrace.open(directory)
    return {"rows": stored.n_tokens, "documents": len(stored.documents), "seconds": time.monotonic() - began,
            "remarks": [{"file": Path(path).name, **asdict(remark)} for path, remark in trace.remarks] + _incomplete(trace, lost)}


def _tally(directory: Path, number: int) -> tuple[int, dict[str, int]] | None:
    """What an earlier call kept of a finished shard; None where it kept nothing, or nothing whole."""
    try:
        rows, counts = json.loads((directory / TALLY.format(number)).read_text(encoding="utf-8"))
        return int(rows), {str(code): int(count) for code, count in counts.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _incomplete(trace: ImportedTrace, lost: int) -> list[dict[str, Any]]:
    """A remark on shards of which nothing was kept."""
    said = Remark("remarks_incomplete", "shards that an earlier call wrote without what was met in them: counts of other remarks are of the rest; "
                  "import into a new directory", lost)
    return [{"file": trace.parts[0].path.name, **asdict(said)}] if lost else []
