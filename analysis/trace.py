"""Routing traces: what a router decided, per kept token and MoE layer.

T token (row), L MoE layer, K slot in the top-k, E expert.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "calibration", "test")
POSITION_BANDS = (0, 1, 4, 16, 64)  # first position of each band: 0, 1-3, 4-15, 16-63, 64+


class TraceError(ValueError):
    """A trace that breaks its schema; the message names file or batch, field and remedy."""


@dataclass(frozen=True, slots=True)
class LayerMeta:
    """One MoE layer: `key` is the router's module path, `depth` the block index in its `stack`."""

    key: str
    depth: int
    stack: str  # "decoder" or "encoder"
    n_experts: int
    top_k: int

    @property
    def id_dtype(self) -> np.dtype[Any]:
        """Narrowest unsigned dtype that holds an expert id of this layer."""
        return np.dtype(np.uint8 if self.n_experts <= 256 else np.uint16)


@dataclass(frozen=True)
class TraceMeta:
    """Where a trace comes from and what its columns mean; two traces with different meta are never mixed."""

    model: str
    revision: str  # commit, or SHA-256 over the checkpoint's files
    layers: tuple[LayerMeta, ...]
    score_function: str  # "softmax" or "sigmoid", or the architecture's own name
    entropy_of: str  # "softmax_logits" or "normalised_scores"
    weights_mean: str  # formula of the combine weights, as the conformance check found it
    tokenizer: str  # SHA-256
    vocabulary_size: int
    collector: str  # name and version of the code that wrote the rows
    versions: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)  # conformance, quantisation, dtype, batch plan


@dataclass(frozen=True)
class TraceBatch:
    """Rows of a trace, one per kept token.

    document, position, token_id: int32 [T]; position counts kept and dropped tokens of the document from 0; token_id is None where
    the source did not record it (`types` then refuses).
    ids: L arrays [T, K] (uint8 or uint16), by descending score; weights: L arrays [T, K] float16, as the model used them.
    entropy_nats, simpson, top1_prob: float32 [L, T]; see TraceMeta.entropy_of.
    dropped: L entries, each uint8 [T] (bit k set: capacity dropped slot k) or None for a layer that never drops.
    Columns that a source cannot fill are None, never zero.
    """

    document: NDArray[np.int32]
    position: NDArray[np.int32]
    token_id: NDArray[np.int32] | None
    ids: tuple[NDArray[Any], ...]
    weights: tuple[NDArray[np.float16], ...] | None = None
    entropy_nats: NDArray[np.float32] | None = None
    simpson: NDArray[np.float32] | None = None
    top1_prob: NDArray[np.float32] | None = None
    dropped: tuple[NDArray[np.uint8] | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.document)

    @property
    def types(self) -> NDArray[np.int32]:
        """token_id, for what cannot be counted without it; TraceError where the source did not record it."""
        if self.token_id is None:
            raise TraceError("column token_id: absent; what is asked needs token types, take a trace whose source records them")
        return self.token_id


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """One document of a trace: the unit that is resampled."""

    document: int  # row number used in the trace's `document` column
    id: str
    domain: str
    split: str  # one of SPLITS


class RoutingTrace(Protocol):
    """What an analysis reads: meta, documents, and batches in a fixed order."""

    @property
    def meta(self) -> TraceMeta:
        """Provenance and layer table."""

    @property
    def documents(self) -> Sequence[DocumentRow]:
        """Every document that has rows, ordered by `document`."""

    def batches(self, *, split: str | None = None, layers: Sequence[int] | None = None) -> Iterator[TraceBatch]:
        """Yield the rows of `split` (all, if None), with the chosen layers only, in a fixed order."""


@dataclass(frozen=True)
class CountsTrace:
    """A trace of which only additive tables were kept. What needs tokens or documents is undefined on it: nothing can be resampled.

    domains: labels; counts: L arrays int64 [D, E] of selections (k per token); first: the same of first choices, or None;
    pairs: (layer index, later layer index) -> int64 [D, E, E'] of first choices where `pairs_first`, else of choices of equal rank;
    tokens: int64 [D], or None; types: L arrays of rows (domain index, expert, token id, count) int64 [n, 4], or None.
    """

    meta: TraceMeta
    domains: tuple[str, ...]
    counts: tuple[NDArray[np.int64], ...]
    first: tuple[NDArray[np.int64], ...] | None = None
    pairs: Mapping[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict)
    pairs_first: bool = True
    tokens: NDArray[np.int64] | None = None
    types: tuple[NDArray[np.int64], ...] | None = None
