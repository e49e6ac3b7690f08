"""Everything that one pass of ours counts, by data frame: cells of band x document x type, types, documents, experts, histograms.

T token (row), L MoE layer, V token type, D document, H threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from analysis.counts import CountPlan, RoutingCounts, accumulate
from analysis.kernels import from_fixed
from analysis.rows import bands
from tests.bench.measure import Rival, Workload
from tests.bench.rows import Sample

THRESHOLDS, BINS, TOLERANCE = (0.5, 0.7, 0.9), 60, 1e-6
CELL = ["band", "document", "type"]
Counted = dict[str, Any]  # name -> columns sorted by key


class Columns:
    """The columns of the frames, made outside the timed part."""

    def __init__(self, sample: Sample) -> None:
        rows = sample.rows
        self.layers = range(len(sample.meta.layers))
        self.top = np.log([layer.n_experts for layer in sample.meta.layers])
        self.plain: dict[str, Any] = {"document": rows.document, "type": rows.token_id, "position": rows.position.astype(np.int64)}
        self.entropy, confidence = np.asarray(rows.entropy_nats, np.float64), np.asarray(rows.top1_prob, np.float64)
        for layer in self.layers:
            self.plain |= {f"h{layer}": self.entropy[layer], f"c{layer}": confidence[layer]}
        self.chosen = []
        for ids, weights in zip(rows.ids, rows.weights or (), strict=True):
            first = np.zeros(ids.shape, np.int64)
            first[:, 0] = 1
            self.chosen.append({"type": np.repeat(rows.token_id, ids.shape[1]), "expert": ids.ravel(), "first": first.ravel(),
                                "weight": weights.ravel().astype(np.float64)})
        self.h, self.c = [f"h{layer}" for layer in self.layers], [f"c{layer}" for layer in self.layers]
        self.below = [f"below{i}_{layer}" for i in range(len(THRESHOLDS)) for layer in self.layers]

    def histograms(self) -> Any:
        return np.array([np.histogram(h, BINS, (0, top))[0] for h, top in zip(self.entropy, self.top, strict=True)])


def with_pandas(columns: Columns) -> Callable[[], Counted]:
    import pandas as pd

    plain, chosen = pd.DataFrame(columns.plain), [pd.DataFrame(one) for one in columns.chosen]

    def run() -> Counted:
        below = {f"below{i}_{layer}": plain[f"h{layer}"] < threshold for i, threshold in enumerate(THRESHOLDS) for layer in columns.layers}
        frame = plain.assign(band=bands(plain["position"].to_numpy()), n=1, **below)
        by_type = frame.groupby("type")
        types = pd.concat([by_type.size().rename("n"), by_type[columns.h].agg(["sum", "var", "min", "max"]),
                           by_type[columns.c].agg(["sum", "var"]), frame[["type", "document"]].drop_duplicates().groupby("type").size()], axis=1)
        return {"cells": frame.groupby(CELL)[["n", "position", *columns.h]].sum().reset_index().to_numpy(),
                "types": types.to_numpy(), "documents": frame.groupby("document")[[*columns.below, *columns.h, *columns.c]].sum().to_numpy(),
                "experts": [one.assign(n=1).groupby(["type", "expert"])[["n", "first", "weight"]].sum().reset_index().to_numpy()
                            for one in chosen], "histogram": columns.histograms()}

    return run


def with_polars(columns: Columns) -> Callable[[], Counted]:
    import polars as pl

    plain, chosen = pl.DataFrame(columns.plain), [pl.DataFrame(one) for one in columns.chosen]
    of_types = [pl.len().alias("n")]
    for name in columns.h:
        h = pl.col(name)
        of_types += [h.sum().alias(f"{name}_sum"), h.var().alias(f"{name}_var"), h.min().alias(f"{name}_min"), h.max().alias(f"{name}_max")]
    for name in columns.c:
        of_types += [pl.col(name).sum().alias(f"{name}_sum"), pl.col(name).var().alias(f"{name}_var")]
    of_types.append(pl.col("document").n_unique().alias("documents"))

    def run() -> Counted:
        below = [(pl.col(f"h{layer}") < threshold).alias(f"below{i}_{layer}") for i, threshold in enumerate(THRESHOLDS) for layer in columns.layers]
        frame = plain.with_columns(*below, band=bands(plain["position"].to_numpy()))
        cells = frame.group_by(CELL).agg(pl.len(), pl.col("position", *columns.h).sum()).sort(CELL)
        documents = frame.group_by("document").agg(pl.col(*columns.below, *columns.h, *columns.c).sum()).sort("document")
        experts = [one.group_by("type", "expert").agg(pl.len(), pl.col("first", "weight").sum()).sort("type", "expert") for one in chosen]
        return {"cells": cells.to_numpy(), "types": frame.group_by("type").agg(of_types).sort("type").drop("type").to_numpy(),
                "documents": documents.drop("document").to_numpy(), "experts": [one.to_numpy() for one in experts],
                "histogram": columns.histograms()}

    return run


def flat(counts: RoutingCounts) -> Counted:
    """Our counts in the rivals' form."""
    number = np.array([row.document for row in counts.units.documents])
    document = number[counts.unit]
    order = np.lexsort((counts.type, document, counts.band))
    cells = np.column_stack([counts.band, document, counts.type, counts.n, counts.position, *from_fixed(counts.entropy)])[order]
    n, seen = counts.n_V, counts.n_V > 0
    assert counts.confidence_LV is not None
    assert counts.confidence_square_LV is not None

    def variance(sums: Any, squares: Any) -> Any:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(n > 1, (from_fixed(squares) - from_fixed(sums) ** 2 / n) / (n - 1), np.nan)

    types = [n]
    for layer in range(len(counts.layers)):
        types += [from_fixed(counts.entropy_LV[layer]), variance(counts.entropy_LV[layer], counts.entropy_square_LV[layer]),
                  *counts.extremes_LV2[layer].T]
    for layer in range(len(counts.layers)):
        types += [from_fixed(counts.confidence_LV[layer]), variance(counts.confidence_LV[layer], counts.confidence_square_LV[layer])]
    assert counts.confidence_LD is not None
    documents = np.concatenate([counts.below_HLD.reshape(-1, len(number)), from_fixed(counts.entropy_LD), from_fixed(counts.confidence_LD)])
    experts = [np.column_stack([c.type, c.expert, c.n, c.first, from_fixed(c.weight)]) for c in counts.choices]
    return {"cells": cells, "types": np.column_stack([*types, counts.n_documents_V])[seen], "documents": documents.T[np.argsort(number)],
            "experts": experts, "histogram": counts.histogram}


