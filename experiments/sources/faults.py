"""A router decision that cannot be true stops the collection, with its place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.trace import LayerMeta
from experiments.sources import TokenDocument
from experiments.sources.errors import RoutingFault
from experiments.sources.inputs import ModelBatch
from experiments.sources.reduction import CHOSEN_TWICE, NOT_FINITE, NOT_NORMALISED, NOT_TOP_K, OUT_OF_RANGE, WEIGHT_NOT_FINITE, LayerColumns

SAYS = {
    NOT_FINITE: "the router logit of expert {expert} is not finite; the weights are damaged or dtype is too narrow (try dtype = 'float32')",
    OUT_OF_RANGE: "expert id {expert}, but the router scores {n} experts{hint}",
    CHOSEN_TWICE: "expert {expert} is chosen twice",
    NOT_TOP_K: "expert {expert} scores higher than a chosen one, and nothing in the router explains it; its output is read wrongly",
    NOT_NORMALISED: "the probabilities sum to something else than 1 by more than rounding; the router's output is read wrongly",
    WEIGHT_NOT_FINITE: "the combine weight of expert {expert} is not finite; try dtype = 'float32'",
}


def raise_on_fault(shard: int, documents: Sequence[TokenDocument], batch: ModelBatch, columns: Sequence[LayerColumns],
                   layers: Sequence[LayerMeta]) -> None:
    """Raise RoutingFault at the first fault, in layer order; the first layer that fails is the one to look at."""
    for column, layer in zip(columns, layers):
        bad = np.flatnonzero(column.fault)
        if not len(bad):
            continue
        row, expert = int(bad[0]), int(column.fault_expert[bad[0]])
        name = next(document.id for document in documents if document.document == batch.document[row])
        hint = " (off by one?)" if expert == layer.n_experts else ""
        says = SAYS[int(column.fault[row])].format(expert=expert, n=layer.n_experts, hint=hint)
        raise RoutingFault(f"shard {shard}: document {name!r} (number {batch.document[row]}), token {batch.position[row]} "
                           f"(id {batch.token_id[row]}), layer {layer.key}, expert {expert}: {says}; {len(bad)} of {len(column.fault)} "
                           "rows of the batch are like it. Nothing of this shard was kept")
