"""Objectives of analysis knobs: slow twins, planted optima, and where they are undefined."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.knobs import (
    context_bits,
    context_counts,
    edge_agreement,
    halves,
    held_out_silhouette,
    held_out_transition_bits,
    marginal_of_others,
)


def coactivation(rng: np.random.Generator, blocks: int, n: int = 400, k: int = 2, size: int = 4, noise: float = 0.1) -> np.ndarray:
    """Tables [2, E, E] of tokens that choose k experts of one block, but for a share of noise."""
    experts = blocks * size
    tables = np.zeros((2, experts, experts), np.int64)
    for half in (0, 1):
        for _ in range(n):
            start = size * rng.integers(blocks)
            pool = np.arange(experts) if rng.random() < noise else np.arange(start, start + size)
            chosen = rng.choice(pool, k, replace=False)
            tables[half][np.ix_(chosen, chosen)] += 1
    return tables


def test_halves_take_every_other_group() -> None:
    tables = np.arange(5 * 4).reshape(5, 2, 2)
    assert np.array_equal(halves(tables), np.stack([tables[[0, 2, 4]].sum(0), tables[[1, 3]].sum(0)]))


def test_the_planted_number_of_clusters_is_preferred() -> None:
    tables = coactivation(np.random.default_rng(0), 4)
    found = {n: held_out_silhouette(tables, n) for n in range(2, 9)}
    assert max(found, key=lambda n: found[n] or -1.0) == 4
    assert found[4] is not None and 0 < found[4] <= 1


def test_clusters_of_noise_do_not_hold_in_the_other_half() -> None:
    value = held_out_silhouette(coactivation(np.random.default_rng(1), 4, noise=1.0), 4)
    assert value is not None and abs(value) < 0.05


def test_no_silhouette_of_single_choices_or_too_few_experts() -> None:
    assert held_out_silhouette(np.stack([np.diag([5, 5, 5, 5])] * 2), 2) is None
    assert held_out_silhouette(coactivation(np.random.default_rng(0), 1), 9) is None


def slow_transition_bits(groups: np.ndarray, b: float) -> float:
    n_folds, gained, tokens = min(5, len(groups)), 0.0, 0
    for fold in range(n_folds):
        held = groups[fold::n_folds].sum(0)
        rest = groups.sum(0) - held
        m = (rest.sum(0) + 0.5) / (rest.sum() + rest.shape[1] / 2)
        for x, y in zip(*np.nonzero(held)):
            q = (rest[x, y] + b * m[y]) / (rest[x].sum() + b)
            gained += held[x, y] * np.log2(q / m[y])
            tokens += held[x, y]
    return gained / tokens


@pytest.mark.parametrize("smoothing", [0.3, 4.0, 60.0])
def test_transition_bits_are_those_counted_cell_by_cell(smoothing: float) -> None:
    groups = np.random.default_rng(2).integers(0, 9, (12, 4, 5))
    assert held_out_transition_bits(groups, smoothing) == pytest.approx(slow_transition_bits(groups, smoothing), abs=1e-12)


def test_transitions_of_independent_layers_want_all_the_smoothing() -> None:
    rng = np.random.default_rng(3)
    groups = np.stack([np.histogram2d(rng.integers(0, 8, 60), rng.integers(0, 8, 60), bins=[range(9)] * 2)[0] for _ in range(10)])
    found = [held_out_transition_bits(groups, b) for b in (0.1, 1.0, 10.0, 1e3, 1e6)]
    assert found[0] < found[1] < found[2] and found[0] < 0
    assert found[-1] == pytest.approx(0, abs=1e-4)


def test_transitions_of_one_group_hold_nothing_out() -> None:
    assert held_out_transition_bits(np.ones((1, 3, 3)), 1.0) is None
    assert held_out_transition_bits(np.zeros((4, 3, 3)), 1.0) is None


def test_edges_of_two_equal_halves_agree_and_of_independent_ones_do_not() -> None:
    rng = np.random.default_rng(4)
    joint = rng.integers(1, 40, (12, 12)) + 300 * np.eye(12, dtype=np.int64)
    assert edge_agreement(np.stack([joint, joint]), 0.1) == pytest.approx(1.0)
    noise = rng.integers(1, 40, (2, 12, 12))
    value = edge_agreement(noise, 0.02)
    assert value is not None and abs(value) < 0.25


def test_an_edge_that_changes_its_sign_is_no_agreement() -> None:
    joint = np.full((6, 6), 50) + 150 * np.eye(6, dtype=np.int64)
    swapped = joint[::-1]
    assert edge_agreement(np.stack([joint, swapped]), 0.3) == pytest.approx(-0.2)  # 12 of 36 cells are edges in one half, none in both


def test_few_edges_or_nothing_but_edges_give_no_agreement() -> None:
    joint = np.full((6, 6), 50) + np.diag([400, 400, 0, 0, 0, 0])
    assert edge_agreement(np.stack([joint, joint]), 0.3) is None
    rng = np.random.default_rng(5)
    assert edge_agreement(rng.integers(1, 90, (2, 5, 5)), 0.0) is None


@pytest.mark.parametrize("seed", range(5))
def test_windows_are_counted_as_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 12, 6)
    starts = np.r_[0, np.cumsum(lengths)]
    first = rng.integers(0, 3, starts[-1])
    windows = (1, 2, 5, 40)
    seen, back = context_counts(first, starts, windows)
    for begin, end in zip(starts, starts[1:]):
        for t in range(begin, end):
            for w, window in enumerate(windows):
                past = first[max(begin, t - window):t]
                assert (seen[w, t], back[w, t]) == ((past == first[t]).sum(), len(past))


def test_windows_of_no_row() -> None:
    seen, back = context_counts(np.zeros(0, np.int64), np.array([0]), (1, 2))
    assert seen.shape == back.shape == (2, 0)
    assert context_bits((seen[0], back[0]), np.zeros(0), 1.0) is None


def test_the_context_is_a_probability_and_sticky_choices_gain() -> None:
    marginal = np.array([0.5, 0.3, 0.2])
    past = np.array([0, 1, 1, 2])
    q = [(np.sum(past == e) + 2.0 * marginal[e]) / (len(past) + 2.0) for e in range(3)]
    assert sum(q) == pytest.approx(1.0)
    gained = context_bits((np.array([2]), np.array([4])), marginal[[1]], 2.0)
    assert gained == pytest.approx(np.log2(q[1] / marginal[1]))


def test_the_planted_window_is_preferred() -> None:
    """Documents of 40 tokens whose expert is drawn anew every 8 tokens: older tokens say nothing."""
    rng = np.random.default_rng(6)
    first = np.repeat(rng.integers(0, 8, 500), 8)
    first = np.where(rng.random(len(first)) < 0.5, rng.integers(0, 8, len(first)), first)
    starts = np.arange(0, len(first) + 1, 40)
    windows = (1, 2, 4, 7, 16, 32)
    seen, back = context_counts(first, starts, windows)
    marginal = marginal_of_others(first, starts, 8)
    gained = [max(context_bits((seen[w], back[w]), marginal, b) for b in (0.5, 1, 2, 4, 8)) for w in range(len(windows))]
    assert windows[int(np.argmax(gained))] in (2, 4, 7)
    assert gained[-1] < max(gained) - 0.02 and gained[0] < max(gained) - 0.02


def test_the_marginal_is_of_the_other_half() -> None:
    first, starts = np.array([0, 0, 1, 1, 1]), np.array([0, 2, 4, 5])
    assert marginal_of_others(first, starts, 2) == pytest.approx([0.5 / 3, 0.5 / 3, 1.5 / 4, 1.5 / 4, 2.5 / 3])
