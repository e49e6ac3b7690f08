"""Routing of FLAME-MoE's training runs: `actives/{step}/{layer}/{name}` with scores and indices, `samples/{name}`; .pt or safetensors.

T token, K slot in the top-k, L MoE layer.
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
from experiments.readers import _npz
from experiments.readers._pt import opened
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
from experiments.readers._safetensors import Tensors, names
from experiments.readers.contract import UNKNOWN, ReadError, ReadOptions, Remark

NAME, KIND = "flame-moe", "rows"
PAIR, TOKENS = ("scores", "indices"), "tokens"
SAFE, PICKLED = ".safetensors", ".pt"
NUMBER = re.compile(r"\d{1,9}")
N_EXPERTS, VOCABULARY = 64, 50_277  # of every published FLAME-MoE model
SCORE_SLACK = 0.02  # probabilities in bfloat16
FILES = "documents are the recorded batches: how texts lie in them was not kept, so that neighbours need not be of one text"


@dataclass(frozen=True)
class Step:
    """The folder of one training step: layer -> folder, in order; the batches' names, in every layer; the folder of token ids, or None."""

    folder: Path
    layers: Mapping[int, Path]
    batches: tuple[str, ...]
    samples: Path | None


def recognises(path: Path) -> bool:
    """The folder of one or more steps, whose first file holds `scores` and `indices` (or is an archive of torch, which is not unpickled for that)."""
    first = _first(path)
    if first is None:
        return False
    if first.suffix == PICKLED:
        return any(name.endswith("data.pkl") for name in _npz.fields(first))
    return names(first) == set(PAIR)


def read(path: Path, options: ReadOptions) -> DocumentTrace:
    """One training step: `actives/STEP`, or the folder above where there is only one. A document per recorded batch, of the domain `train`.

    Weights are the recorded scores of the chosen. Token ids come from `samples`, where it is there. A .pt file is read in a process of its
    own and only where it holds plain tensors.
    """
    step = _step(path)
    lengths, top_k, largest = _sizes(step)
    n_experts = options.n_experts or N_EXPERTS
    depths = list(step.layers)
    if options.layers is not None and list(options.layers) != depths:
        raise ReadError(f"{step.folder}: its layers are {depths}, but {list(options.layers)} were named; leave --layers out")
    meta = TraceMeta(options.model or f"FLAME-MoE step {step.folder.name}", UNKNOWN,
                     layer_table(depths, n_experts, top_k, "decoder.layers.{}.mlp.router"), "softmax", "absent", "recorded router scores", "absent",
                     0 if largest is None else max(VOCABULARY, largest + 1), "assay-flame-moe 1",
                     details={"step": step.folder.name, "documents_are": FILES,
                              "absent": ["entropy_nats"] + (["token_id"] if largest is None else [])})
    places = Places(step.folder, step.batches, lengths)
    return DocumentTrace(meta, document_rows(step.batches, [options.domain or "train"] * len(lengths)), lengths,
                         lambda first, last: _rows(step, (n_experts, top_k), places, first, last),
                         (Remark("batches_not_documents", FILES, len(lengths)),))


def _numbered_folders(path: Path) -> dict[int, Path]:
    found = {int(one.name): one for one in path.iterdir() if NUMBER.fullmatch(one.name) and one.is_dir()} if path.is_dir() else {}
    return dict(sorted(found.items()))


def _files(folder: Path) -> dict[str, Path]:
    """Stem -> file; safetensors go before a pickle of the same stem."""
    found: dict[str, Path] = {}
    for suffix in (SAFE, PICKLED):
        for file in sorted(folder.glob(f"*{suffix}")):
            found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def _steps(path: Path) -> list[Path]:
    """Folders of steps: those whose numbered folders hold files."""
    for candidates in ([path], list(_numbered_folders(path).values()), list(_numbered_folders(path / "actives").values())):
        found = [one for one in candidates if any(_files(layer) for layer in _numbered_folders(one).values())]
        if found:
            return found
    return []


def _first(path: Path) -> Path | None:
    return next((file for step in _steps(path)[:1] for layer in _numbered_folders(step).values() for file in _files(layer).values()), None)


def _step(path: Path) -> Step:
    steps = _steps(path)
    if len(steps) != 1:
        raise ReadError(f"{path}: {len(steps)} training steps, each of another state of the model; give one folder actives/STEP")
    folder = steps[0]
    layers = _numbered_folders(folder)
    files = {layer: _files(one) for layer, one in layers.items()}
    batches = tuple(files[min(layers)])
    for layer, found in files.items():
        if tuple(found) != batches:
            odd = sorted(set(found) ^ set(batches))
            raise ReadError(f"{layers[layer]}: {', '.join(odd[:8])}: in some layers only; every layer records the same batches: copy all of it")
    samples = next((one / "samples" for one in (folder.parent.parent, folder.parent, folder) if (one / "samples").is_dir()), None)
    return Step(folder, layers, batches, samples)


