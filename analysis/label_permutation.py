"""Every way the domain labels of documents could have fallen: exact arrangements or drawn permutations, and p-values from them.

N document, D domain, C column (the experts of all layers side by side), B draw, M statistic. Labels are permuted over documents, never over
tokens, and only inside the declared sources (metrics specification 5.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.domain_labels import CELLS_AT_ONCE, DomainDocuments
from analysis.gates import CONFOUNDED, UNTESTABLE, few_per_domain
from analysis.kernels import Float, Int, mix

N_DRAWS, EXACT_LIMIT = 9_999, 100_000
EXACT_FLOAT32 = 2**24  # integers up to here add exactly in float32
Statistic = Callable[[Float], Float]  # tables [B, D, C] -> [B, M]


def in_own_order(documents: DomainDocuments) -> tuple[DomainDocuments, Int]:
    """Labels and sources (no layers) of the documents sorted by what they hold, and the order [N]: draws depend on no order and no label.

    The key of a document adds up a hash of (count, the expert's total) over experts, hence is the same under any relabelling; domains and
    sources are numbered by the keys of their documents.
    """
    key = np.zeros(len(documents.domain), np.uint64)
    with np.errstate(over="ignore"):
        for number, counts in enumerate(documents.layers):
            total = mix(counts.sum(axis=0).astype(np.uint64))
            for start in range(0, len(counts), 4096):
                key[start : start + 4096] += mix(mix(counts[start : start + 4096].astype(np.uint64) ^ total) + np.uint64(number)).sum(axis=1)
        domain, source = _renumbered(documents.domain, mix(key), documents.n_domains), None
        if documents.source is not None:
            values, number_of = np.unique(documents.source, return_inverse=True)
            source = _renumbered(number_of, mix(key ^ np.uint64(1)), len(values))
    order = np.lexsort((key, domain, np.zeros_like(domain) if source is None else source))
    return DomainDocuments((), domain, documents.n_domains, source).take(order), order


def _renumbered(label: Int, key: NDArray[np.uint64], n: int) -> Int:
    """Labels renumbered by the summed keys of their documents."""
    total = np.zeros(n, np.uint64)
    np.add.at(total, label, key)
    rank = np.empty(n, np.int64)
    rank[np.argsort(total, kind="stable")] = np.arange(n)
    return rank[label]


def arrangements(documents: DomainDocuments) -> int:
    """Distinct ways in which the domain labels can fall on the documents inside their sources: prod_s n_s! / prod_d n_sd!."""
    return math.prod(_ways(np.bincount(documents.domain[one], minlength=documents.n_domains).tolist()) for one in documents.strata)


def _ways(sizes: Sequence[int]) -> int:
    ways, placed = 1, 0
    for size in sizes:
        placed += size
        ways *= math.comb(placed, size)
    return ways


def smallest_p(documents: DomainDocuments) -> float:
    """Least p that the arrangements allow a statistic blind to the domains' names: domains of the same sizes can be swapped unseen."""
    sizes = np.stack([np.bincount(documents.domain[one], minlength=documents.n_domains) for one in documents.strata])
    alike = np.unique(sizes, axis=1, return_counts=True)[1]
    return min(1.0, math.prod(math.factorial(int(n)) for n in alike) / arrangements(documents))


def untestable(documents: DomainDocuments, alpha: float = 0.05) -> str | None:
    """Why no permutation of these labels can be a test, or None: a domain of one document, or 1 / #arrangements > alpha."""
    per_domain = documents.per_domain
    if min(per_domain, default=0) < 2:
        return few_per_domain(per_domain)
    ways = arrangements(documents)
    if ways == 1:
        return f"{CONFOUNDED}: every source holds one domain, so that no label can move; take sources with several domains"
    if 1 / ways > alpha:
        return f"{UNTESTABLE}: {ways} arrangements of the labels, so that no p is below 1/{ways}; collect more documents"
    return None


def label_draws(documents: DomainDocuments, n_draws: int, rng: np.random.Generator, *, exact: bool, at_once: int) -> Iterator[Int]:
    """Domain labels [b, N] under permutation inside sources: all arrangements once, or n_draws random ones, at most `at_once` together."""
    strata = documents.strata
    n_rows = arrangements(documents) if exact else n_draws
    streams = rng.spawn(len(strata))
    for start in range(0, n_rows, at_once):
        size = min(at_once, n_rows - start)
        labels = np.empty((size, len(documents.domain)), np.int64)
        rank = np.arange(start, start + size)
        for members, stream in zip(strata, streams):
            if exact:
                sizes = np.bincount(documents.domain[members], minlength=documents.n_domains)
                rank, here = np.divmod(rank, _ways(sizes.tolist()))
                labels[:, members] = arrangement(here, sizes)
            else:
                labels[:, members] = stream.permuted(np.broadcast_to(np.sort(documents.domain[members]), (size, len(members))), axis=1)
        yield labels


def arrangement(rank: Int, sizes: Int) -> Int:
    """The rank-th sequence, in lexicographic order, of labels of which label d occurs sizes[d] times; ranks [b] give [b, n]."""
    left = np.tile(sizes, (len(rank), 1))
    ways = np.full(len(rank), _ways(sizes.tolist()), np.int64)
    out = np.empty((len(rank), int(sizes.sum())), np.int64)
    rank, every = rank.copy(), np.arange(len(rank))
    for place in range(out.shape[1]):
        first = ways[:, None] * left // (out.shape[1] - place)  # completions that begin with each label: exact
        before = np.cumsum(first, axis=1) - first
        label = (rank[:, None] >= before + first).sum(axis=1)
        out[:, place] = label
        rank -= before[every, label]
        ways = first[every, label]
        left[every, label] -= 1
    return out


@dataclass(frozen=True)
class LabelNull:
    """A statistic under every arrangement (exact) or under drawn ones. observed [M]; null [B, M], None where only counts were kept."""

    observed: Float
    reached: Int  # draws at or above the observed value, [M]
    n_draws: int
    exact: bool
    null: Float | None = None

    @property
    def p(self) -> Float:
        """One-sided p [M]: reached / #arrangements, or (1 + reached) / (draws + 1)."""
        return self.reached / self.n_draws if self.exact else (1.0 + self.reached) / (self.n_draws + 1)


def label_null(documents: DomainDocuments, statistic: Statistic, rng: np.random.Generator, *, n_draws: int = N_DRAWS,
               exact_limit: int = EXACT_LIMIT, keep: bool = False) -> LabelNull:
    """The statistic of the observed table and of its permutations, all columns permuted together; exact where arrangements <= exact_limit.

    statistic: tables [B, D, C] -> [B, M], not a function of how domains are numbered. A draw within 1e-9 of the observed value counts as
    reaching it. keep: hold the null [B, M], for maxT.
    """
    own, order = in_own_order(documents)
    total = np.concatenate([counts.sum(axis=0) for counts in documents.layers]).astype(np.float64)
    counts = np.empty((len(order), len(total)), np.float32 if total.max(initial=0) < EXACT_FLOAT32 else np.float64)
    for first, layer in zip(np.cumsum([0] + [layer.shape[1] for layer in documents.layers]), documents.layers):
        counts[:, first : first + layer.shape[1]] = layer[order]
    exact = arrangements(own) <= exact_limit
    at_once = max(1, CELLS_AT_ONCE // max(1, own.n_domains * max(counts.shape)))
    observed = statistic(_tables(own.domain[None], counts, total, own.n_domains))[0]
    edge = observed - 1e-9 * np.abs(observed)
    reached, kept, n_seen = np.zeros(observed.shape, np.int64), [], 0
    for labels in label_draws(own, n_draws, rng, exact=exact, at_once=at_once):
        values = statistic(_tables(labels, counts, total, own.n_domains))
        reached += (values >= edge).sum(axis=0)
        n_seen += len(values)
        if keep:
            kept.append(values)
    return LabelNull(observed, reached, n_seen, exact, np.concatenate(kept) if keep else None)


def _tables(labels: Int, counts: NDArray[Any], total: Float, n_domains: int) -> Float:
    """Tables [b, D, C] of the labels [b, N] by one matrix product; the last domain is what the others leave."""
    hot = (labels[:, None, :] == np.arange(n_domains - 1)[:, None]).astype(counts.dtype)
    out = np.empty((len(labels), n_domains, counts.shape[1]))
    out[:, :-1] = (hot.reshape(-1, counts.shape[0]) @ counts).reshape(len(labels), n_domains - 1, -1)
    out[:, -1] = total - out[:, :-1].sum(axis=1)
    return out
