"""A trace held in memory and a plain generator of one, for tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_matrix

from analysis.metrics.entropy import even_rest_nats
from analysis.rows import take
from analysis.trace import DocumentRow, LayerMeta, TraceBatch, TraceMeta


@dataclass(frozen=True)
class MemoryTrace:
    meta: TraceMeta
    documents: Sequence[DocumentRow]
    shards: Sequence[TraceBatch]

    def batches(self, *, split: str | None = None, layers: Sequence[int] | None = None) -> Iterator[TraceBatch]:
        wanted = {d.document for d in self.documents if split is None or d.split == split}
        for shard in self.shards:
            rows = np.isin(shard.document, list(wanted))
            if rows.any():
                yield choose_layers(shard if rows.all() else take(shard, rows), layers)


def choose_layers(batch: TraceBatch, layers: Sequence[int] | None) -> TraceBatch:
    if layers is None:
        return batch
    columns = {name: getattr(batch, name) for name in ("entropy_nats", "simpson", "top1_prob")}
    parts = {name: getattr(batch, name) for name in ("ids", "weights", "dropped")}
    return replace(batch, **{name: None if column is None else column[list(layers)] for name, column in columns.items()},
                   **{name: None if part is None else tuple(part[i] for i in layers) for name, part in parts.items()})


def meta(n_layers: int, n_experts: int, top_k: int, vocabulary: int) -> TraceMeta:
    layers = tuple(LayerMeta(f"model.layers.{i}.mlp.gate", i, "decoder", n_experts, top_k) for i in range(n_layers))
    return TraceMeta("memory", "0", layers, "softmax", "softmax_logits", "renormalised top-k", "0", vocabulary, "tests")


@dataclass(frozen=True)
class Shape:
    n_test: int = 80
    n_calibration: int = 40
    n_train: int = 100
    length: int = 60
    vocabulary: int = 120
    n_layers: int = 2
    n_experts: int = 8
    top_k: int = 2
    slope: float = -1.0  # of the logit entropy share on log frequency rank


def zipf_documents(shape: Shape, n: int, rng: np.random.Generator) -> list[np.ndarray]:
    p = 1 / np.arange(1, shape.vocabulary + 1)
    return [rng.choice(shape.vocabulary, int(rng.integers(shape.length // 2, shape.length * 3 // 2)), p=p / p.sum()) for _ in range(n)]


def sample_trace(seed: int = 0, shape: Shape | None = None, shard: int = 16) -> tuple[MemoryTrace, csr_matrix]:
    """A trace with an entropy that falls with frequency, and counts of its train and calibration documents."""
    shape = shape or Shape()
    rng = np.random.default_rng(seed)
    train = zipf_documents(shape, shape.n_train, rng)
    calibration = zipf_documents(shape, shape.n_calibration, rng)
    test = zipf_documents(shape, shape.n_test, rng)
    corpus = train + calibration
    rows = np.repeat(np.arange(len(corpus)), [len(d) for d in corpus])
    frequency = csr_matrix((np.ones(len(rows), np.int64), (rows, np.concatenate(corpus))), shape=(len(corpus), shape.vocabulary))
    splits = ["calibration"] * len(calibration) + ["test"] * len(test)
    documents = [DocumentRow(i, f"doc-{i}", f"domain{i % 2}", split) for i, split in enumerate(splits)]
    shards, tokens = [], calibration + test
    for start in range(0, len(tokens), shard):
        shards.append(_rows(list(range(start, min(start + shard, len(tokens)))), tokens, shape, rng))
    return MemoryTrace(meta(shape.n_layers, shape.n_experts, shape.top_k, shape.vocabulary), documents, shards), frequency


def _rows(numbers: list[int], tokens: list[np.ndarray], shape: Shape, rng: np.random.Generator) -> TraceBatch:
    document = np.concatenate([np.full(len(tokens[d]), d) for d in numbers]).astype(np.int32)
    position = np.concatenate([np.arange(len(tokens[d])) for d in numbers]).astype(np.int32)
    types = np.concatenate([tokens[d] for d in numbers]).astype(np.int32)
    n = len(types)
    top, ids, weights = [], [], []
    for layer in range(shape.n_layers):
        rank = types / shape.vocabulary
        logit = shape.slope * (0.5 - rank) * -4 + rng.normal(0, 0.7, n) + 0.5
        p = 1 / shape.n_experts + (1 - 1 / shape.n_experts) / (1 + np.exp(logit * -1 - 0.3 * layer))
        scores = rng.random((n, shape.n_experts))
        scores[np.arange(n), (types * 7 + layer) % shape.n_experts] += 1.0 * (rng.random(n) < p)
        ids.append(np.argsort(-scores, axis=1)[:, : shape.top_k].astype(np.uint8))
        w = np.full((n, shape.top_k), 1.0)
        w[:, 0] += p
        weights.append((w / w.sum(1, keepdims=True)).astype(np.float16))
        top.append(p.astype(np.float32))
    probability = np.array(top)
    rest = (1 - probability) ** 2 / max(shape.n_experts - 1, 1)
    entropy = even_rest_nats(probability, shape.n_experts).astype(np.float32)
    simpson = (probability**2 + rest).astype(np.float32)
    return TraceBatch(document, position, types, tuple(ids), tuple(weights), entropy, simpson, probability)
