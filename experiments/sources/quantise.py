"""Quantised experts: done, counted and recorded, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.sources.errors import SourceError

if TYPE_CHECKING:
    import torch

    from experiments.declaration import SourceSpec
    from experiments.sources.loading import Checkpoint


@dataclass(frozen=True)
class Quantisation:
    """What was done to the experts: `record` goes into the trace's meta."""

    record: Mapping[str, Any]


def quantised_model(checkpoint: Checkpoint, spec: SourceSpec, dtype: torch.dtype, device: torch.device) -> tuple[Any, Quantisation]:
    """The model with quantised experts."""
    raise SourceError(f"quantize: {spec.quantize!r} is not available for {checkpoint.name} on {device} in {dtype}")
