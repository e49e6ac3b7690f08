"""The seed's four figures from a routing_stats table alone: its eleven columns are enough, no interval and no null is made up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.estimate import Estimate
from analysis.figures.columns import FrequencyBins, TypeColumns, floats
from analysis.figures.entropy_distribution import EntropyDistribution, entropy_distribution
from analysis.figures.fastpath_coverage import CumulativeCoverage, EligibleShare, FastPathCoverage, ThresholdGrid, fastpath_coverage
from analysis.figures.frequency_vs_entropy import EntropyPanel, frequency_vs_entropy
from analysis.figures.routing_consistency import routing_consistency

GRID_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


def _plain(value: float, what: str) -> Estimate:
    return Estimate(value, None, None, "share", "nothing", 0, what)


def _coverage(types: TypeColumns, frequency_threshold: float, entropy_nats: float) -> float:
    eligible = (types.frequency >= frequency_threshold) & (types.mean_entropy < entropy_nats)
    return float(types.frequency[eligible].sum() / types.frequency.sum())


def _fastpath(types: TypeColumns, frequency_threshold: int, entropy_nats: float, uniform_nats: float) -> FastPathCoverage:
    eligible = np.asarray(types.eligible)
    covered = _coverage(types, frequency_threshold, entropy_nats)
    heights = np.linspace(0.05, 1.0, 20) * uniform_nats
    grid = np.array([[_coverage(types, n, h) for h in heights] for n in GRID_COUNTS])
    order = np.argsort(-types.frequency, kind="stable")
    n_v = types.frequency[order] / types.frequency.sum()
    return FastPathCoverage(
        [EligibleShare(types.label, float(eligible.mean()), covered)],
        [("same documents\n(seed form)", _plain(covered, "seed 003"))],
        ThresholdGrid(floats(list(GRID_COUNTS)), heights, grid, "nats", judged=(frequency_threshold, entropy_nats)),
        CumulativeCoverage(np.arange(1, len(n_v) + 1, dtype=np.float64), np.cumsum(n_v), np.cumsum(n_v * eligible[order])),
    )


def figures_of(
    table: Mapping[str, Any], *, entropy_nats: float, frequency_threshold: int = 50, n_experts: int | None = None, rho: Estimate | None = None
) -> dict[str, Figure]:
    """The four figures of one layer's table, by file name.

    table: the seed's columns, one row per token type; `frequency`, `mean_entropy` (nats) are needed,
    `routing_consistency` is drawn if there.
    rho: its point value and p, written above the key figure. n_experts: for ln E; the largest mean entropy stands in for it where None.
    Raises ValueError on an empty table.
    """
    types = TypeColumns.of(table, "all token types", min_count=1)
    if not len(types.frequency) or not types.frequency.sum() > 0:
        raise ValueError("routing_stats: no token type has an occurrence, so there is nothing to draw")
    types = replace(types, eligible=(types.frequency >= frequency_threshold) & (types.mean_entropy < entropy_nats))
    known = np.where(np.isfinite(types.mean_entropy), types.mean_entropy, 0.0)
    uniform = math.log(n_experts) if n_experts is not None and n_experts > 1 else max(float(known.max()), 1e-9)
    bins = FrequencyBins.of_types(types.frequency, types.mean_entropy)
    edges = np.linspace(0, max(uniform, float(known.max())), 51)
    finite = np.isfinite(types.mean_entropy)
    counts = np.histogram(types.mean_entropy[finite], bins=edges)[0] / max(int(finite.sum()), 1)
    panel = EntropyPanel(types, bins, rho, entropy_nats, uniform if n_experts is not None else None, frequency_threshold)
    spread = EntropyDistribution(edges[:-1], edges[1:], counts, types, bins, "token types", {"threshold": entropy_nats}, {}, uniform)
    return {
        "frequency_vs_entropy": frequency_vs_entropy(panel),
        "entropy_distribution": entropy_distribution(spread),
        "routing_consistency": routing_consistency(types),
        "fastpath_coverage": fastpath_coverage(_fastpath(types, frequency_threshold, entropy_nats, uniform)),
    }
