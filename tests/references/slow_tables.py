"""Plain loops over rows: the slow twins of analysis.joint, pair_counts, lags and loads; and a trace whose layers differ in E and k."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from analysis.rows import join, take
from analysis.trace import DocumentRow, LayerMeta, RoutingTrace, TraceBatch
from tests.references.memory_trace import MemoryTrace, meta

LAYERS = ((8, 2), (5, 1), (300, 3), (1, 1), (8, 8))  # experts and top-k


def uneven_trace(seed: int = 0, n_documents: int = 23, shard: int = 4, longest: int = 30) -> MemoryTrace:
    """Ragged documents of three domains and two splits; layers of different E and k; the first layer drops slots."""
    rng = np.random.default_rng(seed)
    documents = [DocumentRow(3 * i + 1, f"id-{i}", f"domain{i % 3}", "train" if i % 5 == 4 else "test") for i in range(n_documents)]
    lengths = [1, *rng.integers(1, longest + 1, n_documents - 1).tolist()]
    rows = [_document(row.document, length, rng) for row, length in zip(documents, lengths)]
    shards = []
    for start in range(0, n_documents, shard):
        batch = rows[start]
        for other in rows[start + 1 : start + shard]:
            batch = join(batch, other)
        shards.append(batch)
    layers = tuple(LayerMeta(f"layers.{i}.gate", i, "decoder", n, k) for i, (n, k) in enumerate(LAYERS))
    return MemoryTrace(replace(meta(1, 2, 1, 40), layers=layers), documents, shards)


def _document(number: int, length: int, rng: np.random.Generator) -> TraceBatch:
    ids = tuple(np.argsort(rng.random((length, n)), axis=1)[:, :k].astype(np.uint8 if n <= 256 else np.uint16) for n, k in LAYERS)
    dropped = (rng.integers(0, 4, length).astype(np.uint8), *(None,) * (len(LAYERS) - 1))
    column = np.full(length, number, np.int32)
    return TraceBatch(column, np.arange(length, dtype=np.int32), rng.integers(0, 40, length).astype(np.int32), ids, dropped=dropped)


def reordered(trace: MemoryTrace, seed: int, size: int) -> MemoryTrace:
    """The same documents in another order, under other numbers, cut into batches of `size` rows that split documents."""
    rng = np.random.default_rng(seed)
    numbers = dict(zip((d.document for d in trace.documents), rng.permutation(len(trace.documents)).tolist()))
    pieces = {}
    for part in trace.shards:
        for number in np.unique(part.document).tolist():
            one = take(part, part.document == number)
            pieces[numbers[number]] = replace(one, document=np.full(len(one), numbers[number], np.int32))
    whole = None
    for number in rng.permutation(len(pieces)).tolist():
        whole = pieces[number] if whole is None else join(whole, pieces[number])
    documents = sorted((replace(d, document=numbers[d.document]) for d in trace.documents), key=lambda d: d.document)
    return MemoryTrace(trace.meta, documents, [take(whole, slice(a, a + size)) for a in range(0, len(whole), size)])


def slow_rows(trace: RoutingTrace, split: str) -> dict[int, list[TraceBatch]]:
    """One-document batches by document number."""
    rows: dict[int, list[TraceBatch]] = {}
    for batch in trace.batches(split=split):
        for number in np.unique(batch.document).tolist():
            rows.setdefault(number, []).append(take(batch, batch.document == number))
    return {number: parts for number, parts in rows.items() if parts}


def slow_order(trace: RoutingTrace, split: str, salt: str) -> list[DocumentRow]:
    """Documents by SHA-256 of id, NUL, salt."""
    return sorted((d for d in trace.documents if d.split == split), key=lambda d: hashlib.sha256(f"{d.id}\0{salt}".encode()).hexdigest())


def slow_joint(x: Sequence[Sequence[int]], y: Sequence[Sequence[int]], n_x: int, n_y: int) -> np.ndarray:
    """All pairs of members of two sets a row, -1 left out."""
    out = np.zeros((n_x, n_y), np.int64)
    for a, b in zip(x, y, strict=True):
        for i in a:
            for j in b:
                if i >= 0 and j >= 0:
                    out[i, j] += 1
    return out


def slow_lags(rows: Sequence[Sequence[int]], starts: Sequence[int], lag: int) -> list[int]:
    """Per document, sizes of the intersections of sets `lag` apart, summed."""
    out = []
    for begin, end in zip(starts, starts[1:]):
        out.append(sum(len((set(rows[t]) & set(rows[t + lag])) - {-1}) for t in range(begin, end - lag)))
    return out


def slow_pair(trace: RoutingTrace, split: str, pair: tuple[int, int], *, first: bool, lag: int = 0) -> dict[int, Counter]:
    """Per document number, counts of (expert of x, expert of y)."""
    out: dict[int, Counter] = {}
    for number, parts in slow_rows(trace, split).items():
        rows = parts[0]
        for other in parts[1:]:
            rows = join(rows, other)
        x, y = (rows.ids[layer][:, :1] if first else rows.ids[layer] for layer in pair)
        out[number] = Counter((int(i), int(j)) for t in range(len(rows) - lag) for i in x[t] for j in y[t + lag])
    return out
