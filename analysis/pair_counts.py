"""Joint tables of chosen layer pairs by jackknife group of documents, in streaming passes of bounded memory.

X, Y symbols of two layers (experts, or sets of experts), T token (row), K slot in the top-k, G jackknife group, S observed set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.estimation import Groups
from analysis.gates import UNDERSAMPLED
from analysis.joint import COMPILED_FROM, WIDTHS, Symbols, add_segments, segment_table, set_codes, symbols, twin, widened
from analysis.kernels import Backend, Int, choose_backend, numba_loaded
from analysis.planes import Deal, Planes, buffered, grouped_rows, id_batches
from analysis.threads import each
from analysis.trace import LayerMeta, RoutingTrace, TraceError

Pair = tuple[int, int]
Variant = Literal["first", "slots", "sets"]

TABLE_BYTES = 2**28  # tables of the pairs counted in one pass over the trace (256 MiB)
HELD_BYTES = 2**30  # tables that accumulate_pairs may hold at once
BUFFER_BYTES, BUFFER_ROWS = 2**25, 2**21  # rows put in group order at once: the more, the longer a group's table stays in cache
MOST_SETS = 2**16  # observed sets of one layer, and cells of a table of sets that has too few tokens


@dataclass(frozen=True)
class PairPlan:
    """What to count. pairs: indices (l, m) of the trace's layers, x of l and y of m; salt: orders documents (the declaration's seed).

    max_groups: jackknife groups, or groups inside each domain where by_domain (the specification has 100, and 50 inside domains).
    variant: `first` choices, all pairs of `slots`, or `sets` of experts as symbols. lag: y is that of the row `lag` later in the same
    document. The pair (l, l) counts co-activation as slots, transitions with a lag.
    """

    split: str
    salt: str
    pairs: tuple[Pair, ...]
    max_groups: int = 100
    variant: Variant = "first"
    lag: int = 0
    by_domain: bool = False


@dataclass
class PairCounts:
    """Joint tables by pair. tables: [G, X, Y padded], unsigned as wide as they need to be; read them by `groups` and `total`.

    codes: per layer the set code of each symbol (analysis.joint.set_codes), for sets; undersampled: pairs of sets too many to tabulate,
    with the reason; n_rows: tokens (pairs of tokens `lag` apart).
    """

    plan: PairPlan
    layers: tuple[LayerMeta, ...]
    deal: Deal
    tables: dict[Pair, NDArray[Any]] = field(default_factory=dict)
    sizes: dict[Pair, tuple[int, int]] = field(default_factory=dict)
    codes: Mapping[int, Int] = field(default_factory=dict)
    undersampled: dict[Pair, str] = field(default_factory=dict)
    n_rows: int = 0

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Pairs with a table."""
        return tuple(self.tables)

    def groups(self, pair: Pair, domain: str | None = None) -> Groups:
        """Tables of a pair by group, int64 [G, X, Y]; of one domain, where groups were dealt inside domains.

        Raises KeyError for a pair without a table, ValueError for a domain where groups are of all domains.
        """
        if pair in self.undersampled:
            raise KeyError(f"pair {pair}: {self.undersampled[pair]}")
        table, stratum = self.tables[pair][:, :, : self.sizes[pair][1]], self.deal.stratum
        if domain is None:
            return Groups((table.astype(np.int64),), len(self.deal.documents), stratum)
        if stratum is None:
            raise ValueError(f"domain {domain!r}: the groups are of all domains; count with PairPlan(by_domain=True)")
        return Groups((table[stratum == self.deal.domains.index(domain)].astype(np.int64),), self.deal.n_documents[domain])

    def total(self, pair: Pair) -> Int:
        """Table of a pair summed over groups, int64 [X, Y]."""
        summed: Int = self.tables[pair][:, :, : self.sizes[pair][1]].sum(axis=0, dtype=np.int64)
        return summed


def accumulate_pairs(trace: RoutingTrace, plan: PairPlan, backend: Backend | None = None, threads: int = 1) -> PairCounts:
    """Tables of all pairs of the plan, held together; the same bits for either backend, any number of threads, any order of shards.

    Raises TraceError for rows that cannot be counted; ValueError for pairs that are not there, and for more tables than HELD_BYTES:
    `pair_groups` gives these one after another.
    """
    counts = _prepare(trace, plan)
    held = sum(_bytes(counts, pair) for pair in counts.sizes)
    if held > HELD_BYTES:
        raise ValueError(f"{len(counts.sizes)} pairs in {counts.deal.n_groups} groups take {held / 2**30:.1f} GiB; "
                         "read them one by one with pair_groups, or choose fewer pairs or groups")
    for chunk in _chunks(counts):
        _count(trace, counts, chunk, backend, threads)
    return counts


