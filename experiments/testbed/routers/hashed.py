"""Hash routing: a token's experts follow from its id alone, and nothing is learnt.

N token, E expert, K slot, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import initialization as init

from experiments.testbed.routers.router import Decision, Pass, Router


class TokenHashRouter(Router):
    """k distinct experts of each token id, drawn at random for each layer when the model is built; weights 2/3 and 1/3 for k = 2.

    Source: Roller et al. 2021, "Hash Layers For Large Sparse Models", random hash. Weights (K - slot) / (K (K + 1) / 2) instead of equal
    ones, so that every token has a first choice. The negative control of learnt specialisation: whatever domain it shows is the vocabulary's.
    Scores are the weights themselves, 0 for experts outside the hash.
    """

    selection_rule = "hash of the token id"
    scored = False
    table: torch.Tensor

    def __init__(self, config: Any, layer: int, shared: Pass) -> None:
        super().__init__(config, layer, shared)
        self.register_buffer("table", torch.zeros(int(config.vocab_size), self.top_k, dtype=torch.int64))

    def draw(self, name: str, tensor: torch.Tensor) -> None:  # noqa: ARG002
        """The k experts of each token id, equally likely."""
        drawn = torch.rand(len(tensor), self.n_experts, device=tensor.device)
        init.copy_(tensor, drawn.argsort(dim=1)[:, : self.top_k])

    def forward(self, hidden_BSd: torch.Tensor) -> Decision:
        """Raises ValueError for a model that was given embeddings instead of token ids."""
        token_ids = self.shared.token_ids_BS
        if token_ids is None:
            raise ValueError("hash routing needs token ids: call the model with input_ids, not inputs_embeds")
        ids = self.table[token_ids.flatten()]
        falling = torch.arange(self.top_k, 0, -1, dtype=hidden_BSd.dtype, device=hidden_BSd.device)
        weights = (falling / falling.sum()).expand(len(ids), -1)
        scores = torch.zeros(len(ids), self.n_experts, dtype=hidden_BSd.dtype, device=hidden_BSd.device).scatter(1, ids, weights)
        return scores, weights, ids