def _sizes(step: Step) -> tuple[NDArray[np.int64], int, int | None]:
    """Rows of each batch, k, and the largest token id (None without samples); every header is read, no score."""
    lengths, shapes, largest = [], set(), None
    for name in step.batches:
        found = {layer: _shape(opened(folder, name, PAIR)) for layer, folder in step.layers.items()}
        shapes |= {shape[1] for shape in found.values()}
        rows = sorted({shape[0] for shape in found.values()})
        if len(rows) > 1:
            raise ReadError(f"{step.folder}: batch {name}: {rows} rows by layer; every layer records the same tokens: one was cut, copy it again")
        lengths.append(next(iter(found.values()))[0])
        if step.samples is not None:
            tokens = _tokens(opened(step.samples, name, (TOKENS,)), lengths[-1])
            largest = max(largest or 0, int(tokens.max(initial=0)))
    if len(shapes) > 1:
        raise ReadError(f"{step.folder}: top-{sorted(shapes)} in one step; two models are never one trace: import them apart")
    return np.array(lengths, np.int64), shapes.pop(), largest


def _shape(tensors: Tensors) -> tuple[int, int]:
    path = tensors.path
    shapes = {name: tensors.tensors[name].shape for name in PAIR if name in tensors}
    if len(shapes) != 2 or shapes["scores"] != shapes["indices"] or len(shapes["scores"]) != 2 or 0 in shapes["scores"]:
        raise ReadError(f"{path}: tensors {({name: list(shape) for name, shape in shapes.items()})}: expected scores and indices, both [tokens, k]; "
                        "convert the recording again")
    if tensors.tensors["indices"].dtype not in ("I64", "I32", "I16", "U8") or tensors.tensors["scores"].dtype not in ("F32", "F16", "BF16", "F64"):
        raise ReadError(f"{path}: scores are {tensors.tensors['scores'].dtype} and indices {tensors.tensors['indices'].dtype}; expected reals and "
                        "whole numbers: convert the recording again")
    return shapes["scores"][0], shapes["scores"][1]


def _tokens(tensors: Tensors, n_rows: int) -> NDArray[np.int64]:
    path, found = tensors.path, tensors.array(TOKENS)
    if found.dtype.kind not in "iu" or found.size != n_rows or max(found.shape, default=0) != n_rows:
        raise ReadError(f"{path}: tensor tokens: {found.dtype} {list(found.shape)}, expected one list of {n_rows} token ids as the layers have rows; "
                        "in which order a table of several texts was recorded is not known: write it as the router saw it")
    flat = found.reshape(-1).astype(np.int64)
    if int(flat.min()) < 0 or int(flat.max()) >= 2**31:
        raise ReadError(f"{path}: tensor tokens: {int(flat.min())} to {int(flat.max())} are no token ids; convert the sample again")
    return flat


def _scores(tensors: Tensors) -> NDArray[Any]:
    found = tensors.array("scores")
    return (found.astype(np.uint32) << 16).view(np.float32) if tensors.tensors["scores"].dtype == "BF16" else found


def _rows(step: Step, shape: tuple[int, int], places: Places, first: int, last: int) -> tuple[TraceBatch, Mapping[str, int]]:
    n_experts = shape[0]
    here, batches = Places(places.path, places.names, places.lengths, first), step.batches[first:last]
    ids, weights, met = [], [], dict[str, int]()
    for layer, folder in step.layers.items():
        files: Sequence[Tensors] = [opened(folder, name, PAIR) for name in batches]
        chosen = np.concatenate([one.array("indices") for one in files]).astype(np.int64)
        scores = np.concatenate([_scores(one) for one in files])
        check_ids(chosen, n_experts, here.at("indices", layer))
        check_weights(scores, here.at("scores", layer), 1.0, SCORE_SLACK)
        one, weight, found = by_weight(chosen, scores)
        ids.append(one.astype(np.uint8 if n_experts <= 256 else np.uint16))
        weights.append(weight.astype(np.float16))
        met = added(met, found)
    tokens = None
    if step.samples is not None:
        parts = [_tokens(opened(step.samples, name, (TOKENS,)), int(n)) for name, n in zip(batches, places.lengths[first:last])]
        tokens = np.concatenate(parts).astype(np.int32)
    return TraceBatch(*numbered(places.lengths, first, last), tokens, tuple(ids), tuple(weights)), met
