"""Experts and domains (seed 002, Parts 3 to 8): use by domain, tests by layer, specialists, the most separated layers, entropy of each domain.

D domain, E expert, L MoE layer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import Estimate
from analysis.figures.atlas_domains import DomainMap, Separation, domain_entropies, domain_maps, expert_kinds, separation_by_layer
from analysis.figures.topology_specialisation import DomainExperts, domain_expert_map
from analysis.figures.words import p_value
from experiments.report.atlas_view import cell, depth_names, depths, layer_words, of_layer
from experiments.report.blocks import Block, Cell, Column, Paragraph, Picture, Table
from experiments.report.topology_columns import Drawn, View, estimate_of, in_full, not_drawn, number_column, reason_column

KINDS = ("specialist", "generalist", "undetermined", "unused")
LISTED = 40
NAIVE = "naive: tokens as if independent"


def _one_domain(view: View) -> str:
    return str(view.estimate("mi_E_D").reason or view.facts.get("experts_reason") or "no_data: one domain")


def use_picture(view: View) -> Drawn:
    """Domain by expert at the layer shown (Part 3): shares and affinity."""
    share = shares_of(view, view.shown)
    if not np.isfinite(share).any():
        return not_drawn("The map of domains and experts", _one_domain(view))
    mean = share.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        affinity = np.where((share > 0) & (mean > 0), np.log2(share / mean), np.nan)
    return Picture("domain_experts", domain_expert_map(DomainExperts(share, affinity, domain_names(view))),
                   f"Use of the experts by domain, {layer_words(view, view.shown)}: share of a domain's choices, and how far it is from the mean of "
                   "all domains.", "Heat maps of domains by experts.")


def top_table(view: View) -> Table:
    """The five most used experts of each domain at the layer shown (Part 3)."""
    rows: list[list[Cell]] = []
    for row in of_layer(view, "top_experts", view.shown):
        rows.append([row["domain"], row["experts"], row["share_seed"], cell_of(row), row["reason"] or ""])
    fitted = Column("share, cross-fitted [95%]", "estimate", 1, percent=True, brief=True)
    return Table("top_experts", f"The five most used experts of each domain, {layer_words(view, view.shown)}",
                 [Column("domain"), Column("experts"), Column("seed: their share", "number", 1, True), fitted, reason_column()], rows,
                 in_full(rows, "The seed counts the five largest on the tokens that made them largest, which is above 5/E without any preference; "
                         "cross-fitted: picked on half of the documents, counted on the other."))


def cell_of(row: dict[str, object]) -> Estimate:
    """The share of a row with its interval."""
    return estimate_of(row, "share", "low", "high", "share")


def separation_picture(view: View) -> Drawn:
    """Parts 4 and 6: naive and clustered tests, information and strength by layer."""
    rows = view.rows("association")
    if not rows:
        return not_drawn("The separation of domains by layer", _one_domain(view))
    p = np.array([np.nan if row["p"] is None else row["p"] for row in rows])
    with np.errstate(divide="ignore"):
        log_p = np.log10(np.where(p > 0, p, np.nan))
    draws = max(row["n_draws"] for row in rows)
    least = 1 / (draws + 1) if draws and not any(row["exact"] for row in rows) and any(row["read"] == "permutation" for row in rows) else None
    shown = Separation(depths(view), [np.nan if row["log10_p_seed"] is None else row["log10_p_seed"] for row in rows], log_p,
                       [cell(_gated(row), "mi", "bits") for row in rows], [cell(_gated(row), "V") for row in rows], least)
    return Picture("domain_separation", separation_by_layer(shown),
                   "Do the domains use different experts? The seed's test (a) beside the one that permutes documents (b), and how strong the "
                   "association is (c, d), with intervals over documents.", "Four panels over layers.")


def _gated(row: dict[str, object]) -> dict[str, object]:
    return {**row, "status": "gated" if row["gate"] else "estimated", "reason": row["gate"] or ""}


def tests_table(view: View) -> Table:
    """Every layer: the seed's chi-square and p, marked naive, beside the clustered test."""
    names = depth_names(view)
    rows: list[list[Cell]] = [[names[row["layer"]], row["chi2_seed"], row["df"], _p(row["p_seed"], row["log10_p_seed"]), _p(row["p"], None),
                               _p(row["q"], None), row["read"].replace("_", "-") or "none", row["reason"] or ""] for row in view.rows("association")]
    return Table("association_tests", "Tests of association of expert and domain by layer",
                 [Column("layer"), Column("seed: chi-square", "number", 1), Column("df", "number"), Column("seed: p (naive)"), Column("clustered p"),
                  Column("q (BH)"), Column("test"), reason_column()], rows,
                 in_full(rows, "Chi-square values compare only layers of equal selections and active experts. Clustered: permutation of document "
                         "labels, or Rao-Scott where documents of one domain spread more than twice as much as another's; q over the layers, "
                         "exploratory."))


