"""Finding the routers of a transformers model, by what the model itself declares.

A router is an instance of a class named in some `_can_record_outputs["router_logits"]`, or of a sibling class called
`...HashRouter` or `...TopKRouter`. What cannot be read is refused by name, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.sources.errors import SourceError

if TYPE_CHECKING:
    from torch import nn

SIBLING = re.compile(r"(Hash|Top[kK])Router$")
ELSEWHERE = re.compile(r"(^|\.)(self_attn|self_attention|attention|vision\w*|visual|audio\w*)(\.|$)")
SELECTION_BIAS = re.compile(r"(correction|expert|balancing|score|routing|selection)\w*bias")
GROUP_COUNTS = ("num_group", "n_group", "num_expert_group", "num_expert_groups")


@dataclass(frozen=True)
class RouterSite:
    """One router instance: `key` is its module path, `depth` the index of its block in `stack`."""

    key: str
    module: nn.Module
    depth: int
    stack: str

    @property
    def class_name(self) -> str:
        """Name of the router's class."""
        return type(self.module).__name__


def declared_recorders(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """Yield (submodel, its path, recorder) for every declared recorder of router logits; a bare class is a recorder too."""
    for path, submodel in model.named_modules():
        declared = getattr(type(submodel), "_can_record_outputs", None)
        recorders = declared.get("router_logits") if isinstance(declared, dict) else None
        if recorders is None:
            continue
        for recorder in recorders if isinstance(recorders, list | tuple) else [recorders]:
            yield submodel, path, recorder


def _matches(recorder: Any, path: str, module: nn.Module) -> bool:
    if isinstance(recorder, type):
        return isinstance(module, recorder)
    if isinstance(recorder, str):
        return path.endswith(recorder)
    target, class_name = getattr(recorder, "target_class", None), getattr(recorder, "class_name", None)
    hit = (target is not None and isinstance(module, target)) or (class_name is not None and path.endswith(class_name))
    layer_name = getattr(recorder, "layer_name", None)
    return hit and (layer_name is None or f".{layer_name.strip('.')}." in f".{path}.")


def _candidates(model: nn.Module) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    for submodel, prefix, recorder in declared_recorders(model):
        for name, module in submodel.named_modules():
            path = f"{prefix}.{name}".strip(".")
            if _matches(recorder, path, module):
                found[path] = module
    for path, module in model.named_modules():
        if SIBLING.search(type(module).__name__):
            found[path] = module
    return found


def _site(path: str, module: nn.Module) -> RouterSite:
    number = re.search(r"\.(\d+)(\.|$)", path)
    stack = "encoder" if "encoder" in path.split(".") else "decoder"
    return RouterSite(path, module, int(number.group(1)) if number else 0, stack)


def find_routers(model: nn.Module) -> tuple[list[RouterSite], list[str]]:
    """Routers of the feed-forward experts in model order, and the paths of routers left out (attention, vision, audio).

    A recorded block that contains a router (JetMoE's attention, ERNIE-VL's block) stands back for the router inside it.
    Raises SourceError for a model without any.
    """
    found = _candidates(model)
    inner = {path for path in found if not any(other.startswith(path + ".") for other in found)}
    order = [path for path, _ in model.named_modules() if path in inner]
    kept = [path for path in order if not ELSEWHERE.search(path)]
    if not kept:
        seen = sorted({type(module).__name__ for module in model.modules()})
        raise SourceError(f"no router found; modules seen: {', '.join(seen)}. {type(model).__name__} is not a mixture of experts "
                          "that transformers knows; give a model whose class declares _can_record_outputs['router_logits']")
    sites = sorted((_site(path, found[path]) for path in kept), key=lambda site: site.stack != "encoder")
    return sites, [path for path in order if ELSEWHERE.search(path)]


def choose_layers(sites: list[RouterSite], layers: tuple[int, ...] | None) -> list[RouterSite]:
    """Sites whose block index is in `layers` (all, if None); a layer without a router is refused."""
    if layers is None:
        return sites
    there = sorted({site.depth for site in sites})
    missing = sorted(set(layers) - set(there))
    if missing:
        raise SourceError(f"layers: {missing} have no router; the MoE layers of this model are {there}")
    return [site for site in sites if site.depth in layers]


def selects_otherwise(model: nn.Module, site: RouterSite) -> str | None:
    """Why the chosen experts may differ from the top-k of the scores: a correction bias, groups, a hash table; None if they may not.

    A router may say so itself, as `selection_rule`.
    """
    if rule := getattr(site.module, "selection_rule", None):
        return str(rule)
    if "Hash" in site.class_name:
        return "hash of the token id"
    parent = model.get_submodule(site.key.rpartition(".")[0])
    names = [name for owner, recurse in ((site.module, True), (parent, False))
             for kind in (owner.named_buffers, owner.named_parameters) for name, _ in kind(recurse=recurse)]
    biases = sorted(name for name in names if SELECTION_BIAS.search(name))
    groups = [name for name in GROUP_COUNTS if (getattr(site.module, name, None) or getattr(parent, name, None) or 1) > 1]
    if biases and groups:
        return f"{biases[0]} and groups"
    return biases[0] if biases else "groups" if groups else None
