"""Permutation p-values: labels of whole documents, and labels of domains or experts.

D document, R draw or arrangement, E expert, N label. Tokens are never permuted here: see analysis.shuffles for what may be shuffled
inside strata, and analysis.shift for cross-layer information.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, permutations, product
from math import ceil, factorial, prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float, divide
from analysis.gates import ONE_DOCUMENT, UNTESTABLE
from analysis.kernels import Int, mix

TIES = 1e-9  # relative: statistics of mirrored arrangements differ in their last bits
AT_ONCE = 2**22  # labels held at a time


@dataclass(frozen=True)
class LabelPlan:
    """All arrangements where there are at most most_exact of them, else n_draws random ones keyed by seed."""

    n_draws: int = 9_999
    seed: int = 0
    most_exact: int = 100_000
    alpha: float = 0.05


@dataclass(frozen=True)
class PermutationTest:
    """A statistic and its permutation p-value; p is None exactly where `reason` says why.

    n_arrangements: distinct ones (an exact p counts all of them, the observed one included); n_draws: random ones, 0 where exact.
    """

    observed: float
    p: float | None
    n_arrangements: int
    n_draws: int
    reason: str | None = None

    @property
    def exact(self) -> bool:
        """Whether every arrangement was counted."""
        return self.p is not None and self.n_draws == 0


def p_value(observed: ArrayLike, null: ArrayLike, ties: float = 0.0) -> Float:
    """p = (1 + #{null >= observed}) / (M + 1) over the first axis of null [M, ...]: (0, 1]; NaN where either is NaN.

    ties: relative difference up to which a draw counts as equal. Source: Phipson & Smyth 2010; metrics specification 3.3.
    """
    value, draws = np.asarray(observed, np.float64), np.asarray(null, np.float64)
    least = value - ties * np.maximum(np.abs(value), 1.0)
    p = (1 + (draws >= least).sum(axis=0)) / (len(draws) + 1)
    return np.asarray(np.where(np.isnan(value) | np.isnan(draws).any(axis=0), np.nan, p), np.float64)


def needed_draws(n_tests: int, alpha: float = 0.05) -> int:
    """Least M with M + 1 >= 20 m / alpha: the draws that a Holm correction over m tests can resolve (metrics specification 5.3)."""
    return ceil(20 * n_tests / alpha) - 1


def unresolved(n_draws: int, n_tests: int, alpha: float = 0.05) -> str | None:
    """Why n_draws are too few for n_tests at alpha, else None."""
    needed = needed_draws(n_tests, alpha)
    return None if n_draws >= needed else f"{UNTESTABLE}: {n_draws} draws for {n_tests} tests at {alpha:g}; {needed} needed"


def n_arrangements(labels: ArrayLike, strata: ArrayLike | None = None) -> int:
    """Distinct arrangements of the labels [D] inside strata: product over strata of n! / prod(n_label!)."""
    codes, stratum = _codes(labels), _strata(strata, len(np.asarray(labels)))
    return prod(factorial(int((stratum == s).sum())) // prod(factorial(n) for n in np.bincount(codes[stratum == s]).tolist())
                for s in np.unique(stratum))


def label_permutation_test(
    labels: ArrayLike, statistic: Callable[[Int], Float], plan: LabelPlan, *, keys: NDArray[np.uint64], strata: ArrayLike | None = None
) -> PermutationTest:
    """p of a statistic of document labels when whole documents change labels inside strata (metrics specification 5.2).

    labels [D], any values; statistic: label codes [R, D] (from 0, in the order of the sorted labels) -> [R], large where labels matter.
    keys [D]: of each document (nulls.document_keys), so that draws do not depend on the order of documents. Undefined (`untestable`) where
    every label has one document, or 1 / #arrangements > alpha: that is not "not significant".
    """
    codes, stratum = _codes(labels), _strata(strata, len(np.asarray(labels)))
    observed = float(statistic(codes[None])[0])
    total = n_arrangements(codes, stratum)
    if len(codes) and np.bincount(codes).max() == 1:
        return PermutationTest(observed, None, total, 0, f"{UNTESTABLE}: {ONE_DOCUMENT}: no label has a second document")
    if 1 / total > plan.alpha:
        return PermutationTest(observed, None, total, 0, f"{UNTESTABLE}: {total} arrangements, so that p cannot fall below {1 / total:.3g}")
    if total <= plan.most_exact:
        values = np.concatenate([statistic(block) for block in _blocks(_arrangements(codes, stratum), len(codes))])
        return PermutationTest(observed, _share(observed, values), total, 0)
    step = max(1, AT_ONCE // max(1, len(codes)))
    draws = np.concatenate([statistic(_drawn(codes, stratum, keys, range(first, min(first + step, plan.n_draws)), plan.seed))
                            for first in range(0, plan.n_draws, step)])
    return PermutationTest(observed, float(p_value(observed, draws, TIES)), total, plan.n_draws)


def label_tables(codes_RD: Int, counts_DE: ArrayLike, n_labels: int) -> Float:
    """Counts [R, N, E] of the documents of each label: exact below 2**53."""
    counts = np.asarray(counts_DE, np.float64)
    return np.stack([(codes_RD == label).astype(np.float64) @ counts for label in range(n_labels)], axis=1)


def pearson_chi_square(counts_NE: ArrayLike) -> Float:
    """X^2 = sum (n - n_d n_e / N)^2 / (n_d n_e / N) over used columns and rows of [..., N, E]: [...]; NaN for no counts.

    A statistic for label permutations. Its chi-square p-value is not used: tokens of a document are not independent.
    """
    n = np.asarray(counts_NE, np.float64)
    total = n.sum(axis=(-2, -1))
    expected = divide(n.sum(axis=-1)[..., :, None] * n.sum(axis=-2)[..., None, :], total[..., None, None])
    cells = np.divide((n - expected) ** 2, expected, out=np.zeros_like(n), where=expected > 0)
    return np.asarray(np.where(total > 0, cells.sum(axis=(-2, -1)), np.nan), np.float64)


def association_test(labels: ArrayLike, counts_DE: ArrayLike, plan: LabelPlan, *, keys: NDArray[np.uint64],
                     strata: ArrayLike | None = None) -> PermutationTest:
    """Document-label permutation test of domain x expert association: statistic Pearson X^2 on the experts in use (specification 5.2a)."""
    counts = np.asarray(counts_DE, np.float64)
    used = counts[:, counts.sum(axis=0) > 0]
    n_labels = len(np.unique(np.asarray(labels)))

    def statistic(codes_RD: Int) -> Float:
        step = max(1, AT_ONCE // max(1, n_labels * used.shape[1]))
        return np.concatenate([pearson_chi_square(label_tables(codes_RD[i : i + step], used, n_labels)) for i in range(0, len(codes_RD), step)])

    return label_permutation_test(labels, statistic, plan, keys=keys, strata=strata)


def matched_permutation_test(n: int, statistic: Callable[[Int], Float], plan: LabelPlan, *, keys: NDArray[np.uint64] | None = None
                             ) -> PermutationTest:
    """p of a statistic of two sets of n named things when the names of one are permuted: orders [R, n] -> [R], large where they agree.

    For vectors use x against y[order]; for matrices A against B[order][:, order] (quadratic assignment: rows and columns together).
    Every order where n! <= most_exact, drawn ones otherwise. Untestable where 1 / n! > alpha.
    """
    observed = float(statistic(np.arange(n)[None])[0])
    total = factorial(n)
    if 1 / total > plan.alpha:
        return PermutationTest(observed, None, total, 0, f"{UNTESTABLE}: {total} orders of {n} names, so that p cannot fall below {1 / total:.3g}")
    if total <= plan.most_exact:
        values = np.concatenate([statistic(block) for block in _blocks(permutations(range(n)), n)])
        return PermutationTest(observed, _share(observed, values), total, 0)
    seeds = np.arange(n, dtype=np.uint64) if keys is None else keys
    draws = np.concatenate([statistic(np.argsort(_random(seeds, range(first, min(first + 1024, plan.n_draws)), plan.seed), axis=1))
                            for first in range(0, plan.n_draws, 1024)])
    return PermutationTest(observed, float(p_value(observed, draws, TIES)), total, plan.n_draws)


def quadratic_assignment(a: ArrayLike, b: ArrayLike, plan: LabelPlan, *, rank: bool = True) -> PermutationTest:
    """One-sided p that the off-diagonals of two symmetric or directed matrices [n, n] over the same names agree (Mantel; specification 2.1).

    Statistic: Spearman (rank) or Pearson correlation over the n (n - 1) off-diagonal cells. ValueError for shapes that differ.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape or first.ndim != 2 or first.shape[0] != first.shape[1]:
        raise ValueError(f"two square matrices over the same names are needed, not {first.shape} and {second.shape}")
    off = ~np.eye(len(first), dtype=bool)
    one, other = np.zeros_like(first), np.zeros_like(second)
    one[off], other[off] = (_standard(m[off], rank) for m in (first, second))
    return matched_permutation_test(
        len(first), lambda orders: np.array([(one[off] * other[np.ix_(o, o)][off]).sum() for o in orders]), plan)


def _standard(values: Float, rank: bool) -> Float:
    from scipy.stats import rankdata

    v = rankdata(values) if rank else values
    centred = v - v.mean()
    return divide(centred, np.full(len(v), np.sqrt((centred**2).sum())))


def _share(observed: float, values: Float) -> float:
    return float((values >= observed - TIES * max(abs(observed), 1.0)).mean())


def _codes(labels: ArrayLike) -> Int:
    return np.unique(np.asarray(labels), return_inverse=True)[1].astype(np.int64)


def _strata(strata: ArrayLike | None, n: int) -> Int:
    if strata is None:
        return np.zeros(n, np.int64)
    if len(np.asarray(strata)) != n:
        raise ValueError(f"strata has {len(np.asarray(strata))} entries, one per document ({n}) needed")
    return _codes(strata)


def _arrangements(codes: Int, stratum: Int) -> Iterator[Sequence[int]]:
    members = [np.flatnonzero(stratum == s) for s in np.unique(stratum)]
    for parts in product(*(list(_distinct(np.bincount(codes[m]).tolist())) for m in members)):
        row = np.empty(len(codes), np.int64)
        for where, part in zip(members, parts):
            row[where] = part
        yield row.tolist()


def _distinct(counts: list[int]) -> Iterator[list[int]]:
    """Every distinct order of counts[i] copies of i."""
    n, last = sum(counts), len(counts) - 1
    while last > 0 and counts[last] == 0:
        last -= 1
    if last == 0:
        yield [0] * n
        return
    for places in combinations(range(n), counts[last]):
        taken = set(places)
        for rest in _distinct(counts[:last]):
            others = iter(rest)
            yield [last if i in taken else next(others) for i in range(n)]


def _blocks(rows: Iterator[Sequence[int]], width: int) -> Iterator[Int]:
    while block := list(islice(rows, max(1, AT_ONCE // max(1, width)))):
        yield np.asarray(block, np.int64)


def _random(keys: NDArray[np.uint64], draws: range, seed: int) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        return mix(mix(keys ^ mix(np.asarray([seed], np.int64).astype(np.uint64))) + np.asarray(draws, np.uint64)[:, None])


def _drawn(codes: Int, stratum: Int, keys: NDArray[np.uint64], draws: range, seed: int) -> Int:
    """Labels in a random order of the documents of each stratum [R, D]."""
    random = _random(keys, draws, seed)
    order = np.lexsort((random, np.broadcast_to(stratum, random.shape)))
    out = np.empty(random.shape, np.int64)
    np.put_along_axis(out, order, np.broadcast_to(codes[np.lexsort((codes, stratum))], random.shape), axis=1)
    return out
