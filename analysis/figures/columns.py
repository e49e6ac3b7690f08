"""What the figures of frequency and entropy are drawn from: columns per token type and per frequency bin.

V token type, B frequency bin. A seed-form routing_stats table (no layer, null or interval columns) is enough: see `TypeColumns.of`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
BINS_PER_DECADE = 4
RANGES = (1, 2, 10, 50, 200, 1_000)  # first frequency of each range in box plots


def floats(values: ArrayLike) -> Floats:
    """Float64 copy in which a missing entry (None) is NaN."""
    return np.array([np.nan if v is None else v for v in values] if isinstance(values, list | tuple) else values, dtype=np.float64)


@dataclass(frozen=True)
class TypeColumns:
    """Token types of one layer, or their mean over layers; every array is [V], NaN where undefined.

    label: heading of the panel. frequency: occurrences on the x axis, `frequency_of` says of what. mean_entropy: nats.
    eligible: decided for the fast path on calibration documents. judged: belongs to the types that the judged rho is computed over.
    consistency: share of occurrences routed to the modal expert (seed 003). collision: unbiased pair agreement, in [0, 1].
    consistency_rarefied: modal share at 50 occurrences. consistency_null: modal share expected from the layer's expert marginal alone.
    """

    label: str
    frequency: Floats
    mean_entropy: Floats
    eligible: NDArray[np.bool_] | None = None
    judged: NDArray[np.bool_] | None = None
    consistency: Floats | None = None
    collision: Floats | None = None
    consistency_rarefied: Floats | None = None
    consistency_null: Floats | None = None
    frequency_of: str = "occurrences of the token type"

    @classmethod
    def of(cls, table: Mapping[str, Any], label: str, *, min_count: int | None = None) -> TypeColumns:
        """Columns of one layer's routing_stats rows; those beyond the seed's eleven are used where present.

        min_count marks the judged types by the table's `frequency`. Raises KeyError without `frequency` or `mean_entropy`.
        """

        def optional(name: str) -> Floats | None:
            return floats(table[name]) if name in table else None

        n_v = floats(table["frequency"])
        corpus = optional("corpus_frequency")
        eligible = None if "eligible" not in table else np.array([bool(e) for e in table["eligible"]], dtype=np.bool_)
        return cls(
            label,
            n_v if corpus is None else corpus,
            floats(table["mean_entropy"]),
            eligible,
            None if min_count is None else n_v >= min_count,
            optional("routing_consistency"),
            optional("collision"),
            optional("consistency_rarefied"),
            optional("consistency_null"),
            "occurrences of the token type" if corpus is None else "occurrences in train and calibration documents",
        )


@dataclass(frozen=True)
class FrequencyBins:
    """Bins of token types by frequency; every array is [B]; optional ones are None where the table has no such column.

    low, high: edges in occurrences. mean: mean over types of their mean entropy, nats, with its interval.
    null_*: the same under the matched sampling null, with its central 95 %.
    """

    low: Floats
    high: Floats
    n_types: Floats
    mean: Floats
    mean_low: Floats | None = None
    mean_high: Floats | None = None
    null_mean: Floats | None = None
    null_low: Floats | None = None
    null_high: Floats | None = None

    @property
    def centre(self) -> Floats:
        """Geometric middle of each bin."""
        return np.asarray(np.sqrt(np.maximum(self.low, 0.5) * np.maximum(self.high, 0.5)), dtype=np.float64)

    @classmethod
    def of_types(cls, frequency: Floats, values: Floats) -> FrequencyBins:
        """Bins of equal width in log frequency over the types with a value: plain means, no interval and no null."""
        seen = (frequency > 0) & np.isfinite(values)
        n_v, known = frequency[seen], values[seen]
        if not len(n_v):
            return cls(np.empty(0), np.empty(0), np.empty(0), np.empty(0))
        n_bins = max(1, math.ceil(BINS_PER_DECADE * math.log10(n_v.max() / n_v.min())))
        edges = np.geomspace(n_v.min(), n_v.max() * (1 + 1e-9), n_bins + 1)
        which = np.clip(np.searchsorted(edges, n_v, side="right") - 1, 0, n_bins - 1)
        sizes = np.bincount(which, minlength=n_bins).astype(np.float64)
        filled = np.flatnonzero(sizes)
        means = np.bincount(which, weights=known, minlength=n_bins)[filled] / sizes[filled]
        return cls(edges[filled], edges[filled + 1], sizes[filled], means)


def by_range(frequency: Floats, values: Floats, edges: tuple[int, ...] = RANGES) -> list[tuple[str, Floats]]:
    """(label, values) of the types in each range of frequency that holds any; NaN values are left out."""
    groups = []
    for low, high in zip(edges, (*edges[1:], None), strict=True):
        inside = np.isfinite(values) & (frequency >= low) & (frequency < (np.inf if high is None else high))
        label = f"{low:,}+" if high is None else f"{low:,}" if high == low + 1 else f"{low:,}\u2013{high - 1:,}"
        if inside.any():
            groups.append((label, values[inside]))
    return groups
