"""Counts that SGLang's expert distribution recorder dumps: `expert_distribution_recorder_*.pt` of modes stat and per_pass, and its older CSV.

S step, L hidden layer, E logical expert, P place (physical expert).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.readers import _pickles, _text
from experiments.readers._recorded import MOST_COUNTED, asked, counted, counts_of, recorded_meta, shown
from experiments.readers._rows import layer_table
from experiments.readers.contract import ForeignCounts, ReadError, ReadOptions, Remark

NAME, KIND = "sglang-recorder", "counts"
PATTERN = "expert_distribution_recorder_*.pt"
HEADER = (b"layer_id", b"expert_id", b"count")
MAP = "last_physical_to_logical_map"
ZIPPED = b"PK"
NOTE = Remark("last_map_only", "the map from places to experts is that of the recording's end; what was recorded under another is mapped wrongly")


def recognises(path: Path) -> bool:
    """A .pt file with the recorder's fields and no ids of tokens, a folder of such files, or the CSV's header."""
    first = next(iter(dumps(path)), None)
    if first is None:
        return False
    if path.is_file() and _text.begins_with(path, HEADER):
        return True
    return is_dump(first) and not _pickles.names(first, ("topk_ids_of_layer",))


def is_dump(path: Path) -> bool:
    """Whether a file is a .pt archive that names the recorder's fields; it is not unpickled for that."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == ZIPPED
    except OSError:
        return False
    return zipped and (_pickles.names(path, ("logical_count",)) or _pickles.names(path, ("records", MAP)))


def dumps(path: Path) -> list[Path]:
    """The dumps of a folder, or the file."""
    return sorted(path.glob(PATTERN)) if path.is_dir() else [path] if path.is_file() else []


def read(path: Path, options: ReadOptions) -> ForeignCounts:
    """Counts by layer and logical expert, over all steps and ranks. Needs `options.top_k`.

    stat: already summed over ranks. per_pass: places are mapped to experts, ranks summed; ranks that counted the same in every pass are
    copies of one another and are counted once. Layers without counts are dense and absent.
    """
    if path.is_file() and _text.begins_with(path, HEADER):
        return counted(path, ((where, *row) for where, row in _csv(path)), options, NAME, {})
    files = dumps(path)
    if not files:
        raise ReadError(f"{path}: no {PATTERN} in it; give such a file or its folder")
    loaded = [(file, content(file)) for file in files]
    if any("logical_count" in one for _, one in loaded):
        total, notes = _stat(loaded)
    else:
        total, notes = _per_pass(loaded, path)
    return _counts(path, total, notes, options)


def content(path: Path) -> Mapping[str, Any]:
    """What a dump holds. ReadError, with the refused global, where it is not plain."""
    found = _pickles.values(path, "pt")
    if not isinstance(found, dict) or not ("logical_count" in found or (isinstance(found.get("records"), list) and MAP in found)):
        raise ReadError(f"{path}: neither logical_count nor records and {MAP}; it is no dump of the recorder")
    return found


def _csv(path: Path) -> Any:
    yield from _text.rows(path, b",", 3, HEADER)


def _stat(loaded: Sequence[tuple[Path, Mapping[str, Any]]]) -> tuple[NDArray[np.int64], list[Remark]]:
    tables, copies, steps, full = [], 0, 0, 0
    for file, one in loaded:
        if "logical_count" not in one:
            raise ReadError(f"{file}: a dump of another mode than its neighbours; import them apart")
        if one.get("rank") not in (None, 0):
            copies += 1
            continue
        found = _table(file, "logical_count", one["logical_count"], 3)
        used = found.sum(axis=(1, 2)) > 0
        steps, full = steps + int(used.sum()), full + int(used.all() and len(used) > 1)
        tables.append(found.sum(axis=0))
    if not tables or len({table.shape for table in tables}) > 1:
        raise ReadError(f"{loaded[0][0].parent}: no dump of rank 0, or dumps of different models; import them apart")
    found_notes = [Remark("steps_counted", "forward passes that are summed", steps)]
    if full:
        found_notes.append(Remark("buffer_full", "dumps whose buffer has no free step: earlier steps may have been overwritten", full))
    if copies:
        found_notes.append(Remark("copied_ranks", "dumps of other ranks than 0, which hold the same sums: left out", copies))
    return summed(tables, loaded[0][0].parent), found_notes


def summed(tables: Sequence[NDArray[np.int64]], where: Path) -> NDArray[np.int64]:
    """The sum of tables of counts. ReadError where it is beyond what any recording holds."""
    if sum(float(table.sum(dtype=np.float64)) for table in tables) >= MOST_COUNTED:
        raise ReadError(f"{where}: the dumps together sum to {MOST_COUNTED} and more, which no recording holds; import them apart, or record again")
    return np.asarray(np.sum(tables, axis=0), np.int64)


