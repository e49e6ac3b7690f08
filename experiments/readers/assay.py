"""Our own trace directories, or the run directories that hold one: checksums verified, splits kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from analysis.trace import DocumentRow, TraceBatch, TraceError, TraceMeta
from experiments.readers.contract import ForeignCounts, ReadError, ReadOptions, Remark
from tracking import count_tables, trace_manifest
from tracking.traces import StoredTrace

NAME, KIND = "assay", "rows"


def recognises(path: Path) -> bool:
    """A directory with a trace's manifest or tables, itself or in `trace/`."""
    return _directory(path) is not None


def read(path: Path, options: ReadOptions) -> OwnTrace | ForeignCounts:
    """The trace as it was stored; `options.domain` takes the place of every document's domain."""
    directory = _directory(path)
    if directory is None:
        raise ReadError(f"{path}: no trace of ours; expected {trace_manifest.NAME} or {count_tables.LIST} in it or in its trace/")
    try:
        if count_tables.is_counts(directory):
            if options.domain is not None:
                raise ReadError(f"{path}: counts keep their own domains; leave the label out")
            return ForeignCounts(**vars(count_tables.load(directory)))
        return OwnTrace(StoredTrace.open(directory), options.domain)
    except TraceError as error:
        raise ReadError(str(error)) from error


class OwnTrace:
    """A stored trace as a foreign one: documents numbered from 0, a batch for each row group."""

    def __init__(self, trace: StoredTrace, domain: str | None) -> None:
        self._trace, self._domain = trace, domain
        self.remarks: Sequence[Remark] = _kept_remarks(trace.directory)
        self._number = {row.document: number for number, row in enumerate(trace.documents)}

    @property
    def meta(self) -> TraceMeta:
        """As stored."""
        return self._trace.meta

    @property
    def documents(self) -> Sequence[DocumentRow]:
        """As stored, numbered from 0."""
        return tuple(DocumentRow(number, row.id, self._domain or row.domain, row.split) for number, row in enumerate(self._trace.documents))

    def batches(self, *, after: int = -1) -> Iterator[tuple[int, TraceBatch]]:
        """Row groups in the store's order."""
        from dataclasses import replace

        import numpy as np

        numbers = np.full(max(self._number) + 1, -1, np.int32)
        numbers[list(self._number)] = list(self._number.values())
        for number, batch in enumerate(self._trace.batches()):
            if number > after:
                yield number, replace(batch, document=numbers[batch.document])


def _kept_remarks(directory: Path) -> tuple[Remark, ...]:
    """What the import met that made this trace; none for a trace of our own capture."""
    path = directory / "collection.json"
    if not path.is_file():
        return ()
    kept = json.loads(path.read_text(encoding="utf-8")).get("remarks", [])
    return tuple(Remark(one["code"], one["words"], one.get("count"), one.get("share")) for one in kept)


def _directory(path: Path) -> Path | None:
    names = (trace_manifest.NAME, count_tables.LIST)
    return next((one for one in (path, path / "trace") if any((one / name).is_file() for name in names)), None)
