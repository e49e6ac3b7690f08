"""Random valid arguments for each kind that a registered metric takes, for the contract tests of the register."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator
# A kind: rng, leading batch shape -> an argument. Sizes are drawn once a call, from a generator that the caller owns.
KINDS: dict[str, Callable[[Rng, tuple[int, ...]], Any]] = {
    "weights_E": lambda rng, batch: rng.random((*batch, 7)),
    "tokens": lambda rng, batch: 1 + rng.integers(0, 50, batch),
    "counts_E": lambda rng, batch: rng.poisson(3.0, (*batch, 7)),
    "shifts_RXY": lambda rng, batch: rng.poisson(2.0, (*batch, 3, 5, 6)),
    "joint_XY": lambda rng, batch: rng.poisson(2.0, (*batch, 5, 6)),
    "square_XX": lambda rng, batch: rng.poisson(2.0, (*batch, 5, 5)),
    "counts_DE": lambda rng, batch: 1 + rng.poisson(4.0, (*batch, 4, 6)),
    "folds_FDE": lambda rng, batch: 1 + rng.poisson(3.0, (*batch, 2, 4, 6)),
    "moments_SDE": lambda rng, batch: domain_moments(rng, batch),
    "halves_FXY": lambda rng, batch: rng.poisson(2.0 + 60.0 * np.eye(5, 6), (*batch, 2, 5, 6)),  # halves that predict each other
    "types_VE": lambda rng, batch: rng.poisson(5.0, (*batch, 9, 6)),
    "frequent_VE": lambda rng, batch: rng.poisson(20.0, (*batch, 9, 6)),
    "right": lambda rng, batch: rng.poisson(40.0, batch),
    "part": lambda rng, batch: rng.integers(0, 6, batch),
    "whole": lambda rng, batch: 6 + rng.poisson(3.0, batch),
    "counts_V": lambda rng, batch: rng.integers(1, 400, (*batch, 15)),
    "entropy_V": lambda rng, batch: rng.uniform(0, 2, (*batch, 15)),
    "logits_TE": lambda rng, batch: rng.normal(0, 3, (*batch, 9, 6)),
    "weights_TK": lambda rng, batch: rng.uniform(0, 0.5, (*batch, 9, 2)),
    "p_TE": lambda rng, batch: rng.dirichlet(np.full(6, 0.5), (*batch, 9)),
    "shuffles_REV": lambda rng, batch: rng.poisson(3.0, (*batch, 4, 6, 9)),
    "vectors_Td": lambda rng, batch: rng.standard_normal((*batch, 24, 5)),
    "labels_T": lambda rng, batch: rng.integers(-1, 4, (*batch, 24)),
    "vectors_Ed": lambda rng, batch: rng.standard_normal((*batch, 7, 3)),
    "sets_TE": lambda rng, batch: rng.random((*batch, 30, 7)).argsort(axis=-1) < 2,
    "joint_VXY": lambda rng, batch: rng.poisson(rng.choice([0.5, 8.0], (4, 1, 1)), (*batch, 4, 3, 2)),
    "indicators_XY": lambda rng, batch: indicators(rng, batch),
    "found_of": lambda rng, batch: np.sort(rng.integers(0, 20, (*batch, 2)), axis=-1) + np.array([0, 1]),
    "counts_EV": lambda rng, batch: rng.poisson(3.0, (*batch, 6, 9)),
}


def indicators(rng: Rng, batch: tuple[int, ...], n_tokens: int = 30, n_experts: int = 5, k: int = 2) -> Any:
    """Tokens by pairs of indicators of two top-k sets, with the indicator that is always 1 last."""
    hot = (rng.random((2, *batch, n_tokens, n_experts)).argsort(axis=-1) < k).astype(np.int64)
    x, y = np.concatenate([hot, np.ones_like(hot[..., :1])], axis=-1)
    return np.swapaxes(x, -1, -2) @ y


def domain_moments(rng: Rng, batch: tuple[int, ...]) -> Any:
    """Sums of c, c^2, c M and 1 over the three documents of each of four domains: [..., 4, 4, 6]."""
    counts = 1 + rng.poisson(4.0, (*batch, 3, 4, 6))
    return np.stack([counts, counts**2, counts * counts.sum(axis=-1, keepdims=True), np.ones_like(counts)], axis=-4).sum(axis=-3)


def same_draw(rng: Rng) -> Rng:
    """A generator that starts alike for every argument of one call, for arguments that must belong together."""
    return np.random.default_rng(rng.bit_generator.seed_seq.entropy)  # type: ignore[attr-defined]


def choice_indicators(rng: Rng, batch: tuple[int, ...], n_experts: int, k: int, n_tokens: int = 30) -> Any:
    """Which of the experts each token chose, k of them: [..., T, E]."""
    scores = rng.random((*batch, n_tokens, n_experts)) + np.linspace(0, 0.5, n_experts)
    return (np.argsort(np.argsort(-scores, axis=-1), axis=-1) < k).astype(np.int64)


def sequences(rng: Rng, batch: tuple[int, ...]) -> tuple[Any, Any]:
    """Indicators of the earlier and of the later token of pairs that follow one another: [..., T-1, E]."""
    chosen = choice_indicators(same_draw(rng), batch, 7, 3)
    return chosen[..., :-1, :], chosen[..., 1:, :]


def table(x: Any, y: Any) -> Any:
    """Tokens by pairs of experts."""
    return np.einsum("...ti,...tj->...ij", x, y)


def consecutive(rng: Rng, batch: tuple[int, ...]) -> Any:
    """Tables of consecutive ranks, loads on the diagonal."""
    ranks = np.argsort(rng.random((*batch, 30, 7)), axis=-1)[..., :3, None] == np.arange(7)
    one_way = sum(table(1 * ranks[..., slot, :], 1 * ranks[..., slot + 1, :]) for slot in range(2))
    return one_way + np.swapaxes(one_way, -1, -2) + np.eye(7, dtype=int) * ranks.sum(axis=(-3, -2))[..., None, :]


KINDS |= {
    "coactivation_EE": lambda rng, batch: table(*2 * (choice_indicators(rng, batch, 7, 3),)),
    "consecutive_EE": consecutive,
    "n_clusters": lambda rng, batch: 2 + int(rng.integers(0, 3)),
    "lag_matches": lambda rng, batch: np.prod(sequences(rng, batch), axis=0).sum(axis=(-2, -1)),
    "lag_sources_E": lambda rng, batch: sequences(rng, batch)[0].sum(axis=-2),
    "lag_targets_E": lambda rng, batch: sequences(rng, batch)[1].sum(axis=-2),
    "lag_pairs": lambda rng, batch: np.full(batch, 29),
    "overlap_sizes_M": lambda rng, batch: rng.poisson(3.0, (*batch, 4)),
}


def two_choices(rng: Rng, batch: tuple[int, ...]) -> tuple[Any, Any]:
    """Indicators of the first two choices of the earlier and of the later token: [..., T-1, E]."""
    chosen = choice_indicators(same_draw(rng), batch, 7, 2)
    return chosen[..., :-1, :], chosen[..., 1:, :]


def pairs_of(chosen: Any) -> Any:
    """Tokens by the unordered pair of their two experts: [..., P]."""
    low, high = np.triu_indices(chosen.shape[-1], 1)
    return (chosen[..., low] * chosen[..., high]).sum(axis=-2)


def overlap_sizes(rng: Rng, batch: tuple[int, ...]) -> Any:
    """Pairs of tokens by experts that both chose, 0 to 2."""
    return (np.prod(two_choices(rng, batch), axis=0).sum(axis=-1)[..., None] == np.arange(3)).sum(axis=-2)


KINDS |= {
    "two_sizes_M": overlap_sizes,
    "two_sources_E": lambda rng, batch: two_choices(rng, batch)[0].sum(axis=-2),
    "two_targets_E": lambda rng, batch: two_choices(rng, batch)[1].sum(axis=-2),
    "two_source_pairs_P": lambda rng, batch: pairs_of(two_choices(rng, batch)[0]),
    "two_target_pairs_P": lambda rng, batch: pairs_of(two_choices(rng, batch)[1]),
    "order_repeats": lambda rng, batch: rng.integers(0, 30, batch),
    "order_shuffled": lambda rng, batch: rng.uniform(0, 20, batch),
    "order_pairs": lambda rng, batch: np.full(batch, 30),
}


def example(kinds: tuple[str, ...], rng: Rng, batch: tuple[int, ...] = ()) -> list[Any]:
    """One random argument of each kind."""
    return [KINDS[kind](rng, batch) for kind in kinds]
