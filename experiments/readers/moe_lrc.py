"""Router outputs as moe-lrc keeps them: `{model}_{layer}.safetensors`, a tensor [samples, tokens, experts] per corpus, or ranks, or raw .pt files.

D document (sample), T token, K slot in the top-k, L MoE layer, E expert.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.halves import BFLOAT16_DEVIATION, RouterRows, of_logits, of_probabilities
from analysis.trace import TraceBatch, TraceMeta
from experiments.readers import _npz
from experiments.readers._pt import PtTensors, load
from experiments.readers._rows import UNSORTED, DocumentTrace, Places, added, by_weight, document_rows, layer_table, numbered
from experiments.readers._safetensors import Tensors, looks_so
from experiments.readers.contract import UNKNOWN, ReadError, ReadOptions, Remark

NAME, KIND = "moe-lrc", "rows"
FILE = re.compile(r"(.+)_(\d{2,4})\.safetensors")
PICKLED = re.compile(r"(.+)_(\d{2,4})_(.+)\.pt")  # one corpus of one layer, before moe-lrc's merge
REALS = ("BF16", "F16", "F32")
PROBED = 4096  # rows that tell probabilities from logits
BORDER = "ties_at_k"


@dataclass(frozen=True)
class Outputs:
    """One model's files. form: "probabilities", "logits" or "ranks"; corpora: name -> (samples, tokens); tokens: the file of token ids, or None."""

    model: str
    layers: Mapping[int, Tensors]
    corpora: Mapping[str, tuple[int, int]]
    n_experts: int
    form: str
    tokens: Tensors | None


def recognises(path: Path) -> bool:
    """A folder of `{model}_{layer}` files: safetensors with tensors of three dimensions, or torch's archives by corpus."""
    files = _files(path)
    if not files:
        found = next((one for one in sorted(path.iterdir()) if PICKLED.fullmatch(one.name)), None) if path.is_dir() else None
        return found is not None and any(name.endswith("data.pkl") for name in _npz.fields(found))
    first = next(iter(next(iter(files.values())).values()))
    try:
        tensors = Tensors(first).tensors if looks_so(first) else {}
    except ReadError:
        return False
    return bool(tensors) and all(len(one.shape) == 3 for one in tensors.values())


def read(path: Path, options: ReadOptions) -> DocumentTrace:
    """A document per sample, of its corpus as domain. k is `options.top_k`: the files hold all experts and do not say how many were used.

    From probabilities or logits come weights (softmax probabilities, not renormalised), entropies, Simpson's concentration and the largest
    probability. Ranks give the choices only. Raw files, `{model}_{layer}_{corpus}.pt`, are read in a process of their own.
    """
    outputs = _open(path, options.model)
    if options.top_k is None:
        raise ReadError(f"{path}: all {outputs.n_experts} experts are kept, not how many were used; give --top-k of the model")
    depths = list(outputs.layers)
    if options.n_experts not in (None, outputs.n_experts) or (options.layers is not None and list(options.layers) != depths):
        raise ReadError(f"{path}: {outputs.n_experts} experts in layers {depths}, but the options say otherwise; leave --n-experts and --layers out")
    lengths = np.array([tokens for samples, tokens in outputs.corpora.values() for _ in range(samples)], np.int64)
    names = [f"{corpus}/{sample:05d}" for corpus, (samples, _) in outputs.corpora.items() for sample in range(samples)]
    domains = [options.domain or corpus for corpus, (samples, _) in outputs.corpora.items() for _ in range(samples)]
    whole = outputs.form != "ranks"
    largest = _largest(outputs)
    meta = TraceMeta(outputs.model, UNKNOWN, layer_table(depths, outputs.n_experts, options.top_k, "layers.{}.router"), "softmax",
                     "softmax_logits" if whole else "absent", "softmax probability of the chosen, not renormalised" if whole else "absent", "absent",
                     0 if largest is None else largest + 1, "assay-moe-lrc 1",
                     details={"kept": outputs.form, **({} if whole else {"slot_order": "falling rank"}),
                              "absent": ["token_id"] * (largest is None) + ["weights", "entropy_nats"] * (not whole)})
    noted = () if outputs.form != "logits" else (Remark("softmax_assumed", "the tensors are logits; entropies and weights are of their softmax"),)
    places = Places(path, names, lengths)
    top_k = options.top_k
    return DocumentTrace(meta, document_rows(names, domains), lengths, lambda first, last: _rows(outputs, top_k, places, first, last), noted)


