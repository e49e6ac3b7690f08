"""Values of a metric without each group of documents, or in each bootstrap replicate, kept: the difference of two checkpoints is theirs.

R draw (jackknife group left out, or replicate), M component (layers, then their mean), D document, G group. Two checkpoints seen on the same
documents under the same groups or weights differ by the differences of their draws (metrics specification 4.5, level 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.arithmetic import Float
from analysis.estimate import Estimate
from analysis.estimation import group_tables
from analysis.gates import CONFOUNDED, NO_DATA, few_documents, gated
from analysis.kernels import Int
from analysis.registry import find
from analysis.resampling import Interval, basic_interval, document_weights, generator, left_out_interval, percentile_interval

Kind = Literal["jackknife", "basic", "percentile", "none"]
METHODS: dict[Kind, str] = {"jackknife": "group jackknife", "basic": "basic document bootstrap", "percentile": "document bootstrap",
                            "none": "plug-in"}
Value = Callable[..., Any]


@dataclass(frozen=True)
class Draws:
    """One metric of one checkpoint: plug_in [M], drawn [R, M], and what they are.

    stratum [R]: of each left-out group, where groups were dealt inside domains. documents: digest of the resampled documents; draws of other
    documents are not paired. null [M]: value under the matched null. gate: why no verdict may rest on the number. undefined: reason of NaN.
    """

    unit: str
    plug_in: Float
    drawn: Float
    kind: Kind
    n_documents: int
    documents: str
    stratum: Int | None = None
    null: Float | None = None
    gate: str | None = None
    undefined: str = NO_DATA
    paired: bool = False

    def __sub__(self, other: Draws) -> Draws:
        """This checkpoint less another, draw by draw. ValueError for other documents, groups or kinds."""
        if (self.documents, self.kind, self.drawn.shape, self.unit) != (other.documents, other.kind, other.drawn.shape, other.unit):
            raise ValueError(f"{CONFOUNDED}: the checkpoints were not seen on the same documents under the same draws; trace both on one corpus")
        null = None if self.null is None or other.null is None else self.null - other.null
        return replace(self, plug_in=self.plug_in - other.plug_in, drawn=self.drawn - other.drawn, null=null, gate=self.gate or other.gate,
                       paired=True)

    def estimates(self, level: float = 0.95) -> list[Estimate]:
        """An Estimate per component: bias-corrected by the jackknife, plug-in with the bootstrap's interval otherwise."""
        return [self._estimate(place, level) for place in range(len(self.plug_in))]

    def _estimate(self, place: int, level: float) -> Estimate:
        plug_in, drawn = self.plug_in[place], self.drawn[:, place] if len(self.drawn) else np.zeros(0)
        method = f"paired {METHODS[self.kind]}" if self.paired and self.kind != "none" else METHODS[self.kind]
        if np.isnan(plug_in):
            return Estimate.undefined(self.undefined, unit=self.unit, n_units=self.n_documents, method=method)
        found = _interval(np.asarray(plug_in), drawn, self.kind, self.stratum, level)
        value, se, low, high = (_number(x) for x in (found.value, found.se, found.low, found.high))
        null = None if self.null is None else _number(self.null[place])
        made = Estimate(float(plug_in) if value is None else value, low, high, self.unit, "document", self.n_documents,
                        method if low is not None else "plug-in", level, plug_in=float(plug_in), se=se, null=null)
        return gated(made, self.gate, few_documents(self.n_documents))


def _interval(plug_in: Float, drawn: Float, kind: Kind, stratum: Int | None, level: float) -> Interval:
    nothing = np.asarray(np.nan)
    if kind == "jackknife" and not np.isnan(drawn).any() and len(drawn):
        return left_out_interval(plug_in, drawn, level, stratum)
    known = drawn[~np.isnan(drawn)]
    if kind in ("basic", "percentile") and len(known) > 1:
        low, high = basic_interval(plug_in, known, level) if kind == "basic" else percentile_interval(known, level)
        return Interval(plug_in, plug_in, np.asarray(known.std(ddof=1)), np.asarray(low), np.asarray(high))
    return Interval(plug_in, plug_in, nothing, nothing, nothing)


