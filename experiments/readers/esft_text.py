"""Routing as ESFT's scoring script writes it: a folder of `expert_weights_{layer}.txt`, a line per sequence, ids, two tabs, weights.

T token, L MoE layer, K slot in the top-k, D document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.trace import TraceBatch, TraceMeta
from experiments.readers import _json
from experiments.readers._rows import DocumentTrace, Places, added, by_weight, check_ids, check_weights, document_rows, layer_table, numbered
from experiments.readers.contract import UNKNOWN, ReadError, ReadOptions
from experiments.readers.esft import MODEL, MOE_LAYERS, N_EXPERTS, WEIGHT_SLACK

NAME, KIND = "esft-text", "rows"
FILE = re.compile(r"(.*?)_?expert_weights_(\d{1,4})\.txt")
RANK = re.compile(r"rank_(\d{1,6})")
IDS, WEIGHTS = re.compile(rb"\d+(?:\t\d+)*"), re.compile(rb"[0-9.eE+-]+(?:\t[0-9.eE+-]+)*")
TOP_K = 6  # of DeepSeek-V2-Lite; the lines do not say it
LINE_LIMIT = 256 << 20
HEAD = 1 << 16
SUMMARY = "summary.json"
SCORES = ("token_scores", "gate_scores")


@dataclass(frozen=True)
class Text:
    """The file of one layer of one rank: byte offset and length of every line, and how many ids it holds."""

    path: Path
    lines: tuple[tuple[int, int, int], ...]


def recognises(path: Path) -> bool:
    """A folder with such files, itself or in its `rank_*` folders, the first of which begins as they do."""
    first = next((file for folder in _folders(path) for file in _files(folder).values()), None)
    if first is None:
        return False
    try:
        with first.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    ids = head.split(b"\t\t")[0]
    return len(ids) > 0 and IDS.fullmatch(ids.rsplit(b"\t", 1)[0] if ids == head else ids) is not None


def read(path: Path, options: ReadOptions) -> DocumentTrace:
    """A document per line, of the domain the folder (or the files' prefix) is called; all layers of a rank, the ranks one after another.

    Slots are put by falling weight: the files keep them in no order. Weights are probabilities of the full softmax, to four decimals.
    Scores of a `summary.json` beside the files are kept in `meta.details["published_scores"]`.
    """
    top_k, n_experts = options.top_k or TOP_K, options.n_experts or N_EXPERTS
    folders = [folder for folder in _folders(path) if _files(folder)]
    if not folders:
        raise ReadError(f"{path}: no expert_weights_N.txt in it; give the folder of one task")
    prefix, depths = _prefix(path, folders), list(_files(folders[0]))
    texts = [_index(folder, depths, top_k) for folder in folders]
    lengths = np.array([n_ids // top_k for rank in texts for _, _, n_ids in rank[0].lines], np.int64)
    if options.layers is not None and list(options.layers) != depths:
        raise ReadError(f"{path}: the files are of layers {depths}, but {list(options.layers)} were named; leave --layers out")
    if not len(lengths):
        raise ReadError(f"{path}: no sequence in its files; export the task again")
    domain = options.domain or prefix or path.name
    names = [f"{domain}/{number:05d}" for number in range(len(lengths))]
    details: dict[str, Any] = {"weights_decimals": 4, "absent": ["token_id", "entropy_nats"], "ranks": len(folders)}
    if options.model in (None, MODEL):
        details["moe_layers_of_model"] = max(MOE_LAYERS, len(depths))
    if (path / SUMMARY).is_file():
        details["published_scores"] = _scores(path / SUMMARY, depths, n_experts)
    meta = TraceMeta(options.model or MODEL, UNKNOWN, layer_table(depths, n_experts, top_k, "model.layers.{}.mlp.gate"), "softmax", "absent",
                     "softmax probability of the chosen, not renormalised", "absent", 0, "assay-esft-text 1", details=details)
    places = Places(path, names, lengths)
    return DocumentTrace(meta, document_rows(names, [domain] * len(names)), lengths,
                         lambda first, last: _rows(texts, (n_experts, top_k), places, first, last))


def _folders(path: Path) -> list[Path]:
    """The folder, or its `rank_*` folders in order of rank."""
    if not path.is_dir():
        return []
    ranks = {int(found[1]): one for one in path.iterdir() if (found := RANK.fullmatch(one.name)) and one.is_dir()}
    return [ranks[rank] for rank in sorted(ranks)] or [path]


def _files(folder: Path) -> dict[int, Path]:
    """Layer -> file, by layer."""
    found = {int(match[2]): file for file in folder.iterdir() if (match := FILE.fullmatch(file.name)) and file.is_file()}
    return dict(sorted(found.items()))


def _prefix(path: Path, folders: Sequence[Path]) -> str:
    found = {match[1] for folder in folders for file in folder.iterdir() if (match := FILE.fullmatch(file.name))}
    if len(found) > 1:
        raise ReadError(f"{path}: files of several tasks ({', '.join(sorted(found))}); give each task its own folder")
    return found.pop()


def _index(folder: Path, depths: Sequence[int], top_k: int) -> list[Text]:
    """Every line of every layer, compared with the first layer's."""
    files = _files(folder)
    if list(files) != list(depths):
        raise ReadError(f"{folder}: layers {list(files)}, but another rank has {list(depths)}; all ranks of one run record the same layers")
    texts = [Text(file, tuple(_lines(file, top_k))) for file in files.values()]
    counts = [[n_ids for _, _, n_ids in text.lines] for text in texts]
    for depth, text, found in zip(depths, texts, counts):
        if found != counts[0]:
            line = next((i for i, (one, other) in enumerate(zip(found, counts[0])) if one != other), min(len(found), len(counts[0])))
            raise ReadError(f"{text.path}: line {line + 1}: layer {depth} has {_at(found, line)} ids, layer {depths[0]} has "
                            f"{_at(counts[0], line)}: the layers are of different texts or one was cut ({len(found)} and {len(counts[0])} "
                            "lines); export the task again")
    return texts


def _at(counts: Sequence[int], line: int) -> int:
    return counts[line] if line < len(counts) else 0


def _lines(path: Path, top_k: int) -> Iterator[tuple[int, int, int]]:
    """(byte offset, length, number of ids) of each line, whose ids and weights must be equally many and fill whole tokens."""
    with path.open("rb") as file:
        offset, number = 0, 0
        while line := file.readline(LINE_LIMIT + 1):
            number += 1
            if len(line) > LINE_LIMIT:
                raise ReadError(f"{path}: line {number}, byte {offset}: longer than {LINE_LIMIT:,} bytes; write one sequence a line")
            if not line.endswith(b"\n"):
                raise ReadError(f"{path}: line {number}, byte {offset}: does not end with a newline: was the file cut? export it again, or "
                                "end it with a newline")
            parts = line.rstrip(b"\r\n").split(b"\t\t")
            n_ids, n_weights = (part.count(b"\t") + 1 for part in (parts[0], parts[-1]))
            if len(parts) != 2 or n_ids != n_weights or n_ids % top_k:
                raise ReadError(f"{path}: line {number}: {n_ids} ids and {n_weights if len(parts) == 2 else 0} weights, expected as many of both, "
                                f"a multiple of k={top_k}, with two tabs between; export it again, or give --top-k")
            yield offset, len(line), n_ids
            offset += len(line)


def _scores(path: Path, depths: Sequence[int], n_experts: int) -> dict[str, list[list[float]]]:
    """Published scores [L][E] by kind."""
    content = _json.load(path)
    found: dict[str, list[list[float]]] = {}
    for kind in SCORES:
        if isinstance(content, dict) and kind in content:
            layers = {depth: _json.field(content[kind], str(depth), dict, f"{path}: {kind}") for depth in depths}
            found[kind] = [[_json.number(layer, str(expert), f"{path}: {kind}, layer {depth}") for expert in range(n_experts)]
                           for depth, layer in layers.items()]
    return found


def _rows(texts: Sequence[Sequence[Text]], shape: tuple[int, int], places: Places, first: int, last: int) -> tuple[TraceBatch, Mapping[str, int]]:
    n_experts, top_k = shape
    here = Places(places.path, places.names, places.lengths, first)
    ids, weights, met = [], [], dict[str, int]()
    dtype = np.uint8 if n_experts <= 256 else np.uint16
    for index in range(len(texts[0])):
        read_ids, read_weights = _layer([rank[index] for rank in texts], top_k, first, last)
        layer = FILE.fullmatch(texts[0][index].path.name)
        at = layer[2] if layer else index
        check_ids(read_ids, n_experts, here.at("ids", at))
        check_weights(read_weights, here.at("weights", at), 1.0, WEIGHT_SLACK)
        one, weight, found = by_weight(read_ids, read_weights)
        ids.append(one.astype(dtype))
        weights.append(weight.astype(np.float16))
        met = added(met, found)
    return TraceBatch(*numbered(places.lengths, first, last), None, tuple(ids), tuple(weights)), met


def _layer(ranks: Sequence[Text], top_k: int, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """ids and weights [T, K] of sequences first..last-1 of one layer, counted over the ranks."""
    ids, weights, base = [], [], 0
    for text in ranks:
        with text.path.open("rb") as file:
            for number in range(max(first - base, 0), min(last - base, len(text.lines))):
                offset, length, _ = text.lines[number]
                file.seek(offset)
                one, other = file.read(length).rstrip(b"\r\n").split(b"\t\t")
                if not IDS.fullmatch(one) or not WEIGHTS.fullmatch(other):
                    raise ReadError(f"{text.path}: line {number + 1}: a value that is no number; export it again")
                ids.append(_numbers(one, np.int64, text, number))
                weights.append(_numbers(other, np.float64, text, number))
        base += len(text.lines)
    return np.concatenate(ids).reshape(-1, top_k), np.concatenate(weights).reshape(-1, top_k)


def _numbers(text: bytes, dtype: Any, source: Text, number: int) -> NDArray[Any]:
    try:
        return np.array(text.split(b"\t")).astype(dtype)
    except (ValueError, OverflowError) as error:
        raise ReadError(f"{source.path}: line {number + 1}: {error}; export it again") from error
