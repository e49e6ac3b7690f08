"""Whether printed tables are arithmetically possible: usage rows, correlations with their p, purity with affinity (metrics specification 9).

E expert, D domain. A printed number stands for the interval that rounds to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import Float, entropy_bits

SEARCH_LIMIT = 2_000_000  # branches of the histogram search
ULP = 1e-9  # what binary fractions may add to half a printed digit


@dataclass(frozen=True)
class UsageRow:
    """A printed row of usage statistics of one layer (seed 001): counts of selections per expert, unused ones included.

    std: over all experts; cv: std / mean; entropy: bits; skewness, excess kurtosis: of the population, None where not printed. Printed to
    `decimals`: of mean, std and entropy, and of cv, skewness and kurtosis.
    """

    mean: float
    std: float
    cv: float
    entropy: float
    active: int
    skewness: float | None = None
    kurtosis: float | None = None
    decimals: tuple[int, int] = (2, 3)


def rounds_to(value: float, printed: float, decimals: int) -> bool:
    """Whether `value` is printed as `printed`, either way of rounding a half."""
    return bool(abs(value - printed) <= 0.5 * 10.0**-decimals + ULP)


def possible_totals(row: UsageRow, n_experts: int) -> tuple[int, ...]:
    """Numbers of selections N that print as the row's mean N / E."""
    centre, half = row.mean * n_experts, 0.5 * 10.0 ** -row.decimals[0] * n_experts
    return tuple(n for n in range(max(0, math.ceil(centre - half - 1)), math.floor(centre + half + 1) + 1)
                 if rounds_to(n / n_experts, row.mean, row.decimals[0]))


def possible_square_sums(row: UsageRow, n_experts: int, total: int, ddof: int = 0) -> tuple[int, ...]:
    """Sums of squared counts that print as the row's std and cv, given N; of N's parity, for n^2 and n are even together."""
    mean, free = total / n_experts, n_experts - ddof
    if total == 0 or free <= 0:
        return ()
    top = math.ceil((row.std + 10.0 ** -row.decimals[0]) ** 2 * free + total * mean) + 1
    bottom = math.floor(max(0.0, row.std - 10.0 ** -row.decimals[0]) ** 2 * free + total * mean) - 1
    sums = []
    for square in range(max(bottom, 0), top + 1):
        variance = (square - total * mean) / free
        if (square - total) % 2 == 0 and variance >= 0:
            std = math.sqrt(variance)
            if rounds_to(std, row.std, row.decimals[0]) and rounds_to(std / mean, row.cv, row.decimals[1]):
                sums.append(square)
    return tuple(sums)


@dataclass(frozen=True)
class UsageRowCheck:
    """What one printed row implies. sums_of_squares: every one that prints so, under ddof 0 and 1; renyi2_bits: of the only one, else None.

    consistent: some sum of squares under ddof 0 has renyi2 <= entropy <= log2(active), up to rounding.
    """

    total_selections: int | None
    sums_of_squares_ddof0: tuple[int, ...]
    sums_of_squares_ddof1: tuple[int, ...]
    renyi2_bits: float | None
    log2_active: float | None
    consistent: bool

    @property
    def sum_sq_ddof0(self) -> int | None:
        """The sum of squares under ddof 0 where there is exactly one."""
        return _only(self.sums_of_squares_ddof0)

    @property
    def sum_sq_ddof1(self) -> int | None:
        """The sum of squares under ddof 1 where there is exactly one."""
        return _only(self.sums_of_squares_ddof1)


def _only(values: Sequence[int]) -> int | None:
    return values[0] if len(values) == 1 else None


def check_usage_row(row: UsageRow, n_experts: int, total: int | None = None) -> UsageRowCheck:
    """Selections, sums of squares under ddof 0 and 1, and whether entropy lies between Renyi's of order 2 and log2 of the active experts.

    total: selections where known; else the only number that prints as the mean, None (and inconsistent) where there are more or none.
    """
    total = _only(possible_totals(row, n_experts)) if total is None else total
    log2_active = math.log2(row.active) if row.active > 0 else None
    if total is None or total == 0:
        return UsageRowCheck(total, (), (), None, log2_active, False)
    squares = tuple(possible_square_sums(row, n_experts, total, ddof) for ddof in (0, 1))
    half = 0.5 * 10.0 ** -row.decimals[0] + ULP
    fits = [math.log2(total**2 / s) <= row.entropy + half for s in squares[0]]
    consistent = any(fits) and log2_active is not None and row.entropy - half <= log2_active and row.active <= min(n_experts, total)
    only = _only(squares[0])
    return UsageRowCheck(total, squares[0], squares[1], None if only is None else math.log2(total**2 / only), log2_active, consistent)


