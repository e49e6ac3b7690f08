"""What the figures of frequency and entropy are drawn from: columns per token type and per frequency bin.

V token type, B frequency bin. A seed-form routing_stats table (no layer, null or interval columns) is enough: see `TypeColumns.of`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
BINS_PER_DECADE = 4


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
        return cls(label, n_v if corpus is None else corpus, floats(table["mean_entropy"]), eligible,
                   None if min_count is None else n_v >= min_count, optional("routing_consistency"), optional("collision"),
                   optional("consistency_rarefied"), optional("consistency_null"),
                   "occurrences of the token type" if corpus is None else "occurrences in train and calibration documents")


@dataclass(frozen=True)
class FrequencyBins:
    """Bins of token types by frequency; every array is [B]; optional ones are None where the table has no such column.

    low, high: edges in occurrences. mean: mean over types of their mean entropy, nats, with its interval; null_*: the matched sampling null.
    q10 .. q90: quantiles over types of the mean entropy.
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
    quantiles: tuple[Floats, Floats, Floats, Floats, Floats] | None = None  # 5, 25, 50, 75, 95 %

    @property
    def centre(self) -> Floats:
        """Geometric middle of each bin."""
        return np.asarray(np.sqrt(np.maximum(self.low, 0.5) * np.maximum(self.high, 0.5)), dtype=np.float64)

    @classmethod
    def of_types(cls, types: TypeColumns) -> FrequencyBins:
        """Bins of equal width in log frequency over the table's own types: means and quantiles, no interval and no null."""
        seen = (types.frequency > 0) & np.isfinite(types.mean_entropy)
        n_v, entropy = types.frequency[seen], types.mean_entropy[seen]
        if not len(n_v):
            return cls(*(np.empty(0) for _ in range(4)))
        decades = np.log10(n_v.max()) - np.log10(n_v.min())
        edges = np.geomspace(n_v.min(), n_v.max() * (1 + 1e-9), max(2, int(np.ceil(decades * BINS_PER_DECADE)) + 1))
        which = np.clip(np.searchsorted(edges, n_v, side="right") - 1, 0, len(edges) - 2)
        filled = [b for b in range(len(edges) - 1) if np.any(which == b)]
        inside = [entropy[which == b] for b in filled]
        quantiles = np.array([np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95)) for values in inside]).T
        return cls(edges[filled], edges[np.array(filled) + 1], np.array([float(len(v)) for v in inside]), np.array([v.mean() for v in inside]),
                   quantiles=(quantiles[0], quantiles[1], quantiles[2], quantiles[3], quantiles[4]))
