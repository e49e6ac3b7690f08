"""What goes beyond the verdict: the threshold sweep, and what a lookup table really does to the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.estimate import Estimate
from analysis.figures.columns import floats
from analysis.figures.forest import ForestMark, ForestPanel, forest
from analysis.figures.sweep import SweepPoints, sweep_overview
from experiments.report.blocks import Block, Cell, Column, Paragraph, Picture, Section, Table
from experiments.report.content import ReportContent
from experiments.report.verdict import pairs_table

OBJECTIVES = ("coverage", "agreement")
MAX_VARIANTS = 14  # rows of the loss figure; the table has all


def as_estimate(value: Any) -> Estimate | None:
    """An Estimate from itself or from its JSON form; None from anything else."""
    if isinstance(value, Estimate):
        return value
    return Estimate.from_json(dict(value)) if isinstance(value, Mapping) and {"value", "low", "high", "unit"} <= set(value) else None


def _objectives(point: Any) -> tuple[float, float] | None:
    if not isinstance(point, Mapping) or any(point.get(name) is None for name in OBJECTIVES):
        return None
    return float(point["coverage"]), float(point["agreement"])


def chosen_point(content: ReportContent) -> tuple[float, float] | None:
    """(min_count, max entropy as a share of ln E) of the sweep's choice; None without one."""
    chosen = (content.sweep or {}).get("chosen")
    if not isinstance(chosen, Mapping) or chosen.get("min_count") is None or chosen.get("max_entropy") is None:
        return None
    return float(chosen["min_count"]), float(chosen["max_entropy"])


def _confirmed(sweep: Mapping[str, Any]) -> tuple[Estimate, Estimate] | None:
    found = [as_estimate((sweep.get("confirmed") or {}).get(name)) for name in OBJECTIVES]
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def _importances(sweep: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    return {one["objective"]: one["shares"] for one in sweep.get("importances") or () if one.get("shares")}


def _declared(content: ReportContent) -> tuple[float, float] | None:
    """Coverage and agreement of the declared thresholds on calibration documents; None unless both are known."""
    estimates = content.evaluation.estimates
    coverage, agreement = (estimates.get(name) for name in ("fastpath_coverage_calibration", "fastpath_agreement_calibration"))
    if coverage is None or agreement is None or coverage.value is None or agreement.value is None:
        return None
    return coverage.value, agreement.value


def sweep_points(content: ReportContent) -> SweepPoints | None:
    """The trials of the sweep as the figure wants them; None where no trial is complete."""
    sweep = content.sweep or {}
    trials: Sequence[Mapping[str, Any]] = [trial for trial in sweep.get("trials", ()) if _objectives(trial) is not None]
    if not trials:
        return None
    return SweepPoints(
        floats([trial["coverage"] for trial in trials]),
        floats([trial["agreement"] for trial in trials]),
        np.array([trial.get("origin") != "grid" for trial in trials], dtype=np.bool_),
        np.array([bool(trial.get("on_front")) for trial in trials], dtype=np.bool_),
        _declared(content),
        _objectives(sweep.get("chosen")),
        _confirmed(sweep),
        _importances(sweep),
    )


def _choice_table(sweep: Mapping[str, Any]) -> Table | None:
    chosen = sweep.get("chosen")
    if not isinstance(chosen, Mapping):
        return None
    rows: list[list[Cell]] = []
    for name in OBJECTIVES:
        test, optimism = (as_estimate((sweep.get(key) or {}).get(name)) for key in ("confirmed", "optimism"))
        rows.append([name, chosen.get(name), test, optimism])
    knobs = ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}" for name, value in chosen.items() if name not in OBJECTIVES and value is not None
    )
    return Table(
        "sweep_choice",
        f"The chosen point: {knobs}",
        [
            Column("objective"),
            Column("calibration", "number", 1, True),
            Column("test [95% interval]", "estimate", 1, True),
            Column("optimism: calibration minus test", "estimate", 1, True),
        ],
        rows,
        "The choice is the largest coverage among points that reach the declared agreement; it was confirmed once on test documents.",
    )


