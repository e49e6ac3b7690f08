"""Does the model's router behave as the trace will say it does? Answered by one forward pass, before anything is written.

T row, E expert, K slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.sources.decoding import Decision
from experiments.sources.errors import SourceError
from experiments.sources.formula import Formula, fit_formula
from experiments.sources.recording import decisions
from experiments.sources.reduction import TIE_TOLERANCE, Reading
from experiments.sources.routers import RouterSite, selects_otherwise

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Conformance:
    """Verdict of the first-batch check.

    readings: per layer, how its scores are read; formula: per layer, how weights follow from scores; n_experts, top_k: per layer;
    verdict: what the manifest keeps.
    """

    readings: tuple[Reading, ...]
    formula: tuple[Formula, ...]
    n_experts: tuple[int, ...]
    top_k: tuple[int, ...]
    verdict: Mapping[str, Any]


def _is_probability(scores: torch.Tensor) -> bool:
    x = scores.double()
    return bool((x >= 0).all() and (x <= 1 + 1e-3).all() and ((x.sum(dim=-1) - 1).abs() < 1e-2).all())


def agreement(scores: torch.Tensor, ids: torch.Tensor) -> float:
    """Share of rows whose chosen experts are the top-k of the scores; ties count as agreement."""
    safe = ids.clamp(0, scores.shape[-1] - 1)
    worst = scores.gather(-1, safe).amin(dim=-1).float()
    best_left = scores.scatter(-1, safe, float("-inf")).amax(dim=-1).float()
    return float((best_left <= worst + TIE_TOLERANCE * (1 + worst.abs())).float().mean())


@contextmanager
def executed(model: nn.Module, sites: Sequence[RouterSite]) -> Iterator[list[list[Any]]]:
    """Integer tensors that each router's experts module is called with (the sibling called `experts`), per site."""
    import torch

    seen: list[list[Any]] = [[] for _ in sites]
    handles = []

    def pre_hook(number: int) -> Any:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            seen[number].extend(arg for arg in (*args, *kwargs.values()) if isinstance(arg, torch.Tensor) and not arg.is_floating_point())
        return hook

    for number, site in enumerate(sites):
        experts = getattr(model.get_submodule(site.key.rpartition(".")[0]), "experts", None)
        if isinstance(experts, torch.nn.Module):
            handles.append(experts.register_forward_pre_hook(pre_hook(number), with_kwargs=True))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _executed_as_chosen(arguments: list[Any], output: Any) -> bool | None:
    """Whether the experts ran what the router returned; None if that cannot be seen."""
    import torch

    parts = output if isinstance(output, tuple | list) else [output]
    chosen = [part for part in parts if isinstance(part, torch.Tensor) and not part.is_floating_point()]
    pairs = [(a, b) for a in arguments for b in chosen if a.numel() == b.numel()]
    return any(bool((a.reshape(-1) == b.reshape(-1)).all()) for a, b in pairs) if pairs else None


def uncovered_experts(model: nn.Module, all_routers: Sequence[str]) -> list[str]:
    """Paths of modules called `experts` beside or under which no known router sits."""
    paths = [path for path, _ in model.named_modules() if path.rpartition(".")[2] == "experts"]
    return [path for path in paths if not any(key.startswith(path.rpartition(".")[0] + ".") for key in all_routers)]


def check_conformance(model: nn.Module, sites: Sequence[RouterSite], rows: Mapping[str, torch.Tensor], forward: Any) -> Conformance:
    """Run `forward()` once and compare what every router says with what it should mean.

    Raises SourceError where the trace would be wrong.
    """
    with decisions(sites) as seen, executed(model, sites) as ran:
        forward()
    calls = {site.key: len(found) for site, found in zip(sites, seen)}
    if wrong := {key: n for key, n in calls.items() if n != 1}:
        raise SourceError(f"conformance: routers must be called once per forward pass, but {wrong}; a fused kernel may bypass them, "
                          "or one router serves two blocks")
    layers = [_check_layer(model, site, found[0], arguments, rows) for site, found, arguments in zip(sites, seen, ran)]
    verdict = {"checked": "probe batch", "calls_per_layer": 1, "layers": {site.key: layer.verdict for site, layer in zip(sites, layers)},
               "agreement_min": min(layer.verdict["agreement"] for layer in layers)}
    return Conformance(tuple(layer.reading for layer in layers), tuple(layer.formula for layer in layers),
                       tuple(layer.n_experts for layer in layers), tuple(layer.top_k for layer in layers), verdict)


@dataclass(frozen=True)
class _Layer:
    reading: Reading
    formula: Formula
    n_experts: int
    top_k: int
    verdict: dict[str, Any]


def _check_layer(model: nn.Module, site: RouterSite, found: tuple[Decision, Any], arguments: list[Any],
                 rows: Mapping[str, torch.Tensor]) -> _Layer:
    decision, output = found
    where = rows[site.stack].to(decision.scores.device)
    scores, weights, ids = (part.index_select(0, where) for part in (decision.scores, decision.weights, decision.ids))
    n_experts, k = scores.shape[-1], ids.shape[-1]
    name = f"conformance: layer {site.key} ({site.class_name})"
    if not bool(scores.isfinite().all()):
        raise SourceError(f"{name}: router logits are not finite on the probe batch; the weights are damaged or the dtype is too narrow")
    if bool(((ids < 0) | (ids >= n_experts)).any()):
        hint = " (off by one?)" if int(ids.max()) == n_experts else ""
        raise SourceError(f"{name}: expert id {int(ids.max())} but the router scores {n_experts} experts{hint}")
    if bool((ids.sort(dim=-1).values.diff(dim=-1) == 0).any()):
        raise SourceError(f"{name}: one expert is chosen twice for a token")
    reason = selects_otherwise(model, site)
    share = agreement(scores, ids)
    if reason is None and share < 1:
        raise SourceError(f"{name}: only {share:.1%} of rows choose the top-{k} of their scores, and nothing in the router explains it; "
                          "its output is read wrongly or its selection rule is unknown")
    ran = _executed_as_chosen(arguments, output)
    if ran is False:
        raise SourceError(f"{name}: the experts were run with other ids than the router returned")
    probability = _is_probability(scores)
    formula = fit_formula(scores, weights, ids, probability)
    score = "probabilities" if probability else formula.score
    verdict = {"returns": "probabilities" if probability else "logits", "agreement": round(share, 4),
               "selection": reason or "top-k of the scores", "weights": formula.text, "executed_as_selected": ran,
               "router_dtype": _dtype(site.module), "n_experts": n_experts, "top_k": k}
    return _Layer(Reading(score, reason is None), formula, n_experts, k, verdict)


def _dtype(module: nn.Module) -> str:
    first = next(iter(module.parameters()), None)
    return "none" if first is None else str(first.dtype).removeprefix("torch.")
