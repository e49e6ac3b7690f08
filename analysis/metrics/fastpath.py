"""The fast path: a lookup table from token type to experts, made on calibration documents, put to the test on others.

V token type, m eligible type, E expert, K slot, L MoE layer, T token, D unit, P threshold point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import divide
from analysis.counts import Choices, RoutingCounts
from analysis.kernels import Float, Int, segment_sums, to_fixed
from analysis.registry import metric
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


@metric("fastpath_coverage", unit="share of occurrences", bounds=(0.0, 1.0), undefined="no_data: no held-out occurrences",
        source="seed 003; metrics specification 2.4", takes=("part", "whole"), seed="Token occurrence coverage")
def fastpath_coverage(covered: ArrayLike, n: ArrayLike) -> Float:
    """Share of held-out occurrences whose type is eligible by calibration documents: covered / n, [0, 1]; sums over documents [...]."""
    return divide(covered, n)


@metric("fastpath_agreement", unit="share of covered occurrences", bounds=(0.0, 1.0), undefined="no test occurrence is covered",
        source="metrics specification 2.4", takes=("part", "whole"))
def fastpath_agreement(agreeing: ArrayLike, covered: ArrayLike) -> Float:
    """Share of covered occurrences at which the table's first expert is the router's: agreeing / covered, [0, 1]."""
    return divide(agreeing, covered)


@metric("fastpath_missed_weight", unit="share of combine weight", bounds=(0.0, 1.0), undefined="no test occurrence is covered",
        source="metrics specification 2.4", takes=("part", "whole"))
def fastpath_missed_weight(missed: ArrayLike, covered: ArrayLike) -> Float:
    """Mean over covered occurrences of the share of |combine weight| on experts that the table leaves out: missed / covered, [0, 1]."""
    return divide(missed, covered)


@dataclass(frozen=True)
class FastPathPoint:
    """One pair of thresholds on counts per type: which types are eligible [V], how many, and what they cover.

    Shares are None with `reason` where there is no type or no occurrence.
    """

    eligible: NDArray[np.bool_]
    eligible_types: int
    eligible_type_share: float | None
    coverage: float | None
    low_entropy_type_share: float | None
    reason: str | None = None


def fast_path_point(counts_V: ArrayLike, entropy_V: ArrayLike, min_count: float, below_nats: float,
                    held_out_V: ArrayLike | None = None) -> FastPathPoint:
    """Types with count >= min_count and mean entropy strictly below the threshold, and the share of occurrences that they cover.

    counts_V, entropy_V: calibration documents, NaN entropy where a type was not seen; held_out_V: the counts to cover. By default
    those that decide, which is double dipping and the seed's reading. Shares of types are over types seen in calibration.
    """
    counts, entropy = np.asarray(counts_V, np.float64), np.asarray(entropy_V, np.float64)
    scored = counts if held_out_V is None else np.asarray(held_out_V, np.float64)
    if not counts.shape == entropy.shape == scored.shape or counts.ndim != 1:
        raise ValueError(f"counts_V {counts.shape}, entropy_V {entropy.shape}, held_out_V {scored.shape}: give one number of each per type")
    seen = counts > 0
    low = seen & (np.where(np.isnan(entropy), np.inf, entropy) < below_nats)
    chosen = low & (counts >= min_count)
    types, total = int(seen.sum()), float(scored.sum())
    reason = "no_data: no type was seen" if not types else None if total else "no_data: no occurrence to cover"
    return FastPathPoint(chosen, int(chosen.sum()), float(chosen.sum()) / types if types else None,
                         float(scored[chosen].sum()) / total if total else None, float(low.sum()) / types if types else None, reason)
