"""Expert choice: experts take tokens, not tokens experts.

N token, E expert, K slot, C capacity.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Parameter
from torch.nn.functional import linear
from transformers import initialization as init

from experiments.testbed.routers.router import Decision, Pass, Router
from experiments.testbed.routers.transport import capacity


class ExpertChoiceRouter(Router):
    """S = softmax(W x); each expert takes the C = ceil(1.25 N k / E) tokens that score it highest; y = sum of S_e E_e(x) over its takers.

    Source: Zhou et al. 2022, "Mixture-of-Experts with Expert Choice Routing", section 3.2, with the limit of 2k experts a token of its
    section 3.4, since a trace has as many slots for every token. A slot that no expert takes holds the best expert left, with weight 0, and
    is marked as dropped. NOT CAUSAL: whether an expert takes a token depends on every other token of the batch, later ones included, in
    evaluation too; its held-out loss is no language model's, and its documents are run one by one. No balance loss: loads are equal by
    construction.
    """

    causal = False
    reads_sequence = True
    selection_rule = "experts choose tokens"
    mixes_rows = True
    limited = True

    def __init__(self, config: Any, layer: int, shared: Pass) -> None:
        super().__init__(config, layer, shared)
        self.weight = Parameter(torch.empty(self.n_experts, self.hidden))
        self.std, self.factor = float(config.initializer_range), float(self.options.get("capacity_factor", 1.25))
        self.slots = min(2 * self.top_k, self.n_experts)

    def draw(self, name: str, tensor: torch.Tensor) -> None:  # noqa: ARG002
        """Normal weights, as Mixtral's."""
        init.normal_(tensor, mean=0.0, std=self.std)

    def directions(self) -> torch.Tensor:
        """Rows of W."""
        return self.weight

    def forward(self, hidden_BSd: torch.Tensor) -> Decision:
        """Beside scores, weights and ids: whether a slot was taken, bool [N, K]. Padding is taken by no expert."""
        logits = linear(hidden_BSd.reshape(-1, self.hidden), self.weight)
        scores = torch.softmax(logits.float(), dim=-1)
        real = self.shared.real(hidden_BSd)
        room = min(capacity(int(real.sum()), self.top_k, self.n_experts, self.factor), len(scores))
        best = scores.masked_fill(~real[:, None], -1.0).topk(room, dim=0)
        taken = torch.zeros_like(scores, dtype=torch.bool).scatter(0, best.indices, best.values >= 0)
        ids = (scores + taken).topk(self.slots, dim=-1).indices  # the takers first, then the best that are left
        kept = taken.gather(-1, ids)
        weights = torch.where(kept, scores.gather(-1, ids), 0.0)
        return logits, weights.to(logits.dtype), ids, kept
