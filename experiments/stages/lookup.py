"""Lookup: the fast-path table as an artefact, and what it really does when it stands in for the router.

L MoE layer, V token type, K slot, D document.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.metrics.loss_change import loss_change
from analysis.resampling import generator
from analysis.trace import RoutingTrace
from experiments import evaluation_files
from experiments.stages.context import Context
from tracking.atomic import write_bytes, write_json

if TYPE_CHECKING:
    from experiments.sources import TokenDocument
    from experiments.sources.lookup_routing import LayerTable, Losses

HYPOTHESIS = "var"


@dataclass(frozen=True)
class Lookup:
    """The table of every layer, and which types it covers: eligible bool [V] per layer."""

    tables: Mapping[int, LayerTable]
    eligible: Mapping[int, NDArray[np.bool_]]


def run(context: Context) -> dict[str, Any]:
    """Measure held-out loss with the router, with the table in all layers, in each alone, and with a random table."""
    from experiments.sources.errors import SourceError
    from experiments.sources.lookup_routing import measure_losses

    directory = context.directory / "fastpath"
    directory.mkdir(exist_ok=True)
    lookup = _lookup(context)
    write_bytes(directory / "lookup_table.npz", _packed(lookup))
    covered = [layer for layer, types in lookup.eligible.items() if types.any()]
    if not covered:
        return _refused(context, "no token type is eligible in any layer, so the table is empty and changes nothing")
    documents = _documents(context)
    try:
        baseline = measure_losses(context.source, documents, context.progress)
        variants = _variants(context, lookup, covered, documents, baseline)
    except SourceError as error:
        return _refused(context, str(error))
    tokens = int(baseline.n_tokens.sum())
    effect = {"measured": True, "documents": len(documents), "tokens": tokens, "baseline_loss_nats": float(baseline.loss_sum.sum()) / max(tokens, 1),
              "baseline_seconds": baseline.seconds, "variants": variants}
    write_json(directory / "effect.json", evaluation_files.plain(effect))
    return {"variants": len(variants)}


def _refused(context: Context, reason: str) -> dict[str, Any]:
    write_json(context.directory / "fastpath" / "effect.json", {"measured": False, "reason": reason, "variants": []})
    return {"variants": 0}


def _documents(context: Context) -> list[TokenDocument]:
    """The first test documents by hash, as many as declared; ordered so that jackknife groups are dealt at random."""
    from experiments.collection import routed_documents

    test = [one for one in routed_documents(context.corpus, context.source) if one.split == "test"]
    salt = str(context.experiment.seed)
    ordered = sorted(test, key=lambda one: hashlib.sha256(f"{one.id}\0{salt}".encode()).digest())
    return ordered[:context.experiment.fastpath.n_documents]


def _lookup(context: Context) -> Lookup:
    """The evaluation's table in the model's own scale of weights."""
    from experiments.sources.lookup_routing import LayerTable

    rows = evaluation_files.load(context.directory / "analysis" / HYPOTHESIS).tables["fastpath_table"]
    meta, scale = context.trace.meta, mean_weight_sum(context.trace)
    tables, eligible = {}, {}
    for layer, of in enumerate(meta.layers):
        mine = np.flatnonzero(np.asarray(rows["layer"]) == layer)
        types = np.asarray(rows["token_id"])[mine].astype(np.int64)
        ids = np.zeros((meta.vocabulary_size, of.top_k), np.int64)
        weights = np.zeros((meta.vocabulary_size, of.top_k), np.float32)
        slot = np.asarray(rows["slot"])[mine].astype(np.int64)
        ids[types, slot] = np.asarray(rows["expert"])[mine]
        weights[types, slot] = np.asarray(rows["weight"])[mine] * scale[layer]
        eligible[layer] = np.zeros(meta.vocabulary_size, bool)
        eligible[layer][types] = True
        tables[layer] = LayerTable(ids, weights)
    return Lookup(tables, eligible)


def mean_weight_sum(trace: RoutingTrace) -> NDArray[np.float64]:
    """Mean over calibration tokens of a layer's summed combine weights [L]: 1 where the model renormalises, less or more elsewhere."""
    total, rows = np.zeros(len(trace.meta.layers)), 0
    for batch in trace.batches(split="calibration"):
        if batch.weights is None:
            return np.ones_like(total)
        total += [weights.astype(np.float64).sum() for weights in batch.weights]
        rows += len(batch)
    return total / rows if rows else np.ones_like(total)


def random_lookup(lookup: Lookup, n_experts: Sequence[int], rng: np.random.Generator) -> Lookup:
    """The same types and weights, with experts drawn at random without replacement: what a table without knowledge does."""
    from experiments.sources.lookup_routing import LayerTable

    tables = {}
    for layer, table in lookup.tables.items():
        order = np.argsort(rng.random((len(table.ids), n_experts[layer])), axis=1)[:, :table.ids.shape[1]]
        tables[layer] = LayerTable(order, table.weights)
    return Lookup(tables, lookup.eligible)


def _variants(context: Context, lookup: Lookup, covered: Sequence[int], documents: Sequence[TokenDocument],
              baseline: Losses) -> list[dict[str, Any]]:
    experts = [layer.n_experts for layer in context.trace.meta.layers]
    shuffled = random_lookup(lookup, experts, generator(context.experiment.seed, "random_lookup_table"))
    asked = [("all layers", lookup, covered), ("random table, all layers", shuffled, covered)]
    if len(covered) > 1:
        asked += [(f"layer {layer} alone", lookup, [layer]) for layer in covered]
    return [_variant(context, name, chosen, layers, (documents, baseline)) for name, chosen, layers in asked]


def _variant(context: Context, name: str, lookup: Lookup, layers: Sequence[int],
             reference: tuple[Sequence[TokenDocument], Losses]) -> dict[str, Any]:
    from experiments.sources.lookup_routing import measure_losses, replace_routers

    documents, baseline = reference
    with replace_routers(context.source, {layer: lookup.tables[layer] for layer in layers},
                         {layer: lookup.eligible[layer] for layer in layers}) as calls:
        losses = measure_losses(context.source, documents, context.progress)
    change = loss_change(losses.loss_sum, baseline.loss_sum, baseline.n_tokens, level=context.experiment.uncertainty.level)
    received, looked_up = sum(calls.received.values()), sum(calls.looked_up.values())
    every = (received + looked_up) / len(layers) * len(context.trace.meta.layers)
    return {"name": name, "layers": list(layers), "loss_change": change.to_json(), "router_rows_evaluated": received,
            "router_rows_looked_up": looked_up, "share_saved": looked_up / every if every else None,
            "share_saved_of_these_layers": calls.share_saved, "seconds": losses.seconds, "baseline_seconds": baseline.seconds}


def _packed(lookup: Lookup) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, NDArray[Any]] = {}
    for layer, table in lookup.tables.items():
        types = np.flatnonzero(lookup.eligible[layer])
        arrays |= {f"types_{layer:03d}": types, f"experts_{layer:03d}": table.ids[types], f"weights_{layer:03d}": table.weights[types]}
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
