"""Standard errors of mutual information from influence values of documents: one look-up a token (metrics specification 4.2).

T token, D document, L layer, P pair of layers, X, Y expert. Sums are integers in fixed point, so that they have the same bits for any
order of documents, thread and backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import frexp

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float
from analysis.kernels import Backend, Int, choose_backend, numba_loaded
from analysis.moved_rows import MovedRows, compiled, pairs_of, run

COMPILED_FROM = 20_000_000  # look-ups below which numba's start-up costs more than it saves


@dataclass(frozen=True, eq=False)
class InfluenceErrors:
    """Plug-in information [P] of layer pairs and its standard error [P] over documents, bits; n_tokens [P] with both choices.

    NaN where no token has both choices; the error is NaN with fewer than two documents.
    """

    information: Float
    se: Float
    n_tokens: Int


def document_influence(counts_DXY: ArrayLike) -> tuple[float, float, Float]:
    """I = sum p log2 p(x,y) / (p(x) p(y)) in bits, SE = sqrt(D / (D - 1) sum u_d^2) / N, and u_d = sum n_d,xy pmi(x,y) - N_d I [D].

    counts_DXY: tokens of each document by both choices. NaN for no tokens; SE is NaN for one document.
    Source: delta method; metrics specification 4.2.
    """
    counts = np.asarray(counts_DXY, np.int64)
    total = counts.sum(axis=0)
    pmi, n = pointwise_information(total), int(total.sum())
    if n == 0:
        return float("nan"), float("nan"), np.full(len(counts), np.nan)
    value = float((total * pmi).sum() / n)
    influence = (counts * pmi).sum(axis=(1, 2)) - counts.sum(axis=(1, 2)) * value
    return value, _error(influence, n), influence


def pointwise_information(table_XY: ArrayLike) -> Float:
    """pmi(x,y) = log2 n_xy N / (n_x n_y) in bits [X, Y], 0 for empty cells (which no token reads)."""
    n = np.asarray(table_XY, np.float64)
    expected = np.log2(np.maximum(n.sum(axis=1), 1))[:, None] + np.log2(np.maximum(n.sum(axis=0), 1))
    return np.asarray(np.where(n > 0, np.log2(np.maximum(n, 1)) + np.log2(max(n.sum(), 1)) - expected, 0.0), np.float64)


def influence_errors(
    first_L: Sequence[ArrayLike], n_experts: Sequence[int], starts: Int, pairs: ArrayLike, *, tables: Sequence[ArrayLike] | None = None,
    threads: int = 1, backend: Backend | None = None,
) -> InfluenceErrors:
    """Plug-in I(X_l; X_l') and its document standard error for layer pairs [P, 2], in a second pass over the tokens.

    first_L: choices [T] of each layer, -1 where there is none; starts [D+1]. tables: joint counts [X, Y] of each pair where they are
    known, counted here otherwise. Use beside the jackknife's bias-corrected value: the interval is value +- q SE.
    """
    chosen = pairs_of(pairs, len(first_L))
    work = int(starts[-1]) * len(chosen)
    rows = MovedRows.of(first_L, n_experts, backend or choose_backend(work, 0 if numba_loaded() else COMPILED_FROM))
    value, se, n_tokens = np.full(len(chosen), np.nan), np.full(len(chosen), np.nan), np.zeros(len(chosen), np.int64)
    waiting = iter(range(len(chosen)))

    def work_on() -> None:
        for place in waiting:
            a, b = (int(layer) for layer in chosen[place])
            table = rows.table(a, b, rows.identity())[0] if tables is None else np.asarray(tables[place], np.int64)
            n = int(table.sum())
            n_tokens[place] = n
            if n:
                pmi = pointwise_information(table)
                value[place] = float((table * pmi).sum() / n)
                se[place] = _error(_pair_influence(rows, a, b, starts, pmi, value[place]), n)

    run(work_on, min(threads, max(1, len(chosen))))
    return InfluenceErrors(value, se, n_tokens)


def _pair_influence(rows: MovedRows, a: int, b: int, starts: Int, pmi: Float, value: float) -> Float:
    """u_d [D] of one pair; pmi - I is held with as many fractional bits as the sums leave free, and is 0 where a choice is missing."""
    scale = 2.0 ** (61 - frexp(float(np.abs(pmi - value).max()) * max(rows.n_rows, 1) + 1)[1])
    weights = np.zeros((1 << rows.lg, 1 << rows.lg), np.int64)
    weights[: pmi.shape[0], : pmi.shape[1]] = np.rint((pmi - value) * scale)
    if rows.backend == "numba":
        sums = np.zeros(len(starts) - 1, np.int64)
        compiled("influence")(rows.x_LT[a], rows.y_LT[b], starts, rows.lg, weights.reshape(-1), sums)
        return sums / scale
    running = np.concatenate([[0], np.cumsum(weights[rows.x_LT[a], rows.y_LT[b]])])
    return np.asarray((running[starts[1:]] - running[starts[:-1]]) / scale, np.float64)


def _error(influence: Float, n_tokens: int) -> float:
    n = len(influence)
    return float(np.sqrt(n / (n - 1) * ordered_sum(influence**2)) / n_tokens) if n > 1 else float("nan")


def ordered_sum(values: NDArray[np.float64]) -> float:
    """Sum of nonnegative reals that has the same bits for any order: in units so small that integers hold it, then what that rounding left."""
    largest = float(values.max(initial=0.0))
    if largest == 0.0:
        return 0.0
    total, rest = 0.0, values
    for _ in range(2):
        scale = 2.0 ** min(1000, 62 - frexp(largest)[1] - len(values).bit_length())
        whole = np.rint(rest * scale)
        total += int(whole.astype(np.int64).sum()) / scale
        rest, largest = rest - whole / scale, 1 / scale
    return total
