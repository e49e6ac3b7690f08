"""Claim 2 between layers: the map of all pairs, against distance, per layer, where the information comes from, correlation, flows and pathways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.estimate import Estimate
from analysis.figures.sankey import Flows, sankey_figure
from analysis.figures.topology_decomposition import TermBars, decomposition_bars
from analysis.figures.topology_layers import CrossLayer, cross_layer_map, information_by_distance, information_per_layer
from analysis.figures.topology_pathways import CrossLayerPhi, Pathways, pathways, phi_map
from experiments.report.blocks import Block, Cell, Column, Paragraph, Picture, Table
from experiments.report.display import level_words
from experiments.report.topology_columns import Drawn, View, bare, estimate_of, head, in_full, mean_over, not_drawn, number_column, reason_column, why

TERMS = ("token identity", "position", "document", "residual")
TOP_SHARE = 0.1  # seed 000, 2.B: "High-correlation expert pathways (top 10%)"
LISTED = 12


def _reason(view: View) -> str | None:
    return view.estimate("mi_first_choice").reason


def cross_layer(view: View) -> CrossLayer | None:
    """Information of all pairs of layers for the maps; None without a pair."""
    pairs = view.rows("cross_layer_mi")
    if not pairs:
        return None
    size = view.n_layers
    information, excess = np.full((2, size, size), None, dtype=object)
    for row in pairs:
        a, b = row["layer_i"], row["layer_j"]
        information[a, b] = information[b, a] = estimate_of(row, unit="bits")
        excess[a, b] = excess[b, a] = estimate_of(row, "excess", "excess_low", "excess_high", "bits")
    entropy = {row["layer"]: row["entropy"] for row in view.rows("mi_by_layer")}
    return CrossLayer(information, [np.nan if entropy.get(i) is None else entropy[i] for i in range(size)], excess)


def map_picture(view: View) -> Drawn:
    """Heat map of all pairs of layers."""
    shown = cross_layer(view)
    if shown is None:
        return not_drawn("The map of information between layers", _reason(view))
    return Picture("cross_layer_mi", cross_layer_map(shown),
                   "Information between the first choices of all pairs of MoE layers, jackknife-corrected, and what is left of it beyond circular "
                   "shifts inside documents, positions from 4 on. The diagonal is the entropy of a layer, the most that any other layer could "
                   "tell of it.",
                   "Heat map of mutual information, layer by layer.")


def distance_picture(view: View) -> Drawn:
    """Information against the distance of layers."""
    rows = view.rows("mi_by_distance")
    if not rows:
        return not_drawn("Information against distance", _reason(view))
    distances = [row["distance"] for row in rows]
    pairs = view.rows("cross_layer_mi")
    series: dict[str, Sequence[Estimate | None]] = {"I(first choices)": [estimate_of(row, unit="bits") for row in rows]}
    for name, column in (("excess over circular shift", "excess"), ("given the token type", "given_type")):
        means = [_mean(pairs, column, distance) for distance in distances]
        if any(one is not None and one.value is not None for one in means):
            series[name] = means
    types = [row["distance"] for row in pairs if row["given_type"] is not None]
    near = ("" if not types or set(distances) <= set(types) else
            " On a trace of this size the form given the token type is made for adjacent layers alone.")
    return Picture("mi_by_distance", information_by_distance(series, distances, bound=1.5),
                   "Mean over the pairs of layers at each distance, with the seed's bound of 1.5 bits. A point without a bar has no interval of "
                   f"its own.{near}",
                   "Lines of information against layer distance.")


def _mean(pairs: Sequence[Mapping[str, object]], column: str, distance: int) -> Estimate | None:
    chosen = [estimate_of(row, column, f"{column}_low", f"{column}_high", "bits") for row in pairs if row["distance"] == distance]
    known = [one for one in chosen if one.value is not None]
    return mean_over(known) if known else None


def per_layer_picture(view: View) -> Drawn:
    """Bar per layer."""
    rows = view.rows("mi_by_layer")
    if not rows or not view.rows("cross_layer_mi"):
        return not_drawn("Information per layer", _reason(view))
    entropy = [np.nan if row["entropy"] is None else row["entropy"] for row in rows]
    return Picture("mi_by_layer", information_per_layer([estimate_of(row, unit="bits") for row in rows], entropy),
                   "Mean information of each layer with all others, inside its entropy.", "Bars of information per layer.")


def decomposition_picture(view: View) -> Drawn:
    """Sources of the information in both orders."""
    forward = {name: view.estimate(f"mi_of_{name.replace(' ', '_')}") for name in TERMS}
    reverse = {name: view.estimate(f"mi_of_{name.replace(' ', '_')}_reverse") for name in ("document", "position", "token identity", "residual")}
    if all(one.value is None for one in [*forward.values(), *reverse.values()]):
        return not_drawn("The decomposition", forward["residual"].reason)
    by_pair: dict[str, list[Estimate | None]] = {}
    for row in view.rows("decomposition"):
        if row["order"] == "token first" and row["layer_i"] >= 0:
            by_pair.setdefault(row["term"], []).append(estimate_of(row, unit="bits"))
    several = max((len(one) for one in by_pair.values()), default=0) > 1
    parts = [one.value for one in forward.values()]
    total = bare(sum(parts), "bits") if all(part is not None for part in parts) else None  # type: ignore[arg-type]
    bars = TermBars(forward, reverse, total, by_pair if several else None, view.facts.get("decomposition_left_out"))
    return Picture("decomposition", decomposition_bars(bars),
                   "Where the information between adjacent layers comes from: shuffles inside ever finer strata. Only the residual is coupling "
                   "of the "
                   "layers themselves, beyond what token, position and document bring. The terms add up to the information of the tokens that have "
                   "a partner in their stratum, not to that of all tokens.", "Bars of the four sources in two orders.")


def given_table(view: View) -> Table:
    """Information between adjacent layers asked in other ways, and by the seed's formula."""
    seed = view.facts.get("seed_rule", {}).get("cross_layer_mi")
    named = (("I(first choices), jackknife: judged", "mi_first_choice"),
             ("beyond circular shifts inside documents, positions from 4 on: judged", "mi_excess"),
             ("the same inside bands of position", "mi_excess_banded"),
             ("given the token type", "mi_given_type"), ("share of the later layer's entropy", "u"))
    rows: list[list[Cell]] = [[words, view.estimate(name), view.estimate(name).unit, why(view.estimate(name))] for words, name in named]
    rows.append(["seed's form: plug-in, no correction, no null", bare(seed, "bits"), "bits", "biased upward"])
    return Table("cross_layer_variants", "Information between adjacent layers, asked in several ways",
                 [Column("question"), number_column(f"estimate [{level_words(view.estimate(name) for _, name in named)}]"), Column("unit"),
                  reason_column("remark")], rows, in_full(rows))