def _number(x: Any) -> float | None:
    return None if np.isnan(x) else float(x)


@dataclass(frozen=True)
class Documents:
    """What is resampled: how many, their digest, the stratum [D] inside which they are dealt (None: one), groups at most, replicates, seed."""

    n: int
    digest: str
    stratum: Sequence[str] | None = None
    max_groups: int = 50
    n_bootstrap: int = 999
    seed: int = 0


def layers_and_mean(values: Any) -> Float:
    """Values [..., L] with their mean over layers behind them [..., L + 1]; NaN where a layer is."""
    layers = np.asarray(values, np.float64)
    return np.concatenate([layers, layers.mean(axis=-1, keepdims=True)], axis=-1)


def jackknifed(name: str, tables_D: Sequence[NDArray[np.generic]], value: Value, documents: Documents, *, gate: str | None = None) -> Draws:
    """Leave-one-group-out values of additive per-document tables [D, ...], groups inside strata where there are any; value: tables -> [..., M]."""
    from analysis.resampling import jackknife_groups, stratified_groups

    group, stratum = (jackknife_groups(documents.n, 2 * documents.max_groups), None) if documents.stratum is None else \
        stratified_groups(documents.stratum, documents.max_groups)
    return left_out(name, group_tables(tables_D, group, stratum).tables, value, documents, stratum=stratum, gate=gate)


def left_out(name: str, tables_G: Sequence[NDArray[np.generic]], value: Value, documents: Documents, *, stratum: Int | None = None,
             gate: str | None = None) -> Draws:
    """The same from tables already summed over groups [G, ...]."""
    metric = find(name)
    totals = [np.asarray(table, np.float64).sum(axis=0) for table in tables_G]
    plug_in = np.asarray(value(*totals), np.float64)
    n_groups = len(tables_G[0]) if len(tables_G) else 0
    drawn = np.stack([np.asarray(value(*(total - table[g] for total, table in zip(totals, tables_G, strict=True))), np.float64)
                      for g in range(n_groups)]) if n_groups > 1 else np.zeros((0, len(plug_in)))
    return Draws(metric.unit, plug_in, drawn, "jackknife" if n_groups > 1 else "none", documents.n, documents.digest, stratum, gate=gate,
                 undefined=metric.undefined)


def bootstrapped(name: str, tables_D: Sequence[NDArray[np.generic]], value: Value, documents: Documents, *, kind: Kind = "basic",
                 gate: str | None = None) -> Draws:
    """Values in replicates of whole documents, drawn inside strata; weights depend on the seed and the metric's name alone."""
    metric, at_once = find(name), 128
    plug_in = np.asarray(value(*(np.asarray(table, np.float64).sum(axis=0) for table in tables_D)), np.float64)
    if documents.n < 2:
        return Draws(metric.unit, plug_in, np.zeros((0, len(plug_in))), "none", documents.n, documents.digest, gate=gate, undefined=metric.undefined)
    weights = document_weights(documents.n, documents.n_bootstrap, generator(documents.seed, name), documents.stratum)
    drawn = np.concatenate([np.asarray(value(*(_weighted(weights[i : i + at_once], table) for table in tables_D)), np.float64)
                            for i in range(0, len(weights), at_once)])
    return Draws(metric.unit, plug_in, drawn, kind, documents.n, documents.digest, gate=gate, undefined=metric.undefined)


def _weighted(weights_BD: Float, table_D: NDArray[np.generic]) -> Float:
    flat = np.asarray(table_D, np.float64).reshape(len(table_D), -1)
    return np.asarray(weights_BD @ flat).reshape(len(weights_BD), *np.shape(table_D)[1:])
