"""Expert ids that an engine captured per token for every hidden layer, dense ones included: dense layers and gaps are not routing.

T token (row), H hidden layer, L MoE layer, K slot in the top-k.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.trace import LayerMeta, TraceBatch
from experiments.readers._recorded import ORDER, asked, recorded_meta, shown
from experiments.readers._rows import DocumentTrace, check_ids, document_rows, layer_table
from experiments.readers.contract import ReadError, ReadOptions, Remark


@dataclass(frozen=True)
class Document:
    """One sequence. ids: integers [T, H, K]; positions: [T]; tokens: their ids [T], or None; its last token, sampled, has no row."""

    where: str
    name: str
    domain: str
    ids: NDArray[Any]
    positions: NDArray[Any]
    tokens: NDArray[Any] | None = None


@dataclass(frozen=True)
class Capture:
    """What an engine leaves where nothing was captured, and what else is known of all documents."""

    collector: str
    empty: int  # id in every slot of a layer that did not route the token
    n_experts: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Remark, ...] = ()


def trace_of(path: Path, documents: Sequence[Document], capture: Capture, options: ReadOptions) -> DocumentTrace:
    """Rows of tokens that every MoE layer routed.

    A layer that is empty throughout is dense and absent. Where ids are zero for empty and top_k is 1, expert 0 throughout could be routing:
    such a layer is left out all the same, with a remark, unless `options.layers` names it. ReadError where shapes differ, and for ids beyond
    the layer or twice in a row.
    """
    shapes = {one.ids.shape[1:] for one in documents}
    if len(shapes) != 1:
        found = ", ".join(str(list(shape)) for shape in sorted(shapes)[:4])
        raise ReadError(f"{path}: documents of [hidden layers, top_k] {found or 'none'}; one trace is of one model: import them apart")
    n_hidden, top_k = shapes.pop()
    if options.top_k not in (None, top_k):
        raise ReadError(f"{path}: top_k is {top_k}, but --top-k says {options.top_k}; leave the option out")
    holes = [(one.ids == capture.empty).all(axis=2) for one in documents]
    empty = np.all([mask.all(axis=0) for mask in holes], axis=0)
    depths = _layers(path, empty, options, certain=top_k > 1 or capture.empty < 0)
    known = capture.n_experts if capture.n_experts is not None else options.n_experts
    n_experts = asked(known, "n-experts", path, f"highest id {max(int(one.ids.max(initial=0)) for one in documents)}")
    layers = layer_table(depths, n_experts, top_k)
    kept, captured, left, total = [], [], 0, 0
    for one, mask in zip(documents, holes):
        whole = ~mask[:, depths].any(axis=1) if top_k > 1 or capture.empty < 0 else np.ones(len(mask), bool)
        left, total = left + int((~whole).sum()), total + len(whole)
        if whole.any():
            captured.append(one)
            kept.append(replace(one, ids=one.ids[whole][:, depths], positions=one.positions[whole],
                                tokens=None if one.tokens is None else one.tokens[whole]))
    if not kept:
        raise ReadError(f"{path}: no token that all of the layers {shown(depths)} routed; record again")
    _check(kept, layers)
    notes = [*capture.notes, *_notes(left, total, len(documents) - len(kept), int(empty.sum()), n_hidden, top_k > 1 or capture.empty < 0)]
    tokens = all(one.tokens is not None for one in kept)
    vocabulary = max(int(one.tokens.max()) + 1 for one in kept if one.tokens is not None) if tokens else 0
    lengths = {str(number): int(one.positions[-1]) + 2 for number, one in enumerate(captured)}
    details = {"document_lengths": lengths, "hidden_layers": n_hidden, "moe_layers_of_model": len(depths),
               "layers_without_routing": [index for index in range(n_hidden) if index not in depths], **capture.details}
    trace = DocumentTrace(recorded_meta(options, capture.collector, layers, details, vocabulary),
                          document_rows([one.name for one in kept], [one.domain for one in kept]), np.array([len(one.ids) for one in kept], np.int64),
                          lambda first, last: (_batch(kept, first, last, layers, tokens), {}))
    trace.noted = tuple(notes)
    return trace


def _layers(path: Path, empty: NDArray[np.bool_], options: ReadOptions, *, certain: bool) -> list[int]:
    if options.layers is None:
        found = [int(index) for index in np.flatnonzero(~empty)]
        if not found:
            raise ReadError(f"{path}: no layer of {len(empty)} captured anything; turn the capture on and record again")
        return found
    outside = [layer for layer in options.layers if not 0 <= layer < len(empty)]
    missing = [layer for layer in options.layers if layer not in outside and empty[layer] and certain]
    more = [index for index in np.flatnonzero(~empty).tolist() if index not in options.layers]
    if outside or missing or more:
        raise ReadError(f"{path}: --layers says {shown(options.layers)}, but of {len(empty)} layers those that captured something are "
                        f"{shown(np.flatnonzero(~empty).tolist())}; correct the option, or is it a trace of another model?")
    return list(options.layers)


def _check(documents: Sequence[Document], layers: Sequence[LayerMeta]) -> None:
    for one in documents:
        for index, layer in enumerate(layers):
            check_ids(one.ids[:, index], layer.n_experts, lambda row, one=one, layer=layer:  # type: ignore[misc]
                      f"{one.where}: token {int(one.positions[row])}, layer {layer.depth}")


def _notes(left: int, total: int, lost: int, n_empty: int, n_hidden: int, certain: bool) -> list[Remark]:
    words = "layers that captured nothing, taken for dense and left out"
    if not certain:
        words = "layers in which every id is 0, taken for dense and left out; if expert 0 was chosen throughout, name the layer with --layers"
    found = [ORDER]
    if n_empty:
        found.append(Remark("layers_without_routing", words, n_empty, n_empty / n_hidden))
    if left:
        found.append(Remark("tokens_not_captured", "tokens left out, for some layer captured nothing of them (cached, padded)", left, left / total))
    if lost:
        found.append(Remark("documents_without_tokens", "documents left out, for no token of them was captured whole", lost))
    return found


def _batch(documents: Sequence[Document], first: int, last: int, layers: Sequence[LayerMeta], tokens: bool) -> TraceBatch:
    chosen = documents[first:last]
    number = np.repeat(np.arange(first, last, dtype=np.int32), [len(one.ids) for one in chosen])
    position = np.concatenate([one.positions for one in chosen]).astype(np.int32)
    token_id = np.concatenate([one.tokens for one in chosen if one.tokens is not None]).astype(np.int32) if tokens else None
    ids = tuple(np.concatenate([one.ids[:, index] for one in chosen]).astype(layer.id_dtype) for index, layer in enumerate(layers))
    return TraceBatch(number, position, token_id, ids)


def decoded(text: str, where: str) -> bytes:
    """Bytes of base64. ReadError for other text."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ReadError(f"{where}: field routed_experts: not base64 ({error}); was the response cut?") from error


def token_list(found: Any, where: str, field: str) -> NDArray[np.int64] | None:
    """Token ids as an array; None where the source has none. ReadError for what is no id."""
    if found is None:
        return None
    if not isinstance(found, list) or not all(type(one) is int and 0 <= one < 2**31 - 1 for one in found):
        raise ReadError(f"{where}: field {field}: {str(found)[:40]}, expected token ids")
    return np.array(found, np.int64)
