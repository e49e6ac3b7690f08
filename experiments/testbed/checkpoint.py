"""The state of a training run in one safetensors file: weights, both AdamW moments, and the step, written aside and renamed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracking.atomic import write_bytes

if TYPE_CHECKING:
    import torch

NAME = "resume.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Place:
    """How far a run is: fingerprint of its recipe, steps done, losses so far."""

    recipe: str
    step: int
    losses: list[list[float]]


def save(directory: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, place: Place) -> None:
    """Write the state. Batches are a function of seed and step and the model has no dropout, so there is no random state to keep."""
    from safetensors.torch import save as serialize

    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"weight/{name}"] = parameter.detach().contiguous()
        for key in MOMENTS:
            tensors[f"{key}/{name}"] = optimizer.state[parameter][key].contiguous()
    about = {"recipe": place.recipe, "step": str(place.step), "losses": json.dumps(place.losses)}
    write_bytes(directory / NAME, serialize(tensors, metadata=about))


def restore(directory: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, recipe: str) -> tuple[int, list[list[float]]]:
    """Load the state into model and optimizer; steps done and losses so far, (0, []) without a whole state of this recipe."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(directory / NAME), framework="pt") as file:
            about = file.metadata() or {}
            if about.get("recipe") != recipe:
                return 0, []
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return 0, []
    step = int(about["step"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"weight/{name}"])
            moments = {key: tensors[f"{key}/{name}"] for key in MOMENTS}
            optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}
    return step, json.loads(about["losses"])