def _files(path: Path) -> dict[str, dict[int, Path]]:
    """Model -> layer -> file."""
    found: dict[str, dict[int, Path]] = {}
    for file in sorted(path.iterdir()) if path.is_dir() else []:
        match = FILE.fullmatch(file.name)
        if match and file.is_file():
            found.setdefault(match[1], {})[int(match[2])] = file
    return found


def _raw(path: Path) -> dict[str, dict[int, dict[str, Path]]]:
    """Model -> layer -> corpus -> .pt file."""
    found: dict[str, dict[int, dict[str, Path]]] = {}
    for file in sorted(path.iterdir()) if path.is_dir() else []:
        match = PICKLED.fullmatch(file.name)
        if match and file.is_file():
            found.setdefault(match[1], {}).setdefault(int(match[2]), {})[match[3]] = file
    return found


def _of_corpora(folder: Path, files: Mapping[str, Path]) -> Tensors:
    return PtTensors(folder, {corpus: load(file, (corpus,)).array(corpus) for corpus, file in files.items()})


def _open(path: Path, model: str | None) -> Outputs:
    merged = _files(path)
    raw = {} if merged else _raw(path)
    files: Mapping[str, Mapping[int, Any]] = merged or raw
    if model not in files and len(files) != 1:
        raise ReadError(f"{path}: files of {len(files)} models ({', '.join(files)[:200]}); name one with --model")
    name = model if model in files else next(iter(files))
    layers = {layer: _of_corpora(path, one) if raw else Tensors(one) for layer, one in sorted(files[str(name)].items())}
    shapes = {(corpus, one.shape, one.dtype) for corpus, one in next(iter(layers.values())).tensors.items()}
    for layer, tensors in layers.items():
        found = {(corpus, one.shape, one.dtype) for corpus, one in tensors.tensors.items()}
        if found != shapes:
            odd = sorted(str(one) for one in found ^ shapes)
            raise ReadError(f"{tensors.path}: layer {layer} and the first differ in {', '.join(odd)[:200]}; all layers of one run hold the same "
                            "corpora")
    experts, dtypes = {shape[-1] for _, shape, _ in shapes if shape}, {dtype for *_, dtype in shapes}
    if len(experts) != 1 or len(dtypes) != 1 or any(len(shape) != 3 or 0 in shape for _, shape, _ in shapes):
        raise ReadError(f"{path}: tensors of layer {next(iter(layers))}: expected [samples, tokens, experts] of one dtype and number of experts for "
                        f"every corpus, found {sorted(map(str, shapes))[:4]}")
    corpora = {corpus: (shape[0], shape[1]) for corpus, shape, _ in sorted(shapes)}
    return Outputs(str(model or name), layers, corpora, experts.pop(), _form(path, next(iter(layers.values())), dtypes.pop()),
                   _token_file(path, str(name), corpora))


