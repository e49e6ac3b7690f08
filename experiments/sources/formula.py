"""Which formula turns a router's scores into its combine weights, found by fitting the candidates.

T row, E expert, K slot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

EXACT = {"float32": 1e-3, "float64": 1e-3, "float16": 5e-3, "bfloat16": 3e-2}  # relative error that rounding explains
THRESHOLD_MARGIN = 0.02  # 2 x jitter of sparsemixer, arXiv 2409.12136


@dataclass(frozen=True)
class Formula:
    """score: how scores become positive ("softmax", "sigmoid", "sqrtsoftplus"); text: the whole formula; error: largest relative misfit."""

    score: str
    text: str
    error: float


def _positive(scores: torch.Tensor, probability: bool) -> Iterator[tuple[str, torch.Tensor]]:
    import torch
    from torch.nn import functional

    x = scores.double()
    if probability:
        yield "softmax", x
        return
    yield "softmax", torch.softmax(x, dim=-1)
    yield "sigmoid", torch.sigmoid(x)
    yield "sqrtsoftplus", functional.softplus(x).sqrt()


def _misfit(weights: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((weights - expected).abs() / expected.abs().clamp(min=1e-12)).amax())


def _scaled(weights: torch.Tensor, base: torch.Tensor, ids: torch.Tensor, n_experts: int) -> Iterator[tuple[str, float, int]]:
    """(what is done to `base`, misfit, parameters fitted): nothing, one factor, one factor per expert."""
    import torch

    yield "", _misfit(weights, base), 0
    ratio = weights / base.clamp(min=1e-30)
    factor = float(ratio.median())
    yield f" x {factor:.4g}", _misfit(weights, base * factor), 1
    flat, of = ratio.flatten(), ids.flatten()
    count = torch.bincount(of, minlength=n_experts).clamp(min=1)
    per_expert = torch.bincount(of, weights=flat, minlength=n_experts) / count
    yield " x per-expert scale", _misfit(weights, base * per_expert[ids]), n_experts


def _sparsemixer(scores: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Weights of PhiMoE at inference: each choice by a softmax over the experts near enough to the best one left."""
    import torch

    x = scores.double()
    left, columns = x.clone(), []
    for slot in range(ids.shape[-1]):
        best = left.amax(dim=-1, keepdim=True)
        far = (best - x) / torch.maximum(x.abs(), best) > THRESHOLD_MARGIN
        columns.append(torch.softmax(left.masked_fill(far, float("-inf")), dim=-1).gather(-1, ids[:, slot:slot + 1]))
        left = left.scatter(-1, ids[:, slot:slot + 1], float("-inf"))
    return torch.cat(columns, dim=-1)


def fit_formula(scores: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor, probability: bool) -> Formula:
    """The candidate with the fewest fitted parameters among those that rounding explains; "other" if none does.

    Where the sum over the chosen is 1 before they are divided by it, the text says that they are (`softmax/k`).
    Where two score functions fit alike (one expert per token, weights all one), the text says that the weights cannot tell.
    """
    tolerance = EXACT.get(str(weights.dtype).removeprefix("torch."), 1e-3)
    w = weights.double()
    found: list[tuple[int, int, float, str, str]] = []
    for order, (name, positive) in enumerate(_positive(scores, probability)):
        chosen = positive.gather(-1, ids)
        for norm, base in ((name, chosen), (f"{name}/k", chosen / chosen.sum(dim=-1, keepdim=True))):
            found += [(free, order, error, name, norm + what) for what, error, free in _scaled(w, base, ids, scores.shape[-1])
                      if free <= 1 or len(w) > 4 * free]
    if not probability:
        found.append((0, 9, _misfit(w, _sparsemixer(scores, ids)), "softmax", "sparsemixer"))
    fits = sorted(entry for entry in found if entry[2] <= tolerance)
    if not fits:
        return Formula("softmax", "other", min(entry[2] for entry in found))
    simplest = [entry for entry in fits if entry[0] == fits[0][0]]
    best = min(simplest, key=lambda entry: (entry[2] > 3 * min(other[2] for other in simplest) + 1e-6, entry[1], entry[2]))
    if 1 < ids.shape[-1] < scores.shape[-1]:  # weights whose sum is 1 before they are divided by it: the text says that it is
        best = next((entry for entry in simplest if entry[4] == f"{best[4]}/k"), best)
    rivals = {entry[3] for entry in simplest if entry[2] <= 3 * best[2] + 1e-6}
    told = "" if len(rivals) == 1 else f" (the weights fit {' and '.join(sorted(rivals))} alike)"
    return Formula(best[3], best[4] + told, best[2])
