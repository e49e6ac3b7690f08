"""Usage statistics under uniform routing, and loads rarefied to equal numbers of selections.

E expert, R draw, K set size. Under uniform routing each token's set is one of all equally likely sets of its size: the load of an
expert is a sum of binomials, exactly, so that statistics that add over experts or pairs of experts have their expectation in closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float, plogp
from analysis.kernels import Int
from analysis.metrics.usage import COLLAPSED_BELOW, integer_counts
from analysis.registry import find

TAIL = 40.0  # standard deviations kept of a binomial: what is cut is below 1e-300
SERIES_FROM = 1000  # |difference| of two loads: steps from which Stirling's series is exact in float64
MOST_RAREFIED = 10**9  # numpy's hypergeometric draws stop there
Statistic = Callable[[ArrayLike], Float]


@dataclass(frozen=True)
class UniformRouting:
    """Uniform routing without replacement within a token: tokens_K[r] tokens choose r of n_experts experts.

    k = n_experts routes every token to every expert: loads are then constant. ValueError for a set larger than the layer.
    """

    n_experts: int
    tokens_K: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.n_experts < 1 or not self.tokens_K or min(self.tokens_K) < 0:
            raise ValueError("uniform routing: give at least one expert, and numbers of tokens from 0")
        if any(self.tokens_K[self.n_experts + 1 :]):
            raise ValueError(f"k={len(self.tokens_K) - 1}: a token cannot choose more than the {self.n_experts} experts of the layer")

    @classmethod
    def of(cls, n_selections: int, n_experts: int, k: int = 1) -> UniformRouting:
        """Tokens of k selections each that make n_selections; a remainder (dropped slots) is one smaller set."""
        if isinstance(n_selections, bool) or int(n_selections) != n_selections or n_selections < 0 or k < 1:
            raise ValueError(f"n_selections={n_selections!r}, k={k!r}: give whole numbers, k at least 1")
        tokens = [0] * (k + 1)
        tokens[k] = int(n_selections) // k
        tokens[int(n_selections) % k] += 1 if n_selections % k else 0
        return cls(n_experts, tuple(tokens))

    @property
    def n_selections(self) -> int:
        """Selections of all tokens."""
        return sum(size * tokens for size, tokens in enumerate(self.tokens_K))

    def load_law(self) -> tuple[Int, Float]:
        """Values and probabilities of one expert's load: a sum of Binomial(tokens_K[r], r / E), cut at TAIL standard deviations."""
        first, law = 0, np.ones(1)
        for size, tokens in enumerate(self.tokens_K):
            if size and tokens:
                low, part = _binomial(tokens, size / self.n_experts)
                first, law = first + low, part if len(law) == 1 else np.convolve(law, part)
        return np.arange(first, first + len(law), dtype=np.int64), law / law.sum()

    def draw(self, n_draws: int, rng: np.random.Generator) -> Int:
        """Loads [R, E] of n_draws uniform routings, exact, in time that does not grow with the tokens.

        Expert after expert takes a binomial part of the tokens that still have r slots to fill.
        """
        waiting = np.tile(np.asarray(self.tokens_K[: self.n_experts + 1], np.int64), (n_draws, 1))
        loads = np.zeros((n_draws, self.n_experts), np.int64)
        sizes = np.arange(waiting.shape[1])
        for expert in range(self.n_experts):
            taken = rng.binomial(waiting, np.minimum(sizes / (self.n_experts - expert), 1.0))
            loads[:, expert] = taken.sum(axis=1)
            waiting -= taken
            waiting[:, :-1] += taken[:, 1:]
        return loads


def _binomial(n: int, p: float) -> tuple[int, Float]:
    """First value and probabilities of Binomial(n, p) within TAIL standard deviations."""
    from scipy.stats import binom

    half = TAIL * np.sqrt(n * p * (1 - p)) + TAIL
    low, high = max(0, int(n * p - half)), min(n, int(np.ceil(n * p + half)))
    law = np.asarray(binom.pmf(np.arange(low, high + 1), n, p), np.float64)
    return low, law / law.sum()


def expected(routing: UniformRouting) -> dict[str, float]:
    """Expectations under uniform routing by metric id, in closed form; empty without selections.

    usage_cv_squared and usage_cv_rms (root of the expected square, slightly above the expected CV) beside the usage metrics.
    """
    if routing.n_selections == 0:
        return {}
    load, law = routing.load_law()
    n_experts, total = routing.n_experts, routing.n_selections
    even = total / n_experts
    bits = float(np.log2(total)) - n_experts * float(law @ plogp(load)) / total
    unused = float(law[load == 0].sum())
    square = max(float(law @ (load - even) ** 2), 0.0) / even**2
    found = {
        "usage_mean": even, "usage_active": n_experts * (1 - unused), "usage_diversity": 1 - unused, "usage_cv_squared": square,
        "usage_cv_rms": float(np.sqrt(square)), "usage_entropy_bits": bits, "collapse_rate": float(law[load < COLLAPSED_BELOW * even].sum()),
        "usage_gini": (n_experts - 1) * _mean_difference(routing) / (2 * n_experts * even) if n_experts > 1 else 0.0,
    }
    if n_experts > 1:
        found["usage_entropy_normalised"] = bits / float(np.log2(n_experts))
    return found


