"""Routers as an experimental factor: one module each, taking the router's place in an otherwise equal model."""

from __future__ import annotations

__all__ = ["MODEL_TYPE", "register"]

MODEL_TYPE = "routed_mixtral"


def register() -> None:
    """Make `AutoModelForCausalLM` know checkpoints of model_type "routed_mixtral"; a second call changes nothing."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    from experiments.testbed.routers.modeling import RoutedMixtralConfig, RoutedMixtralForCausalLM, RoutedMixtralModel

    AutoConfig.register(MODEL_TYPE, RoutedMixtralConfig, exist_ok=True)
    AutoModel.register(RoutedMixtralConfig, RoutedMixtralModel, exist_ok=True)
    AutoModelForCausalLM.register(RoutedMixtralConfig, RoutedMixtralForCausalLM, exist_ok=True)
