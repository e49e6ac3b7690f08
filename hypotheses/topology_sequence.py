"""Order of a document's tokens in the routing: transitions to the next token, stickiness and information at several lags.

L MoE layer, G group of documents, E expert.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.estimate import Estimate
from analysis.estimation import Groups, estimates
from analysis.gates import NO_DATA, few_documents, gated, undersampled
from analysis.left_out import leave_out, stack
from analysis.loads import document_loads
from analysis.metrics.sequence import NO_PAIR, lag_kappa, lag_mi, shuffled_transitions, transition_matrix
from analysis.pair_counts import PairPlan, pair_groups
from analysis.registry import find
from analysis.threads import streamed
from hypotheses.topology_evidence import TopologyCounts
from hypotheses.topology_parts import Part, Row, columns

LAG_COLUMNS = ("layer", "lag", "kappa", "low", "high", "shuffled_kappa", "mi", "mi_low", "mi_high", "shuffled_mi", "pearson_ids_seed", "n_pairs",
               "status", "reason")
HEADLINES = ("lag_kappa", "lag_mi", "transition_diversity")


def sequence_part(counts: TopologyCounts) -> Part:
    """Transition tables of neighbouring tokens, and kappa and information of the first choice at each lag; means over layers at lag 1."""
    own = tuple((layer, layer) for layer in range(len(counts.layers)))
    rows: list[Row] = []
    next_tokens: list[Groups] = []
    shuffled = _compositions(counts)
    for lag in counts.settings.lags:
        plan = PairPlan(counts.split, counts.settings.salt, own, lag=lag)

        def row(found: tuple[tuple[int, int], Groups], lag: int = lag) -> tuple[Row, Groups]:
            (layer, _), groups = found
            return _lag_row(counts, layer, lag, groups, shuffled), groups

        for made, groups in streamed(row, pair_groups(counts.trace, plan, threads=counts.settings.threads), counts.settings.threads):
            rows.append(made)
            if lag == 1:
                next_tokens.append(groups)
    part = Part()
    part.tables["autocorrelation"] = columns(sorted(rows, key=lambda row: (row["layer"], row["lag"])), LAG_COLUMNS)
    part.tables["transition_matrix"] = _transitions(next_tokens)
    for name in HEADLINES:
        part.estimates[name], part.by_layer[name] = _over_layers(counts, name, next_tokens)
    return part


def _compositions(counts: TopologyCounts) -> list[np.ndarray] | None:
    """First choices by document and layer [D, E], for the exact mean of shuffles inside documents; None where they would take too much room."""
    n_cells = counts.n_documents * sum(layer.n_experts for layer in counts.layers)
    if n_cells > 2**26:
        return None
    loads = document_loads(counts.trace, counts.split, salt=counts.settings.salt, max_units=max(counts.n_documents, 1))
    return [loads.table(layer, "first") for layer in range(len(counts.layers))]


def _lag_row(counts: TopologyCounts, layer: int, lag: int, groups: Groups, shuffled: Sequence[np.ndarray] | None) -> Row:
    level = counts.settings.level
    kappa, information = (estimates(name, groups, level=level).item() for name in ("lag_kappa", "lag_mi"))
    total = groups.totals[0]
    gate = few_documents(groups.n_documents) or undersampled(total)
    seed = estimates("autocorrelation_of_ids_seed", groups, level=level).item()
    null = None if shuffled is None or not total.sum() else shuffled_transitions(shuffled[layer], lag)
    reason = kappa.reason or gate or ""
    return {"layer": layer, "lag": lag, "kappa": kappa.value, "low": kappa.low, "high": kappa.high,
            "shuffled_kappa": None if null is None else _finite(lag_kappa(null)), "mi": information.value, "mi_low": information.low,
            "mi_high": information.high, "shuffled_mi": None if null is None else _finite(lag_mi(null)), "pearson_ids_seed": seed.plug_in,
            "n_pairs": int(total.sum()), "status": "undefined" if kappa.value is None else "gated" if gate else "estimated", "reason": reason}


def _finite(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None


def _transitions(tables: Sequence[Groups]) -> dict[str, np.ndarray]:
    """P(next expert j | expert i) and its counts, every layer and pair of experts in use."""
    parts: list[tuple[np.ndarray, ...]] = []
    for layer, groups in enumerate(tables):
        n = groups.totals[0]
        p = transition_matrix(n)
        used = np.flatnonzero((n.sum(axis=0) > 0) | (n.sum(axis=1) > 0))
        i, j = (axis.ravel() for axis in np.meshgrid(used, used, indexing="ij"))
        parts.append((np.full(len(i), layer), i, j, p[i, j], n[i, j].astype(np.int64)))
    names = ("layer", "i", "j", "p", "n")
    return {name: np.concatenate([part[place] for part in parts]) if parts else np.zeros(0) for place, name in enumerate(names)}


def _over_layers(counts: TopologyCounts, name: str, tables: Sequence[Groups]) -> tuple[Estimate, tuple[Estimate, ...]]:
    """A lag-1 metric averaged over layers, by one jackknife over the same documents, and per layer."""
    level, metric = counts.settings.level, find(name)
    if not tables:
        missing = Estimate.undefined(NO_DATA, unit=metric.unit, n_units=counts.n_documents)
        return missing, tuple(missing for _ in counts.layers)
    few = few_documents(counts.n_documents)
    gates = [few or (undersampled(groups.totals[0]) if metric.unit == "bits" else None) for groups in tables]
    together = stack([leave_out(groups, metric.function) for groups in tables])
    single = [one if one.value is None else gated(one, gate) for one, gate in zip(together.estimates(name, level=level), gates)]
    mean = together.mean([list(range(len(tables)))]).estimates(name, level=level)[0]
    if mean.value is None:
        return Estimate.undefined(NO_PAIR, unit=metric.unit, n_units=counts.n_documents), tuple(single)
    return gated(mean, *gates), tuple(single)
