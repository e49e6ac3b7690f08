"""Clusters of experts that are chosen together, and whether they are clearer than chance.

E expert, A expert in use, R null draw. counts_EE: co-activation table (see
analysis.metrics.coactivation). Distance of two experts: 1 - Jaccard index; average linkage, for it needs no Euclidean distances.
The number of clusters is always given: choose it on calibration tables with `choose_n_clusters`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float
from analysis.conditional_bernoulli import draw_pair_counts, fit, pair_inclusion
from analysis.gates import NO_DATA
from analysis.metrics.coactivation import choices, coactivation_jaccard, tokens, undefined_reason

Int = NDArray[np.int64]

NULL_DRAWS = 999
CLEAR_QUANTILE = 0.95  # metrics specification 2.1, 2A: silhouettes of the null that a clear partition exceeds
TOO_FEW_EXPERTS, CONSTANT = "too_few_experts", "constant"
TIES = 1e-12
EXACT_WORK = 1e8  # documents x experts^3 x choices


@dataclass(frozen=True)
class Clustering:
    """Average-linkage clusters of the experts in use.

    experts: ids in use [A], in the order of `merges`; merges: scipy's linkage matrix [A - 1, 4]; heights: of the merges, ascending;
    labels: cluster of each expert [E], numbered by smallest member, -1 for an unused one; leaf_order: expert ids along the dendrogram;
    cophenetic: correlation of dendrogram and distances, silhouette: mean over experts in [-1, 1]. None with `reason` where undefined.
    """

    experts: tuple[int, ...]
    merges: Float
    labels: tuple[int, ...]
    leaf_order: tuple[int, ...]
    cophenetic: float | None
    silhouette: float | None
    reason: str | None = None

    @property
    def heights(self) -> Float:
        """Distance at which each merge happens [A - 1]."""
        return np.asarray(self.merges[:, 2])

    @property
    def unused(self) -> tuple[int, ...]:
        """Experts without a token, which are in no cluster."""
        return tuple(expert for expert, label in enumerate(self.labels) if label < 0)

    @property
    def partition(self) -> tuple[tuple[int, ...], ...]:
        """Experts of each cluster, ascending, clusters by smallest member."""
        return tuple(tuple(e for e, label in enumerate(self.labels) if label == one) for one in range(max(self.labels, default=-1) + 1))


def cluster_experts(counts_EE: ArrayLike, n_clusters: int, *, optimal_order: bool = False) -> Clustering:
    """Average linkage on 1 - Jaccard of the experts in use, cut into n_clusters; unused experts are excluded and listed.

    counts_EE: co-activation table [E, E]. Undefined with its reason for k = 1, no token, or fewer experts in use than clusters.
    optimal_order: leaf order of least summed distance between neighbours (Bar-Joseph 2001), cubic in A. Ties of the distance are broken
    by the experts' loads and distances, not by their ids.
    """
    counts = np.asarray(counts_EE, np.float64)
    if n_clusters < 1:
        raise ValueError(f"n_clusters = {n_clusters}: give at least 1; choose_n_clusters finds it on a calibration table")
    experts = _in_use(counts)
    reason = _not_clustered(counts, experts, n_clusters)
    if reason:
        return Clustering(tuple(experts.tolist()), np.zeros((0, 4)), (-1,) * len(counts), tuple(experts.tolist()), None, None, reason)
    distance = _distances(counts, experts)
    merges, cophenetic, leaves = _linkage(distance, optimal_order)
    cut = _cut(merges, n_clusters)
    labels = np.full(len(counts), -1, np.int64)
    labels[experts] = cut
    silhouette = mean_silhouette(distance, cut)
    return Clustering(tuple(experts.tolist()), merges, tuple(_canonical(labels).tolist()), tuple(experts[leaves].tolist()), cophenetic, silhouette)


def _not_clustered(counts_EE: Float, experts: Int, n_clusters: int) -> str | None:
    if reason := undefined_reason(counts_EE):
        return reason
    if len(experts) < max(n_clusters, 2):
        return f"{TOO_FEW_EXPERTS}: {len(experts)} in use, {max(n_clusters, 2)} needed"
    if choices(counts_EE) == len(experts):
        return f"{CONSTANT}: every token chose all {len(experts)} experts in use"
    return None


def _in_use(counts_EE: Float) -> Int:
    """Experts with a token, by load and then by their ascending co-activations: an order that renumbering does not change."""
    experts = np.flatnonzero(np.diag(counts_EE) > 0)
    keys = [(float(counts_EE[e, e]), *np.sort(counts_EE[e, experts]).tolist()) for e in experts]
    return np.array([expert for _, expert in sorted(zip(keys, experts.tolist()), key=lambda pair: pair[0])], np.int64)


def _distances(counts_EE: Float, experts: Int) -> Float:
    distance = 1 - coactivation_jaccard(counts_EE)[np.ix_(experts, experts)]
    np.fill_diagonal(distance, 0.0)
    return distance


def _linkage(distance_AA: Float, optimal_order: bool) -> tuple[Float, float | None, Int]:
    from scipy.cluster.hierarchy import cophenet, leaves_list, linkage
    from scipy.spatial.distance import squareform

    condensed = squareform(distance_AA, checks=False)
    merges = np.asarray(linkage(condensed, "average", optimal_ordering=optimal_order))
    heights = np.asarray(cophenet(merges))
    varies = np.ptp(condensed) > TIES and np.ptp(heights) > TIES
    cophenetic = float(np.corrcoef(condensed, heights)[0, 1]) if varies else None
    return merges, cophenetic, np.asarray(leaves_list(merges), np.int64)


def _cut(merges: Float, n_clusters: int) -> Int:
    """Cluster of each leaf after all but the last n_clusters - 1 merges; exactly n_clusters, also where heights tie."""
    n_leaves = len(merges) + 1
    members: dict[int, list[int]] = {leaf: [leaf] for leaf in range(n_leaves)}
    for step, (one, other) in enumerate(merges[: n_leaves - n_clusters, :2].astype(np.int64).tolist()):
        members[n_leaves + step] = members.pop(one) + members.pop(other)
    labels = np.zeros(n_leaves, np.int64)
    for number, leaves in enumerate(members.values()):
        labels[leaves] = number
    return labels


def _canonical(labels_E: Int) -> Int:
    """Labels numbered from 0 by the smallest member; -1 stays."""
    names = list(dict.fromkeys(labels_E[labels_E >= 0].tolist()))
    number = {name: place for place, name in enumerate(names)}
    return np.array([number.get(label, -1) for label in labels_E.tolist()], np.int64)


def mean_silhouette(distance_AA: ArrayLike, labels_A: ArrayLike) -> float | None:
    """Mean silhouette (b - a) / max(a, b) of a partition under given distances, [-1, 1]; a member alone in its cluster counts 0.

    a: mean distance to the others of the own cluster, b: least mean distance to another cluster. None for fewer than two clusters.
    """
    distance, labels = np.asarray(distance_AA, np.float64), np.asarray(labels_A)
    member = (labels[:, None] == np.unique(labels)).astype(np.float64)
    size = member.sum(axis=0)
    if len(size) < 2:
        return None
    sums = distance @ member
    own = member.astype(bool)
    others = (size - 1)[own.argmax(axis=1)]
    inside = np.divide(sums[own], others, out=np.zeros(len(labels)), where=others > 0)
    outside = np.where(own, np.inf, sums / size).min(axis=1)
    larger = np.maximum(inside, outside)
    value = np.divide(outside - inside, larger, out=np.zeros(len(labels)), where=(larger > 0) & (others > 0))
    return float(value.mean())


def choose_n_clusters(calibration_EE: ArrayLike, candidates: Sequence[int] | None = None) -> int | None:
    """Number of clusters of largest mean silhouette on a calibration table; ties go to the fewest. None where clusters are undefined.

    candidates: numbers tried, by default 2 to A - 1. Test tables are never given here: a number tuned on them is not a test.
    """
    counts = np.asarray(calibration_EE, np.float64)
    experts = _in_use(counts)
    if _not_clustered(counts, experts, 3):
        return None
    distance = _distances(counts, experts)
    merges, _, _ = _linkage(distance, False)
    tried = sorted({n for n in (candidates or range(2, len(experts))) if 2 <= n < len(experts)})
    found = [(mean_silhouette(distance, _cut(merges, n)) or 0.0, n) for n in tried]
    return max(found, key=lambda one: (round(one[0], 12), -one[1]))[1] if found else None


@dataclass(frozen=True)
class ClusterClarity:
    """Whether experts form clusters clearer than k choices without replacement with these loads would.

    silhouette: of the partition; null_quantile: 95th percentile of the null silhouettes, p = (1 + #{null >= observed}) / (R + 1);
    clear: silhouette > null_quantile. n_draws: null draws that gave a silhouette. All None with `reason` where undefined.
    composition: silhouette that documents of unlike loads give by themselves; the null is lifted to it, where it was asked for.
    """

    silhouette: float | None
    null_quantile: float | None
    p: float | None
    clear: bool | None
    n_draws: int
    reason: str | None = None
    composition: float | None = None


def cluster_clarity(
    counts_EE: ArrayLike, n_clusters: int, rng: np.random.Generator, *, labels_E: ArrayLike | None = None, n_draws: int = NULL_DRAWS,
    composition_EE: ArrayLike | None = None,
) -> ClusterClarity:
    """Silhouette of the partition against tables drawn from the conditional Bernoulli law with the same loads and number of tokens.

    Each null table is clustered afresh into n_clusters, as the observed one was, for a partition is always clearer in the table that it
    was found in. labels_E: a partition found elsewhere (calibration); it is then held fixed in observed and null tables, -1 left out.
    The law has independent tokens of one kind. composition_EE: the table expected of tokens that are independent inside their documents
    (`composition_table`); where its silhouette is above the mean of the null, the null is lifted by the difference, so that topics of
    documents alone are not clear. Without it clear means clearer than loads alone.
    Cost: draws token by token beyond 65,536 sets of k experts (0.4 s a million tokens at k = 8), or a multinomial below.
    """
    counts = np.asarray(counts_EE, np.float64)
    fixed = None if labels_E is None else np.asarray(labels_E)
    observed, reason = _clarity_of(counts, n_clusters, fixed)
    if observed is None:
        return ClusterClarity(None, None, None, None, 0, reason)
    k, n_tokens = choices(counts), round(float(tokens(counts)))
    chance = fit(np.diag(counts) / float(tokens(counts)), k)
    drawn = (_clarity_of(draw_pair_counts(chance, k, n_tokens, rng).astype(np.float64), n_clusters, fixed)[0] for _ in range(n_draws))
    null = np.array([one for one in drawn if one is not None])
    if not len(null):
        return ClusterClarity(observed, None, None, None, 0, f"{NO_DATA}: no null table has a partition")
    composition = None if composition_EE is None else _clarity_of(np.asarray(composition_EE, np.float64), n_clusters, fixed)[0]
    if composition is not None:
        null = null + max(composition - float(null.mean()), 0.0)
    quantile = float(np.quantile(null, CLEAR_QUANTILE))
    p = (1 + int((null >= observed - TIES).sum())) / (len(null) + 1)
    return ClusterClarity(observed, quantile, p, bool(observed > quantile + TIES), len(null), composition=composition)


def composition_table(loads_DE: ArrayLike, k: int) -> Float:
    """Co-activation expected of tokens that choose independently inside their document: each document's loads, and no other structure [E, E].

    loads_DE: selections per document and expert, k of them a token. The law of each document is the conditional Bernoulli law of its loads up
    to EXACT_WORK, beyond it Hajek's approximation of that law, pi_i pi_j (1 - (1 - pi_i)(1 - pi_j) / sum pi (1 - pi)), exact as experts
    become many. What a document's loads hold by chance counts as composition, too: of what its tokens share about one part in as many tokens
    as it has. Documents must be apart: the loads of several together have lost what their topics differ in.
    Source: Hajek 1964.
    """
    loads = np.asarray(loads_DE, np.float64)
    loads = loads[loads.sum(axis=1) > 0]
    n_tokens = loads.sum(axis=1) / k
    share = np.minimum(loads / n_tokens[:, None], 1.0)
    if share.size * share.shape[1] ** 2 * k <= EXACT_WORK:
        table = np.einsum("d,dij->ij", n_tokens, pair_inclusion(fit(share, k), k))
    else:
        spread = share * (1 - share)
        varies = spread.sum(axis=1)
        table = (share * n_tokens[:, None]).T @ share
        table -= (spread * np.divide(n_tokens, varies, out=np.zeros_like(varies), where=varies > 0)[:, None]).T @ spread
    np.fill_diagonal(table, loads.sum(axis=0))
    off = ~np.eye(len(table), dtype=bool)
    table[off] *= (k - 1) * loads.sum() / table[off].sum()  # of all pairs as many as there are
    return np.asarray(table)


def _clarity_of(counts_EE: Float, n_clusters: int, labels_E: NDArray[np.generic] | None) -> tuple[float | None, str | None]:
    if labels_E is None:
        found = cluster_experts(counts_EE, n_clusters)
        return found.silhouette, found.reason or "one cluster has no silhouette"
    if undefined_reason(counts_EE):
        return None, undefined_reason(counts_EE)
    experts = np.flatnonzero((np.diag(counts_EE) > 0) & (np.asarray(labels_E, np.int64) >= 0))
    value = mean_silhouette(_distances(counts_EE, experts), labels_E[experts])
    return value, None if value is not None else "fewer than two clusters in use"
