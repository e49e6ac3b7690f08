"""SPECTRA: Sinkhorn Projected Experts for Consistent TRAjectory routing.

B sequence, S position, N = B S token, E expert, K slot, d width of the model, r dimension of the routing space.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Parameter
from torch.nn.functional import linear
from transformers import initialization as init

from experiments.testbed.routers.recurrence import SequenceGRU
from experiments.testbed.routers.router import Decision, Pass, Router, top_k_of
from experiments.testbed.routers.transport import capacity, cost, gram, orthogonality_loss, quota_choice, sinkhorn

DEFAULTS: dict[str, Any] = {
    "dimension": 20, "gru": True, "expression": True, "quota": False, "sinkhorn_inference": False, "eps": 0.05, "iterations": 20,
    "repulsion": 1.0, "saturation": 1.0, "tau": 0.7, "lambda_ortho": 0.01, "lambda_entropy": 0.01, "capacity_factor": 1.25,
}

TINY = 1e-12  # beside squared lengths of about 1


def cosines(asked_Nr: torch.Tensor, offered_NEr: torch.Tensor) -> torch.Tensor:
    """Cosine of each token's routing vector with its expert representations, [N, E]; 0 for a vector of length 0."""
    products = (offered_NEr * asked_Nr[:, None]).sum(dim=-1)
    squares = offered_NEr.square().sum(dim=-1) * asked_Nr.square().sum(dim=-1, keepdim=True)
    return products * torch.rsqrt(squares + TINY)


