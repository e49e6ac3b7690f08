"""Claims 1, 2 and 4 on experts chosen together: dendrogram, map, network, clarity of the clusters and their consistency over domains.

E expert, A expert in use.
"""

from __future__ import annotations

import math

import numpy as np

from analysis.figures.topology_clusters import Coactivation, Dendrogram, ExpertNetwork, coactivation_map, expert_dendrogram, expert_network
from experiments.report.blocks import Cell, Column, Picture, Table
from experiments.report.topology_columns import Drawn, View, bare, in_full, not_drawn, reason_column

EDGE_SHARE = 0.1  # of the pairs of experts drawn in the network: seed 000, 2.B asks for the top 10% of its edges
SHOWN_PAIRS = 15


def _reason(view: View) -> str | None:
    own = [row["reason"] for row in view.rows("cluster_clarity") if row["layer"] == view.shown and row["reason"]]
    return own[0] if own else view.estimate("coact_clarity").reason


def _members(view: View) -> tuple[list[int], list[int]]:
    """Leaves of the layer shown in dendrogram order, and the cluster of every expert, -1 for none."""
    labels = [-1] * view.n_experts[view.shown]
    leaves: list[tuple[int, int]] = []
    for row in view.rows("clusters"):
        if row["layer"] == view.shown:
            labels[row["expert"]] = row["cluster"]
            if row["leaf_order"] >= 0:
                leaves.append((row["leaf_order"], row["expert"]))
    return [expert for _, expert in sorted(leaves)], labels


def dendrogram(view: View) -> Dendrogram | None:
    """The clustering of the layer shown; None without merges."""
    merges = [row for row in view.rows("linkage") if row["layer"] == view.shown]
    leaves, labels = _members(view)
    size = view.n_experts[view.shown]
    if not merges or len(merges) != len(leaves) - 1:
        return None
    experts = sorted(leaves)
    place = {expert: number for number, expert in enumerate(experts)}

    def node(name: int) -> int:
        return place[name] if name < size else len(experts) + name - size

    heights = [row["height"] for row in merges]
    n_clusters = len(set(labels) - {-1})
    cut = (heights[-n_clusters] + heights[1 - n_clusters]) / 2 if 1 < n_clusters <= len(heights) else None
    linkage = np.array([[node(row["a"]), node(row["b"]), row["height"], row["size"]] for row in merges], np.float64)
    return Dendrogram(linkage, experts, [labels[expert] for expert in experts], cut)


def dendrogram_picture(view: View) -> Drawn:
    """Dendrogram of the layer shown."""
    shown = dendrogram(view)
    if shown is None:
        return not_drawn("The dendrogram", _reason(view))
    chosen = view.facts.get("clusters_chosen_on") or "documents not recorded"
    return Picture("expert_dendrogram", expert_dendrogram(shown),
                   f"Experts of {view.shown_words}, by average linkage of their co-activation, found on {chosen}.", "Tree of experts.")


def map_picture(view: View) -> Drawn:
    """Co-activation of the layer shown, in the order of the dendrogram."""
    lift, (leaves, labels) = view.square("coactivation", "lift", view.shown), _members(view)
    if not np.isfinite(lift).any() or not leaves:
        return not_drawn("The co-activation map", _reason(view))
    return Picture("expert_coactivation", coactivation_map(Coactivation(lift, leaves, labels)),
                   f"Co-activation over what fixed k and the same loads would give, {view.shown_words}; the seed's P(i and j) is in the tables.",
                   "Heat map of co-activation lift.")


