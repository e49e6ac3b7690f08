"""Expert statistics of vLLM in JSON lines, schema 2: `expert-routing-rank-R-iteration-I.jsonl`, assignments per expert and decoding step.

L MoE layer, E expert.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.readers import _json
from experiments.readers._recorded import MOST_LAYERS, counts_of, layer_list, recorded_meta
from experiments.readers._rows import MOST_EXPERTS, layer_table
from experiments.readers.contract import ForeignCounts, ReadError, ReadOptions, Remark

NAME, KIND = "vllm-stats", "counts"
PATTERN, SCHEMA = "expert-routing-rank-*-iteration-*.jsonl", 2
USEFUL = "useful_local_assignments_per_expert"


@dataclass
class Rank:
    """One file. tables: layer -> useful assignments [E]; local: layer -> global ids of its experts; routes: hashes of all steps."""

    path: Path
    rank: int
    iteration: int
    top_k: int
    tables: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    local: dict[int, tuple[int, ...]] = field(default_factory=dict)
    routes: list[Any] = field(default_factory=list)
    steps: int = 0
    whole: bool = False


def recognises(path: Path) -> bool:
    """A file whose first record is metadata of schema 2, or a folder of such files."""
    first = next(iter(_files(path)), None)
    if first is None:
        return False
    record = _json.first_record(first)
    return record.get("record_type") == "metadata" and record.get("schema_version") == SCHEMA and isinstance(record.get("layers"), list)


def read(path: Path, options: ReadOptions) -> ForeignCounts:
    """Useful assignments (no padding) of all decoding steps, ranks summed.

    Ranks of one iteration that hold all experts each and routed alike are copies of one another: the first is counted. ReadError where
    ranks share some experts and not others, and where files are of different models.
    """
    files = _files(path)
    if not files:
        raise ReadError(f"{path}: no {PATTERN} in it; give such a file or its folder")
    ranks = [_rank(file) for file in files]
    first = ranks[0]
    for one in ranks[1:]:
        if one.top_k != first.top_k or {depth: len(table) for depth, table in one.tables.items()} != {
                depth: len(table) for depth, table in first.tables.items()}:
            raise ReadError(f"{first.path} and {one.path}: other layers, experts or top_k; one trace is of one model: import them apart")
    if options.top_k not in (None, first.top_k):
        raise ReadError(f"{first.path}: field top_k: {first.top_k}, but --top-k says {options.top_k}; leave the option out")
    kept, copies = _without_copies(ranks)
    depths = layer_list(options, sorted(first.tables), path)
    sizes = {len(table) for table in first.tables.values()}
    if len(sizes) > 1 or options.n_experts not in (None, *sizes):
        raise ReadError(f"{path}: layers of {sorted(sizes)} experts, --n-experts says {options.n_experts}; is it a trace of another model?")
    counts = [np.sum([one.tables[depth] for one in kept], axis=0)[None] for depth in depths]
    notes = [Remark("decoding_only", "steps of decoding; prompts are not in the statistics", sum(one.steps for one in kept))]
    if copies:
        notes.append(Remark("copied_ranks", "files of ranks that hold and routed the same as another rank: counted once", copies))
    cut = sum(not one.whole for one in ranks)
    if cut:
        notes.append(Remark("no_summary", "files without a summary at their end: the recorder was stopped", cut))
    meta = recorded_meta(options, NAME, layer_table(depths, sizes.pop(), first.top_k), {"files": len(files)})
    return counts_of(counts, (options.domain or path.stem,), meta, notes)


def _files(path: Path) -> list[Path]:
    return sorted(path.glob(PATTERN)) if path.is_dir() else [path] if path.is_file() else []


def _rank(path: Path) -> Rank:
    found: Rank | None = None
    for number, _, line in _json.lines(path):
        where = f"{path}: line {number}"
        record = _json.parse(line, where)
        kind = _json.field(record, "record_type", str, where)
        if found is None:
            if kind != "metadata" or record.get("schema_version") != SCHEMA:
                raise ReadError(f"{where}: field record_type: the first record is to be metadata of schema_version {SCHEMA}")
            found = _opened(path, record, where)
        elif kind == "decode_step":
            _add(found, record, where)
        elif kind == "summary":
            found.whole = True
        else:
            raise ReadError(f"{where}: field record_type: {kind[:40]!r}; expected decode_step or summary")
    if found is None:
        raise ReadError(f"{path}: byte 0: empty; record again")
    return found


def _opened(path: Path, record: Any, where: str) -> Rank:
    rank, iteration, top_k = (_json.field(record, name, int, where) for name in ("global_rank", "iteration", "top_k"))
    found = Rank(path, rank, iteration, top_k)
    for index, layer in enumerate(_json.field(record, "layers", list, where)):
        at = f"{where}: layers[{index}]"
        depth, n_experts = _json.field(layer, "layer_id", int, at), _json.field(layer, "global_num_experts", int, at)
        local = _json.field(layer, "local_expert_ids", list, at)
        good = all(type(one) is int and 0 <= one < n_experts for one in local) and len(set(local)) == len(local)
        if depth in found.tables or not 0 <= depth < MOST_LAYERS or not 1 <= n_experts <= MOST_EXPERTS or not good:
            raise ReadError(f"{at}: layer_id {depth}, global_num_experts {n_experts}, or local_expert_ids: not those of a layer; record again")
        found.tables[depth], found.local[depth] = np.zeros(n_experts, np.int64), tuple(local)
    return found


def _add(found: Rank, record: Any, where: str) -> None:
    layers = _json.field(record, "layers", list, where)
    seen = set()
    for index, layer in enumerate(layers):
        at = f"{where}: layers[{index}]"
        depth, counts = _json.field(layer, "layer_id", int, at), _json.field(layer, USEFUL, list, at)
        if depth not in found.tables or depth in seen:
            raise ReadError(f"{at}: field layer_id: {depth} is not in the metadata, or twice; is the file put together from two?")
        seen.add(depth)
        if len(counts) != len(found.local[depth]) or not all(type(one) is int and 0 <= one < 2**53 for one in counts):
            raise ReadError(f"{at}: field {USEFUL}: {len(counts)} entries for {len(found.local[depth])} local experts, or no counts; record again")
        found.tables[depth][list(found.local[depth])] += np.array(counts, np.int64)
        found.routes.append((record.get("decode_step"), depth, layer.get("useful_route_sha256"), tuple(counts)))
    found.steps += 1


def _without_copies(ranks: list[Rank]) -> tuple[list[Rank], int]:
    kept: list[Rank] = []
    copies = 0
    for one in ranks:
        others = [other for other in kept if other.iteration == one.iteration]
        if any(other.rank == one.rank for other in others):
            raise ReadError(f"{one.path}: rank {one.rank} of iteration {one.iteration} is there twice; give each file once")
        if any(other.local == one.local and other.routes == one.routes for other in others):
            copies += 1
            continue
        for other in others:
            for depth, ids in one.local.items():
                if set(ids) & set(other.local[depth]) and set(ids) != set(other.local[depth]):
                    raise ReadError(f"{one.path} and {other.path}: layer {depth}: they share some local experts and not others; ids may be of places "
                                    "and not of experts: record without redundant experts")
        kept.append(one)
    return kept, copies