def _mean_difference(routing: UniformRouting) -> float:
    """E |n_i - n_j| of two experts: a random walk with a step for each token that chose just one of the two."""
    first, law = 0, np.ones(1)
    n = routing.n_experts
    for size, tokens in enumerate(routing.tokens_K):
        if size and tokens:
            low, part = _binomial(tokens, 2 * size * (n - size) / (n * (n - 1)))
            first, law = first + low, part if len(law) == 1 else np.convolve(law, part)
    return float(law @ _mean_walk(np.arange(first, first + len(law))))


def _mean_walk(steps: NDArray[np.int64]) -> Float:
    """E |S_m| of a symmetric walk of m steps: 2j C(2j, j) / 4^j with j = ceil(m / 2)."""
    j = (np.asarray(steps) + 1) // 2
    exact = np.r_[1.0, np.cumprod(1 - 0.5 / np.arange(1, SERIES_FROM))]
    far = np.maximum(j, SERIES_FROM).astype(np.float64)
    series = (1 - 1 / (8 * far) + 1 / (128 * far**2) + 5 / (1024 * far**3)) / np.sqrt(np.pi * far)
    walk: Float = np.asarray(2.0 * j * np.where(j < SERIES_FROM, exact[np.minimum(j, SERIES_FROM - 1)], series), np.float64)
    return walk


@dataclass(frozen=True)
class UniformNull:
    """A usage statistic beside uniform routing of as many selections.

    observed: plug-in; null: expected under uniform routing (closed: exactly, else the mean of the draws), low and high its central
    95 %; excess: observed - null. Any is None with `reason` where undefined.
    """

    metric: str
    n_selections: int
    observed: float | None
    null: float | None
    low: float | None
    high: float | None
    excess: float | None
    closed: bool
    reason: str | None = None


def uniform_null(id: str, counts_E: ArrayLike, rng: np.random.Generator, *, k: int = 1, draws: int = 999) -> UniformNull:
    """A registered usage statistic of loads [E], and its law under uniform routing with k experts a token.

    The plug-in's null, for the plug-in: its bias is the same on both sides. ValueError for counts that are no counts.
    """
    return uniform_nulls((id,), counts_E, rng, k=k, draws=draws)[id]


def uniform_nulls(ids: Iterable[str], counts_E: ArrayLike, rng: np.random.Generator, *, k: int = 1, draws: int = 999) -> dict[str, UniformNull]:
    """uniform_null of several statistics from the same draws, by metric id."""
    loads = integer_counts(counts_E)
    routing = UniformRouting.of(int(loads.sum()), len(loads), k)
    closed, drawn = expected(routing), routing.draw(draws, rng)
    return {id: _beside(id, loads, drawn, closed.get(id)) for id in ids}


def _beside(id: str, loads: Int, drawn: Int, closed: float | None) -> UniformNull:
    statistic, total = find(id), int(loads.sum())
    observed = float(statistic.function(loads))
    empty = UniformNull(id, total, None, None, None, None, None, False)
    if np.isnan(observed):
        return replace(empty, reason=statistic.undefined)
    values = np.asarray(statistic.function(drawn), np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return replace(empty, observed=observed, reason="undefined under uniform routing: " + statistic.undefined)
    null = float(values.mean()) if closed is None else closed
    low, high = np.quantile(values, [0.025, 0.975])
    return UniformNull(id, total, observed, null, float(low), float(high), observed - null, closed is not None)


def rarefied_active(counts_E: ArrayLike, size: int) -> float:
    """Expected active experts among `size` selections drawn without replacement: sum_e 1 - C(N - n_e, size) / C(N, size).

    counts_E: integer loads [E]; 0 <= size <= N (ValueError). Range [min(size, 1), active]. Hurlbert 1971.
    """
    from scipy.special import betaln

    n = integer_counts(counts_E)
    _check_size(n, size)
    n = n[n > 0].astype(np.float64)
    total = n.sum()
    missed = np.zeros(len(n))
    can_miss = total - size - n >= 0
    some = n[can_miss]
    missed[can_miss] = np.exp(betaln(total - some + 1, some) - betaln(total - size - some + 1, some))
    return float((1 - missed).sum())


@dataclass(frozen=True)
class Rarefied:
    """Mean of a statistic over draws of `size` selections without replacement, and the Monte-Carlo error of that mean (no interval)."""

    value: float | None
    error: float
    size: int
    reason: str | None = None


def rarefied(statistic: Statistic, counts_E: ArrayLike, size: int, rng: np.random.Generator, *, draws: int = 200) -> Rarefied:
    """Statistic of loads [E] at `size` selections, for comparing layers or models at equal N_sel (take the smallest of them).

    statistic: function of loads [..., E]. It describes the selections in hand; uncertainty comes from documents, elsewhere.
    ValueError for size outside 1..N, or N above 1e9, where numpy's draws stop.
    """
    n = integer_counts(counts_E)
    _check_size(n, size)
    if int(n.sum()) >= MOST_RAREFIED:
        raise ValueError(f"counts_E sums to {int(n.sum())}: draws stop at {MOST_RAREFIED}; rarefy the counts of fewer documents")
    values = np.asarray(statistic(rng.multivariate_hypergeometric(n, size, size=draws, method="marginals")), np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return Rarefied(None, 0.0, size, "undefined at this number of selections")
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return Rarefied(float(values.mean()), error, size)


def _check_size(n: Int, size: int) -> None:
    if int(size) != size or not 0 < size <= int(n.sum()):
        raise ValueError(f"size={size}: rarefy to a whole number of selections from 1 to the {int(n.sum())} that there are")
