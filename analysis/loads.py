"""How often each expert is chosen in each document, and in each domain, in one streaming pass.

D unit (document, or pseudo-cluster of documents of one domain), H domain, L MoE layer, E expert, K slot in the top-k, G jackknife
group, V chosen token type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.estimation import Groups
from analysis.joint import COMPILED_FROM, WIDTHS, Symbols, add_segments, segment_table, symbols, twin, widened
from analysis.kernels import Backend, Int, choose_backend, numba_loaded
from analysis.planes import Deal, Planes, buffered, grouped_rows, id_batches
from analysis.resampling import jackknife_groups
from analysis.trace import LayerMeta, RoutingTrace, TraceError

Kind = Literal["selected", "first", "executed"]

MAX_UNITS = 2000  # documents kept apart; more are folded, domain by domain
FOLD = 100  # units of a folded domain are a multiple of this, so that 50 or 100 groups of units are the groups of documents
GROUP_CELLS = 2**27  # of a [G, H, E] table (1 GiB)
TYPE_ROWS = 2**20  # rows put in group order at once for the choices of token types


@dataclass(frozen=True)
class Loads:
    """Counts per unit. selected, first: per layer int64 [D, E], all slots and slot 0; executed: slots that capacity did not drop.

    executed is None where the source does not record drops, and the same as selected in a layer that never drops. tokens: rows [D];
    domain: number in `domains` [D]; n_documents: behind each unit [D]; rank: place of each unit's first document in hash order over all
    domains [D]. Units come by domain, inside it in hash order.
    """

    layers: tuple[LayerMeta, ...]
    domains: tuple[str, ...]
    selected: tuple[Int, ...]
    first: tuple[Int, ...]
    executed: tuple[Int, ...] | None
    tokens: Int
    domain: Int
    n_documents: Int
    rank: Int

    @property
    def folded(self) -> bool:
        """Whether some unit is of several documents."""
        return bool((self.n_documents > 1).any())

    @cached_property
    def drop_rate(self) -> tuple[float | None, ...]:
        """Share of selected slots that capacity dropped, per layer; None where not recorded, or without rows."""
        if self.executed is None:
            return (None,) * len(self.layers)
        return tuple(1.0 - int(kept.sum()) / n if (n := int(all_.sum())) else None for kept, all_ in zip(self.executed, self.selected))

    def table(self, layer: int, kind: Kind = "selected") -> Int:
        """Counts [D, E] of a layer (place in `layers`). TraceError for executed selections of a source that does not record drops."""
        if kind == "executed" and self.executed is None:
            raise TraceError("column dropped: absent; executed loads need what capacity dropped, take a trace whose source records it")
        counts: tuple[Int, ...] = getattr(self, kind)
        return counts[layer]

    def by_domain(self, layer: int, kind: Kind = "selected") -> Int:
        """Counts [H, E] of a layer."""
        out = np.zeros((len(self.domains), self.layers[layer].n_experts), np.int64)
        np.add.at(out, self.domain, self.table(layer, kind))
        return out

    @cached_property
    def documents_H(self) -> Int:
        """Documents per domain."""
        out = np.zeros(len(self.domains), np.int64)
        np.add.at(out, self.domain, self.n_documents)
        return out

    def groups(self, layer: int, kind: Kind = "selected", max_groups: int = 100) -> Groups:
        """Counts [G, E] of a layer by jackknife group over all domains: min(D, max_groups) groups."""
        group = jackknife_groups(len(self.tokens), max_groups)
        order = np.argsort(self.rank)
        table = np.zeros((int(group.max(initial=-1)) + 1, self.layers[layer].n_experts), np.int64)
        np.add.at(table, group, self.table(layer, kind)[order])
        return Groups((table,), int(self.n_documents.sum()))

    def domain_groups(self, layer: int, kind: Kind = "selected", max_groups: int = 50) -> Groups:
        """Counts [G, H, E] of a layer, groups dealt inside domains (metrics specification 4.2), each with its stratum.

        ValueError where the table would exceed GROUP_CELLS: pass fewer max_groups, or choose fewer domains.
        """
        stratum, group = self._domain_deal(max_groups)
        shape = (len(stratum), len(self.domains), self.layers[layer].n_experts)
        if np.prod(shape, dtype=float) > GROUP_CELLS:
            raise ValueError(f"{shape[0]} groups x {shape[1]} domains x {shape[2]} experts are too many cells; pass a smaller max_groups")
        table = np.zeros(shape, np.int64)
        np.add.at(table, (group, self.domain), self.table(layer, kind))
        return Groups((table,), int(self.n_documents.sum()), stratum)

    def _domain_deal(self, max_groups: int) -> tuple[Int, Int]:
        """Stratum of each group [G] and group of each unit [D]."""
        group, stratum = np.zeros(len(self.domain), np.int64), np.zeros(0, np.int64)
        for number in range(len(self.domains)):
            members = np.flatnonzero(self.domain == number)
            inside = jackknife_groups(len(members), max_groups)
            group[members] = len(stratum) + inside
            stratum = np.r_[stratum, np.full(int(inside.max(initial=-1)) + 1, number)]
        return stratum, group



def document_loads(
    trace: RoutingTrace, split: str, *, layers: Sequence[int] | None = None, salt: str = "", max_units: int = MAX_UNITS,
    backend: Backend | None = None,
) -> Loads:
    """Loads of a split's documents; beyond max_units documents these are folded into about so many pseudo-clusters, domain by domain.

    salt: orders documents by SHA-256 of id, NUL, salt (the declaration's seed). Raises TraceError for rows that cannot be counted.
    """
    chosen = list(range(len(trace.meta.layers))) if layers is None else list(layers)
    units = _Units.of(Deal.of(trace.documents, split, salt, max_groups=2), max_units)
    counting = _Counting(tuple(trace.meta.layers[layer] for layer in chosen), units, split, backend)
    for batch in id_batches(trace, split, chosen, ("ids", "dropped")):
        counting.add(Planes.of(batch, counting.layers), batch.dropped)
    return counting.loads()


@dataclass(frozen=True)
class _Units:
    """unit: of each document of the deal [documents]; domain, n_documents, rank: of each unit [D]."""

    deal: Deal
    unit: Int
    domain: Int
    n_documents: Int
    rank: Int

    @classmethod
    def of(cls, deal: Deal, max_units: int) -> _Units:
        number = {name: i for i, name in enumerate(deal.domains)}
        domain_of = np.array([number[d.domain] for d in deal.documents], np.int64)
        most = len(deal.documents)
        if most > max_units:
            most = max(FOLD, max_units // max(len(deal.domains), 1) // FOLD * FOLD)
        unit, domain, rank = np.zeros(len(domain_of), np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
        for one in range(len(deal.domains)):
            members = np.flatnonzero(domain_of == one)
            unit[members] = len(domain) + np.arange(len(members)) % most
            domain = np.r_[domain, np.full(min(len(members), most), one)]
            rank = np.r_[rank, members[:most]]
        return cls(deal, unit, domain, np.bincount(unit, minlength=len(domain)), rank)


class _Counting:
    def __init__(self, layers: tuple[LayerMeta, ...], units: _Units, split: str, backend: Backend | None) -> None:
        self.layers, self.units, self.split, self.backend = layers, units, split, backend
        n_units = len(units.domain)
        self.tokens = np.zeros(n_units, np.int64)
        self.selected = [np.zeros((n_units, layer.n_experts), np.int64) for layer in layers]
        self.first = [table if layer.top_k == 1 else np.zeros_like(table) for layer, table in zip(layers, self.selected)]
        self.dropped: list[Int | None] = [None] * len(layers)
        self.recorded, self.work = True, 0

    def add(self, part: Planes, dropped: tuple[NDArray[np.uint8] | None, ...] | None) -> None:
        unit = self.units.unit[self.units.deal.place_of(part.document, self.split)]
        np.add.at(self.tokens, unit, part.lengths)
        self.work += sum(ids.size for ids in part.ids)
        backend = self.backend or choose_backend(self.work, 0 if numba_loaded() else COMPILED_FROM)
        self.recorded &= dropped is not None
        for layer, ids in enumerate(part.ids):
            _add_loads(ids, part.starts, unit, self.selected[layer], backend)
            if len(ids) > 1:
                _add_loads(ids[:1], part.starts, unit, self.first[layer], backend)
            bits = None if dropped is None else dropped[layer]
            if bits is not None and bits.any():
                self._add_dropped(layer, ids, bits, np.repeat(unit, part.lengths))

    def _add_dropped(self, layer: int, ids: NDArray[Any], bits: NDArray[np.uint8], unit: Int) -> None:
        table = self.dropped[layer]
        if table is None:
            table = self.dropped[layer] = np.zeros_like(self.selected[layer])
        for slot, experts in enumerate(ids):
            rows = np.flatnonzero(bits >> slot & 1)
            np.add.at(table, (unit[rows], experts[rows]), 1)

    def loads(self) -> Loads:
        executed = tuple(every if lost is None else every - lost for every, lost in zip(self.selected, self.dropped))
        units = self.units
        return Loads(self.layers, units.deal.domains, tuple(self.selected), tuple(self.first), executed if self.recorded else None,
                     self.tokens, units.domain, units.n_documents, units.rank)


def _add_loads(ids: NDArray[Any], starts: Int, unit: Int, counts: Int, backend: Backend) -> None:
    if backend == "numba":
        twin("loads")(ids, starts, unit, counts)
        return
    present, here = np.unique(unit, return_inverse=True)
    base = np.repeat(here, np.diff(starts)) * counts.shape[1]
    for slot in ids:
        counts[present] += np.bincount(base + slot, minlength=len(present) * counts.shape[1]).reshape(len(present), -1)


@dataclass(frozen=True)
class TypeLoads:
    """Choices of chosen token types by jackknife group: per layer unsigned [G, E, V]; n: occurrences int64 [G, V]; types: [V]."""

    layers: tuple[LayerMeta, ...]
    types: Int
    n: Int
    counts: tuple[NDArray[Any], ...]
    deal: Deal

    def groups(self, layer: int) -> Groups:
        """Counts int64 [G, E, V] of a layer."""
        return Groups((self.counts[layer].astype(np.int64),), len(self.deal.documents), self.deal.stratum)


def type_loads(
    trace: RoutingTrace, split: str, types: Sequence[int], *, salt: str = "", max_groups: int = 100, first_only: bool = False,
    backend: Backend | None = None,
) -> TypeLoads:
    """Selections (first choices, if first_only) of the experts by tokens of the chosen types, by jackknife group of documents.

    Raises TraceError for a trace without token types; ValueError for a type twice, or beyond the vocabulary.
    """
    column = _columns(types, trace.meta.vocabulary_size)
    metas, n_types = trace.meta.layers, len(types)
    deal = Deal.of(trace.documents, split, salt, max_groups)
    tables = [segment_table(deal.n_groups, layer.n_experts, n_types + 1, WIDTHS[0]) for layer in metas]
    n, work = np.zeros((deal.n_groups, n_types + 1), np.int64), 0
    parts = (Planes.of(batch, metas) for batch in id_batches(trace, split, range(len(metas))))
    for part in buffered(parts, TYPE_ROWS):
        found, bounds = grouped_rows(part, deal, split)
        rows = np.arange(len(part)) if found is None else found
        kept = column[part.types[rows]] < n_types
        bounds, rows = np.r_[0, np.cumsum(kept)][bounds], rows[kept]
        y = Symbols(column[part.types[rows]][None], n_types, True)
        np.add.at(n, (np.repeat(np.arange(deal.n_groups), np.diff(bounds)), y.ids[0]), 1)
        for index, (layer, ids) in enumerate(zip(metas, part.ids)):
            x = symbols((ids[:1] if first_only else ids)[:, rows], layer.n_experts)
            work += x.ids.size
            tables[index] = widened(tables[index], int(n.sum(axis=1).max()))
            add_segments(x, y, bounds, tables[index], backend or choose_backend(work, 0 if numba_loaded() else COMPILED_FROM))
    return TypeLoads(metas, np.asarray(types, np.int64), n[:, :n_types], tuple(table[:, :, :n_types] for table in tables), deal)


def _columns(types: Sequence[int], n_types: int) -> NDArray[np.uint16]:
    """Column of each type of the vocabulary; the number of chosen types for the others."""
    chosen = np.asarray(types, np.int64)
    if len(chosen) and (int(chosen.min()) < 0 or int(chosen.max()) >= n_types):
        raise ValueError(f"types: {int(chosen.max())} but the vocabulary has {n_types} types; choose among them")
    if len(np.unique(chosen)) != len(chosen) or len(chosen) >= 2**16:
        raise ValueError(f"types: {len(chosen)} given, some twice or more than {2**16 - 1}; choose fewer, each once")
    out = np.full(n_types, len(chosen), np.uint16)
    out[chosen] = np.arange(len(chosen))
    return out
