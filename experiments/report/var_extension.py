"""What goes beyond the verdict: the threshold sweep, and what a lookup table really does to the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.estimate import Estimate
from analysis.figures.columns import floats
from analysis.figures.sweep import SweepPoints, sweep_overview
from experiments.report.blocks import Block, Paragraph, Picture, Section
from experiments.report.content import ReportContent
from experiments.report.verdict import pairs_table


def as_estimate(value: Any) -> Estimate | None:
    """An Estimate from itself or from its JSON form; None from anything else."""
    if isinstance(value, Estimate):
        return value
    return Estimate.from_json(dict(value)) if isinstance(value, Mapping) and {"value", "low", "high", "unit"} <= set(value) else None


def _point(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, Mapping) or value.get("coverage") is None or value.get("agreement") is None:
        return None
    if isinstance(value["coverage"], Mapping):
        return None
    return float(value["coverage"]), float(value["agreement"])


def chosen_point(content: ReportContent) -> tuple[float, float] | None:
    """(min_count, max entropy as a share of ln E) of the sweep's choice."""
    chosen = (content.sweep or {}).get("chosen")
    if not isinstance(chosen, Mapping):
        return None
    params = chosen.get("params", chosen)
    count = params.get("min_count")
    share = next((value for name, value in params.items() if name.startswith("max_entropy")), None)
    return None if count is None or share is None else (float(count), float(share))


def _points(sweep: Mapping[str, Any]) -> SweepPoints | None:
    trials: Sequence[Mapping[str, Any]] = [
        t for t in sweep.get("trials", ()) if t.get("coverage") is not None and t.get("agreement") is not None
    ]
    if not trials:
        return None
    coverage, agreement = floats([t["coverage"] for t in trials]), floats([t["agreement"] for t in trials])
    asked = np.array([not t.get("given", False) for t in trials], dtype=np.bool_)
    return SweepPoints(
        coverage,
        agreement,
        asked,
        pareto(coverage, agreement),
        _point(sweep.get("judged")),
        _point(sweep.get("chosen")),
        None,
        sweep.get("importances") or {},
    )


def pareto(coverage: Any, agreement: Any) -> Any:
    """Mask of the points that no other point beats in both objectives."""
    order = np.lexsort((-agreement, -coverage))
    best, front = -np.inf, np.zeros(len(coverage), dtype=np.bool_)
    for i in order:
        if agreement[i] > best:
            front[i], best = True, agreement[i]
    return front


def sweep_section(content: ReportContent) -> Section | None:
    """Every trial, the Pareto front, the choice and its confirmation; None where nothing was swept."""
    sweep = content.sweep
    if sweep is None:
        return None
    blocks: list[Block] = [
        Paragraph("Thresholds were swept on calibration documents only. The verdict uses the declared thresholds, never the swept point.")
    ]
    points = _points(sweep)
    if points is not None:
        blocks.append(
            Picture(
                "sweep",
                sweep_overview(points),
                "Each point is one pair of thresholds. Up is better agreement of the table with the router, "
                "right is more occurrences covered; on the front neither can be had without losing of the other.",
                "Scatter of sweep trials with the Pareto front, and bars of importances.",
            )
        )
    rest = {key: value for key, value in sweep.items() if key not in ("trials", "importances", "grid", "pareto")}
    return Section("sweep", "Threshold sweep", [*blocks, pairs_table("sweep", "The sweep", rest)], "extension")


def fastpath_section(content: ReportContent) -> Section | None:
    """Held-out loss with the lookup table in place of the router; None where it was not measured."""
    if content.fastpath is None:
        return None
    words = Paragraph(
        "The lookup table was put in place of the router for eligible types, and the model's loss measured on held-out documents."
    )
    return Section(
        "fastpath", "What the fast path does to the model", [words, pairs_table("fastpath", "Effect", content.fastpath)], "extension"
    )
