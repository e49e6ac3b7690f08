"""Tables of the SPECTRA report: the seed's results table at both levels, arms beside each other, single experts, training and its checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.estimate import Estimate
from analysis.figures.words import p_value
from experiments.report.blocks import Cell, Column, Paragraph, Table
from experiments.report.display import token
from experiments.report.topology_columns import Drawn, View, bare, estimate_of, in_full, not_drawn, number_column, reason_column

COMPARISON, EXPERTS = "specialization_comparison", "expert_domain_affinity"
MOST_SAMPLES, SAMPLE_WIDTH = 48, 44
BY_ARM = ("mi_E_D", "purity_cross_fitted", "silhouette", "diversity_jsd_excess", "confidence", "repr_output", "gram_rms", "least_load",
          "collapse_rate",
          "held_out_loss")
MARKS = {"optimised": "optimised by the loss", "constrained": "constrained by the choice of experts in the training"}
REFUSED = "refused: no metric, and no rule for it was declared"


def of_seeds(row: Mapping[str, Any], name: str) -> Estimate:
    """A value over training seeds of a row of the comparison."""
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if value is None:
        return bare(None, reason=row.get(f"{name}_reason") or "undefined in a training seed")
    return Estimate(value, low, high if low is not None else None, row["unit"], "seed", row["n_seeds"], "t over training seeds")


def change(row: Mapping[str, Any]) -> Estimate:
    """The change of a row over training seeds, with its reason or gate."""
    return estimate_of({**row, "unit": row["unit"]})


def _checkpoint(row: Mapping[str, Any]) -> Estimate:
    return estimate_of({**row, "reason": row["checkpoint_reason"], "status": "gated" if row["checkpoint_reason"] else ""}, "checkpoint",
                        "checkpoint_low", "checkpoint_high", unit=row["unit"])


def _marks(row: Mapping[str, Any], names: tuple[str, str]) -> str:
    """'optimised by the loss of a; constrained in the training of b'; empty where neither."""
    said = []
    for mark, words in MARKS.items():
        whose = [name for name, arm in zip(names, ("baseline", "treatment"), strict=True) if row.get(f"{mark}_by_{arm}")]
        said += [f"{words} of {' and '.join(whose)}"] if whose else []
    return "; ".join(said)


def mean_of_all(values: Sequence[float | None], n: int, what: str = "seeds") -> Cell:
    """Mean of n values; in how many it is undefined, where one is or is not there: a mean of the others would be one of chosen trainings."""
    known = [one for one in values if one is not None]
    return float(np.mean(known)) if len(known) == n and n else f"undefined in {n - len(known)} of {n} {what}"


def comparison_table(view: View) -> Table:
    """The seed's table (F), then our rows: both arms, the change at both levels, p over training seeds."""
    arms = _arms(view)
    rows: list[list[Cell]] = []
    for row in view.rows("comparison"):
        p = ["" if row[name] is None else p_value(row[name]).removeprefix("p = ") for name in ("p_t", "p_holm")]
        rows.append([f"{row['label']} ({row['unit']})", *(one.value if one.value is not None else one.reason for one in
                                                          (of_seeds(row, "baseline"), of_seeds(row, "treatment"))), change(row), *p,
                     _checkpoint(row), row["reason"] or ""])
    rows.insert(min(8, len(rows)), ["Overall Specialization", None, None, None, "", "", None, REFUSED])
    n = view.facts.get("n_pairs", 0)
    note = (f"Means over {n} training seeds and over layers. Change: mean paired difference of the seeds, 95 % t interval, never a percentage. p: "
            "paired t over seeds; Holm: over the eight rows of the seed's table. These checkpoints: the first seed's pair, paired over documents; it "
            "says nothing of the methods. Silhouette: less that of permuted labels; diversity: the Jensen-Shannon divergence of token types in "
            "the place of NMI, for which experts have no joint law, less that of tokens shuffled in their documents; Gram orthogonality: rms cosine, "
            "lower is more orthogonal; affinity and purity: cross-fitted.")
    return Table(COMPARISON, "Expert specialization metrics, switch top-2 against SPECTRA",
                 [Column("metric"), Column(arms[0], "number"), Column(arms[1], "number"), number_column("change [95% interval]"), Column("p"),
                  Column("p (Holm)"), number_column("these checkpoints: change"), reason_column()], rows, in_full(rows, note))


