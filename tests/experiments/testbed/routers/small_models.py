"""Small models with every router, and hidden states to route."""

from typing import Any

import torch

from experiments.testbed.routers.modeling import RoutedMixtralConfig, RoutedMixtralForCausalLM, routers_of

ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "switch": ("switch", {"balance": 0.01}),
    "random": ("random", {}),
    "hash": ("hash", {}),
    "expert_choice": ("expert_choice", {}),
    "spectra": ("spectra", {"dimension": 10}),
    "spectra_no_gru": ("spectra", {"dimension": 10, "gru": False}),
    "spectra_no_expression": ("spectra", {"dimension": 10, "expression": False}),
    "spectra_no_repulsion": ("spectra", {"dimension": 10, "repulsion": 0.0}),
    "spectra_no_ortho": ("spectra", {"dimension": 10, "lambda_ortho": 0.0}),
    "spectra_quota": ("spectra", {"dimension": 10, "quota": True}),
}
E, K, WIDTH, VOCABULARY, PAD = 8, 2, 32, 320, 2


def config(arm: str, **more: Any) -> RoutedMixtralConfig:
    router, options = ARMS[arm]
    return RoutedMixtralConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2,
        num_local_experts=E, max_position_embeddings=256, bos_token_id=0, eos_token_id=1, pad_token_id=PAD, router=router,
        **{"router_options": options, "num_experts_per_tok": K, **more})


def model(arm: str, seed: int = 0, **more: Any) -> RoutedMixtralForCausalLM:
    torch.manual_seed(seed)
    made = RoutedMixtralForCausalLM(config(arm, **more))
    with torch.no_grad():  # Mixtral's own spread leaves differences between tokens too small to see
        for name, parameter in made.named_parameters():
            if "gate" not in name.split(".") and parameter.dim() > 1:
                parameter.mul_(6)
    return made


def token_ids(batch: int = 3, length: int = 24, seed: int = 1) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def decided(made: Any, ids: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    """What each layer's router returns in one pass."""
    seen: list[tuple[torch.Tensor, ...]] = []
    handles = [router.register_forward_hook(lambda _m, _a, output: seen.append(output)) for router in routers_of(made)]
    with torch.no_grad():
        made(input_ids=ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen
