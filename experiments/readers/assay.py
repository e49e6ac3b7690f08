"""Our own trace directories, or the run directories that hold one: sizes bounded, then checksums verified.

Splits are kept where there are several. A trace of test documents only is like one of a source without splits: the import deals them anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from analysis.trace import DocumentRow, TraceBatch, TraceError, TraceMeta
from experiments.readers import _json, _npz
from experiments.readers._columns import check_parquets
from experiments.readers.contract import ForeignCounts, ReadError, ReadOptions, Remark, refuse_irregular
from tracking import count_tables, trace_manifest
from tracking.traces import StoredTrace

NAME, KIND = "assay", "rows"


def recognises(path: Path) -> bool:
    """A directory with a trace's manifest or tables, itself or in `trace/`."""
    return directory_of(path) is not None


def read(path: Path, options: ReadOptions) -> OwnTrace | ForeignCounts:
    """The trace as it was stored; `options.domain` takes the place of every document's domain."""
    directory = directory_of(path)
    if directory is None:
        raise ReadError(f"{path}: no trace of ours; expected {trace_manifest.NAME} or {count_tables.LIST} in it or in its trace/")
    bounded(directory)
    try:
        if count_tables.is_counts(directory):
            if options.domain is not None:
                raise ReadError(f"{path}: counts keep their own domains; leave the label out")
            return ForeignCounts(**vars(count_tables.load(directory)))
        return OwnTrace(StoredTrace.open(directory), options.domain)
    except TraceError as error:
        raise ReadError(str(error)) from error


def bounded(directory: Path) -> None:
    """Raise ReadError where the files of a trace directory would become more than their sizes and the memory at hand allow, or end a reader.

    Everybody can seal a file, so that a checksum says nothing of where a directory comes from.
    """
    refuse_irregular(directory)
    if count_tables.is_counts(directory):
        _json.load(directory / count_tables.LIST)
        with _npz.Archive(directory / count_tables.TABLES):
            return
    _json.load(directory / trace_manifest.NAME)
    check_parquets(sorted(directory.glob("*.parquet")))


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
    kept = _json.load(path)
    remarks = kept.get("remarks", []) if isinstance(kept, dict) else None
    if not isinstance(remarks, list):
        raise ReadError(f"{path}: field remarks: expected a list; import the trace again")
    where = str(path)
    return tuple(Remark(_json.field(one, "code", str, where), _json.field(one, "words", str, where),
                        None if one.get("count") is None else _json.field(one, "count", int, where),
                        None if one.get("share") is None else _json.number(one, "share", where)) for one in remarks)


def directory_of(path: Path) -> Path | None:
    """The directory of a trace of ours: the path, or its trace/; None for anything else."""
    names = (trace_manifest.NAME, count_tables.LIST)
    return next((one for one in (path, path / "trace") if any((one / name).is_file() for name in names)), None)
