"""Documents that carry a domain each: their tables, groups, folds and replicates, and the estimates made of them.

N document, D domain, E expert, L layer, B replicate, F fold, G jackknife group, S moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import Estimate
from analysis.estimation import Groups, estimates, interval_estimates
from analysis.gates import NO_DATA, SELECTION_BIASED, few_per_domain, gated
from analysis.kernels import Float, Int
from analysis.registry import find
from analysis.resampling import Interval, basic_interval, stratified_groups

GROUPS_PER_DOMAIN, N_FOLDS, N_REPLICATES = 50, 2, 1_999
CELLS_AT_ONCE = 2**22
IN_SAMPLE = f"{SELECTION_BIASED}: the domain is picked on the documents that are counted; read the cross-fitted form"


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

    @property
    def used(self) -> NDArray[np.bool_]:
        """Documents with a selection at some layer [N]."""
        out = np.zeros(len(self.domain), bool)
        for counts_NE in self.layers:
            out |= counts_NE.any(axis=1)
        return out

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
    counts, domain = documents.layers[layer].astype(np.int64, copy=False), documents.domain  # squares outgrow narrower types
    if kind == "counts_DE":
        return counts, domain, documents.n_domains
    if kind == "folds_FDE":
        return counts, rank_in_domain(domain) % N_FOLDS * documents.n_domains + domain, N_FOLDS * documents.n_domains
    if kind == "moments_SDE":
        if len(counts) * float(counts.sum(axis=1).max(initial=0)) ** 2 >= 2.0**63:
            raise ValueError("the squares of these counts do not fit 64 bits; give counts of selections, not weights in fixed point")
        moments = np.stack([counts, counts**2, counts * counts.sum(axis=1, keepdims=True), np.ones_like(counts)])
        cell = np.arange(len(moments))[:, None] * documents.n_domains + domain
        return moments.reshape(-1, counts.shape[1]), cell.ravel(), len(moments) * documents.n_domains
    raise ValueError(f"a domain metric takes counts_DE, folds_FDE or moments_SDE, not {kind}")


def domain_table(documents: DomainDocuments, kind: str, layer: int = 0) -> Int:
    """The table of `kind` summed over all documents: [D, E], [F, D, E] or [S, D, E]."""
    rows, cell, n_cells = document_tables(documents, kind, layer)
    table = np.zeros((n_cells, rows.shape[1]), np.int64)
    np.add.at(table, cell, rows)
    return table.reshape(_shape(kind, documents, layer))


def domain_groups(documents: DomainDocuments, kind: str = "counts_DE", layer: int = 0) -> Groups:
    """Jackknife groups inside each domain, at most 50 each, with the tables of `kind` summed over their documents [G, ..., D, E]."""
    rows, cell, n_cells = document_tables(documents, kind, layer)
    group, stratum = stratified_groups([f"{d:09d}" for d in documents.domain], GROUPS_PER_DOMAIN)
    table = np.zeros((len(stratum) * n_cells, rows.shape[1]), np.int64)
    np.add.at(table, np.tile(group, len(rows) // max(len(group), 1)) * n_cells + cell, rows)
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
        found = estimates(name, Groups((domain_table(kept, kind)[None],), len(kept.domain)), level=level)
    else:
        found = estimates(name, domain_groups(kept, kind), level=level)
    reason = _undefined(kept, metric.undefined)
    for place, one in np.ndenumerate(found):
        assert isinstance(one, Estimate)
        found[place] = gated(one, gate) if one.value is not None else replace(one, reason=reason)
    return found


def _undefined(documents: DomainDocuments, registered: str) -> str:
    """Which of a metric's registered reasons holds here: an empty domain, one domain, or the first of the others."""
    if not documents.table().any(axis=1).all():
        return f"{NO_DATA}: a domain has no selections"
    if documents.n_domains < 2 and "one domain" in registered:
        return f"{NO_DATA}: one domain; what is specific to a domain needs two"
    return registered.split("; ")[0]


def bootstrap_tables(documents: DomainDocuments, kind: str, n_replicates: int, rng: np.random.Generator) -> Iterator[Float]:
    """Tables of `kind` [b, ..., D, E] of one layer in replicates of whole documents, drawn inside each domain, some replicates at a time.

    A document keeps its fold in every replicate, so that no copy of it is on both sides.
    """
    kept = documents.at(0)
    rows, cell, n_cells = document_tables(kept, kind)
    members = [np.flatnonzero(kept.domain == d) for d in range(kept.n_domains)]
    streams = rng.spawn(kept.n_domains)
    step = max(1, CELLS_AT_ONCE // max(len(rows), n_cells * rows.shape[1]))
    for start in range(0, n_replicates, step):
        size = min(step, n_replicates - start)
        weights = np.zeros((size, len(kept.domain)))
        for one, stream in zip(members, streams):
            if len(one):
                places = stream.integers(len(one), size=(size, len(one))) + np.arange(size)[:, None] * len(one)
                weights[:, one] = np.bincount(places.ravel(), minlength=size * len(one)).reshape(size, -1)
        weights = np.tile(weights, len(rows) // len(kept.domain))
        table = np.zeros((size, n_cells, rows.shape[1]))
        for number in range(n_cells):
            inside = np.flatnonzero(cell == number)
            table[:, number] = weights[:, inside] @ rows[inside].astype(np.float64)
        yield table.reshape(size, *_shape(kind, kept, 0))


def basic_estimates(name: str, documents: DomainDocuments, rng: np.random.Generator, layer: int = 0, *, level: float = 0.95,
                    n_replicates: int = N_REPLICATES) -> NDArray[Any]:
    """Estimates of one metric that is not smooth (purity, lambda, top-5 share), by basic_estimates_of."""
    return basic_estimates_of((name,), documents, rng, layer, level=level, n_replicates=n_replicates)[name]


def basic_estimates_of(names: Sequence[str], documents: DomainDocuments, rng: np.random.Generator, layer: int = 0, *, level: float = 0.95,
                       n_replicates: int = N_REPLICATES) -> dict[str, NDArray[Any]]:
    """Plug-in values of metrics of one table kind with basic intervals from the same replicates of whole documents inside domains.

    Metrics of counts_DE carry the gate selection_biased: what they pick, they pick on the documents that they count, and their intervals
    cover 2 to 5 % where there is no specialisation. No interval where a domain has fewer than two documents.
    """
    kept = documents.at(layer)
    ((kind,),) = {find(name).takes for name in names}
    gates = (IN_SAMPLE if kind == "counts_DE" else None, few_per_domain(kept.per_domain))
    replicates: list[list[Float]] = []
    if min(kept.per_domain, default=0) > 1:
        replicates = [[np.asarray(find(name).function(tables)) for name in names] for tables in bootstrap_tables(kept, kind, n_replicates, rng)]
    out, table = {}, domain_table(kept, kind)
    for number, name in enumerate(names):
        value = np.asarray(find(name).function(table), np.float64)
        se = low = high = np.full_like(value, np.nan)
        if replicates:
            drawn = np.concatenate([part[number] for part in replicates])
            (low, high), se = basic_interval(value, drawn, level), drawn.std(axis=0, ddof=1)
        found = interval_estimates(find(name), Interval(value, value, se, low, high), len(kept.domain), "basic document bootstrap", level=level)
        for place, one in np.ndenumerate(found):
            assert isinstance(one, Estimate)
            found[place] = gated(one, *gates) if one.value is not None else one
        out[name] = found
    return out
