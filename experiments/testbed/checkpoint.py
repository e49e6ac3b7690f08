"""The state of a training run in one safetensors file: weights, both AdamW moments, and the step, written aside and renamed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.corpora.stored import replacing

if TYPE_CHECKING:
    import torch

NAME = "resume.safetensors"


def save(directory: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int, recipe: str) -> None:
    """Write the state after `step` steps. Batches are a function of seed and step and the model has no dropout, so no random state is part of it."""
    from safetensors.torch import save_file

    tensors = {f"weight/{name}": parameter.detach().contiguous() for name, parameter in model.named_parameters()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for parameter, moments in optimizer.state.items():
        for key in ("exp_avg", "exp_avg_sq"):
            tensors[f"{key}/{names[id(parameter)]}"] = moments[key].contiguous()
    with replacing(directory / NAME) as aside:
        save_file(tensors, str(aside), metadata={"step": str(step), "recipe": recipe})


def restore(directory: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, recipe: str) -> int:
    """Load the state into model and optimizer; the number of steps it has done, 0 if there is none of this recipe or it is damaged."""
    import torch
    from safetensors import SafetensorError, safe_open

    path = directory / NAME
    try:
        with safe_open(str(path), framework="pt") as file:
            about: dict[str, Any] = file.metadata() or {}
            if about.get("recipe") != recipe:
                return 0
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (OSError, SafetensorError):
        return 0
    step = int(about["step"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"weight/{name}"])
            moments = {key: tensors[f"{key}/{name}"] for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}
    return step
