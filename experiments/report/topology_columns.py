"""The tables of a topology evaluation as rows, rows as estimates, and what the parts of its report ask of a run: layers, domains, layer shown.

L MoE layer, E expert, D domain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import Estimate
from experiments.report.blocks import Cell, Column, Paragraph, Picture, Table
from experiments.report.content import ReportContent

Row = Mapping[str, Any]
NOT_RECORDED = "not recorded in this evaluation"
MOST_REASONS = 6
TEX_ROWS = 60  # rows of a long table that fit a printed page; its CSV holds all


def rows_of(table: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A table as rows of plain values, None where a number is undefined; no rows for no table."""
    if not table:
        return []
    columns = {name: values.tolist() if isinstance(values, np.ndarray) else list(values) for name, values in table.items()}
    return [{name: _plain(value) for name, value in zip(columns, values)} for values in zip(*columns.values(), strict=True)]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def estimate_of(row: Row | None, value: str = "value", low: str = "low", high: str = "high", unit: str = "") -> Estimate:
    """The estimate of a row: undefined with the row's reason, or gated by it; undefined without a row."""
    row = row or {}
    number, reason = row.get(value), str(row.get("reason") or "")
    unit = unit or str(row.get("unit") or "")
    n_units = int(row.get("n_documents") or 0)
    if number is None:
        return Estimate.undefined(reason or NOT_RECORDED, unit=unit, n_units=n_units)
    ends = (row.get(low), row.get(high))
    return Estimate(float(number), *(ends if None not in ends else (None, None)), unit, "document", n_units, "table", plug_in=row.get("plug_in"),
                    null=row.get("null") if value == "value" else None, p=row.get("p"), gate=reason or None if row.get("status") == "gated" else None)


def bare(value: float | None, unit: str = "", reason: str = NOT_RECORDED) -> Estimate:
    """A number without an interval; undefined with `reason` where there is none."""
    if value is None or math.isnan(value):
        return Estimate.undefined(reason, unit=unit)
    return Estimate(float(value), None, None, unit, "nothing", 0, "as computed")


def mean_over(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of the defined ones; its half-width is the mean half-width, which is an upper bound whatever their correlation."""
    from hypotheses.topology_parts import mean_of

    known = [one for one in estimates if one.value is not None]
    return mean_of(known) if known else estimates[0] if estimates else Estimate.undefined(NOT_RECORDED)


def not_drawn(what: str, reason: str | None) -> Paragraph:
    """In place of a figure: why it is not there."""
    return Paragraph(f"{what} is not drawn: {reason or NOT_RECORDED}.", "note")


def number_column(title: str) -> Column:
    """An estimate with its interval; that there is none, where there is none."""
    return Column(title, "estimate", brief=True)


def reason_column(title: str = "reason") -> Column:
    """The code of a reason."""
    return Column(title, brief=True)


def why(one: Estimate) -> str:
    """Why an estimate is undefined or gated; empty where neither."""
    return one.reason or one.gate or ""


def in_full(rows: Sequence[Sequence[Cell]], note: str = "") -> str:
    """A note with every reason of the rows' cells in full, once, after what the note says anyway."""
    found: dict[str, int] = {}
    for row in rows:
        reasons = {one.reason for one in row if isinstance(one, Estimate)} | {one for one in row[-1:] if isinstance(one, str) and ": " in one}
        for reason in reasons:
            if reason is not None:
                found[reason] = found.get(reason, 0) + 1
    said = [f"{reason} ({n} rows)" if n > 1 else reason for reason, n in list(found.items())[:MOST_REASONS]]
    more = f"; {len(found) - MOST_REASONS} further ones are in the CSV" if len(found) > MOST_REASONS else ""
    return " ".join(part for part in (note, f"Reasons in full: {'; '.join(said)}{more}." if said else "") if part)


Drawn = Picture | Paragraph


@dataclass(frozen=True)
class View:
    """What the parts of the report share of one run's content."""

    content: ReportContent

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """The evaluation's facts."""
        return self.content.evaluation.facts

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Rows of a table of the evaluation; none where it is missing."""
        return rows_of(self.content.evaluation.tables.get(table))

    def columns(self, table: str) -> dict[str, NDArray[Any]]:
        """Columns of a table as arrays; empty where it is missing."""
        return {name: np.asarray(values) for name, values in (self.content.evaluation.tables.get(table) or {}).items()}

    def estimate(self, name: str) -> Estimate:
        """A mean estimate by its name; undefined where the evaluation has none."""
        return self.content.evaluation.estimates.get(name) or Estimate.undefined(self.facts.get("nothing") or NOT_RECORDED)

    @cached_property
    def n_experts(self) -> list[int]:
        """Experts of each MoE layer [L]."""
        return [layer.n_experts for layer in self.content.trace.meta.layers]

    @property
    def n_layers(self) -> int:
        """MoE layers of the trace."""
        return len(self.n_experts)

    @cached_property
    def domains(self) -> list[str]:
        """Domains with test documents, in order."""
        return [name for name, n in self.facts.get("n_documents_per_domain", {}).items() if n]

    @property
    def shown(self) -> int:
        """The layer whose experts are drawn: the middle one, fixed before any number is known."""
        return self.n_layers // 2

    @property
    def shown_words(self) -> str:
        """The layer shown, in words."""
        return "the only MoE layer" if self.n_layers == 1 else f"MoE layer {self.shown}, the middle one of {self.n_layers}"

    def square(self, table: str, value: str, layer: int, fill: float = float("nan")) -> NDArray[np.float64]:
        """A column of a table with columns layer, i, j as a matrix [E, E] of one layer."""
        found, size = self.columns(table), self.n_experts[layer]
        out = np.full((size, size), fill)
        if found and len(found["layer"]):
            mine = found["layer"] == layer
            out[found["i"][mine].astype(np.int64), found["j"][mine].astype(np.int64)] = found[value][mine]
        return out


def whole_table(name: str, caption: str, table: Mapping[str, Any] | None, note: str = "") -> Table:
    """A table of the evaluation as it stands, every row and column."""
    rows = rows_of(table)
    names = list(table or {})
    numeric = {column: any(isinstance(row[column], int | float) for row in rows) for column in names}
    cells: list[list[Cell]] = [[row[column] for column in names] for row in rows]
    return Table(name, caption, [Column(column, "number" if numeric[column] else "text") for column in names], cells, note)


def head(table: Table, order: Sequence[int] | None = None, n_rows: int = TEX_ROWS) -> Table:
    """The table with its first rows for print, in another order where one is given; its CSV holds all."""
    rows = table.rows if order is None else [table.rows[i] for i in order]
    return replace(table, rows=rows, shown=n_rows)
