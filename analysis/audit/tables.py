"""Findings of sources that kept only counts: common factors, sums that disagree, ids that are not there, rank-paired tables, small samples.

D domain, L MoE layer, E expert, n row of a table of token types.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.audit.choices import CONSTANT, FEWEST_ROWS
from analysis.audit.flaw import Flaw, flaw
from analysis.audit.sample import MOSTLY, bias_shares
from analysis.kernels import Int
from analysis.trace import CountsTrace, LayerMeta

CHANCE_BITS = 20.0  # a common factor g of n counts has chance g**-n; below 2**-20 it is none


def each(trace: CountsTrace) -> Iterator[tuple[str, LayerMeta, Int]]:
    """(place, layer, counts [E]) of each layer and domain."""
    for layer, counts in zip(trace.meta.layers, trace.counts):
        for domain, row in zip(trace.domains, counts):
            yield f"layer {layer.key}, domain {domain}", layer, row


def _size(trace: CountsTrace) -> int:
    return len(trace.meta.layers) * len(trace.domains)


def common_factor(trace: CountsTrace) -> Flaw | None:
    """Domains, layers and rows of token types whose counts have a common factor that no chance gives."""
    tables = [(f"domain {domain}", np.concatenate([one[number] for one in trace.counts])) for number, domain in enumerate(trace.domains)]
    tables += [(f"layer {layer.key}", counts.ravel()) for layer, counts in zip(trace.meta.layers, trace.counts)]
    tables += [(f"layer {layer.key}, domain {domain}, token types", rows[rows[:, 0] == number, 3])
               for layer, rows in zip(trace.meta.layers, trace.types or ()) for number, domain in enumerate(trace.domains)]
    found = {place: factor for place, counts in tables if (factor := factor_of(counts)) > 1}
    if not found:
        return None
    return flaw("common_factor", len(found), len(tables), "tables", f"every count of {len(found)} tables is a multiple of {min(found.values())}",
                found)


def factor_of(counts: NDArray[np.int64]) -> int:
    """The greatest common divisor of counts where chance does not give it, else 1; equal counts tell nothing."""
    there = np.unique(counts[counts > 0])
    if len(there) < 2:
        return 1
    factor = int(np.gcd.reduce(there))
    return factor if factor > 1 and (len(there) - 1) * np.log2(factor) >= CHANCE_BITS else 1


def sums_disagree(trace: CountsTrace) -> Flaw | None:
    """Layers and domains whose counts do not sum to k selections of every token, or to those of other layers."""
    found = []
    for number, domain in enumerate(trace.domains):
        per_token = [int(counts[number].sum()) / layer.top_k for layer, counts in zip(trace.meta.layers, trace.counts)]
        if trace.tokens is not None:
            usual = float(trace.tokens[number])
        else:
            usual = float(np.median(per_token)) if per_token else 0.0
        found += [f"layer {layer.key}, domain {domain}" for layer, one in zip(trace.meta.layers, per_token) if one != usual]
        if trace.first is not None:
            found += [f"layer {layer.key}, domain {domain}, first choices" for layer, first in zip(trace.meta.layers, trace.first)
                      if int(first[number].sum()) != usual]
    if not found:
        return None
    of = _size(trace) * (1 if trace.first is None else 2)
    return flaw("sums_disagree", len(found), of, "tables", "counts do not sum to k selections of every token", found)


def negative_counts(trace: CountsTrace) -> Flaw | None:
    """Tables with counts below 0, or with other numbers of experts than the layer has."""
    found = [place for place, layer, row in each(trace) if len(row) != layer.n_experts or (row < 0).any()]
    if not found:
        return None
    return flaw("ids_beyond_range", len(found), _size(trace), "tables", "counts below 0, or of other numbers of experts than the layer has", found)


def rank_paired(trace: CountsTrace) -> Flaw | None:
    """Pair tables that are declared to join equal ranks, or whose sums are of all slots."""
    found = []
    for (a, b), pairs in trace.pairs.items():
        k = trace.meta.layers[a].top_k
        all_slots = k > 1 and np.array_equal(pairs.sum(axis=2), trace.counts[a])
        if (not trace.pairs_first and k > 1) or all_slots:
            found.append(f"{trace.meta.layers[a].key} to {trace.meta.layers[b].key}")
    if not found:
        return None
    return flaw("rank_paired", len(found), len(trace.pairs), "tables", "the r-th choice of a layer is paired with the r-th of the other", found)


def dense_tables(trace: CountsTrace) -> Flaw | None:
    """Layers whose every selection is of expert 0, or of the same k experts for nearly every token."""
    found = [layer.key for layer, counts in zip(trace.meta.layers, trace.counts) if _dense(layer, counts)]
    if not found:
        return None
    return flaw("dense_layers", len(found), len(trace.meta.layers), "layers", f"{len(found)} layers choose expert 0, or the same k, for every token",
                found)


def _dense(layer: LayerMeta, counts: Int) -> bool:
    total, k = counts.sum(axis=0), layer.top_k
    if total.sum() < FEWEST_ROWS * k or len(total) <= k:
        return False
    return bool(total[0] == total.sum() or np.sort(total)[-k] * k >= CONSTANT * total.sum())


def repeated_tables(trace: CountsTrace) -> Flaw | None:
    """Layers with the same counts in every domain."""
    routed = [(layer.key, counts) for layer, counts in zip(trace.meta.layers, trace.counts) if not _dense(layer, counts)]
    found = {key: next((other for other, earlier in routed[:i] if _alike([counts], [earlier])), None) for i, (key, counts) in enumerate(routed)}
    layers = [f"{key} = {other}" for key, other in found.items() if other is not None]
    if not layers:
        return None
    return flaw("repeated_layers", len(layers), len(trace.meta.layers), "layers", f"{len(layers)} layers have the counts of others", layers)


def repeated_domains(trace: CountsTrace) -> Flaw | None:
    """Domains with the counts of another one in every layer."""
    columns = [[one[i] for one in trace.counts] for i in range(len(trace.domains))]
    same = {domain: next((j for j in range(i) if _alike(columns[i], columns[j])), None) for i, domain in enumerate(trace.domains)}
    found = [f"{domain} = {trace.domains[j]}" for domain, j in same.items() if j is not None]
    if not found:
        return None
    return flaw("counted_twice", len(found), len(trace.domains), "domains", f"{len(found)} domains have the counts of others", found)


def _alike(a: Sequence[Int], b: Sequence[Int]) -> bool:
    """Equal tables of at least two different counts."""
    return all(x.shape == y.shape and bool((x == y).all()) for x, y in zip(a, b)) and any(len(np.unique(x)) > 2 for x in a)


def small_tables(trace: CountsTrace) -> Flaw | None:
    """Layers and domains whose entropy or Gini is mostly that of uniform routing."""
    found = []
    for place, layer, row in each(trace):
        shares = bias_shares(row, layer.top_k) if len(row) == layer.n_experts and (row >= 0).all() else None
        if shares is not None and max(shares) >= MOSTLY:
            found.append(place)
    if not found:
        return None
    return flaw("small_sample", len(found), _size(trace), "tables", "uniform routing of as many selections shows most of the entropy's "
                "deficit or of the Gini", found)
