"""Linear routers with a softmax: Switch's top-1, the top-2 that seed 004 calls Switch, and the same with weights that never learn.

N token, E expert, d width of the model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Parameter
from torch.nn.functional import linear
from transformers import initialization as init

from experiments.testbed.model import balance_loss
from experiments.testbed.routers.router import Decision, Pass, Router, top_k_of


class LinearRouter(Router):
    """p = softmax(W x); the k likeliest experts. k = 1: y = p_e E_e(x), else y = sum_e (p_e / sum p) E_e(x).

    Loss: weight * E sum_e f_e P_e of each layer, f_e the share of choices and P_e the mean probability of expert e over the batch.
    Source: Fedus et al. 2021 (Switch Transformer), equations 1, 2 and 4; k > 1 as in Mixtral (Jiang et al. 2024, section 2.1). No token is
    dropped. A single expert keeps its probability as weight: divided by its sum it would be 1, and the router would learn nothing.
    """

    def __init__(self, config: Any, layer: int, shared: Pass) -> None:
        super().__init__(config, layer, shared)
        self.weight = Parameter(torch.empty(self.n_experts, self.hidden))
        self.std, self.balance = float(config.initializer_range), float(self.options.get("balance", 0.0))

    def draw(self, name: str, tensor: torch.Tensor) -> None:  # noqa: ARG002
        """Normal weights, as Mixtral's."""
        init.normal_(tensor, mean=0.0, std=self.std)

    def directions(self) -> torch.Tensor:
        """Rows of W."""
        return self.weight

    def forward(self, hidden_BSd: torch.Tensor) -> Decision:
        """Scores are the logits W x."""
        logits = linear(hidden_BSd.reshape(-1, self.hidden), self.weight)
        probabilities = torch.softmax(logits.float(), dim=-1)
        weights, ids = probabilities.topk(1, dim=-1) if self.top_k == 1 else top_k_of(probabilities, self.top_k)
        if self.training and self.balance:
            self.terms.loss["balance"] = (self.balance, balance_loss(logits, ids, self.shared.real(hidden_BSd)))
        return logits, weights.to(logits.dtype), ids


class FrozenRouter(Router):
    """The linear top-k router with weights N(0, 1/d) that are drawn once and never learn: what a router gives that knows nothing.

    The random routing of seed 004, B.3, as a reference for learning: a function of the hidden state, so that its clusters are cut by planes.
    """

    weight: torch.Tensor

    def __init__(self, config: Any, layer: int, shared: Pass) -> None:
        super().__init__(config, layer, shared)
        self.register_buffer("weight", torch.empty(self.n_experts, self.hidden))

    def draw(self, name: str, tensor: torch.Tensor) -> None:  # noqa: ARG002
        """Normal weights, so that scores of normalised tokens have a standard deviation of about 1."""
        init.normal_(tensor, mean=0.0, std=self.hidden**-0.5)

    def directions(self) -> torch.Tensor:
        """Rows of W."""
        return self.weight

    def forward(self, hidden_BSd: torch.Tensor) -> Decision:
        """Scores are the logits W x."""
        logits = linear(hidden_BSd.reshape(-1, self.hidden), self.weight)
        weights, ids = top_k_of(torch.softmax(logits.float(), dim=-1), self.top_k)
        return logits, weights.to(logits.dtype), ids
