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
from experiments.evaluation_files import plain
from experiments.stages.context import Context
from tracking.atomic import write_bytes, write_json

if TYPE_CHECKING:
    from analysis.metrics.fastpath import LayerTable as Rows
    from experiments.sources import TokenDocument
    from experiments.sources.lookup_routing import LayerTable, Losses

HYPOTHESIS = "var"


@dataclass(frozen=True)
class Lookup:
    """The table of every layer, and which types it covers: eligible bool [V] per layer."""

    tables: Mapping[int, LayerTable]
    eligible: Mapping[int, NDArray[np.bool_]]

    @property
    def covered(self) -> list[int]:
        """Layers in which some type is eligible."""
        return [layer for layer, types in self.eligible.items() if types.any()]


def run(context: Context) -> dict[str, Any]:
    """Measure held-out loss with the router, and with a table in its place: in all layers, in each alone, and a random table.

    Done for the table at the declared thresholds, and, as exploration, for the one at the point that the sweep chose.
    """
    from experiments.sources.errors import SourceError

    directory = context.directory / "fastpath"
    directory.mkdir(exist_ok=True)
    lookups = {"declared thresholds": _declared(context)}
    write_bytes(directory / "lookup_table.npz", _packed(lookups["declared thresholds"]))
    chosen = context.read_json("sweep/sweep.json").get("chosen")
    if chosen:
        lookups["swept thresholds"] = _swept(context, chosen)
    empty = [f"{name}: no token type is eligible in any layer, so the table is empty and changes nothing"
             for name, lookup in lookups.items() if not lookup.covered]
    usable = {name: lookup for name, lookup in lookups.items() if lookup.covered}
    try:
        effect = _measured(context, usable) if usable else {"variants": []}
    except SourceError as error:
        effect, empty = {"variants": []}, [*empty, str(error)]
    write_json(directory / "effect.json", plain({"measured": bool(effect["variants"]), "reason": "; ".join(empty) or None, **effect}))
    return {"variants": len(effect["variants"])}


def _measured(context: Context, lookups: Mapping[str, Lookup]) -> dict[str, Any]:
    from experiments.sources.errors import SourceError

    documents = _documents(context)
    if not documents:
        raise SourceError("there is no test document to measure a loss on")
    baseline = _timed(context, documents, twice=True)
    tokens = int(baseline.n_tokens.sum())
    variants = [one for name, lookup in lookups.items() for one in _variants(context, name, lookup, (documents, baseline))]
    return {"documents": len(documents), "tokens": tokens, "baseline_loss_nats": float(baseline.loss_sum.sum()) / max(tokens, 1),
            "baseline_seconds": baseline.seconds, "variants": variants}


def _documents(context: Context) -> list[TokenDocument]:
    """The first test documents by hash, as many as declared; ordered so that jackknife groups are dealt at random."""
    from experiments.collection import routed_documents

    source = context.source  # refused first where there is no model
    test = [one for one in routed_documents(context.corpus, source) if one.split == "test"]
    salt = str(context.experiment.seed)
    ordered = sorted(test, key=lambda one: hashlib.sha256(f"{one.id}\0{salt}".encode()).digest())
    return ordered[:context.experiment.fastpath.n_documents]


def _declared(context: Context) -> Lookup:
    """The evaluation's table in the model's own scale of weights."""
    from analysis.metrics.fastpath import LayerTable as Rows

    rows = evaluation_files.load(context.directory / "analysis" / HYPOTHESIS).tables["fastpath_table"]
    columns = {name: np.asarray(rows[name]) for name in ("layer", "token_id", "slot", "expert", "weight")}
    tables = []
    for layer, of in enumerate(context.trace.meta.layers):
        mine = np.flatnonzero(columns["layer"] == layer)
        mine = mine[np.lexsort((columns["slot"][mine], columns["token_id"][mine]))]
        shape = (-1, of.top_k)
        types = columns["token_id"][mine].astype(np.int64).reshape(shape)[:, 0]
        tables.append(Rows(types, columns["expert"][mine].astype(np.int64).reshape(shape), columns["weight"][mine].astype(float).reshape(shape)))
    return _scaled(context, tables)


