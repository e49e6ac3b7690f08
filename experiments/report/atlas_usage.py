"""How many selections there are, and how the experts of each layer share them (seed 001; seed 002, Part 2).

L MoE layer, E expert.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.figures.atlas_usage import LayerStatistic, comparative_statistics, load_map
from experiments.report.atlas_view import depth_names, depths, picked, statistic
from experiments.report.blocks import Block, Cell, Column, Paragraph, Picture, Table
from experiments.report.topology_columns import Drawn, View, bare, estimate_of, in_full, not_drawn, number_column, reason_column, why

COMPARED = (("usage_entropy_bits", "Entropy of the loads", "bits"), ("usage_cv", "Coefficient of variation", "std / mean"),
            ("usage_active", "Experts in use", "experts"), ("usage_gini", "Gini coefficient", "0 even, 1 one expert"),
            ("usage_skewness", "Skewness of the loads", "skewness"), ("usage_max_violation", "Busiest expert over even load", "ratio - 1"))
SHAPES = ("usage_skewness", "usage_kurtosis")
BLOCKS_NAMED = 8
COUNTS_SCALE = ("usage_active", "usage_mean", "usage_std", "usage_median", "usage_min", "usage_max", "usage_q25", "usage_q75", "usage_iqr", *SHAPES)


def overview_blocks(view: View) -> list[Block]:
    """Seed 002, Part 2: what the data are."""
    facts, meta = view.facts, view.content.trace.meta
    rows = view.rows("overview")
    per_layer = dict.fromkeys(range(view.n_layers), 0)
    for row in view.rows("loads"):
        per_layer[row["layer"]] += row["n"]
    ids = [row["expert"] for row in view.rows("loads") if row["n"]]
    components = [one.get("components", {}).get("recorded", ()) for one in (meta.details, *meta.details.get("imported", ()))]
    recorded = ", ".join(dict.fromkeys(name for some in components for name in some))
    least, most = (min(per_layer, key=per_layer.__getitem__), max(per_layer, key=per_layer.__getitem__)) if per_layer else (0, 0)
    names = depth_names(view)
    pairs: list[list[Cell]] = [
        ["expert activations (selections, all layers)", sum(per_layer.values())], ["domains", len(rows)],
        ["documents", facts.get("n_documents") or None], ["tokens", facts.get("n_tokens")],
        ["MoE layers", f"{view.n_layers} ({_blocks(names)})"],
        ["experts of a layer", " or ".join(str(n) for n in sorted(set(view.n_experts)))],
        ["expert ids in use", f"{len(set(ids))} (range {min(ids)}-{max(ids)})" if ids else "none"],
        ["choices of a token (k)", " or ".join(map(str, facts.get("k", ())))],
        ["components recorded", recorded or "one decision a layer"],
        ["selections per layer", f"{per_layer[least]:,} in each" if per_layer[least] == per_layer[most] else
         f"{per_layer[least]:,} (layer {names[least]}) to {per_layer[most]:,} (layer {names[most]})"]]
    by_domain: list[list[Cell]] = [[row["domain"], row["documents"] or None, row["tokens"], row["activations"],
                                    None if not row["documents"] else row["tokens"] / row["documents"]] for row in rows]
    return [Table("overview", "The data", [Column("what"), Column("number", "number")], pairs),
            Table("overview_domains", "By domain", [Column("domain"), Column("documents", "number"), Column("tokens", "number"),
                                                    Column("activations", "number"), Column("tokens a document", "number", 1)], by_domain)]


def _blocks(names: Sequence[str]) -> str:
    """Which blocks have the layers: a range where none is missing, else their list."""
    numbers = [int(name) if name.isdecimal() else -1 for name in names]
    if len(names) > 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return f"blocks {names[0]} to {names[-1]}"
    return f"blocks {', '.join(names[:BLOCKS_NAMED])}{', ...' if len(names) > BLOCKS_NAMED else ''}"


def map_picture(view: View) -> Drawn:
    """Loads of all layers and experts."""
    shares = []
    for number, size in enumerate(view.n_experts):
        n = np.zeros(size)
        for row in (one for one in view.rows("loads") if one["layer"] == number):
            n[row["expert"]] = row["n"]
        shares.append(n / n.sum() if n.sum() else n)
    if not any(share.sum() for share in shares):
        return not_drawn("The map of loads", "no_data: no selections")
    return Picture("expert_load_map", load_map(shares, depth_names(view)),
                   "Every expert of every layer: how much more (blue) or less (red) it is chosen than if all were chosen alike.",
                   "Heat map of layers by experts.")


def comparative_picture(view: View) -> Picture:
    """Seed 001's comparison of layers."""
    shown = [LayerStatistic(title, unit, statistic(view, name)) for name, title, unit in COMPARED]
    return Picture("comparative_layer_statistics", comparative_statistics(shown, depths(view)),
                   "Usage statistics from layer to layer with intervals over documents, and what uniform routing of as many selections would give.",
                   "Six small panels of lines over layers.")


