"""Traces to measure on: Zipf types, topics, 4 MoE layers of 16 experts, top-2.

D document, T token (row), L MoE layer, K slot, V token type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.rows import join, take
from analysis.trace import DocumentRow, TraceBatch, TraceMeta
from tests.bench.worlds import SEED_000, Shape
from tests.references.memory_trace import MemoryTrace
from tests.synthetic_trace import make_documents, make_meta, make_shards

LAYERS = ((16, 2),) * 4
DOCUMENT_TOKENS = (200, 600)


@dataclass(frozen=True)
class Sizes:
    """How much of each; see `SHORT` and `LONG` in tests.bench.__main__."""

    tokens: int  # of the per-type, bootstrap and null workloads
    vocabularies: tuple[int, ...]
    loop_tokens: int  # slice on which loops over Python lists run
    replicates: int
    rival_replicates: int
    null_draws: int
    rival_draws: int
    store_tokens: int
    evaluated_tokens: int
    evaluations: int
    bound_mib: int  # memory bound of the streaming child
    alternations: int = 3
    seed_documents: int = 37_200
    seed_experts: int = 128
    stage_replicates: int = 1_000
    stage_draws: tuple[int, int] = (25, 200)
    exact_pairs: int | None = None  # all
    yard_tokens: int = 1_190_000
    shape_share: float = 1.0  # of the documents of the top-k shapes
    topk_layers: int | None = None  # all
    topk_loop_tokens: int = 1_000
    half_values: int = 16_000_000  # 16-bit router outputs
    moment_rows: int = 2_000_000
    moment_loop_rows: int = 5_000
    silhouette_rows: tuple[int, int] = (50_000, 2_000)  # ours, and of the slice on which every pair is taken
    pairs_bound_mib: int | None = 448  # memory bound of the child that streams joint tables; None leaves it out
    starts: int = 5

    @property
    def seed_000(self) -> Shape:
        """Seed 000, or a smaller one."""
        return replace(SEED_000, n_documents=self.seed_documents, n_experts=self.seed_experts)

    def part_of(self, shape: Shape) -> Shape:
        """A top-k shape, or a smaller one."""
        return replace(shape, n_documents=max(2, round(shape.n_documents * self.shape_share)), n_layers=self.topk_layers or shape.n_layers)


@dataclass(frozen=True)
class Sample:
    """A trace in memory with what rivals read: one batch of all rows."""

    meta: TraceMeta
    documents: Sequence[DocumentRow]
    shards: Sequence[TraceBatch]

    @classmethod
    def of(cls, tokens: int, vocabulary: int, *, calibration: float = 0.0, per_shard: int = 64) -> Sample:
        """About `tokens` rows."""
        meta = make_meta(LAYERS, vocabulary)
        documents = make_documents(max(2, round(tokens / (sum(DOCUMENT_TOKENS) / 2))), calibration=calibration)
        rng = np.random.default_rng([tokens, vocabulary])
        return cls(meta, documents, [batch for _, batch, _ in make_shards(rng, meta, documents, per_shard, tokens=DOCUMENT_TOKENS)])

    @property
    def trace(self) -> MemoryTrace:
        return MemoryTrace(self.meta, self.documents, self.shards)

    @cached_property
    def rows(self) -> TraceBatch:
        whole = self.shards[0]
        for shard in self.shards[1:]:
            whole = join(whole, shard)
        return whole

    def first(self, tokens: int) -> Sample:
        """The first rows."""
        part = take(self.rows, slice(0, tokens))
        return Sample(self.meta, [d for d in self.documents if d.document <= int(part.document[-1])], [part])


def corpus_tokens(sample: Sample, n_documents: int) -> list[NDArray[np.int64]]:
    """Tokens of documents that only frequencies are counted on."""
    rng, n_types = np.random.default_rng(1), sample.meta.vocabulary_size
    p = 1 / np.arange(1, n_types + 1)
    return [rng.choice(n_types, int(rng.integers(*DOCUMENT_TOKENS)), p=p / p.sum()) for _ in range(n_documents)]


def frequency_matrix(documents: Sequence[NDArray[np.int64]], n_types: int) -> Any:
    """CSR [D_corpus, V] of token counts."""
    from scipy.sparse import csr_matrix

    row = np.repeat(np.arange(len(documents)), [len(d) for d in documents])
    matrix = csr_matrix((np.ones(len(row), np.int64), (row, np.concatenate(documents))), shape=(len(documents), n_types))
    matrix.sum_duplicates()
    return matrix


def n_bytes(batch: TraceBatch) -> int:
    """Bytes of a batch's arrays."""
    total = 0
    for name in ("document", "position", "token_id", "ids", "weights", "entropy_nats", "simpson", "top1_prob", "dropped"):
        column = getattr(batch, name)
        parts = column if isinstance(column, tuple) else (column,)
        total += sum(part.nbytes for part in parts if part is not None)
    return total


def same_rows(a: TraceBatch, b: TraceBatch) -> bool:
    """Every column equal, bit for bit."""
    pairs = [(a.document, b.document), (a.position, b.position), (a.token_id, b.token_id), *zip(a.ids, b.ids, strict=True),
             *zip(a.weights or (), b.weights or (), strict=True), (a.entropy_nats, b.entropy_nats), (a.simpson, b.simpson),
             (a.top1_prob, b.top1_prob)]
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)
