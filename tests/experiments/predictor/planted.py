"""Routing with a known structure: a chain of layers that can be predicted, or layers that cannot."""

from collections.abc import Sequence

import numpy as np

from analysis.planes import Planes, planes
from analysis.trace import DocumentRow, LayerMeta, TraceBatch, TraceMeta
from experiments.predictor.spec import PredictorSpec
from tests.references.memory_trace import MemoryTrace

LAYERS = ((8, 2), (8, 2), (6, 3))  # (experts, k)
KEPT = 0.9  # share of tokens at which a layer follows the one before
SMALL = PredictorSpec(hidden=16, heads=2, blocks=1, context_tokens=4, epochs=8, batch=128, lr=2e-2, dropout=0.05, device="cpu")


def metas(layers: Sequence[tuple[int, int]] = LAYERS) -> tuple[LayerMeta, ...]:
    return tuple(LayerMeta(f"model.layers.{depth}.mlp.gate", depth, "decoder", n_experts, k) for depth, (n_experts, k) in enumerate(layers))


def follower(x: np.ndarray, layer: int, n_experts: int) -> np.ndarray:
    """The expert that the chain takes after expert x of the layer before."""
    return (x * 5 + 3 * layer) % n_experts


def routed(rng: np.random.Generator, n_tokens: int, layers: Sequence[tuple[int, int]], chained: bool) -> list[np.ndarray]:
    """Top-k ids [T, K] per layer: uniform first choices, or 0.9 of them following the layer before; the rest of a set is drawn."""
    out: list[np.ndarray] = []
    for index, (n_experts, k) in enumerate(layers):
        first = rng.integers(0, n_experts, n_tokens)
        if chained and index:
            first = np.where(rng.random(n_tokens) < KEPT, follower(out[-1][:, 0].astype(int), index, n_experts), first)
        rank = rng.random((n_tokens, n_experts))
        rank[np.arange(n_tokens), first] = -1
        out.append(np.argsort(rank, axis=1)[:, :k].astype(np.uint16))
    return out


def planted_trace(seed: int = 0, *, chained: bool = True, n_documents: int = 24, tokens: tuple[int, int] = (20, 60),
                  layers: Sequence[tuple[int, int]] = LAYERS, domains: Sequence[str] = ("code", "news"), typed: bool = True) -> MemoryTrace:
    """Documents dealt to domains in turn, the first half of each domain for calibration, the second for testing."""
    rng = np.random.default_rng(seed)
    rows = tuple(DocumentRow(n, f"doc/{n}", domains[n % len(domains)], "calibration" if n < n_documents // 2 else "test")
                 for n in range(n_documents))
    length = rng.integers(tokens[0], tokens[1] + 1, n_documents)
    document = np.repeat(np.arange(n_documents), length).astype(np.int32)
    position = np.concatenate([np.arange(n) for n in length]).astype(np.int32)
    ids = routed(rng, len(document), layers, chained)
    types = rng.integers(0, 50, len(document)).astype(np.int32) if typed else None
    meta = TraceMeta("planted", "0", metas(layers), "softmax", "softmax_logits", "renormalised top-k", "0", 50, "tests")
    return MemoryTrace(meta, rows, [TraceBatch(document, position, types, tuple(ids))])


def source_planes(trace: MemoryTrace, domain: str = "code", split: str = "calibration") -> Planes:
    return planes(trace, split, documents=[row.document for row in trace.documents if row.domain == domain and row.split == split])


def replaced(given: Planes, layer: int, rows: Sequence[int] | np.ndarray, shift: int = 1) -> Planes:
    """The same planes with every expert of some rows of one layer moved on by `shift`."""
    ids = [plane.copy() for plane in given.ids]
    ids[layer][:, rows] = (ids[layer][:, rows] + shift) % given.layers[layer].n_experts
    return Planes(given.layers, tuple(ids), given.token_id, given.position, given.starts, given.document)
