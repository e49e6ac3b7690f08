import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from experiments.testbed.routers.transport import (
    _prices_by_logarithms,
    _prices_by_scaling,
    capacity,
    cost,
    gram,
    marginal_misfit,
    orthogonality_loss,
    quota_choice,
    repulsion,
    sinkhorn,
)


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rows_of_the_plan_sum_to_one_and_columns_to_their_share() -> None:
    plan = sinkhorn(2 * uniform(60, 5) - 1, eps=0.05, iterations=500).exp()
    rows, columns = marginal_misfit(plan)
    assert rows < 1e-12
    assert columns < 1e-6
    assert plan.sum(dim=0) == pytest.approx(np.full(5, 12.0), abs=1e-4)


def test_rows_are_exact_and_columns_come_nearer_with_each_iteration() -> None:
    costs = 2 * uniform(64, 8) - 1
    misfits = [marginal_misfit(sinkhorn(costs, eps=0.05, iterations=n).exp()) for n in (1, 4, 16, 64)]
    assert all(rows < 1e-12 for rows, _ in misfits)
    assert [columns for _, columns in misfits] == sorted((columns for _, columns in misfits), reverse=True)


def test_the_log_domain_holds_where_exponentials_vanish() -> None:
    costs = (2 * uniform(40, 4) - 1).float()
    assert float(torch.exp(-costs / 1e-3).max()) == math.inf  # what the plain form begins with
    plan = sinkhorn(costs, eps=1e-3, iterations=2000).exp()
    assert torch.isfinite(plan).all()
    assert marginal_misfit(plan)[0] < 1e-4


@pytest.mark.parametrize("eps", [0.05, 0.2, 1.0])
def test_products_give_the_prices_of_logarithms(eps: float) -> None:
    scaled = -(2 * uniform(50, 6) - 1) / eps
    assert torch.allclose(_prices_by_scaling(scaled, 20), _prices_by_logarithms(scaled, 20), atol=1e-10)


def test_products_that_leave_the_range_of_floats_give_way_to_logarithms() -> None:
    costs = torch.zeros(6, 3, dtype=torch.float64)
    costs[:, 2] = 50.0  # exp(-1000) is 0: nobody would ever take the third expert
    assert _prices_by_scaling(-costs / 0.05, 20) is None
    plan = sinkhorn(costs, eps=0.05, iterations=20).exp()
    assert plan == pytest.approx(np.full((6, 3), 1 / 3))


def test_padding_has_no_part_in_the_centroids() -> None:
    given, real = uniform(9, 4, 3) - 0.5, torch.tensor([True] * 6 + [False] * 3)
    assert torch.allclose(gram(given, real), gram(given[:6]))
    assert torch.allclose(gram(given), gram(given, torch.ones(9, dtype=torch.bool)))
    assert not torch.allclose(gram(given), gram(given[:6]))