def association_table(view: View) -> Table:
    """Every layer: strength and information with intervals, beside the seed's plug-in."""
    names = depth_names(view)
    rows: list[list[Cell]] = []
    for row in view.rows("association"):
        shown = _gated(row)
        rows.append([names[row["layer"]], row["V_seed"], cell(shown, "V"), row["mi_seed"], cell(shown, "mi"), _tiny(row["avg_variance_seed"]),
                     _tiny(row["avg_variance"]), row["gate"] or ""])
    return Table("association", "Strength of association by layer",
                 [Column("layer"), Column("seed: V", "number"), number_column("V [95%]"), Column("seed: I(E;D)", "number"),
                  number_column("I(E;D), bits [95%]"), Column("seed: variance", "number"), Column("ours", "number"), reason_column()], rows,
                 in_full(rows, "Seed: the plug-in, which sampling noise of documents enlarges. Variance, ×1e4: of P(e|d) over domains; ours is less "
                         "what documents of one domain vary by."))


def _p(p: float | None, log10: float | None) -> str:
    if p is None:
        return "none"
    return p_value(p).removeprefix("p = ") if p >= 1e-300 or log10 is None else f"1e\u2212{-log10:.0f}"


def _tiny(value: float | None) -> Cell:
    return None if value is None else 1e4 * value


def kinds_picture(view: View) -> Drawn:
    """Part 5: experts of each layer by what their interval says."""
    rows = view.rows("experts")
    if not rows:
        return not_drawn("Specialists and generalists", _one_domain(view))
    counted = [(kind, [sum(row["layer"] == number and row["label"] == kind for row in rows) for number in range(view.n_layers)]) for kind in KINDS]
    return Picture("expert_kinds", expert_kinds(depth_names(view), counted),
                   "Experts of each layer: specialists (interval of specialisation above 0.1, q below 0.05), generalists (interval below 0.02), the "
                   "rest undetermined. Dashes: the quarter that the seed's quantiles call specialists, whatever the data.",
                   "Stacked bars over layers.")


def specialists_table(view: View) -> Table | Paragraph:
    """The specialists with the largest lower end, with both shares that the seed confuses."""
    names = depth_names(view)
    found = [row for row in view.rows("experts") if row["label"] == "specialist"]
    if not found:
        return Paragraph("No expert is a specialist by its interval.", "note")
    found.sort(key=lambda row: -(row["low"] or 0.0))
    rows: list[list[Cell]] = [[names[row["layer"]], row["expert"], row["domain"], estimate_of(row), row["q"], row["p_e_given_d"], row["p_d_given_e"],
                               row["load"], row["cv_seed"], row["label_seed"] or "neither"] for row in found[:LISTED]]
    more = f" ({LISTED} of {len(found)}; all in tables/experts_all.csv)" if len(found) > LISTED else ""
    return Table("specialists", f"Specialists: {len(found)} experts{more}",
                 [Column("layer"), Column("expert", "number"), Column("domain"), number_column("specialisation [95%]"), Column("q", "number", 4),
                  Column("P(e|d)", "number", 1, True), Column("P(d|e)", "number", 1, True), Column("load", "number", 1, True),
                  Column("seed: CV", "number"), Column("seed: class")], rows,
                 "P(e|d): share of the domain's choices that go to the expert, which the seed prints as “% of its usage”; P(d|e): share of the "
                 "expert's use that is the domain's, domains of equal weight. The seed's CV is of raw counts, which follow the token budgets.")


def experts_table(view: View) -> Table:
    """All experts, for the CSV; the page shows how many of each kind."""
    rows: list[list[Cell]] = []
    for kind in KINDS:
        mine = [row for row in view.rows("experts") if row["label"] == kind]
        seed = sum(row["label_seed"] == kind for row in mine)
        rows.append([kind, len(mine), seed if kind in ("specialist", "generalist") else None,
                     next((row["reason"] for row in mine if row["reason"]), "")])
    return Table("expert_kinds", "Kinds of experts over all layers",
                 [Column("kind"), Column("experts", "number"), Column("of them the seed's too", "number"), reason_column()], rows, in_full(rows))


def shares_of(view: View, number: int) -> NDArray[np.float64]:
    """P(e|d) [D, E] of a layer."""
    names = domain_names(view)
    out = np.full((len(names), view.n_experts[number]), np.nan)
    for row in of_layer(view, "domain_specialization", number):
        if row["p_e_given_d"] is not None:
            out[names.index(row["domain"]), row["expert"]] = row["p_e_given_d"]
    return out


def domain_names(view: View) -> list[str]:
    """Domains of the description, in order."""
    return [row["domain"] for row in view.rows("overview")]


def separated_picture(view: View) -> Drawn:
    """The five most separated layers (Part 6), by I(E;D)."""
    layers = [int(one) for one in view.facts.get("separated", ())]
    if not layers:
        return not_drawn("The most separated layers", _one_domain(view))
    seed = [depth_names(view)[int(one)] for one in view.facts.get("separated_seed", ())]
    maps = [DomainMap(f"Layer {depth_names(view)[number]}", shares_of(view, number), domain_names(view)) for number in layers]
    return Picture("separated_layers", domain_maps(maps),
                   f"The layers in which experts tell most of the domain, by I(E;D). By the seed's chi-square: {', '.join(seed)}. The largest of "
                   "many layers are largest partly by chance.", "Heat maps of domains by experts, one for each of five layers.")


