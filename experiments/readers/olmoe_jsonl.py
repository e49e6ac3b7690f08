"""Routing by token as OLMoE's `run_moe_analysis.py` writes it: `c4_results.jsonl`, one block of tokens a line, slots by falling score.

T token, K slot in the top-k, L MoE layer, D document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.trace import TraceBatch, TraceMeta
from experiments.readers import _json
from experiments.readers._rows import DocumentTrace, Places, check_ids, document_rows, layer_table, numbered
from experiments.readers.contract import UNKNOWN, ReadError, ReadOptions, Remark

NAME, KIND = "olmoe-jsonl", "rows"
KEYS = {"input_ids", "exp_ids"}
RESULTS = "*_results.jsonl"
MODELS = {(8, 16): ("allenai/OLMoE-1B-7B-0924", 64, 50_304), (2, 32): ("mistralai/Mixtral-8x7B-v0.1", 8, 32_000)}  # k, layers -> model, E, V
TOKENS = re.compile(rb'"input_ids"\s*:\s*\[([0-9,\s]*)\]')
MOST_TYPES = 1 << 31
STEM = re.compile(r"(.+?)_results.*")
BY_SCORE = "falling score, as torch.topk gives it to run_moe_analysis.py"
BLOCKS = "documents are blocks cut from joined texts, as the file holds them: a block may hold several texts, and a text may be in two blocks"


@dataclass(frozen=True)
class Line:
    """Where a block is: file, line number from 1, byte offset and length; tokens: how many it has; largest: the largest token id."""

    path: Path
    number: int
    offset: int
    length: int
    tokens: int
    largest: int

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.path}: line {self.number}"


def recognises(path: Path) -> bool:
    """JSON lines with `input_ids` and `exp_ids`, or a folder of `*_results.jsonl`."""
    first = next(iter(sorted(path.glob(RESULTS))), None) if path.is_dir() else path
    return first is not None and _json.begins(first, b"{") and set(_json.first_record(first)) >= KEYS


def read(path: Path, options: ReadOptions) -> DocumentTrace:
    """A document per line, of the domain in the file's name (`c4` of `c4_results.jsonl`). No weights and no entropies were kept.

    Model and number of experts follow from k and the number of layers for the two models that were published so; else the options give them.
    """
    files = sorted(path.glob(RESULTS)) if path.is_dir() else [path]
    lines = [line for file in files for line in _index(file)]
    if not lines:
        raise ReadError(f"{path}: no block of tokens in it; give a *_results.jsonl with one record a line")
    top_k, n_layers = _block(lines[0]).shape[1:]
    model, n_experts, vocabulary = MODELS.get((top_k, n_layers), (None, None, 0))
    n_experts = options.n_experts or n_experts
    if n_experts is None or not (options.model or model):
        raise ReadError(f"{path}: top-{top_k} in {n_layers} layers is of neither published model; give --model and --n-experts")
    depths = range(n_layers) if options.layers is None else options.layers
    if len(depths) != n_layers:
        raise ReadError(f"{path}: field exp_ids: {n_layers} layers, but {len(depths)} were named; name every layer")
    noted = [Remark("blocks_not_documents", BLOCKS, len(lines))]
    if options.model is None:
        noted.append(Remark("model_guessed", f"the file names no model; {model} is the published one of {n_layers} layers and k={top_k}"))
    names = [f"{line.path.stem}/{line.number:06d}" for line in lines]
    meta = TraceMeta(str(options.model or model), UNKNOWN, layer_table(depths, n_experts, top_k, "model.layers.{}.mlp.gate"), "softmax",
                     "absent", "absent", "absent", max(vocabulary, 1 + max(line.largest for line in lines)), "assay-olmoe-jsonl 1",
                     details={"files": [file.name for file in files], "documents_are": BLOCKS, "slot_order": BY_SCORE,
                              "absent": ["weights", "entropy_nats"], **({"moe_layers_of_model": n_layers} if options.layers is None else {})})
    lengths = np.array([line.tokens for line in lines], np.int64)
    places = Places(path, names, lengths)
    shape = (top_k, n_layers, n_experts)
    return DocumentTrace(meta, document_rows(names, [options.domain or _domain(line.path) for line in lines]), lengths,
                         lambda first, last: _rows(lines, shape, places, first, last), tuple(noted))


def _domain(path: Path) -> str:
    found = STEM.fullmatch(path.stem)
    return found[1] if found else path.stem


def _index(path: Path) -> list[Line]:
    """Every line, its tokens counted without decoding the choices."""
    found = []
    for number, offset, line in _json.lines(path):
        tokens = _simple(line)
        if tokens is None:
            tokens = _tokens(_json.parse(line, f"{path}: line {number}"), f"{path}: line {number}")
        found.append(Line(path, number, offset, len(line), len(tokens), max(tokens)))
    return found


def _simple(line: bytes) -> list[int] | None:
    """Token ids of a line where they can be told without decoding it; None where it has to be decoded."""
    match = TOKENS.search(line) if line.count(b"input_ids") == 1 else None
    try:
        tokens = [int(one) for one in match[1].split(b",")] if match else []
    except ValueError:
        return None
    return tokens if tokens and max(tokens) < MOST_TYPES else None


def _tokens(record: Any, where: str) -> list[int]:
    """input_ids of a record. ReadError for what is no list of token ids."""
    tokens = _json.field(record, "input_ids", list, where)
    bad = next((one for one in tokens if type(one) is not int or not 0 <= one < MOST_TYPES), None)
    if bad is not None or not tokens:
        raise ReadError(f"{where}: field input_ids: {'empty' if bad is None else f'{str(bad)[:40]!r} is no token id'}; write one record a line")
    return tokens


def _record(line: Line) -> Mapping[str, Any]:
    with line.path.open("rb") as file:
        file.seek(line.offset)
        content = file.read(line.length)
    record = _json.parse(content, line.where)
    if not isinstance(record, dict):
        raise ReadError(f"{line.where}: no record; write one object a line")
    return record


def _block(line: Line) -> NDArray[np.int64]:
    """exp_ids [T, K, L] of a line."""
    return _choices(_record(line), line)


def _choices(record: Mapping[str, Any], line: Line) -> NDArray[np.int64]:
    tokens = _json.field(record, "exp_ids", list, line.where)
    try:
        found = np.array(tokens)
    except ValueError:
        found = np.empty(0)
    if found.ndim != 3 or found.dtype.kind != "i" or 0 in found.shape or len(found) != line.tokens:
        raise ReadError(f"{line.where}: field exp_ids: {found.dtype} {list(found.shape)}, expected expert ids [{line.tokens} tokens as in "
                        "input_ids, k, layers]; write the block again")
    return found.astype(np.int64)


def _rows(lines: Sequence[Line], shape: tuple[int, int, int], places: Places, first: int, last: int) -> tuple[TraceBatch, Mapping[str, int]]:
    top_k, n_layers, n_experts = shape
    blocks, tokens = [], []
    for line in lines[first:last]:
        record = _record(line)
        block = _choices(record, line)
        if block.shape[1:] != (top_k, n_layers):
            raise ReadError(f"{line.where}: field exp_ids: top-{block.shape[1]} in {block.shape[2]} layers, but the first line has top-{top_k} in "
                            f"{n_layers}; two models are never one trace: import them apart")
        blocks.append(block)
        own = _tokens(record, line.where)
        if len(own) != line.tokens or max(own) != line.largest:
            raise ReadError(f"{line.where}: field input_ids: {len(own)} tokens, where {line.tokens} were counted before; did the file change, or is "
                            "the field's name escaped? write one plain record a line")
        tokens.append(np.array(own, np.int32))
    joined, document = np.concatenate(blocks), numbered(places.lengths, first, last)
    here = Places(places.path, places.names, places.lengths, first)
    for layer in range(n_layers):
        check_ids(joined[:, :, layer], n_experts, here.at("exp_ids", layer))
    dtype = np.uint8 if n_experts <= 256 else np.uint16
    return TraceBatch(*document, np.concatenate(tokens), tuple(np.ascontiguousarray(joined[:, :, layer].astype(dtype))
                                                                               for layer in range(n_layers))), {}
