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
BLOCK_ROWS = 2**15  # rows whose ids are checked at a time: they stay in cache
ROUNDING = 1e-3  # by which a float16 or float32 entropy or probability may leave its range


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
    for name, top_L in (("entropy_nats", [float(np.log(layer.n_experts)) for layer in layers]), ("top1_prob", [1.0] * len(layers))):
        column = getattr(batch, name)
        for layer, (values, top) in enumerate(zip(() if column is None or not len(batch) else column, top_L)):
            if not (values.min() >= -ROUNDING and values.max() <= top + ROUNDING):  # NaN fails both
                row = int(np.flatnonzero(~((values >= -ROUNDING) & (values <= top + ROUNDING)))[0])
                raise TraceError(f"column {name}: {values[row]:g} {place(batch, row, layers[layer])}, outside [0, {top:.4g}]; collect this document "
                                 "again, or leave the layer out (an entropy is in nats)")
    for index, meta in enumerate(layers):
        for start in range(0, len(batch), BLOCK_ROWS):
            slot_major(batch, index, meta, slice(start, start + BLOCK_ROWS))
        if batch.weights is not None:
            _check_weights(batch, index, meta)


def _check_weights(batch: TraceBatch, index: int, layer: LayerMeta) -> None:
    """TraceError for a combine weight that is not finite; NaN would be summed as any number."""
    weights = np.asarray(batch.weights[index]) if batch.weights is not None else np.zeros(0)
    if weights.shape != (len(batch), layer.top_k):
        raise TraceError(f"column weights: {list(weights.shape)} at layer {layer.key}, expected [{len(batch)}, {layer.top_k}]; "
                         "correct top_k in the manifest, or export the trace again")
    if weights.dtype == np.float16:  # by bit patterns, seven times as fast
        finite = not weights.size or int((np.ascontiguousarray(weights).view(np.uint16) & 0x7FFF).max()) < 0x7C00
    else:
        finite = bool(np.isfinite(weights).all())
    if not finite:
        row = int(np.flatnonzero(~np.isfinite(weights).all(axis=1))[0])
        raise TraceError(f"column weights: a combine weight {place(batch, row, layer)} is not finite; collect this document again, or leave the "
                         "layer out")


def slot_major(batch: TraceBatch, index: int, layer: LayerMeta, rows: slice = slice(None)) -> NDArray[Any]:
    """Checked ids of one layer of a batch, [K, T] contiguous in the layer's dtype.

    Raises TraceError, naming layer, document and position, for an expert out of range or twice in one top-k.
    """
    ids = batch.ids[index][rows]
    if ids.shape != (len(batch.document[rows]), layer.top_k):
        raise TraceError(f"column ids: {list(batch.ids[index].shape)} at layer {layer.key}, expected [{len(batch)}, {layer.top_k}]; "
                         "correct top_k in the manifest, or export the trace again")
    if ids.dtype.kind not in "ui":
        raise TraceError(f"column ids: {ids.dtype} at layer {layer.key}; expert ids are integers, export the trace again")
    first = rows.start or 0
    if ids.size and (int(ids.max()) >= layer.n_experts or int(ids.min()) < 0):
        row, slot = (int(i[0]) for i in np.nonzero((ids < 0) | (ids >= layer.n_experts)))
        raise TraceError(f"column ids: expert id {int(ids[row, slot])} {place(batch, first + row, layer)}, which has {layer.n_experts} experts; "
                         "correct n_experts in the manifest, or export the trace again (a dropped slot is a bit of `dropped`, not an id)")
    plane = np.require(ids.T, layer.id_dtype, ("C", "W"))
    for one in range(layer.top_k):
        for other in range(one + 1, layer.top_k):
            twice = plane[one] == plane[other]
            if twice.any():
                row = int(np.flatnonzero(twice)[0])
                raise TraceError(f"column ids: expert {int(ids[row, one])} twice in one top-{layer.top_k} {place(batch, first + row, layer)}; "
                                 "collect this document again, or leave the layer out")
    return plane


def place(batch: TraceBatch, row: int, layer: LayerMeta) -> str:
    """Where a value stands, in words."""
    return f"at layer {layer.key}, document {int(batch.document[row])}, position {int(batch.position[row])}"


def bands(position: NDArray[Any]) -> Int:
    """Position band of each row: 0 for position 0, then 1-3, 4-15, 16-63, 64+ (metrics specification 3.2)."""
    return np.searchsorted(np.asarray(POSITION_BANDS), position, side="right").astype(np.int64) - 1