def _per_pass(loaded: Sequence[tuple[Path, Mapping[str, Any]]], path: Path) -> tuple[NDArray[np.int64], list[Remark]]:
    passes: dict[int, dict[tuple[int, str], NDArray[np.int64]]] = {}
    for file, one in loaded:
        places = physical_to_logical(file, one)
        for index, record in enumerate(one["records"]):
            where = f"{file}: records[{index}]"
            if not isinstance(record, dict) or "global_physical_count" not in record:
                raise ReadError(f"{where}: field global_physical_count: absent; was it recorded per token? give such dumps by themselves")
            rank, number = record.get("rank"), record.get("forward_pass_id")
            if type(rank) is not int or type(number) is not int:
                raise ReadError(f"{where}: field rank or forward_pass_id: expected numbers; record again")
            counts = _table(where, "global_physical_count", record["global_physical_count"], 2)
            key = (rank, str(record.get("gatherer_key", "")))
            if counts.shape != places.shape or key in passes.setdefault(number, {}):
                raise ReadError(f"{where}: counts {list(counts.shape)} under a map {list(places.shape)}, or pass {number} of rank {rank} twice")
            passes[number][key] = _logical(counts, places)
    if not passes or len({table.shape for tables in passes.values() for table in tables.values()}) > 1:
        raise ReadError(f"{path}: no pass in it, or passes of different models; record again, or import them apart")
    notes = [NOTE, Remark("steps_counted", "forward passes that are summed", len(passes))]
    ranks = {key[0] for tables in passes.values() for key in tables}
    alike = len(ranks) > 1 and all(len(tables) == len(ranks) and all((table == first).all() for table in tables.values())
                                   for tables in passes.values() for first in [next(iter(tables.values()))])
    if alike:
        notes.append(
            Remark("copied_ranks", "ranks that counted the same in every pass, for they computed the same tokens: counted once", len(ranks) - 1))
    chosen = [list(tables.values())[:1] if alike else list(tables.values()) for tables in passes.values()]
    return summed([table for tables in chosen for table in tables], path), notes


def physical_to_logical(path: Path, dump: Mapping[str, Any]) -> NDArray[np.int64]:
    """Expert of each place [L, P]. ReadError where some expert has no place."""
    found = _table(path, MAP, dump[MAP], 2)
    n_experts = int(found.max()) + 1
    for layer, row in enumerate(found):
        if len(np.unique(row)) != n_experts:
            raise ReadError(f"{path}: field {MAP}: layer {layer}: {len(np.unique(row))} experts have places, ids reach {n_experts - 1}; record again")
    return found


def _logical(counts: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    found = np.zeros((len(counts), int(places.max()) + 1), np.int64)
    np.add.at(found, (np.arange(len(counts))[:, None], places), counts)
    return found


def _table(where: object, name: str, found: Any, dimensions: int) -> NDArray[np.int64]:
    if not isinstance(found, np.ndarray) or found.ndim != dimensions or found.dtype.kind not in "iu" or not found.size or int(found.min()) < 0:
        shape = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
        raise ReadError(f"{where}: field {name}: {shape}, expected {dimensions} dimensions of counts or ids; record again")
    return checked(found, f"{where}: field {name}")


def checked(found: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Counts of at least 0 as int64. ReadError where one, or their sum, is beyond what any recording holds and int64 might."""
    total = float(found.sum(dtype=np.float64))
    if total >= MOST_COUNTED:
        raise ReadError(f"{where}: the largest is {int(found.max())}, the sum {total:.3g}, which no recording holds; record again")
    return found.astype(np.int64)


def _counts(path: Path, total: NDArray[np.int64], notes: Sequence[Remark], options: ReadOptions) -> ForeignCounts:
    used = np.flatnonzero(total.any(axis=1)).tolist()
    depths = list(options.layers) if options.layers is not None else used
    if not used or sorted(depths) != used:
        raise ReadError(f"{path}: layers {shown(used)} of {len(total)} were counted, --layers says {shown(depths)}; correct it, or record again")
    if options.n_experts not in (None, total.shape[1]):
        raise ReadError(f"{path}: {total.shape[1]} logical experts, but --n-experts says {options.n_experts}; leave the option out")
    top_k = asked(options.top_k, "top-k", path, "only counts were kept")
    found = list(notes)
    if len(used) < len(total):
        found.append(Remark("layers_without_routing", "layers that counted nothing, taken for dense and left out", len(total) - len(used),
                            1 - len(used) / len(total)))
    meta = recorded_meta(options, NAME, layer_table(depths, total.shape[1], top_k), {"hidden_layers": len(total)})
    return counts_of([total[depth][None] for depth in depths], (options.domain or path.stem,), meta, found)