def pair_groups(trace: RoutingTrace, plan: PairPlan, backend: Backend | None = None, threads: int = 1) -> Iterator[tuple[Pair, Groups]]:
    """Each pair of the plan with its grouped tables, in memory of TABLE_BYTES: the trace is read once a chunk of pairs, its layers only.

    Pairs of sets too many to tabulate do not come.
    """
    counts = _prepare(trace, plan)
    for chunk in _chunks(counts):
        _count(trace, counts, chunk, backend, threads)
        for pair in chunk:
            yield pair, counts.groups(pair)
            del counts.tables[pair]


def scan_pairs(
    trace: RoutingTrace, split: str, pairs: Sequence[Pair] | None = None, *, variant: Variant = "first", backend: Backend | None = None,
    threads: int = 1,
) -> PairCounts:
    """Totals of layer pairs (every l < m, if None) without groups: one table a pair, in one pass unless they exceed TABLE_BYTES."""
    chosen = tuple(combinations(range(len(trace.meta.layers)), 2)) if pairs is None else tuple(pairs)
    counts = _prepare(trace, PairPlan(split, "", chosen, max_groups=1, variant=variant))
    for chunk in _chunks(counts):
        _count(trace, counts, chunk, backend, threads)
    return counts


def _prepare(trace: RoutingTrace, plan: PairPlan) -> PairCounts:
    layers = trace.meta.layers
    for pair in plan.pairs:
        if any(not 0 <= layer < len(layers) for layer in pair):
            raise ValueError(f"pair {pair}: the trace has layers 0 to {len(layers) - 1}")
    if plan.lag < 0:
        raise ValueError(f"lag {plan.lag}: swap the pair to look the other way")
    deal = Deal.of(trace.documents, plan.split, plan.salt, plan.max_groups, by_domain=plan.by_domain)
    if not deal.documents:
        raise TraceError(f"no {plan.split} document to count; collect some, or choose another split")
    counts = PairCounts(plan, layers, deal)
    sizes = {layer: layers[layer].n_experts for pair in plan.pairs for layer in pair}
    if plan.variant == "sets":
        counts.codes, n_rows = _observed_sets(trace, plan, tuple(sorted(sizes)))
        sizes = {layer: len(codes) for layer, codes in counts.codes.items()}
    for x, y in dict.fromkeys(plan.pairs):
        cells = sizes[x] * sizes[y]
        if plan.variant == "sets" and (max(sizes[x], sizes[y]) > MOST_SETS or cells > max(MOST_SETS, n_rows // 5)):
            counts.undersampled[x, y] = f"{UNDERSAMPLED}: {n_rows} tokens for {sizes[x]} x {sizes[y]} observed sets; take first choices"
        else:
            counts.sizes[x, y] = sizes[x], sizes[y]
    return counts


def _observed_sets(trace: RoutingTrace, plan: PairPlan, layers: tuple[int, ...]) -> tuple[dict[int, Int], int]:
    """Codes of the sets that occur, ascending, per layer (more than MOST_SETS: the beginning of them), and the number of rows."""
    metas = tuple(trace.meta.layers[layer] for layer in layers)
    found: dict[int, Int] = {layer: np.zeros(0, np.int64) for layer in layers}
    n_rows = 0
    for batch in id_batches(trace, plan.split, layers):
        n_rows += len(batch)
        for layer, meta, ids in zip(layers, metas, Planes.of(batch, metas).ids):
            if len(found[layer]) <= MOST_SETS:
                found[layer] = np.union1d(found[layer], set_codes(ids, meta.n_experts))
    return found, n_rows


def _bytes(counts: PairCounts, pair: Pair) -> int:
    x, y = counts.sizes[pair]
    return counts.deal.n_groups * x * (1 << max(y - 1, 0).bit_length()) * 4


def _chunks(counts: PairCounts) -> Iterator[list[Pair]]:
    chunk: list[Pair] = []
    held = 0
    for pair in counts.sizes:
        if chunk and held + _bytes(counts, pair) > TABLE_BYTES:
            yield chunk
            chunk, held = [], 0
        chunk.append(pair)
        held += _bytes(counts, pair)
    if chunk:
        yield chunk


def _count(trace: RoutingTrace, counts: PairCounts, pairs: list[Pair], backend: Backend | None, threads: int) -> None:
    """Fill the tables of some pairs in one pass over the trace."""
    for pair in pairs:
        counts.tables[pair] = segment_table(counts.deal.n_groups, *counts.sizes[pair], WIDTHS[0])
    slots = {layer: counts.layers[layer].top_k if counts.plan.variant == "slots" else 1 for pair in pairs for layer in pair}
    increments_a_row = sum(slots[x] * slots[y] for x, y in pairs)
    rows_G = np.zeros(counts.deal.n_groups, np.int64)
    for rows in _grouped(trace, counts, tuple(sorted(slots)), backend):
        rows_G += np.diff(rows.bounds)
        most = int(rows_G.max())
        chosen = backend or choose_backend(int(rows_G.sum()) * increments_a_row, 0 if numba_loaded() else COMPILED_FROM)

        def add(pair: Pair, rows: _Grouped = rows, most: int = most, chosen: Backend = chosen) -> None:
            counts.tables[pair] = widened(counts.tables[pair], most)
            add_segments(rows.early[pair[0]], rows.late[pair[1]], rows.bounds, counts.tables[pair], chosen)

        each(add, pairs, threads)
    counts.n_rows = int(rows_G.sum())


@dataclass(frozen=True)
class _Grouped:
    """Rows in group order: symbols per layer of the rows and of those `lag` later, and where each group begins [G + 1]."""

    early: Mapping[int, Symbols]
    late: Mapping[int, Symbols]
    bounds: Int


def _grouped(trace: RoutingTrace, counts: PairCounts, layers: tuple[int, ...], backend: Backend | None) -> Iterator[_Grouped]:
    metas = tuple(counts.layers[layer] for layer in layers)
    bytes_a_row = sum(m.id_dtype.itemsize * (m.top_k if counts.plan.variant == "slots" else 1) for m in metas)
    limit = min(BUFFER_ROWS, max(BUFFER_BYTES // max(bytes_a_row, 1), 1))
    for part in buffered(_parts(trace, counts, layers), limit):
        yield _in_groups(part, counts, layers, backend)


def _parts(trace: RoutingTrace, counts: PairCounts, layers: tuple[int, ...]) -> Iterator[Planes]:
    metas = tuple(counts.layers[layer] for layer in layers)
    for batch in id_batches(trace, counts.plan.split, layers):
        part = Planes.of(batch, metas)
        if counts.plan.variant != "slots":
            part = replace(part, ids=tuple(_one_plane(counts, layer, ids) for layer, ids in zip(layers, part.ids)))
        yield part


def _one_plane(counts: PairCounts, layer: int, ids: NDArray[Any]) -> NDArray[Any]:
    if counts.plan.variant == "first":
        return ids[:1].copy() if len(ids) > 1 else ids
    known = counts.codes[layer]
    return np.searchsorted(known, set_codes(ids, counts.layers[layer].n_experts))[None].astype(np.uint16)


def _in_groups(part: Planes, counts: PairCounts, layers: tuple[int, ...], backend: Backend | None) -> _Grouped:
    lag = counts.plan.lag
    rows, bounds = grouped_rows(part, counts.deal, counts.plan.split, lag)
    early, late = {}, {}
    for layer, ids in zip(layers, part.ids):
        n_symbols = len(counts.codes[layer]) if counts.codes else counts.layers[layer].n_experts
        found = symbols(ids, n_symbols)  # the check reads in order, and so brings into cache what is then taken out of order
        early[layer] = found._replace(ids=_taken(found.ids, rows, backend))
        late[layer] = found._replace(ids=_taken(found.ids, rows + lag, backend)) if lag and rows is not None else early[layer]
    return _Grouped(early, late, bounds)


def _taken(ids: NDArray[Any], rows: NDArray[Any] | None, backend: Backend | None) -> NDArray[Any]:
    if rows is None:
        return ids
    if backend == "numpy" or not numba_loaded():
        return ids[:, rows]
    out = np.empty((len(ids), len(rows)), ids.dtype)
    twin("gather")(ids, rows, out)
    return out
