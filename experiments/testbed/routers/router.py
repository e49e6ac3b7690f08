"""What every router of the testbed is: a module between the hidden states and the experts, and what layers of one pass share.

B sequence, S position, N = B S token, E expert, K slot, d width of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

Decision = tuple[torch.Tensor, ...]  # scores [N, E], weights [N, K], ids [N, K], and what a router has to say beside them


@dataclass
class Pass:
    """One forward pass, as the routers of all layers see it.

    token_ids_BS: None where the model was given embeddings; real_BS: tokens that are no padding; handed: what a layer's router leaves to
    the next layer's, None at the first.
    """

    token_ids_BS: torch.Tensor | None = None
    real_BS: torch.Tensor | None = None
    handed: torch.Tensor | None = None

    def begin(self, token_ids_BS: torch.Tensor | None, pad: int | None) -> None:
        """Forget the last pass. Padding is known by its token id."""
        self.token_ids_BS, self.handed = token_ids_BS, None
        self.real_BS = None if token_ids_BS is None or pad is None else token_ids_BS != pad

    def real(self, hidden_BSd: torch.Tensor) -> torch.Tensor:
        """Which rows [N] are no padding; all, where that is not known."""
        if self.real_BS is None:
            return torch.ones(hidden_BSd.shape[:2], dtype=torch.bool, device=hidden_BSd.device).flatten()
        return self.real_BS.flatten()


@dataclass
class Terms:
    """What a router adds to the loss in training (name -> weight and value), and what it last computed, for the tests of its equations."""

    loss: dict[str, tuple[float, torch.Tensor]] = field(default_factory=dict)
    plan_NE: torch.Tensor | None = None
    gram_EE: torch.Tensor | None = None


class Router(nn.Module):
    """Base of the routers. `forward(hidden_BSd)` gives (scores [N, E], weights [N, K], ids [N, K], ...).

    causal: whether a token's experts depend on no later token, and on no other sequence, in evaluation; selection_rule: why its experts
    are not the top-k of its scores, None if they are; mixes_rows: the experts of a token depend on the rest of the batch; limited: slots
    stay empty for want of capacity in evaluation, and then hold a filler; scored: experts are chosen by scores of the token.
    """

    causal: ClassVar[bool] = True
    scored: ClassVar[bool] = True
    reads_sequence: ClassVar[bool] = False  # needs every earlier token in the same call
    selection_rule: str | None = None
    mixes_rows: bool = False
    limited: bool = False

    def __init__(self, config: Any, layer: int, shared: Pass) -> None:
        super().__init__()
        self.n_experts, self.top_k = int(config.num_local_experts), int(config.num_experts_per_tok)
        self.hidden, self.layer, self.shared = int(config.hidden_size), layer, shared
        self.options: Mapping[str, Any] = dict(config.router_options or {})
        self.terms = Terms()

    def draw_weights(self) -> None:
        """Draw every tensor anew; `draw` says how."""
        for name, tensor in self.drawn():
            self.draw(name, tensor)

    def drawn(self) -> list[tuple[str, torch.Tensor]]:
        """What has initial values, by name: parameters and buffers."""
        return [*self.named_parameters(), *self.named_buffers()]

    def draw(self, name: str, tensor: torch.Tensor) -> None:
        """Draw the initial values of one tensor from torch's random state, through transformers.initialization, which spares loaded ones."""
        raise NotImplementedError(f"{type(self).__name__}.{name}")

    def directions(self) -> torch.Tensor | None:
        """The vectors [E, r] that tokens are compared with, where they are the same for all tokens."""
        return None


def top_k_of(probabilities_NE: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k likeliest experts and their probabilities divided by their sum, each [N, K]."""
    values, ids = probabilities_NE.topk(k, dim=-1)
    return values / values.sum(dim=-1, keepdim=True), ids
