"""The per-type table of router statistics in one pass: frequency, entropy and confidence moments and extremes, first choices.

N row (token), V token type, E expert. A type's sums are one packed row of 64-bit integers, so that an occurrence touches one or two
cache lines; reals are in fixed point with 28 fractional bits and their squares exact, so that no sum depends on the order of rows.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis import halves
from analysis.kernels import Backend, choose_backend, compiled, numba_loaded, segment_sums

Float = NDArray[np.float64]
Int = NDArray[np.int64]

HEAD = 8  # words before the experts: entropy, its square (low, high 32 bits), confidence, its square, largest entropy, least (negated)
ONE = 2.0**28
EMPTY = -(2**62)  # largest of nothing
MOST_NATS = 8.0  # of entropy: 31 bits, so that its square has 62
COMPILED_FROM = 500_000  # rows added by numpy before numba's start-up repays itself
LOW = 2**32 - 1


@dataclass(frozen=True)
class TypeMoments:
    """Columns by type [V]: occurrences, moments (std with ddof 1) and extremes of entropy in nats and of confidence, first choices [V, E].

    NaN where a type does not occur, or occurs once (std); top_expert is the lowest of the most frequent, -1 where none.
    """

    n: Int
    mean_entropy: Float
    std_entropy: Float
    min_entropy: Float
    max_entropy: Float
    mean_confidence: Float
    std_confidence: Float
    routing_consistency: Float
    top_expert: Int
    first_choices: Int


def type_moments(types: ArrayLike, probabilities: ArrayLike, n_types: int, *, threads: int = 1, backend: Backend | None = None) -> TypeMoments:
    """Per-type statistics of the rows: types [N] and router probabilities [N, E], float16 or bfloat16 as uint16 patterns, float32, float64.

    A memory map is read once, slice by slice. threads: rows are shared out, with a table each; the bits do not depend on it. ValueError
    as halves.of_probabilities, and for a type outside [0, n_types). Source: seed 003, columns of `routing_stats`.
    """
    rows = np.asarray(probabilities)
    sums = TypeSums(n_types, rows.shape[-1])
    sums.add(types, rows, threads=threads, backend=backend)
    return sums.moments()


class TypeSums:
    """Sums of the rows of each type, added slice by slice; after an error they are of no use."""

    def __init__(self, n_types: int, n_experts: int) -> None:
        if n_types < 1 or n_experts < 1:
            raise ValueError(f"n_types, n_experts: {n_types}, {n_experts}; there is at least one of each")
        self.n_experts = n_experts
        self._rows = np.zeros((n_types, -(-(HEAD + n_experts) // 8) * 8), np.int64)
        self._rows[:, 6:HEAD] = EMPTY

    def add(self, types: ArrayLike, probabilities: ArrayLike, *, threads: int = 1, backend: Backend | None = None) -> None:
        """Add rows of router probabilities [N, E]."""
        v, rows = self._checked(types), np.asarray(probabilities)
        if rows.shape != (len(v), self.n_experts):
            raise ValueError(f"probabilities: shape {rows.shape}; {len(v)} types of {self.n_experts} experts need {(len(v), self.n_experts)}")
        half = rows.dtype in (np.float16, np.uint16) and self.n_experts <= halves.MOST_EXPERTS
        if not half or _chosen(len(v), backend) == "numpy":
            self._add_plain(v, rows)
            return
        shares = np.linspace(0, len(v), max(1, min(threads, len(v) // COMPILED_FROM)) + 1).astype(np.int64).tolist()
        parts = [self, *(TypeSums(len(self._rows), self.n_experts) for _ in shares[2:])]
        with ThreadPoolExecutor(len(parts)) as pool:
            jobs = [pool.submit(part._add_compiled, v[a:b], rows[a:b], a) for part, a, b in zip(parts, shares[:-1], shares[1:])]
            for job in jobs:
                job.result()
        for part in parts[1:]:
            self.merge(part)

    def add_columns(
        self, types: ArrayLike, entropy_nats: ArrayLike, confidence: ArrayLike, first: ArrayLike, *, backend: Backend | None = None
    ) -> None:
        """Add rows whose entropy [0, 8), largest probability [0, 1] and first choice are known [N]."""
        v, h, c, e = self._checked(types), np.asarray(entropy_nats), np.asarray(confidence), np.asarray(first)
        for name, column, top in (("entropy_nats", h, MOST_NATS), ("confidence", c, 1.0), ("first", e, self.n_experts - 1)):
            if column.shape != v.shape:
                raise ValueError(f"{name}: shape {column.shape}, but there are {len(v)} types")
            if len(v) and not (column.min() >= 0 and column.max() <= top):
                row = int(np.flatnonzero(~((column >= 0) & (column <= top)))[0])
                raise ValueError(f"{name}: {column[row]} at row {row} is outside [0, {top:g}]; leave the row out, or collect it again")
        if _chosen(len(v), backend) == "numpy":
            self._add_fixed(v, _fixed(h), _fixed(c), e.astype(np.int64))
            return
        h, c = (np.ascontiguousarray(x, np.float64 if x.dtype == np.float16 else None) for x in (h, c))
        compiled("add_columns", "compiled_types")(v, h, c, np.ascontiguousarray(e), self._rows)

    def merge(self, other: TypeSums) -> None:
        """Add another's sums."""
        largest = np.maximum(self._rows[:, 6:HEAD], other._rows[:, 6:HEAD])
        self._rows += other._rows
        self._rows[:, 6:HEAD] = largest

    def moments(self) -> TypeMoments:
        """The table of what was added."""
        choices = self._rows[:, HEAD : HEAD + self.n_experts].copy()
        n = choices.sum(axis=1)
        seen = n > 0
        mean_h, std_h = _moments(n, self._rows[:, 0:3])
        mean_c, std_c = _moments(n, self._rows[:, 3:6])
        most, least = (np.where(seen, self._rows[:, 6], 0) / ONE, np.where(seen, -self._rows[:, 7], 0) / ONE)
        share = np.divide(choices.max(axis=1), n, out=np.full(len(n), np.nan), where=seen)
        return TypeMoments(n, mean_h, std_h, np.where(seen, least, np.nan), np.where(seen, most, np.nan), mean_c, std_c, share,
                           np.where(seen, choices.argmax(axis=1), -1), choices)

    def _checked(self, types: ArrayLike) -> NDArray[np.integer[Any]]:
        v: NDArray[np.integer[Any]] = np.asarray(types)
        if v.ndim != 1 or not np.issubdtype(v.dtype, np.integer):
            raise ValueError(f"types: {v.dtype} of shape {v.shape}; give one integer per row")
        if len(v) and (int(v.min()) < 0 or int(v.max()) >= len(self._rows)):
            row = int(np.flatnonzero((v < 0) | (v >= len(self._rows)))[0])
            raise ValueError(f"types: {int(v[row])} at row {row}, but there are {len(self._rows)} types; correct n_types")
        return np.ascontiguousarray(v)

    def _add_compiled(self, types: NDArray[np.integer[Any]], rows: NDArray[np.generic], start: int) -> None:
        codes, is_float16 = halves.codes_of(rows), rows.dtype == np.float16
        allowed = halves.largest_deviation(is_float16)
        kernel = compiled("add_probabilities", "compiled_types")
        added = kernel(types, codes, halves.probability_terms(is_float16), int(allowed * halves.P_ONE), halves.one_pattern(is_float16), self._rows)
        if added < len(codes):
            halves.refuse(codes[added:], is_float16, allowed, start + added)

    def _add_plain(self, types: NDArray[np.integer[Any]], rows: NDArray[np.generic]) -> None:
        step = max(1, halves.BLOCK_VALUES // self.n_experts)
        for a in range(0, len(types), step):
            found = halves.of_probabilities(rows[a : a + step], backend="numpy", first_row=a)
            self._add_fixed(types[a : a + step], _fixed(found.entropy_nats), _fixed(found.confidence), found.first)

    def _add_fixed(self, types: NDArray[np.integer[Any]], h: Int, c: Int, first: Int) -> None:
        columns = np.stack([h, h * h & LOW, h * h >> 32, c, c * c & LOW, c * c >> 32])
        v = types.astype(np.int64)
        present, sums = segment_sums(v, columns)
        self._rows[present, :6] += sums.T
        np.maximum.at(self._rows[:, 6], v, h)
        np.maximum.at(self._rows[:, 7], v, -h)
        np.add.at(self._rows, (v, HEAD + first), 1)


def _chosen(n_rows: int, backend: Backend | None) -> Backend:
    return backend or choose_backend(n_rows, 0 if numba_loaded() else COMPILED_FROM)


def _fixed(reals: NDArray[np.generic]) -> Int:
    return np.rint(reals.astype(np.float64) * ONE).astype(np.int64)


def _moments(n: Int, sums: Int) -> tuple[Float, Float]:
    """Mean and standard deviation (ddof 1) from sums of values and of the low and high halves of their squares.

    Squares about the mean cancel where a type's rows are alike: their sum is taken exactly, modulo 2^64, where it is below 2^62.
    """
    mean = np.divide(sums[:, 0] / ONE, n, out=np.full(len(n), np.nan), where=n > 0)
    several = np.flatnonzero(n > 1)
    count, (total, low, high) = n[several], sums[several].T
    centre = total // count
    rest = total - count * centre
    crossed = centre * (total + rest)  # sum (x - centre)^2 = sum x^2 - centre (2 sum x - n centre); wraps around 2^64, as does sum x^2
    squared = high * 2.0**32 + low - centre * (total + rest).astype(np.float64)
    small = (low + (high << 32) - crossed).view(np.uint64).astype(np.float64)
    squared = np.where(squared < 2.0**62, small, squared)
    std = np.full(len(n), np.nan)
    std[several] = np.sqrt((squared - rest * (rest / count)) / (count - 1)) / ONE
    return mean, std
