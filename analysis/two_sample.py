"""Estimates of a metric of two independent samples of documents (source domain A, target domain B): two-sample delete-group jackknife.

G jackknife group of one sample, M component of a metric. Groups of A are left out with B whole, then groups of B with A whole; biases and
variances add over the two samples (metrics specification 2.1 B1, 4.2), and so do the degrees of freedom.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.estimation import Groups, Value, interval_estimates
from analysis.gates import ONE_DOCUMENT, gated
from analysis.kernels import Float
from analysis.registry import find
from analysis.resampling import Interval, left_out_interval, refuse_tokens

METHOD = "two-sample group jackknife"


def two_sample_interval(plug_in: Float, left_out_A: Float, left_out_B: Float, *, level: float = 0.95) -> Interval:
    """value = plug-in - bias_A - bias_B, SE^2 = var_A + var_B, ends +- t(G_A + G_B - 2) SE.

    plug_in [M...]; left_out_A [G_A, M...], left_out_B [G_B, M...]: the value without one group. bias_S = (G_S - 1)(mean - plug-in),
    var_S = (G_S - 1)/G_S sum (value - mean)^2. ValueError where a sample has one group: its spread is unknown, not 0.
    """
    if min(len(left_out_A), len(left_out_B)) < 2:
        raise ValueError("one document: a sample of one document has no spread; collect at least two in each domain")
    sample = np.repeat([0, 1], [len(left_out_A), len(left_out_B)])
    return left_out_interval(plug_in, np.concatenate([left_out_A, left_out_B]), level, sample)


def two_sample_jackknife(a: Groups, b: Groups, value: Value, *, level: float = 0.95, at_once: int = 2**24) -> Interval:
    """Bias-corrected value and interval of value(*tables of A, *tables of B), additive tables with leading batch axes.

    at_once: cells of the largest table made at a time. NaN in any replicate makes the corrected value NaN. ValueError as in
    two_sample_interval, and for any unit but the document.
    """
    refuse_tokens(a.unit)
    refuse_tokens(b.unit)
    plug_in = np.asarray(value(*a.totals, *b.totals), np.float64)
    without = [_left_out(left, right, value, first, at_once) for left, right, first in ((a, b, True), (b, a, False))]
    return two_sample_interval(plug_in, without[0], without[1], level=level)


def _left_out(groups: Groups, whole: Groups, value: Value, first: bool, at_once: int) -> Float:
    totals, others = groups.totals, whole.totals
    n = len(groups.tables[0])
    step = max(1, at_once // max(1, sum(x.size for x in (*totals, *others))))
    parts = []
    for i in range(0, n, step):
        mine = [total - np.asarray(table[i : i + step], np.float64) for total, table in zip(totals, groups.tables)]
        theirs = [x[None] for x in others]  # not spread over the replicates: what a metric makes of the other sample alone is made once
        made = np.asarray(value(*mine, *theirs) if first else value(*theirs, *mine), np.float64)
        parts.append(np.broadcast_to(made, (min(step, n - i), *made.shape[1:])))
    return np.concatenate(parts)


def two_sample_estimates(name: str, a: Groups, b: Groups, *, level: float = 0.95, value: Value | None = None) -> NDArray[Any]:
    """Estimates [M...] of a registered metric of two samples; `value` is its function with options bound.

    n_units is the smaller of the two numbers of documents. With one document in a sample the plug-in stays, without an interval and
    gated `one_document_per_domain`; where the metric is NaN the Estimate carries the registered reason.
    """
    metric, function = find(name), value or find(name).function
    n_documents = min(a.n_documents, b.n_documents)
    if min(len(a.tables[0]), len(b.tables[0])) > 1:
        interval = two_sample_jackknife(a, b, function, level=level)
        return interval_estimates(metric, interval, n_documents, METHOD, level=level)
    plug_in = np.asarray(function(*a.totals, *b.totals), np.float64)
    none = np.full_like(plug_in, np.nan)
    made = interval_estimates(metric, Interval(plug_in, plug_in, none, none, none), n_documents, METHOD, level=level)
    for place, one in np.ndenumerate(made):
        if one.value is not None:
            made[place] = gated(one, f"{ONE_DOCUMENT}: a domain of one document has no spread between documents")
    return made
