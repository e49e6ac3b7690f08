"""Routing that ESFT published of DeepSeek-V2-Lite, one `.npz` per task: expert ids and softmax probabilities, no token ids.

L MoE layer, T token, K slot in the top-k, D document.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.trace import DocumentRow, LayerMeta, TraceBatch, TraceMeta
from experiments.readers import _npz
from experiments.readers.contract import SPLIT, UNKNOWN, ReadError, ReadOptions, Remark

NAME, KIND = "esft", "rows"

FIELDS = {"expert_ids": (3, "uint8 [layers, tokens, k]"), "weight_e4": (3, "uint16 [layers, tokens, k], probability x 10^4"),
          "doc_len": (1, "int32 [documents]"), "layers": (1, "block indices [layers]")}
MODEL = "deepseek-ai/ESFT-vanilla-lite"
MOE_LAYERS = 26  # of its 27 blocks; the first is dense
N_EXPERTS = 64  # routed experts of DeepSeek-V2-Lite; its two shared ones are always on and are not in the files
WEIGHT_SCALE = 1e4
WEIGHT_SLACK = 1e-3  # six numbers rounded to four decimals
ROWS_PER_BATCH = 65_536


def recognises(path: Path) -> bool:
    """An .npz whose members are named as ESFT's are."""
    return set(FIELDS) <= _npz.fields(path)


def read(path: Path, options: ReadOptions) -> EsftTrace:
    """The trace of one task; its domain is the file's name unless `options` say otherwise."""
    return EsftTrace(path, domain=options.domain, n_experts=options.n_experts or N_EXPERTS, model=options.model or MODEL)


class EsftTrace:
    """One task; every sequence is a document of one domain.

    The file keeps the k choices unsorted: slots are put by falling weight, ties by the lower id. Weights are probabilities of the full
    softmax that are not renormalised over the k chosen, so that neither routing entropy nor token types can be had from it. Sequences
    of a task begin with one chat template: its rows are there, and are alike in all of them.
    """

    def __init__(self, path: Path, *, domain: str | None = None, n_experts: int = N_EXPERTS, model: str = MODEL) -> None:
        """Read and check a file. ReadError names file, field, place and remedy."""
        self.path, self._domain = path, domain or path.stem
        columns = _read(path)
        self._ids, self._weights, self._lengths = columns["expert_ids"], columns["weight_e4"], columns["doc_len"].astype(np.int64)
        _check(path, columns, n_experts)
        self._starts = np.concatenate([[0], np.cumsum(self._lengths)])
        layers = tuple(LayerMeta(f"model.layers.{block}.mlp.gate", int(block), "decoder", n_experts, self._ids.shape[2])
                       for block in columns["layers"])
        self.meta = TraceMeta(
            model, UNKNOWN, layers, "softmax", "absent", "softmax probability of the chosen, not renormalised",
            "absent", 0, "assay-esft 1",
            details={"weights_decimals": 4, "absent": ["token_id", "entropy_nats"],
                     **({"moe_layers_of_model": MOE_LAYERS} if model == MODEL else {})})

    @property
    def documents(self) -> Sequence[DocumentRow]:
        """One per sequence, in file order."""
        return tuple(DocumentRow(number, f"{self._domain}/{number:05d}", self._domain, SPLIT) for number in range(len(self._lengths)))

    @property
    def remarks(self) -> Sequence[Remark]:
        """How the choices were ordered."""
        return (Remark("sorted_by_weight", "the file keeps a token's choices in no order: put by falling weight, ties by the lower id"),)

    def batches(self, *, after: int = -1) -> Iterator[tuple[int, TraceBatch]]:
        """Whole documents, about 65,536 rows at a time."""
        first, number = 0, 0
        while first < len(self._lengths):
            last = int(np.searchsorted(self._starts, self._starts[first] + ROWS_PER_BATCH, side="right")) - 1
            last = min(max(last, first + 1), len(self._lengths))
            if number > after:
                yield number, self._rows(first, last)
            first, number = last, number + 1

    def _rows(self, first: int, last: int) -> TraceBatch:
        rows = slice(int(self._starts[first]), int(self._starts[last]))
        document = np.repeat(np.arange(first, last, dtype=np.int32), self._lengths[first:last])
        position = (np.arange(rows.start, rows.stop) - self._starts[document]).astype(np.int32)
        ids, weights = zip(*(_by_weight(self._ids[layer, rows], self._weights[layer, rows]) for layer in range(len(self.meta.layers))))
        return TraceBatch(document, position, None, tuple(ids), tuple(weights))


def _by_weight(ids: NDArray[Any], weights: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float16]]:
    order = np.lexsort((ids, -weights.astype(np.int64)), axis=1)
    sorted_ids, sorted_weights = (np.take_along_axis(column, order, axis=1) for column in (ids, weights))
    return sorted_ids, (sorted_weights / WEIGHT_SCALE).astype(np.float16)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    with _npz.Archive(path) as archive:
        columns = archive.arrays([name for name in FIELDS if name in archive.headers])
    for name, (dimensions, words) in FIELDS.items():
        if name not in columns:
            raise ReadError(f"{path}: field {name}: absent; an ESFT trace has {name}: {words}")
        if columns[name].ndim != dimensions or columns[name].dtype.kind not in "iu":
            raise ReadError(f"{path}: field {name}: {columns[name].dtype} {list(columns[name].shape)}, expected {words}")
    return columns


def _check(path: Path, columns: dict[str, NDArray[Any]], n_experts: int) -> None:
    ids, weights, lengths, layers = (columns[name] for name in ("expert_ids", "weight_e4", "doc_len", "layers"))
    if ids.shape != weights.shape:
        raise ReadError(f"{path}: field weight_e4: {list(weights.shape)}, but expert_ids is {list(ids.shape)}; export both from one run")
    if len(layers) != len(ids):
        raise ReadError(f"{path}: field layers: {len(layers)} entries for {len(ids)} layers of expert_ids; name every layer")
    if (lengths < 1).any() or int(lengths.sum()) != ids.shape[1]:
        raise ReadError(f"{path}: field doc_len: lengths of at least 1 that sum to {ids.shape[1]} tokens are needed, "
                         f"they sum to {int(lengths.sum())} (least {int(lengths.min(initial=0))}); export the sequences again")
    if ids.shape[2] > n_experts:
        raise ReadError(f"{path}: field expert_ids: {ids.shape[2]} choices of {n_experts} experts; correct n_experts")
    ends = np.cumsum(lengths)
    for index, block in enumerate(layers.tolist()):
        ordered = np.sort(ids[index].astype(np.int64), axis=1)
        total = weights[index].astype(np.int64).sum(axis=1) / WEIGHT_SCALE
        for bad, words in (((ordered[:, 0] < 0) | (ordered[:, -1] >= n_experts), f"an expert id outside 0..{n_experts - 1}; correct n_experts"),
                           ((np.diff(ordered, axis=1) == 0).any(axis=1), "one expert twice among a token's choices; export the layer again"),
                           (total > 1 + WEIGHT_SLACK, "probabilities that sum to more than 1; weight_e4 is the probability x 10^4")):
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                document = int(np.searchsorted(ends, row, side="right"))
                field = "weight_e4" if "sum" in words else "expert_ids"
                token = row - int(ends[document] - lengths[document])
                raise ReadError(f"{path}: field {field}: layer {block}, sequence {document}, token {token}: {words}")
