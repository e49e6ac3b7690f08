"""The testbed's model with any router: Mixtral in all but the router, under a model_type of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.models.mixtral.modeling_mixtral import (
    MixtralAttention,
    MixtralDecoderLayer,
    MixtralExperts,
    MixtralModel,
    MixtralPreTrainedModel,
)
from transformers.utils.output_capturing import OutputRecorder

from experiments.testbed.routers import MODEL_TYPE
from experiments.testbed.routers.expert_choice import ExpertChoiceRouter
from experiments.testbed.routers.hashed import TokenHashRouter
from experiments.testbed.routers.linear import FrozenRouter, LinearRouter
from experiments.testbed.routers.router import Pass, Router
from experiments.testbed.routers.spectra import SpectraRouter

ROUTERS: dict[str, type[Router]] = {
    "switch": LinearRouter, "expert_choice": ExpertChoiceRouter, "hash": TokenHashRouter, "random": FrozenRouter, "spectra": SpectraRouter,
}
RECORDED = {"router_logits": OutputRecorder(Router, index=0), "hidden_states": MixtralDecoderLayer, "attentions": MixtralAttention}


class RoutedMixtralConfig(MixtralConfig):  # type: ignore[no-untyped-call]
    """A MixtralConfig that names its router (a key of ROUTERS) and the router's options."""

    model_type = MODEL_TYPE

    router: str = "switch"
    router_options: dict[str, Any] | None = None


class RoutedBlock(nn.Module):
    """A MoE block whose router sees sequences [B, S, d] and hands on what it keeps; the experts are Mixtral's."""

    def __init__(self, config: RoutedMixtralConfig, layer: int, shared: Pass) -> None:
        super().__init__()
        self.gate = ROUTERS[config.router](config, layer, shared)
        self.experts = MixtralExperts(config)

    def forward(self, hidden_BSd: torch.Tensor) -> torch.Tensor:
        """Sum of the chosen experts' outputs, by weight."""
        _, weights, ids, *_ = self.gate(hidden_BSd)
        mixed: torch.Tensor = self.experts(hidden_BSd.reshape(-1, hidden_BSd.shape[-1]), ids, weights)
        return mixed.view_as(hidden_BSd)


def draw_weights(module: nn.Module) -> None:
    """Initial weights of a router; of anything else none."""
    if isinstance(module, Router):
        module.draw_weights()


class RoutedMixtralModel(MixtralModel):  # type: ignore[no-untyped-call]
    """MixtralModel with the configured router in every block."""

    config_class = RoutedMixtralConfig
    _can_record_outputs = RECORDED
    _can_set_experts_implementation_cached_value = True  # Mixtral's experts; transformers reads this module's source and finds no decorator

    def __init__(self, config: RoutedMixtralConfig) -> None:
        if config.router not in ROUTERS:
            raise ValueError(f"config.router = {config.router!r}: no such router; known: {', '.join(ROUTERS)}")
        super().__init__(config)
        self.shared = Pass()
        for number, layer in enumerate(self.layers):
            layer.mlp = RoutedBlock(config, number, self.shared)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        draw_weights(module)

    def forward(self, input_ids: Any = None, attention_mask: Any = None, position_ids: Any = None, past_key_values: Any = None,
                **kwargs: Any) -> Any:
        """MixtralModel's. Raises ValueError where earlier tokens are only in a cache and the router needs them."""
        cached = past_key_values is not None and past_key_values.get_seq_length() > 0
        if cached and any(router.reads_sequence for router in routers_of(self)):
            raise ValueError(f"router {self.config.router!r} reads whole sequences: call the model with use_cache=False")
        self.shared.begin(input_ids, self.config.pad_token_id)
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, past_key_values=past_key_values,
                               **kwargs)


class RoutedMixtralForCausalLM(MixtralForCausalLM):  # type: ignore[no-untyped-call]
    """MixtralForCausalLM with the configured router in every block; saved, loaded and captured like any other checkpoint."""

    config_class = RoutedMixtralConfig
    _can_record_outputs = RECORDED
    _can_set_experts_implementation_cached_value = True  # Mixtral's experts; transformers reads this module's source and finds no decorator

    def __init__(self, config: RoutedMixtralConfig) -> None:
        MixtralPreTrainedModel.__init__(self, config)
        self.model = RoutedMixtralModel(config)
        self.vocab_size, self.num_experts, self.num_experts_per_tok = config.vocab_size, config.num_local_experts, config.num_experts_per_tok
        self.router_aux_loss_coef = config.router_aux_loss_coef
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        draw_weights(module)


def routers_of(model: nn.Module) -> list[Router]:
    """Its routers in layer order."""
    return [module for module in model.modules() if isinstance(module, Router)]
