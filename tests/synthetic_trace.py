"""Small traces with topics and token types, for tests: what a router might do, at any shape, from a generator of one's own.

D document, T token (row), L MoE layer, K slot in the top-k, E expert, V token type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from analysis.trace import DocumentRow, LayerMeta, TraceBatch, TraceMeta
from tracking.traces import StoredTrace, TraceWriter

LAYERS = ((16, 2), (16, 2))  # (experts, k) of each layer


def make_meta(layers: Sequence[tuple[int, int]] = LAYERS, vocabulary_size: int = 256, **fields: object) -> TraceMeta:
    """A meta with the given (experts, k) per layer."""
    table = tuple(LayerMeta(f"model.layers.{depth}.mlp.gate", depth, "decoder", n_experts, top_k)
                  for depth, (n_experts, top_k) in enumerate(layers))
    given: dict[str, object] = {"model": "synthetic", "revision": "0" * 64, "layers": table, "score_function": "softmax",
                                "entropy_of": "softmax_logits", "weights_mean": "top-k of softmax, renormalised", "tokenizer": "1" * 64,
                                "vocabulary_size": vocabulary_size, "collector": "tests.synthetic_trace 1", "versions": {"numpy": "2"},
                                "details": {"batch_plan": {"batch_size": 4}}}
    return TraceMeta(**(given | fields))  # type: ignore[arg-type]


def make_documents(n_documents: int, domains: Sequence[str] = ("code", "news"), calibration: float = 0.3) -> tuple[DocumentRow, ...]:
    """Documents dealt to the domains in turn; the first `calibration` share of each ten is calibration, the rest test."""
    return tuple(DocumentRow(number, f"document-{number}", domains[number % len(domains)],
                             "calibration" if number // len(domains) % 10 < 10 * calibration else "test") for number in range(n_documents))


def make_batch(rng: np.random.Generator, meta: TraceMeta, documents: Sequence[DocumentRow], *, tokens: tuple[int, int] = (20, 60),
               slope: float = 1.0, topic: float = 1.0, dropping: Sequence[int] = ()) -> TraceBatch:
    """Rows of some documents. Types are Zipf; logits are type + topic of the domain + noise, sharper for frequent types by `slope`.

    dropping: layers that have a `dropped` column.
    """
    n_types = meta.vocabulary_size
    frequency = 1 / np.arange(1, n_types + 1)
    lengths = rng.integers(tokens[0], tokens[1] + 1, len(documents))
    document = np.repeat([row.document for row in documents], lengths).astype(np.int32)
    token_id = rng.choice(n_types, len(document), p=frequency / frequency.sum()).astype(np.int32)
    position = np.concatenate([np.arange(n) for n in lengths] or [np.zeros(0)]).astype(np.int32)
    domain = np.repeat([sum(row.domain.encode()) for row in documents], lengths)
    sharp = (1.0 + slope * np.log(n_types * frequency[token_id]) / np.log(n_types))[:, None]
    ids, weights, entropy, simpson, top1, dropped = [], [], [], [], [], []
    for index, layer in enumerate(meta.layers):
        of_type = np.random.default_rng([7, index]).normal(size=(n_types, layer.n_experts))  # one router, whatever the documents
        of_topic = np.random.default_rng([8, index]).normal(size=(64, layer.n_experts))
        logits = sharp * (of_type[token_id] + topic * of_topic[domain % 64] + 0.5 * rng.normal(size=(len(document), layer.n_experts)))
        log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        p = np.exp(log_p)
        best = np.argsort(-p, axis=1, kind="stable")[:, :layer.top_k]
        chosen = np.take_along_axis(p, best, axis=1)
        ids.append(best.astype(layer.id_dtype))
        weights.append((chosen / chosen.sum(axis=1, keepdims=True)).astype(np.float16))
        entropy.append(-(p * log_p).sum(axis=1))
        simpson.append((p * p).sum(axis=1))
        top1.append(p.max(axis=1))
        dropped.append(rng.integers(0, 1 << layer.top_k, len(document)).astype(np.uint8) if index in dropping else None)
    stacked = [np.array(column, dtype=np.float32).reshape(len(meta.layers), len(document)) for column in (entropy, simpson, top1)]
    return TraceBatch(document, position, token_id, tuple(ids), tuple(weights), *stacked, tuple(dropped) if dropping else None)


def make_shards(rng: np.random.Generator, meta: TraceMeta, documents: Sequence[DocumentRow], per_shard: int = 8,
                **shape: object) -> Iterator[tuple[int, TraceBatch, list[int]]]:
    """(number, rows, documents) of each shard."""
    for number, start in enumerate(range(0, len(documents), per_shard)):
        chosen = documents[start:start + per_shard]
        yield number, make_batch(rng, meta, chosen, **shape), [row.document for row in chosen]  # type: ignore[arg-type]


def make_trace(directory: Path, rng: np.random.Generator, n_documents: int = 20, layers: Sequence[tuple[int, int]] = LAYERS, *,
               documents: Sequence[DocumentRow] | None = None, vocabulary_size: int = 256, per_shard: int = 8,
               **shape: object) -> StoredTrace:
    """A finished trace in `directory`, written through the real store. layers: (experts, k) each; shape: see make_batch."""
    meta = make_meta(layers, vocabulary_size)
    rows = make_documents(n_documents) if documents is None else documents
    writer = TraceWriter.create_or_resume(directory, meta, rows)
    for number, batch, numbers in make_shards(rng, meta, rows, per_shard, **shape):
        writer.write_shard(number, batch, numbers)
    writer.finish()
    return StoredTrace.open(directory)
