"""Pictures of the SPECTRA report under the seed's file names, every arm that was trained side by side, the judged pair first.

E expert, D domain, L MoE layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.figures.forest import ForestMark, ForestPanel, forest
from analysis.figures.spectra_experts import ArmAffinity, ArmPurity, affinity_heatmap, purity_bars
from analysis.figures.spectra_flow import ArmFlow, domain_flow
from analysis.figures.spectra_representations import ArmVectors, representation_pca
from analysis.figures.spectra_tokens import TokenCloud, token_clustering
from experiments.report.blocks import Picture
from experiments.report.spectra_tables import change, of_seeds
from experiments.report.topology_columns import Drawn, View, estimate_of, not_drawn

DRAWN = ("mi_E_D", "expert_affinity_avg", "purity_cross_fitted", "silhouette", "diversity_jsd_excess", "confidence", "repr_output", "gram_rms",
         "collapse_rate", "held_out_loss")
Row = dict[str, Any]


def all_arms(view: View) -> list[str]:
    """Names of the judged pair, then of every other arm that the run has."""
    trained = view.facts.get("seeds", {})
    return [name for name in dict.fromkeys((str(view.facts.get("baseline")), str(view.facts.get("treatment")), *trained)) if trained.get(name)]


def what_differs(view: View) -> str:
    """What differs from the baseline beside the router, of the arms that are shown; every difference in full is in a table of its own."""
    found = view.facts.get("differences", {})
    unlike = [f"{name} ({'; '.join(one.partition(':')[0] for one in found[name])})" for name in all_arms(view) if found.get(name)]
    pair = f"Judged: {view.facts.get('treatment')} against {view.facts.get('baseline')}; other arms stand outside the claim."
    if not unlike:
        return f"{pair} Beside the router no arm differs."
    return f"{pair} These differ in more than the router: {', '.join(unlike)}."


def layer_shown(view: View) -> int:
    """The layer whose experts are drawn: the last one, fixed before any number is known."""
    return int(view.facts.get("shown_layer", 0))


def _rows(view: View, table: str, arm: str, layer: int | None = None) -> list[Row]:
    return [row for row in view.rows(table) if row["arm"] == arm and (layer is None or row["layer"] == layer)]


def _matrix(rows: Sequence[Row], value: str, domains: Sequence[str], n_experts: int) -> NDArray[np.float64]:
    out = np.full((n_experts, len(domains)), np.nan)
    for row in rows:
        if row["domain"] in domains and row[value] is not None:
            out[row["expert"], domains.index(row["domain"])] = row[value]
    return out


def tokens_picture(view: View, method: str = "t-SNE", name: str = "token_clustering_tsne") -> Drawn:
    """Router inputs of single tokens in two dimensions."""
    domains = view.domains
    clouds = []
    for arm in all_arms(view):
        rows = [row for row in _rows(view, "tokens", arm) if row["method"] == method and row["domain"] in domains]
        clouds.append(TokenCloud(arm, np.array([[row["x"], row["y"]] for row in rows]).reshape(-1, 2), np.array([row["expert"] for row in rows],
                                                                                                                np.int64),
                                 np.array([domains.index(row["domain"]) for row in rows], np.int64), domains))
    if not any(len(cloud.points) for cloud in clouds):
        said = "; ".join(str(one) for one in view.facts.get("pictures", ()))
        return not_drawn(f"{method} of router inputs", said or None)
    return Picture(name, token_clustering(clouds, method), f"{method} of router inputs at MoE layer {layer_shown(view)} (the last), first seed. A "
                   f"picture: no verdict rests on it. {what_differs(view)}", "One cloud of points per arm.")


def affinity_picture(view: View) -> Drawn:
    """Affinity and its two normalisations."""
    layer, domains, arms = layer_shown(view), view.domains, []
    n_experts = view.n_experts[layer] if layer < len(view.n_experts) else 0
    for arm in all_arms(view):
        rows = _rows(view, "affinity", arm, layer)
        if rows:
            log2 = np.empty((n_experts, len(domains)), object)
            for row in rows:
                log2[row["expert"], domains.index(row["domain"])] = estimate_of(row)
            arms.append(ArmAffinity(arm, log2, _matrix(rows, "p_e_given_d", domains, n_experts), _matrix(rows, "p_d_given_e", domains, n_experts),
                                    domains))
    if not arms:
        return not_drawn("The affinity of experts and domains", view.estimate("mi_E_D_change_checkpoint").reason)
    return Picture("expert_affinity_heatmap", affinity_heatmap(arms), f"Experts against domains at MoE layer {layer}, first seed, test documents. "
                   f"{what_differs(view)}", "Three heat maps per arm.")


def purity_picture(view: View) -> Drawn:
    """Purity of each expert against its null."""
    layer, arms = layer_shown(view), []
    for arm in all_arms(view):
        rows = _rows(view, "experts", arm, layer)
        if rows:
            null = np.array([np.nan if row["purity_null"] is None else row["purity_null"] for row in rows])
            purity = [row["purity"] for row in rows]
            known = [one for one in purity if one is not None]
            arms.append(ArmPurity(arm, purity, null, float(np.mean(known)) if known else None, float(np.nanmean(null)) if np.isfinite(null).any()
                                  else None))
    if not arms:
        return not_drawn("The purity of experts", None)
    return Picture("domain_purity_bar", purity_bars(arms, 1 / len(view.domains) if view.domains else None),
                   f"Purity of the experts of MoE layer {layer}, first seed. {what_differs(view)}", "Bars per expert with the null's line.")


def flows(view: View) -> list[ArmFlow]:
    """Selections of each expert in each domain, per arm, at the layer shown."""
    layer, domains, found = layer_shown(view), view.domains, []
    for arm in all_arms(view):
        rows = _rows(view, "affinity", arm, layer)
        if rows:
            counts = np.nan_to_num(_matrix(rows, "count", domains, view.n_experts[layer])).T.astype(np.int64)
            found.append(ArmFlow(arm, counts, domains))
    return found


def flow_picture(view: View) -> Drawn:
    """P(e|d) as bars, the printed form of the page of flows."""
    arms = flows(view)
    if not arms:
        return not_drawn("The flow from domains to experts", None)
    return Picture("routing_flow", domain_flow(arms), f"Where the tokens of each domain go, MoE layer {layer_shown(view)}, first seed. "
                   f"{what_differs(view)}", "Stacked bars.")


def representation_picture(view: View) -> Drawn:
    """Directions of expert outputs as arrows from the origin."""
    layer, arms = layer_shown(view), []
    for arm in all_arms(view):
        rows = _rows(view, "directions", arm, layer)
        if rows:
            points = np.array([[np.nan if row[axis] is None else row[axis] for axis in "xyz"] for row in rows])
            share = [float(rows[0][f"share_{axis}"]) for axis in "xyz"]
            arms.append(ArmVectors(arm, points, share, rows[0]["rms"], rows[0]["random"]))
    if not arms:
        return not_drawn("The directions of expert outputs", None)
    return Picture("expert_representation_pca", representation_pca(arms), f"Mean outputs of the experts of MoE layer {layer} over one probe set, "
                   f"first seed. {what_differs(view)}",
                   "Arrows from the origin, in two and in three dimensions.")


def comparison_picture(view: View) -> Drawn:
    """Every metric of the seed's table: both arms over training seeds."""
    panels = []
    for row in view.rows("comparison"):
        if row["metric"] not in DRAWN:
            continue
        marks = [ForestMark(str(view.facts.get(arm)), of_seeds(row, arm)) for arm in ("baseline", "treatment")]
        if any(mark.estimate.value is not None for mark in marks) and change(row).value is not None:
            panels.append(ForestPanel(f"{row['label']}   ({row['metric']})", row["unit"], marks))
    if not panels:
        return not_drawn("The comparison", "too few training seeds")
    return Picture("specialization_comparison", forest(panels), "Both arms over training seeds, mean over layers, 95% t intervals of each mean.",
                   "One panel per metric.")