def marks_table(view: View) -> Table:
    """What the seed expects of its rows, and which rows a loss optimises directly, or training bounds without one."""
    rows: list[list[Cell]] = []
    for row in view.rows("comparison"):
        mark = _marks(row, _arms(view))
        if row["expected_baseline"] or row["expected_treatment"] or mark:
            rows.append([row["label"], row["metric"], row["expected_baseline"] or "no guess", row["baseline"],
                         row["expected_treatment"] or "no guess",
                         row["treatment"], mark or "neither"])
    return Table("marks", "What the seed expects, and what training does to a metric directly",
                 [Column("metric"), Column("id"), Column("expected of Switch"), Column("found", "number"), Column("expected of SPECTRA"),
                  Column("found", "number"), Column("in training")], rows,
                 "The seed's ranges are guesses, of its own forms of the metrics; no threshold was made of them. What a loss optimises directly, or "
                 "a way of choosing experts bounds in training, shows that the loss or the choice works, and no more. SPECTRA has no balance loss: "
                 "its transport evens the loads of each training batch.")


def _arms(view: View) -> tuple[str, str]:
    return str(view.facts.get("baseline", "baseline")), str(view.facts.get("treatment", "treatment"))


def pairs_table(view: View) -> Table:
    """The headline and the judged metrics between the checkpoints of every seed."""
    rows: list[list[Cell]] = []
    for row in view.rows("pairs"):
        if row["metric"] in ("mi_E_D", "gram_rms", "repr_output", "collapse_rate", "held_out_loss"):
            rows.append([row["metric"], row["seed"], estimate_of(row), row["unit"], row["reason"] or ""])
    return Table("checkpoint_pairs", "Level 1: the change between the two checkpoints of each seed, over documents",
                 [Column("metric"), Column("seed", "number"), number_column("change [95% interval]"), Column("unit"), reason_column()], rows,
                 in_full(rows, "Each row speaks of two checkpoints. That rows of one metric differ is what training seeds do."))


def arms_table(view: View) -> Table:
    """Every arm, mean over layers and seeds, a column each; what differs beside the router is in arms_differ."""
    means: dict[tuple[str, str], list[float | None]] = {}
    for row in view.rows("runs"):
        if row["layer"] == -1:
            means.setdefault((row["arm"], row["metric"]), []).append(row["value"])
    seeds = {arm: len(of) for arm, of in view.facts.get("seeds", {}).items()}
    rows: list[list[Cell]] = [["training seeds", *seeds.values()]]
    rows += [[name, *(mean_of_all(means.get((arm, name), ()), n) for arm, n in seeds.items())] for name in BY_ARM]
    return Table("arms", "All arms, mean over layers and seeds", [Column("metric"), *(Column(arm, "number") for arm in seeds)], rows,
                 "Arms other than the judged pair stand outside the claim. Hash and random routers learn nothing: what they reach is not learnt "
                 "specialisation.")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def collapse_table(view: View) -> Table:
    """Collapse rate and least load of every training of every arm, the baseline's beside SPECTRA's."""
    loads: dict[tuple[str, int], list[float]] = {}
    rate: dict[tuple[str, int], float | None] = {}
    for row in view.rows("runs"):
        key = (row["arm"], row["seed"])
        if row["metric"] == "collapse_rate" and row["layer"] == -1:
            rate[key] = row["value"]
        elif row["metric"] == "least_load" and row["layer"] >= 0 and row["plug_in"] is not None:
            loads.setdefault(key, []).append(row["plug_in"])
    dead: dict[tuple[str, int], list[tuple[int, float | None]]] = {}
    for row in view.rows("collapse"):
        dead.setdefault((row["arm"], row["seed"]), []).append((row["n_dead"], row["load_bound"]))
    n = view.n_experts[0] if view.n_experts else 0
    rows: list[list[Cell]] = []
    for key, one in rate.items():
        bounds = [bound for _, bound in dead.get(key, ()) if bound is not None]
        rows.append([*key, one, None if one is None else one * n * view.n_layers, min(loads.get(key, ()), default=None),
                     sum(number for number, _ in dead[key]) if key in dead else None, max(bounds, default=None)])
    return Table("collapse", "Collapse by training, all MoE layers, test documents",
                 [Column("arm"), Column("seed", "number"), Column("collapse rate", "number", 3), Column("collapsed experts", "number", 0),
                  Column("least load of any expert, of an even one", "number", 3), Column("experts without a selection", "number"),
                  Column("95% bound on the load of each, of an even one", "number", 3)], rows,
                 "Collapsed: below a tenth of an even load. An expert without a selection may have a load up to the bound: 3 / n, a document "
                 "counting as one selection. The claim is judged on the judged pair alone.")


