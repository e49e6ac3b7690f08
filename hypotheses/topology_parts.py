"""What each part of the topology evaluation returns, and how estimates become rows of tables.

Rows are plain numbers and strings: undefined numbers are NaN, their reason stands beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from analysis.estimate import Estimate
from analysis.gates import ILL_POSED, NO_DATA, gated
from analysis.resampling import t_quantile

Row = Mapping[str, Any]
NOTHING = f"{NO_DATA}: nothing to average"


@dataclass
class Part:
    """Estimates, one estimate per MoE layer, tables and facts of one part of the evaluation."""

    estimates: dict[str, Estimate] = field(default_factory=dict)
    by_layer: dict[str, tuple[Estimate, ...]] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, other: Part) -> None:
        """Take in another part. ValueError for a name that is there already."""
        for name in ("estimates", "by_layer", "tables", "facts"):
            mine, theirs = getattr(self, name), getattr(other, name)
            twice = set(mine) & set(theirs)
            if twice:
                raise ValueError(f"two parts of the evaluation name {', '.join(sorted(twice))}")
            mine.update(theirs)


def columns(rows: Sequence[Row], names: Sequence[str] = ()) -> dict[str, Any]:
    """Rows as columns: numbers as arrays (NaN where undefined), text as lists; `names`: the columns of an empty table."""
    names = list(rows[0]) if rows else list(names)
    out: dict[str, Any] = {}
    for name in names:
        values = [row[name] for row in rows]
        if any(isinstance(value, str) for value in values):
            out[name] = ["" if value is None else str(value) for value in values]
        elif values and all(isinstance(value, int | np.integer) for value in values):
            out[name] = np.array(values, np.int64)
        else:
            out[name] = np.array([np.nan if value is None else value for value in values], np.float64)
    return out


def status(estimate: Estimate) -> str:
    """`estimated`, `gated`, `undefined` or `ill_posed`."""
    if estimate.value is None:
        return ILL_POSED if (estimate.reason or "").startswith(ILL_POSED) else "undefined"
    return "gated" if estimate.gate else "estimated"


def cells(estimate: Estimate) -> dict[str, Any]:
    """The fields of a row that hold an estimate."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "plug_in": estimate.plug_in, "null": estimate.null, "p": estimate.p,
            "n_documents": estimate.n_units, "unit": estimate.unit, "status": status(estimate), "reason": estimate.reason or estimate.gate or ""}


def mean_of(estimates: Sequence[Estimate], *, df: int | None = None, independent: bool = False) -> Estimate:
    """Mean of estimates. independent: of disjoint documents, variances add; else each half-width is its own, and their mean is an upper bound.

    df: degrees of freedom of the mean of independent estimates. Undefined with the first reason where one is; gated by the first gate.
    """
    if not estimates:
        return Estimate.undefined(NOTHING)
    first = estimates[0]
    undefined = next((one for one in estimates if one.value is None), None)
    if undefined is not None:
        return Estimate.undefined(undefined.reason or NOTHING, unit=first.unit, n_units=first.n_units, method=first.method)
    value = float(np.mean([one.value for one in estimates if one.value is not None]))
    plug_in = [one.plug_in for one in estimates if one.plug_in is not None]
    null = [one.null for one in estimates if one.null is not None]
    half, se = _spread(estimates, df, independent)
    mean = replace(first, value=value, low=None if half is None else value - half, high=None if half is None else value + half, se=se, p=None,
                   plug_in=float(np.mean(plug_in)) if len(plug_in) == len(estimates) else None, gate=None, null_low=None, null_high=None,
                   null=float(np.mean(null)) if len(null) == len(estimates) else None,
                   method=f"mean of {len(estimates)}, {first.method}" if len(estimates) > 1 else first.method,
                   n_units=sum(one.n_units for one in estimates) if independent else first.n_units)
    return gated(mean, *(one.gate for one in estimates))


def _spread(estimates: Sequence[Estimate], df: int | None, independent: bool) -> tuple[float | None, float | None]:
    widths, errors = [one.half_width for one in estimates], [one.se for one in estimates]
    if independent:
        known = [one for one in errors if one is not None]
        if len(known) < len(errors) or not df:
            return None, None
        se = float(np.sqrt(np.sum(np.square(known)))) / len(known)
        return t_quantile(estimates[0].level, df) * se, se
    sizes = [one for one in widths if one is not None]
    if len(sizes) < len(widths):
        return None, None
    known = [one for one in errors if one is not None]
    return float(np.mean(sizes)), float(np.mean(known)) if len(known) == len(errors) else None
