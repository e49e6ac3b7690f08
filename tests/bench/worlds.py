"""Routing to count, at the shapes people have: domain-dependent Zipf usage, cross-layer Markov steps, persistence along a document.

D document, L layer, K slot, T token, E expert.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.planes import Planes
from analysis.trace import DocumentRow, LayerMeta, TraceBatch, TraceMeta
from tests.references.memory_trace import MemoryTrace, choose_layers

DOMAINS = ("code", "law", "news", "qa", "sentiment", "wiki")  # in the order of their names, as tables have them


@dataclass(frozen=True)
class Shape:
    """n_documents of `length` tokens, n_layers of n_experts with top_k chosen."""

    name: str
    n_documents: int
    length: int
    n_layers: int
    n_experts: int
    top_k: int = 1
    vocabulary: int = 2048

    @property
    def rows(self) -> int:
        return self.n_documents * self.length

    @property
    def groups(self) -> int:
        """Hashed groups of documents that stand for them in exact replicates, where there are so many."""
        return min(2_000, self.n_documents)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """All layer pairs."""
        return [(a, b) for a in range(self.n_layers) for b in range(a + 1, self.n_layers)]


SEED_000 = Shape("seed 000: 37,200 x 32 tokens, 12 x 128, top-1", 37_200, 32, 12, 128)
MIXTRAL_LIKE = Shape("Mixtral-like: 32 x 8, top-2", 600, 512, 32, 8, 2, 32_000)
FINE_GRAINED = Shape("fine-grained: 48 x 128, top-8", 128, 512, 48, 128, 8, 32_000)


def first_choices(shape: Shape, seed: int = 0) -> NDArray[np.uint8]:
    """[L, T]: each layer stays on the last token's expert, steps from the layer below by a fixed permutation, or draws from its domain's Zipf law."""
    rng = np.random.default_rng([seed, shape.n_layers, shape.n_experts])
    zipf = np.cumsum(1 / np.arange(1, shape.n_experts + 1))
    domain = np.repeat(np.arange(shape.n_documents) % len(DOMAINS), shape.length)
    begins = np.arange(shape.rows) % shape.length == 0
    out = np.empty((shape.n_layers, shape.rows), np.uint8)
    for layer in range(shape.n_layers):
        order = np.array([rng.permutation(shape.n_experts) for _ in DOMAINS])
        drawn = np.minimum(np.searchsorted(zipf, rng.random(shape.rows) * zipf[-1]), shape.n_experts - 1)
        fresh = order[domain, drawn]
        if layer:
            follows = rng.random(shape.rows) < 0.3
            fresh = np.where(follows, rng.permutation(shape.n_experts)[out[layer - 1]], fresh)
        moves = begins | (rng.random(shape.rows) >= 0.15)
        out[layer] = fresh[np.maximum.accumulate(np.where(moves, np.arange(shape.rows), 0))]
    return out


def all_choices(shape: Shape, seed: int = 0) -> NDArray[np.uint8]:
    """[L, K, T]: the first choice and, after it, other experts at fixed strides from it, one of two strides by token."""
    first = first_choices(shape, seed)
    rng = np.random.default_rng([seed, 7])
    out = np.empty((shape.n_layers, shape.top_k, shape.rows), np.uint8)
    for layer in range(shape.n_layers):
        strides = rng.permutation(np.arange(1, shape.n_experts))[: 2 * (shape.top_k - 1)].reshape(2, -1) if shape.top_k > 1 else None
        side = rng.integers(0, 2, shape.rows)
        out[layer, 0] = first[layer]
        for slot in range(1, shape.top_k):
            assert strides is not None
            if strides.shape[1] < shape.top_k - 1:
                raise ValueError(f"{shape.n_experts} experts are too few for two sets of {shape.top_k - 1} strides")
            out[layer, slot] = (first[layer].astype(np.int64) + strides[side, slot - 1]) % shape.n_experts
    return out


def meta_of(shape: Shape) -> TraceMeta:
    layers = tuple(LayerMeta(f"model.layers.{i}.mlp.gate", i, "decoder", shape.n_experts, shape.top_k) for i in range(shape.n_layers))
    return TraceMeta(shape.name, "0", layers, "softmax", "softmax_logits", "top-k of softmax", "0", shape.vocabulary, "tests.bench")


def documents_of(shape: Shape) -> tuple[DocumentRow, ...]:
    return tuple(DocumentRow(n, f"document-{n}", DOMAINS[n % len(DOMAINS)], "test") for n in range(shape.n_documents))


def planes_of(shape: Shape, seed: int = 0) -> Planes:
    """The rows, layer-major."""
    ids = all_choices(shape, seed)
    rng = np.random.default_rng([seed, 8])
    types = np.minimum(rng.zipf(1.3, shape.rows) - 1, shape.vocabulary - 1).astype(np.int32)
    position = np.tile(np.arange(shape.length, dtype=np.int32), shape.n_documents)
    return Planes(meta_of(shape).layers, tuple(ids), types, position, np.arange(0, shape.rows + 1, shape.length), np.arange(shape.n_documents))


class HeldTrace(MemoryTrace):
    """A trace whose documents are all of one split, so that a pass over it costs nothing of its own."""

    def batches(self, *, split: str | None = None, layers: Sequence[int] | None = None) -> Iterator[TraceBatch]:
        assert split in (None, "test")
        for shard in self.shards:
            yield choose_layers(shard, layers)


def trace_of(shape: Shape, seed: int = 0, per_batch: int = 2048, planes: Planes | None = None) -> HeldTrace:
    """The same rows as a trace, in batches of whole documents; planes: made before."""
    planes = planes or planes_of(shape, seed)
    batches = []
    for first in range(0, shape.n_documents, per_batch):
        last = min(first + per_batch, shape.n_documents)
        rows = slice(first * shape.length, last * shape.length)
        document = np.repeat(np.arange(first, last, dtype=np.int32), shape.length)
        batches.append(TraceBatch(document, planes.position[rows], planes.types[rows],
                                  tuple(np.ascontiguousarray(ids[:, rows].T) for ids in planes.ids)))
    return HeldTrace(meta_of(shape), documents_of(shape), batches)