def components_picture(view: View) -> Drawn:
    """Part 7: the components of the most separated layer, where a source recorded them and they differ."""
    rows = view.rows("components")
    details = view.content.trace.meta.details
    differ = any(one.get("components", {}).get("differences") for one in (details, *details.get("imported", ())))
    if not rows and differ:
        return not_drawn("Use by component (Part 7)", view.facts.get("components_reason"))
    if not rows:
        return Paragraph("Components (Part 7): this trace holds one routing decision a layer, which gate, up and down share; there is nothing to "
                         "compare.", "note")
    layers = [int(one) for one in view.facts.get("separated", ())] or [view.shown]
    layer = next((one for one in layers if any(row["layer"] == one for row in rows)), int(rows[0]["layer"]))
    names, maps = domain_names(view), []
    for component in dict.fromkeys(row["component"] for row in rows if row["layer"] == layer):
        n = np.zeros((len(names), view.n_experts[layer]))
        for row in (one for one in rows if one["layer"] == layer and one["component"] == component):
            n[names.index(row["domain"]), row["expert"]] = row["n"]
        total = n.sum(axis=1, keepdims=True)
        share = np.divide(n, total, out=np.full(n.shape, np.nan), where=total > 0)
        maps.append(DomainMap(f"Layer {depth_names(view)[layer]}, {component}", share, names))
    name = f"layer_{depth_names(view)[layer].replace(' ', '_')}_all_components"
    return Picture(name, domain_maps(maps), "Use by domain as each component recorded it; the components differ in this trace.",
                   "One heat map for each component.")


def entropy_blocks(view: View) -> list[Block]:
    """Part 8: does some domain use fewer experts?"""
    rows = view.rows("domain_entropy")
    names = domain_names(view)
    found = [[estimate_of(row, unit="bits") for row in rows if row["domain"] == name] for name in names]
    if not rows or not found or not found[0]:
        return [not_drawn("Entropy by domain", "no_data: no selections")]
    one_line = len(names) > 8
    shown = [[layers[view.shown]] for layers in found] if one_line else found
    where = [depths(view)[view.shown]] if one_line else depths(view)
    picture = Picture("domain_entropy", domain_entropies(shown, names, where, float(np.log2(max(view.n_experts)))),
                      f"Entropy of each domain's use of the experts{f', {layer_words(view, view.shown)}' if one_line else ''}: low where few experts "
                      "do the work.", "Entropy by domain.")
    table: list[list[Cell]] = [[row["domain"], estimate_of(row, unit="bits"), row["seed"], row["reason"] or ""]
                               for row in of_layer(view, "domain_entropy", view.shown)]
    pairs = sorted((row for row in of_layer(view, "entropy_differences", view.shown) if row["value"] is not None), key=lambda row: -abs(row["value"]))
    differing: list[list[Cell]] = [[f"{row['first']} \u2212 {row['second']}", estimate_of({**row, "status": ""}, unit="bits"),
                                    _p(row["p_adjusted"], None)] for row in pairs[:10]]
    blocks: list[Block] = [picture, Table("domain_entropy", f"Entropy by domain, {layer_words(view, view.shown)}",
                                          [Column("domain"), number_column("entropy, bits [95%]"), Column("seed: plug-in", "number"),
                                           reason_column()], table, in_full(table))]
    if differing:
        blocks.append(Table("entropy_differences", f"Largest differences of entropy between domains, {layer_words(view, view.shown)}",
                            [Column("domains"), number_column("difference, bits [95%]"), Column("p, Holm over all pairs")], differing))
    return blocks


def domain_blocks(view: View) -> list[Block]:
    """Parts 3, 5 and 8."""
    return [Paragraph("Which experts are used in each domain, and which of them keep to one? P(e|d) is the share of a domain's choices that go to an "
                      "expert; every domain has the same weight, whatever its number of tokens."),
            use_picture(view), top_table(view), kinds_picture(view), experts_table(view), specialists_table(view), *entropy_blocks(view)]


def layer_blocks(view: View) -> list[Block]:
    """Parts 4, 6 and 7."""
    test = view.estimate("association_p")
    words = (f"Over all layers, the association of expert and domain has p = {test.value:.2g} ({test.method})." if test.value is not None else
             f"Over all layers there is no test: {test.reason}.")
    tables: list[Block] = [tests_table(view), association_table(view)] if view.rows("association") else []
    told = dict.fromkeys(caveat for row in view.rows("association") for caveat in str(row["caveats"]).split(" | ") if caveat)
    words_of = [Paragraph(f"{caveat.replace('_', ' ', 1)[0].upper()}{caveat.replace('_', ' ', 1)[1:]}.", "note") for caveat in told]
    return [Paragraph(words, "body" if test.value is not None else "warning"), separation_picture(view), *words_of, *tables,
            separated_picture(view), components_picture(view)]
