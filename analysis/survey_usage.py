"""Usage of the experts of each layer, as rows: the statistics of seed 001 beside their law under uniform routing.

L MoE layer, E expert, D document, B replicate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from analysis.estimate import Estimate
from analysis.estimation import estimates
from analysis.gates import DOCUMENT_FLOOR, active, few_documents, gated
from analysis.loads import Loads
from analysis.registry import every, find
from analysis.resampling import basic_interval, document_weights, generator
from analysis.survey_row import Row, SurveyPlan
from analysis.trace import RoutingTrace
from analysis.uniform_null import uniform_null

N_REPLICATES, NULL_DRAWS = 999, 199
UNIFORM_NULL_UP_TO = 5_000_000  # selections beyond which uniform routing has no spread left that a page could show


def usage_rows(_: RoutingTrace, loads: Loads, plan: SurveyPlan) -> Iterator[Row]:
    """Every `usage_*` metric and the collapse rate, per layer; loads are selections before capacity, the collapse rate's after it."""
    ids = [name for name in every() if name.startswith("usage_")] + ["collapse_rate"]
    gate = few_documents(int(loads.n_documents.sum()), DOCUMENT_FLOOR)
    for number, layer in enumerate(loads.layers):
        for name in ids:
            executed = name == "collapse_rate" and loads.executed is not None
            counts_DE = loads.table(number, "executed" if executed else "selected")
            total = counts_DE.sum(axis=0)
            estimate = _bootstrap(name, counts_DE, loads, plan, layer.key) if "bootstrap" in find(name).estimator else \
                estimates(name, loads.groups(number, "executed" if executed else "selected"), level=plan.level).item()
            if estimate.value is not None:
                estimate = _with_null(gated(estimate, gate), name, total, plan, layer.key, layer.top_k)
            yield Row(name, "token-weighted, " + ("executed selections" if executed else "selections"), (layer.key,), plan.split,
                      int(loads.n_documents.sum()), int(loads.tokens.sum()), active(total), layer.n_experts, estimate)


def _bootstrap(name: str, counts_DE: np.ndarray, loads: Loads, plan: SurveyPlan, key: str) -> Estimate:
    """A statistic on the scale of counts, with the basic interval of a document bootstrap."""
    metric, n_documents = find(name), int(loads.n_documents.sum())
    observed = float(metric.function(counts_DE.sum(axis=0)))
    if np.isnan(observed):
        return Estimate.undefined(metric.undefined, unit=metric.unit, n_units=n_documents, method="document bootstrap")
    if len(counts_DE) < 2:
        return Estimate(observed, None, None, metric.unit, "document", n_documents, "plug-in", plan.level, plug_in=observed)
    weights = document_weights(len(counts_DE), N_REPLICATES, generator(plan.seed, name, key))
    values = np.asarray(metric.function(np.rint(weights @ counts_DE.astype(np.float64)).astype(np.int64)), np.float64)
    low, high = basic_interval(np.asarray(observed), values[~np.isnan(values)], plan.level)
    return Estimate(observed, float(low), float(high), metric.unit, "document", n_documents, "basic document bootstrap", plan.level,
                    plug_in=observed, se=float(np.nanstd(values, ddof=1)))


def _with_null(estimate: Estimate, name: str, total: np.ndarray, plan: SurveyPlan, key: str, k: int) -> Estimate:
    if int(total.sum()) > UNIFORM_NULL_UP_TO or int(total.sum()) % k:
        return estimate
    null = uniform_null(name, total, generator(plan.seed, f"uniform {name}", key), k=k, draws=NULL_DRAWS)
    return estimate if null.null is None else replace(estimate, null=null.null, null_low=null.low, null_high=null.high)