def differences_table(view: View) -> Table:
    """What differs from the baseline beside the router, by arm."""
    found = view.facts.get("differences", {})
    rows: list[list[Cell]] = [[arm, "; ".join(found.get(arm, ())) or "nothing"] for arm in view.facts.get("seeds", {})]
    return Table("arms_differ", "What differs from the baseline beside the router", [Column("arm"), Column("difference")], rows)


def layers_table(view: View) -> Table:
    """I(E;D) of the judged pair by layer: each arm's mean over seeds, and the change with its interval."""
    by: dict[tuple[str, int], list[float | None]] = {}
    for row in view.rows("runs"):
        if row["metric"] == "mi_E_D" and row["layer"] >= 0:
            by.setdefault((row["arm"], row["layer"]), []).append(row["value"])
    names = (str(view.facts.get("baseline")), str(view.facts.get("treatment")))
    changes = view.content.evaluation.by_layer.get("mi_E_D_change", ())
    seeds = {name: len(view.facts.get("seeds", {}).get(name, ())) for name in names}
    rows: list[list[Cell]] = [[layer, *(mean_of_all(by.get((name, layer), ()), n) for name, n in seeds.items()), one]
                              for layer, one in enumerate(changes)]
    return Table("mi_E_D_layers", "I(domain; expert) by layer, bits", [Column("layer", "number"), Column(names[0], "number"), Column(names[1],
                                                                                                                                     "number"),
                                                                        number_column("change [95% interval]")], rows, in_full(rows))


def references_table(view: View) -> Table:
    """What random directions, random routers and permuted labels give, and the seed's own form of representations, by arm."""
    by: dict[tuple[str, str], dict[int, list[float | None]]] = {}
    for row in view.rows("references"):
        by.setdefault((row["reference"], row["arm"]), {}).setdefault(row["seed"], []).append(row["value"])
    arms = list(dict.fromkeys(arm for _, arm in by))
    seeds = {arm: len(view.facts.get("seeds", {}).get(arm, ())) for arm in arms}
    rows: list[list[Cell]] = [[name, *(mean_of_all([_mean(of_seed) for of_seed in by.get((name, arm), {}).values()], seeds[arm]) for arm in arms)]
                              for name in dict.fromkeys(name for name, _ in by)]
    note = ("silhouette hyperplane: of random linear routers on the same vectors; permuted: of permuted labels. centroid_input: the seed's code, "
            "which "
            "averages the inputs routed to an expert and says nothing of what the expert does with them. Names that end in _seed: the seed's own "
            "forms, plug-in. Its Gini and confidence are of the chosen k weights, and other numbers where these are not made to sum to 1.")
    return Table("references", "References and the seed's forms, mean over layers and seeds",
                 [Column("quantity"), *(Column(arm, "number") for arm in arms)], rows, note)


def experts_table(view: View, layer: int) -> Table:
    """The seed's per-expert table: top domain, affinity, purity, keywords, for the arms of the judged pair at the layer shown."""
    judged = (view.facts.get("baseline"), view.facts.get("treatment"))
    rows: list[list[Cell]] = []
    for row in view.rows("experts"):
        if row["layer"] == layer and row["arm"] in judged:
            words = row["confirmed_words"] or row["keywords"] or ""
            rows.append([row["arm"], f"E{row['expert']}", row["top_domain"], row["affinity"], estimate_of(row), row["purity"],
                         row["purity_null"], _shown_words(words), row["confirmed"]])
    note = ("Top domain and keywords are chosen on calibration documents (on test documents where there are none) and counted on test documents. "
            "Purity "
            "is in-sample; null: domains permuted over documents. Keywords: log odds with a Dirichlet prior, z > 3, those that held-out documents "
            "confirm, with the share of them; where none is, those chosen." + "".join(f" {one}." for one in view.facts.get("keywords", ())))
    return Table(EXPERTS, f"Per-expert domain affinity, MoE layer {layer}",
                 [Column("arm"), Column("expert"), Column("top domain"), Column("affinity", "number", 2),
                  number_column("log2 affinity [95% interval]"), Column("purity", "number", 2), Column("purity, null", "number", 2),
                  Column("keywords"), Column("confirmed", "number", 0, percent=True)], rows, in_full(rows, note))