def pair_table(view: View) -> Table:
    """Every pair of layers in the report, the first ones of a deep model."""
    rows: list[list[Cell]] = [[row["layer_i"], row["layer_j"], estimate_of(row, unit="bits"), row["plug_in"], row["null"],
             estimate_of(row, "excess", "excess_low", "excess_high", "bits"), row["given_type"], row["status"], row["reason"] or ""]
            for row in view.rows("cross_layer_mi")]
    table = Table("cross_layer_mi", "Information between all pairs of layers (bits)",
                  [Column("layer", "number"), Column("layer'", "number"), number_column("I [95% interval]"),
                   Column("plug-in: seed", "number"), Column("shifted", "number"), number_column("excess [95% interval]"),
                   Column("given type", "number"), Column("status"), reason_column()], rows,
                  in_full(rows, "I: jackknife, all positions. Shifted: mean under circular shifts inside documents. It and the excess are of "
                                "positions from 4 on, so that they do not add up to I."))
    return table if len(rows) <= 2 * LISTED else head(table, n_rows=LISTED)


def _joint(view: View, column: str, layer: int, fill: float) -> np.ndarray | None:
    found = view.columns("cross_layer_correlation")
    if layer + 1 >= view.n_layers or not len(found.get("phi", ())):
        return None
    mine = (found["layer_i"] == layer) & (found["layer_j"] == layer + 1)
    if not mine.any():
        return None
    out = np.full((view.n_experts[layer], view.n_experts[layer + 1]), fill)
    out[found["i"][mine].astype(np.int64), found["j"][mine].astype(np.int64)] = found[column][mine]
    return out


def phi_picture(view: View) -> Drawn:
    """Correlation between the experts of the layer shown and the next (the one before, for the last)."""
    layer = max(0, min(view.shown, view.n_layers - 2))
    phi = _joint(view, "phi", layer, float("nan"))
    if phi is None:
        return not_drawn("The correlation of experts of two layers", view.estimate("phi_edges_published").reason)
    kept = _joint(view, "published", layer, 0.0)
    assert kept is not None
    few = "" if _all_listed(view) else " Only the strongest pairs of experts are listed; the others are grey."
    shown = CrossLayerPhi(phi, (str(layer), str(layer + 1)), kept > 0, absent="not listed, or undefined" if few else "")
    return Picture("cross_layer_correlation", phi_map(shown),
                   f"Correlation of being the first choice at layer {layer} and at layer {layer + 1}.{few} Published edges pass |\u03c6| "
                   "\u2265 0.1 and false-discovery control under circular shifts.", "Heat map of phi, expert by expert.")


