"""SPECTRA's equations: repulsive cost, entropic transport between tokens and experts, soft orthogonality, choice under a quota.

N token, E expert, K slot, r dimension of the routing space. Source: the public method description of SPECTRA, sections 3.3 and 3.4.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import normalize


def gram(representations_NEr: torch.Tensor, real_N: torch.Tensor | None = None) -> torch.Tensor:
    """Gram matrix [E, E] of unit-norm expert centroids: each expert's representation averaged over the tokens, then normalised.

    Its diagonal is 1; an entry off it is the cosine between two experts' centroids, in [-1, 1]. real_N: which tokens count, None for all.
    """
    n, n_experts, r = representations_NEr.shape
    counted = representations_NEr.new_ones(n) if real_N is None else real_N.to(representations_NEr.dtype)
    mean_Er = (counted / counted.sum() @ representations_NEr.reshape(n, n_experts * r)).view(n_experts, r)
    centroids_Er = normalize(mean_Er, dim=-1)
    return centroids_Er @ centroids_Er.T


def orthogonality_loss(gram_EE: torch.Tensor) -> torch.Tensor:
    """L_ortho = 0.7 ||G - I||_F^2 + 0.3 sigma(G - I)^2, sigma the largest singular value (section 3.3); >= 0, 0 for orthogonal experts."""
    excess = gram_EE - torch.eye(len(gram_EE), dtype=gram_EE.dtype, device=gram_EE.device)
    loss: torch.Tensor = 0.7 * (excess**2).sum() + 0.3 * torch.linalg.matrix_norm(excess, ord=2) ** 2
    return loss


def repulsion(similarity_NE: torch.Tensor, gram_EE: torch.Tensor) -> torch.Tensor:
    """|S| (G o (1 - I))^2, [N, E], >= 0: what an expert costs a token for resembling the experts that the token is near to (3.4.1)."""
    off_diagonal = gram_EE - torch.diag(torch.diagonal(gram_EE))
    return similarity_NE.abs() @ off_diagonal**2


def cost(similarity_NE: torch.Tensor, gram_EE: torch.Tensor, *, repulse: float, saturate: float, tau: float) -> torch.Tensor:
    """C = -S + lambda |S| (G o (1 - I))^2 + beta ReLU(|S| - tau)^2, [N, E] (3.4.1). repulse: lambda; saturate: beta."""
    confident = torch.relu(similarity_NE.abs() - tau) ** 2
    return -similarity_NE + repulse * repulsion(similarity_NE, gram_EE) + saturate * confident


def sinkhorn(cost_NE: torch.Tensor, *, eps: float, iterations: int) -> torch.Tensor:
    """log of the transport plan Q ~ exp(-C / eps) with rows summing to 1 and columns near N/E, [N, E], in the log domain (3.4.2).

    The last half-step is the rows': they are exact, and the columns approach N/E with the iterations, slowly where eps is small
    beside the costs. A gradient goes through the cost and the last half-step; the prices of the columns are held fixed.
    """
    scaled = -cost_NE / eps
    with torch.no_grad():
        price_E = _prices_by_scaling(scaled, iterations)
        if price_E is None:
            price_E = _prices_by_logarithms(scaled, iterations)
    return torch.log_softmax(scaled + price_E, dim=1)


def _prices_by_logarithms(scaled_NE: torch.Tensor, iterations: int) -> torch.Tensor:
    """Logarithms [1, E] of the columns' factors, whatever the costs."""
    log_share = math.log(len(scaled_NE) / scaled_NE.shape[-1])
    price_E = torch.zeros_like(scaled_NE[:1])
    for _ in range(iterations):
        rows = torch.logsumexp(scaled_NE + price_E, dim=1, keepdim=True)
        price_E = log_share - torch.logsumexp(scaled_NE - rows, dim=0, keepdim=True)
    return price_E


def _prices_by_scaling(scaled_NE: torch.Tensor, iterations: int) -> torch.Tensor | None:
    """The same by products with exp(scaled) in float64, a sixth of the time; None where a factor leaves float64's range."""
    kernel_NE = (scaled_NE - scaled_NE.amax(dim=1, keepdim=True)).double().exp()
    share, factor_E = len(scaled_NE) / scaled_NE.shape[-1], kernel_NE.new_ones(scaled_NE.shape[-1])
    for _ in range(iterations):
        factor_E = share / ((1 / (kernel_NE @ factor_E)) @ kernel_NE)
    price_E = factor_E.log().to(scaled_NE.dtype)[None]
    return price_E if bool(torch.isfinite(price_E).all()) else None


def marginal_misfit(plan_NE: torch.Tensor) -> tuple[float, float]:
    """Largest misfit of the row sums to 1, and of the column sums to N/E as a share of it; both >= 0."""
    n, n_experts = plan_NE.shape
    rows, columns = plan_NE.sum(dim=1) - 1, plan_NE.sum(dim=0) * n_experts / n - 1
    return float(rows.abs().max()), float(columns.abs().max())


def capacity(tokens: int, k: int, n_experts: int, factor: float) -> int:
    """ceil(factor N k / E), choices that one expert may take."""
    return math.ceil(factor * tokens * k / n_experts)


def quota_choice(plan_NE: torch.Tensor, k: int, room: int) -> torch.Tensor:
    """Experts [N, K] by the plan, at most `room` tokens each; where an expert is full, the next best that has room (3.4.3).

    Deferred acceptance: tokens ask in the order of their plan, an expert keeps the `room` tokens that plan most for it. -1 for a slot that
    no expert has room for.
    """
    n, n_experts = plan_NE.shape
    room = min(room, n)
    kept = torch.zeros_like(plan_NE, dtype=torch.bool)
    open_NE = torch.ones_like(kept)  # not yet turned away
    while True:
        wanted = plan_NE.masked_fill(~open_NE, -1.0).topk(k, dim=1)
        asking = torch.zeros_like(kept).scatter(1, wanted.indices, wanted.values >= 0)
        score = plan_NE.masked_fill(~asking, -1.0)
        best = score.topk(room, dim=0)
        kept = torch.zeros_like(kept).scatter(0, best.indices, best.values >= 0)
        turned_away = asking & ~kept
        if not bool(turned_away.any()):
            break
        open_NE = open_NE & ~turned_away
    chosen = plan_NE.masked_fill(~kept, -1.0).topk(min(k, n_experts), dim=1)
    return torch.where(chosen.values >= 0, chosen.indices, -1)
