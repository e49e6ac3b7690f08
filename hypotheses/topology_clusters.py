"""Which experts a token activates together: co-activation, clusters against their chance level, clusters of one domain in another.

E expert, L MoE layer, G group of documents, D domain, F half of a domain's documents, S split into halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.clustering import (
    ClusterClarity,
    Clustering,
    choose_n_clusters,
    cluster_clarity,
    cluster_experts,
    composition_table,
    mean_silhouette,
)
from analysis.estimate import Estimate
from analysis.estimation import Groups
from analysis.gates import NO_DATA, SINGLE_CHOICE, few_documents, gated
from analysis.kernels import Float, Int
from analysis.left_out import LeftOut, leave_out, stack
from analysis.metrics.coactivation import (
    coact_lift,
    coactivation,
    coactivation_conditional,
    coactivation_jaccard,
    undefined_reason,
)
from analysis.pair_counts import PairPlan, pair_groups
from analysis.resampling import generator
from hypotheses.topology_evidence import TopologyCounts
from hypotheses.topology_parts import Part, Row, columns

SILHOUETTE = "silhouette above its null"
NULL_WORK = 3e8  # tokens x experts per token drawn for the null of one run, beyond which fewer draws are made; 39 at least
FEWEST_DRAWS = 39
PAIR_COLUMNS = ("layer", "i", "j", "joint", "conditional", "jaccard", "lift", "null")
CLUSTER_COLUMNS = ("layer", "expert", "cluster", "leaf_order")
LINKAGE_COLUMNS = ("layer", "step", "a", "b", "height", "size")
CLARITY_COLUMNS = ("layer", "n_clusters", "silhouette", "null_quantile", "composition", "p", "cophenetic", "n_draws", "chosen_on", "status", "reason")


@dataclass(frozen=True)
class LayerClusters:
    """One layer: co-activation of the judged documents by group, the partition found on other documents, and how clear it is here."""

    groups: Groups
    partition: Clustering
    clarity: ClusterClarity
    chosen_on: str
    whole: Int

    @property
    def table(self) -> Float:
        """Co-activation of the judged documents [E, E]."""
        return self.groups.totals[0]


def cluster_part(counts: TopologyCounts) -> Part:
    """Co-activation tables, dendrograms, clusters found on calibration documents and their clarity on the judged ones."""
    layers = layer_clusters(counts)
    part = Part()
    estimates = [_clarity_replicates(one) for one in layers]
    part.by_layer["coact_clarity"] = tuple(_clarity_estimate(counts, one, [one_layer]) for one, one_layer in zip(estimates, layers))
    part.estimates["coact_clarity"] = _mean_clarity(counts, estimates, layers)
    part.tables["coactivation"] = _pairs(layers)
    part.tables["clusters"] = columns([row for number, one in enumerate(layers) for row in _members(number, one)], CLUSTER_COLUMNS)
    part.tables["linkage"] = columns([row for number, one in enumerate(layers) for row in _merges(number, one)], LINKAGE_COLUMNS)
    part.tables["cluster_clarity"] = columns([_clarity_row(number, one) for number, one in enumerate(layers)], CLARITY_COLUMNS)
    part.facts["n_clusters"] = [max(one.partition.labels, default=-1) + 1 if one.partition.reason is None else None for one in layers]
    part.facts["clusters_chosen_on"] = layers[0].chosen_on if layers else None
    return part


def layer_clusters(counts: TopologyCounts) -> list[LayerClusters]:
    """Each layer's partition and clarity. The partition comes from calibration documents; without any, from every other group of the judged."""
    own = tuple((layer, layer) for layer in range(len(counts.layers)))
    plan = PairPlan(counts.split, counts.settings.salt, own, variant="slots")
    calibration = _calibration(counts, own)
    out = []
    for (layer, _), groups in pair_groups(counts.trace, plan, threads=counts.settings.threads):
        out.append(_one_layer(counts, layer, groups, calibration.get(layer)))
    return out


def _calibration(counts: TopologyCounts, own: tuple[tuple[int, int], ...]) -> dict[int, Int]:
    if not any(row.split == "calibration" for row in counts.trace.documents) or counts.split == "calibration":
        return {}
    plan = PairPlan("calibration", counts.settings.salt, own, variant="slots", max_groups=1)
    return {layer: groups.tables[0].sum(axis=0) for (layer, _), groups in pair_groups(counts.trace, plan, threads=counts.settings.threads)}