def _form(path: Path, tensors: Tensors, dtype: str) -> str:
    """Ranks are int8; probabilities lie in [0, 1] and sum to 1 in every row that is looked at; the rest are logits."""
    if dtype == "I8":
        return "ranks"
    if dtype not in REALS:
        raise ReadError(f"{path}: tensors of {dtype}: expected router outputs ({', '.join(REALS)}) or ranks (I8)")
    corpus = next(iter(tensors.tensors))
    _, n_tokens, n_experts = tensors.tensors[corpus].shape
    rows = _values(tensors, corpus, slice(0, 1 + PROBED // n_tokens)).reshape(-1, n_experts)[:PROBED].astype(np.float64)
    return "probabilities" if (rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) <= 2 * BFLOAT16_DEVIATION).all() else "logits"


def _token_file(path: Path, model: str, corpora: Mapping[str, tuple[int, int]]) -> Tensors | None:
    """`data/merged/{model}.safetensors` beside `output/`, where it is of these samples."""
    file = path.absolute().parent.parent / "data" / "merged" / f"{model}.safetensors"
    if not file.is_file():
        return None
    found = Tensors(file)
    for corpus, shape in corpora.items():
        if corpus not in found or found.tensors[corpus].shape != shape or found.tensors[corpus].dtype not in ("I64", "I32"):
            there = found.tensors[corpus] if corpus in found else None
            raise ReadError(f"{file}: tensor {corpus!r}: {'absent' if there is None else f'{there.dtype} {list(there.shape)}'}, expected token ids "
                            f"{list(shape)} as the router outputs have; move the file away if it is of another run")
    return found


def _largest(outputs: Outputs) -> int | None:
    if outputs.tokens is None:
        return None
    arrays = [outputs.tokens.array(corpus) for corpus in outputs.corpora]
    least, most = min(int(one.min()) for one in arrays), max(int(one.max()) for one in arrays)
    if least < 0 or most >= 2**31:
        raise ReadError(f"{outputs.tokens.path}: {least} to {most} are no token ids; take the file of this run")
    return most


def _values(tensors: Tensors, corpus: str, samples: slice) -> NDArray[Any]:
    """Values of some samples; bfloat16 as float32."""
    found = tensors.array(corpus)[samples]
    return (found.astype(np.uint32) << 16).view(np.float32) if tensors.tensors[corpus].dtype == "BF16" else found


def _pieces(outputs: Outputs, first: int, last: int) -> list[tuple[str, slice]]:
    """(corpus, samples) of the documents first..last-1."""
    found, base = [], 0
    for corpus, (samples, _) in outputs.corpora.items():
        low, high = max(first - base, 0), min(last - base, samples)
        if low < high:
            found.append((corpus, slice(low, high)))
        base += samples
    return found


def _rows(outputs: Outputs, top_k: int, places: Places, first: int, last: int) -> tuple[TraceBatch, Mapping[str, int]]:
    pieces = _pieces(outputs, first, last)
    here = Places(places.path, places.names, places.lengths, first)
    ids, weights, columns, met = [], [], [], dict[str, int]()
    for layer, tensors in outputs.layers.items():
        raw = np.concatenate([tensors.array(corpus)[samples].reshape(-1, outputs.n_experts) for corpus, samples in pieces])
        scores = np.concatenate([_values(tensors, corpus, samples).reshape(-1, outputs.n_experts) for corpus, samples in pieces])
        if outputs.form == "ranks":
            chosen, found = _of_ranks(raw, top_k, here, layer), dict[str, int]()
        else:
            reals = _reals(raw, outputs.form, here, layer)
            columns.append((reals.entropy_nats, reals.simpson, reals.confidence))
            probabilities = _softmax(scores) if outputs.form == "logits" else scores.astype(np.float64)
            every = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")
            chosen, weight, found = by_weight(every[:, :top_k], np.take_along_axis(scores, every[:, :top_k], axis=1).astype(np.float64))
            found[UNSORTED] = 0
            found[BORDER] = _border(scores, every, top_k)
            weight = np.take_along_axis(probabilities, chosen, axis=1)
            weights.append(weight.astype(np.float16))
        ids.append(chosen.astype(np.uint8 if outputs.n_experts <= 256 else np.uint16))
        met = added(met, found)
    stacked: list[Any] = [np.stack(part).astype(np.float32) for part in zip(*columns)] if columns else [None, None, None]
    tokens = None
    if outputs.tokens is not None:
        tokens = np.concatenate([outputs.tokens.array(corpus)[samples].reshape(-1) for corpus, samples in pieces]).astype(np.int32)
    return TraceBatch(*numbered(places.lengths, first, last), tokens, tuple(ids), tuple(weights) or None, *stacked), met


def _softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    total: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return total


def _border(scores: NDArray[Any], order: NDArray[np.intp], top_k: int) -> int:
    """Rows whose k-th and next largest scores are equal: which of the two was used is not known."""
    if top_k >= scores.shape[1]:
        return 0
    last = np.take_along_axis(scores, order[:, top_k - 1 : top_k + 1], axis=1)
    return int((last[:, 0] == last[:, 1]).sum())


def _reals(raw: NDArray[Any], form: str, here: Places, layer: int) -> RouterRows:
    try:
        return of_probabilities(raw) if form == "probabilities" else of_logits(raw)
    except ValueError as error:
        match = re.search(r"row (\d+)", str(error))
        raise ReadError(f"{here.at(form, layer)(int(match[1]) if match else 0)}: {error}; record the layer again") from error


def _of_ranks(ranks: NDArray[Any], top_k: int, here: Places, layer: int) -> NDArray[np.intp]:
    n_experts = ranks.shape[1]
    wrong = (np.sort(ranks, axis=1) != np.arange(n_experts)).any(axis=1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ReadError(f"{here.at('rank', layer)(row)}: not the ranks 0 to {n_experts - 1}, each once; write the ranks again")
    return np.argsort(-ranks.astype(np.int64), axis=1, kind="stable")[:, :top_k]
