"""Flaws planted into clean traces, each at three severities of which 0 is the mildest; no code of the audit.

T token (row), L MoE layer, K slot in the top-k, E expert.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np

from analysis.trace import DocumentRow, LayerMeta, TraceBatch
from tests.analysis.audit.worlds import World, clean
from tests.references.memory_trace import MemoryTrace

Plant = Callable[[MemoryTrace, int, np.random.Generator], MemoryTrace]
SHARES = (0.02, 0.1, 0.5)


def whole(trace: MemoryTrace) -> TraceBatch:
    """All rows in one batch."""
    return joined(list(trace.shards))


def joined(parts: list[TraceBatch]) -> TraceBatch:
    """Rows of several batches, one after the other."""
    out: dict[str, Any] = {}
    for name in (one.name for one in fields(TraceBatch)):
        columns = [getattr(part, name) for part in parts]
        if columns[0] is None:
            out[name] = None
        elif isinstance(columns[0], tuple):
            out[name] = tuple(np.concatenate(layer) for layer in zip(*columns))
        else:
            out[name] = np.concatenate(columns, axis=columns[0].ndim - 1)
    return TraceBatch(**out)


def rows(batch: TraceBatch, index: Any) -> TraceBatch:
    """The chosen rows."""
    out: dict[str, Any] = {}
    for name in (one.name for one in fields(TraceBatch)):
        column = getattr(batch, name)
        out[name] = None if column is None else tuple(one[index] for one in column) if isinstance(column, tuple) else column[..., index]
    return TraceBatch(**out)


def with_rows(trace: MemoryTrace, batch: TraceBatch, documents: list[DocumentRow] | None = None) -> MemoryTrace:
    """The trace with other rows, in two batches that cut a document."""
    cut = len(batch) // 2
    return replace(trace, shards=[rows(batch, slice(0, cut)), rows(batch, slice(cut, None))], documents=documents or trace.documents)


def some(n: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """At least one of n, about `share` of them, ascending."""
    return np.sort(rng.choice(n, max(1, round(share * n)), replace=False))


def changed(batch: TraceBatch, **layers: Any) -> TraceBatch:
    """The batch with per-layer columns given as lists."""
    return replace(batch, **{name: tuple(column) for name, column in layers.items()})


def padding(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """20 %, 40 %, all of the documents are filled up with one type and one decision: by 3 rows, 8 rows, to the longest."""
    batch, n = whole(trace), len(trace.documents)
    counts = np.bincount(batch.document, minlength=n)
    filled = set(some(n, (0.2, 0.4, 1.0)[severity], rng).tolist())
    parts = []
    for number in range(n):
        own = rows(batch, batch.document == number)
        parts.append(own)
        short = (3, 8, int(counts.max() - counts[number]))[severity]
        if number in filled and short:
            last = rows(batch, np.full(short, int(np.flatnonzero(batch.document == 0)[0])))
            parts.append(replace(last, document=np.full(short, number, np.int32), token_id=np.full(short, trace.meta.vocabulary_size, np.int32),
                                 position=(len(own) + np.arange(short)).astype(np.int32)))
    return with_rows(trace, joined(parts))


def special_tokens(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """A begin token in 20 %, 60 %, all documents."""
    batch, n = whole(trace), len(trace.documents)
    chosen = some(n, (0.2, 0.6, 1.0)[severity], rng)
    first = np.isin(batch.document, chosen) & (batch.position == 0)
    return with_rows(trace, replace(batch, token_id=np.where(first, trace.meta.vocabulary_size, batch.types).astype(np.int32)))


def one_type_dominates(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """35 %, 60 %, 90 % of rows have one type."""
    batch = whole(trace)
    hit = rng.random(len(batch)) < (0.35, 0.6, 0.9)[severity]
    return with_rows(trace, replace(batch, token_id=np.where(hit, 7, batch.types).astype(np.int32)))


def missing_entropies(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """One row, 2 % and 50 % of the rows of one layer have no number."""
    batch = whole(trace)
    assert batch.entropy_nats is not None
    entropy = batch.entropy_nats.copy()
    entropy[0, some(len(batch), (0.0, 0.02, 0.5)[severity], rng)] = np.nan
    return with_rows(trace, replace(batch, entropy_nats=entropy))


def counted_twice(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """One document, 10 %, and all are there again under other numbers, read the same way."""
    batch, n = whole(trace), len(trace.documents)
    again = some(n, (0.0, 0.1, 1.0)[severity], rng)
    copies = [rows(batch, batch.document == number) for number in again]
    moved = [replace(one, document=np.full(len(one), n + i, np.int32)) for i, one in enumerate(copies)]
    documents = [*trace.documents, *(replace(trace.documents[number], document=n + i, id=f"again {i}") for i, number in enumerate(again))]
    return with_rows(trace, joined([batch, *moved]), documents)


def repeated_rows(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """About 2 %, 10 %, 50 % of the rows are blocks of 40 rows that an earlier document has, moved into a later one."""
    batch, n = whole(trace), len(trace.documents)
    parts, pool = [], batch
    wanted = SHARES[severity] * len(batch)
    given = 0
    for number in range(n):
        own = rows(batch, batch.document == number)
        parts.append(own)
        if number > 3 and given < wanted:
            start = int(rng.integers(0, int((pool.document < number).sum()) - 40))
            block = rows(pool, slice(start, start + 40))
            if len(np.unique(block.document)) > 1 and severity < 2:
                start = int(np.flatnonzero(pool.document == int(np.bincount(pool.document[pool.document < number]).argmax()))[0]) + 5
                block = rows(pool, slice(start, start + 40))
            parts.append(replace(block, document=np.full(40, number, np.int32), position=(len(own) + np.arange(40)).astype(np.int32)))
            given += 40
    return with_rows(trace, joined(parts))


def warm_up(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """Dummy tokens of one decision before everything else: 1 %, 5 %, 30 % of the rows, in documents of 32."""
    batch, n = whole(trace), len(trace.documents)
    count = max(1, round((0.01, 0.05, 0.3)[severity] * len(batch) / 32))
    parts = []
    for number in range(count):
        dummy = rows(batch, np.zeros(32, int))
        parts.append(replace(dummy, document=np.full(32, n + number, np.int32), position=np.arange(32, dtype=np.int32)))
    documents = [*trace.documents, *(DocumentRow(n + i, f"warm {i}", "domain0", "test") for i in range(count))]
    return with_rows(trace, joined([*parts, batch]), documents)


def other_router(trace: MemoryTrace, chosen: np.ndarray, rng: np.random.Generator) -> MemoryTrace:
    """The chosen rows as a model with other names of experts has them."""
    batch = whole(trace)
    names = [rng.permutation(layer.n_experts).astype(np.uint8) for layer in trace.meta.layers]
    ids = [np.where(chosen[:, None], name[one], one) for name, one in zip(names, batch.ids)]
    return with_rows(trace, changed(batch, ids=ids))


def mixed_runs(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """The last 25 %, 35 %, 50 % of the documents are of another model."""
    batch = whole(trace)
    return other_router(trace, batch.document >= (1 - (0.25, 0.35, 0.5)[severity]) * len(trace.documents), rng)


def other_beginning(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """The first 10 %, 14 %, 18 % of the documents are of another router."""
    batch = whole(trace)
    return other_router(trace, batch.document < (0.1, 0.14, 0.18)[severity] * len(trace.documents), rng)


def duplicate_keys(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """One row, 2 %, 30 % of the rows have the position of the row before."""
    batch = whole(trace)
    index = np.sort(np.r_[np.arange(len(batch)), some(len(batch), (0.0, 0.02, 0.3)[severity], rng)])
    return with_rows(trace, rows(batch, index))


def repeated_operations(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """One document, 20 %, all have every decision three times, positions counted on."""
    batch, n = whole(trace), len(trace.documents)
    tripled = np.isin(batch.document, some(n, (0.0, 0.2, 1.0)[severity], rng))
    out = rows(batch, np.repeat(np.arange(len(batch)), np.where(tripled, 3, 1)))
    starts = np.flatnonzero(np.r_[True, out.document[1:] != out.document[:-1]])
    position = np.arange(len(out)) - np.repeat(starts, np.diff(np.append(starts, len(out))))
    return with_rows(trace, replace(out, position=position.astype(np.int32)))


def repeated_layers(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """The last layer again; the last layer two more times (gate, up and down); all layers two more times."""
    batch = whole(trace)
    more = ([-1], [-1, -1], [*range(len(batch.ids)), *range(len(batch.ids))])[severity]
    order = [*range(len(batch.ids)), *more]
    layers = tuple(replace(trace.meta.layers[i], key=f"{trace.meta.layers[i].key}.{place}") for place, i in enumerate(order))
    wider = replace(batch, ids=tuple(batch.ids[i] for i in order), weights=tuple((batch.weights or ())[i] for i in order),
                    **{name: getattr(batch, name)[order] for name in ("entropy_nats", "simpson", "top1_prob")})
    return with_rows(replace(trace, meta=replace(trace.meta, layers=layers)), wider)


def unsorted_slots(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """Slots of one row, 5 %, all rows of a layer are turned round."""
    batch = whole(trace)
    assert batch.weights is not None
    ids, weights = [one.copy() for one in batch.ids], [one.copy() for one in batch.weights]
    turned = some(len(batch), (0.0, 0.05, 1.0)[severity], rng) if severity else np.flatnonzero(weights[0][:, 0] > weights[0][:, 1])[:1]
    ids[0][turned], weights[0][turned] = ids[0][turned, ::-1], weights[0][turned, ::-1]
    return with_rows(trace, changed(batch, ids=ids, weights=weights))


def slot_order_unknown(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """No weights at all: there is one severity."""
    return with_rows(trace, replace(whole(trace), weights=None))


def slots_by_id(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """The choices of one layer but for a row in 200, of one layer, of all layers are a sorted set; there are no weights."""
    batch = whole(trace)
    mixed = rng.random(len(batch)) < (0.005, 0.0, 0.0)[severity]
    ids = [np.where(mixed[:, None], one, np.sort(one, axis=1)) if severity == 2 or not layer else one for layer, one in enumerate(batch.ids)]
    return with_rows(trace, changed(replace(batch, weights=None), ids=ids))


def documents_not_texts(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """The source says that documents are no texts: there is one severity."""
    return replace(trace, meta=replace(trace.meta, details={**trace.meta.details, "documents_are": "passes"}))


def ids_beyond_range(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """One row, 2 %, 30 % of the rows name an expert that is not there."""
    batch = whole(trace)
    ids = [one.copy() for one in batch.ids]
    ids[0][some(len(batch), (0.0, 0.02, 0.3)[severity], rng), 0] = trace.meta.layers[0].n_experts
    return with_rows(trace, changed(batch, ids=ids))


def repeated_choice(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """One row, 2 %, 30 % of the rows are zeros in every layer."""
    batch = whole(trace)
    empty = some(len(batch), (0.0, 0.02, 0.3)[severity], rng)
    ids = [one.copy() for one in batch.ids]
    for one in ids:
        one[empty] = 0
    return with_rows(trace, changed(batch, ids=ids))


def physical_ids(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """The busiest expert, the two, the four busiest of the first layer have a replica that takes half of their tokens."""
    batch = whole(trace)
    n = trace.meta.layers[0].n_experts
    busiest = np.argsort(-np.bincount(batch.ids[0].ravel(), minlength=n))[:(1, 2, 4)[severity]]
    first = batch.ids[0].copy()
    for number, expert in enumerate(busiest):
        first[(first == expert) & (rng.random(len(first)) < 0.5)[:, None]] = n + number
    layers = (replace(trace.meta.layers[0], n_experts=n + len(busiest)), *trace.meta.layers[1:])
    return with_rows(replace(trace, meta=replace(trace.meta, layers=layers)), changed(batch, ids=[first, *batch.ids[1:]]))


def dense_layers(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """One layer is 0..k-1, one is zeros in 99.5 % of its rows, all but the last are zeros."""
    batch = whole(trace)
    ids = [one.copy() for one in batch.ids]
    if severity == 0:
        ids[0][:] = np.arange(ids[0].shape[1])
    elif severity == 1:
        ids[0][rng.random(len(batch)) < 0.997] = 0
    else:
        for one in ids[:-1]:
            one[:] = 0
    return with_rows(trace, changed(batch, ids=ids))


def tokens_missing(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """One inner token, 2 % and 30 % of the inner tokens are not there."""
    batch = whole(trace)
    inner = np.flatnonzero((batch.position > 0) & (batch.position < np.bincount(batch.document)[batch.document] - 1))
    gone = inner[some(len(inner), (0.0, 0.02, 0.3)[severity], rng)]
    return with_rows(trace, rows(batch, np.delete(np.arange(len(batch)), gone)))


def first_tokens_missing(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """The first token of one document, of 10 %, and the first eight of all are not there."""
    batch, n = whole(trace), len(trace.documents)
    cut = np.isin(batch.document, some(n, (0.0, 0.1, 1.0)[severity], rng))
    return with_rows(trace, rows(batch, ~(cut & (batch.position < (1, 1, 8)[severity]))))


def last_tokens_missing(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """The last token of one document, of 10 %, of all, where the meta says how long documents are."""
    batch, n = whole(trace), len(trace.documents)
    lengths = np.bincount(batch.document, minlength=n)
    cut = np.isin(batch.document, some(n, (0.0, 0.1, 1.0)[severity], rng))
    gone = cut & (batch.position == lengths[batch.document] - 1)
    meta = replace(trace.meta, details={"document_lengths": {str(i): int(x) for i, x in enumerate(lengths)}})
    return with_rows(replace(trace, meta=meta), rows(batch, ~gone))


def weights_sum(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """Weights of one row, of 10 % of the rows, of all are of another sum: by 5 %, by 5 %, by half."""
    batch = whole(trace)
    assert batch.weights is not None
    weights = [one.astype(np.float32) for one in batch.weights]
    touched = some(len(batch), (0.0, 0.1, 1.0)[severity], rng)
    weights[0][touched] *= (0.95, 0.95, 0.5)[severity]
    return with_rows(trace, changed(batch, weights=[one.astype(np.float16) for one in weights]))


def entropy_range(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """Bits for nats in one layer; in all; entropies of the chosen experts only."""
    batch = whole(trace)
    assert batch.entropy_nats is not None and batch.weights is not None
    entropy = batch.entropy_nats.copy()
    if severity == 0:
        entropy[0] /= np.log(2)
    elif severity == 1:
        entropy /= np.log(2)
    else:
        for layer, weights in enumerate(batch.weights):
            p = weights.astype(np.float64)
            entropy[layer] = -(p * np.log(np.maximum(p, 1e-9))).sum(axis=1)
    return with_rows(trace, replace(batch, entropy_nats=entropy))


def dependent_documents(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """Two documents, 20 %, all begin with one prompt that is 60 % of the document."""
    batch, n = whole(trace), len(trace.documents)
    lengths = np.bincount(batch.document, minlength=n)
    chosen = np.argsort(-lengths, kind="stable")[:(2, round(0.2 * n), n)[severity]]
    index = np.arange(len(batch))
    starts = np.r_[0, np.cumsum(lengths)[:-1]]
    longest = int(chosen[0])
    for number in chosen:
        part = int(np.ceil(0.8 * lengths[number]))
        index[starts[number]:starts[number] + part] = starts[longest] + np.arange(part)
    moved = rows(batch, index)
    return with_rows(trace, replace(moved, document=batch.document, position=batch.position))


def shared_prefix(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """60 %, 80 %, all documents begin with one template of 8, 8, 12 rows."""
    batch, n = whole(trace), len(trace.documents)
    chosen = np.isin(batch.document, some(n, (0.6, 0.8, 1.0)[severity], rng)) & (batch.position < (8, 8, 12)[severity])
    start = int(np.flatnonzero(batch.document == int(np.bincount(batch.document).argmax()))[0])
    index = np.where(chosen, start + batch.position, np.arange(len(batch)))
    return with_rows(trace, replace(rows(batch, index), document=batch.document, position=batch.position))


def few_documents(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """29, 12, 3 documents."""
    batch, n = whole(trace), (29, 12, 3)[severity]
    return with_rows(trace, rows(batch, batch.document < n), list(trace.documents[:n]))


def first_token_sinks(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """First tokens of 90 % of the documents in one layer, of all in one layer, of all in every layer go to the least used experts."""
    batch = whole(trace)
    ids = [one.copy() for one in batch.ids]
    first = (batch.position == 0) & (rng.random(len(batch)) < (0.9, 1.0, 1.0)[severity])
    for layer, one in enumerate(ids[:(1, 1, len(ids))[severity]]):
        rare = np.argsort(np.bincount(one.ravel(), minlength=trace.meta.layers[layer].n_experts))[:one.shape[1]]
        one[first] = rare
    return with_rows(trace, changed(batch, ids=ids))


def small_sample(trace: MemoryTrace, severity: int, rng: np.random.Generator) -> MemoryTrace:
    """Uniform routing over many experts: twelve, four, one selection each."""
    batch = whole(trace)
    n = 250
    per_expert = (12, 4, 1)[severity]
    k = batch.ids[0].shape[1]
    count = min(len(batch), n * per_expert // k)
    layers = tuple(LayerMeta(one.key, one.depth, one.stack, n, one.top_k) for one in trace.meta.layers)
    ids = [np.argsort(rng.random((len(batch), n)), axis=1)[:, :k].astype(np.uint8) for _ in batch.ids]
    kept = rows(changed(batch, ids=ids), slice(0, count))
    return with_rows(replace(trace, meta=replace(trace.meta, layers=layers)), replace(kept, entropy_nats=None, simpson=None, top1_prob=None))


PLANTED: dict[str, tuple[str, Plant]] = {name: (code, plant) for name, code, plant in (
    ("padding", "padding", padding), ("special_tokens", "special_tokens", special_tokens),
    ("one_type_dominates", "one_type_dominates", one_type_dominates), ("missing_entropies", "missing_entropies", missing_entropies),
    ("counted_twice", "counted_twice", counted_twice), ("repeated_rows", "repeated_rows", repeated_rows), ("warm_up", "warm_up", warm_up),
    ("other_beginning", "warm_up", other_beginning), ("mixed_runs", "mixed_runs", mixed_runs), ("duplicate_keys", "duplicate_keys", duplicate_keys),
    ("repeated_operations", "repeated_operations", repeated_operations), ("repeated_layers", "repeated_layers", repeated_layers),
    ("unsorted_slots", "unsorted_slots", unsorted_slots), ("slot_order_unknown", "slot_order_unknown", slot_order_unknown),
    ("slots_by_id", "slots_by_id", slots_by_id), ("documents_not_texts", "documents_not_texts", documents_not_texts),
    ("ids_beyond_range", "ids_beyond_range", ids_beyond_range), ("repeated_choice", "repeated_choice", repeated_choice),
    ("physical_ids", "physical_ids", physical_ids), ("dense_layers", "dense_layers", dense_layers),
    ("tokens_missing", "tokens_missing", tokens_missing),
    ("first_tokens_missing", "ends_missing", first_tokens_missing), ("last_tokens_missing", "ends_missing", last_tokens_missing),
    ("weights_sum", "weights_sum", weights_sum), ("entropy_range", "entropy_range", entropy_range),
    ("dependent_documents", "dependent_documents", dependent_documents),
    ("shared_prefix", "shared_prefix", shared_prefix), ("few_documents", "few_documents", few_documents),
    ("first_token_sinks", "first_token_sinks", first_token_sinks), ("small_sample", "small_sample", small_sample),
)}


LARGER = {"other_beginning": World(documents=120), "mixed_runs": World(documents=120)}  # what is seen against documents needs some


def planted(name: str, severity: int, seed: int = 0) -> MemoryTrace:
    """A clean trace with one flaw."""
    return PLANTED[name][1](clean(LARGER.get(name, World()), seed), severity, np.random.default_rng([5, seed, severity]))
