"""Seed 001's three functions, on any trace: load_traces, analyze_layer_statistics, create_expert_frequency_plots.

    traces = load_traces("routing_data/my_traces.pkl")      # a run, a trace of ours, or any file or folder that `assay import` knows
    stats, usage = analyze_layer_statistics(traces)
    create_expert_frequency_plots(usage, stats)

E expert.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.rows import slot_major
from analysis.trace import CountsTrace, RoutingTrace

Usage = Mapping[str, NDArray[np.int64]]


def load_traces(path: str | Path, **said: Any) -> RoutingTrace | CountsTrace:
    """The trace, or the counts, at `path`: a run directory, a trace directory, or a file or folder in a foreign format.

    said: what such a file does not say, by the names of experiments.readers.ReadOptions (n_experts=64, top_k=6, ...).
    Raises TraceError, naming file, place and remedy, for what cannot be read.
    """
    from experiments.importing import Reading, whole
    from experiments.readers.contract import ReadOptions
    from experiments.stages.context import stored_routing
    from tracking import count_tables

    given = Path(path).expanduser()
    for directory in (given, given / "trace"):
        if (directory / "manifest.json").is_file() or count_tables.is_counts(directory):
            return stored_routing(directory)
    return whole(given, Reading(ReadOptions(**said)))


def analyze_layer_statistics(traces: RoutingTrace | CountsTrace, *, seed: int = 0) -> tuple[dict[str, dict[str, Any]], Usage]:
    """Seed 001's statistics of every layer, and the loads they are of: {layer: row}, {layer: selections of each expert [E]}.

    A row has the seed's keys with the seed's plug-in values, None where undefined, and under `uniform_null` what uniform routing of as many
    selections gives for each (mean, central 95 %, excess). All documents count, whatever their split. Layers are named by block index.
    """
    from analysis.metrics.usage import statistics_row
    from analysis.registry import every
    from analysis.resampling import generator
    from analysis.uniform_null import uniform_nulls

    stats: dict[str, dict[str, Any]] = {}
    usage: dict[str, NDArray[np.int64]] = {}
    ids = {one.seed: one.id for one in every().values() if one.id.startswith("usage_") and one.seed}
    several = len({layer.stack for layer in traces.meta.layers}) > 1
    for layer, loads in zip(traces.meta.layers, _loads(traces)):
        name = f"{layer.stack} {layer.depth}" if several else str(layer.depth)
        row = statistics_row(layer.depth, loads)
        total = int(loads.sum())
        if total and total % layer.top_k == 0:
            nulls = uniform_nulls(ids.values(), loads, generator(seed, "uniform usage", layer.key), k=layer.top_k, draws=199)
            row["uniform_null"] = {key: {"mean": nulls[id].null, "low": nulls[id].low, "high": nulls[id].high, "excess": nulls[id].excess}
                                   for key, id in ids.items()}
        stats[name], usage[name] = row, loads
    return stats, usage


def create_expert_frequency_plots(usage: Usage, stats: Mapping[str, Mapping[str, Any]], directory: str | Path = ".") -> list[Path]:
    """Write layer_X_expert_frequency.png for every layer into `directory`; returns the paths. ValueError for layers without statistics."""
    from analysis.figures.atlas_usage import LayerLoads, expert_frequency
    from experiments.report.figure_files import png
    from tracking.atomic import write_bytes

    missing = sorted(set(usage) - set(stats))
    if missing:
        raise ValueError(f"layer {missing[0]}: loads without statistics; take both from one analyze_layer_statistics")
    Path(directory).mkdir(parents=True, exist_ok=True)
    paths = []
    for name, loads in usage.items():
        paths.append(Path(directory) / f"layer_{name.replace(' ', '_')}_expert_frequency.png")
        write_bytes(paths[-1], png(expert_frequency(LayerLoads(loads, name))))
    return paths


def _loads(traces: RoutingTrace | CountsTrace) -> list[NDArray[np.int64]]:
    """Selections of each expert of every layer [E]. Raises TraceError for rows that are no routing."""
    layers = traces.meta.layers
    if isinstance(traces, CountsTrace):
        return [table.sum(axis=0) for table in traces.counts]
    found = [np.zeros(layer.n_experts, np.int64) for layer in layers]
    for batch in traces.batches():
        for number, layer in enumerate(layers):
            found[number] += np.bincount(slot_major(batch, number, layer).ravel(), minlength=layer.n_experts)
    return found
