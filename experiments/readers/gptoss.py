"""gpt-oss routing by token, as GPT-OSS-MoE-ExpertFingerprinting publishes it: `*_examples.json`, or the same packed in an .npz.

T token, L MoE layer, K slot in the top-k, D document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.trace import TraceBatch, TraceMeta
from experiments.readers import _json, _npz
from experiments.readers._rows import (
    DocumentTrace,
    Places,
    added,
    by_weight,
    check_ids,
    check_weights,
    document_rows,
    layer_table,
    numbered,
)
from experiments.readers.contract import UNKNOWN, ReadError, ReadOptions, Remark

NAME, KIND = "gptoss", "rows"
COLUMNS = {"doc_id": (1, "U"), "doc_len": (1, "iu"), "first_pos": (1, "iu"), "expert_ids": (3, "iu"), "prob_bf16": (3, "u")}
EXTRA = ("sample_count", "row_index")
EXAMPLES = "*_examples.json"
MARK = b'"router_data"'
SIZES = {24: ("openai/gpt-oss-20b", 32), 36: ("openai/gpt-oss-120b", 128)}  # layers -> model, experts
SUM_SLACK = 0.01  # four probabilities in bfloat16, eight bits each


@dataclass(frozen=True)
class Columns:
    """ids, probabilities: [T, L, K]; document ids, lengths and first positions [D]; extra: what else the source says of each document."""

    path: Path
    ids: NDArray[Any]
    probabilities: NDArray[np.float32]
    names: tuple[str, ...]
    lengths: NDArray[np.int64]
    first_position: NDArray[np.int64]
    extra: Mapping[str, Any]


def recognises(path: Path) -> bool:
    """An .npz with the packed columns, a JSON of examples with `router_data`, or a folder of such files."""
    if path.is_dir():
        first = next(iter(sorted(path.rglob(EXAMPLES))), None)
        return first is not None and recognises(first)
    return set(COLUMNS) <= _npz.fields(path) or (_json.begins(path, b"{[") and _json.holds(path, MARK) and _json.holds(path, b'"selected_experts"'))


def read(path: Path, options: ReadOptions) -> DocumentTrace:
    """Documents are generations, of the domain named by the category in their id; positions count from the prompt's first token.

    Rows are of generated tokens only. Weights are probabilities among the chosen; token ids were not kept. The number of experts follows
    from the number of layers of the published models, or is `options.n_experts`.
    """
    files = sorted(path.rglob(EXAMPLES)) if path.is_dir() else [path]
    columns = _joined([_packed(file) if _npz.is_archive(file) else _examples(file) for file in files], path)
    n_layers, top_k = columns.ids.shape[1:]
    known = SIZES.get(n_layers)
    n_experts = options.n_experts or (known[1] if known else None)
    if n_experts is None:
        raise ReadError(f"{path}: {n_layers} layers are of none of the published models; give --n-experts")
    depths = range(n_layers) if options.layers is None else options.layers
    if len(depths) != n_layers:
        raise ReadError(f"{path}: field expert_ids: {n_layers} layers, but {len(depths)} were named; name every layer")
    _check(columns, n_experts)
    meta = TraceMeta(
        options.model or (known[0] if known else "gpt-oss"), UNKNOWN, layer_table(depths, n_experts, top_k), "softmax", "absent",
        "softmax over the k chosen", "absent", 0, "assay-gptoss 1",
        details={"absent": ["token_id", "entropy_nats"], "files": len(files), "first_positions": columns.first_position.tolist(),
                 **({"moe_layers_of_model": n_layers} if known else {}), **{name: list(values) for name, values in columns.extra.items()}})
    domains = [options.domain or _category(name) for name in columns.names]
    trace = DocumentTrace(meta, document_rows(columns.names, domains), columns.lengths, lambda first, last: _rows(columns, first, last))
    late = columns.first_position > 0
    if late.any():
        trace.noted = (Remark("first_tokens_missing", "documents whose first rows are missing: only generated tokens were recorded, not the prompt",
                              int(late.sum()), float(late.mean())),)
    return trace


def _rows(columns: Columns, first: int, last: int) -> tuple[TraceBatch, Mapping[str, int]]:
    starts = np.concatenate([[0], np.cumsum(columns.lengths)])
    rows = slice(int(starts[first]), int(starts[last]))
    document, position = numbered(columns.lengths, first, last, columns.first_position)
    ids, weights, met = [], [], dict[str, int]()
    for layer in range(columns.ids.shape[1]):
        one, weight, found = by_weight(columns.ids[rows, layer], columns.probabilities[rows, layer])
        ids.append(one)
        weights.append(weight.astype(np.float16))
        met = added(met, found)
    return TraceBatch(document, position, None, tuple(ids), tuple(weights)), met


def _category(name: str) -> str:
    """The domain in `dataset/category/finished_repeated`; the whole id where it is not of that form."""
    parts = name.split("/")
    return parts[1] if len(parts) == 3 else name


def _packed(path: Path) -> Columns:
    with _npz.Archive(path) as archive:
        found = archive.arrays([*COLUMNS, *(name for name in EXTRA if name in archive.headers)])
    for name, (dimensions, kinds) in COLUMNS.items():
        if found[name].ndim != dimensions or found[name].dtype.kind not in kinds:
            raise ReadError(f"{path}: field {name}: {found[name].dtype} {list(found[name].shape)}, expected {dimensions} dimensions of kind {kinds}")
    bits = found["prob_bf16"]
    if bits.dtype != np.uint16:
        raise ReadError(f"{path}: field prob_bf16: {bits.dtype}, expected uint16, the upper half of a float32")
    n_documents = len(found["doc_id"])
    for name in ("doc_len", "first_pos", *(name for name in EXTRA if name in found)):
        if len(found[name]) != n_documents:
            raise ReadError(f"{path}: field {name}: {len(found[name])} entries for {n_documents} documents in doc_id; export them together")
    probabilities = (bits.astype(np.uint32) << 16).view(np.float32)
    extra = {name: found[name].tolist() for name in EXTRA if name in found}
    return Columns(path, found["expert_ids"], probabilities, tuple(found["doc_id"].tolist()), found["doc_len"].astype(np.int64),
                   found["first_pos"].astype(np.int64), extra)


def _examples(path: Path) -> Columns:
    content = _json.load(path)
    examples = content if isinstance(content, list) else [content]
    if not examples:
        raise ReadError(f"{path}: no example in it; export again")
    ids, probabilities, names, lengths, firsts = [], [], [], [], []
    for number, example in enumerate(examples):
        where = f"{path}: example {number}"
        tokens = _json.field(example, "router_data", list, where)
        rows = [_token(token, f"{where}: router_data[{index}]") for index, token in enumerate(tokens)]
        if not rows:
            raise ReadError(f"{where}: field router_data: empty; a generation without tokens routes nothing: leave it out")
        positions = [position for position, _, _ in rows]
        if positions != list(range(positions[0], positions[0] + len(positions))):
            raise ReadError(f"{where}: field router_data: tokens are not in order from token_{positions[0]}; export again")
        ids.append(_stack([one for _, one, _ in rows], where, "selected_experts"))
        probabilities.append(_stack([one for _, _, one in rows], where, "selected_probs"))
        parts = (example.get("dataset", path.parent.parent.name), example.get("category", path.parent.name),
                 f"{example.get('finished_successfully')}_{example.get('has_repetition')}")
        names.append("/".join(str(part) for part in parts) + (f"#{number}" if number else ""))
        lengths.append(len(rows))
        firsts.append(positions[0])
    if len({one.shape[1:] for one in ids + probabilities}) != 1:
        raise ReadError(f"{path}: field selected_experts: examples of {sorted({one.shape[1:] for one in ids + probabilities})} layers and slots; "
                        "one file is of one model: split it")
    extra = {name: [example.get(name) for example in examples] for name in EXTRA if all(type(example.get(name)) is int for example in examples)}
    return Columns(path, np.concatenate(ids).astype(np.int64), np.concatenate(probabilities).astype(np.float32), tuple(names),
                   np.array(lengths, np.int64), np.array(firsts, np.int64), extra)


def _token(token: Any, where: str) -> tuple[int, list[Any], list[Any]]:
    """Position, ids [L][K] and probabilities [L][K] of one entry {"token_P": {"layer_0": {...}, ...}}."""
    if not isinstance(token, dict) or len(token) != 1:
        raise ReadError(f"{where}: expected one entry token_N; export again")
    ((name, layers),) = token.items()
    position = _json.index_after(name, "token_", where)
    if not isinstance(layers, dict):
        raise ReadError(f"{where}: {name}: expected layers; export again")
    depths = [_json.index_after(key, "layer_", f"{where}: {name}") for key in layers]
    if sorted(depths) != list(range(len(depths))):
        raise ReadError(f"{where}: {name}: layers {sorted(depths)[:8]}, expected every one from layer_0; export again")
    ordered = [layers[f"layer_{depth}"] for depth in range(len(depths))]
    at = f"{where}: {name}, layer"
    return (position, [_json.field(layer, "selected_experts", list, f"{at} {depth}") for depth, layer in enumerate(ordered)],
            [_json.field(layer, "selected_probs", list, f"{at} {depth}") for depth, layer in enumerate(ordered)])


def _stack(rows: Sequence[Sequence[Sequence[Any]]], where: str, name: str) -> NDArray[Any]:
    kinds = (int,) if name == "selected_experts" else (int, float)
    shape = (len(rows[0]), len(rows[0][0]) if rows[0] else 0)
    for index, token in enumerate(rows):
        if len(token) != shape[0] or any(len(layer) != shape[1] for layer in token):
            raise ReadError(f"{where}: router_data[{index}]: field {name}: not {shape[0]} layers of {shape[1]} slots as in the first token; "
                            "export again")
        if any(type(value) not in kinds or abs(value) >= 2**31 for layer in token for value in layer):
            raise ReadError(f"{where}: router_data[{index}]: field {name}: a value that is no {'expert id' if len(kinds) == 1 else 'number'}; "
                            "export again")
    return np.array(rows, np.int64 if len(kinds) == 1 else np.float64)


def _joined(parts: Sequence[Columns], path: Path) -> Columns:
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    for one in parts:
        if one.ids.shape[1:] != first.ids.shape[1:]:
            raise ReadError(f"{one.path}: {list(one.ids.shape[1:])} layers and slots, but {first.path} has {list(first.ids.shape[1:])}; two "
                            "models are never one trace: import them apart")
    return Columns(path, np.concatenate([one.ids for one in parts]), np.concatenate([one.probabilities for one in parts]),
                   tuple(name for one in parts for name in one.names), np.concatenate([one.lengths for one in parts]),
                   np.concatenate([one.first_position for one in parts]),
                   {name: [value for one in parts for value in one.extra[name]] for name in EXTRA if all(name in one.extra for one in parts)})


def _check(columns: Columns, n_experts: int) -> None:
    path, lengths = columns.path, columns.lengths
    if columns.ids.shape != columns.probabilities.shape or 0 in columns.ids.shape:
        raise ReadError(f"{path}: field prob_bf16: {list(columns.probabilities.shape)}, but expert_ids is {list(columns.ids.shape)}; "
                        "both are tokens x layers x k, none of them 0: export both from one run")
    if (lengths < 1).any() or int(lengths.sum()) != len(columns.ids):
        raise ReadError(f"{path}: field doc_len: lengths of at least 1 that sum to {len(columns.ids)} tokens are needed, they sum to "
                        f"{int(lengths.sum())} (least {int(lengths.min(initial=0))}); export the documents again")
    if (columns.first_position < 0).any() or (columns.first_position + lengths >= 2**31).any():
        raise ReadError(f"{path}: field first_pos: a position outside int32; positions count from 0")
    if len(set(columns.names)) != len(columns.names):
        raise ReadError(f"{path}: field doc_id: one id twice; a document is counted once: leave the copy out")
    places = Places(path, columns.names, lengths)
    for layer in range(columns.ids.shape[1]):
        check_ids(columns.ids[:, layer], n_experts, places.at("expert_ids", layer))
        check_weights(columns.probabilities[:, layer], places.at("probabilities", layer), 1.0, SUM_SLACK)
