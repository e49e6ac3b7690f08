"""Quantised experts: done, counted and recorded, or refused.

transformers 5 keeps the experts of a layer as one three-dimensional parameter, which the ordinary settings of bitsandbytes and
torchao pass over without a word. Here 8 bit goes through torchao by parameter name while loading, and 4 bit through bitsandbytes
after loading; both are checked by counting what the experts are made of afterwards.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.sources.errors import SourceError
from experiments.sources.loading import load_model
from experiments.sources.memory import is_expert

if TYPE_CHECKING:
    import torch

    from experiments.sources.loading import Checkpoint

LEAST_SHARE = 0.95
PACKAGE = {"8bit": ("torchao", "pip install 'moe-assay[torchao]'"), "4bit": ("bitsandbytes", "pip install bitsandbytes")}


@dataclass(frozen=True)
class Quantisation:
    """What was done to the experts: `record` (method, version, share, bytes) goes into the trace's meta."""

    record: Mapping[str, Any]


def require_package(quantize: str) -> str:
    """Version of the library that `quantize` needs; raises SourceError naming what to install."""
    package, remedy = PACKAGE[quantize]
    if importlib.util.find_spec(package) is None:
        raise SourceError(f'quantize = "{quantize}" needs {package}, which is not installed; run `{remedy}`, or leave quantize out')
    return importlib.metadata.version(package)


def expert_matrices(model: Any) -> list[str]:
    """Names of the weight matrices of routed experts: fused three-dimensional parameters, or one matrix per expert; never biases."""
    return [name for name, parameter in model.named_parameters()
            if is_expert(name) and parameter.dim() >= 2 and not name.endswith(("bias", "_scales"))]


def quantised_model(checkpoint: Checkpoint, quantize: str, dtype: torch.dtype, device: torch.device,
                    shape: Any) -> tuple[Any, Quantisation]:
    """The model with at least 95 % of its expert weights quantised and its routers as they were; `shape` is the model on meta."""
    version = require_package(quantize)
    if (already := getattr(checkpoint.config, "quantization_config", None)) is not None:
        method = already.get("quant_method") if isinstance(already, dict) else getattr(already, "quant_method", already)
        raise SourceError(f'quantize = "{quantize}": {checkpoint.name} is quantised already ({method}); leave quantize out')
    names = expert_matrices(shape)
    before = sum(parameter.numel() for name, parameter in shape.named_parameters() if is_expert(name))
    try:
        if quantize == "8bit":
            model, method = _int8(checkpoint, dtype, device, names), "torchao int8 weight-only, one scale per row"
        else:
            model, method = _nf4(checkpoint, dtype, device, names), "bitsandbytes nf4, dequantised once per forward pass"
    except (NotImplementedError, TypeError, AttributeError, AssertionError) as error:
        raise SourceError(f'quantize = "{quantize}" does not work for {type(shape).__name__}: {str(error).strip().splitlines()[0]}; '
                          "leave quantize out") from error
    quantised, n_bytes = expert_storage(model)
    share = quantised / max(before, 1)
    if share < LEAST_SHARE:
        other = "4bit" if quantize == "8bit" else "8bit"
        raise SourceError(f'quantize = "{quantize}": only {share:.1%} of the expert weights of {type(model).__name__} were quantised '
                          f'({quantised:,} of {before:,}); at least {LEAST_SHARE:.0%} are needed. Leave quantize out, or try "{other}"')
    return model, Quantisation({
        "asked": quantize, "method": method, PACKAGE[quantize][0]: version, "share_of_expert_weights": round(share, 4),
        "expert_bytes": n_bytes, "expert_bytes_before": before * dtype.itemsize, "router": "as loaded, see conformance.layers",
        "experts_implementation": getattr(model.config, "_experts_implementation", None)})


def _int8(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, names: list[str]) -> Any:
    from torchao.quantization import FqnToConfig, Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    # grouped_mm transposes the weights, which torchao's int8 tensor cannot; eager experts slice them.
    rule = Int8WeightOnlyConfig(version=2)
    config = TorchAoConfig(FqnToConfig(dict.fromkeys(names, rule)))
    return load_model(checkpoint, dtype, device_map={"": str(device)}, quantization_config=config, experts_implementation="eager")


def _nf4(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, names: list[str]) -> Any:
    import torch
    from bitsandbytes.nn.parametrize import replace_parameter_4bit

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    model = load_model(checkpoint, dtype, device_map={"": "cpu"})
    for name in names:
        path, _, last = name.rpartition(".")
        module = model.get_submodule(path)
        parameter = getattr(module, last)
        setattr(module, last, torch.nn.Parameter(parameter.data.to(device), requires_grad=False))
        replace_parameter_4bit(module, last, quant_type="nf4")
    return model.to(device)


def _inner(tensor: Any) -> list[Any]:
    """The plain tensors that a tensor subclass is made of."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    return [part for name in tensor.__tensor_flatten__()[0] for part in _inner(getattr(tensor, name))]


def expert_storage(model: Any) -> tuple[int, int]:
    """(how many expert weights are stored in 8 bits or fewer, bytes of all expert storage with scales)."""
    import torch
    from torch.nn.utils import parametrize

    quantised = n_bytes = 0
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module) and is_expert(f"{path}.weight"):
            for found in module.parametrizations.values():
                state = found[0].quant_state
                quantised += int(torch.Size(state.shape).numel())
                n_bytes += found.original.numel() * found.original.element_size() + state.absmax.numel() * state.absmax.element_size()
    for name, parameter in model.named_parameters():
        if not is_expert(name) or ".parametrizations." in name:
            continue
        parts = _inner(parameter.data)
        n_bytes += sum(part.numel() * part.element_size() for part in parts)
        if parts[0].dtype in (torch.int8, torch.uint8):
            quantised += parameter.numel()
    return quantised, n_bytes
