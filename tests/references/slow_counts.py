"""Plain loops over rows: the slow twin of analysis.counts."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from analysis.trace import RoutingTrace


def slow_counts(trace: RoutingTrace, split: str) -> dict[int, dict]:
    """Per type: n, documents, entropies by layer, confidences by layer, positions, sets and first choices and weights by layer."""
    types: dict[int, dict] = {}
    for batch in trace.batches(split=split):
        for t in range(len(batch)):
            v = int(batch.token_id[t])
            one = types.setdefault(v, {"documents": set(), "positions": [], "h": defaultdict(list), "c": defaultdict(list),
                                       "n_e": defaultdict(lambda: defaultdict(int)), "first": defaultdict(lambda: defaultdict(int)),
                                       "weight": defaultdict(lambda: defaultdict(float))})
            one["documents"].add(int(batch.document[t]))
            one["positions"].append(int(batch.position[t]))
            for layer in range(len(batch.ids)):
                one["h"][layer].append(float(batch.entropy_nats[layer, t]))
                one["c"][layer].append(float(batch.top1_prob[layer, t]))
                for slot, expert in enumerate(batch.ids[layer][t].tolist()):
                    one["n_e"][layer][expert] += 1
                    one["first"][layer][expert] += slot == 0
                    one["weight"][layer][expert] += float(batch.weights[layer][t, slot])
    return types


def slow_table(trace: RoutingTrace, thresholds: np.ndarray, min_count: int) -> list[dict[int, list[int]]]:
    """Per layer: eligible type -> experts by descending mean calibration weight."""
    types, tables = slow_counts(trace, "calibration"), []
    for layer, meta in enumerate(trace.meta.layers):
        table = {}
        for v, one in types.items():
            if len(one["positions"]) >= min_count and np.mean(one["h"][layer]) < thresholds[layer]:
                table[v] = sorted(range(meta.n_experts), key=lambda e: (-one["weight"][layer][e], e))[: meta.top_k]
        tables.append(table)
    return tables
