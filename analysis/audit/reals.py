"""Findings about weights and entropies: missing ones, sums that are not what the meta says, entropies that no router can have."""

from __future__ import annotations

import numpy as np

from analysis.audit.flaw import Flaw, flaw
from analysis.audit.observed import Observed
from analysis.audit.words import declared_sum

MIXED = 0.001  # share of rows


def missing_entropies(seen: Observed) -> Flaw | None:
    """Rows with an entropy that is no number in some layer, and the occurrences of the token types that have such rows."""
    layers = seen.layers
    if not layers.rows_missing:
        return None
    words = f"{layers.rows_missing:,} rows lack an entropy in some layer"
    if layers.types is not None:
        touched = np.flatnonzero(layers.types_missing)
        carried = int(layers.types[touched].sum())
        words += f"; the {len(touched):,} token types of these rows carry {carried:,} occurrences ({carried / seen.n_rows:.1%})"
    return flaw("missing_entropies", layers.rows_missing, seen.n_rows, "rows", words, [one.layer.key for one in layers.layers if one.missing])


def weights_sum(seen: Observed) -> Flaw | None:
    """Rows whose weights do not sum to 1 where the meta says so, exceed 1 where they are a part of a softmax, or sum to 1 where they are not to."""
    if not seen.layers.has_weights:
        return None
    kind, _ = declared_sum(seen.meta.weights_mean)
    count, where, words = 0, [], ""
    for one in seen.layers.layers:
        partial = one.layer.top_k < one.layer.n_experts
        if kind == "one":
            wrong = one.not_one
        elif kind == "below":
            wrong = one.above_one if one.above_one or not partial or one.not_one > MIXED * one.sums else one.sums - one.not_one
        else:
            mixed = one.above_one and one.sums - one.not_one > MIXED * one.sums and one.not_one > MIXED * one.sums
            wrong = one.not_one if mixed else 0
        if wrong + one.missing_weights:
            count += wrong + one.missing_weights
            where.append(one.layer.key)
            words = words or f"their mean sum is {one.sum_total / max(one.sums, 1):.3g} in {one.layer.key}"
    if not count:
        return None
    missing = sum(one.missing_weights for one in seen.layers.layers)
    lacking = f"{missing:,} rows have weights that are no numbers; " if missing else ""
    return flaw("weights_sum", count, sum(one.rows for one in seen.layers.layers), "rows of layers",
                f"{lacking}the meta says {seen.meta.weights_mean!r}; {words}", where)


def entropy_range(seen: Observed) -> Flaw | None:
    """Rows whose entropy is above ln E, below 0, or at odds with the largest probability or the sum of squares."""
    layers = [one for one in seen.layers.layers if one.above or one.impossible]
    if not layers:
        return None
    above, odd = sum(one.above for one in layers), sum(one.impossible for one in layers)
    words = [f"{above:,} rows above ln E"] if above else []
    words += [f"{odd:,} rows that top1_prob or simpson rule out"] if odd else []
    return flaw("entropy_range", above + odd, sum(one.reals for one in seen.layers.layers), "rows of layers", " and ".join(words),
                [one.layer.key for one in layers])
