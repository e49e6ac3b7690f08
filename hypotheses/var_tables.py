"""The tables of a VAR evaluation: name -> column -> values, all columns of a table equally long; None where a value is undefined.

L MoE layer, V token type, m type seen in test documents, E expert. Layer -1 is the mean over layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.choices import redraw
from analysis.counts import mean_of
from analysis.estimate import Estimate
from analysis.kernels import Float, Int, from_fixed
from analysis.metrics.consistency import collision, kappa, modal_share, top_expert
from analysis.metrics.entropy import SEED_THRESHOLD
from analysis.metrics.threshold_scan import threshold_scan
from analysis.resampling import generator, normal_quantile
from hypotheses.var_evidence import VarCounts
from hypotheses.var_families import RankFamily
from hypotheses.var_fastpath import FastPath
from hypotheses.var_rank import with_mean
from hypotheses.var_types import Consistency

Table = Mapping[str, Any]
MEAN_LAYER = -1
GRID_COUNTS = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000)
GRID_SHARES = tuple(sorted({*(round(0.05 * i, 2) for i in range(1, 21)), SEED_THRESHOLD.value}))
QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
NULL_DRAWS_PER_TYPE = 20


@dataclass(frozen=True)
class Measured:
    """Everything measured, as the tables and facts read it. families: metric -> Estimates by layer, the mean last."""

    counts: VarCounts
    fast_path: FastPath
    ranks: RankFamily
    consistency: Consistency
    families: Mapping[str, tuple[Estimate, ...]]


def tables(measured: Measured) -> dict[str, Table]:
    """All tables by name."""
    return {"routing_stats": routing_stats(measured), "rho_sensitivity": rho_sensitivity(measured), "layers": layers(measured),
            "frequency_bins": frequency_bins(measured), "entropy_histogram": entropy_histogram(measured),
            "threshold_grid": threshold_table(measured), "cumulative_coverage": cumulative_coverage(measured),
            "fastpath_table": fastpath_table(measured)}


def nullable(values: Float) -> list[float | None]:
    """Floats with None for NaN."""
    return [None if v != v else v for v in values.tolist()]


def spread(sums: Int, squares: Int, n: Int) -> Float:
    """Standard deviation, ddof 1, from sums and sums of squares (fixed point) [..., m] and n [m]; NaN below 2 occurrences."""
    total, square = from_fixed(sums), from_fixed(squares)
    centred = np.maximum(square - total**2 / np.maximum(n, 1), 0)
    variance: Float = np.divide(centred, n - 1, out=np.full(centred.shape, np.nan), where=n > 1)
    return np.sqrt(variance)


def routing_stats(measured: Measured) -> Table:
    """One row per layer and type seen in test documents: the seed's eleven columns, then ours. Entropies in nats."""
    counts, test = measured.counts, measured.counts.test
    types = measured.ranks.seen.types
    nulls = _modal_null(measured, types)
    parts = [_layer_stats(measured, layer, types, nulls[layer]) for layer in range(len(counts.layers))]
    strings = counts.evidence.token_strings
    n_layers, n_documents = len(parts), max(len(test.units.documents), 1)
    texts = [strings[v] if v < len(strings) else "" for v in types.tolist()]
    shared = {"token_id": types.tolist(), "token_str": texts, "frequency": test.n_V[types].tolist()}
    ours = {"n_docs": test.n_documents_V[types].tolist(), "corpus_frequency": counts.frequency_V[types].tolist(),
            "mean_position": (test.position_V[types] / test.n_V[types]).tolist(),
            "dispersion": (test.n_documents_V[types] / n_documents).tolist()}
    names = ("mean_entropy", "std_entropy", "mean_confidence", "std_confidence", "routing_consistency", "top_expert", "min_entropy",
             "max_entropy")
    table: dict[str, Any] = {name: column * n_layers for name, column in shared.items()}
    table |= {name: [v for part in parts for v in part[name]] for name in names}
    table |= {"layer": np.repeat(np.arange(n_layers), len(types)).tolist(), "entropy_unit": ["nats"] * (n_layers * len(types))}
    table |= {name: column * n_layers for name, column in ours.items()}
    rest = ("collision", "collision_kappa", "consistency_rarefied", "consistency_null", "eligible")
    return table | {name: [v for part in parts for v in part[name]] for name in rest}