def _shown_words(words: str) -> str:
    return ", ".join(token(word.strip(), 22) for word in words.split(", ") if word.strip()) if words else ""


def samples_table(view: View, layer: int) -> Drawn | Table:
    """Representative tokens of the experts of both arms with the text around them, every character that could mislead escaped."""
    judged = (view.facts.get("baseline"), view.facts.get("treatment"))
    found = [row for row in view.rows("samples") if row["layer"] == layer and row["arm"] in judged]
    if not found:
        return not_drawn("A table of representative samples", "the trace has no combine weights or no token types")
    first = sorted(found, key=lambda row: (row["rank"], row["arm"] != judged[0], row["expert"]))[:MOST_SAMPLES]
    rows: list[list[Cell]] = []
    for row in first:
        around = token(row["before"][-SAMPLE_WIDTH:], SAMPLE_WIDTH), token(row["token"]), token(row["after"], SAMPLE_WIDTH)
        rows.append([row["arm"], f"E{row['expert']}", row["domain"], row["document"], row["weight"], *around])
    return Table("representative_samples", f"Tokens with the largest weight on an expert, MoE layer {layer} ({len(first)} of {len(found)})",
                 [Column("arm"), Column("expert"), Column("domain"), Column("document"), Column("weight", "number"), Column("before"),
                  Column("token"), Column("after")], rows, "At most one token a document. For reading, never evidence.")


def training_table(view: View) -> Table:
    """Every training: size, steps, held-out loss."""
    rows: list[list[Cell]] = [[row["arm"], row["seed"], row["parameters"], row["top_k"], row["steps"], row["tokens_seen"], row["seconds"],
                               row["held_out_nats"], "yes" if row["causal"] else "no", row["data_order"]] for row in view.rows("training")]
    heads = ("seed", "parameters", "experts a token", "steps", "tokens seen", "CPU seconds", "loss on calibration windows, nats")
    return Table("trainings", "Trainings", [Column("arm"), *(Column(name, "number") for name in heads), Column("causal"), Column("data order")], rows,
                 "Equal data order: the same batches in the same order. CPU seconds are unknown for a training that was resumed.")


def checks_table(view: View) -> Drawn | Table:
    """What the router's equations promise of the trained models, each met or not within its tolerance; and agreement of the two modes."""
    by: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in view.rows("checks"):
        if row["value"] is not None:
            by.setdefault((row["kind"], row["name"], row["arm"]), []).append(row)
    if not by:
        return Paragraph("No equation was checked on the trained models.", "note")
    rows: list[list[Cell]] = []
    for (kind, name, arm), found in sorted(by.items()):
        values, tolerance = [row["value"] for row in found], found[0].get("tolerance")
        missed = sum(value > tolerance for value in values) if tolerance is not None else 0
        says = "" if tolerance is None else f"not met in {missed} of {len(values)}" if missed else "met"
        rows.append([kind, found[0].get("words") or name, arm, float(np.min(values)), float(np.max(values)), tolerance, says])
    return Table("checks", "Equations on the trained models, and agreement of training-mode with evaluation-mode routing",
                 [Column("kind"), Column("name"), Column("arm"), Column("least", "number", 4), Column("largest", "number", 4),
                  Column("tolerance", "number", 4), Column("within it")], rows,
                 "Over layers and seeds. equation: the largest misfit in any batch of what the router's equations promise, against a tolerance "
                 "declared beforehand, and the Gram matrix of its representations, of which they promise nothing; agreement: share of tokens, or of "
                 "chosen experts, that evaluation routes as training did.")