def _all_listed(view: View) -> bool:
    """Whether the table of expert pairs has every pair, or only the strongest of a large trace."""
    return all(edge.get("whole", True) for edge in view.facts.get("edges", ()))


def flows(view: View) -> Flows | None:
    """Tokens by expert of adjacent layers, for the Sankey diagram; None without flows, or where not all of them are listed."""
    if not _all_listed(view):
        return None
    tables = [_joint(view, "n", layer, 0.0) for layer in range(view.n_layers - 1)]
    known = [table for table in tables if table is not None]
    if not known or len(known) < len(tables):
        return None
    return Flows(known)


def sankey_picture(view: View) -> Drawn:
    """Flows between adjacent layers, for print."""
    shown = flows(view)
    if shown is None:
        why = view.estimate("phi_edges_published").reason if _all_listed(view) else "layers and experts are too many to list every flow"
        return not_drawn("The flow of tokens", why)
    return Picture("cross_layer_sankey", sankey_figure(shown), "Flow of tokens between the first choices of adjacent layers, as bands.",
                   "Bands between columns of experts.")


def pathway_picture(view: View) -> Drawn:
    """Published edges between adjacent layers; the seed's top tenth, so marked, where none is published."""
    found = view.columns("cross_layer_correlation")
    if not len(found.get("phi", ())):
        return not_drawn("The pathways", view.estimate("phi_edges_published").reason)
    keep, words = found["published"] > 0, "Edges with |\u03c6| \u2265 0.1 and q < 0.05."
    if not keep.any():
        keep, words = _top_tenth(view, found), ("No edge passes false-discovery control; these are the seed's top 10% by |\u03c6|, which exist "
                                                "in pure noise too.")
    shown = Pathways(found["layer_i"][keep], found["i"][keep], found["j"][keep], found["phi"][keep], view.n_experts, words)
    return Picture("pathways", pathways(shown), f"Pathways of experts through the layers. {words}", "Edges between experts of adjacent layers.")


def _top_tenth(view: View, found: Mapping[str, np.ndarray]) -> np.ndarray:
    keep = np.zeros(len(found["phi"]), np.bool_)
    strength = np.abs(found["phi"].astype(np.float64))
    for layer in range(view.n_layers - 1):
        mine = np.flatnonzero(found["layer_i"] == layer)
        n = round(TOP_SHARE * view.n_experts[layer] * view.n_experts[layer + 1])
        keep[mine[np.argsort(-strength[mine], kind="stable")[:n]]] = True
    return keep


def edges_table(view: View) -> Table:
    """What was published between each pair of adjacent layers, and how many shifts that would need at least."""
    rows: list[list[Cell]] = [[f"{one['layers'][0]}, {one['layers'][1]}", one["published"], one["testable"], one["shifts"],
                               one["shifts_for_one_edge"],
             one.get("reason") or ("fewer shifts than one edge alone would need: only edges that come in numbers can be published"
                                   if one["shifts"] < one["shifts_for_one_edge"] else "")] for one in view.facts.get("edges", ())]
    return Table("edges", "Published edges between adjacent layers",
                 [Column("layers"), Column("published", "number"), Column("pairs tested", "number"), Column("shifts", "number"),
                  Column("shifts for one edge", "number"), Column("remark")], rows)


def chains_table(view: View) -> Table | None:
    """The heaviest chains, published and the seed's; None without any."""
    chains: dict[tuple[str, int], list[dict[str, object]]] = {}
    for row in view.rows("pathways"):
        chains.setdefault((row["kind"], row["pathway"]), []).append(row)
    rows: list[list[Cell]] = []
    for (kind, number), steps in chains.items():
        if number < LISTED:
            words = " \u2192 ".join(f"{step['layer']}:E{step['expert']}" for step in steps)
            rows.append(["seed's top 10%, no test" if kind == "seed" else kind, words, float(str(steps[0]["weight"]))])
    if not rows:
        return None
    return Table("pathways", "Heaviest chains of experts (layer:expert)", [Column("edges"), Column("chain"), Column("weight", "number")], rows,
                 "Every edge is about two layers; no token need take a whole chain.")


def blocks(view: View) -> list[Block]:
    """Everything between layers, in order."""
    chains = chains_table(view)
    return [Paragraph("Is there structure from layer to layer, and is it more than tokens and documents bring along?", "body"),
            map_picture(view), distance_picture(view), per_layer_picture(view), given_table(view), pair_table(view), decomposition_picture(view),
            phi_picture(view), edges_table(view), pathway_picture(view), *([chains] if chains else []), sankey_picture(view)]
