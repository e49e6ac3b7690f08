"""Methods, checkpoints and small families: training seeds, equivalence at its margin, correlations of a few pairs; tests that mistake the unit."""

from __future__ import annotations

from functools import partial

import numpy as np

from analysis.comparison import checkpoint_estimates, method_estimate, seed_comparison, unpaired_seeds
from analysis.correlation import mi_vs_retention, small_correlation
from analysis.equivalence import equivalence, tost
from tests.calibration.checks import Claim, Rng, Study, size
from tests.calibration.of_means import covers, grouped
from tests.calibration.worlds import Float

ALPHA, SEED_SD, DOCUMENT_SD, TOKEN_SD = 0.05, 0.02, 0.05, 0.5
SEEDS = "metrics specification 4.5"
MARGIN = 0.02


def seed_differences(n_seeds: int, rng: Rng) -> list[bool]:
    """Differences of two methods that differ by 0.3: coverage of the t interval over seeds."""
    found = method_estimate(rng.normal(0.3, SEED_SD, n_seeds), unit="bits")
    return [covers(found.low, found.high, 0.3)]


def equal_methods(rng: Rng) -> list[bool]:
    """Two methods that are the same: t and sign flips over six seeds, unpaired permutation of five against five, all at 5 %."""
    paired, arms = seed_comparison(rng.normal(0, SEED_SD, 6)), unpaired_seeds(rng.normal(0, SEED_SD, 5), rng.normal(0, 1.5 * SEED_SD, 5))
    return [paired.p_t <= ALPHA, paired.p_signflip <= ALPHA, arms.p_permutation <= ALPHA, not arms.low <= 0 <= arms.high]


def one_pair_of_checkpoints(rng: Rng) -> list[bool]:
    """The mutants: one seed of each of two equal methods, compared by tokens, and by documents, as if that were the methods."""
    from scipy.special import ndtr

    level = rng.normal(0, SEED_SD, 2)[:, None, None]
    tokens = level + rng.normal(0, DOCUMENT_SD, (2, 100, 1)) + rng.normal(0, TOKEN_SD, (2, 100, 100))
    out = []
    for values in (tokens.reshape(2, -1), tokens.mean(axis=2)):
        a, b = values
        z = (a.mean() - b.mean()) / np.sqrt(a.var(ddof=1) / a.size + b.var(ddof=1) / b.size)
        out.append(bool(2 * ndtr(-abs(z)) <= ALPHA))
    return out


def at_the_margin(rng: Rng) -> list[bool]:
    """A difference that is the margin itself, called "the same": by five seeds, and by 60 documents of two checkpoints."""
    seeds = rng.normal(MARGIN, SEED_SD / 4, 5)
    by_seed = tost(float(seeds.mean()), float(seeds.std(ddof=1)) / 5**0.5, MARGIN, df=4)
    n = rng.integers(60, 140, 60)
    share = rng.beta(20, 20, 60) * 0.6 + 0.2
    a, b = rng.binomial(n, share + MARGIN), rng.binomial(n, share)
    difference = checkpoint_estimates("entropy_share_below", grouped(a, n), grouped(b, n), level=0.90).item()
    return [by_seed.outcome == "supported", equivalence(difference, MARGIN).outcome == "supported"]


def checkpoint_difference(rng: Rng) -> list[bool]:
    """Paired jackknife of the difference of two checkpoints on the same 60 documents."""
    n = rng.integers(60, 140, 60)
    share = rng.beta(20, 20, 60) * 0.6 + 0.2
    a, b = rng.binomial(n, share + MARGIN), rng.binomial(n, share)
    found = checkpoint_estimates("entropy_share_below", grouped(a, n), grouped(b, n)).item()
    return [covers(found.low, found.high, MARGIN)]


def unrelated_pairs(rng: Rng) -> list[bool]:
    """Information and retention that have nothing to do with each other, but each with its domains: label permutation, and pairs as independent."""
    information, retention = (matrix_of_domains(5, rng) for _ in range(2))
    found = mi_vs_retention(information, retention)
    seven = small_correlation(rng.normal(size=7), rng.normal(size=7))
    assert found.p_one_sided is not None
    return [found.p_one_sided <= ALPHA, seven.p_one_sided <= ALPHA, not covers(found.low, found.high, 0.0)]


def matrix_of_domains(n: int, rng: Rng) -> Float:
    """Numbers of ordered pairs that come from their source, their target and chance."""
    return rng.normal(size=(n, 1)) + rng.normal(size=(1, n)) + rng.normal(size=(n, n))


STUDIES = [
    Study("five seeds", "5 training seeds", (Claim("t interval over seeds", source=SEEDS),), partial(seed_differences, 5), 4000),
    Study("three seeds", "3 training seeds", (Claim("t interval over seeds", source=SEEDS),), partial(seed_differences, 3), 4000),
    Study("equal methods", "two methods that are the same, 6 paired or 5 and 5 unpaired seeds", (
        size("t over seeds", window=(0.03, 0.06), source=SEEDS), size("exact sign flips", source=SEEDS),
        size("unpaired permutation, unequal variances", window=(0.0, 0.06), source=SEEDS), size("Welch interval excludes 0", source=SEEDS)),
        equal_methods, 4000),
    Study("one seed each", "two methods that are the same, one checkpoint of each, 100 documents of 100 tokens", (
        size("t test over tokens", mutant=True, source=f"{SEEDS}: .749"), size("t test over documents", mutant=True, source=f"{SEEDS}: .536")),
        one_pair_of_checkpoints, 1000),
    Study("two checkpoints", "60 documents through both, a difference of 0.02", (Claim("paired jackknife: difference", source=SEEDS),),
          checkpoint_difference, 2000),
    Study("at the margin", "a difference as large as the margin", (
        size("two one-sided tests over 5 seeds", window=(0.0, 0.05), source="metrics specification 6, M05"),
        size("two one-sided tests over 60 documents", window=(0.0, 0.06), source="metrics specification 6, M05")), at_the_margin, 4000),
    Study("pairs of domains", "information and retention of 5 domains, unrelated; 7 unrelated pairs", (
        size("exact permutation of domain labels", source="metrics specification 2.1"), size("exact permutation of 7 pairs"),
        size("Fisher's interval of pairs as if independent excludes 0", mutant=True)), unrelated_pairs, 2000),
]
