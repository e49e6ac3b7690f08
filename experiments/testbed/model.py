"""The testbed's model: an ordinary small MixtralForCausalLM, and what its routers say while it runs."""
# N tokens of a batch, E experts, K rank in top-k

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from experiments.specs import TestbedSpec
from experiments.testbed.tokenizer import END_ID, PAD_ID

if TYPE_CHECKING:
    import torch
    from transformers import MixtralForCausalLM

MAX_POSITIONS = 4096


def build(spec: TestbedSpec, vocabulary: int) -> MixtralForCausalLM:
    """A MixtralForCausalLM of the declared size with weights drawn from the declared seed; the global random state is left alone."""
    import torch
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=vocabulary,
        hidden_size=spec.hidden,
        intermediate_size=spec.intermediate,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        num_local_experts=spec.experts,
        num_experts_per_tok=spec.top_k,
        max_position_embeddings=MAX_POSITIONS,
        bos_token_id=None,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        return MixtralForCausalLM(config)


@contextmanager
def routers_heard(model: MixtralForCausalLM) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Router logits [N, E] and chosen experts [N, K] of each layer, in layer order, refilled by every forward pass within the block."""
    heard: list[tuple[torch.Tensor, torch.Tensor]] = []

    def hear(layer: int) -> Callable[..., None]:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            if layer == 0:
                heard.clear()
            heard.append((output[0], output[2]))

        return hook

    handles = [block.mlp.gate.register_forward_hook(hear(layer)) for layer, block in enumerate(model.model.layers)]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def balance_loss(logits_NE: torch.Tensor, experts_NK: torch.Tensor, real_N: torch.Tensor) -> torch.Tensor:
    """Load-balancing loss of one layer, E * sum_e f_e P_e over the real tokens (Fedus et al. 2021, equation 4, per layer).

    f_e: share of the choices that fall on expert e; P_e: its mean probability. 1 when balanced, E when all tokens choose one expert.
    """
    import torch

    n_experts = logits_NE.shape[-1]
    chosen = experts_NK[real_N]
    f_E = torch.bincount(chosen.flatten(), minlength=n_experts).to(logits_NE.dtype) / chosen.numel()
    p_E = torch.softmax(logits_NE[real_N].float(), dim=-1).mean(dim=0)
    return n_experts * (f_E * p_E).sum()


def next_token_loss(logits_BSV: torch.Tensor, ids_BS: torch.Tensor, real_BS: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats of predicting each real token from those before it in its window."""
    import torch

    labels = torch.where(real_BS, ids_BS, -100)[:, 1:]
    return torch.nn.functional.cross_entropy(logits_BSV[:, :-1].flatten(0, 1), labels.flatten(), ignore_index=-100)