def sweep_section(content: ReportContent) -> Section | None:
    """Every trial, the Pareto front, the choice and its confirmation; None where nothing was swept."""
    sweep = content.sweep
    if sweep is None:
        return None
    blocks: list[Block] = [
        Paragraph("Thresholds were swept on calibration documents only. The verdict uses the declared thresholds, never the swept point.")
    ]
    points, choice = sweep_points(content), _choice_table(sweep)
    if points is not None:
        blocks.append(
            Picture(
                "sweep",
                sweep_overview(points),
                "a: each point is one setting of the thresholds. Right is more occurrences covered, up is better agreement of the "
                "table with the router; on the front neither can be had without giving up some of the other. b: which threshold "
                "decides whether a setting is among the best tenth.",
                "Scatter of sweep trials with the Pareto front, and bars of the thresholds' importances.",
            )
        )
    blocks += (
        [choice] if choice is not None else [Paragraph(f"No point was chosen: {sweep.get('reason') or 'the reason was not recorded'}.")]
    )
    trials = sweep.get("trials", ())
    counted = {
        "cells of the exact grid": sweep.get("n_cells"),
        "cells where an objective is undefined": sweep.get("n_undefined"),
        "trials from the grid": sum(trial.get("origin") == "grid" for trial in trials),
        "trials asked of the sampler": sum(trial.get("origin") != "grid" for trial in trials),
        "agreement required of the choice": (sweep.get("space") or {}).get("min_agreement"),
    }
    return Section("sweep", "Threshold sweep", [*blocks, pairs_table("sweep", "What was tried", counted)], "extension")


def fastpath_section(content: ReportContent) -> Section | None:
    """Held-out loss with the lookup table in place of the router; None where the stage was not part of the run."""
    effect = content.fastpath
    if effect is None:
        return None
    title = "What the fast path does to the model"
    if not effect.get("measured", True):
        return Section(
            "fastpath", title, [Paragraph(f"Not measured: {effect.get('reason') or 'the reason was not recorded'}.")], "extension"
        )
    variants = effect.get("variants", ())
    words = Paragraph(
        "For eligible types the lookup table took the router's place, and the router was not evaluated. The change of the model's loss on "
        "held-out documents is what that costs: above zero is harm. The random table has the same types and weights with experts drawn at random."
    )
    loss = effect.get("baseline_loss_nats")
    sizes = Paragraph(
        f"Loss with the router: {'undefined' if loss is None else f'{loss:.4f}'} nats per token, over {effect.get('documents', 0):,} "
        f"test documents and {effect.get('tokens', 0):,} tokens."
    )
    return Section("fastpath", title, [words, sizes, *_effect_picture(variants), _effect_table(variants)], "extension")


def _effect_picture(variants: Sequence[Mapping[str, Any]]) -> list[Block]:
    marks = [
        ForestMark(str(one["name"]), change, "control" if "random" in str(one["name"]) else "estimate")
        for one in variants[:MAX_VARIANTS]
        if (change := as_estimate(one.get("loss_change"))) is not None
    ]
    if not marks:
        return []
    panel = ForestPanel("Change of held-out loss with the lookup table", "nats per token (above 0: harm)", marks, reference=0.0)
    return [
        Picture(
            "fastpath_effect",
            forest([panel]),
            "Loss with the table minus loss with the router, paired by document, with 95% intervals. Squares: the random table.",
            "Intervals of the loss change for all layers, a random table, and single layers.",
        )
    ]


def _effect_table(variants: Sequence[Mapping[str, Any]]) -> Table:
    rows: list[list[Cell]] = [
        [
            str(one.get("name", "")),
            as_estimate(one.get("loss_change")),
            one.get("share_saved"),
            one.get("router_rows_evaluated"),
            one.get("seconds"),
            one.get("baseline_seconds"),
        ]
        for one in variants
    ]
    return Table(
        "fastpath_effect",
        "Effect of the lookup table",
        [
            Column("table in"),
            Column("loss change, nats per token [95% interval]", "estimate", 4),
            Column("calls saved", "number", 1, True),
            Column("router rows", "number"),
            Column("seconds", "number", 1),
            Column("with router", "number", 1),
        ],
        rows,
        "Calls saved: share of all (token, layer) decisions of the model. Router rows: those that a hook saw the replaced routers evaluate. "
        "Seconds: forward passes with the table, and with the router.",
    )
