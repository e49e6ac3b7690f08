"""Findings of sources that kept counts only, each at three severities, and none on counts of clean traces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from analysis.audit import audit_tables
from analysis.audit.tables import factor_of
from analysis.trace import CountsTrace
from tests.analysis.audit.flaws import whole
from tests.analysis.audit.worlds import World, clean, drawn_world

CLEAN_LONG, MOST_ALARMS = 200, 2  # 1 % of 200
Plant = Callable[[CountsTrace, int], CountsTrace]


def counted(seed: int = 0, world: World | None = None) -> CountsTrace:
    """Tables of a clean trace: selections, first choices, pairs of first choices of adjacent layers, token types."""
    trace = clean(world or World(), seed)
    batch, n = whole(trace), len(trace.meta.layers)
    domains = tuple(dict.fromkeys(one.domain for one in trace.documents))
    domain = np.array([domains.index(one.domain) for one in trace.documents])[batch.document]
    e = trace.meta.layers[0].n_experts

    def table(*columns: np.ndarray) -> np.ndarray:
        out = np.zeros((len(domains), *(e for _ in columns[1:])), np.int64)
        np.add.at(out, columns, 1)
        return out

    k = batch.ids[0].shape[1]
    counts = tuple(table(np.repeat(domain, k), ids.ravel()) for ids in batch.ids)
    first = tuple(table(domain, ids[:, 0]) for ids in batch.ids)
    pairs = {(i, i + 1): table(domain, batch.ids[i][:, 0], batch.ids[i + 1][:, 0]) for i in range(n - 1)}
    types = []
    for ids in batch.ids:
        keys, count = np.unique(np.column_stack([domain, ids[:, 0], batch.types]), axis=0, return_counts=True)
        types.append(np.column_stack([keys, count]).astype(np.int64))
    return CountsTrace(trace.meta, domains, counts, first, pairs, True, np.bincount(domain), tuple(types))


def multiplied(trace: CountsTrace, severity: int) -> CountsTrace:
    """Rows of token types of one domain twice; one domain twice in every table; everything three times."""
    if severity == 0:
        rows = [one.copy() for one in trace.types or ()]
        for one in rows:
            one[one[:, 0] == 0, 3] *= 2
        return replace(trace, types=tuple(rows))
    factor = np.array([2, 1, 1] if severity == 1 else [3, 3, 3])
    assert trace.first is not None and trace.tokens is not None
    return replace(trace, counts=tuple(one * factor[:, None] for one in trace.counts), first=tuple(one * factor[:, None] for one in trace.first),
                   pairs={pair: one * factor[:, None, None] for pair, one in trace.pairs.items()}, tokens=trace.tokens * factor)


def disagreeing(trace: CountsTrace, severity: int) -> CountsTrace:
    """One selection too many; one layer of one domain lost a tenth; tokens are selections."""
    counts = [one.copy() for one in trace.counts]
    if severity == 0:
        counts[0][0, 0] += 1
    elif severity == 1:
        counts[0][0] = counts[0][0] * 9 // 10
    tokens = trace.tokens if severity < 2 or trace.tokens is None else trace.tokens * 2
    return replace(trace, counts=tuple(counts), tokens=tokens)


def paired_by_rank(trace: CountsTrace, severity: int) -> CountsTrace:
    """One table of pairs is of equal ranks; all are; all are and it is said."""
    batch = whole(clean(World()))
    domain = np.arange(60)[batch.document] % 3
    pairs = dict(trace.pairs)
    for pair in list(pairs)[:1] if severity == 0 else list(pairs):
        table = np.zeros_like(pairs[pair])
        for slot in range(2):
            np.add.at(table, (domain, batch.ids[pair[0]][:, slot], batch.ids[pair[1]][:, slot]), 1)
        pairs[pair] = table
    return replace(trace, pairs=pairs, pairs_first=severity < 2)


def dense(trace: CountsTrace, severity: int) -> CountsTrace:
    """One layer of the experts 0..k-1; one of expert 0; all but one of expert 0."""
    counts = [one.copy() for one in trace.counts]
    for one in counts[:(1, 1, 2)[severity]]:
        total = one.sum(axis=1)
        one[:] = 0
        if severity == 0:
            one[:, :2] = (total // 2)[:, None]
        else:
            one[:, 0] = total
    return replace(trace, counts=tuple(counts), first=None, pairs={}, types=None)


def same_layers(trace: CountsTrace, severity: int) -> CountsTrace:
    """The second layer is the first; all are; all are, and types too."""
    counts = list(trace.counts)
    for layer in range(1, 2 if severity == 0 else 3):
        counts[layer] = counts[0]
    return replace(trace, counts=tuple(counts), first=None, pairs={}, types=None)


def same_domains(trace: CountsTrace, severity: int) -> CountsTrace:
    """The second domain is the first; all are; all are, without token numbers."""
    counts = [one.copy() for one in trace.counts]
    for one in counts:
        one[1:2 if severity == 0 else 3] = one[0]
    tokens = None if severity == 2 or trace.tokens is None else np.r_[trace.tokens[[0, 0]], trace.tokens[2 if severity == 0 else 0]]
    return replace(trace, counts=tuple(counts), first=None, pairs={}, types=None, tokens=tokens)


def small(trace: CountsTrace, severity: int) -> CountsTrace:
    """Loads of uniform routing: 128, 48, 16 selections for 16 experts in one layer."""
    counts = [one.copy() for one in trace.counts]
    rng = np.random.default_rng(1)
    n = (128, 48, 16)[severity]
    for one in counts:
        one[:] = rng.multinomial(n, np.full(16, 1 / 16), size=len(one))
    return replace(trace, counts=tuple(counts), first=None, pairs={}, types=None, tokens=np.full(3, n // 2))


PLANTED: dict[str, tuple[str, Plant]] = {
    "multiplied": ("common_factor", multiplied), "disagreeing": ("sums_disagree", disagreeing), "paired": ("rank_paired", paired_by_rank),
    "dense": ("dense_layers", dense), "layers": ("repeated_layers", same_layers), "domains": ("counted_twice", same_domains),
    "small": ("small_sample", small),
}


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("severity", [0, 1, 2])
def test_a_flaw_of_tables_is_found(name: str, severity: int) -> None:
    code, plant = PLANTED[name]
    found = {one.code: one for one in audit_tables(plant(counted(), severity))}
    assert set(found) == {code}
    assert 0 < found[code].count <= found[code].of and found[code].where


def test_tables_of_clean_traces_are_clean() -> None:
    for seed in range(8):
        assert audit_tables(counted(seed, World(layers=1 + seed % 4, experts=(8, 16, 32)[seed % 3], top_k=1 + seed % 3))) == ()


@pytest.mark.slow
def test_tables_of_two_hundred_clean_traces_raise_at_most_two_alarms() -> None:
    """The traces of the audit of rows, as their counts."""
    alarms = {seed: codes for seed in range(CLEAN_LONG)
              if (codes := [one.code for one in audit_tables(counted(1_000 + seed, drawn_world(np.random.default_rng([9, seed]))))])}
    assert len(alarms) <= MOST_ALARMS, alarms


def test_counts_that_are_none() -> None:
    trace = counted()
    bad = [one.copy() for one in trace.counts]
    bad[0][0, 0] = -1
    assert "ids_beyond_range" in {one.code for one in audit_tables(replace(trace, counts=tuple(bad)))}
    wider = tuple(np.pad(one, ((0, 0), (0, 1))) for one in trace.counts)
    assert "ids_beyond_range" in {one.code for one in audit_tables(replace(trace, counts=wider))}


def test_a_common_factor_needs_more_than_chance() -> None:
    assert factor_of(np.array([2, 4, 6, 8])) == 1  # 2**-3 of all
    assert factor_of(np.arange(1, 40) * 3) == 3
    assert factor_of(np.full(64, 500)) == 1  # k = E: equal counts tell nothing
    assert factor_of(np.zeros(5, np.int64)) == 1
    rng = np.random.default_rng(0)
    assert all(factor_of(rng.poisson(50, 30)) == 1 for _ in range(500))
