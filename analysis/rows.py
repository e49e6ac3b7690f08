"""Rows of a trace as whole documents in a canonical order, checked before anything is counted.

T token (row), L MoE layer, K slot in the top-k, S segment of consecutive rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.trace import POSITION_BANDS, LayerMeta, TraceBatch, TraceError

Int = NDArray[np.int64]


def take(batch: TraceBatch, rows: Any) -> TraceBatch:
    """The chosen rows of a batch, columns as they were."""
    taken: dict[str, Any] = {}
    for name in (f.name for f in fields(TraceBatch)):
        column = getattr(batch, name)
        if isinstance(column, tuple):
            taken[name] = tuple(None if part is None else part[rows] for part in column)
        else:
            taken[name] = None if column is None else column[..., rows]
    return TraceBatch(**taken)


def join(first: TraceBatch, second: TraceBatch) -> TraceBatch:
    """The rows of two batches of one trace."""
    joined: dict[str, Any] = {}
    for name in (f.name for f in fields(TraceBatch)):
        a, b = getattr(first, name), getattr(second, name)
        if a is None or b is None:
            joined[name] = None
        elif isinstance(a, tuple):
            joined[name] = tuple(None if x is None or y is None else np.concatenate([x, y]) for x, y in zip(a, b))
        else:
            joined[name] = np.concatenate([a, b], axis=a.ndim - 1)
    return TraceBatch(**joined)


def whole_documents(batches: Iterable[TraceBatch]) -> Iterator[TraceBatch]:
    """The same rows in batches that never cut a document, each document's rows by position.

    Raises TraceError where a document's rows are not together: the unit that is resampled could not be told from a copy.
    """
    seen: set[int] = set()
    held: TraceBatch | None = None
    for batch in batches:
        if len(batch) == 0:
            continue
        if held is None:
            held = batch
        elif held.document[-1] != batch.document[0]:  # the usual case: shards of whole documents, handed on without a copy
            yield _sorted(held, seen)
            held = batch
        else:
            last = int(np.flatnonzero(np.r_[True, held.document[1:] != held.document[:-1]])[-1])
            if last:
                yield _sorted(take(held, slice(0, last)), seen)
            held = join(take(held, slice(last, None)), batch)
    if held is not None:
        yield _sorted(held, seen)


def _sorted(batch: TraceBatch, seen: set[int]) -> TraceBatch:
    starts = np.flatnonzero(np.r_[True, batch.document[1:] != batch.document[:-1]])
    for document in batch.document[starts].tolist():
        if document in seen:
            raise TraceError(f"column document: the rows of document {document} are not together; export the trace document by document")
        seen.add(document)
    ascending = np.all((batch.document[1:] != batch.document[:-1]) | (batch.position[1:] > batch.position[:-1]))
    if ascending:
        return batch
    block = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(batch)]))
    order = np.lexsort((batch.position, block))
    same = (block[1:] == block[:-1]) & (batch.position[order][1:] == batch.position[order][:-1])
    if same.any():
        row = int(order[int(np.flatnonzero(same)[0])])
        raise TraceError(f"column position: document {batch.document[row]} has position {batch.position[row]} twice; "
                         "a token was collected twice, collect this document again")
    return take(batch, order)


def check(batch: TraceBatch, layers: tuple[LayerMeta, ...], n_types: int) -> None:
    """Raise TraceError, naming column, layer, document and position, where a value cannot be counted."""
    outside = np.zeros(0, bool) if batch.token_id is None else (batch.token_id < 0) | (batch.token_id >= n_types)
    if outside.any():
        raise TraceError(f"column token_id: {int(batch.types[outside][0])} but the vocabulary has {n_types} types; "
                         "correct vocabulary_size in the manifest, or collect again with the tokenizer that it names")
    if len(batch) and int(batch.position.min()) < 0:
        raise TraceError(f"column position: {int(batch.position.min())}; positions count from 0, export the trace again")
    for name in ("entropy_nats", "top1_prob"):
        column = getattr(batch, name)
        if column is not None and not np.isfinite(column).all():
            layer, row = (int(i[0]) for i in np.nonzero(~np.isfinite(column)))
            raise TraceError(f"column {name}: {column[layer, row]} at layer {layers[layer].key}, document {batch.document[row]}, "
                             f"position {batch.position[row]}; collect this document again, or leave the layer out")
    for meta, ids in zip(layers, batch.ids):
        if ids.size and int(ids.max()) >= meta.n_experts:
            raise TraceError(f"column ids: expert id {int(ids.max())} at layer {meta.key} but it has {meta.n_experts} experts; "
                             "re-export, or correct n_experts in the manifest")


def bands(position: NDArray[Any]) -> Int:
    """Position band of each row: 0 for position 0, then 1-3, 4-15, 16-63, 64+ (metrics specification 3.2)."""
    return np.searchsorted(np.asarray(POSITION_BANDS), position, side="right").astype(np.int64) - 1


