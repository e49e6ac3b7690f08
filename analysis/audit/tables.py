"""Findings of sources that kept only counts: common factors, sums that disagree, ids that are not there, rank-paired tables, small samples.

D domain, L MoE layer, E expert, n row of a table of token types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from analysis.audit.flaw import Flaw, flaw
from analysis.audit.sample import MOSTLY, bias_shares
from analysis.kernels import Int
from analysis.trace import LayerMeta

CHANCE_BITS = 20.0  # a common factor g of n counts has chance g**-n; below 2**-20 it is none


@dataclass(frozen=True)
class Tables:
    """Additive tables of a source.

    counts: L arrays [D, E] of selections; first: of first choices; pairs: layer pair -> [D, E, E'] with pairs_first, whether they are
    declared to be of first choices; tokens [D]; types: L arrays [n, 4] (domain, expert, token id, count).
    """

    layers: tuple[LayerMeta, ...]
    domains: tuple[str, ...]
    counts: tuple[Int, ...]
    first: tuple[Int, ...] | None = None
    pairs: Mapping[tuple[int, int], Int] = field(default_factory=dict)
    pairs_first: bool = True
    tokens: Int | None = None
    types: tuple[NDArray[np.int64], ...] | None = None

    def each(self) -> Iterator[tuple[str, LayerMeta, Int]]:
        """(place, layer, counts [E]) of each layer and domain."""
        for layer, counts in zip(self.layers, self.counts):
            for domain, row in zip(self.domains, counts):
                yield f"layer {layer.key}, domain {domain}", layer, row


def common_factor(tables: Tables) -> Flaw | None:
    """Layers and domains whose counts, or whose rows of token types, have a common factor that no chance gives."""
    found, factors = [], []
    for place, _, row in tables.each():
        factor = factor_of(row)
        if factor > 1:
            found.append(place)
            factors.append(factor)
    for layer, rows in zip(tables.layers, tables.types or ()):
        for number, domain in enumerate(tables.domains):
            factor = factor_of(rows[rows[:, 0] == number, 3])
            if factor > 1:
                found.append(f"layer {layer.key}, domain {domain}, token types")
                factors.append(factor)
    if not found:
        return None
    of = len(tables.layers) * len(tables.domains) * (1 if tables.types is None else 2)
    return flaw("common_factor", len(found), of, "tables", f"every count of {len(found)} tables is a multiple of {min(factors)}", found)


def factor_of(counts: NDArray[np.int64]) -> int:
    """The greatest common divisor of counts where chance does not give it, else 1; equal counts tell nothing."""
    there = np.unique(counts[counts > 0])
    if len(there) < 2:
        return 1
    factor = int(np.gcd.reduce(there))
    return factor if factor > 1 and (len(there) - 1) * np.log2(factor) >= CHANCE_BITS else 1


def sums_disagree(tables: Tables) -> Flaw | None:
    """Layers and domains whose counts do not sum to k selections of every token, or to those of other layers."""
    found = []
    for number, domain in enumerate(tables.domains):
        per_token = [int(counts[number].sum()) / layer.top_k for layer, counts in zip(tables.layers, tables.counts)]
        if tables.tokens is not None:
            usual = float(tables.tokens[number])
        else:
            usual = float(np.median(per_token)) if per_token else 0.0
        found += [f"layer {layer.key}, domain {domain}" for layer, one in zip(tables.layers, per_token) if one != usual]
        if tables.first is not None:
            found += [f"layer {layer.key}, domain {domain}, first choices" for layer, first in zip(tables.layers, tables.first)
                      if int(first[number].sum()) != usual]
    if not found:
        return None
    return flaw("sums_disagree", len(found), len(tables.layers) * len(tables.domains), "tables", "counts do not sum to k selections of every token",
                found)


def negative_counts(tables: Tables) -> Flaw | None:
    """Tables with counts below 0, or with other numbers of experts than the layer has."""
    found = [place for place, layer, row in tables.each() if len(row) != layer.n_experts or (row < 0).any()]
    if not found:
        return None
    return flaw("ids_beyond_range", len(found), len(tables.layers) * len(tables.domains), "tables", "counts below 0, or of other numbers of experts "
                "than the layer has", found)


def rank_paired(tables: Tables) -> Flaw | None:
    """Pair tables that are declared to join equal ranks, or whose sums are of all slots."""
    found = []
    for (a, b), pairs in tables.pairs.items():
        k = tables.layers[a].top_k
        all_slots = k > 1 and bool((pairs.sum(axis=2) == tables.counts[a]).all())
        if (not tables.pairs_first and k > 1) or all_slots:
            found.append(f"{tables.layers[a].key} to {tables.layers[b].key}")
    if not found:
        return None
    return flaw("rank_paired", len(found), len(tables.pairs), "tables", "the r-th choice of a layer is paired with the r-th of the other", found)


def dense_tables(tables: Tables) -> Flaw | None:
    """Layers whose every selection is of expert 0, or of the experts 0..k-1 alike."""
    found = []
    for layer, counts in zip(tables.layers, tables.counts):
        total, k = counts.sum(axis=0), layer.top_k
        only_first = total[0] == total.sum() or (total[:k].min(initial=0) == total[:k].max(initial=0) and total[:k].sum() == total.sum())
        if total.sum() and layer.n_experts > k and only_first:
            found.append(layer.key)
    if not found:
        return None
    return flaw("dense_layers", len(found), len(tables.layers), "layers", f"{len(found)} layers choose expert 0, or 0..k-1, for every token", found)


def repeated_tables(tables: Tables) -> Flaw | None:
    """Layers with the same counts in every domain, and domains with the same counts in every layer."""
    layers = [f"{a.key} = {b.key}" for i, a in enumerate(tables.layers) for j, b in enumerate(tables.layers[:i])
              if _alike([tables.counts[i]], [tables.counts[j]])]
    if not layers:
        return None
    return flaw("repeated_layers", len(layers), len(tables.layers), "layers", f"{len(layers)} layers have the counts of others", layers)


def repeated_domains(tables: Tables) -> Flaw | None:
    """Domains with the counts of another one in every layer."""
    found = [f"{a} = {b}" for i, a in enumerate(tables.domains) for j, b in enumerate(tables.domains[:i])
             if _alike([one[i] for one in tables.counts], [one[j] for one in tables.counts])]
    if not found:
        return None
    return flaw("counted_twice", len(found), len(tables.domains), "domains", f"{len(found)} domains have the counts of others", found)


def _alike(a: Sequence[Int], b: Sequence[Int]) -> bool:
    """Equal tables of at least two different counts."""
    return all(x.shape == y.shape and bool((x == y).all()) for x, y in zip(a, b)) and any(len(np.unique(x)) > 2 for x in a)


def small_tables(tables: Tables) -> Flaw | None:
    """Layers and domains whose entropy or Gini is mostly that of uniform routing."""
    found = []
    for place, layer, row in tables.each():
        shares = bias_shares(row, layer.top_k) if len(row) == layer.n_experts and (row >= 0).all() else None
        if shares is not None and max(shares) >= MOSTLY:
            found.append(place)
    if not found:
        return None
    return flaw("small_sample", len(found), len(tables.layers) * len(tables.domains), "tables", "uniform routing of as many selections shows most of "
                "the entropy's deficit or of the Gini", found)
