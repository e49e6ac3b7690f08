"""Coverage and agreement of the fast path as functions of its thresholds, from counts per type: no pass over tokens.

L MoE layer, V token type, m type seen in calibration, K slots of the table, F frequency threshold, P point,
H entropy threshold (share of ln E).
Coverage is the mean over layers of the share of occurrences; agreement is |T & S| / k' over the covered occurrences of all layers
together, NaN where none is covered. The table of k' experts always comes from calibration, and so does eligibility.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.counts import Choices, RoutingCounts
from analysis.kernels import Float, Int
from analysis.metrics.fastpath import ranked_experts


@dataclass(frozen=True)
class ThresholdScan:
    """Counts per type of the split that decides (calibration) and of the split that is scored.

    count: calibration occurrences [m]; share: mean calibration entropy as share of ln E [L, m]; covered: scored occurrences [m];
    hits: of those, agreements with the table's first k' experts [L, K, m]; n_tokens: tokens of the scored split.
    """

    count: Int
    share: Float
    covered: Int
    hits: Int
    n_tokens: int

    def points(self, min_count: ArrayLike, entropy_share: ArrayLike, top_k: ArrayLike) -> tuple[Float, Float]:
        """Coverage [P] and agreement [P] at arbitrary points: count >= min_count, mean entropy < entropy_share * ln E, k' experts."""
        f0, h0, k = (np.atleast_1d(np.asarray(x, np.float64)) for x in np.broadcast_arrays(min_count, entropy_share, top_k))
        slots = k.astype(np.int64)
        if ((slots != k) | (slots < 1) | (slots > self.hits.shape[1])).any():
            raise ValueError(f"top_k: the table holds 1 to {self.hits.shape[1]} experts, as many as the router chooses")
        covered, hits = np.zeros((len(self.share), len(f0))), np.zeros(len(f0))
        frequent = self.count[None] >= f0[:, None]
        for layer, share in enumerate(self.share):
            eligible = (frequent & (share[None] < h0[:, None])).astype(np.float64)
            covered[layer] = eligible @ self.covered
            hits += ((eligible @ self.hits[layer].T.astype(np.float64))[np.arange(len(f0)), slots - 1]) / slots
        return self._shares(covered, hits)

    def grid(self, min_counts: ArrayLike, entropy_shares: ArrayLike) -> tuple[Float, Float]:
        """Coverage and agreement [F, H, K] at every combination of ascending thresholds, in one pass over types."""
        f0, h0 = np.asarray(min_counts, np.float64), np.asarray(entropy_shares, np.float64)
        if (np.diff(f0) <= 0).any() or (np.diff(h0) <= 0).any():
            raise ValueError("threshold grid: give the thresholds in ascending order, each once")
        n_slots = self.hits.shape[1]
        row = np.searchsorted(f0, self.count, side="right") - 1  # last threshold that the count reaches
        covered, hits = np.zeros((len(self.share), len(f0), len(h0))), np.zeros((n_slots, len(f0), len(h0)))
        for layer, share in enumerate(self.share):
            column = np.searchsorted(h0, share, side="right")  # first threshold above the mean entropy
            inside = (row >= 0) & (column < len(h0))
            cell = row[inside] * len(h0) + column[inside]
            covered[layer] = _cumulated(cell, self.covered[inside], len(f0), len(h0))
            for slot in range(n_slots):
                hits[slot] += _cumulated(cell, self.hits[layer, slot, inside], len(f0), len(h0)) / (slot + 1)
        pairs = [self._shares(covered, hits[slot]) for slot in range(n_slots)]
        return np.stack([c for c, _ in pairs], axis=-1), np.stack([a for _, a in pairs], axis=-1)

    def _shares(self, covered: Float, hits: Float) -> tuple[Float, Float]:
        total = covered.sum(axis=0)
        coverage = (covered / max(self.n_tokens, 1)).mean(axis=0)
        return coverage, np.divide(hits, total, out=np.full(total.shape, np.nan), where=total > 0)


def _cumulated(cell: Int, values: Int, n_rows: int, n_columns: int) -> Float:
    table = np.bincount(cell, weights=values, minlength=n_rows * n_columns).reshape(n_rows, n_columns)
    summed: Float = table[::-1].cumsum(axis=0)[::-1].cumsum(axis=1)
    return summed


def threshold_scan(calibration: RoutingCounts, scored: RoutingCounts | None = None) -> ThresholdScan:
    """Scan of thresholds decided on calibration and scored on calibration (default) or on another split of the same trace."""
    scored = calibration if scored is None else scored
    types = np.flatnonzero(calibration.n_V)
    slots = min((layer.top_k for layer in calibration.layers), default=1)
    hits = np.stack([_hits(c, s, types, slots) for c, s in zip(calibration.choices, scored.choices)])
    uniform = np.log([layer.n_experts for layer in calibration.layers])[:, None]
    mean = calibration.mean_entropy_LV[:, types]
    share = np.divide(mean, uniform, out=np.full(mean.shape, np.inf), where=uniform > 0)
    return ThresholdScan(calibration.n_V[types], share, scored.n_V[types], hits, scored.n_tokens)


def threshold_grid(calibration: RoutingCounts, min_counts: ArrayLike, entropy_shares: ArrayLike) -> tuple[Float, Float]:
    """Coverage and agreement [F, H, K] on calibration documents; see ThresholdScan.grid."""
    return threshold_scan(calibration).grid(min_counts, entropy_shares)


def evaluate_point(scan: ThresholdScan, min_count: ArrayLike, entropy_share: ArrayLike, top_k: ArrayLike) -> tuple[Float, Float]:
    """Coverage and agreement [P] of a batch of continuous points; see ThresholdScan.points."""
    return scan.points(min_count, entropy_share, top_k)


def _hits(calibration: Choices, scored: Choices, types: Int, slots: int) -> Int:
    """Occurrences of each type whose set holds the table's first k' experts, summed over those experts [K, m]."""
    experts, _ = ranked_experts(calibration, types)
    chosen = np.take_along_axis(scored.dense(scored.n, types), experts[:, :slots], axis=1)
    hits: Int = chosen.cumsum(axis=1).T
    return hits
