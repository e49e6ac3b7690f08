"""`assay sample`: a small trace cut from a large one: whole documents, every domain and split by its share, chosen by hash."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.trace import CountsTrace, DocumentRow, RoutingTrace, TraceError

if TYPE_CHECKING:
    from tracking.traces import StoredTrace

Stratum = tuple[str, str]  # domain, split


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `assay sample` takes."""
    from experiments.importing import add_reading

    command.add_argument("trace", metavar="TRACE", help="run (directory or name), trace directory, or a file or folder that `assay import` knows")
    command.add_argument("out", metavar="OUT", help="directory of the sample, a trace like any other; a second call goes on with it")
    command.add_argument("--documents", type=int, required=True, metavar="N", help="how many documents are kept")
    command.add_argument("--salt", default="assay", help="of the hash that chooses among a domain's documents")
    add_reading(command)


def run(root: Path, arguments: argparse.Namespace) -> int:
    """Cut a sample and say what is in it."""
    from experiments.importing import Reading
    from experiments.inspecting import opened

    given = Path(arguments.trace)
    trace = opened(given if given.exists() else root / given, Reading.of(arguments))
    if isinstance(trace, CountsTrace):
        raise TraceError(f"{given}: holds counts and no documents, so that none can be chosen; it is small as it is")
    stored = write(trace, Path(arguments.out), arguments.documents, arguments.salt, given.name)
    domains = dict.fromkeys(row.domain for row in stored.documents)
    print(f"{arguments.out}: {stored.n_tokens:,} tokens of {len(stored.documents):,} documents in {len(domains)} domains, of "
          f"{len(trace.documents):,} documents of {given.name}")
    return 0


def write(trace: RoutingTrace, directory: Path, n_documents: int, salt: str, name: str) -> StoredTrace:
    """Store the chosen documents' rows, renumbered; `details.sampled` says of what and how. Raises TraceError."""
    from tracking.shards import chosen_rows
    from tracking.traces import StoredTrace, TraceWriter

    chosen = choose(trace.documents, n_documents, salt)
    numbers = np.full(max(row.document for row in trace.documents) + 1, -1, np.int32)
    numbers[[row.document for row in chosen]] = np.arange(len(chosen), dtype=np.int32)
    told = dict(trace.meta.details.get("document_lengths", {}))
    lengths = {str(numbers[int(number)]): length for number, length in told.items() if int(number) < len(numbers) and numbers[int(number)] >= 0}
    meta = replace(trace.meta, details={**trace.meta.details, **({"document_lengths": lengths} if told else {}), "sampled": {
        "trace": name, "digest": getattr(trace, "digest", None), "documents": len(chosen), "of": len(trace.documents), "salt": salt,
        "rule": "whole documents, by domain and split in proportion, least SHA-256 of salt and id first",
        "strata": [{"domain": domain, "split": split, "documents": n} for (domain, split), n in sorted(_sizes(chosen).items())]}})
    documents = [replace(row, document=number) for number, row in enumerate(chosen)]
    writer = TraceWriter.create_or_resume(directory, meta, documents)
    finished = writer.finished
    for number, batch in enumerate(trace.batches()):
        rows = numbers[batch.document] >= 0
        if number not in finished and rows.any():
            kept = chosen_rows(batch, rows)
            kept = replace(kept, document=numbers[kept.document])
            writer.write_shard(number, kept, np.unique(kept.document).tolist())
    writer.finish()
    return StoredTrace.open(directory)


def choose(documents: Sequence[DocumentRow], n_documents: int, salt: str) -> list[DocumentRow]:
    """n_documents in the trace's order: each domain and split by its share (shares), within them those with the least SHA-256(salt, id)."""
    if not 1 <= n_documents <= len(documents):
        raise TraceError(f"--documents {n_documents}: the trace has {len(documents):,} documents; choose from 1 to that many")
    strata: dict[Stratum, list[DocumentRow]] = {}
    for row in documents:
        strata.setdefault((row.domain, row.split), []).append(row)
    wanted = shares({stratum: len(rows) for stratum, rows in strata.items()}, n_documents)
    kept = {row.document for stratum, rows in strata.items() for row in sorted(rows, key=lambda row: _hash(salt, row.id))[: wanted[stratum]]}
    return [row for row in documents if row.document in kept]


def shares(sizes: Mapping[Stratum, int], n: int) -> dict[Stratum, int]:
    """n dealt to strata in proportion to their sizes by largest remainders, one at least to each where n reaches; never more than it has."""
    least = 1 if n >= len(sizes) else 0
    left, total = n - least * len(sizes), sum(size - least for size in sizes.values())
    exact = {stratum: left * (size - least) / total if total else 0.0 for stratum, size in sizes.items()}
    found = {stratum: least + int(exact[stratum]) for stratum in sizes}
    order = sorted(sizes, key=lambda stratum: (int(exact[stratum]) - exact[stratum], stratum))
    for stratum in order[: n - sum(found.values())]:
        found[stratum] += 1
    return found


def _hash(salt: str, name: str) -> bytes:
    return hashlib.sha256(f"{salt}\0{name}".encode()).digest()


def _sizes(rows: Sequence[DocumentRow]) -> dict[Stratum, int]:
    found: dict[Stratum, Any] = {}
    for row in rows:
        found[row.domain, row.split] = found.get((row.domain, row.split), 0) + 1
    return found
