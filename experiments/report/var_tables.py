"""The tables of the VAR evaluation as the figures want them: layer by layer, and the mean over layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.figures.columns import Floats, FrequencyBins, TypeColumns, floats
from hypotheses.claim import Evaluation

MEAN_LAYER = -1  # value of the `layer` column in rows that are means over layers


def rows_of(table: Mapping[str, Any], layer: int) -> dict[str, Any]:
    """The rows of one layer; every row if the table has no `layer` column."""
    if "layer" not in table:
        return dict(table)
    chosen = np.flatnonzero(np.asarray(table["layer"]) == layer)
    return {name: [column[i] for i in chosen] if isinstance(column, list | tuple) else np.asarray(column)[chosen] for name, column in table.items()}


def layers_in(table: Mapping[str, Any]) -> list[int]:
    """Layer numbers of a table in order, without the mean; [0] if it has no `layer` column."""
    if "layer" not in table:
        return [0]
    return [int(layer) for layer in np.unique(np.asarray(table["layer"])) if layer != MEAN_LAYER]


def _mean_by_type(stats: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Mean over layers of each named column, by token id; a type that is missing in every layer stays NaN."""
    ids, which = np.unique(np.asarray(stats["token_id"]), return_inverse=True)

    def mean(name: str) -> Floats:
        values = floats(stats[name])
        known = np.isfinite(values)
        n = np.bincount(which[known], minlength=len(ids))
        total = np.bincount(which[known], weights=values[known], minlength=len(ids))
        return np.asarray(np.divide(total, n, out=np.full(len(ids), np.nan), where=n > 0), dtype=np.float64)

    return {"token_id": ids, **{name: mean(name) for name in names if name in stats}}


MEAN_COLUMNS = ("frequency", "corpus_frequency", "mean_entropy", "routing_consistency", "collision", "consistency_rarefied", "consistency_null")


def type_columns(evaluation: Evaluation, layer: int | None, min_count: int) -> TypeColumns:
    """Token types of one layer, or their mean over layers (None); eligible in the mean means eligible in at least half of the layers."""
    stats = evaluation.tables["routing_stats"]
    if layer is not None:
        return TypeColumns.of(rows_of(stats, layer), f"layer {layer}", min_count=min_count)
    table = _mean_by_type(stats, [*MEAN_COLUMNS, "eligible"])
    if "eligible" in table:
        table["eligible"] = table["eligible"] >= 0.5
    n_layers = len(layers_in(stats))
    return TypeColumns.of(table, "layer 0" if n_layers == 1 else f"mean over {n_layers} layers", min_count=min_count)


def _mean_bins(bins: Mapping[str, Any], layers: Sequence[int]) -> dict[str, NDArray[Any]]:
    per_layer = [rows_of(bins, layer) for layer in layers]
    first = per_layer[0]
    same = [rows for rows in per_layer if len(rows["bin_low"]) == len(first["bin_low"]) and np.allclose(floats(rows["bin_low"]), floats(first["bin_low"]))]
    return {name: np.mean([floats(rows[name]) for rows in same], axis=0) for name in first if name != "layer"}


def frequency_bins(evaluation: Evaluation, layer: int | None, types: TypeColumns) -> FrequencyBins:
    """Bins of one layer, or of the mean over layers; made from the types themselves where the evaluation has no such table."""
    table = evaluation.tables.get("frequency_bins")
    if table is None or not len(table["bin_low"]):
        return FrequencyBins.of_types(types)
    if layer is not None:
        rows: Mapping[str, Any] = rows_of(table, layer)
    elif "layer" in table and MEAN_LAYER in np.asarray(table["layer"]):
        rows = rows_of(table, MEAN_LAYER)
    else:
        rows = _mean_bins(table, layers_in(table))

    def optional(name: str) -> Floats | None:
        return floats(rows[name]) if name in rows else None

    quantiles = tuple(floats(rows[name]) for name in ("q05", "q25", "q50", "q75", "q95") if name in rows)
    return FrequencyBins(floats(rows["bin_low"]), floats(rows["bin_high"]), floats(rows["n_types"]), floats(rows["mean_entropy"]), optional("low"),
                         optional("high"), optional("null_mean"), optional("null_low"), optional("null_high"),
                         quantiles if len(quantiles) == 5 else None)
