"""Matched sampling nulls: the same trace without the dependence on token type.

R draw, L MoE layer, V token type, T token, S segment (document and position band).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import COMPILED_FROM, Backend, Int, choose_backend, digest64, mix, numba_loaded, permute_within, scatter_layers, to_fixed
from analysis.rows import bands, take, whole_documents
from analysis.trace import DocumentRow, RoutingTrace, TraceBatch

ACCUMULATOR_BYTES = 2**28
DRAWS_AT_ONCE = 16


@dataclass(frozen=True)
class NullPlan:
    """n_draws permutations keyed by seed; a draw depends on document id, band and draw number alone. band: only rows of that band."""

    split: str
    n_draws: int
    seed: int
    band: int | None = None
    n_rows: int = 0  # of the split, to choose the backend; the draws do not depend on it


def permuted_entropy_sums(trace: RoutingTrace, plan: NullPlan, types: Int) -> Iterator[tuple[list[int], Int]]:
    """Layers and entropy sums [R, L, m] (fixed point) of `types` after permuting occurrences over types inside (document, band).

    The permutation of a draw is the same for all layers, so that means over layers have their matched null too. Layers
    come in chunks whose sums fit ACCUMULATOR_BYTES; the trace is read once a chunk, with those layers only.
    """
    column = np.full(trace.meta.vocabulary_size, -1, np.int64)
    column[types] = np.arange(len(types))
    keys = document_keys(trace.documents, plan.seed)
    backend = choose_backend(plan.n_draws * plan.n_rows, 0 if numba_loaded() else COMPILED_FROM)
    for layers in layer_chunks(len(trace.meta.layers), plan.n_draws * len(types) * 8):
        out = np.zeros((plan.n_draws, len(layers), len(types)), np.int64)
        for batch in whole_documents(trace.batches(split=plan.split, layers=layers)):
            chosen = batch if plan.band is None else take(batch, bands(batch.position) == plan.band)
            if len(chosen):
                _add_permuted(chosen, keys, column[chosen.types], out, backend)
        yield layers, out


def _add_permuted(batch: TraceBatch, keys: NDArray[np.uint64], columns: Int, out: Int, backend: Backend) -> None:
    starts, lengths, segment_keys = segments(batch, keys)
    values = to_fixed(np.asarray(batch.entropy_nats))
    for first in range(0, len(out), DRAWS_AT_ONCE):
        sums = out[first : first + DRAWS_AT_ONCE]
        with np.errstate(over="ignore"):
            keys_RS = mix(segment_keys + np.arange(first, first + len(sums), dtype=np.uint64)[:, None])
        for shuffled, draw in zip(permute_within(starts, lengths, keys_RS, backend), sums):
            scatter_layers(columns, shuffled, values, draw, backend)


def segments(batch: TraceBatch, keys: NDArray[np.uint64]) -> tuple[Int, Int, NDArray[np.uint64]]:
    """First row, length and random key of each run of rows of one document and position band."""
    band = bands(batch.position)
    starts = np.flatnonzero(np.r_[True, (batch.document[1:] != batch.document[:-1]) | (band[1:] != band[:-1])])
    with np.errstate(over="ignore"):
        segment_keys = mix(keys[batch.document[starts]] + band[starts].astype(np.uint64))
    return starts, np.diff(np.r_[starts, len(batch)]), segment_keys


def document_keys(documents: Sequence[DocumentRow], seed: int) -> NDArray[np.uint64]:
    """A random key per document number, from the document's id and the seed alone."""
    keys = np.zeros(max((d.document for d in documents), default=-1) + 1, np.uint64)
    for row in documents:
        keys[row.document] = digest64(f"{row.id}\0{seed}")
    return keys


def layer_chunks(n_layers: int, bytes_per_layer: int) -> Iterator[list[int]]:
    """Consecutive layers whose accumulators fit ACCUMULATOR_BYTES together, at least one at a time."""
    size = max(1, min(n_layers, ACCUMULATOR_BYTES // max(bytes_per_layer, 1)))
    for start in range(0, n_layers, size):
        yield list(range(start, min(start + size, n_layers)))