class SpectraRouter(Router):
    """Routing vectors of a GRU against expressions of the experts; transport decides in training, cosines decide in evaluation.

    1. r_t, h_t = GRU_l([x_t; h_t of layer l - 1], h_{t-1}), h_0 = 0: what the token asks for, in the light of those before it and of how it
       was routed below. Handing on a layer's last state instead would let the end of a text route its beginning.
    2. e_t = P x_t, one vector an expert, P [E r, d] with P^T P = I at first (P P^T = I, were E r below d): what each expert has to offer the
       token. r >= E leaves room for E orthogonal experts.
    3. S_te = cos(r_t, e_te); G = Gram matrix of the unit-norm means of e_te over the batch (transport.gram).
    4. Training: Q = Sinkhorn(C / eps) of the repulsive cost C (transport.cost), rows 1, columns that approach N/E with the iterations and are
       not there after few of them (the trained model's misfit is checked); the k largest of a row, or, with `quota`, at most
       ceil(1.25 N k / E) tokens an expert; weights Q divided by their sum. Evaluation: softmax(S / eps) in Q's place, unless
       `sinkhorn_inference`, which mixes the rows of a batch and is recorded so. Without columns and repulsion Q is that softmax.
    5. Loss: lambda_entropy * mean_t -sum_e Q_te log Q_te + lambda_ortho * L_ortho(G); no balance loss.

    Options without which it is an ablation: `gru` (False: r_t = R x_t), `expression` (False: e_e learnt, the same for every token, orthogonal
    at first where r >= E), `repulsion` and `lambda_ortho` (0). Source: the public method description of SPECTRA, sections 3.2 to 3.5; what it leaves
    open (dimension, iterations, weights of the terms) are options here.
    """

    def __init__(self, config: Any, layer: int, shared: Pass) -> None:
        super().__init__(config, layer, shared)
        unknown = set(self.options) - set(DEFAULTS)
        if unknown:
            raise ValueError(f"router_options: {', '.join(sorted(unknown))} are no options of SPECTRA; known: {', '.join(DEFAULTS)}")
        self.knobs = DEFAULTS | dict(self.options)
        self.dimension = int(self.knobs["dimension"])
        self.mixes_rows = bool(self.knobs["sinkhorn_inference"])
        self.limited = self.mixes_rows and bool(self.knobs["quota"])
        self.selection_rule = "orthogonal Sinkhorn routing over the batch" if self.limited else None
        self.reads_sequence = bool(self.knobs["gru"]) or self.mixes_rows  # type: ignore[misc]
        self.causal = not self.mixes_rows  # type: ignore[misc]
        if self.knobs["gru"]:
            self.gru = SequenceGRU(self.hidden + (self.dimension if layer else 0), self.dimension)
        else:
            self.ask = Parameter(torch.empty(self.dimension, self.hidden))
        if self.knobs["expression"]:
            self.expression = Parameter(torch.empty(self.n_experts * self.dimension, self.hidden))
        else:
            self.offers = Parameter(torch.empty(self.n_experts, self.dimension))

    def draw(self, name: str, tensor: torch.Tensor) -> None:
        """Orthogonal projector; the GRU's weights uniform as torch draws them."""
        if name.startswith("gru."):
            init.uniform_(tensor, -(self.dimension**-0.5), self.dimension**-0.5)
        else:
            init.orthogonal_(tensor)

    def directions(self) -> torch.Tensor | None:
        """The experts' vectors, where no token changes them."""
        return None if self.knobs["expression"] else self.offers

    def asked(self, hidden_BSd: torch.Tensor) -> torch.Tensor:
        """Routing vectors r_t, [N, r]; hands the GRU's states on to the next layer."""
        if not self.knobs["gru"]:
            return linear(hidden_BSd, self.ask).flatten(0, 1)
        below = self.shared.handed
        seen = hidden_BSd if below is None or self.layer == 0 else torch.cat((hidden_BSd, below), dim=-1)
        states_BSr, _ = self.gru(seen)
        self.shared.handed = states_BSr
        out: torch.Tensor = states_BSr.flatten(0, 1)
        return out

    def offered(self, hidden_BSd: torch.Tensor) -> torch.Tensor:
        """Expert representations e_te, [N, E, r]."""
        n = hidden_BSd.shape[0] * hidden_BSd.shape[1]
        if not self.knobs["expression"]:
            return self.offers.expand(n, -1, -1)
        return linear(hidden_BSd, self.expression).view(n, self.n_experts, self.dimension)

    def forward(self, hidden_BSd: torch.Tensor) -> Decision:
        """Scores are S / eps, or log Q where the transport decides; their softmax is what the weights come from.

        Under a quota, beside them: whether an expert took the slot, bool [N, K].
        """
        offered_NEr = self.offered(hidden_BSd)
        similarity_NE = cosines(self.asked(hidden_BSd), offered_NEr)
        scores_NE = similarity_NE / self.knobs["eps"]
        if not self.training and not self.mixes_rows:
            return scores_NE, *top_k_of(torch.softmax(scores_NE, dim=-1), self.top_k)
        real = self.shared.real(hidden_BSd)
        log_q, gram_EE = self._transport(similarity_NE[real], gram(offered_NEr, real))
        if self.training:
            self._add_losses(log_q, gram_EE)
        scores_NE = scores_NE.index_put((real.nonzero(as_tuple=True)[0],), log_q)
        probabilities = torch.softmax(scores_NE, dim=-1)
        if self.knobs["quota"]:
            return scores_NE, *self._under_quota(probabilities, real)
        return scores_NE, *top_k_of(probabilities, self.top_k)

    def _transport(self, similarity_NE: torch.Tensor, gram_EE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """log Q of the tokens that are real, and the Gram matrix."""
        knobs = self.knobs
        costs = cost(similarity_NE, gram_EE, repulse=knobs["repulsion"], saturate=knobs["saturation"], tau=knobs["tau"])
        log_q = sinkhorn(costs, eps=knobs["eps"], iterations=knobs["iterations"])
        self.terms.plan_NE, self.terms.gram_EE = log_q.detach().exp(), gram_EE.detach()
        return log_q, gram_EE

    def _add_losses(self, log_q: torch.Tensor, gram_EE: torch.Tensor) -> None:
        entropy = -(log_q.exp() * log_q).sum(dim=-1).mean()
        self.terms.loss["entropy"] = (float(self.knobs["lambda_entropy"]), entropy)
        self.terms.loss["ortho"] = (float(self.knobs["lambda_ortho"]), orthogonality_loss(gram_EE))

    def _under_quota(self, plan_NE: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Weights, ids and what was kept; a slot that no expert has room for holds the best expert that is left, with weight 0."""
        room = capacity(int(real.sum()), self.top_k, self.n_experts, self.knobs["capacity_factor"])
        found = torch.full((len(plan_NE), self.top_k), -1, device=plan_NE.device)
        found[real] = quota_choice(plan_NE[real].detach(), self.top_k, room)
        taken = torch.zeros_like(plan_NE).scatter_add(1, found.clamp(min=0), (found >= 0).to(plan_NE.dtype))
        ids = (plan_NE.detach() + 2 * (taken > 0)).topk(self.top_k, dim=-1).indices
        kept = (taken.gather(1, ids) > 0) | ~real[:, None]
        weights = plan_NE.gather(1, ids) * kept
        return weights / weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny), ids, kept
