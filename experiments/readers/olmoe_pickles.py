"""Counts as OLMoE's `run_routing_analysis.py` pickles them: `expert_counts/{domain}.pkl` and its siblings, Counters of three layers.

D domain, L recorded layer, E expert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.readers import _pickles
from experiments.readers._recorded import MOST_COUNTED, asked, counts_of, labelled, recorded_meta
from experiments.readers._rows import MOST_EXPERTS, layer_table
from experiments.readers.contract import ForeignCounts, ReadError, ReadOptions, Remark

NAME, KIND = "olmoe-pickles", "counts"
COUNTS, PAIRS, TYPES, FIRST = "expert_counts", "expert_counts_crosslayer", "eid2token", "_top1"
LAYERS = (0, 7, 15)  # that the script tallies
MOST_TYPES = 2**31 - 1


def recognises(path: Path) -> bool:
    """A pickled list of Counters, or a folder that holds `expert_counts` with such files."""
    first = next(iter(_files(path, COUNTS).values()), None)
    return first is not None and _pickles.is_pickle(first) and _pickles.names(first, ("collections", "Counter")) \
        and not _pickles.names(first, ("target_routing",))


def read(path: Path, options: ReadOptions) -> ForeignCounts:
    """Counts by domain, which is the file's name. A file alone gives its counts; a folder also first choices, pairs and token types.

    top_k is what all selections are to first choices, unless `options` say otherwise. Pairs of the `_top1` files are of first choices; the
    others pair equal ranks only and are taken where there are no `_top1` files.
    """
    files = _files(path, COUNTS)
    if not files:
        raise ReadError(f"{path}: no expert_counts/<domain>.pkl in it; give such a file or the folder that holds expert_counts")
    depths = options.layers or LAYERS
    tallies = {domain: _tallies(file, len(depths), 1) for domain, file in files.items()}
    most = max(int(rows[:, 0].max(initial=0)) for tables in tallies.values() for rows in tables)
    n_experts = asked(options.n_experts, "n-experts", path, f"highest id {most}")
    counts = _dense(files, tallies, n_experts)
    first = _of_all(path, COUNTS + FIRST, files, len(depths), n_experts)
    inferred = None
    if first is not None:
        totals, ones = (np.array([table.sum(axis=1) for table in tables]) for tables in (counts, first))
        if (ones > 0).all() and (totals % ones == 0).all() and len(np.unique(totals // ones)) == 1:
            inferred = int((totals // ones).flat[0])
    top_k = asked(options.top_k or inferred, "top-k", path, "there are no first choices to compare with")
    pairs, pairs_first, notes = _pairs(path, files, len(depths), n_experts, counts, first)
    types = _types(path, files, len(depths), n_experts, counts)
    vocabulary = max((int(rows[:, 2].max(initial=-1)) + 1 for rows in types), default=0) if types else 0
    domains = labelled(tuple(files), options, path)
    meta = recorded_meta(options, NAME, layer_table(depths, n_experts, top_k, "model.layers.{}.mlp.gate"), {"files": len(files)}, vocabulary)
    found = counts_of(counts, domains, meta, notes)
    return ForeignCounts(found.meta, found.domains, found.counts, first, pairs, pairs_first, found.tokens, types, found.remarks)


def _files(path: Path, kind: str) -> dict[str, Path]:
    """Domain -> file of one kind below a folder, or the file itself."""
    if path.is_file():
        beside = path.parent.parent / kind / path.name
        return {path.stem: path} if kind == COUNTS else ({path.stem: beside} if path.parent.name == COUNTS and beside.is_file() else {})
    folder = path if path.name == COUNTS and kind == COUNTS else (path.parent if path.name == COUNTS else path) / kind
    return {file.stem: file for file in sorted(folder.glob("*.pkl"))} if folder.is_dir() else {}


def _tallies(path: Path, n_layers: int, n_keys: int) -> list[NDArray[np.int64]]:
    """Per layer, rows (key ..., count) of one file of Counters."""
    content = _pickles.values(path, "pickle")
    if not isinstance(content, list) or len(content) != n_layers or not all(isinstance(one, dict) for one in content):
        raise ReadError(f"{path}: expected a list of {n_layers} Counters, one for each of the layers; name others with --layers")
    return [_rows(f"{path}: layer {index}", one, n_keys) for index, one in enumerate(content)]


def _rows(where: str, counter: Mapping[Any, Any], n_keys: int) -> NDArray[np.int64]:
    rows, total = [], 0
    for key, count in counter.items():
        parts = key if isinstance(key, tuple) else (key,)
        if len(parts) != n_keys or not all(type(one) is int and 0 <= one < MOST_TYPES for one in parts) or type(count) is not int or count < 0:
            raise ReadError(f"{where}: {str(key)[:40]}: {str(count)[:40]}: expected {n_keys} ids and a count; tally again")
        total += count
        if total >= MOST_COUNTED:
            raise ReadError(f"{where}: {str(key)[:40]}: the counts so far sum to {str(total)[:40]}, which no recording holds; tally again")
        rows.append((*parts, count))
    return np.array(rows, np.int64).reshape(-1, n_keys + 1)


def _dense(files: Mapping[str, Path], tallies: Mapping[str, Sequence[NDArray[np.int64]]], n_experts: int) -> tuple[NDArray[np.int64], ...]:
    """Per layer, [D, E] or [D, E, E] of tallies with one or two keys. ReadError for an expert that no layer has."""
    found = []
    for index in range(len(next(iter(tallies.values())))):
        tables = []
        for domain, layers in tallies.items():
            rows = layers[index]
            if len(rows) and int(rows[:, :-1].max()) >= n_experts:
                high = int(rows[:, :-1].max())
                raise ReadError(f"{files[domain]}: layer {index}: expert id {high}, but a layer has {n_experts} experts"
                                f"{'; off by one?' if high == n_experts else ''}; correct --n-experts")
            table = np.zeros((n_experts,) * (rows.shape[1] - 1), np.int64)
            table[tuple(rows[:, :-1].T)] = rows[:, -1]
            tables.append(table)
        found.append(np.stack(tables))
    return tuple(found)


def _of_all(path: Path, kind: str, files: Mapping[str, Path], n_layers: int, n_experts: int, n_keys: int = 1) -> tuple[NDArray[np.int64], ...] | None:
    others = _files(path, kind)
    if not files or set(others) != set(files):
        return None
    return _dense(others, {domain: _tallies(others[domain], n_layers, n_keys) for domain in files}, min(n_experts, MOST_EXPERTS))


def _pairs(path: Path, files: Mapping[str, Path], n_layers: int, n_experts: int, counts: Sequence[NDArray[np.int64]],
           first: Sequence[NDArray[np.int64]] | None) -> tuple[dict[tuple[int, int], NDArray[np.int64]], bool, list[Remark]]:
    for kind, margins, pairs_first in ((PAIRS + FIRST, first, True), (PAIRS, counts, False)):
        tables = None if margins is None else _of_all(path, kind, files, n_layers - 1, n_experts, 2)
        if tables is None or margins is None:
            continue
        for index, table in enumerate(tables):
            if (table.sum(axis=2) != margins[index]).any() or (table.sum(axis=1) != margins[index + 1]).any():
                raise ReadError(f"{path}: {kind}: pairs of layers {index} and {index + 1} do not sum to the counts of these layers; the files are of "
                                "different runs: tally again")
        notes = [] if pairs_first else [Remark("equal_rank_pairs", "pairs join the r-th choice of one layer with the r-th of the next only: they are "
                                               "no joint counts of the top-k", len(tables))]
        return {(index, index + 1): table for index, table in enumerate(tables)}, pairs_first, notes
    return {}, True, []


def _types(path: Path, files: Mapping[str, Path], n_layers: int, n_experts: int, counts: Sequence[NDArray[np.int64]],
           ) -> tuple[NDArray[np.int64], ...] | None:
    others = {domain: file for domain, file in _files(path, TYPES).items() if domain in files}
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(n_layers)]
    for number, domain in enumerate(files):
        if domain not in others:
            continue
        content = _pickles.values(others[domain], "pickle")
        if not isinstance(content, list) or len(content) != n_layers or not all(isinstance(one, dict) for one in content):
            raise ReadError(f"{others[domain]}: expected a list of {n_layers} mappings from expert to Counter; name other layers with --layers")
        for index, experts in enumerate(content):
            rows = [_typed(f"{others[domain]}: layer {index}", number, expert, counter, n_experts) for expert, counter in experts.items()]
            table = np.concatenate(rows) if rows else np.empty((0, 4), np.int64)
            if int(table[:, 3].sum()) != int(counts[index][number].sum()):
                raise ReadError(f"{others[domain]}: layer {index}: its counts sum to {int(table[:, 3].sum()):,}, but those of {COUNTS} to "
                                f"{int(counts[index][number].sum()):,}; the files are of different runs")
            parts[index].append(table)
    return tuple(np.concatenate(one) for one in parts) if others else None


def _typed(where: str, domain: int, expert: Any, counter: Any, n_experts: int) -> NDArray[np.int64]:
    if type(expert) is not int or not 0 <= expert < n_experts or not isinstance(counter, dict):
        raise ReadError(f"{where}: expert {str(expert)[:40]}: expected one of {n_experts} experts and a Counter of token ids; correct --n-experts")
    rows = _rows(f"{where}: expert {expert}", counter, 1)
    return np.column_stack([np.full(len(rows), domain), np.full(len(rows), expert), rows]).astype(np.int64)
