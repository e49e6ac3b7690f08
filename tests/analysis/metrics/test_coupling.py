"""Coupling of layers against reference cases, library correlations, and exhaustive path search."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.estimation import estimates, group_tables
from analysis.metrics.coupling import first_choice_indicators, pathways, pathways_seed, phi_cross, phi_edges, top_share_edges
from tests.references.cases import case


def slow_indicators(x: list[list[int]], y: list[list[int]], n_x: int, n_y: int) -> NDArray[np.int64]:
    """Tokens by pair of indicators, the constant one last, token by token; -1 is a dropped slot."""
    out = np.zeros((n_x + 1, n_y + 1), np.int64)
    for one, other in zip(x, y):
        for i in {e for e in one if e >= 0} | {n_x}:
            for j in {e for e in other if e >= 0} | {n_y}:
                out[i, j] += 1
    return out


def random_layers(seed: int, n_tokens: int, sizes: tuple[int, int] = (6, 4), k: tuple[int, int] = (3, 2)) -> list[list[list[int]]]:
    rng = np.random.default_rng(seed)
    return [np.argsort(rng.random((n_tokens, size)) + rng.normal(0, 0.3, size), axis=1)[:, :top].tolist() for size, top in zip(sizes, k)]


def test_phi_of_the_reference() -> None:
    inputs, expected = case("G08")
    both = [np.array([[sum(a and b for a, b in zip(inputs["x"], y)), sum(inputs["x"])], [sum(y), len(y)]])
            for y in (inputs["y"], inputs["y_constant"])]
    assert phi_cross(both[0])[0, 0] == pytest.approx(expected["phi"], abs=1e-9)
    assert expected["phi_with_constant"] is None and np.isnan(phi_cross(both[1])[0, 0])


@given(st.integers(0, 2**32), st.integers(2, 60))
@settings(max_examples=40, deadline=None)
def test_phi_is_the_correlation_of_indicators(seed: int, n_tokens: int) -> None:
    x, y = random_layers(seed, n_tokens)
    phi = phi_cross(slow_indicators(x, y, 6, 4))
    for i, j in product(range(6), range(4)):
        one, other = np.array([i in row for row in x], float), np.array([j in row for row in y], float)
        if np.ptp(one) and np.ptp(other):
            assert phi[i, j] == pytest.approx(np.corrcoef(one, other)[0, 1], abs=1e-10)
        else:
            assert np.isnan(phi[i, j])


def test_phi_is_matthews_and_ignores_names_and_order() -> None:
    from sklearn.metrics import matthews_corrcoef

    x, y = random_layers(1, 80)
    phi = phi_cross(slow_indicators(x, y, 6, 4))
    assert phi[2, 1] == pytest.approx(matthews_corrcoef([2 in row for row in x], [1 in row for row in y]), abs=1e-12)
    names, order = np.random.default_rng(0).permutation(6), np.random.default_rng(1).permutation(80)
    renamed = [[int(names[e]) for e in reversed(x[t])] for t in order]
    np.testing.assert_allclose(phi_cross(slow_indicators(renamed, [y[t] for t in order], 6, 4))[names], phi, rtol=1e-12)


def test_first_choices_need_only_their_joint_table() -> None:
    x, y = random_layers(2, 50, k=(1, 1))
    joint = slow_indicators(x, y, 6, 4)[:-1, :-1]
    np.testing.assert_array_equal(first_choice_indicators(joint), slow_indicators(x, y, 6, 4))
    twice = phi_cross(first_choice_indicators(np.stack([joint, 2 * joint])))
    np.testing.assert_allclose(twice, np.stack([phi_cross(first_choice_indicators(joint))] * 2))


def test_every_expert_chosen_and_large_counts() -> None:
    x, y = random_layers(3, 30, k=(6, 2))
    assert np.isnan(phi_cross(slow_indicators(x, y, 6, 4))).all()
    table = slow_indicators(*random_layers(4, 50), 6, 4)
    np.testing.assert_allclose(phi_cross(table * 2**40), phi_cross(table), rtol=1e-12)


def test_phi_has_intervals_over_documents() -> None:
    per_document = np.stack([slow_indicators(*random_layers(seed, 30), 6, 4) for seed in range(40)])
    found = estimates("phi_cross", group_tables([per_document], np.arange(40)))
    assert found.shape == (6, 4) and found[0, 0].low < found[0, 0].value < found[0, 0].high


def slow_edges(phi: NDArray[np.float64], null: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from scipy.stats import false_discovery_control

    p = np.full(phi.shape, np.nan)
    for i, j in np.ndindex(phi.shape):
        everything = np.append(null[:, i, j], phi[i, j])
        if np.isfinite(everything).all():
            p[i, j] = np.mean(np.abs(everything - everything.mean()) >= abs(phi[i, j] - everything.mean()) - 1e-12)
    q = np.full(phi.shape, np.nan)
    q[np.isfinite(p)] = false_discovery_control(p[np.isfinite(p)])
    return p, q


def test_edges_are_tested_against_the_draws() -> None:
    rng = np.random.default_rng(7)
    null = rng.normal(0.05, 0.05, (199, 5, 4))
    phi = rng.normal(0.05, 0.05, (5, 4))
    phi[0, 0], phi[1, 1], phi[2, 2], phi[3, 3] = 0.6, -0.5, np.nan, 0.09
    null[3, 4, 0] = np.nan
    edges = phi_edges(phi, null)
    p, q = slow_edges(phi, null)
    np.testing.assert_allclose(edges.p, p)
    np.testing.assert_allclose(edges.q, q)
    assert edges.published[0, 0] and edges.published[1, 1] and not edges.published[2, 2] and not edges.published[3, 3]
    assert edges.n_testable == 18 and edges.n_draws == 199 and edges.reason is None and edges.draws_for_one == 360


def test_few_draws_or_constant_experts_publish_nothing_and_say_why() -> None:
    phi = np.full((3, 3), 0.9)
    few = phi_edges(phi, np.zeros((10, 3, 3)))
    assert not few.published.any() and str(few.reason).startswith("untestable: 10 null draws")
    none = phi_edges(phi, np.zeros((0, 3, 3)))
    assert not none.published.any() and none.n_testable == 0 and str(none.reason).startswith("no_data")
    assert phi_edges(np.full((2, 2), np.nan), np.zeros((99, 2, 2))).n_testable == 0
    with pytest.raises(ValueError, match="do not fit"):
        phi_edges(phi, np.zeros((9, 3, 2)))


def test_edges_under_the_null_are_rare() -> None:
    rng = np.random.default_rng(11)
    found = [phi_edges(draws[0], draws[1:]).published.any() for draws in rng.normal(0.2, 0.2, (200, 200, 4, 4))]
    assert np.mean(found) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def brute_chain(phi: list[NDArray[np.float64]], edges: list[NDArray[np.bool_]]) -> float:
    """Largest summed phi of any chain of positive edges."""
    best = 0.0
    for start in range(len(phi)):
        for stop in range(start, len(phi)):
            for chain in product(*(range(one.shape[0]) for one in phi[start : stop + 1]), range(phi[stop].shape[1])):
                steps = [(phi[start + n][a, b], edges[start + n][a, b]) for n, (a, b) in enumerate(zip(chain, chain[1:]))]
                if all(edge and gain > 0 for gain, edge in steps):
                    best = max(best, sum(gain for gain, _ in steps))
    return best


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_the_first_chain_is_the_heaviest_and_chains_share_no_expert(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = [3, 2, 4, 3]
    phi = [rng.uniform(-1, 1, shape) for shape in zip(sizes, sizes[1:])]
    edges = [rng.random(one.shape) < 0.6 for one in phi]
    found = pathways(phi, edges)
    weights = [chain.weight for chain in found.chains]
    assert (weights[0] if weights else 0.0) == pytest.approx(brute_chain(phi, edges))
    assert weights == sorted(weights, reverse=True) and found.by_construction is None
    visited = [(chain.first_layer + n, expert) for chain in found.chains for n, expert in enumerate(chain.experts)]
    assert len(visited) == len(set(visited))
    for chain in found.chains:
        for n, (a, b) in enumerate(zip(chain.experts, chain.experts[1:])):
            assert edges[chain.first_layer + n][a, b] and chain.phi[n] == phi[chain.first_layer + n][a, b] > 0


def test_the_chain_is_that_of_networkx() -> None:
    networkx = pytest.importorskip("networkx")
    rng = np.random.default_rng(3)
    phi = [rng.uniform(-1, 1, (8, 8)) for _ in range(6)]
    graph = networkx.DiGraph()
    for depth, one in enumerate(phi):
        graph.add_weighted_edges_from(((depth, i), (depth + 1, j), one[i, j]) for i, j in np.argwhere(one > 0.3).tolist())
    expected = networkx.dag_longest_path(graph)
    first = pathways(phi, [one > 0.3 for one in phi], 1).chains[0]
    assert [(first.first_layer + n, expert) for n, expert in enumerate(first.experts)] == expected


def test_no_edge_gives_no_chain_and_layers_must_meet() -> None:
    assert pathways([np.ones((2, 2))], [np.zeros((2, 2), bool)]).chains == ()
    assert pathways([], []).chains == ()
    assert pathways([np.full((2, 2), np.nan)], [np.ones((2, 2), bool)]).chains == ()
    with pytest.raises(ValueError, match="adjacent layers"):
        pathways([np.ones((2, 3)), np.ones((2, 2))], [np.ones((2, 3), bool), np.ones((2, 2), bool)])


def test_the_top_tenth_is_a_tenth_of_independent_layers_too() -> None:
    phi = phi_cross(slow_indicators(*random_layers(5, 400, sizes=(10, 10)), 10, 10))
    assert top_share_edges(phi).sum() == 10
    found = pathways_seed([phi, phi])
    assert found.chains and "by construction" in str(found.by_construction)
    assert not top_share_edges(np.full((2, 2), np.nan)).any()