def _swept(context: Context, point: Mapping[str, Any]) -> Lookup:
    """The table at the sweep's point; slots beyond its table size keep the next experts with weight 0."""
    from dataclasses import replace

    from analysis.metrics.fastpath import eligible, lookup_tables
    from experiments.stages.sweep import calibration_counts

    counts = calibration_counts(context)
    limits = point["max_entropy"] * np.log([layer.n_experts for layer in counts.layers])
    tables = []
    for table in lookup_tables(counts, eligible(counts, point["min_count"], limits)):
        weights = np.where(np.arange(table.weights.shape[1]) < point["table_k"], table.weights, 0.0)
        tables.append(replace(table, weights=weights / weights.sum(axis=1, keepdims=True)))
    return _scaled(context, tables)


def _scaled(context: Context, rows: Sequence[Rows]) -> Lookup:
    """Tables over the whole vocabulary, weights in the model's own scale."""
    from experiments.sources.lookup_routing import LayerTable

    size, scale = context.trace.meta.vocabulary_size, mean_weight_sum(context.trace)
    tables, eligible = {}, {}
    for layer, (table, of) in enumerate(zip(rows, context.trace.meta.layers)):
        ids, weights = np.zeros((size, of.top_k), np.int64), np.zeros((size, of.top_k), np.float32)
        ids[table.types], weights[table.types] = table.experts, table.weights * scale[layer]
        eligible[layer] = np.zeros(size, bool)
        eligible[layer][table.types] = True
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


Reference = tuple[Sequence["TokenDocument"], "Losses"]


def _variants(context: Context, name: str, lookup: Lookup, reference: Reference) -> list[dict[str, Any]]:
    experts = [layer.n_experts for layer in context.trace.meta.layers]
    shuffled = random_lookup(lookup, experts, generator(context.experiment.seed, "random_lookup_table"))
    asked = [("all layers", lookup, lookup.covered), ("random table, all layers", shuffled, lookup.covered)]
    if len(lookup.covered) > 1:
        asked += [(f"layer {layer} alone", lookup, [layer]) for layer in lookup.covered]
    return [_variant(context, f"{name}, {what}", chosen, layers, reference) for what, chosen, layers in asked]


def _timed(context: Context, documents: Sequence[TokenDocument], *, twice: bool) -> Losses:
    """Losses, the second time round where the wall time is to be shown: the first makes kernels for new shapes."""
    from experiments.sources.lookup_routing import measure_losses

    first = measure_losses(context.source, documents, context.progress)
    return measure_losses(context.source, documents, context.progress) if twice else first


def _variant(context: Context, name: str, lookup: Lookup, layers: Sequence[int],
             reference: Reference) -> dict[str, Any]:
    from experiments.sources.lookup_routing import replace_routers

    documents, baseline = reference
    alone = len(layers) < len(lookup.covered)
    with replace_routers(context.source, {layer: lookup.tables[layer] for layer in layers},
                         {layer: lookup.eligible[layer] for layer in layers}) as calls:
        losses = _timed(context, documents, twice=not alone)
    change = loss_change(losses.loss_sum, baseline.loss_sum, baseline.n_tokens, level=context.experiment.uncertainty.level)
    passes = 1 if alone else 2
    received, looked_up = sum(calls.received.values()) // passes, sum(calls.looked_up.values()) // passes
    every = (received + looked_up) / len(layers) * len(context.trace.meta.layers)
    return {"name": name, "layers": list(layers), "loss_change": change.to_json(), "router_rows_evaluated": received,
            "router_rows_looked_up": looked_up, "share_saved": looked_up / every if every else None,
            "share_saved_of_these_layers": calls.share_saved, "seconds": None if alone else losses.seconds, "baseline_seconds": baseline.seconds}


def _packed(lookup: Lookup) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, NDArray[Any]] = {}
    for layer, table in lookup.tables.items():
        types = np.flatnonzero(lookup.eligible[layer])
        arrays |= {f"types_{layer:03d}": types, f"experts_{layer:03d}": table.ids[types], f"weights_{layer:03d}": table.weights[types]}
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
