"""Cluster consistency: what is judged between domains that share their clusters, have their own, or share them in all pairs but one."""

from __future__ import annotations

import numpy as np
import pytest

from hypotheses.topology_consistency import _replicates

EXPERTS, GROUPS, TOKENS = 12, 12, 1_500


def tables(rng: np.random.Generator, weights: np.ndarray) -> np.ndarray:
    """[G, E, E] of sets of two drawn by `weights` [E, E] above the diagonal."""
    upper = np.triu_indices(EXPERTS, 1)
    p = weights[upper] / weights[upper].sum()
    out = np.zeros((GROUPS, EXPERTS, EXPERTS), np.int64)
    for group in out:
        n = rng.multinomial(TOKENS, p)
        group[upper] = n
        group += group.T
        group[np.diag_indices(EXPERTS)] = group.sum(axis=1)
    return out


def affinity(seed: int) -> np.ndarray:
    return np.exp(0.8 * np.random.default_rng(seed).normal(size=(EXPERTS, EXPERTS)))


def p_of(replicates: object) -> float:
    null, value = replicates.null, float(replicates.mantel.plug_in)  # type: ignore[attr-defined]
    return (1 + int((null >= value).sum())) / (len(null) + 1)


def test_domains_with_clusters_of_their_own_are_rarely_beyond_renamed_experts() -> None:
    """The interval over documents alone excludes 0 in about a third of such worlds: which experts there are is chance too."""
    rng = np.random.default_rng(5)
    p = [p_of(_replicates([tables(rng, affinity(100 + 2 * n)), tables(rng, affinity(101 + 2 * n))], rng, 199)) for n in range(40)]
    assert sum(one < 0.05 for one in p) <= 6  # binomial(40, .05): above 6 in 0.3 % of cases
    assert min(p) < 0.3 < max(p)


def test_shared_clusters_are_beyond_renamed_experts() -> None:
    rng = np.random.default_rng(6)
    found = _replicates([tables(rng, affinity(1)), tables(rng, affinity(1))], rng, 199)
    assert p_of(found) == pytest.approx(1 / 200)
    assert found.pairs.plug_in == pytest.approx([1.0], abs=0.05)  # type: ignore[union-attr]


def test_one_alien_domain_shows_in_its_pairs_and_not_in_the_others() -> None:
    rng = np.random.default_rng(7)
    found = _replicates([tables(rng, affinity(1)) for _ in range(3)] + [tables(rng, affinity(2))], rng, 199)
    assert not isinstance(found, str)
    of_pair = dict(zip([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], found.pairs.plug_in))
    assert all(value > 0.9 for pair, value in of_pair.items() if 3 not in pair)
    assert all(value < 0.6 for pair, value in of_pair.items() if 3 in pair)
    assert float(found.matched.plug_in) == pytest.approx(np.mean(list(of_pair.values())))
