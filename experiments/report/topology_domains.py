"""Claim 1: what one domain's routing says of another's, the same between topics of one format, and which experts serve which domains.

D domain, E expert.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

from analysis.estimate import Estimate
from analysis.figures.topology_domains import Transfer, cross_domain_map, information_per_pair
from analysis.figures.topology_specialisation import (
    DomainExperts,
    Specialisation,
    domain_expert_map,
    most_and_least_specialised,
    specialisation_histogram,
)
from experiments.report.blocks import Block, Cell, Column, Paragraph, Picture, Table
from experiments.report.display import level_words
from experiments.report.topology_columns import Drawn, View, estimate_of, in_full, not_drawn, number_column, reason_column, why

MOST_PAIRS = 20
LISTED = 20  # seed 000, 2.C: top 20 most specialised and most general experts


def transfer_of(view: View, source: str, target: str) -> Estimate:
    """T(source to target), mean over adjacent layers."""
    for row in view.rows("cross_domain_mi"):
        if row["layer"] == "mean" and (row["source"], row["target"]) == (source, target):
            return estimate_of(row, "T", unit="bits")
    return Estimate.undefined(view.estimate("transfer_info").reason or "this pair was not computed", unit="bits")


def transfer(view: View) -> Transfer | None:
    """The matrix of ordered pairs; None below two domains or without a table."""
    names = view.domains
    rows = {(row["source"], row["target"]): estimate_of(row, "T", unit="bits") for row in view.rows("cross_domain_mi") if row["layer"] == "mean"}
    if len(names) < 2 or not any(rows.get((a, b)) for a in names for b in names):
        return None
    return Transfer([[rows.get((a, b)) for b in names] for a in names], names)


def map_picture(view: View) -> Drawn:
    """Heat map of transferred information."""
    shown = transfer(view)
    if shown is None:
        return not_drawn("The map of information across domains", view.estimate("transfer_info").reason)
    return Picture("cross_domain_mi", cross_domain_map(shown),
                   "Bits that a transition table fitted on one domain saves in coding the routing of another, over knowing the loads; the "
                   "diagonal is "
                   "what a domain's own table could save. Below zero the other domain's table misleads.", "Heat map over ordered pairs of domains.")


def pairs_picture(view: View) -> Drawn:
    """Bar per declared pair, both directions."""
    rows = view.rows("domain_pairs")
    if not rows:
        return not_drawn("Information per declared pair", view.estimate("transfer_info").reason)
    pairs = [(row["source"], row["target"]) for row in rows]
    bars, words = [estimate_of(row, unit="bits") for row in rows], "The pairs declared beforehand, in both directions."
    if not any({*pair} <= {*view.domains} for pair in pairs):
        pairs = list(permutations(view.domains, 2))[:MOST_PAIRS]
        bars = [transfer_of(view, *pair) for pair in pairs]
        words = "None of the pairs declared beforehand (topology.pairs) is in this trace: ordered pairs of its own domains instead."
    if not pairs:
        return not_drawn("Information per declared pair", view.estimate("transfer_info").reason)
    ceilings = [transfer_of(view, target, target) for _, target in pairs]
    return Picture("mi_per_pair", information_per_pair(pairs, bars, ceilings=ceilings),
                   f"{words} Red lines: 0 and the seed's 0.5 bits; green tick: the target's own information.", "Bars of transferred information.")


def naive_row(view: View) -> list[Cell]:
    """The seed's own cross-domain MI, which has no value."""
    one = view.estimate("cross_domain_naive_pairing")
    return ["any", "any", one, None, None, None, None, one.reason or ""]


def domains_table(view: View) -> Table:
    """Every ordered pair, mean over layers, with the seed's ill-posed form first."""
    rows = [naive_row(view)]
    for row in view.rows("cross_domain_mi"):
        if row["layer"] == "mean" and row["status"] != "ill_posed":
            rows.append([row["source"], row["target"], estimate_of(row, "T", unit="bits"), row["ratio"], row["type_aligned"], row["jsd_transition"],
                         row["jsd_load"], row["reason"] or ""])
    return Table("cross_domain_mi", "Information across domains, mean over adjacent MoE layers",
                 [Column("source"), Column("target"), number_column("T, bits [95% interval]"), Column("ratio", "number"),
                  Column("type-aligned", "number"), Column("JSD trans.", "number"), Column("JSD load", "number"),
                  reason_column()], rows,
                 in_full(rows, "Bits but for the ratio, T over what the target's own table saves, both from tables cut to one size: not the "
                         "quotient of numbers shown here. First row: the seed's MI(routing of A, routing of B), which pairs tokens that have "
                         "nothing to do with each other."))


def topics_blocks(view: View) -> list[Block]:
    """The control for domain = source format: the same between topics of one format."""
    one = view.estimate("transfer_info_topics")
    names = sorted({row["source"] for row in view.rows("wiki_topics")})
    head = Paragraph("Control for domain = source format. The domains of this corpus come in different formats; topics of one format (wiki) "
                     "differ "
                     "in what they are about and share a format. Where both are judged, what is lost between domains and not between topics points "
                     "to the format; a gated number says nothing of it.")
    if len(names) < 2:
        return [head, not_drawn("The map of topics", one.reason)]
    found = {(row["source"], row["target"]): estimate_of(row, unit="bits") for row in view.rows("wiki_topics")}
    shown = Transfer([[found.get((a, b)) for b in names] for a in names], names)
    return [head, Picture("wiki_topics", cross_domain_map(shown), "Transferred information between the topics of one format.",
                          "Heat map over ordered pairs of topics."), topics_table(view), Paragraph(groups_words(view), "note")]


