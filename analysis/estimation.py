"""Estimates of registered metrics: one mechanism from additive sums per group of documents to value, interval and reason.

G jackknife group, S stratum (domain), M component (layer, pair, expert) of a metric. Tokens are never resampled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import Estimate
from analysis.gates import NO_DATA, few_per_domain, gated
from analysis.kernels import Float, Int
from analysis.registry import Metric, find
from analysis.resampling import ONE_DOCUMENT, Interval, has_spread, left_out_interval, refuse_tokens, t_quantile

Value = Callable[..., Any]


@dataclass(frozen=True)
class Groups:
    """Additive tables summed over the documents of each jackknife group, one array [G, ...] per argument of a metric.

    n_documents: documents behind them; stratum: of each group [G], where groups were dealt inside domains; unit: what a group is made
    of (anything but documents is refused).
    """

    tables: tuple[NDArray[np.generic], ...]
    n_documents: int
    stratum: Int | None = None
    unit: str = "document"

    @property
    def totals(self) -> tuple[Float, ...]:
        """The tables summed over groups, float64 (exact below 2**53)."""
        return tuple(np.asarray(table, np.float64).sum(axis=0) for table in self.tables)


def jackknife(groups: Groups, value: Value, *, level: float = 0.95, at_once: int = 2**18) -> Interval:
    """Bias-corrected value, plug-in, SE and Student interval of a value of additive tables [M...], by leaving out one group at a time.

    value: tables with leading batch axes -> [batch..., M...]. Strata: biases, variances and degrees of freedom add (metrics
    specification 4.2). NaN in any replicate makes the corrected value NaN: undefined in a replicate is undefined.
    at_once: cells of the largest table made at a time. ValueError for one group, and for any unit but the document.
    """
    refuse_tokens(groups.unit)
    totals = groups.totals
    plug_in = np.asarray(value(*totals), np.float64)
    n_groups = len(groups.tables[0])
    if not has_spread(n_groups, groups.stratum):
        raise ValueError(ONE_DOCUMENT)
    step = max(1, at_once // max(1, sum(total.size for total in totals)))
    left_out = np.concatenate([
        np.asarray(value(*(total - np.asarray(table[i : i + step], np.float64) for total, table in zip(totals, groups.tables))), np.float64)
        .reshape(min(step, n_groups - i), *plug_in.shape) for i in range(0, n_groups, step)])
    return left_out_interval(plug_in, left_out, level, groups.stratum)


def estimates(name: str, groups: Groups, *, level: float = 0.95, value: Value | None = None) -> NDArray[Any]:
    """Jackknife Estimates of a registered metric, an object array of the metric's own shape [M...] (0-d for a scalar metric).

    value: the metric's function with options bound, where it has options. Where the metric is NaN the Estimate carries the
    registered reason; with one document, or where a replicate is undefined, the plug-in stays without an interval. A stratum (domain) of
    one document adds no spread: gated `one_document_per_domain`. ValueError for any unit but the document.
    """
    refuse_tokens(groups.unit)
    metric = find(name)
    function = value or metric.function
    if has_spread(len(groups.tables[0]), groups.stratum):
        interval = jackknife(groups, function, level=level)
    else:
        plug_in = np.asarray(function(*groups.totals), np.float64)
        interval = Interval(plug_in, plug_in, *(np.full_like(plug_in, np.nan) for _ in range(3)))
    found = interval_estimates(metric, interval, groups.n_documents, "group jackknife", level=level)
    if groups.stratum is not None:
        alone = few_per_domain(np.unique(groups.stratum, return_counts=True)[1].tolist(), floor=2)
        for place, one in np.ndenumerate(found):
            found[place] = one if one.value is None else gated(one, alone)
    return found


def document_weighted(name: str, tables_D: Sequence[NDArray[np.generic]], *, level: float = 0.95, value: Value | None = None) -> NDArray[Any]:
    """Mean over documents of a metric's value in each of them, SE = sd / sqrt(n), Student interval: the document-weighted Estimates [M...].

    tables_D: per-document tables [D, ...]; `estimates` of the same tables is token-weighted, another estimand: say which (metrics
    specification 1). Documents where the metric is undefined are left out, and n_units counts the rest. For means and shares: the plug-in
    bias of an entropy or of information inside one document stays. Undefined where no document has a value; no interval from one.
    """
    metric, function = find(name), value or find(name).function
    values = np.asarray(function(*(np.asarray(table, np.float64) for table in tables_D)), np.float64)
    out = np.empty(values.shape[1:], object)
    for place in np.ndindex(out.shape):
        known = values[(slice(None), *place)]
        known = known[~np.isnan(known)]
        n = len(known)
        mean = np.asarray(known.mean() if n else np.nan)
        se = np.asarray(known.std(ddof=1) / n**0.5 if n > 1 else np.nan)
        half = t_quantile(level, n - 1) * se if n > 1 else se
        found = interval_estimates(metric, Interval(mean, mean, se, mean - half, mean + half), n, "t over documents", level=level)
        out[place] = found.item()
    return out


def interval_estimates(metric: Metric, interval: Interval, n_documents: int, method: str, *, level: float = 0.95) -> NDArray[Any]:
    """An Interval as Estimates [M...]: NaN plug-in becomes undefined with the metric's reason, a NaN end becomes no interval."""
    out = np.empty(np.shape(interval.plug_in), object)
    for place in np.ndindex(out.shape):
        value, plug_in, se, low, high = (_number(x[place]) for x in (interval.value, interval.plug_in, interval.se, interval.low, interval.high))
        if plug_in is None:
            out[place] = Estimate.undefined(metric.undefined or NO_DATA, unit=metric.unit, n_units=n_documents, method=method)
        else:
            value = plug_in if value is None else value
            out[place] = Estimate(value, low, high, metric.unit, "document", n_documents, method if low is not None else "plug-in",
                                  level, plug_in=plug_in, se=se)
    return out


def _number(x: Any) -> float | None:
    return None if np.isnan(x) else float(x)


def group_tables(tables_D: Sequence[NDArray[np.generic]], group: Int, stratum: Int | None = None) -> Groups:
    """Per-document tables [D, ...] summed over the documents of each group; group [D]: see resampling.jackknife_groups."""
    n_groups = int(group.max()) + 1 if len(group) else 0
    summed = []
    for table in tables_D:
        out = np.zeros((n_groups, *np.shape(table)[1:]), np.int64 if np.issubdtype(np.asarray(table).dtype, np.integer) else np.float64)
        np.add.at(out, group, table)
        summed.append(out)
    return Groups(tuple(summed), len(group), stratum)
