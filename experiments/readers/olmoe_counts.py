"""Counts of OLMoE's and Mixtral's routing by domain, as the OLMoE paper's scripts tally them: `<model>_counts.npz`, `<model>_vocab_<domain>.npz`.

D domain, L recorded layer, E expert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.trace import TraceMeta
from experiments.readers import _npz
from experiments.readers._recorded import labelled
from experiments.readers._rows import layer_table, plain
from experiments.readers.contract import UNKNOWN, ForeignCounts, ReadError, ReadOptions, Remark

NAME, KIND = "olmoe-counts", "counts"
ALL, FIRST = "expert_counts__", "expert_counts_top1__"
PAIRS, FIRST_PAIRS = "expert_counts_crosslayer__", "expert_counts_crosslayer_top1__"
SCALARS = ("layers", "top_k", "tokens")
ROWS = ("layer_idx", "expert", "token_id", "count")
# stem -> model, vocabulary, MoE layers
MODELS = {"mistral": ("mistralai/Mixtral-8x7B-v0.1", 32_000, 32), "olmoe": ("allenai/OLMoE-1B-7B-0924", 50_304, 16)}

Int = NDArray[np.int64]
Tables = Mapping[str, Int]


def recognises(path: Path) -> bool:
    """An .npz with tables of counts by domain, or a folder that holds exactly one."""
    return len(_counts_files(path)) == 1


def read(path: Path, options: ReadOptions) -> ForeignCounts:
    """Every table, its sums compared with tokens x k and with each other.

    Files `<model>_vocab_<domain>.npz` beside it give token types. Tables `expert_counts__tulu__<model>` are of other models: they are left
    out, unless `options.model` names one of them. Pairs are of first choices where the file has these, else of equal ranks
    (`pairs_first` says which).
    """
    files = _counts_files(path)
    if len(files) != 1:
        raise ReadError(f"{path}: {len(files)} files of counts; give one <model>_counts.npz")
    source = files[0]
    with _npz.Archive(source) as archive:
        tables = archive.arrays(list(archive.headers))
    names = _domains(tables, options.model)
    layers, top_k, tokens = _scalars(source, tables)
    shape = _shape(source, tables, ALL + names[0], len(layers))
    if options.n_experts not in (None, shape[1]):
        raise ReadError(f"{source}: field {ALL}{names[0]}: {shape[1]} experts, but --n-experts says {options.n_experts}; leave the option out")
    counts = _stack(source, tables, ALL, names, shape)
    tulu = names[0].startswith("tulu__")
    tokens_D = np.full(len(names), tokens, np.int64) if not tulu else counts[0].sum(axis=1) // top_k
    _check_sums(source, counts, tokens_D * top_k, names, "tokens x top_k")
    first = _stack(source, tables, FIRST, names, shape) if all(FIRST + name in tables for name in names) else None
    if first is not None:
        _check_sums(source, first, tokens_D, names, "tokens")
    pairs, pairs_first = _pairs(source, tables, names, counts, first)
    stem = source.stem.removesuffix("_counts")
    model, vocabulary, moe_layers = MODELS.get(stem, (stem, 0, None))
    vocabularies = _vocabularies(source, stem, names)
    types = _types(vocabularies, names, counts) if vocabularies else None
    domains = tuple(plain(name.split("__")[0]) for name in names)
    domains = labelled(domains, options, source)
    seen = max((int(rows[:, 2].max(initial=-1)) + 1 for rows in types), default=0) if types else 0
    meta = TraceMeta(options.model or model, UNKNOWN,
                     layer_table(layers, shape[1], top_k, "model.layers.{}.mlp.gate"), "softmax", "absent", "absent",
                     "absent", max(vocabulary, seen) if types else 0, "assay-olmoe-counts 1",
                     details={"file": source.name, "absent": ["documents", "weights", "entropy_nats"],
                              **({"moe_layers_of_model": moe_layers} if moe_layers and moe_layers >= len(layers) else {})})
    return ForeignCounts(meta, domains, counts, first, pairs, pairs_first, tokens_D, types,
                         tuple(_remarks(tables, pairs_first, vocabularies, names, types, counts)))


def _counts_files(path: Path) -> list[Path]:
    candidates = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    return [file for file in candidates if set(SCALARS) <= (found := _npz.fields(file)) and any(name.startswith(ALL) for name in found)]


def _domains(tables: Tables, model: str | None) -> list[str]:
    every = [name.removeprefix(ALL) for name in tables if name.startswith(ALL)]
    other = [name for name in every if "__" in name]
    chosen = [name for name in other if model is not None and name.split("__", 1)[1] == model]
    return chosen or [name for name in every if name not in other] or other[:1]


def _scalars(path: Path, tables: Tables) -> tuple[list[int], int, int]:
    for name, dimensions in (("layers", 1), ("top_k", 0), ("tokens", 0)):
        found = tables[name]
        if found.ndim != dimensions or found.dtype.kind not in "iu" or not found.size or int(found.min()) < (0 if name == "layers" else 1):
            raise ReadError(f"{path}: field {name}: {found.dtype} {list(found.shape)}, expected {dimensions} dimensions of whole numbers")
    return tables["layers"].tolist(), int(tables["top_k"]), int(tables["tokens"])


def _shape(path: Path, tables: Tables, name: str, n_layers: int) -> tuple[int, int]:
    found = tables[name]
    if found.ndim != 2 or found.shape[0] != n_layers or not found.shape[1]:
        raise ReadError(f"{path}: field {name}: {list(found.shape)}, expected [{n_layers} layers, experts]")
    return n_layers, found.shape[1]


def _stack(path: Path, tables: Tables, prefix: str, names: Sequence[str], shape: tuple[int, ...]) -> tuple[Int, ...]:
    """Per entry of the first axis, the tables of all domains: [D, ...]."""
    for name in names:
        found = tables[prefix + name]
        if found.shape != shape or found.dtype.kind not in "iu" or int(found.min(initial=0)) < 0:
            raise ReadError(f"{path}: field {prefix + name}: {found.dtype} {list(found.shape)}, least {found.min(initial=0)}; expected counts "
                            f"of shape {list(shape)} as in the other domains")
    return tuple(np.stack([tables[prefix + name][index].astype(np.int64) for name in names]) for index in range(shape[0]))


def _check_sums(path: Path, counts: Sequence[Int], expected: Int, names: Sequence[str], words: str) -> None:
    for index, table in enumerate(counts):
        wrong = np.flatnonzero(table.sum(axis=1) != expected)
        if len(wrong):
            domain = int(wrong[0])
            raise ReadError(f"{path}: domain {names[domain]!r}, layer {index}: counts sum to {int(table[domain].sum()):,}, but {words} is "
                            f"{int(expected[domain]):,}; correct tokens or top_k, or tally again")


def _pairs(path: Path, tables: Tables, names: Sequence[str], counts: Sequence[Int], first: Sequence[Int] | None,
           ) -> tuple[dict[tuple[int, int], Int], bool]:
    for prefix, margins, pairs_first in ((FIRST_PAIRS, first, True), (PAIRS, counts, False)):
        if margins is None or not all(prefix + name in tables for name in names):
            continue
        n_experts = counts[0].shape[1]
        found = _stack(path, tables, prefix, names, (len(counts) - 1, n_experts, n_experts))
        for index, table in enumerate(found):
            for axis, layer in ((2, index), (1, index + 1)):
                wrong = np.argwhere(table.sum(axis=axis) != margins[layer])
                if len(wrong):
                    domain, expert = map(int, wrong[0])
                    raise ReadError(f"{path}: field {prefix}{names[domain]}: pairs of layers {index} and {index + 1}: those of expert {expert} of "
                                    f"layer {layer} sum to {int(table.sum(axis=axis)[domain, expert]):,}, but it was chosen "
                                    f"{int(margins[layer][domain, expert]):,} times; tally again")
        return {(index, index + 1): table for index, table in enumerate(found)}, pairs_first
    return {}, True


def _vocabularies(source: Path, stem: str, names: Sequence[str]) -> dict[str, Path]:
    candidates = {name: source.with_name(f"{stem}_vocab_{name}.npz") for name in names if "/" not in name}
    return {name: path for name, path in candidates.items() if path.is_file()}


def _types(vocabularies: Mapping[str, Path], names: Sequence[str], counts: Sequence[Int]) -> tuple[Int, ...]:
    parts: list[list[Int]] = [[] for _ in counts]
    for name, path in vocabularies.items():
        domain = names.index(name)
        layer, rows = _vocabulary(path, (len(counts), counts[0].shape[1]))
        for index in range(len(counts)):
            chosen = rows[layer == index]
            if int(chosen[:, 2].sum()) != int(counts[index][domain].sum()):
                raise ReadError(f"{path}: field count: layer {index}: sums to {int(chosen[:, 2].sum()):,}, but the counts of domain {name!r} sum "
                                f"to {int(counts[index][domain].sum()):,}; the two files are of different runs or models")
            parts[index].append(np.column_stack([np.full(len(chosen), domain), chosen]).astype(np.int64))
    return tuple(np.concatenate(one) for one in parts)


def _vocabulary(path: Path, shape: tuple[int, int]) -> tuple[Int, Int]:
    """Layer [n], and rows (expert, token id, count) [n, 3]."""
    with _npz.Archive(path) as archive:
        columns = archive.arrays(ROWS)
    sizes = {len(column) for column in columns.values() if column.ndim == 1 and column.dtype.kind in "iu"}
    if len(sizes) != 1 or any(column.ndim != 1 or column.dtype.kind not in "iu" for column in columns.values()):
        raise ReadError(f"{path}: fields {', '.join(ROWS)}: expected four columns of whole numbers, equally long")
    layer, expert, token, count = (columns[name].astype(np.int64) for name in ROWS)
    for name, column, low, high in (("layer_idx", layer, 0, shape[0]), ("expert", expert, 0, shape[1]), ("token_id", token, 0, 2**31),
                                    ("count", count, 1, 2**62)):
        bad = np.flatnonzero((column < low) | (column >= high))
        if len(bad):
            raise ReadError(f"{path}: row {int(bad[0])}, field {name}: {int(column[bad[0]])}, expected {low} to {high - 1}"
                            f"{'; off by one?' if int(column.max()) == high else ''}; tally again")
    key = (layer * shape[1] + expert) * 2**31 + token
    ordered = np.sort(key)
    if len(np.flatnonzero(ordered[1:] == ordered[:-1])):
        raise ReadError(f"{path}: one (layer, expert, token id) twice; a count is kept once: tally again")
    return layer, np.column_stack([expert, token, count])


def _remarks(tables: Tables, pairs_first: bool, vocabularies: Mapping[str, Path], names: Sequence[str], types: tuple[Int, ...] | None,
             counts: Sequence[Int]) -> list[Remark]:
    found = []
    every = {name.removeprefix(ALL) for name in tables if name.startswith(ALL)}
    equal = [name for name in tables if name.startswith(PAIRS)]
    if equal:
        words = ("tables that pair the r-th choice of one layer with the r-th of the next only were left out: first choices are there" if pairs_first
                 else "pairs join the r-th choice of one layer with the r-th of the next only; they are no joint counts of the top-k")
        found.append(Remark("equal_rank_pairs", words, len(equal)))
    if len(every) > len(names):
        left = sorted(every - set(names))
        found.append(Remark("other_models_left_out", f"tables left out that are of other models: {', '.join(left)[:200]}", len(left)))
    if types is not None:
        if len(vocabularies) < len(names):
            found.append(Remark("types_of_some_domains", f"token types are there of {', '.join(vocabularies)} only", len(vocabularies),
                                len(vocabularies) / len(names)))
        moved, total = 0, 0
        for rows, table in zip(types, counts):
            tally = np.zeros_like(table)
            np.add.at(tally, (rows[:, 0], rows[:, 1]), rows[:, 3])
            domains = np.unique(rows[:, 0])
            moved += int(np.abs(tally - table)[domains].sum()) // 2
            total += int(table[domains].sum())
        if moved:
            found.append(Remark("types_of_another_run", "selections that counts by token type give to another expert than the counts do: the two "
                                "were tallied in different runs", moved, moved / total))
    return found

