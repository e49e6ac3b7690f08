"""Usage of the experts of each layer, as rows: the statistics of seed 001 beside their law under uniform routing.

L MoE layer, E expert, D document, B replicate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from analysis.estimate import Estimate
from analysis.estimation import estimates
from analysis.gates import DOCUMENT_FLOOR, active, few_documents, gated
from analysis.loads import Kind, Loads
from analysis.registry import every, find
from analysis.resampling import basic_interval, document_weights, generator
from analysis.survey_row import Row, SurveyPlan
from analysis.trace import RoutingTrace
from analysis.uniform_null import UniformNull, uniform_nulls

N_REPLICATES, NULL_DRAWS = 999, 199
UNIFORM_NULL_UP_TO = 10**9  # selections beyond which uniform routing has no spread left that a page could show


def usage_rows(_: RoutingTrace, loads: Loads, plan: SurveyPlan) -> Iterator[Row]:
    """Every `usage_*` metric and the collapse rate, per layer; loads are selections before capacity, the collapse rate's after it."""
    ids = [name for name in every() if name.startswith("usage_")] + ["collapse_rate"]
    gate = few_documents(int(loads.n_documents.sum()), DOCUMENT_FLOOR)
    for number, layer in enumerate(loads.layers):
        for executed, names in ((False, ids[:-1]), (True, ids[-1:])):
            kind: Kind = "executed" if executed and loads.executed is not None else "selected"
            total = loads.table(number, kind).sum(axis=0)
            resampled = _replicates(loads.table(number, kind), plan, layer.key)
            nulls = _nulls(names, total, plan, layer.key, layer.top_k)
            for name in names:
                estimate = _bootstrap(name, total, resampled, loads, plan) if "bootstrap" in find(name).estimator else \
                    estimates(name, loads.groups(number, kind), level=plan.level).item()
                if estimate.value is not None:
                    estimate = _with_null(gated(estimate, gate), nulls.get(name))
                yield Row(name, f"token-weighted, {'executed ' if kind == 'executed' else ''}selections", (layer.key,), plan.split,
                          int(loads.n_documents.sum()), int(loads.tokens.sum()), active(total), layer.n_experts, estimate)


def _replicates(counts_DE: np.ndarray, plan: SurveyPlan, key: str) -> np.ndarray | None:
    """Loads [B, E] of replicates of whole documents, the same for every statistic of a layer; None for one document."""
    if len(counts_DE) < 2:
        return None
    weights = document_weights(len(counts_DE), N_REPLICATES, generator(plan.seed, "usage", key))
    return np.rint(weights @ counts_DE.astype(np.float64)).astype(np.int64)


def _bootstrap(name: str, total: np.ndarray, resampled: np.ndarray | None, loads: Loads, plan: SurveyPlan) -> Estimate:
    """A statistic on the scale of counts, with the basic interval of a document bootstrap."""
    metric, n_documents = find(name), int(loads.n_documents.sum())
    observed = float(metric.function(total))
    if np.isnan(observed):
        return Estimate.undefined(metric.undefined, unit=metric.unit, n_units=n_documents, method="document bootstrap")
    if resampled is None:
        return Estimate(observed, None, None, metric.unit, "document", n_documents, "plug-in", plan.level, plug_in=observed)
    values = np.asarray(metric.function(resampled), np.float64)
    ends = basic_interval(np.asarray(observed), values[~np.isnan(values)], plan.level)
    least, most = metric.range_of(total)  # reflected at the value, an end may lie beyond what the statistic can be
    low, high = (min(max(float(end), -np.inf if least is None else least), np.inf if most is None else most) for end in ends)
    return Estimate(observed, low, high, metric.unit, "document", n_documents, "basic document bootstrap", plan.level,
                    plug_in=observed, se=float(np.nanstd(values, ddof=1)))


def _nulls(names: Sequence[str], total: np.ndarray, plan: SurveyPlan, key: str, k: int) -> dict[str, UniformNull]:
    """Each statistic under uniform routing, from the same draws; none where there is nothing, or too much, to draw."""
    n = int(total.sum())
    if not n or n > UNIFORM_NULL_UP_TO or n % k:
        return {}
    return uniform_nulls(names, total, generator(plan.seed, "uniform usage", key), k=k, draws=NULL_DRAWS)


def _with_null(estimate: Estimate, null: UniformNull | None) -> Estimate:
    if null is None or null.null is None:
        return estimate
    return replace(estimate, null=null.null, null_low=null.low, null_high=null.high)