def network_picture(view: View) -> Drawn:
    """Network of the pairs that meet most above chance."""
    lift, (_, labels) = view.square("coactivation", "lift", view.shown), _members(view)
    upper = lift[np.triu_indices(len(lift), 1)]
    known = upper[np.isfinite(upper)]
    if not len(known):
        return not_drawn("The network of experts", _reason(view))
    n_edges = max(round(EDGE_SHARE * len(known)), len(set(labels) - {-1}), len(lift) // 2)
    cut = max(math.floor(100 * float(np.sort(known)[-min(n_edges, len(known))])) / 100, 0.0)
    loads = np.diag(view.square("coactivation", "joint", view.shown, 0.0))
    return Picture("expert_network", expert_network(ExpertNetwork(lift, cut, np.nan_to_num(loads), labels)),
                   f"Experts of {view.shown_words}. Edges: the pairs furthest above chance, a tenth of all, more where experts are few.",
                   "Experts as nodes, co-activation as edges.")


def clarity_table(view: View) -> Table:
    """Every layer's clusters against their chance level."""
    rows: list[list[Cell]] = [
        [row["layer"], None if row["n_clusters"] is None else int(row["n_clusters"]), row["silhouette"], row["null_quantile"], row["composition"],
         row["p"], row["cophenetic"], int(row["n_draws"] or 0), row["chosen_on"], row["status"], row["reason"] or ""]
        for row in view.rows("cluster_clarity")]
    return Table("cluster_clarity", "Clusters of experts chosen together, against random sets with the same loads",
                 [Column("layer", "number"), Column("clusters", "number"), Column("silhouette", "number"),
                  Column("null 95%", "number"), Column("of documents", "number"), Column("p", "number"), Column("cophenetic r", "number"),
                  Column("null draws", "number"), Column("found on"), Column("status"), reason_column()], rows,
                 in_full(rows, "Of documents: silhouette of tokens that choose independently inside their documents. Where it is above the mean "
                         "of the random sets, the null is lifted to it: topics of documents alone are no structure of the model."))


def consistency_table(view: View) -> Table:
    """How alike co-activation is in two domains, mean over layers, beside the split-half ceiling; every layer in the whole table."""
    found: dict[tuple[str, str], list[dict[str, object]]] = {}
    for row in view.rows("cluster_consistency"):
        found.setdefault((row["source"], row["target"]), []).append(row)
    names = ("mantel", "ceiling", "corrected", "matched", "ari", "ami")
    rows: list[list[Cell]] = []
    for (source, target), layers in found.items():
        means = [_mean([row.get(name) for row in layers]) for name in names]
        reasons = sorted({str(row["reason"]) for row in layers if row.get("reason")})
        rows.append([f"{source}, {target}", *means, "; ".join(reasons)])  # the same reason at several layers once
    titles = ("Mantel r", "ceiling", "of the ceiling", "matched", "ARI", "AMI")
    return Table("cluster_consistency", "Co-activation of one domain in another, mean over MoE layers where it is defined",
                 [Column("domains"), *(Column(title, "number") for title in titles), Column("undefined at a layer because", brief=True)], rows,
                 in_full(rows, "The ceiling is how well halves of one domain's own documents agree: no two domains can be expected to agree better. "
                         "Pairs of experts that never met in one of the domains have no lift and are left out here; the judged numbers rank them "
                         "lowest."))


def _mean(values: list[object]) -> float | None:
    known = [float(value) for value in values if isinstance(value, int | float)]
    return float(np.mean(known)) if known else None


def pairs_table(view: View) -> Table:
    """The pairs of experts furthest above and below chance in the layer shown."""
    rows = [row for row in view.rows("coactivation") if row["layer"] == view.shown and row["i"] < row["j"] and row["lift"] is not None]
    rows.sort(key=lambda row: -row["lift"])
    chosen = rows[:SHOWN_PAIRS] + rows[SHOWN_PAIRS:][-SHOWN_PAIRS:]
    return Table("coactivation_extremes", f"Pairs of experts furthest from chance, {view.shown_words}",
                 [Column("expert", "number"), Column("expert'", "number"), Column("P(both): seed", "number", 5), Column("by chance",
                  "number", 5),
                  Column("log2 lift (bits)", "number"), Column("Jaccard index", "number")],
                 [[row["i"], row["j"], row["joint"], row["null"], row["lift"], row["jaccard"]] for row in chosen],
                 "" if chosen else f"No pair: {_reason(view)}.")


def counted(view: View) -> str:
    """How many clusters, in words: of each layer, or why there are none."""
    numbers = [n for n in view.facts.get("n_clusters") or () if n is not None]
    if not numbers:
        return f"no clusters ({_reason(view)})"
    low, high = min(numbers), max(numbers)
    return f"{low} clusters" if low == high else f"{low} to {high} clusters by layer"


def clarity(view: View) -> str:
    """Silhouette above its null, in words."""
    from analysis.figures.words import interval

    one = view.estimate("coact_clarity")
    return interval(one if one.value is not None else bare(None, reason=one.reason or ""))