def _one_layer(counts: TopologyCounts, layer: int, groups: Groups, calibration: Int | None) -> LayerClusters:
    table, whole = groups.tables[0], groups.tables[0].sum(axis=0)
    chosen_on, judged = "calibration documents", groups
    if calibration is None:
        chosen_on = "every other group of the judged documents, judged on the rest"
        calibration, judged = table[::2].sum(axis=0), Groups((table[1::2],), groups.n_documents // 2)
    settings = counts.settings
    reason = undefined_reason(calibration)
    n_clusters = settings.n_clusters or (None if reason else choose_n_clusters(calibration))
    if n_clusters is None or not len(judged.tables[0]):
        why = reason or f"{NO_DATA}: too few experts in use, or too few documents, to choose a number of clusters"
        empty = Clustering((), np.zeros((0, 4)), (-1,) * len(whole), (), None, None, why)
        return LayerClusters(judged, empty, ClusterClarity(None, None, None, None, 0, why), chosen_on, whole)
    partition = cluster_experts(calibration, n_clusters)
    if partition.reason:
        return LayerClusters(judged, partition, ClusterClarity(None, None, None, None, 0, partition.reason), chosen_on, whole)
    rng = generator(settings.seed, "coact_clarity", counts.layers[layer].key)
    meta = counts.layers[layer]
    work = float(np.trace(judged.tables[0].sum(axis=0))) * len(counts.layers)
    draws = settings.n_null_clusters if _enumerable(meta.n_experts, meta.top_k) else \
        int(np.clip(NULL_WORK // max(work, 1), min(FEWEST_DRAWS, settings.n_null_clusters), settings.n_null_clusters))
    clarity = cluster_clarity(judged.tables[0].sum(axis=0), n_clusters, rng, labels_E=partition.labels, n_draws=draws,
                              composition_EE=composition_table(counts.sample_loads(layer), meta.top_k))
    return LayerClusters(judged, partition, clarity, chosen_on, whole)


def _enumerable(n_experts: int, top_k: int) -> bool:
    from math import comb

    return comb(n_experts, top_k) <= 2**16


def _clarity_replicates(one: LayerClusters) -> LeftOut | None:
    """Silhouette of the fixed partition minus the null's 95th percentile, on all groups and without each."""
    if one.clarity.silhouette is None or one.clarity.null_quantile is None:
        return None
    labels = np.asarray(one.partition.labels)
    used = np.flatnonzero((np.diag(one.table) > 0) & (labels >= 0))
    quantile = one.clarity.null_quantile

    def value(table: Float) -> Float:
        distance = 1 - coactivation_jaccard(table)[..., used[:, None], used]
        flat = distance.reshape(-1, len(used), len(used))
        found = []
        for matrix in flat:
            np.fill_diagonal(matrix, 0.0)
            silhouette = None if np.isnan(matrix).any() else mean_silhouette(matrix, labels[used])
            found.append(np.nan if silhouette is None else silhouette - quantile)
        return np.asarray(found).reshape(distance.shape[:-2])

    return leave_out(one.groups, value)


def _clarity_estimate(counts: TopologyCounts, replicates: LeftOut | None, layers: Sequence[LayerClusters]) -> Estimate:
    n_documents = min((one.groups.n_documents for one in layers), default=0)
    if replicates is None or np.isnan(replicates.plug_in).any():
        reason = next((one.clarity.reason for one in layers if one.clarity.reason), None) or f"{NO_DATA}: no partition of two clusters in use"
        return Estimate.undefined(reason, unit=SILHOUETTE, n_units=n_documents)
    made: Estimate = replicates.estimates("coact_silhouette", level=counts.settings.level).item()
    value, half = made.plug_in, made.half_width  # not bias-corrected: the null of as many tokens has the same bias
    assert value is not None
    estimate = Estimate(value, None if half is None else value - half, None if half is None else value + half, SILHOUETTE, "document", n_documents,
                        made.method, made.level, plug_in=value, se=made.se, p=layers[0].clarity.p if len(layers) == 1 else None)
    return gated(estimate, few_documents(n_documents))


def _mean_clarity(counts: TopologyCounts, each: Sequence[LeftOut | None], layers: Sequence[LayerClusters]) -> Estimate:
    known = [one for one in each if one is not None]
    if len(known) < len(each) or not known:
        return _clarity_estimate(counts, None, layers)
    together = stack(known)
    mean = together.mean([list(range(len(known)))])
    single = LeftOut(mean.plug_in[0], mean.left_out[:, 0], mean.n_documents, mean.stratum)
    return _clarity_estimate(counts, single, layers)


def _pairs(layers: Sequence[LayerClusters]) -> dict[str, np.ndarray]:
    """Every pair of experts in use: joint and conditional probability, Jaccard index, lift in bits and the joint probability by chance."""
    parts = []
    for number, one in enumerate(layers):
        table = one.whole
        if undefined_reason(table):
            continue
        used = np.flatnonzero(np.diag(table))
        i, j = (axis.ravel() for axis in np.meshgrid(used, used, indexing="ij"))
        joint, lift = coactivation(table), coact_lift(table)
        chance = joint / np.exp2(lift)
        conditional, jaccard = coactivation_conditional(table), coactivation_jaccard(table)
        parts.append((np.full(len(i), number), i, j, joint[i, j], conditional[i, j], jaccard[i, j], lift[i, j], chance[i, j]))
    return {name: np.concatenate([part[place] for part in parts]) if parts else np.zeros(0) for place, name in enumerate(PAIR_COLUMNS)}


def _members(layer: int, one: LayerClusters) -> list[Row]:
    place = {expert: number for number, expert in enumerate(one.partition.leaf_order)}
    return [{"layer": layer, "expert": e, "cluster": label, "leaf_order": place.get(e, -1)} for e, label in enumerate(one.partition.labels)]


def _merges(layer: int, one: LayerClusters) -> list[Row]:
    """Merges of the dendrogram: a, b are expert ids below E, and E + s is the cluster that step s made."""
    experts = one.partition.experts
    named = dict(enumerate(experts))
    size = len(one.partition.labels)
    return [{"layer": layer, "step": step, "a": named.get(int(a), size + int(a) - len(experts)), "b": named.get(int(b), size + int(b) - len(experts)),
             "height": float(height), "size": int(n)} for step, (a, b, height, n) in enumerate(one.partition.merges)]


def _clarity_row(layer: int, one: LayerClusters) -> Row:
    clarity = one.clarity
    status = "undefined" if clarity.silhouette is None else "estimated"
    n_clusters = max(one.partition.labels, default=-1) + 1
    reason = clarity.reason or ""
    if reason == SINGLE_CHOICE:
        reason = f"{SINGLE_CHOICE}: a token with one expert activates no two together"
    return {"layer": layer, "n_clusters": n_clusters or None, "silhouette": clarity.silhouette, "null_quantile": clarity.null_quantile,
            "composition": clarity.composition, "p": clarity.p, "cophenetic": one.partition.cophenetic, "n_draws": clarity.n_draws,
            "chosen_on": one.chosen_on, "status": status,
            "reason": reason}
