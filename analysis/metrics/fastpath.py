"""The fast path: a lookup table from token type to experts, made on calibration documents, put to the test on others.

V token type, m eligible type, E expert, K slot, L MoE layer, T token, D unit, P threshold point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.counts import Choices, RoutingCounts
from analysis.kernels import Float, Int, segment_sums, to_fixed
from analysis.trace import TraceBatch

EFFECT_COLUMNS = ("covered", "agree", "overlap", "missed")


@dataclass(frozen=True)
class LayerTable:
    """Experts of one layer by eligible type: types [m] ascending, experts [m, K] and weights [m, K] (rows sum to 1)."""

    types: Int
    experts: Int
    weights: Float


def eligible(counts: RoutingCounts, min_count: int, thresholds_nats: Float) -> NDArray[np.bool_]:
    """Types [L, V] with at least min_count occurrences and mean entropy strictly below the layer's threshold [L] (seed 003)."""
    mean = np.where(np.isnan(counts.mean_entropy_LV), np.inf, counts.mean_entropy_LV)
    chosen: NDArray[np.bool_] = (counts.n_V >= min_count) & (mean < thresholds_nats[:, None])
    return chosen


def ranked_experts(choices: Choices, types: Int) -> tuple[Int, Int]:
    """Experts [m, E] of each type by descending sum of combine weight, ties by id, and those sums (fixed point)."""
    weight = choices.dense(choices.weight, types)
    order = np.argsort(-weight, axis=1, kind="stable")
    return order, np.take_along_axis(weight, order, axis=1)


def lookup_tables(calibration: RoutingCounts, chosen: NDArray[np.bool_]) -> tuple[LayerTable, ...]:
    """Per layer and eligible type: the K experts of largest mean calibration weight (0 where not selected), renormalised."""
    tables = []
    for choices, row in zip(calibration.choices, chosen):
        types = np.flatnonzero(row)
        experts, weight = ranked_experts(choices, types)
        kept = weight[:, : choices.top_k].astype(np.float64)
        total = kept.sum(axis=1, keepdims=True)
        even = np.full(kept.shape, 1 / choices.top_k)
        tables.append(LayerTable(types, experts[:, : choices.top_k], np.divide(kept, total, out=even, where=total > 0)))
    return tuple(tables)


class FastPathEffect:
    """Sums per layer and unit over covered occurrences: covered, first choice right, overlap |T & S|, weight missed (fixed)."""

    def __init__(self, tables: tuple[LayerTable, ...], counts: RoutingCounts) -> None:
        self._counts = counts
        self.sums = np.zeros((len(tables), len(EFFECT_COLUMNS), counts.units.n), np.int64)
        self._tables = tables
        self._row = np.full((len(tables), counts.n_types), -1, np.int64)
        for layer, table in enumerate(tables):
            self._row[layer, table.types] = np.arange(len(table.types))

    def add(self, batch: TraceBatch, unit: Int) -> None:
        """Count the rows of a batch; unit: resampling unit of each row [T]."""
        for layer, table in enumerate(self._tables):
            row = self._row[layer, batch.types]
            covered = np.flatnonzero(row >= 0)
            if not len(covered):
                continue
            ids = batch.ids[layer][covered].astype(np.int64)
            experts = table.experts[row[covered]]
            hit = (ids[:, :, None] == experts[:, None, :]).any(axis=2)
            missed = self._missed(batch, layer, covered, hit)
            columns = np.stack([np.ones(len(covered), np.int64), ids[:, 0] == experts[:, 0], hit.sum(axis=1), missed])
            units, sums = segment_sums(unit[covered], columns)
            self.sums[layer][:, units] += sums

    @staticmethod
    def _missed(batch: TraceBatch, layer: int, covered: Int, hit: NDArray[np.bool_]) -> Int:
        if batch.weights is None:
            return np.zeros(len(covered), np.int64)
        weights = np.abs(batch.weights[layer][covered].astype(np.float64))
        total = weights.sum(axis=1)
        return to_fixed(np.divide((weights * ~hit).sum(axis=1), total, out=np.zeros(len(total)), where=total > 0))
