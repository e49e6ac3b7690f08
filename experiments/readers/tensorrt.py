"""Expert counts as TensorRT-LLM's `ExpertStatistic` writes them: `rank{r}.safetensors` with a tensor `{iteration}_{layer}`, and `meta_info.json`.

L MoE layer, E expert.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.trace import TraceMeta
from experiments.readers import _json
from experiments.readers._rows import layer_table, plain
from experiments.readers._safetensors import Tensors, names
from experiments.readers.contract import UNKNOWN, ForeignCounts, ReadError, ReadOptions, Remark

NAME, KIND = "tensorrt", "counts"
INFO = "meta_info.json"
RANK = re.compile(r"rank(\d{1,6})\.safetensors")
KEY = re.compile(r"(\d{1,9})_(\d{1,6})")
DENSE = "layers left out that no token was sent to in any iteration: they have no experts"


def recognises(path: Path) -> bool:
    """A folder with `meta_info.json` and ranks whose tensors are called `{iteration}_{layer}`."""
    ranks = _ranks(path)
    found = names(ranks[0][1]) if ranks and (path / INFO).is_file() else frozenset()
    return bool(found) and all(KEY.fullmatch(one) for one in found)


def read(path: Path, options: ReadOptions) -> ForeignCounts:
    """Sums over ranks and iterations, all in one domain (the folder's name); ranks must hold the same iterations and layers.

    Counts are of logical experts. Tokens follow from the sums and k, where all layers agree.
    """
    ranks = _ranks(path)
    if not ranks or not (path / INFO).is_file():
        raise ReadError(f"{path}: {INFO if ranks else 'rank0.safetensors'} is not there; give the folder that EXPERT_STATISTIC_PATH named")
    info = _json.load(path / INFO)
    n_experts, top_k = (_json.field(info, name, int, str(path / INFO)) for name in ("num_experts", "num_experts_per_token"))
    for name, asked, found in (("--n-experts", options.n_experts, n_experts), ("--top-k", options.top_k, top_k)):
        if asked not in (None, found):
            raise ReadError(f"{path / INFO}: says {found}, but {name} {asked}; leave the option out")
    layer_table([0], n_experts, top_k)
    totals: dict[int, NDArray[np.int64]] = {}
    keys: frozenset[str] | None = None
    for number, file in ranks:
        tensors = Tensors(file)
        keys = keys or frozenset(tensors.tensors)
        _check_keys(file, number, tensors, keys)
        for key in sorted(keys):
            layer = int(key.split("_")[1])
            totals[layer] = totals.get(layer, np.zeros(n_experts, np.int64)) + _counts(file, key, tensors, n_experts)
    used = [layer for layer in sorted(totals) if totals[layer].any()]
    if not used:
        raise ReadError(f"{path}: every count is 0; record iterations in which tokens were routed")
    counts = tuple(totals[layer][None, :] for layer in used)
    return ForeignCounts(_meta(path, options, (used, n_experts, top_k), (len(ranks), len(keys or ()))), (plain(options.domain or path.name),), counts,
                         tokens=_tokens(path, used, counts, top_k), remarks=_remarks(totals, used, len(ranks)))


def _meta(path: Path, options: ReadOptions, shape: tuple[list[int], int, int], met: tuple[int, int]) -> TraceMeta:
    layers, n_experts, top_k = shape
    if options.layers is not None and list(options.layers) != layers:
        raise ReadError(f"{path}: the statistics are of layers {layers}, but {list(options.layers)} were named; leave --layers out")
    return TraceMeta(options.model or UNKNOWN, UNKNOWN, layer_table(layers, n_experts, top_k, "model.layers.{}.mlp.gate"), "absent", "absent",
                     "absent", "absent", 0, "assay-tensorrt 1",
                     details={"ranks": met[0], "tensors_per_rank": met[1], "absent": ["documents", "weights"]})


def _ranks(path: Path) -> list[tuple[int, Path]]:
    if not path.is_dir():
        return []
    return sorted((int(found[1]), file) for file in path.iterdir() if (found := RANK.fullmatch(file.name)) and file.is_file())


def _check_keys(file: Path, rank: int, tensors: Tensors, keys: frozenset[str]) -> None:
    strange = sorted(name for name in tensors.tensors if not KEY.fullmatch(name))
    if strange:
        raise ReadError(f"{file}: tensor {strange[0][:80]!r}: expected ITERATION_LAYER; give the folder of one recording")
    if frozenset(tensors.tensors) != keys or not keys:
        odd = sorted(frozenset(tensors.tensors) ^ keys)
        raise ReadError(f"{file}: rank {rank} and the first differ in {', '.join(odd[:8]) or 'nothing: both are empty'}; ranks of one recording hold "
                        "the same iterations and layers: copy all of it")


def _counts(file: Path, key: str, tensors: Tensors, n_experts: int) -> NDArray[np.int64]:
    found: NDArray[Any] = tensors.array(key)
    if found.shape != (n_experts,) or tensors.tensors[key].dtype not in ("I64", "I32"):
        raise ReadError(f"{file}: tensor {key!r}: {tensors.tensors[key].dtype} {list(found.shape)}, expected whole numbers [{n_experts}] as {INFO} "
                        "says; two models are never one trace")
    if int(found.min()) < 0 or int(found.max()) >= 2**48:
        raise ReadError(f"{file}: tensor {key!r}: expert {int(found.argmin() if found.min() < 0 else found.argmax())}: {int(found.min())} to "
                        f"{int(found.max())} are no counts; record again")
    return found.astype(np.int64)


def _tokens(path: Path, layers: list[int], counts: tuple[NDArray[np.int64], ...], top_k: int) -> NDArray[np.int64] | None:
    sums = {int(table.sum()) for table in counts}
    for layer, table in zip(layers, counts):
        if int(table.sum()) % top_k:
            raise ReadError(f"{path}: layer {layer}: counts sum to {int(table.sum()):,}, which is no multiple of k={top_k}; a rank is missing, or "
                            f"{INFO} is of another model")
    return np.array([sums.pop() // top_k]) if len(sums) == 1 else None


def _remarks(totals: dict[int, NDArray[np.int64]], used: list[int], n_ranks: int) -> tuple[Remark, ...]:
    found = [Remark("ranks_summed", "ranks whose counts were added up", n_ranks)]
    if len(used) < len(totals):
        found.append(Remark("dense_layers_left_out", DENSE, len(totals) - len(used)))
    sums = [int(totals[layer].sum()) for layer in used]
    if len(set(sums)) > 1:
        found.append(Remark("layers_of_unequal_sums", f"selections differ by layer, from {min(sums):,} to {max(sums):,}: layers saw different tokens",
                            len(set(sums))))
    return tuple(found)
