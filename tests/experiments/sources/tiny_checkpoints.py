"""Tiny random checkpoints of many architectures, with a byte-level tokenizer; random weights large enough that routing is decided."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

VOCABULARY = 320
COMMON: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                          "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
EIGHT = {"num_experts": 8, "num_experts_per_tok": 2}


def _deepseek(**more: Any) -> dict[str, Any]:
    return {**COMMON, "num_key_value_heads": 4, "intermediate_size": 32, "moe_intermediate_size": 16, "n_routed_experts": 8,
            "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1, "num_hidden_layers": 3, "q_lora_rank": 16,
            "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "n_shared_experts": 1, **more}


def _jamba() -> Any:
    return transformers.JambaConfig(**COMMON, **EIGHT, intermediate_size=16, attn_layer_period=2, attn_layer_offset=1,
                                    expert_layer_period=2, expert_layer_offset=1, use_mamba_kernels=False, mamba_d_state=4, mamba_dt_rank=4)


CONFIGS: dict[str, Callable[[], Any]] = {
    "mixtral": lambda: transformers.MixtralConfig(**COMMON, intermediate_size=32, num_local_experts=8, num_experts_per_tok=2),
    "olmoe": lambda: transformers.OlmoeConfig(**COMMON, **EIGHT, intermediate_size=16),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(**COMMON, **EIGHT, intermediate_size=16, moe_intermediate_size=16, head_dim=8,
                                                     norm_topk_prob=True),
    "deepseek_v3": lambda: transformers.DeepseekV3Config(**_deepseek(routed_scaling_factor=2.5, norm_topk_prob=True)),
    "deepseek_v2": lambda: transformers.DeepseekV2Config(**_deepseek(routed_scaling_factor=1.0, topk_method="group_limited_greedy",
                                                                     n_group=2, topk_group=1)),
    "gpt_oss": lambda: transformers.GptOssConfig(**COMMON, intermediate_size=32, num_local_experts=8, num_experts_per_tok=2, head_dim=8),
    "granitemoe": lambda: transformers.GraniteMoeConfig(**COMMON, intermediate_size=16, num_local_experts=8, num_experts_per_tok=2),
    "phimoe": lambda: transformers.PhimoeConfig(**COMMON, intermediate_size=16, num_local_experts=8, num_experts_per_tok=2,
                                                router_jitter_noise=0.01),
    "switch": lambda: transformers.SwitchTransformersConfig(
        vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=32, num_heads=4, num_layers=2, num_decoder_layers=2, num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1, num_experts=4, expert_capacity=4, decoder_start_token_id=2, pad_token_id=2, eos_token_id=1),
    "ernie4_5_moe": lambda: transformers.Ernie4_5_MoeConfig(**COMMON, intermediate_size=16, moe_intermediate_size=16, moe_num_experts=8,
                                                            moe_k=2, moe_layer_start_index=0, moe_num_shared_experts=1),
    "llama4": lambda: transformers.Llama4TextConfig(**COMMON, intermediate_size=16, intermediate_size_mlp=16, num_local_experts=8,
                                                    num_experts_per_tok=1, interleave_moe_layer_step=1, head_dim=8),
    "jamba": _jamba,
    "jetmoe": lambda: transformers.JetMoeConfig(
        **{**COMMON, "num_attention_heads": 4, "num_key_value_heads": 2}, kv_channels=8, intermediate_size=16, num_local_experts=8,
        num_experts_per_tok=2),
    "doge": lambda: transformers.DogeConfig(**COMMON, intermediate_size=16, is_moe=True, num_experts=16, num_experts_per_tok=4),
    "gemma4": lambda: transformers.Gemma4TextConfig(
        **COMMON, intermediate_size=16, moe_intermediate_size=16, enable_moe_block=True, num_experts=8, top_k_experts=2, head_dim=8,
        global_head_dim=8, hidden_size_per_layer_input=8, vocab_size_per_layer_input=VOCABULARY,
        layer_types=["sliding_attention", "full_attention"]),
    "nllb_moe": lambda: transformers.NllbMoeConfig(
        vocab_size=VOCABULARY, d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
        encoder_attention_heads=4, decoder_attention_heads=4, num_experts=4, encoder_sparse_step=1, decoder_sparse_step=1, pad_token_id=2),
    "llama": lambda: transformers.LlamaConfig(**COMMON, intermediate_size=16),
}


def tokenizer(*, prefix: bool = True, suffix: bool = False) -> Any:
    """Byte-level, with <s>, </s> and <pad>; puts <s> before and </s> after a text if asked."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1, "<pad>": 2, **{letter: 3 + n for n, letter in enumerate(alphabet)}}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if prefix or suffix:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{'<s> ' if prefix else ''}$A{' </s>' if suffix else ''}", special_tokens=[("<s>", 0), ("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights of order one over the square root of the width, and selection biases that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point() or "rotary" in name or "inv_freq" in name or "A_log" in name:
                continue
            if "correction_bias" in name or "expert_bias" in name:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
            elif "per_expert_scale" in name:
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif tensor.dim() >= 2:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (1.5 if "router" in name or "gate.weight" in name else 1.0)
                             / tensor.shape[-1] ** 0.5)
            elif name.endswith("bias"):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)


def save(architecture: str, directory: Path, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """Write config, safetensors and tokenizer of a tiny random model of `architecture` to `directory`."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    config = CONFIGS[architecture]()
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    torch.manual_seed(seed)
    model = auto.from_config(config)
    randomise(model, seed)
    model.to(dtype).save_pretrained(directory)
    encoder = config.is_encoder_decoder
    tokenizer(prefix=not encoder, suffix=encoder).save_pretrained(directory)
    return directory
