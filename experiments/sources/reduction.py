"""From a router's decision to trace columns, on the router's own device.

T kept token, E expert, K slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.sources.decoding import Decision

if TYPE_CHECKING:
    import torch

NOT_FINITE, OUT_OF_RANGE, CHOSEN_TWICE, NOT_TOP_K, WEIGHT_NOT_FINITE, NOT_NORMALISED = 1, 2, 3, 4, 5, 6
SUM_TOLERANCE = 2e-3  # of recorded probabilities, or the rounding unit of a coarser dtype (metrics specification 3.3)
TIE_TOLERANCE = 1e-5  # relative; float32 softmax merges logits that are this near


@dataclass(frozen=True)
class Reading:
    """How a layer's scores are read.

    score: "softmax", "sigmoid", "sqrtsoftplus" or "probabilities"; top_k_of_scores: the chosen experts must be the top-k of the scores.
    """

    score: str
    top_k_of_scores: bool


@dataclass(frozen=True)
class LayerColumns:
    """One layer's columns for T kept tokens (torch on the device, numpy on the host).

    ids, weights: [T, K] by descending weight, ties to the lowest id; entropy_nats, simpson, top1_prob: float32 [T];
    fault: uint8 [T], 0 or one of the codes above; fault_expert: int32 [T]; tied: uint8 [T], the first choice was a tie;
    dropped: uint8 [T] or None, bit k set if capacity dropped slot k.
    """

    ids: Any
    weights: Any
    entropy_nats: Any
    simpson: Any
    top1_prob: Any
    fault: Any
    fault_expert: Any
    tied: Any
    dropped: Any


FIELDS = tuple(LayerColumns.__dataclass_fields__)


def log_scores(scores: torch.Tensor, score: str) -> torch.Tensor:
    """Logarithms of the normalised scores, float32 [T, E]: of the softmax, or of sigmoid (sqrt-softplus) scores divided by their sum."""
    import torch
    from torch.nn import functional

    x = scores.float()
    if score == "probabilities":
        return torch.log(x / x.sum(dim=-1, keepdim=True))
    if score == "sigmoid":
        x = functional.logsigmoid(x)
    elif score == "sqrtsoftplus":
        x = 0.5 * torch.log(functional.softplus(x))
    return torch.log_softmax(x, dim=-1)


def reduce_decision(decision: Decision, rows: torch.Tensor, reading: Reading) -> LayerColumns:
    """Columns of the rows that are kept; nothing leaves the device."""
    import torch

    rows = rows.to(decision.scores.device, non_blocking=True)
    scores, weights, raw_ids = (part.index_select(0, rows) for part in (decision.scores, decision.weights, decision.ids))
    fault, fault_expert, ids = _faults(scores, weights, raw_ids, reading)
    ids, order = torch.sort(ids, dim=-1)
    weights, by_weight = torch.sort(weights.gather(-1, order), dim=-1, descending=True, stable=True)
    ids = ids.gather(-1, by_weight)
    log_q = log_scores(scores, reading.score)
    q = torch.exp(log_q)
    if ids.shape[-1] > 1:
        tied = weights[:, 0] == weights[:, 1]
    else:
        tied = (scores == scores.amax(dim=-1, keepdim=True)).sum(dim=-1) > 1
    dropped = None
    if decision.dropped is not None:
        in_order = decision.dropped.index_select(0, rows).gather(-1, order).gather(-1, by_weight)
        dropped = (in_order.to(torch.int32) << torch.arange(ids.shape[-1], device=ids.device)).sum(dim=-1).to(torch.uint8)
    return LayerColumns(ids.to(torch.int32), weights.to(torch.float16), -(torch.where(q > 0, q * log_q, 0.0)).sum(dim=-1),
                        (q * q).sum(dim=-1), q.amax(dim=-1), fault, fault_expert, tied.to(torch.uint8), dropped)


def _faults(scores: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor,
            reading: Reading) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fault code and the expert to name, per row, and ids that are safe to gather with."""
    import torch

    n_experts = scores.shape[-1]
    fault = torch.zeros(len(scores), dtype=torch.uint8, device=scores.device)
    expert = torch.full((len(scores),), -1, dtype=torch.int32, device=scores.device)

    def mark(code: int, bad: torch.Tensor, names: torch.Tensor) -> None:
        hit = bad.any(dim=-1)
        fault.masked_fill_(hit, code)
        expert.copy_(torch.where(hit, names.gather(-1, bad.int().argmax(dim=-1, keepdim=True)).squeeze(-1).to(torch.int32), expert))

    every = torch.arange(n_experts, device=scores.device).expand_as(scores)
    safe = ids.clamp(0, n_experts - 1)
    if reading.top_k_of_scores:
        worst = scores.gather(-1, safe).amin(dim=-1, keepdim=True).float()
        better = scores.scatter(-1, safe, float("-inf")).float() > worst + TIE_TOLERANCE * (1 + worst.abs())
        mark(NOT_TOP_K, better, every)
    ascending = torch.sort(ids, dim=-1).values
    mark(CHOSEN_TWICE, ascending[:, 1:] == ascending[:, :-1], ascending) if ids.shape[-1] > 1 else None
    mark(OUT_OF_RANGE, ids != safe, ids)
    if reading.score == "probabilities":
        allowed = max(SUM_TOLERANCE, torch.finfo(scores.dtype).eps)
        off = (scores.float().sum(dim=-1, keepdim=True) - 1).abs() > allowed
        mark(NOT_NORMALISED, off.expand_as(scores), every)
    mark(WEIGHT_NOT_FINITE, ~torch.isfinite(weights), ids)
    mark(NOT_FINITE, ~torch.isfinite(scores), every)
    return fault, expert, safe


def to_host(layers: list[LayerColumns]) -> list[LayerColumns]:
    """The same columns as numpy arrays, by one transfer for all layers."""
    import torch

    parts = [(number, name, getattr(columns, name)) for number, columns in enumerate(layers) for name in FIELDS]
    present = [(number, name, tensor) for number, name, tensor in parts if tensor is not None]
    device = present[0][2].device
    flat = torch.cat([tensor.contiguous().flatten().view(torch.uint8).to(device) for _, _, tensor in present]).cpu().numpy()
    found: list[dict[str, NDArray[Any] | None]] = [dict.fromkeys(FIELDS) for _ in layers]
    start = 0
    for number, name, tensor in present:
        stop = start + tensor.numel() * tensor.element_size()
        dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
        found[number][name] = flat[start:stop].copy().view(dtype).reshape(tuple(tensor.shape))
        start = stop
    return [LayerColumns(**columns) for columns in found]
