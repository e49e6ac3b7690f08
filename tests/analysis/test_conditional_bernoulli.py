"""The conditional Bernoulli law against enumeration of all sets, and its exact draws against the law."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.conditional_bernoulli import draw_pair_counts, fit, from_weights, inclusion, pair_counts, pair_inclusion, sample_sets, set_law, weights
from tests.references.cases import case


def enumerated(w: np.ndarray, k: int) -> np.ndarray:
    """Pair table of probabilities, loads on the diagonal, summed over every set."""
    out, total = np.zeros((len(w), len(w))), 0.0
    for members in combinations(range(len(w)), k):
        chance = float(np.prod(w[list(members)]))
        total += chance
        for i in members:
            for j in members:
                out[i, j] += chance
    return out / total


@given(st.lists(st.floats(1e-4, 1e4), min_size=2, max_size=8), st.data())
@settings(max_examples=60, deadline=None)
def test_probabilities_are_those_of_enumeration(w: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(w)))
    expected = enumerated(np.array(w), k)
    p = from_weights(w, k)
    np.testing.assert_allclose(inclusion(p, k), np.diag(expected), rtol=1e-9)  # weights eight decades apart cost a digit
    np.testing.assert_allclose(pair_inclusion(p, k), expected, rtol=1e-9, atol=1e-300)


def test_fits_the_loads_of_the_reference() -> None:
    inputs, expected = case("G02")
    p = fit(inputs["target_pi"], inputs["k"])
    np.testing.assert_allclose(weights(p), expected["weights_rel_to_max"], rtol=1e-9)
    pairs = pair_inclusion(p, inputs["k"])
    np.fill_diagonal(pairs, 0)
    np.testing.assert_allclose(pairs, expected["pi_ij"], rtol=1e-9)


@given(st.integers(2, 12), st.data())
@settings(max_examples=80, deadline=None)
def test_fits_the_loads_of_any_sample(n_experts: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n_experts))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    scores = rng.normal(0, data.draw(st.floats(0, 6)), n_experts) + rng.gumbel(size=(data.draw(st.integers(1, 3000)), n_experts))
    loads = (np.argsort(np.argsort(-scores, axis=1), axis=1) < k).mean(axis=0)
    p = fit(loads, k)
    np.testing.assert_allclose(inclusion(p, k), loads, atol=1e-12)
    assert ((loads == 0) == (p == 0)).all() and ((loads == 1) == (p == 1)).all()
    np.testing.assert_allclose(pair_inclusion(p, k).sum(axis=1), k * loads, atol=1e-10)


@pytest.mark.parametrize(("loads", "k"), [
    ([0.6, 0.4], 1), ([1 - 1e-6, 1e-6], 1), ([1 - 1e-6] * 3 + [1.5e-6] * 2, 3), ([0.99, 0.99, 0.01, 0.01], 2), ([1, 1, 0, 0], 2),
    ([1, 0.5, 0.5, 0], 2), ([0.9, 0.9, 0.9, 0.3], 3), ([1.0], 1), ([1 - 1e-9, 1e-9], 1),
])
def test_fits_loads_near_0_and_1(loads: list[float], k: int) -> None:
    np.testing.assert_allclose(inclusion(fit(loads, k), k), loads, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("n_experts", "k"), [(256, 8), (256, 16), (256, 250), (64, 32)])
def test_large_layers_stay_exact(n_experts: int, k: int) -> None:
    w = np.random.default_rng(n_experts).gamma(0.3, size=n_experts) + 1e-6
    p = from_weights(w, k)
    assert p.sum() == pytest.approx(k)
    loads = inclusion(p, k)
    assert loads.sum() == pytest.approx(k, rel=1e-12)
    np.testing.assert_allclose(weights(fit(loads, k)), w / w.max(), rtol=1e-6)
    few = pair_inclusion(p[None], k)[0]
    np.testing.assert_allclose(few.sum(axis=1), k * loads, rtol=1e-9)
    assert (few <= np.minimum(loads[:, None], loads) + 1e-12).all()


def test_even_loads_give_sampling_without_replacement() -> None:
    pairs = pair_inclusion(fit(np.full(8, 0.25), 2), 2)
    assert pairs[0, 1] == pytest.approx(2 * 1 / (8 * 7), rel=1e-12)


def test_a_batch_is_its_members_and_nan_rows_stay() -> None:
    loads = np.array([[0.8, 0.5, 0.4, 0.3], [np.nan] * 4, [0.5] * 4])
    together = pair_inclusion(fit(loads, 2), 2)
    assert np.isnan(together[1]).all()
    for row in (0, 2):
        np.testing.assert_allclose(together[row], pair_inclusion(fit(loads[row], 2), 2), rtol=1e-10)


@pytest.mark.parametrize(("loads", "k", "words"), [
    ([0.5, 0.4, 0.4], 2, "intended choices"), ([1.5, 0.5], 2, "outside"), ([0.5, 0.5], 3, "number of experts"),
])
def test_refuses_loads_of_no_law(loads: list[float], k: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit(loads, k)


def test_refuses_weights_without_a_set() -> None:
    with pytest.raises(ValueError, match="at least k = 2"):
        from_weights([1.0, 0.0, 0.0], 2)


def test_sets_are_drawn_with_their_probabilities() -> None:
    p, n = from_weights([5.0, 1.0, 0.5, 0.2, 2.0], 3), 40_000
    sets, chances = set_law(p, 3)
    drawn = sample_sets(p, 3, n, np.random.default_rng(3))
    assert (np.diff(drawn, axis=1) > 0).all()
    counts = np.array([(drawn == one).all(axis=1).sum() for one in sets])
    assert counts.sum() == n
    chi2 = float(((counts - n * chances) ** 2 / (n * chances)).sum())
    assert chi2 < 30  # 9 degrees of freedom: exceeded once in 2,000


@pytest.mark.parametrize("p", [[1.0, 0.3, 0.0, 0.7, 0.5], [1.0, 1.0, 1.0, 0.0, 0.0]])
def test_draws_hold_fixed_experts(p: list[float]) -> None:
    drawn = sample_sets(p, 3, 500, np.random.default_rng(1))
    chosen = np.bincount(drawn.ravel(), minlength=5)
    assert (chosen[np.array(p) == 1] == 500).all() and (chosen[np.array(p) == 0] == 0).all()
    table = draw_pair_counts(p, 3, 500, np.random.default_rng(1))
    assert np.trace(table) == 1500 and table.sum() == 4500 and (np.diag(table)[np.array(p) == 0] == 0).all()


@pytest.mark.parametrize("n_tokens", [100, 70_000])
def test_both_ways_of_drawing_a_table_follow_the_law(n_tokens: int) -> None:
    p = from_weights(np.linspace(0.2, 3, 12), 4)  # 495 sets: enumerated at 70,000 tokens, token by token at 100
    expected = pair_inclusion(p, 4)
    rng = np.random.default_rng(5)
    n_draws = 200 if n_tokens == 100 else 5
    mean = np.mean([draw_pair_counts(p, 4, n_tokens, rng) for _ in range(n_draws)], axis=0) / n_tokens
    error = np.sqrt(expected * (1 - expected) / (n_tokens * n_draws))
    assert (np.abs(mean - expected) < 5 * error + 1e-12).all()
    assert (comb(12, 4) <= n_tokens) == (n_tokens == 70_000)


def test_pair_counts_are_the_loop() -> None:
    rng = np.random.default_rng(2)
    sets, times = np.sort(rng.permuted(np.tile(np.arange(6), (40, 1)), axis=1)[:, :3], axis=1), rng.integers(0, 2**33, 40)
    slow = np.zeros((6, 6), np.int64)
    for members, n in zip(sets.tolist(), times.tolist()):
        for i in members:
            for j in members:
                slow[i, j] += n
    np.testing.assert_array_equal(pair_counts(sets, 6, times), slow)
    np.testing.assert_array_equal(pair_counts(sets, 6), pair_counts(sets, 6, np.ones(40, np.int64)))


def test_an_impossible_draw_says_so() -> None:
    with pytest.raises(ValueError, match="no set of k = 2"):
        sample_sets([1.0, 1.0, 1.0, 0.0], 2, 10, np.random.default_rng(0))
    with pytest.raises(ValueError, match="no set of k = 2"):
        set_law([1.0, 1.0, 1.0, 0.0], 2)


def test_pairs_of_narrow_ids_are_those_of_64_bits() -> None:
    sets = np.argsort(np.random.default_rng(8).random((40, 100)), axis=1)[:, :3]
    assert (pair_counts(sets.astype(np.uint8), 100) == pair_counts(sets, 100)).all()
