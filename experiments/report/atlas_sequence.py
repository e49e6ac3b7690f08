"""Experts along a document (seed 001; seed 002, Part 9): repetition, transitions, persistence, timeline and selection traces.

E expert, L MoE layer.
"""

from __future__ import annotations

import numpy as np

from analysis.figures.atlas_sequence import SelectionTrace, repetition_by_layer, selection_traces, usage_timeline
from analysis.figures.topology_temporal import transition_map
from experiments.report.atlas_view import depth_names, depths, layer_words, of_layer, picked
from experiments.report.blocks import Block, Cell, Column, Paragraph, Picture, Table
from experiments.report.topology_columns import Drawn, View, estimate_of, in_full, not_drawn, number_column, reason_column
from experiments.report.topology_sequence import chain_picture, lag_picture, lag_table

SEED_STICKY = 0.2  # seed 002, Part 9
FORMS = (("first choice", "repetition_first"), ("first or second choice", "repetition_any"), ("first choice, beyond the composition of documents",
                                                                                             "repetition_order"))


def _reason(view: View) -> str | None:
    return view.estimate("repetition_first_higher").reason or view.estimate("lag_kappa").reason


def few_layers(view: View) -> list[int]:
    """First, middle and last layer."""
    return sorted({0, view.n_layers // 2, view.n_layers - 1})


def repetition_picture(view: View, bound: float | None = None) -> Drawn:
    """Repetition of neighbouring tokens beyond chance, by layer."""
    found = view.content.evaluation.by_layer
    lines = [(words, found[name]) for words, name in FORMS if name in found and any(one.value is not None for one in found[name])]
    if not lines:
        return not_drawn("Repetition by layer", _reason(view))
    return Picture("repetition", repetition_by_layer(lines, depths(view), bound),
                   "How much more often than chance a token goes to an expert of the token before it, mean over domains, with intervals over "
                   "documents.",
                   "Lines over layers.")


def repetition_tables(view: View) -> list[Block]:
    """In the form of Mixtral's Table 5: per domain at the first, middle and last layer, with the chance levels; a table for each form."""
    names = depth_names(view)
    blocks: list[Block] = []
    for form, of in (("first choice", "first_choice"), ("first or second", "first_or_second")):
        rows: list[list[Cell]] = []
        even = ""
        for number in few_layers(view):
            for row in (one for one in of_layer(view, "repetition", number) if one["form"] == form):
                rows.append([names[number], row["domain"], row["share"], row["chance"], row["shuffled"], estimate_of({**row, "value": row["kappa"]}),
                             row["n_pairs"], row["reason"] or ""])
                even = f"{100 * row['even_chance']:.1f}%"
        if rows:
            blocks.append(_repetition_table(form, of, rows, even))
    return blocks


def _repetition_table(form: str, name: str, rows: list[list[Cell]], even: str) -> Table:
    return Table(f"repetition_{name}", f"Neighbouring tokens with the same expert, {form}, as in Mixtral's Table 5 (first, middle, last MoE layer)",
                 [Column("layer"), Column("domain"), Column("repeat", "number", 1, True), Column("chance from loads", "number", 1, True),
                  Column("documents shuffled", "number", 1, True), number_column("beyond chance, kappa [95%]"), Column("token pairs", "number"),
                  reason_column()], rows,
                 in_full(rows, f"Even chance, which paper and seed compare with, is {even} in the last layer shown; uneven loads alone raise "
                         "repetition above it. Documents shuffled: what the composition of documents brings without any order."))


def persistence_table(view: View) -> Table:
    """Seed 001's transition rate, persistence and transition diversity, and seed 002's lag-1 rule."""
    names = depth_names(view)
    rows: list[list[Cell]] = []
    for number in range(view.n_layers):
        mine = of_layer(view, "sequence", number)
        rate, kappa, bits, same, overlap = (picked(mine, "statistic", name) for name in (
            "transition_rate", "lag_kappa", "transition_diversity", "same_expert", "lag_overlap_kappa"))
        share = None if same is None else same["seed"]
        verdict = "" if share is None else f"{'sticky' if share > SEED_STICKY else 'switches'} ({100 * share:.1f}%)"
        rows.append([names[number], estimate_of(rate), estimate_of(kappa), estimate_of(bits), estimate_of(overlap), verdict,
                     "" if kappa is None else kappa["reason"] or ""])
    return Table("persistence", "Transitions between neighbouring tokens by layer",
                 [Column("layer"), number_column("transition rate [95%]"), number_column("persistence, kappa [95%]"),
                  number_column("transition diversity, bits [95%]"), number_column("sets, kappa [95%]"), Column("seed: P(same) > 20%"),
                  reason_column()], rows,
                 in_full(rows, f"Persistence is kappa: agreement beyond what the loads give. The seed compares P(same) with 1/E = "
                         f"{100 / view.n_experts[0]:.1f}% and calls it sticky above 20%, whatever the loads."))


def by_type_table(view: View) -> Table:
    """Agreement where the next token is of the same type, and where it is not."""
    names = depth_names(view)
    rows: list[list[Cell]] = []
    for number in few_layers(view):
        for row in of_layer(view, "repeats_by_type", number):
            rows.append([names[number], row["next_type"], estimate_of(row, "kappa"), row["n_pairs"], row["reason"] or ""])
    return Table("repeats_by_type", "Persistence by whether the next token is of the same type",
                 [Column("layer"), Column("next token"), number_column("kappa [95%]"), Column("token pairs", "number"), reason_column()], rows,
                 in_full(rows, "Repeats of a token type inflate stickiness: the same token tends to the same expert."))


def transition_picture(view: View) -> Drawn:
    """Seed 001's expert_transition_heatmap."""
    p = view.square("transition_matrix", "p", view.shown)
    if not np.isfinite(p).any():
        return not_drawn("The transition heat map", _reason(view))
    return Picture("expert_transition_heatmap", transition_map(p),
                   f"Expert of the next token given that of this token, {layer_words(view, view.shown)}.", "Heat map of transition probabilities.")


def timeline_picture(view: View) -> Drawn:
    """Seed 001's expert_usage_timeline."""
    shares, titles, bins = [], [], []
    for number in few_layers(view):
        rows = of_layer(view, "timeline", number)
        if not rows:
            return not_drawn("The timeline", _reason(view))
        starts = sorted({row["start"] for row in rows})
        share = np.full((len(starts), view.n_experts[number]), np.nan)
        for row in rows:
            share[starts.index(row["start"]), row["expert"]] = np.nan if row["share"] is None else row["share"]
        shares.append(share)
        titles.append(f"Layer {depth_names(view)[number]}")
        bins = [str(start) for start in starts]
    return Picture("expert_usage_timeline", usage_timeline(shares, titles, bins),
                   "Use of the experts from the beginning of a document to its end, all documents together; later positions rest on fewer documents.",
                   "Heat maps of experts by position.")


def traces_picture(view: View) -> Drawn:
    """Seed 001's expert_selection_traces."""
    rows = view.rows("sample_paths")
    samples = list(dict.fromkeys((row["sample"], row["domain"]) for row in rows))
    if not samples:
        return not_drawn("Selection traces", _reason(view))
    panels = []
    for sample, domain in samples:
        mine = [row for row in rows if row["sample"] == sample]
        panels.append([SelectionTrace(f"{domain}, layer {depth_names(view)[number]}", [row["position"] for row in mine if row["layer"] == number],
                                      [row["expert"] for row in mine if row["layer"] == number]) for number in few_layers(view)])
    return Picture("expert_selection_traces", selection_traces(panels, max(view.n_experts)),
                   f"First choices along the beginning of {len(samples)} documents, at the first, middle and last MoE layer.",
                   "Small panels of experts by position.")


def blocks(view: View) -> list[Block]:
    """Everything along documents."""
    reason = view.estimate("lag_kappa").reason
    if not view.rows("repetition"):
        return [Paragraph(f"Nothing can be said along documents: {reason}.", "warning")]
    return [Paragraph("Does a token's expert tell of the next token's? Chance is not 1/E: experts that are used more repeat more without any order, "
                      "and documents that use few experts repeat them in any order."),
            repetition_picture(view), *repetition_tables(view), persistence_table(view), by_type_table(view), lag_picture(view),
            lag_table(view, "atlas/tables/autocorrelation.csv"),
            transition_picture(view), chain_picture(view), timeline_picture(view), traces_picture(view)]
