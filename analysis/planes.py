"""Whole documents of a trace in memory, layer by layer and slot by slot, as the counting kernels want them.

T token (row), L MoE layer, K slot in the top-k, D document, G jackknife group of documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.counts import document_hash
from analysis.kernels import Int
from analysis.resampling import jackknife_groups, stratified_groups
from analysis.rows import slot_major, whole_documents
from analysis.trace import DocumentRow, LayerMeta, RoutingTrace, TraceBatch, TraceError

MAX_ROWS = 2_000_000  # nulls run on a sample of at most so many rows: their bias and spread scale as 1/N (performance page, 6)


@dataclass(frozen=True)
class Planes:
    """Rows of whole documents, layer-major and slot-major.

    layers: of the trace, in the order of `ids`; ids: per layer uint8 or uint16 [K, T], contiguous, by descending score;
    position, token_id: int32 [T], token_id None where the source did not record it; starts: first row of each document and the end
    [D + 1]; document: number of each [D].
    """

    layers: tuple[LayerMeta, ...]
    ids: tuple[NDArray[Any], ...]
    token_id: NDArray[np.int32] | None
    position: NDArray[np.int32]
    starts: Int
    document: Int

    def __len__(self) -> int:
        return len(self.position)

    @property
    def first(self) -> tuple[NDArray[Any], ...]:
        """First choice of every row, per layer [T]."""
        return tuple(ids[0] for ids in self.ids)

    @property
    def types(self) -> NDArray[np.int32]:
        """token_id, for what cannot be counted without it; TraceError where the source did not record it."""
        if self.token_id is None:
            raise TraceError("column token_id: absent; what is asked needs token types, take a trace whose source records them")
        return self.token_id

    @property
    def n_experts(self) -> tuple[int, ...]:
        """Experts of each layer."""
        return tuple(layer.n_experts for layer in self.layers)

    @property
    def lengths(self) -> Int:
        """Rows of each document [D]."""
        return np.diff(self.starts)

    def group(self, max_groups: int = 100) -> Int:
        """Jackknife group of each document [D], for planes made by `planes`, whose documents are in hash order."""
        return jackknife_groups(len(self.document), max_groups)

    @classmethod
    def joined(cls, parts: Sequence[Planes]) -> Planes:
        """The rows of several planes of the same layers, one after the other."""
        if len(parts) == 1:
            return parts[0]
        types = [part.token_id for part in parts]
        first_row = np.cumsum([0] + [len(part) for part in parts])
        return cls(parts[0].layers, tuple(np.concatenate(ids, axis=1) for ids in zip(*(part.ids for part in parts))),
                   None if any(t is None for t in types) else np.concatenate([t for t in types if t is not None]),
                   np.concatenate([part.position for part in parts]),
                   np.r_[np.concatenate([part.starts[:-1] + row for part, row in zip(parts, first_row)]), first_row[-1]],
                   np.concatenate([part.document for part in parts]))

    @classmethod
    def of(cls, batch: TraceBatch, layers: Sequence[LayerMeta]) -> Planes:
        """The rows of a batch of whole documents (analysis.rows.whole_documents), in their order; layers: of batch.ids.

        Raises TraceError, naming layer, document and position, for an expert out of range or twice in one top-k.
        """
        if len(batch.ids) != len(layers):
            raise TraceError(f"column ids: {len(batch.ids)} layers but {len(layers)} were asked for; read the batch with those layers")
        ids = tuple(slot_major(batch, index, layer) for index, layer in enumerate(layers))
        cut = np.flatnonzero(np.r_[True, batch.document[1:] != batch.document[:-1]]) if len(batch) else np.zeros(0, np.int64)
        return cls(tuple(layers), ids, batch.token_id, batch.position, np.r_[cut, len(batch)].astype(np.int64),
                   batch.document[cut].astype(np.int64))


def id_batches(trace: RoutingTrace, split: str, layers: Sequence[int], columns: tuple[str, ...] = ("ids",)) -> Iterator[TraceBatch]:
    """Whole documents of a split with the chosen layers, checked but for their ids; other columns are not read where a trace can do so."""
    for batch in whole_documents(trace.batches(split=split, layers=layers, **_only(trace, columns))):
        _check_rows(batch, trace.meta.vocabulary_size)
        yield batch


def _only(trace: RoutingTrace, columns: tuple[str, ...]) -> dict[str, Any]:
    return {"columns": columns} if "columns" in signature(trace.batches).parameters else {}


def _check_rows(batch: TraceBatch, n_types: int) -> None:
    """As analysis.rows.check, for traces without token types, too."""
    if int(batch.position.min()) < 0:
        raise TraceError(f"column position: {int(batch.position.min())}; positions count from 0, export the trace again")
    types = batch.token_id
    if types is not None and (int(types.min()) < 0 or int(types.max()) >= n_types):
        wrong = int(types[(types < 0) | (types >= n_types)][0])
        raise TraceError(f"column token_id: {wrong} but the vocabulary has {n_types} types; "
                         "correct vocabulary_size in the manifest, or collect again with the tokenizer that it names")


@dataclass(frozen=True)
class Deal:
    """The jackknife group of every document of a split: documents ordered by SHA-256 of id, NUL, salt and dealt round-robin.

    documents: in that order; group: of each [D]; stratum: number of each group's domain in sorted(domains) [G], where groups were dealt
    inside domains, else None.
    """

    documents: tuple[DocumentRow, ...]
    group: Int
    stratum: Int | None = None

    @classmethod
    def of(cls, documents: Collection[DocumentRow], split: str, salt: str, max_groups: int, *, by_domain: bool = False) -> Deal:
        """min(D, max_groups) groups, or min(D_h, max_groups) inside each domain h (metrics specification 4.2)."""
        rows = [d for d in documents if d.split == split]
        if max_groups > 1:  # one group has no order worth a hash of every document
            rows.sort(key=lambda d: document_hash(d.id, salt))
        if by_domain:
            return cls(tuple(rows), *stratified_groups([d.domain for d in rows], max_groups))
        return cls(tuple(rows), jackknife_groups(len(rows), max_groups))

    @property
    def n_groups(self) -> int:
        """Groups with at least one document."""
        return int(self.group.max()) + 1 if len(self.group) else 0

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """Names of the strata."""
        return tuple(sorted({d.domain for d in self.documents}))

    @cached_property
    def n_documents(self) -> Mapping[str, int]:
        """Documents of each domain."""
        return Counter(d.domain for d in self.documents)

    @cached_property
    def places(self) -> Int:
        """Place of each document number in `documents`; -1 for a number that is none of them."""
        numbers = np.array([d.document for d in self.documents], np.int64)
        out = np.full(int(numbers.max(initial=-1)) + 1, -1, np.int64)
        out[numbers] = np.arange(len(numbers))
        return out

    def place_of(self, number: Int, split: str) -> Int:
        """Places of document numbers [D']; TraceError for one that is no document of the split."""
        known = (number >= 0) & (number < len(self.places))
        found = np.full(len(number), -1, np.int64)
        found[known] = self.places[number[known]]
        if (found < 0).any():
            raise TraceError(f"column document: {int(number[found < 0][0])} is no {split} document of the document table; "
                             "collect again, or restore trace/documents.parquet")
        return found


def buffered(parts: Iterable[Planes], n_rows: int) -> Iterator[Planes]:
    """The same rows in larger pieces, each of at most n_rows rows or of one part."""
    held: list[Planes] = []
    for part in parts:
        if held and sum(len(p) for p in held) + len(part) > n_rows:
            yield Planes.joined(held)
            held = []
        held.append(part)
    if held:
        yield Planes.joined(held)


def grouped_rows(part: Planes, deal: Deal, split: str, lag: int = 0) -> tuple[NDArray[Any] | None, Int]:
    """Rows in group order, document after document, and where each group begins among them [G + 1]; rows without one `lag` later left out.

    None stands for the rows as they are. TraceError for a document that is not of the split.
    """
    length = np.maximum(part.lengths - lag, 0)
    group = deal.group[deal.place_of(part.document, split)]
    bounds = np.zeros(deal.n_groups + 1, np.int64)
    np.add.at(bounds, group + 1, length)
    if deal.n_groups == 1 and not lag:
        return None, np.cumsum(bounds)
    order = np.argsort(group, kind="stable")
    length = length[order]
    narrow = np.int32 if len(part) < 2**31 else np.int64  # half the bytes to read back for every layer
    rows = np.repeat((part.starts[:-1][order] - np.cumsum(length) + length).astype(narrow), length)
    rows += np.arange(len(rows), dtype=narrow)
    return rows, np.cumsum(bounds)


def planes(
    trace: RoutingTrace, split: str, *, layers: Sequence[int] | None = None, documents: Collection[int] | None = None,
    max_rows: int = MAX_ROWS, salt: str = "",
) -> Planes:
    """Rows of a split's documents in the order of SHA-256 of id, NUL, salt: the longest beginning of it with at most max_rows rows.

    layers: indices into the trace's layers; documents: numbers to choose from (all of the split, if None). One document at least.
    What comes does not depend on the order of files. Raises TraceError for ids that cannot be counted, and for a split, or document,
    that is not there.
    """
    chosen = list(range(len(trace.meta.layers))) if layers is None else list(layers)
    number, starts = _sample(trace, split, documents, max_rows, salt)
    n_rows, metas = int(starts[-1]), tuple(trace.meta.layers[layer] for layer in chosen)
    first_row = np.full(int(number.max()) + 1, -1, np.int64)
    first_row[number] = starts[:-1]
    ids = tuple(np.empty((meta.top_k, n_rows), meta.id_dtype) for meta in metas)
    token_id, position, typed = np.empty(n_rows, np.int32), np.empty(n_rows, np.int32), True
    for batch in id_batches(trace, split, chosen):
        part = Planes.of(batch, metas)
        known = np.where(part.document < len(first_row), first_row[np.minimum(part.document, len(first_row) - 1)], -1)
        place = np.repeat(known - part.starts[:-1], part.lengths) + np.arange(len(part))
        rows: Any = np.flatnonzero(np.repeat(known >= 0, part.lengths))
        rows, place = (slice(None), place) if len(rows) == len(part) else (rows, place[rows])
        position[place] = part.position[rows]
        typed &= part.token_id is not None
        if part.token_id is not None:
            token_id[place] = part.token_id[rows]
        for out, plane in zip(ids, part.ids):
            for slot_out, slot in zip(out, plane):
                slot_out[place] = slot[rows]
    return Planes(metas, ids, token_id if typed else None, position, starts, number)


def _sample(trace: RoutingTrace, split: str, documents: Collection[int] | None, max_rows: int, salt: str) -> tuple[Int, Int]:
    """Numbers [D] of the documents that fit, in hash order, and their first rows [D + 1]."""
    rows = {row.document: row for row in trace.documents if row.split == split}
    unknown = sorted(set(documents or ()) - rows.keys())
    if unknown:
        raise TraceError(f"document {unknown[0]} is no {split} document of the trace; choose among its {len(rows)} documents")
    wanted = rows.keys() if documents is None else set(documents)
    number = np.array(sorted(wanted, key=lambda n: document_hash(rows[n].id, salt)), np.int64)
    if not len(number):
        raise TraceError(f"no {split} document to read; collect some, or choose another split")
    length = np.zeros(max(rows) + 1, np.int64)
    for batch in trace.batches(split=split, layers=(), **_only(trace, ())):
        length += np.bincount(batch.document, minlength=len(length))
    starts = np.r_[0, np.cumsum(length[number])]
    n_documents = max(1, int(np.searchsorted(starts, max_rows, side="right")) - 1)
    return number[:n_documents], starts[: n_documents + 1]
