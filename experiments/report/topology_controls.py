"""What each planted control was expected to give by each criterion, and gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.estimate import Estimate
from experiments.report.blocks import Cell, Column, Section, Table
from experiments.report.display import estimate
from experiments.report.topology_columns import View
from experiments.report.verdict import column_for
from hypotheses import find

PLANTED = {"positive": "one topology for all domains: experts of adjacent layers coupled, clusters of experts chosen together, the same everywhere",
           "independent": "layers drawn independently from the loads of each document's topic: structure of the data and none of the model",
           "misleading": "in every domain layers are coupled as strongly, but through other transitions: information inside says nothing of transfer"}


def controls_panel(view: View, planted: Mapping[str, str] = PLANTED) -> Section | None:
    """A row per control, and one per control and criterion with its estimate; None without controls. planted: what each control is."""
    controls = {name: one for name, one in view.content.finding.controls.items() if isinstance(one, Mapping)}
    if not controls:
        return None
    whole: list[list[Cell]] = [[name, planted.get(name, ""), str(one.get("status", "")), str(one.get("reason", ""))]
                               for name, one in controls.items()]
    table = Table("controls", "Planted controls", [Column("control"), Column("planted"), Column("status"), Column("what decided")], whole,
                  "A control passes when every criterion that is asked of it comes out as it must. What the run itself leaves undefined or below its "
                  "floor is not asked.")
    rows = [row for name, one in controls.items() for row in _criteria(view, name, one)]
    return Section("controls-panel", "Controls", [table, Table(
        "controls_criteria", "Controls by criterion: expected and found",
        [Column("control"), Column("criterion"), Column("must be"), Column("was"), Column("estimate [interval]")], rows)], "controls")


def _criteria(view: View, name: str, one: Mapping[str, Any]) -> list[list[Cell]]:
    try:
        expected = find(view.content.finding.hypothesis).expects.get(name, {})
    except (KeyError, ValueError):
        expected = {}
    found: Mapping[str, Any] = one.get("criteria") or {}
    units = {judged.criterion.name: judged.criterion.unit for judged in view.content.finding.criteria}
    rows: list[list[Cell]] = []
    for criterion in [*expected, *(other for other in found if other not in expected)]:
        got = found.get(criterion)
        must = " or ".join(expected.get(criterion, ())) or "not stated"
        if got is None:
            rows.append([name, criterion, must, "not asked", ""])
            continue
        value = (Estimate.undefined("not estimated") if got.get("value") is None else
                 Estimate(got["value"], got.get("low"), got.get("high"), units.get(criterion, ""), "document", 0, "control"))
        rows.append([name, criterion, must, str(got.get("outcome")), estimate(value, column_for(units.get(criterion, "")))])
    return rows
