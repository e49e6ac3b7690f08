"""Claims 3 and 4 on the predictor: bars beside its baselines, learning curve, map, retention in other domains and its relation to information.

L predicted layer, D domain, T epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from analysis.estimate import Estimate
from analysis.figures.topology_domains import RetentionPoint, information_against_retention
from analysis.figures.topology_predictors import LearningCurve, Predictor, learning_curve, predictor_bars, predictor_map
from analysis.figures.words import interval, number, p_value
from analysis.gates import NO_DATA
from experiments.report.blocks import Block, Cell, Column, Paragraph, Picture, Table
from experiments.report.display import level_words
from experiments.report.topology_columns import (
    NOT_RECORDED,
    Drawn,
    View,
    bare,
    estimate_of,
    in_full,
    mean_over,
    not_drawn,
    number_column,
    reason_column,
    why,
)
from experiments.report.topology_domains import transfer_of
from hypotheses.topology_evidence import ABLATION, PROPHET
from hypotheses.topology_predictor import IMPORTED, KEPT

MARGIN = 0.1  # bits that the predictor must gain over the best baseline
WORDS = {PROPHET: "Prophet", ABLATION: "without cross-layer attention", "modal": "modal expert", "uniform": "uniform", "token_type":
    "token-type table",
         "previous_layer": "previous layer (Markov)", "ordered_pair": "ordered-pair table"}


def _reason(view: View) -> str | None:
    return view.estimate("predictor_mi").reason


def _home(view: View) -> dict[str, list[dict[str, Any]]]:
    out: dict[str, list[dict[str, Any]]] = {}
    for row in view.rows("predictor_mi"):
        if row["source"] == row["target"]:
            out.setdefault(row["predictor"], []).append(row)
    return out


def _words(name: str) -> str:
    return WORDS.get(name, name.replace("_", " "))


def predictors(view: View) -> list[Predictor]:
    """Prophet, its ablation, every baseline at home, and the entropy of the routing as the perfect predictor."""
    home: dict[str, dict[str, Estimate]] = {}
    for row in view.rows("predictor_home"):
        home.setdefault(row["predictor"], {})[row["metric"]] = estimate_of(row)
    undefined, shown = Estimate.undefined(NOT_RECORDED), []
    for name in [*(n for n in (PROPHET, ABLATION) if n in home), *sorted(set(home) - {PROPHET, ABLATION})]:
        information, top, recall = (home[name].get(metric, undefined) for metric in ("predictor_mi", "top1_accuracy", "recall_at_k"))
        role: Literal["predictor", "ablation", "baseline"] = "predictor" if name == PROPHET else "ablation" if name == ABLATION else "baseline"
        accuracy = {words: one for words, one in (("top-1", top), ("set recall", recall)) if one.value is not None}
        shown.append(Predictor(_words(name), information, role, accuracy))
    entropy = view.estimate("predictor_entropy")
    return [*shown, Predictor("Perfect, H(routing)", entropy, "perfect")] if shown else []


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def bars_picture(view: View) -> Drawn:
    """Bars of the information of every predictor."""
    shown = predictors(view)
    if not shown:
        return not_drawn("The information of the predictor", _reason(view))
    best = view.facts.get("best_baseline")
    bar = next((one.information.value for one in shown if best and one.name == _words(best)), None)
    bound = None if bar is None else (bar + MARGIN, f"best baseline + {MARGIN:g}")
    return Picture("predictor_mi", predictor_bars(shown, bound=bound),
                   "Information of the predicted about the actual first choice, each predictor in the domain it was fitted on, mean over layers and "
                   "domains; the Perfect bar is the entropy of the routing. Beside it accuracies: information alone does not say that a "
                   "prediction is "
                   "right.", "Bars of predictors and baselines.")


def predictors_table(view: View) -> Table:
    """The numbers of the bars."""
    rows: list[list[Cell]] = [[one.name, one.role, one.information, one.accuracy.get("top-1"), one.accuracy.get("set recall"), why(one.information)]
                              for one in predictors(view)]
    seed = view.facts.get("seed_rule", {}).get("predictor_mi")
    rows.append(["Prophet, seed's form: plug-in", "seed's", bare(seed, "bits"), None, None, "" if seed is not None else NOT_RECORDED])
    return Table("predictor_mi", "Predictors at home, mean over predicted layers and domains",
                 [Column("predictor"), Column("role"), number_column("I(predicted; actual), bits"), Column("top-1", "estimate", 1, True),
                  Column("set recall", "estimate", 1, True), reason_column()], rows,
                 in_full(rows, "The seed holds its form against a random predictor, 0 bits, a bar that any table passes."))


def gains_table(view: View) -> Table:
    """Prophet's share of the entropy, and what it gains over its rivals."""
    named = (("Prophet's share of the entropy", "predictor_u"), ("gain over the best baseline: judged", "predictor_gain"),
             ("gain in accuracy over the most accurate baseline: judged", "accuracy_gain"), ("gain of cross-layer attention", "ablation_gain"),
             ("gain over the Markov table of the previous layer", "markov_gain"),
             ("gain in accuracy over the Markov table", "markov_accuracy_gain"))
    rows: list[list[Cell]] = [[words, view.estimate(name), view.estimate(name).unit, why(view.estimate(name))] for words, name in named]
    level = level_words(view.estimate(name) for _, name in named)
    return Table("predictor_gains", "What the predictor gains",
                 [Column("question"), number_column(f"estimate [{level}]"), Column("unit"), reason_column()], rows, in_full(rows))