def evenness_table(view: View, statistic_id: str, name: str, title: str) -> Table:
    """One statistic by layer: ours with interval, the seed's plug-in, uniform routing of as many selections, and the excess over it."""
    rows: list[list[Cell]] = []
    names = depth_names(view)
    for number in range(view.n_layers):
        one = picked([row for row in view.rows("usage") if row["layer"] == number], "statistic", statistic_id)
        null = bare(None) if one is None else estimate_of({**one, "reason": "", "status": ""}, "null", "null_low", "null_high")
        rows.append([names[number], None if one is None else one["n_selections"], estimate_of(one), _of(one, "seed"), null, _of(one, "excess"),
                     "" if one is None else one["reason"] or ""])
    return Table(name, title, [Column("layer"), Column("selections", "number"), number_column("ours [95%]"), Column("seed: plug-in", "number"),
                               number_column("uniform routing [95%]"), Column("excess", "number"), reason_column()], rows,
                 in_full(rows, "Excess: the plug-in less its mean under uniform routing of as many selections, which has the same bias."))


def _of(row: dict[str, object] | None, column: str) -> Cell:
    value = None if row is None else row[column]
    return value if isinstance(value, int | float) else None


def moments_table(view: View) -> Table:
    """The rest of seed 001's statistics, as the seed prints them, on the scale of counts."""
    names, rows = depth_names(view), []
    for number in range(view.n_layers):
        mine = [row for row in view.rows("usage") if row["layer"] == number]
        cells: list[Cell] = [names[number]]
        rows.append(cells + [_of(picked(mine, "statistic", name), "seed") for name in COUNTS_SCALE])
    digits = 2 if max((row["value"] or 0.0 for row in view.rows("usage") if row["statistic"] == "usage_mean"), default=0.0) < 100 else 0
    return Table("usage_moments", "Seed 001's further statistics, plug-in (std with ddof 0, population skewness, excess kurtosis, linear quartiles)",
                 [Column("layer"), *(Column(name.removeprefix("usage_"), "number", 2 if name in SHAPES else digits) for name in COUNTS_SCALE)], rows,
                 "On the scale of counts these grow with the number of documents; their intervals and uniform nulls are in "
                 "atlas/comprehensive_expert_statistics.json.")


def rarefied_blocks(view: View) -> list[Block]:
    """Layers at equal numbers of selections, where they differ."""
    rows = view.rows("usage_rarefied")
    if not rows:
        return []
    names = depth_names(view)
    shown: list[list[Cell]] = [[names[row["layer"]], row["statistic"].removeprefix("usage_"), row["value"], row["error"], row["n_selections"]]
                               for row in rows]
    return [Table("usage_rarefied", "Layers compared at the selections of the layer with fewest",
                  [Column("layer"), Column("statistic"), Column("value", "number"), Column("Monte-Carlo error", "number", 4),
                   Column("selections", "number")], shown)]


def blocks(view: View) -> list[Block]:
    """Everything of seed 001's usage, in order."""
    even = view.estimate("usage_entropy_normalised")
    words = ("How evenly are the experts of a layer used? " + (
        f"Mean over layers, the loads have {100 * even.value:.1f}% of the entropy of even use." if even.value is not None else why(even)))
    return [Paragraph(words), map_picture(view), comparative_picture(view),
            evenness_table(view, "usage_cv", "usage_cv", "Coefficient of variation of the loads by layer"),
            evenness_table(view, "usage_entropy_bits", "usage_entropy", "Entropy of the loads by layer, bits"), *rarefied_blocks(view),
            moments_table(view)]