def _layer_stats(measured: Measured, layer: int, types: Int, null: Float) -> dict[str, list[Any]]:
    counts, test = measured.counts, measured.counts.test
    n, choices = test.n_V[types], test.choices[layer]
    chosen = choices.dense(choices.n, types)
    overlap = collision(chosen, n, choices.top_k)
    rarefied = np.full(len(types), np.nan)
    rarefied[np.isin(types, counts.judged)] = measured.consistency.rarefied[layer]
    missing: list[float | None] = [None] * len(types)
    mean_confidence, std_confidence = missing, missing
    if test.confidence_LV is not None and test.confidence_square_LV is not None:
        sums = test.confidence_LV[layer, types]
        mean_confidence = nullable(mean_of(from_fixed(sums), n))
        std_confidence = nullable(spread(sums, test.confidence_square_LV[layer, types], n))
    return {"mean_entropy": nullable(test.mean_entropy_LV[layer, types]),
            "std_entropy": nullable(spread(test.entropy_LV[layer, types], test.entropy_square_LV[layer, types], n)),
            "mean_confidence": mean_confidence, "std_confidence": std_confidence,
            "routing_consistency": nullable(modal_share(chosen, n)), "top_expert": top_expert(chosen).tolist(),
            "min_entropy": test.extremes_LV2[layer, types, 0].astype(np.float64).tolist(),
            "max_entropy": test.extremes_LV2[layer, types, 1].astype(np.float64).tolist(),
            "collision": nullable(overlap), "collision_kappa": nullable(kappa(overlap, measured.consistency.chance[layer])),
            "consistency_rarefied": nullable(rarefied), "consistency_null": nullable(null),
            "eligible": measured.fast_path.chosen[layer, types].tolist()}


def _modal_null(measured: Measured, types: Int) -> Float:
    """Mean modal share [L, m] of each type's own number of occurrences drawn from the whole layer."""
    counts, pool = measured.counts, measured.consistency.pool
    n_layers = len(counts.layers)
    n_draws = min(counts.settings.n_null, NULL_DRAWS_PER_TYPE)
    if not n_draws or not pool or not len(types):
        return np.full((n_layers, len(types)), np.nan)
    rng = generator(counts.settings.seed, "consistency_null_by_type")
    total = np.zeros((n_layers, len(types)))
    for _ in range(n_draws):
        drawn = redraw(pool, [layer.n_experts for layer in counts.layers], counts.test.n_V[types], rng)
        total += np.stack([modal_share(chosen, drawn.n) for chosen in drawn.chosen])
    return total / n_draws


def rho_sensitivity(measured: Measured) -> Table:
    """The rank correlation by smallest count, per layer and for the mean (layer -1)."""
    rows: list[dict[str, Any]] = []
    for cut, estimates in measured.ranks.sensitivity.items():
        for layer, e in enumerate(estimates):
            rows.append({"layer": layer if layer < len(estimates) - 1 else MEAN_LAYER, "min_count": cut, "rho": e.value, "low": e.low,
                         "high": e.high, "n_types": e.n, "p": e.p, "null": e.null, "null_low": e.null_low, "null_high": e.null_high,
                         "plug_in": e.plug_in, "reason": e.reason})
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def layers(measured: Measured) -> Table:
    """One row per layer: what it is, and every metric with its interval."""
    metas = measured.counts.layers
    table: dict[str, Any] = {"layer": list(range(len(metas))), "key": [m.key for m in metas], "depth": [m.depth for m in metas],
                             "n_experts": [m.n_experts for m in metas], "top_k": [m.top_k for m in metas],
                             "threshold_nats": measured.counts.thresholds_HL[0].tolist()}
    for name, family in measured.families.items():
        table[name] = [e.value for e in family[:-1]]
        table[f"{name}_low"] = [e.low for e in family[:-1]]
        table[f"{name}_high"] = [e.high for e in family[:-1]]
    return table


def frequency_bins(measured: Measured) -> Table:
    """Mean over types of mean entropy by bin of corpus frequency, with a two-way interval, the matched null and quantiles over types."""
    counts, ranks = measured.counts, measured.ranks
    where = ranks.bins.index(counts.frequency_V[ranks.seen.types].astype(np.float64))
    means = ranks.seen.observed().mean[:, 0]
    means = np.concatenate([means, means.mean(axis=0, keepdims=True)])
    replicates = with_mean(np.moveaxis(ranks.bin_means.replicates, 1, -1))
    null = None if ranks.bin_means.null is None else with_mean(np.moveaxis(ranks.bin_means.null, 1, -1))
    rows: list[dict[str, Any]] = []
    for layer, values in enumerate(means):
        for number in range(ranks.bins.n):
            inside = values[where == number]
            if len(inside):
                drawn = None if null is None else null[:, number, layer]
                edges = (float(ranks.bins.edges[number]), float(ranks.bins.edges[number + 1]))
                rows.append(_bin_row(layer if layer < len(means) - 1 else MEAN_LAYER, edges, inside, replicates[:, number, layer], drawn))
    names = ("layer", "bin_low", "bin_high", "n_types", "mean_entropy", "low", "high", "null_mean", "null_low", "null_high", *QUANTILES)
    return {name: [row[name] for row in rows] for name in names}


