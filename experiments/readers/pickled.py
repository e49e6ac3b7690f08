"""Pickled traces of seeds 000 and 001, `robust_traces.pkl`: a list with one record per layer of a sample, as mappings or GatingDataPoint.

T token (row), L MoE layer, E expert, K slot in the top-k.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.trace import LayerMeta, TraceBatch, TraceMeta
from experiments.readers import _pickles
from experiments.readers._recorded import shown
from experiments.readers._rows import DocumentTrace, added, by_weight, check_ids, document_rows, layer_table
from experiments.readers.contract import UNKNOWN, ReadError, ReadOptions, Remark

NAME, KIND = "pickled", "rows"
FIELDS = ("layer_id", "target_routing", "target_top_k", "sample_id")
DROPPED = ("hidden_states", "input_embeddings", "prev_layer_gates", "prev_layer_routing", "attention_scores", "routing_history")
SUFFIX = re.compile(r"(.*)_layer_(\d{1,5})", re.DOTALL)
SUM_SLACK = 0.02  # 128 probabilities in float16
TIE = 1e-3  # between probabilities that float16 no longer tells apart
MATRIX = 2  # dimensions


@dataclass(frozen=True)
class Record:
    """One layer of a sample: probabilities [T, E], ids [T, K] and, where kept, token ids [T]; without padding."""

    where: str
    layer: int
    document: str
    domain: str
    routing: NDArray[Any]
    chosen: NDArray[Any]
    tokens: NDArray[Any] | None
    padded: int


def recognises(path: Path) -> bool:
    """A pickle that names the fields of a record; it is not unpickled for that."""
    return path.is_file() and _pickles.is_pickle(path) and _pickles.names(path, FIELDS)


def read(path: Path, options: ReadOptions) -> DocumentTrace:
    """A document is a sample: its records of all layers. Its domain is `dataset_name`, else its id without the last part.

    The id is `sample_id` without `_layer_N`. Only samples that have every layer are rows: the set of layers is the largest that a sample has.
    Rows beyond `sequence_length` are padding and left out. Entropy, Simpson index and top probability are of `target_routing`, the softmax
    over all experts.
    """
    content = _pickles.values(path, "pickle", DROPPED)
    every = content if isinstance(content, list) else [content]
    records = [_record(f"{path}: record {index}", one, options) for index, one in enumerate(every)]
    if not records:
        raise ReadError(f"{path}: no record in it; collect again")
    kept, notes = _samples(records)
    first = next(iter(kept.values()))
    depths = sorted(first)
    sizes = {(one.routing.shape[1], one.chosen.shape[1]) for parts in kept.values() for one in parts.values()}
    if len(sizes) > 1:
        raise ReadError(f"{path}: records of (experts, top_k) {sorted(sizes)}; one trace is of one model: import them apart")
    n_experts, top_k = sizes.pop()
    for name, said, found in (("n-experts", options.n_experts, n_experts), ("top-k", options.top_k, top_k)):
        if said not in (None, found):
            raise ReadError(f"{path}: --{name} says {said}, but the records have {found}; leave the option out")
    layers = layer_table(depths, n_experts, top_k, "layer.{}")
    samples = [[kept[name][depth] for depth in depths] for name in kept]
    lengths = np.array([_length(parts) for parts in samples], np.int64)
    tokens = all(parts[0].tokens is not None for parts in samples)
    vocabulary = max(int(parts[0].tokens.max()) + 1 for parts in samples if parts[0].tokens is not None) if tokens else 0
    meta = TraceMeta(options.model or UNKNOWN, UNKNOWN, layers, "softmax", "softmax_logits", "softmax probability of the chosen, not renormalised",
                     "absent", vocabulary, f"assay-{NAME} 1", details={"absent": [] if tokens else ["token_id"]})
    trace = DocumentTrace(meta, document_rows(list(kept), [parts[0].domain for parts in samples]), lengths,
                          lambda first, last: _rows(samples, first, last, layers, tokens))
    trace.noted = tuple(notes)
    return trace


def _record(where: str, one: Any, options: ReadOptions) -> Record:
    if not isinstance(one, dict) or not all(name in one for name in FIELDS):
        missing = [name for name in FIELDS if not isinstance(one, dict) or name not in one]
        raise ReadError(f"{where}: field {', '.join(missing)}: absent; a record has {', '.join(FIELDS)}")
    layer, sample = one["layer_id"], one["sample_id"]
    if type(layer) is not int or not 0 <= layer < 10_000 or not isinstance(sample, str) or not sample:
        raise ReadError(f"{where}: layer_id {str(layer)[:40]!r}, sample_id {str(sample)[:40]!r}: expected a number and a name; collect again")
    document, _, domain = _names(where, layer, sample, one.get("dataset_name"), options.domain)
    routing, chosen = (_matrix(where, name, one[name], kinds) for name, kinds in (("target_routing", "f"), ("target_top_k", "iu")))
    if len(routing) != len(chosen):
        raise ReadError(f"{where}: field target_top_k: {len(chosen)} rows, but target_routing has {len(routing)}; collect again")
    length = one.get("sequence_length")
    length = len(routing) if length is None or length == 0 else length
    if type(length) is not int or not 1 <= length <= len(routing):
        raise ReadError(f"{where}: field sequence_length: {str(length)[:40]}, but there are {len(routing)} rows; collect again")
    tokens = one.get("token_ids")
    if tokens is not None:
        tokens = _vector(where, tokens, length)
    return Record(where, layer, document, domain, routing[:length], chosen[:length], tokens, len(routing) - length)


def _names(where: str, layer: int, sample: str, dataset: Any, domain: str | None) -> tuple[str, int, str]:
    match = SUFFIX.fullmatch(sample)
    if match and int(match[2]) != layer:
        raise ReadError(f"{where}: field layer_id: {layer}, but sample_id is {sample[:60]!r}; collect again")
    document = match[1] if match else sample
    if domain is None:
        domain = dataset if isinstance(dataset, str) and dataset and dataset != "unknown" else document.rpartition("_")[0] or document
    return document, layer, domain


def _matrix(where: str, name: str, found: Any, kinds: str) -> NDArray[Any]:
    if isinstance(found, np.ndarray) and found.ndim == MATRIX + 1 and len(found) == 1:
        found = found[0]  # a batch of one
    if isinstance(found, np.ndarray) and found.ndim == 1 and name == "target_top_k":
        found = found[:, None]
    if not isinstance(found, np.ndarray) or found.ndim != MATRIX or found.dtype.kind not in kinds or not found.size:
        shape = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
        raise ReadError(f"{where}: field {name}: {shape}, expected an array [tokens, {'experts' if kinds == 'f' else 'top_k'}]; collect again")
    return found


def _vector(where: str, found: Any, length: int) -> NDArray[Any]:
    flat = np.asarray(found).reshape(-1) if isinstance(found, np.ndarray) else np.empty(0, np.int64)
    if len(flat) < length or flat.dtype.kind not in "iu" or int(flat[:length].min()) < 0 or int(flat[:length].max()) >= 2**31 - 1:
        raise ReadError(f"{where}: field token_ids: {len(flat)} ids for {length} tokens, or ids that no tokenizer has; collect again")
    return flat[:length]


def _samples(records: Sequence[Record]) -> tuple[dict[str, dict[int, Record]], list[Remark]]:
    """Samples with the largest set of layers, in the order of the file, and what was left out."""
    found: dict[str, dict[int, Record]] = {}
    repeated = 0
    for one in records:
        layers = found.setdefault(one.document, {})
        other = layers.setdefault(one.layer, one)
        if other is not one:
            if not (np.array_equal(other.routing, one.routing) and np.array_equal(other.chosen, one.chosen)):
                raise ReadError(f"{one.where}: layer {one.layer} of sample {one.document[:60]!r} is there twice, with other routing; give samples "
                                "names of their own")
            repeated += 1
    sets = Counter(frozenset(layers) for layers in found.values())
    whole = max(sets, key=lambda one: (len(one), sets[one], sorted(one)))
    kept = {name: layers for name, layers in found.items() if set(layers) == whole}
    other_layers = len(found) - len(kept)
    padded = sum(one.padded for layers in kept.values() for one in layers.values())
    counts = (("duplicate_records", repeated, "records that repeat another one exactly; counted once"),
              ("documents_of_other_layers", other_layers, f"samples left out, for they do not have the layers {shown(sorted(whole))}"),
              ("padding_left_out", padded, "rows beyond sequence_length, left out"))
    return kept, [Remark(code, words, count) for code, count, words in counts if count]


def _length(parts: Sequence[Record]) -> int:
    lengths = {len(one.routing) for one in parts}
    if len(lengths) > 1:
        raise ReadError(f"{parts[0].where}: sample {parts[0].document[:60]!r} has {shown(sorted(lengths))} rows in its layers; collect again")
    return lengths.pop()


def _rows(samples: Sequence[Sequence[Record]], first: int, last: int, layers: Sequence[LayerMeta], tokens: bool,
          ) -> tuple[TraceBatch, Mapping[str, int]]:
    chosen = samples[first:last]
    lengths = [len(parts[0].routing) for parts in chosen]
    document = np.repeat(np.arange(first, last, dtype=np.int32), lengths)
    position = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    ids, weights, measures, met = [], [], [], dict[str, int]()
    for index, layer in enumerate(layers):
        columns = [_layer(parts[index], layer) for parts in chosen]
        one, weight, order = by_weight(*(np.concatenate([column[part] for column in columns]) for part in range(2)))
        ids.append(one.astype(layer.id_dtype))
        weights.append(weight.astype(np.float16))
        measures.append(np.concatenate([column[2] for column in columns], axis=1))
        met = added(met, order)
    entropy, simpson, top = (np.stack([measure[part] for measure in measures]) for part in range(3))
    token_id = np.concatenate([parts[0].tokens for parts in chosen if parts[0].tokens is not None]).astype(np.int32) if tokens else None
    return TraceBatch(document, position, token_id, tuple(ids), tuple(weights), entropy, simpson, top), met


def _layer(one: Record, layer: LayerMeta) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """ids, their probabilities, and entropy in nats, Simpson index and top probability [3, T] of one record."""
    def at(row: int) -> str:
        return f"{one.where}: sample {one.document[:60]!r}, token {row}, layer {layer.depth}"

    p = one.routing.astype(np.float64)
    total = p.sum(axis=1)
    bad = ~(np.isfinite(p).all(axis=1) & (p >= 0).all(axis=1) & (np.abs(total - 1) <= SUM_SLACK))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ReadError(f"{at(row)}: field target_routing: its values sum to {total[row]:.4g}, least {p[row].min():.4g}; the softmax over all "
                        "experts is expected: collect again")
    check_ids(one.chosen, layer.n_experts, lambda row: f"{at(row)}: field target_top_k")
    p /= total[:, None]
    weights = np.take_along_axis(p, one.chosen.astype(np.int64), axis=1)
    bound = np.partition(p, -layer.top_k, axis=1)[:, -layer.top_k]
    wrong = weights.min(axis=1) < bound - TIE
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ReadError(f"{at(row)}: field target_top_k: {one.chosen[row].tolist()} has probability {weights[row].min():.4g}, but the {layer.top_k} "
                        f"largest have {bound[row]:.4g} at least; ids and probabilities are of different passes: collect again")
    entropy = -(p * np.log(p, where=p > 0, out=np.zeros_like(p))).sum(axis=1)
    return one.chosen, weights, np.stack([np.maximum(entropy, 0), (p**2).sum(axis=1), p.max(axis=1)]).astype(np.float32)
