"""The sweep of analysis knobs in the report: exploratory, on calibration documents, beside what is declared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.figures.topology_sweep import KnobCurve, knob_sweep
from experiments.report.blocks import Block, Cell, Column, Paragraph, Picture, Section, Table
from experiments.report.topology_columns import View
from hypotheses.topology_knobs import MEANING, OBJECTIVES

KNOB_WORDS = {"n_clusters": "clusters in every layer", "smoothing": "smoothing b", "window": "window, tokens", "edge_cut": "least |phi| of an edge",
              "context_weight": "weight of the marginal, tokens"}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _setting(knobs: Mapping[str, Any]) -> str:
    return ", ".join(f"{KNOB_WORDS.get(name, name)} {value:.3g}" for name, value in knobs.items())


def _best_by(rows: Sequence[Mapping[str, Any]], knob: str) -> tuple[list[float], list[float]]:
    """Largest value at each setting of a knob, over the other knobs."""
    found: dict[float, float] = {}
    for row in rows:
        value = _number(row["value"])
        before = found.get(row[knob], math.nan)
        found[row[knob]] = value if math.isnan(before) else before if math.isnan(value) else max(before, value)
    return list(found), list(found.values())


def curves(sweep: Mapping[str, Any], numbers: Mapping[str, float]) -> list[KnobCurve]:
    """A curve per objective; numbers: the declared settings that are numbers, by knob."""
    out = []
    for name in sweep.get("objectives", ()):
        knob = sweep["knobs"][name][0]
        chosen, declared = sweep["chosen"][name], sweep.get("declared", {}).get(name, {})
        test = (sweep.get("confirmed") or {}).get(name, {})
        trials = [trial for trial in sweep.get("trials", ()) if trial.get("origin") == "asked"]
        out.append(KnobCurve(KNOB_WORDS.get(knob, knob), name, _best_by(sweep["grid"][name], knob),
                             ([trial[knob] for trial in trials], [trial[name] for trial in trials]),
                             (float(chosen["knobs"][knob]), chosen["value"]), numbers.get(knob), declared.get("value"),
                             (test.get("chosen"), test.get("declared"))))
    return out


def _declared_numbers(sweep: Mapping[str, Any]) -> dict[str, float]:
    """Declared settings that are numbers, by knob; a rule, such as one per layer, is none."""
    declared = sweep.get("declared", {})
    out = {}
    for objective, knob in (("edge_agreement", "edge_cut"), ("cluster_silhouette", "n_clusters"), ("transition_bits", "smoothing")):
        try:
            out[knob] = float(declared.get(objective, {}).get("setting", ""))
        except ValueError:
            continue
    if "window" in declared.get("context_bits", {}):
        out["window"] = float(declared["context_bits"]["window"])
    return out


def _difference(at: Any, other: Any) -> float | None:
    return None if at is None or other is None else float(at) - float(other)


def choice_table(sweep: Mapping[str, Any]) -> Table:
    """Each objective at the preferred and at the declared setting, on calibration and on test documents."""
    rows: list[list[Cell]] = []
    for name in OBJECTIVES:
        if name not in sweep.get("objectives", ()):
            why = sweep.get("left_out", {}).get(name) or "undefined on the whole grid"
            rows.append([name, None, None, None, None, None, None, why])
            continue
        chosen, declared = sweep["chosen"][name], sweep.get("declared", {}).get(name, {})
        test = (sweep.get("confirmed") or {}).get(name, {})
        rows.append([name, _setting(chosen["knobs"]), chosen["value"], test.get("chosen"), _difference(chosen["value"], test.get("chosen")),
                     declared.get("value"), test.get("declared"), f"declared: {declared.get('setting', 'not recorded')}"])
    return Table("knob_sweep", "What calibration documents prefer, and what is declared",
                 [Column("objective"), Column("preferred"), Column("on calibration", "number"), Column("on test", "number"),
                  Column("optimism", "number"), Column("declared, on calibration", "number"), Column("declared, on test", "number"),
                  Column("setting")], rows,
                 f"Objectives: {'; '.join(f'{name}: {MEANING[name]}' for name in OBJECTIVES)}. Optimism: calibration minus test.")


def sweep_section(view: View) -> Section | None:
    """What was tried, what is preferred, and that nothing was moved by it; None for a run without a sweep."""
    sweep = view.content.sweep
    if not sweep:
        return None
    lead = Paragraph("Exploratory, on calibration documents alone: settings of the analysis, never a criterion. "
                     f"{sweep.get('used_for', '')}".rstrip() + ".", "warning")
    if not sweep.get("objectives"):
        why = sweep.get("reason") or "; ".join(f"{name}: {why}" for name, why in sweep.get("left_out", {}).items()) or "no objective is defined"
        return Section("knob-sweep", "Analysis knobs (exploratory)", [lead, Paragraph(f"Nothing was swept: {why}.", "note")], "sensitivity")
    blocks: list[Block] = [lead, Picture(
        "knob_sweep", knob_sweep(curves(sweep, _declared_numbers(sweep))),
        "Exploratory. Objective of each knob on calibration documents; where a knob has a companion, the best of it. Dotted: value at the declared "
        "setting.", "A curve of each objective with the declared and the preferred setting."), choice_table(sweep)]
    asked = f"{sweep.get('n_asked', 0)} trials of a stored study beside {sum(len(one) for one in sweep['grid'].values()):,} points of exact grids."
    shares = [f"{one['objective']}: " + (", ".join(f"{KNOB_WORDS.get(name, name)} {share:.0%}" for name, share in one["shares"].items())
                                         if one.get("shares") else str(one.get("reason"))) for one in sweep.get("importances", ())]
    importance = f" Importance where an objective has several knobs: {'; '.join(shares)}." if shares else ""
    return Section("knob-sweep", "Analysis knobs (exploratory)", [*blocks, Paragraph(asked + importance, "note")], "sensitivity")
