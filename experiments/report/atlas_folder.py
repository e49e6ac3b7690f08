"""The folder of an atlas: seed 001's files by the seed's names, filled from the tables and figures of the description."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.figures.atlas_usage import LayerLoads, expert_frequency
from analysis.metrics.usage import SEED_ROW, statistics_row
from analysis.uniform_null import UniformRouting
from experiments.report.atlas_view import depth_names, of_layer
from experiments.report.blocks import Picture, Section
from experiments.report.figure_files import png
from experiments.report.table_files import as_csv
from experiments.report.topology_columns import View, whole_table

FOLDER = "atlas"
STATISTICS, FREQUENCIES, PATHS = "comprehensive_expert_statistics.json", "proper_3d_statistics.json", "sample_trace_paths.json"
PICTURES = ("comparative_layer_statistics", "expert_selection_traces", "expert_transition_heatmap", "expert_usage_timeline", "domain_separation",
            "separated_layers", "repetition", "expert_load_map")
OF_COMPONENTS = "_all_components"
TABLES = {"usage": "Every usage statistic", "association": "Association of expert and domain", "experts": "Every expert and its class",
          "domain_specialization": "Use and affinity by domain", "domain_entropy": "Entropy by domain",
          "repetition": "Repetition by layer and domain",
          "sequence": "Transitions", "autocorrelation": "Agreement and information at a lag",
          "top_experts": "Five most used experts", "components": "Selections by component"}
DRAWN_UP_TO = 10**9  # selections for which the range of one expert under uniform routing is computed


def folder(view: View, sections: Sequence[Section], figures: Path) -> dict[str, bytes]:
    """Path inside the run directory -> bytes. A figure that was not drawn is no file; the report says why."""
    drawn = {block.name for section in sections for block in section.blocks if isinstance(block, Picture)}
    files = {f"{name}.png": (figures / f"{name}.png").read_bytes() for name in sorted(drawn) if name in PICTURES or name.endswith(OF_COMPONENTS)}
    files |= {STATISTICS: _json(statistics(view)), FREQUENCIES: _json(frequencies(view)), PATHS: _json(paths(view))}
    for number, name in enumerate(depth_names(view)):
        if loads_of(view, number).sum():
            files[f"layer_{name.replace(' ', '_')}_expert_frequency.png"] = png(frequency_figure(view, number))
    for name, caption in TABLES.items():
        if view.rows(name):
            files[f"tables/{name}{'_all' if name == 'experts' else ''}.csv"] = as_csv(
                whole_table(name, caption, view.content.evaluation.tables.get(name))).encode("utf-8", "backslashreplace")
    return {f"{FOLDER}/{name}": file for name, file in files.items()}


def loads_of(view: View, number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Selections of every expert of a layer [E]."""
    n = np.zeros(view.n_experts[number], np.int64)
    for row in of_layer(view, "loads", number):
        n[row["expert"]] = row["n"]
    return n


def frequency_figure(view: View, number: int) -> Any:
    """Seed 001's bars of one layer, with the range of one expert under uniform routing."""
    n, top_k = loads_of(view, number), view.content.trace.meta.layers[number].top_k
    return expert_frequency(LayerLoads(n, depth_names(view)[number], uniform_range(n, top_k)))


def uniform_range(n: np.ndarray[Any, np.dtype[np.int64]], top_k: int) -> tuple[float, float] | None:
    """Central 95 % of the load of one expert if every set were equally likely; None without selections, or for too many."""
    total = int(n.sum())
    if not 0 < total <= DRAWN_UP_TO or top_k >= len(n):
        return None
    values, law = UniformRouting.of(total, len(n), top_k).load_law()
    low, high = np.searchsorted(np.cumsum(law), [0.025, 0.975]).tolist()
    return float(values[low]), float(values[min(high, len(values) - 1)])


def statistics(view: View) -> dict[str, Any]:
    """Seed 001's comprehensive statistics by layer: its keys with its plug-in values, and under `ours` estimate, uniform null and excess of each."""
    found: dict[str, Any] = {}
    for number, name in enumerate(depth_names(view)):
        layer = view.content.trace.meta.layers[number]
        row = statistics_row(layer.depth, loads_of(view, number))
        row["ours"] = {one["statistic"].removeprefix("usage_"): {key: one[key] for key in (
            "value", "low", "high", "null", "null_low", "null_high", "excess", "unit", "reason")} for one in of_layer(view, "usage", number)}
        found[name] = row
    return found


def frequencies(view: View) -> dict[str, dict[str, int]]:
    """Seed 001's three levels: layer, expert, frequency."""
    return {name: {str(expert): int(n) for expert, n in enumerate(loads_of(view, number))} for number, name in enumerate(depth_names(view))}


def paths(view: View) -> list[dict[str, Any]]:
    """Seed 001's sample paths: the sequence of first choices of a few documents at every layer."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    names = depth_names(view)
    for row in view.rows("sample_paths"):
        one = found.setdefault((row["sample"], row["layer"]), {
            "layer_id": row["depth"], "sample_id": f"{row['domain']}_{row['sample']}_layer_{names[row['layer']]}", "domain": row["domain"],
            "sequence_length": 0, "positions": [], "target_top_k": []})
        one["sequence_length"] += 1
        one["positions"].append(row["position"])
        one["target_top_k"].append([row["expert"]])
    return list(found.values())


def seed_keys() -> tuple[str, ...]:
    """Keys of a layer in the statistics file, as the seed has them."""
    return ("layer_id", *SEED_ROW)


def _json(value: Mapping[str, Any] | Sequence[Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()
