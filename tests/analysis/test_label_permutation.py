"""Arrangements of labels against enumeration, and permutation p-values against brute force."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.domain_labels import DomainDocuments
from analysis.gates import CONFOUNDED, NO_DATA, ONE_DOCUMENT, UNTESTABLE
from analysis.kernels import Float
from analysis.label_permutation import arrangement, arrangements, in_own_order, label_draws, label_null, smallest_p, untestable


def documents(domain: list[int], source: list[int] | None = None, seed: int = 0, n_experts: int = 4, length: int = 30) -> DomainDocuments:
    rng = np.random.default_rng(seed)
    counts = np.stack([rng.multinomial(length, rng.dirichlet(np.ones(n_experts))) for _ in domain])
    return DomainDocuments((counts,), np.array(domain), max(domain) + 1, None if source is None else np.array(source))


def spread(tables_BDC: Float) -> Float:
    """Sum of squares over domains of each expert's share: blind to the domains' names."""
    return ((tables_BDC / tables_BDC.sum(axis=-1, keepdims=True)) ** 2).sum(axis=1)


@pytest.mark.parametrize("sizes", [[3], [2, 2], [1, 2, 3], [0, 2, 1], [4, 4]])
def test_arrangements_are_all_distinct_sequences_in_order(sizes: list[int]) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    every = sorted(set(permutations(labels.tolist())))
    docs = DomainDocuments((np.ones((len(labels), 2), np.int64),), labels, len(sizes))
    assert arrangements(docs) == len(every)
    np.testing.assert_array_equal(arrangement(np.arange(len(every)), np.array(sizes)), every)


def test_sources_multiply_and_hold_labels_inside() -> None:
    docs = documents([0, 0, 1, 0, 1, 1, 1], [5, 5, 5, 9, 9, 9, 9])
    assert arrangements(docs) == 3 * 4
    seen = np.concatenate(list(label_draws(docs, 0, np.random.default_rng(0), exact=True, at_once=5)))
    assert len({tuple(row) for row in seen.tolist()}) == len(seen) == 12
    assert (np.sort(seen[:, :3]) == [0, 0, 1]).all() and (np.sort(seen[:, 3:]) == [0, 1, 1, 1]).all()
    drawn = np.concatenate(list(label_draws(docs, 300, np.random.default_rng(0), exact=False, at_once=7)))
    assert {tuple(row) for row in drawn.tolist()} == {tuple(row) for row in seen.tolist()}


def test_smallest_p_counts_swaps_of_domains_of_the_same_sizes() -> None:
    assert smallest_p(documents([0, 0, 0, 1, 1, 1])) == pytest.approx(2 / 20)
    assert smallest_p(documents([0, 0, 0, 1, 1])) == pytest.approx(1 / 10)
    assert smallest_p(documents([0, 0, 1, 1, 2, 2])) == pytest.approx(6 / 90)
    assert smallest_p(documents([0, 0, 1, 0, 1, 1, 1, 0, 1], [0, 0, 0, 1, 1, 1, 1, 2, 2])) == pytest.approx(1 / 24)


def test_untestable_says_why() -> None:
    assert untestable(documents([0] * 6 + [1] * 6)) is None
    assert str(untestable(documents([0, 1, 2]))).startswith(ONE_DOCUMENT)
    assert str(untestable(documents([0, 0, 1, 1]))).startswith(UNTESTABLE) and untestable(documents([0, 0, 1, 1]), alpha=0.2) is None
    assert str(untestable(documents([0] * 9 + [1] * 9, [0] * 9 + [1] * 9))).startswith(CONFOUNDED)
    assert str(untestable(DomainDocuments((np.ones((4, 2), np.int64),), np.array([0, 0, 2, 2]), 3))).startswith(NO_DATA)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_the_exact_p_is_the_share_of_all_sequences(seed: int) -> None:
    docs = documents([0, 1, 0, 1, 1, 2, 2], seed=seed)
    counts = docs.layers[0].astype(float)
    tables = np.array([[counts[np.array(labels) == d].sum(axis=0) for d in range(3)] for labels in set(permutations(docs.domain.tolist()))])
    observed = spread(np.array([[counts[docs.domain == d].sum(axis=0) for d in range(3)]]))[0]
    wanted = (spread(tables) >= observed * (1 - 1e-9)).mean(axis=0)
    found = label_null(docs, spread, np.random.default_rng(0))
    assert found.exact and found.n_draws == 210
    np.testing.assert_allclose(found.p, wanted, rtol=1e-12)
    np.testing.assert_allclose(found.observed, observed)


def test_drawn_p_comes_near_the_exact_one_and_is_never_zero() -> None:
    docs = documents([0] * 5 + [1] * 5, seed=3)
    exact = label_null(docs, spread, np.random.default_rng(0)).p
    drawn = label_null(docs, spread, np.random.default_rng(0), n_draws=3000, exact_limit=10)
    assert not drawn.exact and (drawn.p >= 1 / 3001).all()
    np.testing.assert_allclose(drawn.p, exact, atol=4 * 0.5 / np.sqrt(3000))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_draws_do_not_depend_on_order_names_or_chunks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    docs = documents([0] * 6 + [1] * 9 + [2] * 7, [0, 1] * 11, seed=seed)
    first = label_null(docs, spread, np.random.default_rng(5), n_draws=99, exact_limit=10, keep=True)
    order = rng.permutation(22)
    np.testing.assert_array_equal(label_null(docs.take(order), spread, np.random.default_rng(5), n_draws=99, exact_limit=10).p, first.p)
    experts, names = rng.permutation(4), rng.permutation(3)
    assert docs.source is not None
    renamed = DomainDocuments((docs.layers[0][:, experts],), names[docs.domain], 3, 1 - docs.source)
    np.testing.assert_array_equal(label_null(renamed, spread, np.random.default_rng(5), n_draws=99, exact_limit=10).p, first.p[experts])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.label_permutation.CELLS_AT_ONCE", 500)
        again = label_null(docs, spread, np.random.default_rng(5), n_draws=99, exact_limit=10, keep=True)
    np.testing.assert_array_equal(again.p, first.p)
    assert again.null is not None and first.null is not None and again.null.shape == (99, 4)
    np.testing.assert_allclose(again.null, first.null, rtol=1e-12)


def test_counts_beyond_single_precision_stay_exact() -> None:
    docs = documents([0, 0, 0, 1, 1, 1, 1])
    huge = DomainDocuments((docs.layers[0] * 2**33 + 1,), docs.domain, 2)
    small = label_null(DomainDocuments((docs.layers[0] * 2**10,), docs.domain, 2), spread, np.random.default_rng(0))
    np.testing.assert_array_equal(label_null(huge, spread, np.random.default_rng(0)).p, small.p)


def test_own_order_sorts_by_content() -> None:
    docs = documents([0, 1, 0, 1, 1])
    own, order = in_own_order(docs)
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4] and own.layers == ()
    assert np.bincount(own.domain).tolist() in ([2, 3], [3, 2])
