"""Usage of the experts of each layer (seed 001): every statistic with interval, uniform null and excess, and the loads themselves.

L MoE layer, E expert, D domain.
"""

from __future__ import annotations

import numpy as np

from analysis.estimate import Estimate
from analysis.registry import find
from analysis.resampling import generator
from analysis.survey_row import SurveyPlan
from analysis.survey_usage import usage_rows
from analysis.uniform_null import rarefied
from hypotheses.atlas_evidence import AtlasCounts
from hypotheses.topology_parts import Part, Row, columns, mean_of, status

COLUMNS = ("layer", "depth", "statistic", "seed_name", "value", "low", "high", "seed", "null", "null_low", "null_high", "excess", "unit",
           "n_selections", "status", "reason")
RAREFIED = ("usage_entropy_bits", "usage_cv", "usage_active")


def usage_part(counts: AtlasCounts) -> Part:
    """Statistics of the loads by layer, means over layers of those that do not grow with the documents, and the loads."""
    trace, loads, settings = counts.trace, counts.loads, counts.settings
    plan = SurveyPlan(counts.split, settings.salt, settings.seed, level=settings.level, threads=settings.threads)
    found: dict[str, list[Estimate]] = {}
    rows: list[Row] = []
    for one in usage_rows(trace, loads, plan):  # type: ignore[arg-type]  # it reads the loads alone
        estimate = counts.pointed(one.estimate)
        found.setdefault(one.metric, []).append(estimate)
        number = len(found[one.metric]) - 1
        rows.append(_row(counts, number, one.metric, estimate))
    part = Part(by_layer={name: tuple(layers) for name, layers in found.items()})
    part.estimates = {name: mean_of(layers) for name, layers in found.items() if "jackknife" in find(name).estimator}
    part.tables["usage"] = columns(rows, COLUMNS)
    part.tables["loads"] = _loads(counts)
    part.tables["usage_rarefied"] = _rarefied(counts)
    return part


def _row(counts: AtlasCounts, number: int, name: str, one: Estimate) -> Row:
    metric = find(name)
    excess = None if one.plug_in is None or one.null is None else one.plug_in - one.null
    return {"layer": number, "depth": counts.layers[number].depth, "statistic": name, "seed_name": metric.seed or "", "value": one.value,
            "low": one.low, "high": one.high, "seed": one.plug_in, "null": one.null, "null_low": one.null_low, "null_high": one.null_high,
            "excess": excess, "unit": one.unit, "n_selections": int(counts.loads.selected[number].sum()), "status": status(one),
            "reason": one.reason or one.gate or ""}


def _loads(counts: AtlasCounts) -> dict[str, np.ndarray]:
    """Selections and first choices of every expert of every layer, all domains together."""
    parts = []
    for number, layer in enumerate(counts.layers):
        selected, first = (counts.loads.table(number, kind).sum(axis=0) for kind in ("selected", "first"))
        parts.append(np.stack([np.full(layer.n_experts, number), np.arange(layer.n_experts), selected, first]))
    return dict(zip(("layer", "expert", "n", "n_first"), np.concatenate(parts, axis=1)))


def _rarefied(counts: AtlasCounts) -> dict[str, np.ndarray]:
    """Statistics at the selections of the layer that has fewest: layers of different top-k compare only there."""
    totals = [int(table.sum()) for table in counts.loads.selected]
    names = ("layer", "statistic", "value", "error", "n_selections")
    if len(set(totals)) < 2 or not min(totals):
        return columns([], names)
    rows = []
    for number, table in enumerate(counts.loads.selected):
        for name in RAREFIED:
            one = rarefied(find(name).function, table.sum(axis=0), min(totals), generator(counts.settings.seed, f"rarefied {name}", number))
            rows.append({"layer": number, "statistic": name, "value": one.value, "error": one.error, "n_selections": one.size})
    return columns(rows, names)
