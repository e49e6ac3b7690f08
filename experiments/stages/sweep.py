"""Sweep: fast-path thresholds tuned on calibration documents; the chosen point is confirmed on test documents after those were opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.counts import CountPlan, RoutingCounts, accumulate
from analysis.estimate import Estimate
from analysis.metrics.fastpath import FastPathEffect, LayerTable, eligible, lookup_tables
from analysis.metrics.threshold_scan import threshold_scan
from analysis.rows import whole_documents
from experiments.evaluation_files import plain
from experiments.stages.context import Context
from experiments.stages.evidence import var_evidence, var_settings
from experiments.sweep import SweepPoint, SweepQuestion, SweepSpace, optimism, read, sweep
from tracking.atomic import write_json


def run(context: Context) -> dict[str, Any]:
    """The exact grid in one pass over types, then the study; no test document is read."""
    counts = calibration_counts(context)
    scan = threshold_scan(counts)

    def points(asked: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(scan.points(asked[:, 0], asked[:, 1], asked[:, 2]), axis=1)

    space = space_of(context, scan.hits.shape[1])
    grid = np.stack([values[:, :, np.array(space.table_sizes) - 1].ravel()
                     for values in scan.grid(np.array(space.min_counts), np.array(space.max_entropies))], axis=1)
    outcome = sweep(SweepQuestion(points, grid=grid), space, context.directory / "sweep", context.progress)
    return {"trials": outcome.n_asked, "chosen": plain(_point(outcome.chosen))}


def space_of(context: Context, table_size: int) -> SweepSpace:
    """The declared knobs; table sizes beyond the router's k are left out."""
    spec = context.experiment.sweep
    knobs = spec.knobs
    sizes = tuple(k for k in knobs.table_k if k <= table_size) or (table_size,)
    counts, entropies = (knobs.min_count.low, knobs.min_count.high), (knobs.max_entropy.low_share, knobs.max_entropy.high_share)
    return SweepSpace.between(counts, entropies, sizes, n_trials=spec.n_trials, min_agreement=spec.min_agreement, seed=context.experiment.seed)


def _point(point: SweepPoint | None) -> dict[str, Any] | None:
    return None if point is None else {"min_count": point.min_count, "max_entropy": point.max_entropy, "table_k": point.table_k}


def calibration_counts(context: Context) -> RoutingCounts:
    """Counts of the calibration split; no test document is read."""
    trace = context.trace
    return accumulate(trace, CountPlan("calibration", str(context.experiment.seed), np.zeros((1, len(trace.meta.layers)))))


def confirm(context: Context) -> dict[str, Any]:
    """The chosen point on test documents, with calibration minus test shown as optimism."""
    outcome = read(context.directory / "sweep")
    confirmed = {} if outcome.chosen is None else _on_test(context, outcome.chosen)
    write_json(context.directory / "sweep" / "confirmed.json", plain({
        "confirmed": {name: one.to_json() for name, one in confirmed.items()},
        "optimism": {name: one.to_json() for name, one in optimism(outcome.chosen, confirmed).items()}}))
    return {"confirmed": bool(confirmed)}


def _on_test(context: Context, point: SweepPoint) -> Mapping[str, Estimate]:
    """Coverage and agreement of the chosen point on test documents, with document intervals."""
    from hypotheses.var_evidence import VarCounts
    from hypotheses.var_shares import Ratio, RatioRule

    counts = VarCounts(replace(var_evidence(context, context.trace), settings=var_settings(context)))
    limits = point.max_entropy * np.log([layer.n_experts for layer in counts.layers])
    chosen = eligible(counts.calibration, point.min_count, limits)
    tables = tuple(LayerTable(one.types, one.experts[:, :point.table_k], one.weights[:, :point.table_k])
                   for one in lookup_tables(counts.calibration, chosen))
    effect = FastPathEffect(tables, counts.test)
    for batch in whole_documents(context.trace.batches(split="test")):
        effect.add(batch, np.array([counts.test.units.of_document[one] for one in batch.document.tolist()]))
    covered, _, overlap, _ = np.moveaxis(effect.sums, 1, 0)
    tokens = np.broadcast_to(counts.test.tokens_D, covered.shape)
    rule = RatioRule(counts, empty="no test occurrence is covered")
    return {"coverage": rule.estimates(Ratio(covered, tokens, "share of occurrences"))[-1],
            "agreement": rule.estimates(Ratio(overlap / point.table_k, covered, "share of the table's experts", pooled=True))[-1]}
