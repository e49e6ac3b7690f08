"""The tables of the VAR evaluation as the figures want them: layer by layer, and the mean over layers.

Layers are counted 0, 1, ... in the `layer` columns; None stands for the mean over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.figures.columns import Floats, FrequencyBins, TypeColumns, floats
from analysis.figures.fastpath_coverage import CumulativeCoverage, ThresholdGrid
from analysis.figures.sensitivity import CutOffs
from hypotheses.claim import Evaluation

MEAN_LAYER = -1  # value of the `layer` column in rows that are means over layers
MEAN_COLUMNS = (
    "frequency",
    "corpus_frequency",
    "mean_entropy",
    "routing_consistency",
    "collision",
    "consistency_rarefied",
    "consistency_null",
)

Rows = Mapping[str, Any]


def rows_of(table: Rows, layer: int) -> dict[str, Any]:
    """The rows of one layer; every row if the table has no `layer` column."""
    if "layer" not in table:
        return dict(table)
    chosen = np.flatnonzero(np.asarray(table["layer"]) == layer)
    return {name: _take(column, chosen) for name, column in table.items()}


def _take(column: Any, chosen: NDArray[np.intp]) -> Any:
    return [column[i] for i in chosen] if isinstance(column, list | tuple) else np.asarray(column)[chosen]


def layers_in(table: Rows) -> list[int]:
    """Layer numbers of a table in order, without the mean; [0] if it has no `layer` column."""
    if "layer" not in table:
        return [0]
    return [int(layer) for layer in np.unique(np.asarray(table["layer"])) if layer != MEAN_LAYER]


def mean_rows(table: Rows, key: str) -> dict[str, Any]:
    """One row per value of `key`: the table's own rows for the mean if it has any, else the mean over layers of each numeric column.

    An entry that is missing in every layer stays NaN.
    """
    if "layer" in table and MEAN_LAYER in np.asarray(table["layer"]):
        return rows_of(table, MEAN_LAYER)
    keys, which = np.unique(floats(table[key]), return_inverse=True)
    averaged: dict[str, Any] = {key: keys}
    for name, column in table.items():
        if name in (key, "layer") or _is_text(column):
            continue
        values = floats(column)
        known = np.isfinite(values)
        n = np.bincount(which[known], minlength=len(keys))
        total = np.bincount(which[known], weights=values[known], minlength=len(keys))
        averaged[name] = np.divide(total, n, out=np.full(len(keys), np.nan), where=n > 0)
    return averaged


def _is_text(column: Any) -> bool:
    return any(isinstance(value, str) for value in list(column)[:20])


def optional(rows: Rows, name: str) -> Floats | None:
    """A column as floats; None where the table has none."""
    return floats(rows[name]) if name in rows else None


def type_columns(evaluation: Evaluation, layer: int | None, min_count: int) -> TypeColumns:
    """Token types of one layer, or their mean over layers; eligible in the mean means eligible in at least half of the layers."""
    stats = evaluation.tables["routing_stats"]
    if layer is not None:
        return TypeColumns.of(rows_of(stats, layer), f"layer {layer}", min_count=min_count)
    kept = [name for name in ("token_id", "layer", "eligible", *MEAN_COLUMNS) if name in stats]
    table = mean_rows({name: stats[name] for name in kept}, "token_id")
    if "eligible" in table:
        table["eligible"] = table["eligible"] >= 0.5
    n_layers = len(layers_in(stats))
    return TypeColumns.of(table, "the only MoE layer" if n_layers == 1 else f"mean over {n_layers} MoE layers", min_count=min_count)


def frequency_bins(evaluation: Evaluation, layer: int | None, types: TypeColumns) -> FrequencyBins:
    """Bins of one layer, or of the mean over layers; made from the types themselves where the evaluation has no such table."""
    table = evaluation.tables.get("frequency_bins")
    if table is None or not len(table["bin_low"]):
        return FrequencyBins.of_types(types.frequency, types.mean_entropy)
    rows = mean_rows(table, "bin_low") if layer is None else rows_of(table, layer)
    if not len(rows["bin_low"]):
        return FrequencyBins.of_types(types.frequency, types.mean_entropy)
    return FrequencyBins(
        floats(rows["bin_low"]),
        floats(rows["bin_high"]),
        floats(rows["n_types"]),
        floats(rows["mean_entropy"]),
        optional(rows, "low"),
        optional(rows, "high"),
        optional(rows, "null_mean"),
        optional(rows, "null_low"),
        optional(rows, "null_high"),
    )


def entropy_histogram(evaluation: Evaluation, layer: int | None) -> tuple[Floats, Floats, Floats] | None:
    """(left, right, share) of the occurrences' entropies, nats; for None the mean of the layers' distributions. No table: None.

    Layers with different numbers of experts have different bins; their cumulative shares are averaged at the edges of the widest.
    """
    table = evaluation.tables.get("entropy_histogram")
    if table is None or not len(table["left"]):
        return None
    layers = [_edges_and_share(rows_of(table, one)) for one in (layers_in(table) if layer is None else [layer])]
    layers = [(edges, share) for edges, share in layers if share.sum() > 0]
    if not layers:
        return None
    widest = max((edges for edges, _ in layers), key=lambda edges: float(edges[-1]))
    below = np.mean([np.interp(widest, edges, np.r_[0.0, np.cumsum(share)]) for edges, share in layers], axis=0)
    return widest[:-1], widest[1:], np.diff(below)


def _edges_and_share(rows: Rows) -> tuple[Floats, Floats]:
    left, right, n = (floats(rows[name]) for name in ("left", "right", "count"))
    return np.r_[left, right[-1:]], n / n.sum() if n.sum() > 0 else n


def cut_offs(rows: Rows) -> CutOffs:
    """rho against the smallest count, for one layer or the mean."""
    missing = np.full(len(rows["min_count"]), np.nan)
    values = [optional(rows, name) for name in ("rho", "low", "high", "n_types", "null_low", "null_high")]
    return CutOffs(np.asarray(floats(rows["min_count"]), dtype=np.int64), *(missing if column is None else column for column in values))


def threshold_grid(evaluation: Evaluation) -> ThresholdGrid | None:
    """Coverage by smallest frequency and largest mean entropy, on calibration documents."""
    table = evaluation.tables.get("threshold_grid")
    if table is None or not len(table["min_count"]):
        return None
    height = next(name for name in table if name.startswith("max_entropy"))
    counts, heights = floats(table["min_count"]), floats(table[height])
    rows, columns = np.unique(counts), np.unique(heights)
    coverage = np.full((len(rows), len(columns)), np.nan)
    coverage[np.searchsorted(rows, counts), np.searchsorted(columns, heights)] = floats(table["coverage"])
    return ThresholdGrid(rows, columns, coverage, "nats" if height.endswith("nats") else "share of ln E")


def cumulative_coverage(
    evaluation: Evaluation, names: Sequence[str] = ("low_entropy", "of_which_low_entropy", "eligible")
) -> CumulativeCoverage | None:
    """Coverage of the m most frequent types, and the part of it that low-entropy types give."""
    table = evaluation.tables.get("cumulative_coverage")
    if table is None or not len(table["m"]):
        return None
    rows = mean_rows(table, "m") if "layer" in table else dict(table)
    low = next((name for name in rows if name in names or "low" in name), None)
    return CumulativeCoverage(floats(rows["m"]), floats(rows["coverage"]), None if low is None else floats(rows[low]))
