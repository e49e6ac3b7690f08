"""Reading a router's output: the generic triple, and the routers that return something else.

T row of the forward pass (batch x sequence), E expert, K slot.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.sources.errors import SourceError

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Decision:
    """What a router decided for every row of a forward pass, on the router's device, unsorted.

    scores: [T, E] logits (or probabilities, for routers that return those); weights, ids: [T, K];
    dropped: bool [T, K], what capacity dropped, or None for a router that never drops.
    """

    scores: torch.Tensor
    weights: torch.Tensor
    ids: torch.Tensor
    dropped: torch.Tensor | None = None


Decoder = Callable[["nn.Module", Any], Decision]


def _triple(router: nn.Module, output: Any) -> Decision:
    """(logits or probabilities, weights, ids, ...): 60 of 65 architectures of transformers 5.23."""
    fits = (isinstance(output, tuple | list) and len(output) >= 3 and all(hasattr(part, "shape") for part in output[:3])
            and output[1].shape == output[2].shape and not output[2].is_floating_point() and output[0].shape[-1] >= output[1].shape[-1])
    if not fits:
        raise SourceError(f"router {type(router).__name__} returns {_shape(output)}, which no decoder reads; "
                          "add one to experiments/sources/decoding.py")
    scores, weights, ids = output[0], output[1], output[2]
    return Decision(scores.reshape(-1, scores.shape[-1]), weights.reshape(-1, weights.shape[-1]), ids.reshape(-1, ids.shape[-1]))


def _shape(output: Any) -> str:
    if isinstance(output, tuple | list):
        return "(" + ", ".join(_shape(part) for part in output) + ")"
    return f"{output.dtype}{list(output.shape)}".removeprefix("torch.") if hasattr(output, "shape") else type(output).__name__


def _switch(_router: nn.Module, output: Any) -> Decision:
    """(one-hot mask after capacity, probability of the first choice, logits); a dropped token has an all-zero mask."""
    import torch

    mask, weights, logits = output
    scores = logits.reshape(-1, logits.shape[-1])
    # The router takes the argmax after casting probabilities to the model's dtype, where ties appear.
    ids = torch.softmax(scores, dim=-1).to(weights.dtype).argmax(dim=-1, keepdim=True)
    kept = mask.reshape(scores.shape).amax(dim=-1, keepdim=True) > 0
    return Decision(scores, weights.reshape(-1, 1), ids, dropped=~kept)


def _llama4(router: nn.Module, output: Any) -> Decision:
    """(dense sigmoid scores, zero outside the top-k; logits)."""
    scores, logits = output
    ids = logits.topk(int(router.top_k), dim=-1).indices  # type: ignore[arg-type]
    return Decision(logits, scores.gather(-1, ids), ids)


def _jetmoe(router: nn.Module, output: Any) -> Decision:
    """(order of slots by expert, row of each, gate of each, rows per expert, logits): put the slots back in row order."""
    import torch

    order, _rows, gates, sizes, logits = output
    k = int(router.top_k)  # type: ignore[arg-type]
    experts = torch.arange(logits.shape[-1], device=logits.device)
    of_slot = torch.repeat_interleave(experts, torch.as_tensor(sizes, device=logits.device), output_size=order.numel())
    ids, weights = torch.empty_like(of_slot), torch.empty_like(gates)
    ids[order], weights[order] = of_slot, gates
    return Decision(logits, weights.view(-1, k), ids.view(-1, k))


def _doge(block: nn.Module, output: Any) -> Decision:
    """Product keys: logits [2, T, n] whose outer sums score n*n experts; the block returns no ids."""
    import torch

    _hidden, (x, y) = output
    scores = (x.unsqueeze(-1) + y.unsqueeze(-2)).flatten(-2)
    best, ids = scores.topk(int(block.top_k), dim=-1)  # type: ignore[arg-type]
    return Decision(scores, torch.softmax(best, dim=-1), ids)


def _zaya(_router: nn.Module, output: Any) -> Decision:
    """The generic triple, except that the skip class (the last) is rewritten to expert 0 with weight 0."""
    logits, weights, ids = output[:3]
    return Decision(logits, weights, ids.masked_fill(weights == 0, logits.shape[-1] - 1))


def _with_kept(_router: nn.Module, output: Any) -> Decision:
    """The generic triple and, under a capacity, whether an expert took the slot; one that none took holds the best expert left, with weight 0."""
    scores, weights, ids, *kept = output
    return Decision(scores, weights, ids, dropped=~kept[0] if kept else None)


SPECIAL: dict[str, Decoder] = {
    "SwitchTransformersTop1Router": _switch,
    "Llama4Router": _llama4,
    "JetMoeTopKGating": _jetmoe,
    "DogeCDMoE": _doge,
    "ZayaRouter": _zaya,
    "ExpertChoiceRouter": _with_kept,
    "SpectraRouter": _with_kept,
}
REFUSED = {
    "NllbMoeTop2Router": "transformers 5.23 runs only experts 0 and 1 of NLLB-MoE, which is not what the model was trained to do",
    "DbrxRouter": "it returns logits only, and its feed-forward block chooses the experts where no hook can see them",
}
# One document at a time, because these mix rows of a batch: padding would change what a token's router sees.
MIXES_ROWS = {"DogeCDMoE"}
LIMITED = re.compile("Switch")


def mixes_rows(router: nn.Module) -> bool:
    """Whether a token's experts depend on the rest of its batch: by its class, or as the router says itself."""
    return type(router).__name__ in MIXES_ROWS or bool(getattr(router, "mixes_rows", False))


def is_limited(router: nn.Module) -> bool:
    """Whether slots stay empty for want of capacity: by its class, or as the router says itself."""
    return bool(LIMITED.search(type(router).__name__)) or bool(getattr(router, "limited", False))


def decoder_for(router: nn.Module) -> Decoder:
    """The decoder of a router's class; raises SourceError for one that is known to be unreadable."""
    name = type(router).__name__
    if name in REFUSED:
        raise SourceError(f"router {name} is refused: {REFUSED[name]}")
    return SPECIAL.get(name, _triple)
