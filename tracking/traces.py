"""Reads a stored trace in bounded memory, layer by layer; nothing that was changed since it was written is ever counted.

`TraceWriter` writes what `StoredTrace` reads; the manifest and the Parquet shards are the truth, cache/ can be removed at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from analysis.trace import SPLITS, DocumentRow, TraceBatch, TraceError, TraceMeta
from tracking import trace_manifest
from tracking.shards import FAMILIES, chosen_rows, footer_sha256, read_batches
from tracking.trace_digest import TraceDigest
from tracking.trace_manifest import ListedShard, Manifest
from tracking.trace_meta import meta_from_json, read_documents
from tracking.trace_writer import TraceWriter

__all__ = ["StoredTrace", "TraceWriter", "faults_of"]


class StoredTrace:
    """A trace on disk; implements analysis.trace.RoutingTrace. Make one with `open`."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory, self.manifest = directory, manifest
        self._meta = meta_from_json(manifest.meta)
        self._every_document = {row.document: row for row in read_documents(directory / manifest.documents.name)}
        self._verified: set[int] = set()

    @classmethod
    def open(cls, directory: Path, *, finished: bool = True) -> StoredTrace:
        """Open the trace in `directory`; the bytes of a shard are verified when it is first read.

        Raises TraceError for a missing, extra or cut shard, for damaged lists, and, unless `finished` is False, for a collection that has
        not ended.
        """
        manifest = Manifest.read(directory)
        remedy = trace_manifest.remedy(directory)
        if finished and not manifest.finished:
            done = sum(len(shard.documents) for shard in manifest.shards.values())
            raise TraceError(f"{directory}: the collection has not ended, {done} of {manifest.n_documents} documents are there; "
                             f"{remedy.replace('re-collect it', 'go on')}")
        fault = trace_manifest.fault_of(directory, manifest.documents, manifest)
        if fault:
            raise TraceError(f"{fault}; take it from a copy, or move {directory} away and collect again")
        wrong = [f"{directory / shard.name}: expected {shard.bytes:,} bytes, found {size}" for shard in manifest.shards.values()
                 if (size := _size(directory / shard.name)) != f"{shard.bytes:,} bytes"]
        wrong += [f"{path}: not listed in {trace_manifest.NAME}; expected {len(manifest.shards)} shards"
                  for path in trace_manifest.unlisted(directory, manifest)]
        if wrong:
            raise TraceError("\n".join([*wrong, f"set aside and {remedy}"]))
        return cls(directory, manifest)

    @property
    def meta(self) -> TraceMeta:
        """Provenance and layer table."""
        return self._meta

    @cached_property
    def documents(self) -> tuple[DocumentRow, ...]:
        """Every document that has rows, ordered by number."""
        there = {number for shard in self.manifest.shards.values() for number, rows in zip(shard.documents, shard.rows_of) if rows}
        return tuple(self._every_document[number] for number in sorted(there))

    @property
    def n_tokens(self) -> int:
        """Rows of the whole trace."""
        return sum(shard.rows for shard in self.manifest.shards.values())

    def n_tokens_of(self, split: str) -> int:
        """Rows of one split."""
        return sum(rows for shard in self.manifest.shards.values() for number, rows in zip(shard.documents, shard.rows_of)
                   if self._every_document[number].split == split)

    @property
    def digest(self) -> str:
        """SHA-256 over the logical columns in (document, position) order, as stored when the collection ended."""
        if self.manifest.digest is None:
            raise TraceError(f"{self.directory}: the collection has not ended; a digest is of a whole trace")
        return self.manifest.digest

    def batches(self, *, split: str | None = None, layers: Sequence[int] | None = None,
                columns: Sequence[str] | None = None) -> Iterator[TraceBatch]:
        """Yield the rows of `split` (all, if None), shard by shard, whole documents, at most a row group at a time.

        layers: indices into meta.layers, in the order wanted; columns: of ids, weights, entropy_nats, simpson, top1_prob, dropped; the
        others are None, and `ids` an empty tuple. Raises TraceError at the first shard that is not what was written.
        """
        chosen = self._chosen(layers)
        families = _families(columns)
        if split is not None and split not in SPLITS:
            raise TraceError(f"split {split!r}: use one of {', '.join(SPLITS)}")
        wanted = np.array([number for number, row in self._every_document.items() if split in (None, row.split)], dtype=np.int32)
        for number in sorted(self.manifest.shards):
            shard = self.manifest.shards[number]
            if not np.isin(shard.documents, wanted).any():
                continue
            self._verify(shard)
            for batch in self._read(shard, chosen, families):
                rows = np.isin(batch.document, wanted)
                if rows.any():
                    yield batch if rows.all() else chosen_rows(batch, rows)

    def _chosen(self, layers: Sequence[int] | None) -> list[int]:
        n_layers = len(self._meta.layers)
        chosen = list(range(n_layers)) if layers is None else [int(layer) for layer in layers]
        if any(not 0 <= layer < n_layers for layer in chosen):
            raise TraceError(f"{self.directory}: layers {chosen}: the trace has layers 0 to {n_layers - 1}")
        return chosen

    def _verify(self, shard: ListedShard) -> None:
        if shard.number in self._verified:
            return
        fault = trace_manifest.fault_of(self.directory, shard, self.manifest)
        if fault:
            raise TraceError(f"{fault}; {trace_manifest.remedy(self.directory)}")
        self._verified.add(shard.number)

    def _read(self, shard: ListedShard, chosen: Sequence[int], families: Sequence[str]) -> Iterator[TraceBatch]:
        path, n_rows = self.directory / shard.name, 0
        try:
            with path.open("rb") as file:
                footer = footer_sha256(file)
            if footer != shard.footer_sha256:
                raise TraceError(f"{path}: expected a footer with sha256 {shard.footer_sha256}, found {footer}")
            for batch in read_batches(path, self._meta.layers, chosen, families):
                n_rows += len(batch)
                yield batch
        except (TraceError, OSError) as error:
            raise TraceError(f"{error}; {trace_manifest.remedy(self.directory)}") from error
        if n_rows != shard.rows:
            raise TraceError(f"{path}: expected {shard.rows} rows, found {n_rows}; {trace_manifest.remedy(self.directory)}")

    def faults(self) -> tuple[str, ...]:
        """Everything that differs between manifest and files, each with expected and found; empty for a whole trace."""
        return tuple(trace_manifest.faults(self.directory, self.manifest))

    def verify(self) -> str:
        """Read every byte and compute the digest again; returns it. Raises TraceError for any fault."""
        found = self.faults()
        if found:
            raise TraceError("\n".join([*found, trace_manifest.remedy(self.directory)]))
        digest = TraceDigest(self._meta.layers, self.manifest.columns or [])
        for batch in self.batches():
            digest.add(batch)
        value = digest.value(self._every_document.values())
        if self.manifest.digest not in (None, value):
            raise TraceError(f"{self.directory}: digest: expected {self.manifest.digest}, found {value}; "
                             f"{trace_manifest.remedy(self.directory)}")
        return value


def faults_of(directory: Path) -> tuple[str, ...]:
    """What is wrong with the trace in `directory`, every byte read; empty for a whole and finished one. Never raises for a bad trace."""
    try:
        return StoredTrace.open(directory).faults()
    except TraceError as error:
        return tuple(str(error).splitlines())


def _families(columns: Sequence[str] | None) -> tuple[str, ...]:
    unknown = sorted(set(columns or ()) - set(FAMILIES))
    if unknown:
        raise TraceError(f"columns {unknown}: use some of {', '.join(FAMILIES)}")
    return FAMILIES if columns is None else tuple(family for family in FAMILIES if family in columns)


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes" if path.is_file() else "no such file"