def _bin_row(layer: int, edges: tuple[float, float], values: Float, replicates: Float, null: Float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"layer": layer, "bin_low": edges[0], "bin_high": edges[1], "n_types": len(values)}
    row |= {"mean_entropy": float(values.mean())}
    replicates = replicates[np.isfinite(replicates)]
    row |= dict.fromkeys(("low", "high", "null_mean", "null_low", "null_high"))
    if len(values) > 1 and len(replicates) > 1:
        half = normal_quantile(0.95) * float(np.sqrt(replicates.var(ddof=1) + values.var(ddof=1) / len(values)))
        row |= {"low": float(values.mean()) - half, "high": float(values.mean()) + half}
    if null is not None and np.isfinite(null).all():
        low, high = np.quantile(null, [0.025, 0.975])
        row |= {"null_mean": float(null.mean()), "null_low": float(low), "null_high": float(high)}
    return row | {name: float(np.quantile(values, q)) for name, q in QUANTILES.items()}


def entropy_histogram(measured: Measured) -> Table:
    """Occurrences by entropy, bins of equal width over [0, ln E]."""
    test = measured.counts.test
    table: dict[str, list[Any]] = {"layer": [], "left": [], "right": [], "count": []}
    for number, (layer, row) in enumerate(zip(test.layers, test.histogram)):
        edges = np.linspace(0, np.log(layer.n_experts), len(row) + 1)
        table["layer"] += [number] * len(row)
        table["left"] += edges[:-1].tolist()
        table["right"] += edges[1:].tolist()
        table["count"] += row.tolist()
    return table


def threshold_table(measured: Measured) -> Table:
    """Coverage and agreement on calibration documents over a grid of thresholds, for tables of as many experts as the router chooses."""
    coverage, agreement = threshold_scan(measured.counts.calibration).grid(GRID_COUNTS, GRID_SHARES)
    f0, h0 = np.meshgrid(GRID_COUNTS, GRID_SHARES, indexing="ij")
    return {"min_count": f0.ravel().tolist(), "max_entropy_share_of_lnE": h0.ravel().tolist(),
            "coverage": coverage[..., -1].ravel().tolist(), "agreement": nullable(agreement[..., -1].ravel())}


def cumulative_coverage(measured: Measured) -> Table:
    """Share of test occurrences in the m most frequent types of the corpus (order -count, id), and in those of them with low entropy.

    low_entropy: mean calibration entropy below the threshold, averaged over layers.
    """
    counts = measured.counts
    order = np.lexsort((np.arange(len(counts.frequency_V)), -counts.frequency_V))[: int((counts.frequency_V > 0).sum())]
    if not len(order) or not counts.test.n_tokens:
        return {"m": [], "coverage": [], "low_entropy": []}
    with np.errstate(invalid="ignore"):
        low = (counts.calibration.mean_entropy_LV < counts.thresholds_HL[0][:, None]).mean(axis=0)
    shares = counts.test.n_V[order] / counts.test.n_tokens
    points = np.unique(np.round(np.geomspace(1, len(order), 120)).astype(np.int64))
    return {"m": points.tolist(), "coverage": shares.cumsum()[points - 1].tolist(),
            "low_entropy": (shares * low[order]).cumsum()[points - 1].tolist()}


def fastpath_table(measured: Measured) -> Table:
    """The lookup table in long form: layer, token_id, slot, expert, weight."""
    parts: dict[str, list[Any]] = {"layer": [], "token_id": [], "slot": [], "expert": [], "weight": []}
    for layer, table in enumerate(measured.fast_path.tables):
        m, slots = table.experts.shape
        parts["layer"] += [layer] * (m * slots)
        parts["token_id"] += np.repeat(table.types, slots).tolist()
        parts["slot"] += np.tile(np.arange(slots), m).tolist()
        parts["expert"] += table.experts.ravel().tolist()
        parts["weight"] += table.weights.ravel().tolist()
    return parts
