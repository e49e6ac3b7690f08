"""Information of count tables in fixed point: integer sums, so that a value has the same bits for any order, thread and backend.

S stratum (of which tables are kept apart), X, Y variable of a table, G group left out.
A pair's value is J / (N 2**bits), with J = sum n_xy log2 n_xy + sum N_s log2 N_s - sum n_x log2 n_x - sum n_y log2 n_y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.arithmetic import LN2, Float
from analysis.kernels import Int
from analysis.resampling import Interval

LOG_TABLE = 2**16  # counts below are read from a table, larger ones computed
MOST_BITS = 40
INV_LN2 = 1 / LN2


@dataclass(frozen=True, eq=False)
class FixedLog:
    """n log2 n rounded to an integer with `bits` fractional bits: values [n < LOG_TABLE]; logs: log2 n, for larger n."""

    bits: int
    values: Int
    logs: Float

    @classmethod
    def of(cls, n_tokens: int) -> FixedLog:
        """As many bits as the sums over n_tokens leave free in 64, MOST_BITS at the most. ValueError from 2**40 tokens."""
        if n_tokens >= 2**40:
            raise ValueError(f"{n_tokens} tokens: sums of n log2 n need more than 64 bits; count a sample of documents")
        free = 62 - int(np.ceil(np.log2(4 * max(n_tokens, 2) * np.log2(max(n_tokens, 2)))))
        n = np.arange(LOG_TABLE, dtype=np.float64)
        logs = np.log2(np.maximum(n, 1))
        bits = min(MOST_BITS, free)
        return cls(bits, np.rint(n * logs * 2.0**bits).astype(np.int64), logs)

    def __call__(self, counts: NDArray[np.generic]) -> Int:
        """n log2 n of counts >= 0 of any shape."""
        n = np.asarray(counts, np.int64)
        if n.max(initial=0) < LOG_TABLE:
            return self.values[n]
        out = self.values[np.minimum(n, LOG_TABLE - 1)]
        large = n >= LOG_TABLE
        out[large] = self._large(n[large])
        return out

    def _large(self, n: Int) -> Int:
        """By log2(h 2**k + low) = k + log2 h + log1p(low / (h 2**k)): plain arithmetic, the same in the compiled twin."""
        k = np.frexp(n.astype(np.float64))[1].astype(np.int64) - 16
        high = n >> k
        r = (n - (high << k)) / (high << k)
        out: Int = np.rint(n * ((k + self.logs[high]) + (r - r * r / 2 + r * r * r / 3) * INV_LN2) * 2.0**self.bits).astype(np.int64)
        return out


def table_parts(table_SXY: Int, log: FixedLog) -> tuple[int, int]:
    """J (fixed point) and N of one table, summed over strata."""
    rows, columns, totals = table_SXY.sum(axis=2), table_SXY.sum(axis=1), table_SXY.sum(axis=(1, 2))
    value = log(table_SXY).sum() + log(totals).sum() - log(rows).sum() - log(columns).sum()
    return int(value), int(totals.sum())


def information_of_parts(parts: Int, log: FixedLog) -> Float:
    """Plug-in information in bits from parts [..., 2] = (J, N): [...], >= 0; NaN where N = 0."""
    n = parts[..., 1].astype(np.float64)
    value = np.divide(np.maximum(parts[..., 0], 0) / 2.0**log.bits, n, out=np.full(n.shape, np.nan), where=n > 0)
    return np.asarray(value, np.float64)


def moved_to(interval: Interval, plug_in: Float) -> Interval:
    """The same bias correction and error about another plug-in value: that of more draws than the deviations were made of."""
    offset = plug_in - interval.plug_in
    return Interval(interval.value + offset, plug_in, interval.se, interval.low + offset, interval.high + offset)
