"""What a batch must be before it becomes a shard: each fault is named by shard, document, position and layer.

T token (row), L MoE layer, K slot in the top-k.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.trace import LayerMeta, TraceBatch, TraceError, TraceMeta

SLACK = 1e-3  # of float32 sums over many experts, and of float16 weights


def check_batch(where: str, batch: TraceBatch, meta: TraceMeta) -> None:
    """Raise TraceError where a value of `batch` cannot be a routing of `meta`; `where` names the shard."""
    n_rows = len(batch.document)
    for name, column in (("document", batch.document), ("position", batch.position), ("token_id", batch.token_id)):
        if column is None:
            continue
        if column.shape != (n_rows,) or column.dtype != np.int32:
            raise TraceError(f"{where}: column {name}: {column.dtype} {list(column.shape)}, expected int32 [{n_rows}]")
    _check_tokens(where, batch, meta.vocabulary_size)
    for name in ("ids", "weights", "dropped"):
        column = getattr(batch, name)
        if column is not None and len(column) != len(meta.layers):
            raise TraceError(f"{where}: column {name}: {len(column)} layers, the meta has {len(meta.layers)}")
    for index, layer in enumerate(meta.layers):
        _check_ids(where, batch, index, layer)
        _check_weights(where, batch, index, layer)
        _check_dropped(where, batch, index, layer)
    for name in ("entropy_nats", "simpson", "top1_prob"):
        _check_reals(where, batch, name, meta.layers)


def _at(where: str, batch: TraceBatch, row: int, layer: LayerMeta) -> str:
    return f"{where}: document {batch.document[row]}, position {batch.position[row]}, layer {layer.key}"


def _first(mask: Any) -> int:
    return int(np.flatnonzero(mask)[0])


def _check_tokens(where: str, batch: TraceBatch, vocabulary_size: int) -> None:
    if (batch.position < 0).any():
        row = _first(batch.position < 0)
        raise TraceError(f"{where}: document {batch.document[row]}: position {batch.position[row]}; positions count from 0")
    if batch.token_id is None:
        return
    outside = (batch.token_id < 0) | (batch.token_id >= vocabulary_size)
    if outside.any():
        row = _first(outside)
        raise TraceError(f"{where}: document {batch.document[row]}, position {batch.position[row]}: token_id {batch.token_id[row]}, but "
                         f"the vocabulary has {vocabulary_size} types; correct TraceMeta.vocabulary_size, or tokenise as the model does")


def check_positions(where: str, batch: TraceBatch) -> None:
    """Raise TraceError where a batch ordered by document and position has one position twice."""
    same = (batch.document[1:] == batch.document[:-1]) & (batch.position[1:] == batch.position[:-1])
    if same.any():
        row = _first(same)
        raise TraceError(f"{where}: document {batch.document[row]} has position {batch.position[row]} twice; a token is counted once")


def _check_ids(where: str, batch: TraceBatch, index: int, layer: LayerMeta) -> None:
    ids = batch.ids[index]
    if ids.shape != (len(batch), layer.top_k) or ids.dtype.kind not in "ui":
        raise TraceError(f"{where}: layer {layer.key}: ids are {ids.dtype} {list(ids.shape)}, "
                         f"expected integers [{len(batch)}, {layer.top_k}]")
    bad = (ids < 0) | (ids >= layer.n_experts)
    if bad.any():
        row = _first(bad.any(axis=1))
        value = int(ids[row][bad[row]][0])
        hint = "; off by one?" if int(ids.max()) == layer.n_experts else ""
        raise TraceError(f"{_at(where, batch, row, layer)}: expert id {value}, but the layer has {layer.n_experts} experts{hint}; "
                         "correct n_experts, or collect again")
    if layer.top_k > 1:
        ordered = np.sort(ids, axis=1)
        twice = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
        if twice.any():
            row = _first(twice)
            raise TraceError(f"{_at(where, batch, row, layer)}: the same expert twice in one top-{layer.top_k}: {ids[row].tolist()}; "
                             "collect again")


def _check_weights(where: str, batch: TraceBatch, index: int, layer: LayerMeta) -> None:
    if batch.weights is None:
        return
    weights = batch.weights[index]
    if weights.shape != (len(batch), layer.top_k) or weights.dtype != np.float16:
        raise TraceError(f"{where}: layer {layer.key}: weights are {weights.dtype} {list(weights.shape)}, "
                         f"expected float16 [{len(batch)}, {layer.top_k}]")
    bad = ~np.isfinite(weights).all(axis=1)
    if bad.any():
        row = _first(bad)
        raise TraceError(f"{_at(where, batch, row, layer)}: weights {weights[row].tolist()} are not finite; "
                         "the model overflowed (try dtype float32), or its checkpoint is damaged")


def _check_dropped(where: str, batch: TraceBatch, index: int, layer: LayerMeta) -> None:
    dropped = None if batch.dropped is None else batch.dropped[index]
    if dropped is None:
        return
    if dropped.shape != (len(batch),) or dropped.dtype != np.uint8:
        raise TraceError(f"{where}: layer {layer.key}: dropped is {dropped.dtype} {list(dropped.shape)}, expected uint8 [{len(batch)}]")
    bad = dropped >= (1 << min(layer.top_k, 8))
    if layer.top_k < 8 and bad.any():
        row = _first(bad)
        raise TraceError(f"{_at(where, batch, row, layer)}: dropped mask {int(dropped[row])} has bits beyond slot {layer.top_k - 1}")


def _check_reals(where: str, batch: TraceBatch, name: str, layers: Sequence[LayerMeta]) -> None:
    values: NDArray[Any] | None = getattr(batch, name)
    if values is None:
        return
    if values.shape != (len(layers), len(batch)) or values.dtype != np.float32:
        raise TraceError(f"{where}: column {name}: {values.dtype} {list(values.shape)}, expected float32 [{len(layers)}, {len(batch)}]")
    highest = np.array([np.log(layer.n_experts) if name == "entropy_nats" else 1.0 for layer in layers])
    bad = ~((values >= -SLACK) & (values <= highest[:, None] + SLACK))
    if bad.any():
        layer, row = (int(index[0]) for index in np.nonzero(bad))
        value = values[layer, row]
        reason = (f"outside [0, {highest[layer]:.4g}]; entropies are in nats" if np.isfinite(value)
                  else "not finite; the router's logits were NaN or infinite: try dtype float32, or check the checkpoint")
        raise TraceError(f"{_at(where, batch, row, layers[layer])}: {name} {value}: {reason}")
