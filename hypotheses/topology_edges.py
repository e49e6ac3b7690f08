"""Experts of one layer that go with experts of the next: correlation, edges with false-discovery control, chains over all layers.

X, Y expert of two adjacent layers, R shift, P pair of adjacent layers.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from analysis.estimate import Estimate
from analysis.gates import few_documents, gated
from analysis.kernels import COMPILED_FROM, Float, choose_backend, numba_loaded
from analysis.metrics.coupling import Edges, first_choice_indicators, pathways, pathways_seed, phi_cross, phi_edges
from analysis.moved_rows import MovedRows, Scratch, Source
from analysis.shift import eligible, shift_sources
from analysis.threads import each
from hypotheses.topology_evidence import TopologyCounts
from hypotheses.topology_layers import DROP_FIRST, ONE_LAYER
from hypotheses.topology_parts import Part, Row, columns

EDGE_WORK = 2.5e9  # rows x pairs x shifts
NULL_CELLS = 2**27  # of the null draws, float32
FEWEST_SHIFTS = 39
MOST_CELLS, MOST_EDGES = 2**18, 2_000  # of a trace with more cells only the strongest edges of a pair are listed
EDGE_COLUMNS = ("layer_i", "layer_j", "i", "j", "phi", "p", "q", "n", "published")
PATH_COLUMNS = ("kind", "pathway", "step", "layer", "expert", "phi", "weight")


def edge_part(counts: TopologyCounts) -> Part:
    """phi of every pair of experts of adjacent layers, published edges and the heaviest chains through them, beside the seed's top tenth."""
    part = Part()
    if not counts.adjacent:
        part.tables = {"cross_layer_correlation": columns([], EDGE_COLUMNS), "pathways": columns([], PATH_COLUMNS)}
        part.estimates["phi_edges_published"] = Estimate.undefined(ONE_LAYER, unit="share of pairs", n_units=counts.n_documents)
        part.facts["edges"] = []
        return part
    tables = _tables(counts)
    edges = _edges(counts)
    rows: list[Row] = []
    whole = sum(table.size for table in tables) <= MOST_CELLS
    for (a, b), table, one in zip(counts.adjacent, tables, edges):
        rows += _rows(a, b, table, one, whole)
    part.tables["cross_layer_correlation"] = columns(rows, EDGE_COLUMNS)
    part.tables["pathways"] = columns(_paths(counts, edges), PATH_COLUMNS)
    testable = sum(one.n_testable for one in edges)
    share = float(sum(one.published.sum() for one in edges)) / max(testable, 1)
    estimate = Estimate(share, None, None, "share of pairs", "document", counts.n_documents, "Benjamini-Hochberg under circular shifts",
                        plug_in=share, n=testable, n_of="expert pairs")
    part.estimates["phi_edges_published"] = gated(estimate, few_documents(counts.n_documents))
    part.facts["edges"] = [{"layers": list(pair), "published": int(one.published.sum()), "testable": one.n_testable, "whole": whole,
                            "shifts": one.n_draws,
                            "shifts_for_one_edge": one.draws_for_one, "reason": one.reason} for pair, one in zip(counts.adjacent, edges)]
    return part


def _tables(counts: TopologyCounts) -> list[Float]:
    """Joint tables of adjacent pairs over all rows of the split."""
    totals = [sum(np.asarray(domain.joints_P[place]).sum(axis=0) for domain in counts.domain_joints) for place in range(len(counts.adjacent))]
    return [np.asarray(total, np.float64) for total in totals]


def _edges(counts: TopologyCounts) -> list[Edges]:
    """phi of each adjacent pair of layers on the nulls' rows against circular shifts of its second layer; a shift serves all pairs."""
    settings, kept = counts.settings, eligible(counts.routed, DROP_FIRST)
    first = [np.asarray(column) for column in kept.first_L]
    sizes = [(counts.layers[a].n_experts, counts.layers[b].n_experts) for a, b in counts.adjacent]
    n_rows, n_cells = len(first[0]), sum(x * y for x, y in sizes)
    n_draws = int(max(min(settings.n_edge_shifts, EDGE_WORK // max(n_rows * len(sizes), 1), NULL_CELLS // n_cells), FEWEST_SHIFTS))
    backend = choose_backend(n_rows * n_draws * len(sizes), 0 if numba_loaded() else COMPILED_FROM)
    sources, pairs = shift_sources(kept, settings.seed + 1, backend, whole=True), np.array(counts.adjacent, np.int64)
    rows = MovedRows.of(first, [layer.n_experts for layer in counts.layers], backend)
    null = [np.empty((n_draws, *size), np.float32) for size in sizes]
    own = threading.local()

    def phi(source: Source) -> list[Float]:
        if not hasattr(own, "scratch"):
            own.scratch = Scratch(rows)
        return [phi_cross(first_choice_indicators(table[0])) for table in rows.tables(source, pairs, own.scratch)]

    def draw(number: int) -> None:
        for place, found in enumerate(phi(sources(number))):
            null[place][number] = found

    each(draw, range(n_draws), settings.threads)
    return [phi_edges(one, draws, least_phi=settings.edge_cut) for one, draws in zip(phi(rows.identity()), null)]


def _rows(a: int, b: int, table: Float, edges: Edges, whole: bool) -> list[Row]:
    phi = edges.phi
    known = np.isfinite(phi)
    if not whole:
        strength = np.where(known, np.abs(np.nan_to_num(phi)), -1.0)
        least = max(float(np.sort(strength, axis=None)[-min(MOST_EDGES, strength.size)]), 0.0)
        known &= (strength >= least) | edges.published
    i, j = np.nonzero(known)
    return [{"layer_i": a, "layer_j": b, "i": int(e), "j": int(f), "phi": float(phi[e, f]), "p": float(edges.p[e, f]), "q": float(edges.q[e, f]),
             "n": int(table[e, f]), "published": int(edges.published[e, f])} for e, f in zip(i.tolist(), j.tolist())]


def _paths(counts: TopologyCounts, edges: Sequence[Edges]) -> list[Row]:
    """Heaviest chains through published edges, and through the seed's top tenth, which are edges by construction; one stack after another."""
    rows: list[Row] = []
    runs: list[list[int]] = []
    for place, (a, _) in enumerate(counts.adjacent):
        if runs and counts.adjacent[place - 1][1] == a:
            runs[-1].append(place)
        else:
            runs.append([place])
    for run in runs:
        phi, published = [edges[place].phi for place in run], [edges[place].published for place in run]
        first = counts.adjacent[run[0]][0]
        for kind, found in (("published", pathways(phi, published)), ("seed", pathways_seed(phi))):
            for number, chain in enumerate(found.chains):
                rows += [{"kind": kind, "pathway": number, "step": step, "layer": first + chain.first_layer + step, "expert": expert,
                          "phi": chain.phi[step - 1] if step else None, "weight": chain.weight} for step, expert in enumerate(chain.experts)]
    return rows