def curve_picture(view: View) -> Drawn:
    """Information over training epochs, mean over source domains."""
    rows = view.rows("learning_curve")
    if not rows:
        return not_drawn("The learning curve", _reason(view) or "the predictor was not trained in this run")
    epochs, layers = (sorted({row[name] for row in rows}) for name in ("epoch", "layer"))
    found: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        if row["mi_bits"] is not None:
            found.setdefault((row["layer"], row["epoch"]), []).append(row["mi_bits"])
    by_layer = [[float(np.mean(found[layer, epoch])) if (layer, epoch) in found else np.nan for epoch in epochs] for layer in layers]
    judged = {row["layer"] for row in _home(view).get(PROPHET, [])} or set(layers)
    mean = [bare(_mean([one[t] for layer, one in zip(layers, by_layer) if layer in judged and np.isfinite(one[t])]), "bits")
            for t in range(len(epochs))]
    best, shown = view.facts.get("best_baseline"), predictors(view)
    line = next(((one.name, one.information) for one in shown if best and one.name == _words(best)), None)
    return Picture("learning_curve", learning_curve(LearningCurve(epochs, by_layer, mean, line)),
                   "Information of Prophet's first choice after each epoch, mean over source domains, on documents it does not learn from: plug-in, "
                   "on fewer tokens than the bars. The mean is over the layers that are judged, those with a layer before "
                   "them.", "Lines over training epochs.")


def map_picture(view: View) -> Drawn:
    """Prophet's information per layer and domain."""
    rows = _home(view).get(PROPHET, [])
    if not rows:
        return not_drawn("The predictor's information by layer and domain", _reason(view))
    layers, names = sorted({row["layer"] for row in rows}), [name for name in view.domains if any(row["target"] == name for row in rows)]
    cells: list[list[Estimate | None]] = [[None] * len(names) for _ in layers]
    for row in rows:
        if row["target"] in names:
            cells[layers.index(row["layer"])][names.index(row["target"])] = estimate_of(row, "mi", unit="bits")
    return Picture("predictor_layers_domains", predictor_map(cells, names, layers=[str(layer) for layer in layers]),
                   "Information of Prophet in its own domain, by predicted layer and domain.", "Heat map, layers by domains.")


def points(view: View) -> list[RetentionPoint]:
    """Every ordered pair of domains with both numbers."""
    return [RetentionPoint(f"{row['source']} \u2192 {row['target']}", transfer_of(view, row["source"], row["target"]), estimate_of(row, unit="ratio"))
            for row in view.rows("retention") if row["predictor"] == _kept_by(view)]


def retention_words(view: View) -> str:
    """What the scatter says, with its verdict."""
    one = view.estimate("mi_vs_retention")
    outcome = next((judged.outcome for judged in view.content.finding.criteria if judged.criterion.metric == "mi_vs_retention"), "not judged")
    if one.value is None:
        return f"{outcome.upper()}: r is undefined ({one.reason})"
    n = f", {one.n} {one.n_of}" if one.n else ""
    return f"{outcome.upper()}: r = {interval(one, 2)}{n}{rank_words(view)}" + (f"; {one.gate}" if one.gate else "")


def rank_words(view: View) -> str:
    """'; rho = 0.61, one-sided p = 0.012 by permutation of domain labels': the p is that of the rank correlation. Empty without one."""
    rank = view.estimate("mi_vs_retention_spearman")
    if rank.value is None:
        return ""
    return f"; rho = {number(rank.value, 2)}" + (f", one-sided {p_value(rank.p)} by permutation of domain labels" if rank.p is not None else "")


