"""Agreement of two domains' co-activation: Mantel against loops and enumeration, noise ceiling, partitions."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.coactivation_consistency import coactivation_consistency, mantel, partition_agreement, rank_correlation, split_half_reliability
from analysis.metrics.coactivation import coact_lift
from analysis.registry import find
from tests.analysis.metrics.test_coactivation import slow_table

Float = NDArray[np.float64]


def symmetric(seed: int, n: int) -> Float:
    x = np.random.default_rng(seed).normal(size=(n, n))
    return np.asarray(x + x.T)


def topical(seed: int, n_tokens: int, blocks: list[int]) -> NDArray[np.int64]:
    """Co-activation table of two experts a token where experts of one block like to meet."""
    rng = np.random.default_rng(seed)
    block = np.array(blocks)
    scores = 1.5 * (block == rng.integers(0, max(blocks) + 1, (n_tokens, 1))) + rng.gumbel(size=(n_tokens, len(block)))
    return slow_table(np.argsort(-scores, axis=1)[:, :2], len(block))


def test_rho_is_spearman_of_the_upper_cells_and_p_that_of_all_label_permutations() -> None:
    from scipy.stats import spearmanr

    a, b = symmetric(0, 5), symmetric(0, 5) + 0.8 * symmetric(1, 5)
    found = mantel(a, b, np.random.default_rng(0))
    upper = np.triu_indices(5, 1)
    assert found.rho == pytest.approx(spearmanr(a[upper], b[upper])[0], abs=1e-12)
    null = [spearmanr(a[upper], b[np.ix_(order, order)][upper])[0] for order in permutations(range(5))]
    assert found.exact and found.n_permutations == 120
    assert found.p == pytest.approx(np.mean(np.array(null) >= found.rho - 1e-12))


def test_undefined_pairs_drop_out() -> None:
    a, b = symmetric(2, 6), symmetric(3, 6)
    a[0, 1] = a[1, 0] = b[2, 3] = b[3, 2] = np.nan
    b[5] = b[:, 5] = np.nan
    found = mantel(a, b, np.random.default_rng(0), n_permutations=120)
    upper = np.triu_indices(6, 1)
    assert found.rho == rank_correlation(a[upper], b[upper]) and found.n_experts == 5 and found.n_pairs == 8
    sub_a, sub_b, inner = a[:5, :5], b[:5, :5], np.triu_indices(5, 1)
    null = [rank_correlation(sub_a[inner], sub_b[np.ix_(order, order)][inner]) or 0.0 for order in permutations(range(5))]
    assert found.p == pytest.approx(np.mean(np.array(null) >= (found.rho or 0.0) - 1e-12))


def test_random_permutations_find_identity_and_keep_their_size() -> None:
    a = symmetric(4, 10)
    same = mantel(a, a, np.random.default_rng(0), 199)
    assert same.rho == pytest.approx(1.0) and same.p == pytest.approx(1 / 200) and not same.exact
    small = [mantel(symmetric(10 + i, 8), symmetric(500 + i, 8), np.random.default_rng(i), 59).p for i in range(200)]
    assert np.mean([p is not None and p <= 0.05 for p in small]) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_undefined_mantel_says_why() -> None:
    rng = np.random.default_rng(0)
    assert str(mantel(symmetric(0, 2), symmetric(1, 2), rng).reason).startswith("too_few_pairs: 1")
    assert mantel(np.ones((4, 4)), symmetric(0, 4), rng).rho is None
    assert mantel(np.full((4, 4), np.nan), symmetric(0, 4), rng).n_experts == 0
    with pytest.raises(ValueError, match="same experts"):
        mantel(symmetric(0, 3), symmetric(0, 4), rng)


def test_reliability_is_stepped_up_and_averaged_over_splits() -> None:
    halves = np.stack([topical(0, 500, [0, 0, 0, 1, 1, 1]), topical(1, 500, [0, 0, 0, 1, 1, 1])])
    upper = np.triu_indices(6, 1)
    r = rank_correlation(coact_lift(halves[0])[upper], coact_lift(halves[1])[upper])
    assert r is not None
    assert split_half_reliability(halves) == pytest.approx(2 * r / (1 + r))
    assert split_half_reliability(np.stack([halves, halves[::-1]])) == pytest.approx(2 * r / (1 + r))
    assert split_half_reliability(np.zeros((2, 4, 4))) is None


def test_domains_that_share_structure_reach_their_ceiling() -> None:
    blocks = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    a, b = (np.stack([topical(10 * d + h, 1500, blocks) for h in range(2)]) for d in range(2))
    found = coactivation_consistency(a, b, np.random.default_rng(0), 199)
    assert found.mantel.p == pytest.approx(1 / 200) and found.corrected is not None and 0.6 < found.corrected < 1.2
    assert found.ceiling == pytest.approx(np.sqrt((found.reliability_a or 0) * (found.reliability_b or 0)))
    rho = find("coact_mantel").function(a.sum(axis=0), b.sum(axis=0))
    assert found.mantel.rho == pytest.approx(rho) and found.reason is None
    other = coactivation_consistency(a, np.stack([topical(50 + h, 1500, [0, 1, 2] * 4) for h in range(2)]), np.random.default_rng(0), 199)
    assert other.corrected is not None and other.corrected < 0.3 and other.mantel.p is not None and other.mantel.p > 0.05


def test_one_law_in_both_domains_matches_at_one() -> None:
    blocks = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    found = [coactivation_consistency(*(np.stack([topical(100 * s + 10 * d + h, 800, blocks) for h in range(2)]) for d in range(2)),
                                      np.random.default_rng(0), 1) for s in range(12)]
    matched = [one.matched for one in found if one.matched is not None]
    assert len(matched) == 12 and abs(np.mean(matched) - 1) < 4 * np.std(matched) / np.sqrt(12)
    assert np.mean([one.corrected or 0.0 for one in found]) < 0.95  # equal true lifts keep their rank noise whatever the documents


def test_noise_alone_is_unreliable_not_different() -> None:
    from analysis.conditional_bernoulli import draw_pair_counts

    reasons = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        halves = np.stack([draw_pair_counts(np.full(8, 0.25), 2, 300, rng) for _ in range(2)])
        reasons.append(coactivation_consistency(halves, halves, rng, 19).reason)
    assert any(str(reason).startswith("unreliable") for reason in reasons)


def test_undefined_consistency_says_why_and_bad_halves_are_refused() -> None:
    rng = np.random.default_rng(0)
    single = np.stack([slow_table(np.array([[0], [1]]), 3)] * 2)
    assert coactivation_consistency(single, single, rng).reason == "k=1"
    assert str(coactivation_consistency(np.zeros((2, 3, 3)), single, rng).reason).startswith("no_data")
    with pytest.raises(ValueError, match="two halves"):
        coactivation_consistency(np.zeros((3, 4, 4)), single, rng)
    good = np.stack([topical(h, 100, [0, 0, 1, 1]) for h in range(2)])
    with pytest.raises(ValueError, match="same documents"):
        coactivation_consistency(np.stack([good, 2 * good]), good, rng)


def test_partitions_agree_up_to_names() -> None:
    same = partition_agreement([0, 0, 1, 1, -1, 2], [5, 5, 3, 3, 0, -1])
    assert same.ari == 1.0 and same.ami == pytest.approx(1.0) and same.n_experts == 4
    from sklearn.metrics import adjusted_rand_score

    one, other = [0, 0, 1, 1, 2, 2], [0, 0, 1, 2, 2, 2]
    assert partition_agreement(one, other).ari == pytest.approx(adjusted_rand_score(one, other))
    assert str(partition_agreement([0, 0, 0], [0, 1, 1]).reason).startswith("one_cluster")
    assert str(partition_agreement([-1, 0], [0, -1]).reason).startswith("no_data")
    with pytest.raises(ValueError, match="same experts"):
        partition_agreement([0, 1], [0, 1, 1])
