"""Forward passes of llama.cpp, layer after layer, as rows: one per token that every layer routed.

T token (row), L MoE layer, K slot in the top-k.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.trace import TraceBatch
from experiments.readers._recorded import ORDER, asked, layer_list, recorded_meta, shown
from experiments.readers._rows import DocumentTrace, check_ids, document_rows, layer_table
from experiments.readers.contract import ReadError, ReadOptions, Remark


@dataclass(frozen=True)
class Record:
    """What one layer routed of one pass. ids: [tokens recorded, K]; tokens: those of the pass, of which later ones may be missing."""

    where: str
    layer: int
    ids: NDArray[Any]
    tokens: int


def trace_of(path: Path, records: Iterable[Record], options: ReadOptions, collector: str, n_experts: int | None = None) -> DocumentTrace:
    """One document of all passes in order; positions count every token of every pass.

    A pass ends where the layer does not rise. llama.cpp drops tokens of a prompt whose output nobody asked for before the last layer, which
    then routes the last token only: that token is a row, the others are left out and counted. ReadError where passes have different
    layers, numbers of experts per token, or ids beyond the layer.
    """
    passes = list(_passes(records))
    if not passes:
        raise ReadError(f"{path}: it records no pass; record again")
    layers = layer_list(options, max(([one.layer for one in part] for part in passes), key=len), path)
    sizes = {one.ids.shape[1] for part in passes for one in part}
    if len(sizes) > 1:
        raise ReadError(f"{path}: {shown(sorted(sizes))} experts of one token; one trace has one top_k: are these two models?")
    rows, positions, left, incomplete, position = [], [], 0, 0, 0
    for part in passes:
        tokens = max(one.tokens for one in part)
        _same_layers(part, layers)
        found = _rows_of(part, tokens) if len(part) == len(layers) else {}
        incomplete += len(part) < len(layers)
        left += tokens - len(found) if len(part) == len(layers) else 0
        for token, ids in found.items():
            rows.append(ids)
            positions.append(position + token)
        position += tokens
    if not rows:
        raise ReadError(f"{path}: no token that all {len(layers)} layers routed; record again")
    ids_TLK, position_T = np.array(rows), np.array(positions, np.int32)
    known = n_experts if n_experts is not None else options.n_experts
    table = layer_table(layers, asked(known, "n-experts", path, f"highest id {int(ids_TLK.max())}"), sizes.pop(), "blk.{}.ffn_gate_inp")
    for index, layer in enumerate(layers):
        check_ids(ids_TLK[:, index], table[index].n_experts, lambda row, layer=layer: f"{path}: token {position_T[row]}, layer {layer}")  # type: ignore[misc]

    def batch(_first: int, _last: int) -> tuple[TraceBatch, Mapping[str, int]]:
        columns = tuple(np.ascontiguousarray(ids_TLK[:, index]).astype(layer.id_dtype) for index, layer in enumerate(table))
        return TraceBatch(np.zeros(len(rows), np.int32), position_T, None, columns), {}

    domain = options.domain or path.stem
    trace = DocumentTrace(recorded_meta(options, collector, table, {"passes": len(passes)}), document_rows([domain], [domain]),
                          np.array([len(rows)], np.int64), batch)
    counts = (("tokens_without_last_layer", left, "tokens left out, for the last layer did not route them: their output was not asked for"),
              ("incomplete_passes", incomplete, "passes left out, for a layer is missing: was the recorder stopped?"))
    trace.noted = (ORDER, Remark("one_document", "the file does not say where a sequence ends: all of it is one document"),
                   *(Remark(code, words, count) for code, count, words in counts if count))
    return trace


def _passes(records: Iterable[Record]) -> Iterator[list[Record]]:
    part: list[Record] = []
    for one in records:
        if part and one.layer <= part[-1].layer:
            yield part
            part = []
        part.append(one)
    if part:
        yield part


def _same_layers(part: list[Record], layers: tuple[int, ...]) -> None:
    strange = [one for one in part if one.layer not in layers]
    if strange:
        raise ReadError(f"{strange[0].where}: layer {strange[0].layer} is not among {shown(layers)}; are these traces of two models?")


def _rows_of(part: list[Record], tokens: int) -> dict[int, NDArray[Any]]:
    """Token of the pass -> ids [L, K], of tokens that all layers recorded; a layer of one token where others have more has the last."""
    held = [{tokens - 1: 0} if one.tokens == 1 else {token: token for token in range(len(one.ids))} for one in part]
    if any(one.tokens not in (1, tokens) for one in part):
        raise ReadError(f"{part[0].where}: layers of one pass routed {shown(sorted({one.tokens for one in part}))} tokens; record again")
    both = sorted(set.intersection(*(set(one) for one in held)))
    return {token: np.array([one.ids[where[token]] for one, where in zip(part, held)]) for token in both}