def test_a_cold_plan_costs_what_the_linear_program_does() -> None:
    """Cuturi 2013: entropic transport goes to optimal transport as eps goes to 0."""
    n, e = 12, 3
    costs = uniform(n, e, seed=3)
    rows = np.kron(np.eye(n), np.ones(e))
    columns = np.kron(np.ones(n), np.eye(e))
    best = linprog(costs.flatten().numpy(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([np.ones(n), np.full(e, n / e)]))
    plan = sinkhorn(costs, eps=0.002, iterations=20_000).exp()
    assert float((plan * costs).sum()) == pytest.approx(best.fun, rel=2e-3)


def test_without_columns_the_plan_is_a_softmax() -> None:
    similarity = 2 * uniform(30, 6) - 1
    assert torch.allclose(sinkhorn(-similarity, eps=0.05, iterations=0), torch.log_softmax(similarity / 0.05, dim=-1))
    even = torch.log_softmax(similarity / 0.05, dim=-1)
    even = sinkhorn(-even, eps=1.0, iterations=500)  # columns that are even already
    assert torch.allclose(sinkhorn(-even, eps=1.0, iterations=3), even, atol=1e-6)


def test_a_gradient_sees_the_cost_at_fixed_prices() -> None:
    """d log Q_te / d C_tf = -(1[e = f] - Q_tf) / eps, that of a softmax over the row."""
    costs = (2 * uniform(8, 3) - 1).requires_grad_()
    log_q = sinkhorn(costs, eps=0.5, iterations=200)
    (got,) = torch.autograd.grad(log_q[2, 1], costs)
    want = torch.zeros_like(got)
    want[2] = log_q[2].exp().detach() / 0.5
    want[2, 1] -= 1 / 0.5
    assert torch.allclose(got, want, atol=1e-9)


def test_orthogonal_experts_have_no_loss_and_equal_ones_the_most() -> None:
    assert float(orthogonality_loss(gram(torch.eye(4, dtype=torch.float64)[None]))) == pytest.approx(0, abs=1e-12)
    equal = gram(torch.ones(5, 4, 3, dtype=torch.float64))
    # G - I of four equal experts: ones off the diagonal, so ||.||_F^2 = 12 and the largest singular value is 3
    assert float(orthogonality_loss(equal)) == pytest.approx(0.7 * 12 + 0.3 * 9)


def test_the_gram_matrix_is_of_normalised_means() -> None:
    tokens = uniform(7, 3, 5) - 0.5
    centroids = tokens.numpy().mean(axis=0)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    assert gram(tokens).numpy() == pytest.approx(centroids @ centroids.T)


def test_an_expert_is_repelled_by_its_likeness_to_those_a_token_is_near_to() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.1]])
    overlap = torch.eye(3)
    overlap[0, 1] = overlap[1, 0] = 0.8  # expert 1 resembles expert 0
    repelled = repulsion(similarity, overlap)[0]
    assert repelled[1] == pytest.approx(0.9 * 0.64)
    assert repelled[2] == 0
    assert repelled[0] == pytest.approx(0.1 * 0.64)
    opposed = overlap.clone()
    opposed[0, 1] = opposed[1, 0] = -0.8
    assert torch.equal(repulsion(similarity, opposed), repulsion(similarity, overlap))  # squared: antiparallel experts repel as well
    assert torch.equal(repulsion(similarity, torch.eye(3)), torch.zeros(1, 3))  # an expert does not repel itself
    costs = [cost(similarity, overlap, repulse=weight, saturate=0.0, tau=0.7)[0, 1] for weight in (0.0, 1.0)]
    assert costs[1] > costs[0]


def test_similarity_beyond_tau_is_charged() -> None:
    similarity = torch.tensor([[0.9, 0.7, -0.9]])
    found = cost(similarity, torch.eye(3), repulse=1.0, saturate=2.0, tau=0.7)
    assert found[0].tolist() == pytest.approx([-0.9 + 2 * 0.04, -0.7, 0.9 + 2 * 0.04])


def test_capacity_is_rounded_up() -> None:
    assert capacity(100, 2, 16, 1.25) == 16  # 15.6
    assert capacity(64, 2, 8, 1.0) == 16


def test_under_a_quota_no_expert_takes_more_and_no_token_envies() -> None:
    plan = uniform(50, 6, seed=5) ** 4
    plan[:, 0] += 2  # everybody wants expert 0
    room = capacity(50, 2, 6, 1.25)
    chosen = quota_choice(plan, 2, room)
    loads = torch.bincount(chosen[chosen >= 0], minlength=6)
    assert int(loads.max()) <= room
    assert int(loads[0]) == room
    for token in range(50):  # stable: an expert that a token would rather have is full with tokens that plan more for it
        held = chosen[token][chosen[token] >= 0].tolist()
        worst = min((float(plan[token, e]) for e in held), default=-1.0)
        for expert in set(range(6)) - set(held):
            if plan[token, expert] > worst:
                holders = plan[(chosen == expert).any(dim=1), expert]
                assert len(holders) == room
                assert float(holders.min()) >= float(plan[token, expert])


def test_with_room_for_all_the_quota_changes_nothing() -> None:
    plan = uniform(20, 5, seed=6)
    assert torch.equal(quota_choice(plan, 2, 20), plan.topk(2, dim=1).indices)
