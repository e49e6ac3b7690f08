"""Values of a statistic on all documents and without each group of them: what a jackknife needs once the tables are gone.

G jackknife group, M component (layer pair, layer, distance). Means of components are means of their replicates, so that an aggregate over
layer pairs gets its own interval over the same documents without holding the tables of more than one pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.estimation import Groups, estimates
from analysis.kernels import Float, Int
from analysis.resampling import refuse_tokens


@dataclass(frozen=True)
class LeftOut:
    """plug_in [M...] from the totals, left_out [G, M...] from the totals without each group; stratum [G] as in estimation.Groups."""

    plug_in: Float
    left_out: Float
    n_documents: int
    stratum: Int | None = None

    def estimates(self, metric: str, *, level: float = 0.95) -> NDArray[Any]:
        """Bias-corrected Estimates [M...] of a registered metric, as estimation.estimates gives them from the tables."""
        n_groups = len(self.left_out)
        if not n_groups:
            raise ValueError("no group of documents: collect documents before estimating")

        def value(present: Float) -> Float:
            return self.plug_in if present.ndim == 1 else self.left_out[present.argmin(axis=-1)]

        return estimates(metric, Groups((np.eye(n_groups),), self.n_documents, self.stratum), level=level, value=value)

    def mean(self, members: Sequence[Sequence[int]]) -> LeftOut:
        """Mean over the components of each list, [len(members)]; NaN where a member is NaN, or a list empty."""
        def over(values: Float) -> Float:
            empty = np.full(values.shape[:-1], np.nan)
            return np.stack([values[..., list(chosen)].mean(axis=-1) if len(chosen) else empty for chosen in members], axis=-1)

        return LeftOut(over(self.plug_in), over(self.left_out), self.n_documents, self.stratum)


def leave_out(groups: Groups, value: Callable[..., Any], *, at_once: int = 2**18) -> LeftOut:
    """A value of additive tables (leading batch axes) on the totals and without each group; at_once: cells of a table made at a time.

    ValueError for any unit but the document.
    """
    refuse_tokens(groups.unit)
    totals = groups.totals
    tables = [np.asarray(table, np.float64) for table in groups.tables]
    step = max(1, at_once // max(1, sum(total.size for total in totals)))
    parts = [np.asarray(value(*(total - table[i : i + step] for total, table in zip(totals, tables))), np.float64)
             for i in range(0, len(tables[0]), step)]
    plug_in = np.asarray(value(*totals), np.float64)
    left_out = np.concatenate(parts) if parts else np.zeros((0, *plug_in.shape))
    return LeftOut(plug_in, left_out, groups.n_documents, groups.stratum)


def stack(parts: Sequence[LeftOut]) -> LeftOut:
    """Scalar replicates of the same groups side by side, M = len(parts). ValueError where groups or documents differ."""
    if not parts:
        raise ValueError("nothing to stack: give at least one layer pair")
    first = parts[0]
    for part in parts:
        if len(part.left_out) != len(first.left_out) or part.n_documents != first.n_documents:
            raise ValueError(f"{len(part.left_out)} groups of {part.n_documents} documents beside {len(first.left_out)} of {first.n_documents}; "
                             "count every layer pair over the same groups of documents")
    return LeftOut(np.stack([part.plug_in for part in parts], axis=-1), np.stack([part.left_out for part in parts], axis=-1),
                      first.n_documents, first.stratum)
