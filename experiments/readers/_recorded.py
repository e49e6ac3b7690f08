"""What readers of inference engines share: a meta with what engines do not record, and counts by layer from a list of numbers.

L MoE layer, E expert.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.trace import LayerMeta, TraceMeta
from experiments.readers._rows import MOST_EXPERTS, layer_table, plain
from experiments.readers.contract import UNKNOWN, ForeignCounts, ReadError, ReadOptions, Remark

ABSENT = "absent"
MOST_COUNTED = 2**53  # selections of a recording: beyond, sums in floating point and in int64 are no longer exact
MOST_LAYERS = 4096
ORDER = Remark("recorded_order", "no weights were recorded: the order of a token's experts is the recorder's, falling score where the engine sorts")
Row = tuple[str, int, int, int]  # where, layer, expert, count


def recorded_meta(options: ReadOptions, collector: str, layers: Sequence[LayerMeta], details: Mapping[str, Any],
                  vocabulary_size: int = 0) -> TraceMeta:
    """Meta of routing of which only expert ids were kept; `details` says what else the source told."""
    return TraceMeta(options.model or UNKNOWN, UNKNOWN, tuple(layers), UNKNOWN, ABSENT, ABSENT, ABSENT, vocabulary_size, f"assay-{collector} 1",
                     details={"absent": ["weights", "entropy_nats", *([] if vocabulary_size else ["token_id"])], **details})


def asked(value: int | None, name: str, path: Path, seen: str) -> int:
    """An option that the file does not answer. ReadError says what was seen and which option to give."""
    if value is None:
        raise ReadError(f"{path}: the file does not say {name.replace('-', ' ').replace('n experts', 'how many experts a layer has')} ({seen}); "
                        f"give --{name}")
    return value


def labelled(domains: Sequence[str], options: ReadOptions, path: Path) -> tuple[str, ...]:
    """The domains of one path, or the label of the only one. ReadError for one label of several domains."""
    if options.domain is None:
        return tuple(domains)
    if len(domains) > 1:
        raise ReadError(f"{path}: holds {len(domains)} domains ({', '.join(domains[:6])}), for which --domain {options.domain!r} is no label; leave "
                        "it out, or import each by itself")
    return (options.domain,)


def layer_list(options: ReadOptions, found: Sequence[int], path: Path) -> tuple[int, ...]:
    """Layers in the order they have in the file, compared with the option. ReadError where they differ."""
    if options.layers is not None and sorted(options.layers) != sorted(found):
        raise ReadError(f"{path}: layers {shown(found)}, but --layers says {shown(options.layers)}; is it a trace of another model?")
    return tuple(found)


def shown(numbers: Iterable[int]) -> str:
    """The first twelve of some numbers."""
    every = [str(number) for number in numbers]
    return ", ".join(every[:12]) + (", ..." if len(every) > 12 else "")


def counted(path: Path, rows: Iterable[Row], options: ReadOptions, collector: str, details: Mapping[str, Any]) -> ForeignCounts:
    """Counts of one domain by layer and expert. ReadError for numbers that no layer has, and where options are missing."""
    tables: dict[int, dict[int, int]] = {}
    most, total = -1, 0
    for where, layer, expert, count in rows:
        if not 0 <= layer < MOST_LAYERS or not 0 <= expert < MOST_EXPERTS or not 0 <= count < 2**62:
            raise ReadError(f"{where}: layer {layer}, expert {expert}, count {count}: not those of a layer; export again")
        if options.n_experts is not None and expert >= options.n_experts:
            hint = "; off by one?" if expert == options.n_experts else ""
            raise ReadError(f"{where}: expert id {expert}, but --n-experts says {options.n_experts}{hint}; correct it, or export again")
        table = tables.setdefault(layer, {})
        table[expert] = table.get(expert, 0) + count
        total += count
        if total >= MOST_COUNTED:
            raise ReadError(f"{where}: the counts so far sum to {total}, which no recording holds; export again")
        most = max(most, expert)
    if not any(sum(table.values()) for table in tables.values()):
        raise ReadError(f"{path}: it counts nothing; record again")
    depths = layer_list(options, sorted(tables), path)
    n_experts = asked(options.n_experts, "n-experts", path, f"highest id {most}")
    top_k = asked(options.top_k, "top-k", path, "only counts were kept")
    arrays = [np.array([[tables[depth].get(expert, 0) for expert in range(n_experts)]], np.int64) for depth in depths]
    return counts_of(arrays, (options.domain or path.stem,), recorded_meta(options, collector, layer_table(depths, n_experts, top_k), details))


def counts_of(arrays: Sequence[NDArray[np.int64]], domains: Sequence[str], meta: TraceMeta, remarks: Sequence[Remark] = ()) -> ForeignCounts:
    """ForeignCounts of tables [D, E] by layer; tokens only where every layer agrees on them."""
    totals = np.array([[int(row.sum()) for row in table] for table in arrays])
    sizes = np.array([[layer.top_k] for layer in meta.layers])
    tokens, notes = None, list(remarks)
    if (totals % sizes == 0).all() and (totals // sizes == (totals // sizes)[:1]).all():
        tokens = (totals // sizes)[0].astype(np.int64)
    else:
        notes.append(Remark("layers_differ_in_total", "layers whose selections are not top_k of the same number of tokens: tokens were left out of "
                            "some layers, or top_k is wrong", int(np.unique(totals).size)))
    return ForeignCounts(meta, tuple(plain(one) for one in domains), tuple(arrays), tokens=tokens, remarks=tuple(notes))
