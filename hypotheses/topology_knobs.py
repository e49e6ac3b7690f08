"""Objectives of the knobs of the topology analysis on one split of a trace; the split that is judged is asked only after it was opened.

L MoE layer, P adjacent pair of layers, D domain, F half or fold of the documents, E expert (X, Y), W window, T token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.clustering import choose_n_clusters
from analysis.gates import NO_DATA, SINGLE_CHOICE
from analysis.kernels import Int
from analysis.knobs import (
    context_bits,
    context_counts,
    edge_agreement,
    halves,
    held_out_silhouette,
    held_out_transition_bits,
    marginal_of_others,
)
from analysis.metrics.transfer import FOLDS, choose_smoothing
from analysis.pair_counts import PairPlan, pair_groups
from analysis.planes import Planes
from hypotheses.topology_evidence import TopologyCounts, TopologyEvidence
from hypotheses.topology_layers import ONE_LAYER

MAX_ROWS = 100_000  # of whole documents, that windows are measured on
OBJECTIVES = ("cluster_silhouette", "transition_bits", "context_bits", "edge_agreement")
MEANING = {
    "cluster_silhouette": "silhouette in one half of the documents of the clusters found in the other, mean over MoE layers",
    "transition_bits": "bits per token that a layer's smoothed transition table gains over its marginal on held-out documents of the same domain, "
                       "mean over domains and adjacent layers",
    "context_bits": "bits per token that a layer's own choices of the last tokens of a document gain over its marginal, mean over MoE layers",
    "edge_agreement": "Cohen's kappa of the edges that two halves of the documents show, mean over adjacent layers"}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


@dataclass(frozen=True)
class _Context:
    """Rows of one layer: how often each window held the token's expert [W, T], and the expert's probability in other documents [T]."""

    seen_WT: NDArray[np.uint16]
    marginal_T: NDArray[np.float64]


class KnobObjectives:
    """OBJECTIVES of one split, each as a function of its knobs; None where undefined. windows: those that may be asked for, ascending."""

    def __init__(self, evidence: TopologyEvidence, windows: Sequence[int]) -> None:
        settings = replace(evidence.settings, max_rows=min(evidence.settings.max_rows, MAX_ROWS))
        self.counts = TopologyCounts(replace(evidence, settings=settings))
        self.windows = tuple(windows)

    @property
    def left_out(self) -> dict[str, str]:
        """Objectives that this trace cannot have, with the reason."""
        counts, out = self.counts, {}
        if all(layer.top_k == 1 for layer in counts.layers):
            out["cluster_silhouette"] = f"{SINGLE_CHOICE}: a token with one expert activates no two together"
        if not counts.adjacent:
            out |= dict.fromkeys(("transition_bits", "edge_agreement"), ONE_LAYER)
        if counts.n_documents < 2:
            out = dict.fromkeys(OBJECTIVES, f"{NO_DATA}: {counts.n_documents} {counts.split} documents; nothing can be held out")
        return out

    @property
    def most_clusters(self) -> int:
        """Experts in use at the layer that has fewest, less one: more clusters are single experts."""
        return min(len(self.counts.experts(layer)) for layer in range(len(self.counts.layers))) - 1

    @cached_property
    def _coactivation(self) -> list[Int]:
        own = tuple((layer, layer) for layer in range(len(self.counts.layers)) if self.counts.layers[layer].top_k > 1)
        plan = PairPlan(self.counts.split, self.counts.settings.salt, own, variant="slots")
        return [halves(groups.tables[0]) for _, groups in pair_groups(self.counts.trace, plan, threads=self.counts.settings.threads)]

    @cached_property
    def _transitions(self) -> list[Int]:
        """Per domain and adjacent pair of layers, tables of the folds [F, X, Y]."""
        return [np.stack([table[fold::FOLDS].sum(axis=0, dtype=np.int64) for fold in range(min(FOLDS, len(table)))])
                for domain in self.counts.domain_joints for table in map(np.asarray, domain.joints_P)]

    @cached_property
    def _pairs(self) -> list[Int]:
        """Per adjacent pair of layers, the tables of two halves of all documents [2, X, Y]."""
        domains = self.counts.domain_joints
        return [np.asarray(sum(halves(domain.joints_P[place]) for domain in domains)) for place in range(len(self.counts.adjacent))]

    @cached_property
    def _rows(self) -> tuple[list[_Context], NDArray[np.uint16]]:
        sample: Planes = self.counts.sample
        found, back = [], np.zeros((len(self.windows), len(sample)), np.uint16)
        for layer, first in zip(sample.layers, sample.first):
            seen, last = context_counts(first, sample.starts, self.windows)
            back = last.astype(np.uint16)
            found.append(_Context(seen.astype(np.uint16), marginal_of_others(first, sample.starts, layer.n_experts)))
        return found, back

    def cluster_silhouette(self, n_clusters: int) -> float | None:
        """The same number of clusters in every layer."""
        return _mean([held_out_silhouette(tables, n_clusters) for tables in self._coactivation])

    def transition_bits(self, smoothing: float) -> float | None:
        """The same b in every domain and pair of layers."""
        return _mean([held_out_transition_bits(tables, smoothing) for tables in self._transitions])

    def context_bits(self, window: int, context_weight: float) -> float | None:
        """The last `window` tokens; context_weight: tokens that the marginal counts for."""
        layers, back = self._rows
        place = self.windows.index(window)
        return _mean([context_bits((layer.seen_WT[place], back[place]), layer.marginal_T, context_weight) for layer in layers])

    def edge_agreement(self, edge_cut: float) -> float | None:
        """The same least |phi| in every pair of layers."""
        return _mean([edge_agreement(tables, edge_cut) for tables in self._pairs])

    def clusters_by_layer(self) -> list[int | None]:
        """What the analysis chooses unless a number is declared: the clearest number on all documents of the split, layer by layer."""
        return [choose_n_clusters(tables.sum(axis=0)) for tables in self._coactivation]

    def silhouette_by_layer(self, chosen: Sequence[int | None]) -> float | None:
        """The first objective with a number of clusters for each layer."""
        return _mean([None if n is None else held_out_silhouette(tables, n) for n, tables in zip(chosen, self._coactivation)])

    def rule_of_smoothing(self) -> tuple[str, float | None]:
        """What the analysis does unless b is declared: chosen inside each source and pair of layers."""
        each = [(table, choose_smoothing(table)) for table in self._transitions if len(table) > 1]
        words = ", ".join(f"{b:g}" for b in sorted({b for _, b in each}))
        return f"chosen inside each source: {words}", _mean([held_out_transition_bits(table, b) for table, b in each])