def topics_table(view: View) -> Table:
    """Between domains and between groups of topics, the same numbers side by side."""
    named = (("T, mean over ordered pairs", "transfer_info"), ("T in the pair that decides", "transfer_info_min"),
             ("T of a table to itself", "transfer_info_within"), ("transfer ratio", "transfer_ratio"), ("type-aligned", "type_aligned_mi"),
             ("JSD of transitions", "jsd_transition"), ("JSD of loads", "jsd_load"))
    rows: list[list[Cell]] = [[words, view.estimate(name), view.estimate(f"wiki_{name}"), view.estimate(name).unit, _whose(view, name)]
                              for words, name in named]
    one = view.estimate("transfer_info_topics")
    rows.append(["T, every topic as it is", None, one, one.unit, why(one)])
    level = level_words([view.estimate(name) for _, name in named])
    return Table("wiki_topics_mean", "Between domains, and between topics of one format",
                 [Column("number"), number_column(f"domains [{level}]"), number_column(f"groups of topics [{level}]"), Column("unit"),
                  reason_column("undefined or gated because")], rows, in_full(rows))


def _whose(view: View, name: str) -> str:
    found = [(words, why(view.estimate(metric))) for words, metric in (("domains", name), ("topics", f"wiki_{name}"))]
    return "; ".join(f"{reason} ({words})" for words, reason in found if reason)


def groups_words(view: View) -> str:
    """Which topics were joined, and how many documents would spare it."""
    found = view.facts.get("topics") or {}
    documents, groups = found.get("documents") or {}, found.get("groups") or {}
    counted = ", ".join(f"{topic} {n}" for topic, n in documents.items())
    floor = found.get("floor", 0)
    joined = [f"{name} ({sum(documents[one] for one in topics)})" for name, topics in groups.items() if len(topics) > 1]
    small = sum(n < floor for n in documents.values())
    if not joined and not small:
        return f"Test documents by topic: {counted}."
    made = f" Topics with fewer than {floor} are joined by name, before any routing is looked at: {', '.join(joined)}." if joined else ""
    return f"Test documents by topic: {counted}.{made} {floor} of each of the {len(documents)} topics would let every one stand for itself."


def usage_picture(view: View) -> Drawn:
    """P(e|d) and affinity of the layer shown."""
    size, names = view.n_experts[view.shown], view.domains
    share, ratio = np.full((2, len(names), size), np.nan)
    for row in view.rows("domain_specialization"):
        if row["layer"] == view.shown and row["domain"] in names:
            at = (names.index(row["domain"]), row["expert"])
            share[at] = np.nan if row["p_e_given_d"] is None else row["p_e_given_d"]
            ratio[at] = row["affinity"] if row["affinity"] else np.nan
    if not np.isfinite(share).any():
        return not_drawn("The map of domains and experts", view.estimate("mi_E_D").reason)
    order = [row["expert"] for row in sorted((row for row in view.rows("clusters") if row["layer"] == view.shown and row["leaf_order"] >= 0),
                                             key=lambda row: row["leaf_order"])]
    return Picture("domain_specialization", domain_expert_map(DomainExperts(share, np.log2(ratio), names, order or None)),
                   f"Use of the experts by domain, {view.shown_words}; experts in the order of the dendrogram where there is one.",
                   "Heat maps of domains by experts.")


def specialisation(view: View) -> tuple[list[Estimate], list[str]]:
    """Specialisation of every expert of every layer, with its name."""
    rows = view.rows("expert_specialization")
    return [estimate_of(row) for row in rows], [f"L{row['layer']} E{row['expert']}" for row in rows]


def specialisation_pictures(view: View) -> list[Drawn]:
    """Distribution, and the most and the least specialised."""
    values, names = specialisation(view)
    if not any(one.value is not None for one in values):
        reason = next((one.reason for one in values), view.estimate("mi_E_D").reason)
        return [not_drawn("The distribution of specialisation", reason), not_drawn("The most and least specialised experts", reason)]
    drawn = view.columns("specialization_null").get("value")
    null = drawn if drawn is not None and len(drawn) else None
    return [Picture("specialisation_histogram", specialisation_histogram(Specialisation(values, null=null, names=names)),
                    "Specialisation of all experts of all layers: how far an expert's use is from being the same in every domain. Outline: the same "
                    "with the domain labels of documents permuted.",
                    "Histogram of specialisation."),
            Picture("specialisation_extremes", most_and_least_specialised(values, names, n=LISTED),
                    "The 20 most and the 20 least specialised experts. The largest of many are partly largest by chance: read the intervals.",
                    "Rows of experts with intervals.")]


def extremes_table(view: View) -> Table:
    """The 20 most and the 20 least specialised, with the seed's entropy."""
    rows = [row for row in view.rows("expert_specialization") if row["value"] is not None]
    rows.sort(key=lambda row: -row["value"])
    n_most = min(LISTED, -(-len(rows) // 2))
    chosen = [*rows[:n_most], *rows[n_most:][-LISTED:]]
    cells: list[list[Cell]] = [[row["layer"], row["expert"], estimate_of(row), row["load"], row["top_domain"], row["seed_entropy"],
                                row["reason"] or ""]
                               for row in chosen]
    return Table("specialisation_extremes", "Most and least specialised experts",
                 [Column("layer", "number"), Column("expert", "number"), number_column("specialisation [95% interval]"), Column("load", "number", 4),
                  Column("most in"), Column("seed's entropy", "number"), reason_column()], cells,
                 in_full(cells, "Seed's entropy, in bits, of an expert's use over domains: low for specialists, whatever the sampling noise."))
