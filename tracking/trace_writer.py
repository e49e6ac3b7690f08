"""Writes a trace shard by shard, so that a death at any moment loses the shard in hand and nothing else."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.trace import DocumentRow, TraceBatch, TraceError, TraceMeta
from tracking import trace_manifest
from tracking.atomic import PART, StorageError, storage_errors, sync_directory, write_bytes
from tracking.kill_points import announce
from tracking.shards import canonical, columns_of, encode, footer_sha256
from tracking.signals import deferred, pause_point
from tracking.trace_checks import check_batch, check_positions
from tracking.trace_digest import TraceDigest
from tracking.trace_manifest import ListedFile, ListedShard, Manifest
from tracking.trace_meta import (
    check_documents,
    check_meta,
    difference_table,
    differences,
    documents_table,
    fingerprint,
    meta_to_json,
    read_documents,
)

DOCUMENTS = "documents.parquet"
ORPHANS = "orphans"

announce("shard", "a shard of a trace")


class TraceWriter:
    """A trace being collected. Make one with `create_or_resume`; one writer at a time, which the run's lock sees to.

    orphans: names, inside orphans/, of what was set aside on opening: remains of a dead process, and shards that were damaged.
    """

    def __init__(self, directory: Path, meta: TraceMeta, documents: Sequence[DocumentRow], manifest: Manifest,
                 orphans: tuple[str, ...]) -> None:
        self.directory, self.orphans = directory, orphans
        self._meta, self._manifest = meta, manifest
        self._documents = {row.document: row for row in documents}
        self._owner = manifest.owner_of()
        self._written = (directory / trace_manifest.NAME).read_bytes()

    @classmethod
    def create_or_resume(cls, directory: Path, meta: TraceMeta, documents: Sequence[DocumentRow]) -> TraceWriter:
        """Open the trace in `directory` for writing, or begin it.

        Raises TraceError, with a table of what differs, where it was begun with another meta or other documents. What a dead process
        left, and shards that are not what was written, go to orphans/: their documents are collected again.
        """
        check_meta(meta)
        rows = check_documents(documents, str(directory / DOCUMENTS))
        with storage_errors(directory, 0):
            directory.mkdir(parents=True, exist_ok=True)
        if not (directory / trace_manifest.NAME).exists():
            orphans = _set_aside(directory, _remains(directory, None))
            manifest = _begin(directory, meta, rows)
        else:
            manifest = Manifest.read(directory)
            _same_trace(directory, manifest, meta, rows)
            orphans = _set_aside(directory, _remains(directory, manifest)) + _drop_damaged(directory, manifest)
        if orphans:
            manifest.add_event({"event": "orphans", "names": list(orphans)})
            manifest.write(directory)
        return cls(directory, meta, rows, manifest, orphans)

    @property
    def finished(self) -> frozenset[int]:
        """Numbers of the shards that are whole and listed."""
        return frozenset(self._manifest.shards)

    def write_shard(self, number: int, batch: TraceBatch, documents: Sequence[int]) -> None:
        """Check the batch and keep it for good: aside, synced, renamed, directory synced, listed in the manifest.

        documents: the documents that are finished with this shard, those without rows included. Raises TraceError, with nothing written,
        for values that are no routing and for documents that another shard has; StorageError when the disk refuses.
        """
        name = f"shard-{number:05d}.parquet"
        where = str(self.directory / name)
        self._check_number(where, number)
        self._check_documents(where, batch, documents)
        check_batch(where, batch, self._meta)
        rows = canonical(batch, self._meta.layers)
        check_positions(where, rows)  # in order, a token given twice is beside itself
        columns = self._check_columns(where, rows)
        content = encode(rows, self._meta.layers, self._documents, {"meta": fingerprint(self._manifest.meta), "shard": number})
        counts = np.bincount(np.searchsorted(np.sort(documents), rows.document), minlength=len(documents))
        with deferred():
            self._check_alone()
            write_bytes(self.directory / name, content, "shard")
            self._manifest.columns = columns
            self._manifest.shards[number] = ListedShard(
                name, len(content), hashlib.sha256(content).hexdigest(), footer_sha256(io.BytesIO(content)), number, len(rows),
                tuple(sorted(map(int, documents))), tuple(counts.tolist()), self._manifest.sequence + 1)
            self._save()
        self._owner |= dict.fromkeys(documents, number)
        pause_point()

    def record_event(self, event: Mapping[str, Any]) -> None:
        """Keep a remark in the manifest, with its sequence number."""
        with deferred():
            self._check_alone()
            self._manifest.add_event(event)
            self._save()

    def finish(self) -> str:
        """Read the whole trace back, store its digest, and close it; returns the digest. May be called again.

        Raises TraceError where a shard does not read back as it was written.
        """
        from tracking.traces import StoredTrace

        if self._manifest.finished and self._manifest.digest:
            return self._manifest.digest
        if not any(shard.rows for shard in self._manifest.shards.values()):
            raise TraceError(f"{self.directory}: no row was written; a trace needs at least one")
        trace = StoredTrace.open(self.directory, finished=False)
        digest = TraceDigest(self._meta.layers, self._manifest.columns or [])
        for batch in trace.batches():
            digest.add(batch)
        with deferred():
            self._check_alone()
            self._manifest.digest, self._manifest.finished = digest.value(trace.documents), True
            self._save()
        return self._manifest.digest

    def _save(self) -> None:
        try:
            self._manifest.write(self.directory)
        except StorageError:
            self._manifest = Manifest.read(self.directory)  # memory must not know of a shard that the manifest does not list
            raise
        self._written = (self.directory / trace_manifest.NAME).read_bytes()

    def _check_alone(self) -> None:
        path = self.directory / trace_manifest.NAME
        if path.read_bytes() != self._written:
            raise TraceError(f"{path}: another process has written it meanwhile; let one of the two finish, then resume")

    def _check_number(self, where: str, number: int) -> None:
        if number < 0:
            raise TraceError(f"{where}: shard number {number}; number shards from 0")
        if number in self._manifest.shards:
            raise TraceError(f"{where}: finished already with documents {list(self._manifest.shards[number].documents)[:8]}; "
                             "skip the numbers in `finished`")
        if self._manifest.finished:
            raise TraceError(f"{where}: the trace is finished; begin another in a new directory")

    def _check_documents(self, where: str, batch: TraceBatch, documents: Sequence[int]) -> None:
        if len(set(documents)) != len(documents):
            raise TraceError(f"{where}: a document is listed twice; a document is counted once")
        for document in documents:
            if document not in self._documents:
                raise TraceError(f"{where}: document {document} is not one of the {len(self._documents)} in {DOCUMENTS}")
            if document in self._owner:
                raise TraceError(f"{where}: document {document} ({self._documents[document].id!r}) is in shard {self._owner[document]} "
                                 "already; a document is counted once: collect it in one shard only")
        strange = np.setdiff1d(batch.document, np.array(documents, dtype=np.int64))
        if len(strange):
            raise TraceError(f"{where}: rows of document {int(strange[0])}, which is not listed as one of this shard")

    def _check_columns(self, where: str, batch: TraceBatch) -> list[str]:
        columns: list[str] = columns_of(batch, self._meta.layers)
        before = self._manifest.columns
        if before is not None and columns != before:
            odd = sorted(set(columns) ^ set(before))
            raise TraceError(f"{where}: columns {odd} are in some shards only; one trace has one schema: fill a column always or never")
        return columns


def _begin(directory: Path, meta: TraceMeta, rows: Sequence[DocumentRow]) -> Manifest:
    content = documents_table(rows)
    write_bytes(directory / DOCUMENTS, content)
    manifest = Manifest(meta_to_json(meta), ListedFile(DOCUMENTS, len(content), hashlib.sha256(content).hexdigest()), len(rows))
    manifest.write(directory)
    return manifest


def _same_trace(directory: Path, manifest: Manifest, meta: TraceMeta, rows: Sequence[DocumentRow]) -> None:
    """Raise TraceError where meta or documents are others than those the trace began with."""
    remedies = "restore what it was, or collect into a new run with --new; traces are never mixed"
    changed = differences(manifest.meta, meta_to_json(meta))
    if changed:
        raise TraceError(f"{directory / trace_manifest.NAME}: this trace was begun with another meta; {remedies}\n"
                         f"{difference_table(changed)}")
    fault = trace_manifest.fault_of(directory, manifest.documents, manifest)
    if fault:
        raise TraceError(f"{fault}; take it from a copy, or move {directory} away and collect again")
    before = read_documents(directory / DOCUMENTS)
    if before != tuple(rows):
        table = differences({row.id: [row.document, row.domain, row.split] for row in before},
                            {row.id: [row.document, row.domain, row.split] for row in rows})
        raise TraceError(f"{directory / DOCUMENTS}: this trace was begun with other documents ({len(before)} then, {len(rows)} now); "
                         f"{remedies}\n{difference_table([(f'document {field}', was, now) for field, was, now in table])}")


def _remains(directory: Path, manifest: Manifest | None) -> list[Path]:
    """What a dead process left: temporary files, and shards that were renamed but never listed."""
    return sorted(directory.glob(f"*{PART}")) + trace_manifest.unlisted(directory, manifest)


def _set_aside(directory: Path, paths: Sequence[Path]) -> tuple[str, ...]:
    """Move files into orphans/ under a name that is free; returns the names."""
    names = []
    for path in paths:
        orphans = directory / ORPHANS
        with storage_errors(path, 0):
            orphans.mkdir(exist_ok=True)
            target, n = orphans / path.name, 1
            while target.exists():
                target, n = orphans / f"{path.name}.{n}", n + 1
            path.rename(target)
        names.append(target.name)
    if names:
        sync_directory(directory)
    return tuple(names)


def _drop_damaged(directory: Path, manifest: Manifest) -> tuple[str, ...]:
    """Take shards that are missing or changed out of the manifest, and set their files aside."""
    damaged = {shard.number: fault for shard in manifest.shards.values() if (fault := trace_manifest.fault_of(directory, shard, manifest))}
    if not damaged:
        return ()
    paths = [directory / manifest.shards[number].name for number in damaged]
    for number, fault in damaged.items():
        manifest.add_event({"event": "damaged", "shard": number, "fault": fault})
        del manifest.shards[number]
    manifest.finished, manifest.digest = False, None
    manifest.write(directory)  # first: a death after this leaves an unlisted shard, which the next opening sets aside
    return _set_aside(directory, [path for path in paths if path.exists()])
