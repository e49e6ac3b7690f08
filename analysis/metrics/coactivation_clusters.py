"""Headline numbers of analysis.clustering and analysis.coactivation_consistency, as registered metrics.

E expert, A, B domain. Neither is additive: their tests and intervals are in those modules.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from analysis.clustering import cluster_experts
from analysis.coactivation_consistency import rank_correlation
from analysis.metrics.coactivation import coact_lift
from analysis.registry import metric

SOURCE = "seed 000, 2.A; metrics specification 2.1, 2A"


@metric("coact_silhouette", unit="silhouette", bounds=(-1.0, 1.0), undefined="k=1, fewer experts in use than clusters, or one cluster",
        source=SOURCE, takes=("coactivation_EE", "n_clusters"), additive=False, estimator="conditional Bernoulli null",
        seed="Clear expert co-activation clusters")
def coact_silhouette(counts_EE: ArrayLike, n_clusters: int) -> float:
    """Mean silhouette of the experts' average-linkage clusters on 1 - Jaccard, cut into n_clusters; meaningful only beside its null.

    counts_EE: co-activation table [E, E]. [-1, 1]; NaN where undefined. See clustering.cluster_clarity for the null and the verdict.
    """
    value = cluster_experts(counts_EE, n_clusters).silhouette
    return float("nan") if value is None else value


@metric("coact_mantel", unit="correlation", bounds=(-1.0, 1.0), undefined="k=1, or fewer than 3 pairs of experts that met in both", source=SOURCE,
        takes=("coactivation_EE", "coactivation_EE"), additive=False, estimator="document split-half and QAP",
        seed="Expert clusters consistent across domains")
def coact_mantel(counts_a: ArrayLike, counts_b: ArrayLike) -> float:
    """Mantel rho: Spearman correlation of the off-diagonal coact_lift of two domains, over pairs of experts that met in both.

    counts_a, counts_b: co-activation tables [E, E] of the same experts. [-1, 1]; noise alone pulls it to 0, so that it is read beside
    its ceiling (coactivation_consistency). NaN where undefined.
    """
    upper = np.triu_indices(np.shape(counts_a)[-1], 1)
    rho = rank_correlation(coact_lift(counts_a)[upper], coact_lift(counts_b)[upper])
    return float("nan") if rho is None else rho