@dataclass(frozen=True)
class UsageTableCheck:
    """The rows of a table together. total_selections: the same in all rows, else None."""

    rows: tuple[UsageRowCheck, ...]
    total_selections: int | None
    all_consistent: bool


def check_usage_table(rows: Sequence[UsageRow], n_experts: int) -> UsageTableCheck:
    """check_usage_row for every row, and whether all agree on the number of selections."""
    checks = tuple(check_usage_row(row, n_experts) for row in rows)
    totals = {one.total_selections for one in checks}
    total = next(iter(totals)) if len(totals) == 1 else None
    return UsageTableCheck(checks, total, bool(checks) and all(one.consistent for one in checks))


def count_histograms(row: UsageRow, n_experts: int) -> Iterator[dict[int, int]]:
    """Every histogram {count: experts} whose statistics print as the row's: mean, std (ddof 0), cv, entropy, active, skewness, kurtosis.

    Zeros included; in no particular order. ValueError where the search would pass SEARCH_LIMIT branches (rows of many selections).
    """
    for total in possible_totals(row, n_experts):
        for square in possible_square_sums(row, n_experts, total):
            # sum n^2 - 3 sum n + 2 active = sum (n-1)(n-2): experts with one or two selections leave it, and follow from the rest
            twice = square - 3 * total + 2 * row.active
            if twice < 0 or twice % 2 or not 0 < row.active <= n_experts:
                continue
            for tail in _triangular(twice // 2, row.active, _limits(row, n_experts, total)):
                twos = total - row.active - sum((n - 1) * h for n, h in tail.items())
                ones = row.active - twos - sum(tail.values())
                histogram = {n: h for n, h in sorted({0: n_experts - row.active, 1: ones, 2: twos, **tail}.items()) if h}
                if ones >= 0 and twos >= 0 and prints_as(histogram, row):
                    yield histogram


def _limits(row: UsageRow, n_experts: int, total: int) -> float:
    """Largest sum of cubed counts that the printed skewness allows; infinite where none is printed."""
    if row.skewness is None:
        return math.inf
    mean = total / n_experts
    std = row.std + 10.0 ** -row.decimals[0]
    third = max(0.0, row.skewness + 10.0 ** -row.decimals[1]) * std**3
    return n_experts * (third + 3 * mean * std**2 + mean**3)


def _triangular(target: int, most: int, cubes: float) -> Iterator[dict[int, int]]:
    """Ways to write `target` as a sum of at most `most` numbers C(n-1, 2), n >= 3, whose n^3 add up to at most `cubes`."""
    branches = 0

    def extend(n: int, left: int, room: int, cubes_left: float) -> Iterator[dict[int, int]]:
        nonlocal branches
        branches += 1
        if branches > SEARCH_LIMIT:
            raise ValueError(f"more than {SEARCH_LIMIT} ways to look through; print skewness, or check the row with check_usage_row")
        if left == 0:
            yield {}
            return
        while n >= 3 and (n - 1) * (n - 2) // 2 > left:
            n -= 1
        if n < 3:
            return
        size = (n - 1) * (n - 2) // 2
        for times in range(min(left // size, room), -1, -1):
            if times * n**3 <= cubes_left and (n > 3 or times * size == left):
                for rest in extend(n - 1, left - times * size, room - times, cubes_left - times * n**3):
                    yield {**rest, n: times} if times else rest

    yield from extend(target + 2, target, most, cubes)


def prints_as(histogram: dict[int, int], row: UsageRow) -> bool:
    """Whether counts with this histogram {count: experts} print as the row."""
    counts = np.repeat(np.array(list(histogram), np.float64), list(histogram.values()))
    few, more = row.decimals
    mean, std = float(counts.mean()), float(counts.std())
    if mean == 0 or std == 0:
        return False
    z = (counts - mean) / std
    printed = [(mean, row.mean, few), (std, row.std, few), (std / mean, row.cv, more), (float(entropy_bits(counts)), row.entropy, few)]
    if row.skewness is not None:
        printed.append((float((z**3).mean()), row.skewness, more))
    if row.kurtosis is not None:
        printed.append((float((z**4).mean()) - 3, row.kurtosis, more))
    return int((counts > 0).sum()) == row.active and all(rounds_to(*one) for one in printed)


@dataclass(frozen=True)
class DomainShares:
    """P(d) implied by purity and affinity of the experts of distinct domains; feasible where they add up to at most 1."""

    implied_p_domain: tuple[float, ...]
    sum: float
    feasible: bool


def implied_domain_shares(purity_E: Sequence[float], affinity_E: Sequence[float], decimals: tuple[int, int] = (2, 1)) -> DomainShares:
    """P(d) = purity / affinity, from purity(e) = P(d|e) = Aff(e, d) P(d); the shares of distinct domains cannot exceed 1 together.

    decimals: digits printed of purity and affinity; feasible if some numbers that print so fit. ValueError for an affinity of 0 or less.
    """
    if len(purity_E) != len(affinity_E) or not all(a > 0 for a in affinity_E):
        raise ValueError("one purity and one affinity above 0 is needed for each expert")
    shares = tuple(p / a for p, a in zip(purity_E, affinity_E))
    least = sum(max(0.0, p - 0.5 * 10.0 ** -decimals[0]) / (a + 0.5 * 10.0 ** -decimals[1]) for p, a in zip(purity_E, affinity_E))
    return DomainShares(shares, math.fsum(shares), least <= 1)


@dataclass(frozen=True)
class AffinityCheck:
    """sum_d P(d) Aff(e, d) of each expert, which is 1; deviation: the largest distance from 1; valid_E: 1 up to rounding."""

    weighted_mean_E: tuple[float, ...]
    deviation: float
    valid_E: tuple[bool, ...]

    @property
    def valid(self) -> bool:
        """Whether every row can be one of affinities."""
        return all(self.valid_E)


def check_affinity_rows(affinity_ED: ArrayLike, p_D: ArrayLike | None = None, decimals: int | None = None) -> AffinityCheck:
    """Check of the identity sum_d P(d) Aff(e, d) = 1, which holds for every used expert.

    p_D: declared P(d), 1/D by default. decimals: digits printed; a row is valid within what rounding moves its mean, 1e-9 if not rounded.
    Rows of an unused expert (NaN) are left out.
    """
    rows = np.atleast_2d(np.asarray(affinity_ED, np.float64))
    rows = rows[~np.isnan(rows).all(axis=1)]
    p = np.full(rows.shape[1], 1 / rows.shape[1]) if p_D is None else np.asarray(p_D, np.float64)
    if p.shape != rows.shape[1:] or abs(p.sum() - 1) > 1e-6:
        raise ValueError(f"P(d) must hold one share for each of the {rows.shape[1]} domains and add up to 1")
    mean: Float = rows @ p
    half = ULP if decimals is None else 0.5 * 10.0**-decimals + ULP
    off = np.abs(mean - 1)
    return AffinityCheck(tuple(mean.tolist()), float(off.max(initial=0.0)), tuple((off <= half).tolist()))


def correlation_p(rho: float, n: int) -> float:
    """Two-sided p of a correlation of n pairs by Student's law: t = rho sqrt((n - 2) / (1 - rho^2)) on n - 2."""
    from scipy.special import betainc

    if n < 3 or not -1 <= rho <= 1:
        raise ValueError("a p needs at least 3 pairs and a correlation in [-1, 1]")
    return float(betainc((n - 2) / 2, 0.5, 1 - rho**2))  # the same tail, without the cancellation of 1 - cdf


def pairs_from_p(rho: float, p: float, most: int = 2**31) -> int | None:
    """The number of pairs whose p is nearest to the printed one, on the log scale; None where no number up to `most` reaches it.

    ValueError for |rho| not in (0, 1) or p not in (0, 1).
    """
    if not 0 < abs(rho) < 1 or not 0 < p < 1:
        raise ValueError("a number of pairs follows from a correlation in (-1, 1) other than 0 and a p in (0, 1)")
    low, high = 3, 4
    while correlation_p(rho, high) > p:
        low, high = high, 2 * high
        if high > most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if correlation_p(rho, middle) > p else (low, middle)

    def distance(n: int) -> float:
        found = correlation_p(rho, n)
        return abs(math.log(found) - math.log(p)) if found > 0 else math.inf

    return min((low, high), key=distance)


def whole_from_share(part: int, share: float, decimals: int | None = None) -> tuple[float, float, float]:
    """part / share with the least and largest whole that print so: 1,234 at 12.3 % are 10,033, from 9,992 to 10,073.

    share: as a fraction; decimals: digits printed of the fraction. ValueError for a share of 0 or less.
    """
    half = 0.0 if decimals is None else 0.5 * 10.0**-decimals
    if share - half <= 0:
        raise ValueError("a whole follows from a share above 0 only")
    return part / share, part / (share + half), part / (share - half)
