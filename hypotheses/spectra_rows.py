"""Rows of one MoE layer of a run, some documents at a time, and what is counted by token type on them: memory is bounded whatever the trace.

T token, K slot, E expert, V chosen token type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import Int
from analysis.planes import id_batches
from analysis.trace import TraceBatch
from hypotheses.spectra_evidence import ArmRun

ROWS_AT_ONCE = 2**18


@dataclass(frozen=True)
class LayerRows:
    """Rows of whole documents, each document's by position. document, position, types: [T], types None where they are not recorded.

    experts: [T, K], -1 for a slot that holds no choice; weights: [T, K] float64, None where they are not recorded.
    """

    document: Int
    position: Int
    types: Int | None
    experts: Int
    weights: NDArray[np.float64] | None


def layer_rows(run: ArmRun, split: str, layer: int, *, weights: bool = False) -> Iterator[LayerRows]:
    """Rows of a split at one layer, about ROWS_AT_ONCE at a time. Raises TraceError for rows that cannot be counted."""
    columns = ("ids", "dropped", "weights") if weights else ("ids", "dropped")
    held: list[LayerRows] = []
    for batch in id_batches(run.trace, split, [layer], columns):
        held.append(_rows(batch, run.fillers))
        if sum(len(one.document) for one in held) >= ROWS_AT_ONCE:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def chosen_experts(batch: TraceBatch, layer: int, fillers: bool) -> Int:
    """Experts [T, K] of a layer (place in the batch) with -1 where a slot holds none: what capacity dropped, if such slots are fillers."""
    experts = batch.ids[layer].astype(np.int64)
    bits = batch.dropped[layer] if fillers and batch.dropped is not None else None
    return experts if bits is None else np.where(bits[:, None] >> np.arange(experts.shape[1]) & 1, -1, experts)


def _rows(batch: TraceBatch, fillers: bool) -> LayerRows:
    return LayerRows(batch.document.astype(np.int64), batch.position.astype(np.int64),
                     None if batch.token_id is None else batch.token_id.astype(np.int64), chosen_experts(batch, 0, fillers),
                     None if batch.weights is None else batch.weights[0].astype(np.float64))


def _joined(parts: Sequence[LayerRows]) -> LayerRows:
    types = [one.types for one in parts if one.types is not None]
    weights = [one.weights for one in parts if one.weights is not None]
    return LayerRows(np.concatenate([one.document for one in parts]), np.concatenate([one.position for one in parts]),
                     np.concatenate(types) if len(types) == len(parts) else None, np.concatenate([one.experts for one in parts]),
                     np.concatenate(weights) if len(weights) == len(parts) else None)


def occurrences(run: ArmRun, split: str) -> Int | None:
    """How often each token type of the vocabulary occurs in a split [V]; None where types are not recorded."""
    found = np.zeros(run.trace.meta.vocabulary_size, np.int64)
    for batch in id_batches(run.trace, split, [0]):
        if batch.token_id is None:
            return None
        found += np.bincount(batch.token_id, minlength=len(found))
    return found


def commonest(occurrences_V: Int, most: int, among: Int | None = None) -> Int:
    """Ids of the commonest types, ascending; ties go to the lower id. among: ids to choose from, all if None."""
    ids = np.arange(len(occurrences_V)) if among is None else among
    return np.asarray(np.sort(ids[np.argsort(-occurrences_V[ids], kind="stable")[:most]]))


def columns_of(chosen_V: Int, vocabulary: int) -> Int:
    """Place of each type of the vocabulary among the chosen ones, -1 for the others."""
    column = np.full(vocabulary, -1, np.int64)
    column[chosen_V] = np.arange(len(chosen_V))
    return column


def type_table(run: ArmRun, split: str, layer: int, chosen_V: Int) -> Int:
    """Selections of each expert by tokens of the chosen types, [E, V], at one layer."""
    column, n_experts = columns_of(chosen_V, run.trace.meta.vocabulary_size), run.trace.meta.layers[layer].n_experts
    table = np.zeros(n_experts * len(chosen_V), np.int64)
    for rows in layer_rows(run, split, layer):
        assert rows.types is not None
        place = column[rows.types]
        counted = (rows.experts >= 0) & (place >= 0)[:, None]
        table += np.bincount((rows.experts * len(chosen_V) + place[:, None])[counted], minlength=len(table))
    return table.reshape(n_experts, len(chosen_V))