def retention_picture(view: View) -> Drawn:
    """The scatter of the seed's section 5.4."""
    shown = points(view)
    drawn = [point for point in shown if point.drawable]
    if not drawn:
        reason = view.estimate("mi_vs_retention").reason or next((point.retention.reason for point in shown), None)
        return not_drawn("Information against retention", reason)
    n_missing = len(shown) - len(drawn)
    left_out = f"{n_missing} of {len(shown)} pairs are undefined and left out; the table says why. " if n_missing else ""
    return Picture("mi_vs_retention", information_against_retention(drawn, retention_words(view)),
                   f"{left_out}Transferred information against the share of Prophet's accuracy above chance kept in another domain. Pairs share "
                   "domains, so the interval, as if they were independent, is too narrow; the p is that of the rank correlation, from permuting "
                   "domain labels.", "Scatter of domain pairs.")


def _kept_by(view: View) -> str:
    """Whose retention is held against information: the imported one where there is one."""
    return IMPORTED if view.facts.get("retention_imported") else PROPHET


def retention_table(view: View) -> Table:
    """Retention of every ordered pair, with the seed's two ratios."""
    rows: list[list[Cell]] = [
        [row["source"], row["target"], transfer_of(view, row["source"], row["target"]), estimate_of(row, unit="ratio"),
         row["over_target_seed"], row["over_source_seed"], "yes" if row["declared"] else "", row["reason"] or ""] for row in view.rows("retention")
        if row["predictor"] == _kept_by(view)]
    return Table("mi_vs_retention", "Information and retention of all ordered pairs of domains",
                 [Column("source"), Column("target"), number_column("T, bits"), number_column("retention"), Column("seed/B", "number", 2),
                  Column("seed/A", "number", 2), Column("listed"), reason_column()], rows,
                 in_full(rows, "Retention: share of the gain of the target's own predictor over its modal expert that is kept. Seed/B, seed/A: the "
                         "seed's forms, accuracy over that at home in the target, or in the source. Listed: declared beforehand."))


def predictors_retention_table(view: View) -> Table:
    """Retention of every predictor beside Prophet's, and its mean."""
    found: dict[tuple[str, str], dict[str, Estimate]] = {}
    for row in view.rows("retention"):
        if row["predictor"] != IMPORTED:
            found.setdefault((row["source"], row["target"]), {})[row["predictor"]] = estimate_of(row, unit="ratio")
    names = [name for name in KEPT if any(name in one for one in found.values())]
    absent = Estimate.undefined(f"{NO_DATA}: not scored", unit="ratio")
    rows: list[list[Cell]] = [[a, b, *(one.get(name, absent) for name in names)] for (a, b), one in found.items()]
    if rows:
        rows.insert(0, ["mean", "", *(mean_over([one[name] for one in found.values() if name in one]) for name in names)])
    return Table("retention", "Retention of each predictor, all ordered pairs of domains",
                 [Column("source"), Column("target"), *(number_column(f"{_words(name)} [95% interval]") for name in names)], rows,
                 in_full(rows, "Share of the gain of the same predictor, fitted on the target, over the target's modal expert that is kept. What a "
                         "table keeps as well needs no Prophet."))


def accuracy_words(view: View) -> str:
    """The seed's r of MI against accuracy, kept apart from retention."""
    one = view.estimate("mi_vs_accuracy")
    said = f"undefined ({one.reason})" if one.value is None else f"r = {number(one.value, 2)} over {one.n} {one.n_of}"
    return (f"Descriptive: MI against accuracy, {said}. The seed asks for r > 0.8 here, but Fano's inequality ties accuracy to information, so "
            f"that they "
            "correlate by construction; the judged relation is that to retention (claim 4).")


def blocks(view: View) -> list[Block]:
    """Everything of claim 3, in order."""
    facts: Mapping[str, Any] = view.facts.get("predictor") or {}
    out: list[Block] = [Paragraph(f"Predictor: {facts['origin']}.")] if facts.get("origin") else []
    if view.facts.get("retention_imported"):
        out.append(Paragraph("Retention was measured elsewhere and imported: no documents are known behind it, so that it has no intervals.", "note"))
    out += [Paragraph(f"Not run, {_words(str(name))}: {reason}.", "note") for name, reason in (facts.get("missing") or {}).items()]
    return [*out, bars_picture(view), predictors_table(view), gains_table(view), curve_picture(view), map_picture(view),
            Paragraph(accuracy_words(view), "note")]
