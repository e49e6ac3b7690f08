"""Clean traces for the audit: topics that differ by document, ragged lengths, Zipf types, any number of experts; and none of the flaws.

D document, T token (row), L MoE layer, K slot in the top-k, E expert, V token type.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.trace import DocumentRow, LayerMeta, TraceBatch, TraceMeta
from tests.references.memory_trace import MemoryTrace


@dataclass(frozen=True)
class World:
    """Shape of a clean trace. topic: how far documents lean to experts of their own; within: the same of documents of one domain."""

    documents: int = 60
    domains: int = 3
    length: int = 60  # median tokens of a document; lengths are log-normal
    layers: int = 3
    experts: int = 16
    top_k: int = 2
    vocabulary: int = 400
    topic: float = 0.7
    within: float = 0.3
    per_batch: int = 16
    ordered: bool = False  # domain after domain, instead of mixed


def drawn_world(rng: np.random.Generator) -> World:
    """A clean world of a random shape."""
    experts = int(rng.choice([8, 16, 32, 64]))
    return World(int(rng.integers(40, 90)), int(rng.integers(1, 5)), int(rng.integers(30, 80)), int(rng.integers(1, 5)), experts,
                 int(rng.integers(1, 5)) if experts > 8 else int(rng.integers(1, 3)), int(rng.integers(100, 1000)), float(rng.uniform(0, 1.2)),
                 float(rng.uniform(0, 0.6)), int(rng.integers(4, 40)), bool(rng.integers(0, 2)))


def meta_of(world: World) -> TraceMeta:
    """The meta of a clean trace."""
    layers = tuple(LayerMeta(f"model.layers.{i}.mlp.gate", i, "decoder", world.experts, world.top_k) for i in range(world.layers))
    return TraceMeta("world", "0", layers, "softmax", "softmax_logits", "softmax/k", "0", world.vocabulary, "tests")


def clean(world: World, seed: int = 0) -> MemoryTrace:
    """A trace without flaws; the same seed gives the same trace."""
    rng = np.random.default_rng([3, seed])
    domain = np.arange(world.documents) % world.domains
    domain = np.sort(domain) if world.ordered else domain
    rows = [DocumentRow(i, f"d{i}", f"domain{one}", "test" if i % 3 else "calibration") for i, one in enumerate(domain)]
    lengths = np.clip(rng.lognormal(np.log(world.length), 0.5, world.documents).astype(int), 12, 6 * world.length)
    router = [rng.normal(size=(world.vocabulary, world.experts)) for _ in range(world.layers)]
    leaning = [world.topic * rng.normal(size=(world.domains, world.experts))[domain]
               + world.within * rng.normal(size=(world.documents, world.experts)) for _ in range(world.layers)]
    frequency = 1 / np.arange(3, world.vocabulary + 3)
    types = [rng.choice(world.vocabulary, n, p=frequency / frequency.sum()) for n in lengths]
    shards = [batch_of(list(range(a, min(a + world.per_batch, world.documents))), types, router, leaning, world, rng)
              for a in range(0, world.documents, world.per_batch)]
    return MemoryTrace(meta_of(world), rows, shards)


def batch_of(numbers: list[int], types: list[np.ndarray], router: list[np.ndarray], leaning: list[np.ndarray], world: World,
             rng: np.random.Generator) -> TraceBatch:
    """Rows of some documents: a softmax over type, document and noise."""
    document = np.repeat(numbers, [len(types[i]) for i in numbers]).astype(np.int32)
    token = np.concatenate([types[i] for i in numbers]).astype(np.int32)
    position = np.concatenate([np.arange(len(types[i])) for i in numbers]).astype(np.int32)
    ids, weights, entropy, simpson, top = [], [], [], [], []
    for layer in range(world.layers):
        logits = router[layer][token] + leaning[layer][document] + 0.7 * rng.normal(size=(len(token), world.experts))
        log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        p = np.exp(log_p)
        best = np.argsort(-p, axis=1, kind="stable")[:, :world.top_k]
        chosen = np.take_along_axis(p, best, axis=1)
        ids.append(best.astype(np.uint8))
        weights.append((chosen / chosen.sum(axis=1, keepdims=True)).astype(np.float16))
        entropy.append(-(p * log_p).sum(axis=1))
        simpson.append((p * p).sum(axis=1))
        top.append(p.max(axis=1))
    reals = [np.array(column, np.float32) for column in (entropy, simpson, top)]
    return TraceBatch(document, position, token, tuple(ids), tuple(weights), *reals)