def agree(ours: Counted, theirs: Counted) -> bool:
    """Everything within TOLERANCE; histograms but for values on an edge."""
    pairs = [(ours[name], theirs[name]) for name in ("cells", "types", "documents")] + list(zip(ours["experts"], theirs["experts"], strict=True))
    moved = np.abs(ours["histogram"] - theirs["histogram"]).sum() / ours["histogram"].sum()
    return moved < 1e-4 and all(np.allclose(a, np.asarray(b, np.float64), rtol=0, atol=TOLERANCE, equal_nan=True) for a, b in pairs)


def workload(sample: Sample) -> Workload:
    """One pass of ours against every aggregate by frame."""
    layers, n_rows = len(sample.meta.layers), len(sample.rows)
    plan = CountPlan("test", "0", np.repeat(np.array(THRESHOLDS)[:, None], layers, axis=1), max_units=max(2000, len(sample.documents)))
    columns = Columns(sample)
    pandas, polars = with_pandas(columns), with_polars(columns)

    def check() -> str:
        mine = flat(accumulate(sample.trace, plan))
        for name, theirs in (("pandas", pandas()), ("polars", polars())):
            assert agree(mine, theirs), name
        return f"sums and variances within {TOLERANCE:g}, histograms but for 1e-4 of the values, which lie on an edge"

    return Workload(f"all counts of the analysis, {sample.meta.vocabulary_size:,} types", lambda: accumulate(sample.trace, plan), [
        Rival("pandas groupby", pandas, note="frames ready made"), Rival("polars group_by", polars, note="frames ready made, all cores")],
        check, n_rows * layers, "token-layers/s", f"{n_rows:,} tokens x {layers} layers: cells of band x document x type, moments and extremes "
        f"by type, documents by type, shares below {len(THRESHOLDS)} thresholds by document, experts with weights, histograms")
