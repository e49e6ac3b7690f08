"""Documents that carry a domain each: their groups, folds and replicates, and every way the labels could have fallen.

N document, D domain, E expert, L layer, C column (the experts of all layers side by side), B draw or replicate, F fold, G jackknife group,
S moment. Labels are permuted over documents, never over tokens, and only inside the declared sources (metrics specification 5.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import Estimate
from analysis.estimation import Groups, estimates
from analysis.gates import CONFOUNDED, UNTESTABLE, few_per_domain, gated
from analysis.kernels import Float, Int, mix
from analysis.registry import find
from analysis.resampling import stratified_groups

N_DRAWS, EXACT_LIMIT, GROUPS_PER_DOMAIN, N_FOLDS = 9_999, 100_000, 50, 2
CELLS_AT_ONCE = 2**22
EXACT_FLOAT32 = 2**24  # integers up to here add exactly in float32
Statistic = Callable[[Float], Float]  # tables [B, D, C] -> [B, M]


@dataclass(frozen=True)
class DomainDocuments:
    """Selections per document and expert, with the document's domain.

    layers: int64 [N, E] for each layer, rows in the same order in all (by the hash of the document's id, as analysis.counts.Units gives
    them); domain: 0..n_domains-1 [N]; source: stratum [N] inside which labels are exchangeable, None for one. ValueError for counts that
    are no counts, and for a domain out of range.
    """

    layers: tuple[Int, ...]
    domain: Int
    n_domains: int
    source: Int | None = None

    def __post_init__(self) -> None:
        n_documents = len(self.domain)
        for number, counts_NE in enumerate(self.layers):
            if np.ndim(counts_NE) != 2 or len(counts_NE) != n_documents or not np.issubdtype(counts_NE.dtype, np.integer):
                raise ValueError(f"layer {number}: counts of shape {np.shape(counts_NE)}, {counts_NE.dtype}; integers [{n_documents}, E] are needed, "
                                 "a row for each entry of `domain`")
            if counts_NE.size and counts_NE.min() < 0:
                raise ValueError(f"layer {number}: a count below 0; give counts of selections")
        if n_documents and not 0 <= int(self.domain.min()) <= int(self.domain.max()) < self.n_domains:
            raise ValueError(f"domain: a label outside 0..{self.n_domains - 1}; number the domains from 0")
        if self.source is not None and len(self.source) != n_documents:
            raise ValueError(f"source: {len(self.source)} entries for {n_documents} documents")

    @classmethod
    def of(cls, counts_domain_doc_expert: Sequence[Sequence[Sequence[int]]]) -> DomainDocuments:
        """Documents of one layer from nested lists: domain, document, expert."""
        rows = [document for domain in counts_domain_doc_expert for document in domain]
        domain = [d for d, documents in enumerate(counts_domain_doc_expert) for _ in documents]
        return cls((np.array(rows, np.int64),), np.array(domain, np.int64), len(counts_domain_doc_expert))

    def at(self, layer: int) -> DomainDocuments:
        """One layer, without the documents that have no selection there."""
        counts = self.layers[layer]
        return DomainDocuments((counts,), self.domain, self.n_domains, self.source).take(counts.sum(axis=1) > 0)

    def take(self, rows: NDArray[Any]) -> DomainDocuments:
        """The documents chosen by a mask or an index."""
        source = None if self.source is None else self.source[rows]
        return DomainDocuments(tuple(counts[rows] for counts in self.layers), self.domain[rows], self.n_domains, source)

    @cached_property
    def columns(self) -> Int:
        """All layers side by side [N, C]."""
        return np.concatenate(self.layers, axis=1)

    @property
    def per_domain(self) -> list[int]:
        """Documents of each domain [D]."""
        counted: list[int] = np.bincount(self.domain, minlength=self.n_domains).tolist()
        return counted

    def table(self, layer: int = 0) -> Int:
        """Selections counts_DE of one layer, summed over documents."""
        out = np.zeros((self.n_domains, self.layers[layer].shape[1]), np.int64)
        np.add.at(out, self.domain, self.layers[layer])
        return out

    @property
    def strata(self) -> list[Int]:
        """Documents of each source, as indices."""
        if self.source is None:
            return [np.arange(len(self.domain))]
        return [np.flatnonzero(self.source == one) for one in np.unique(self.source)]


def rank_in_domain(domain: Int) -> Int:
    """How many earlier documents have the same domain [N]."""
    order = np.argsort(domain, kind="stable")
    size = np.bincount(domain)
    out = np.empty(len(domain), np.int64)
    out[order] = np.arange(len(domain)) - np.repeat(np.cumsum(size) - size, size)
    return out


def document_tables(documents: DomainDocuments, kind: str, layer: int = 0) -> tuple[Int, Int, int]:
    """Rows [R, E] of every document, the cell [R] each adds to, and how many cells: the table of a metric's kind is the sum, reshaped.

    kind: `counts_DE`, `folds_FDE` (documents of a domain dealt alternately) or `moments_SDE` (c, c^2, c M, 1).
    """
    counts, domain = documents.layers[layer], documents.domain
    if kind == "counts_DE":
        return counts, domain, documents.n_domains
    if kind == "folds_FDE":
        return counts, rank_in_domain(domain) % N_FOLDS * documents.n_domains + domain, N_FOLDS * documents.n_domains
    if kind == "moments_SDE":
        moments = np.stack([counts, counts**2, counts * counts.sum(axis=1, keepdims=True), np.ones_like(counts)])
        cell = np.arange(len(moments))[:, None] * documents.n_domains + domain
        return moments.reshape(-1, counts.shape[1]), cell.ravel(), len(moments) * documents.n_domains
    raise ValueError(f"a domain metric takes counts_DE, folds_FDE or moments_SDE, not {kind}")


def domain_groups(documents: DomainDocuments, kind: str = "counts_DE", layer: int = 0) -> Groups:
    """Jackknife groups inside each domain, at most 50 each, with the tables of `kind` summed over their documents [G, ..., D, E]."""
    rows, cell, n_cells = document_tables(documents, kind, layer)
    group, stratum = stratified_groups([f"{d:09d}" for d in documents.domain], GROUPS_PER_DOMAIN)
    table = np.zeros((len(stratum) * n_cells, rows.shape[1]), np.int64)
    np.add.at(table, np.tile(group, len(rows) // len(group)) * n_cells + cell, rows)
    return Groups((table.reshape(len(stratum), *_shape(kind, documents, layer)),), len(documents.domain), stratum)


def _shape(kind: str, documents: DomainDocuments, layer: int) -> tuple[int, ...]:
    size = (documents.n_domains, documents.layers[layer].shape[1])
    return {"counts_DE": size, "folds_FDE": (N_FOLDS, *size), "moments_SDE": (4, *size)}[kind]


def domain_estimates(name: str, documents: DomainDocuments, layer: int = 0, *, level: float = 0.95) -> NDArray[Any]:
    """Jackknife Estimates of a registered metric of one domain table, groups inside domains, gated by the documents of each domain.

    Where a domain has one document the plug-in stays without an interval: a domain of one document cannot be told from that document.
    """
    kept, metric = documents.at(layer), find(name)
    (kind,) = metric.takes
    gate = few_per_domain(kept.per_domain)
    if min(kept.per_domain, default=0) < 2:
        rows, cell, n_cells = document_tables(kept, kind)
        table = np.zeros((n_cells, rows.shape[1]), np.int64)
        np.add.at(table, cell, rows)
        found = estimates(name, Groups((table.reshape(1, *_shape(kind, kept, 0)),), len(kept.domain)), level=level)
    else:
        found = estimates(name, domain_groups(kept, kind), level=level)
    for place, one in np.ndenumerate(found):
        assert isinstance(one, Estimate)
        found[place] = gated(one, gate) if one.value is not None else one
    return found


def bootstrap_tables(documents: DomainDocuments, kind: str, n_replicates: int, rng: np.random.Generator) -> Iterator[Float]:
    """Tables of `kind` [b, ..., D, E] of one layer in replicates of whole documents, drawn inside each domain, some replicates at a time.

    Documents are taken in an order of their own (see in_own_order), so that the replicates do not depend on the order given.
    """
    kept = in_own_order(documents.at(0))
    rows, cell, n_cells = document_tables(kept, kind)
    members = [np.flatnonzero(kept.domain == d) for d in range(kept.n_domains)]
    streams = rng.spawn(kept.n_domains)
    step = max(1, CELLS_AT_ONCE // max(len(rows), n_cells * rows.shape[1]))
    for start in range(0, n_replicates, step):
        size = min(step, n_replicates - start)
        weights = np.zeros((size, len(kept.domain)))
        for one, stream in zip(members, streams):
            if len(one):
                weights[:, one] = stream.multinomial(len(one), np.full(len(one), 1 / len(one)), size=size)
        weights = np.tile(weights, len(rows) // len(kept.domain))
        table = np.zeros((size, n_cells, rows.shape[1]))
        for number in range(n_cells):
            inside = np.flatnonzero(cell == number)
            table[:, number] = weights[:, inside] @ rows[inside].astype(np.float64)
        yield table.reshape(size, *_shape(kind, kept, 0))


def in_own_order(documents: DomainDocuments) -> DomainDocuments:
    """The documents sorted by what they hold, domains and sources renumbered likewise: draws then depend on no order and on no label.

    The key of a document adds up a hash of (count, the expert's total) over experts, hence is the same under any relabelling.
    """
    key = np.zeros(len(documents.domain), np.uint64)
    with np.errstate(over="ignore"):
        for number, counts in enumerate(documents.layers):
            total = mix(counts.sum(axis=0).astype(np.uint64))
            for start in range(0, len(counts), 4096):
                key[start : start + 4096] += mix(mix(counts[start : start + 4096].astype(np.uint64) ^ total) + np.uint64(number)).sum(axis=1)
        domain = _renumbered(documents.domain, mix(key), documents.n_domains)
        source = None
        if documents.source is not None:
            values, number_of = np.unique(documents.source, return_inverse=True)
            source = _renumbered(number_of, mix(key ^ np.uint64(1)), len(values))
    order = np.lexsort((key, domain, np.zeros_like(domain) if source is None else source))
    return DomainDocuments(documents.layers, domain, documents.n_domains, source).take(order)


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
    own = in_own_order(documents)
    counts = own.columns.astype(np.float32 if int(own.columns.sum()) < EXACT_FLOAT32 else np.float64)
    exact = arrangements(own) <= exact_limit
    at_once = max(1, CELLS_AT_ONCE // max(1, own.n_domains * max(counts.shape)))
    total = own.columns.sum(axis=0).astype(np.float64)
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
