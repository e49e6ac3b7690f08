"""Knobs: what clusters, smoothing, window and edge cut-off calibration documents prefer, beside what is declared; no criterion moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.knob_sweep import KnobGrid, sweep
from experiments.stages.context import Context
from tracking.atomic import write_json

if TYPE_CHECKING:
    from hypotheses.topology_knobs import KnobObjectives

STEPS = 25


def run(context: Context) -> dict[str, Any]:
    """Exact grids, then the study; no test document is read. A trace without calibration documents has no sweep, and the file says why."""
    if not any(row.split == "calibration" for row in context.trace.documents):
        reason = "the trace has no calibration documents; knobs are swept on these alone"
        write_json(context.directory / "sweep" / "sweep.json", {"reason": reason, "objectives": [], "trials": []})
        return {"trials": 0, "reason": reason}
    of = objectives(context, "calibration")
    left_out = of.left_out
    grids = [one for one in grids_of(context, of) if one.objective not in left_out]
    outcome = sweep(grids, context.experiment.sweep.n_trials, context.experiment.seed, context.directory / "sweep", context.progress)
    outcome |= {"left_out": left_out, "declared": declared(context, of)}
    write_json(context.directory / "sweep" / "sweep.json", outcome)
    return {"trials": outcome["n_asked"], "chosen": {name: one["knobs"] for name, one in outcome["chosen"].items()}}


def confirm(context: Context) -> dict[str, Any]:
    """Chosen and declared settings on test documents, after these were opened: calibration minus test is optimism."""
    outcome = context.read_json("sweep/sweep.json")
    confirmed: dict[str, Any] = {}
    if outcome.get("objectives") and any(row.split == "test" for row in context.trace.documents):
        of = objectives(context, "test")
        grids = {one.objective: one for one in grids_of(context, of)}
        at_declared = declared(context, of, outcome["declared"])
        for name, chosen in outcome["chosen"].items():
            confirmed[name] = {"chosen": grids[name].function(**chosen["knobs"]), "declared": at_declared.get(name, {}).get("value")}
    write_json(context.directory / "sweep" / "confirmed.json", {"confirmed": confirmed})
    return {"confirmed": sorted(confirmed)}


def objectives(context: Context, split: str) -> KnobObjectives:
    """The objectives on one split of the run's own trace."""
    from experiments.claims.topology import settings
    from hypotheses.topology_evidence import TopologyEvidence
    from hypotheses.topology_knobs import KnobObjectives

    windows = tuple(sorted({*context.experiment.topology.knobs.window, context.experiment.predictor.context_tokens}))
    return KnobObjectives(TopologyEvidence(context.trace, settings(context), split=split), windows)


def grids_of(context: Context, of: KnobObjectives) -> list[KnobGrid]:
    """The declared ranges as grids."""
    knobs = context.experiment.topology.knobs
    most = max(min(knobs.n_clusters.high, of.most_clusters), 2)
    return [
        KnobGrid("cluster_silhouette", of.cluster_silhouette, {"n_clusters": list(range(min(knobs.n_clusters.low, most), most + 1))},
                 {"n_clusters": "int"}),
        KnobGrid("transition_bits", of.transition_bits, {"smoothing": _spread(knobs.smoothing.low, knobs.smoothing.high, log=True)},
                 {"smoothing": "log"}),
        KnobGrid("context_bits", of.context_bits,
                 {"window": list(of.windows), "context_weight": _weights(context)},
                 {"window": "choice", "context_weight": "log"}),
        KnobGrid("edge_agreement", of.edge_agreement, {"edge_cut": _spread(knobs.edge_cut.low, knobs.edge_cut.high, log=False)},
                 {"edge_cut": "float"})]


def _spread(low: float, high: float, *, log: bool) -> list[float]:
    values = np.geomspace(low, high, STEPS) if log else np.linspace(low, high, STEPS)
    return [float(value) for value in values]


def declared(context: Context, of: KnobObjectives, before: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
    """What the declared settings give: words, objective, and what they chose on calibration documents, which `before` keeps for others.

    Objectives that the trace cannot have are left out.
    """
    made = {"cluster_silhouette": _declared_clusters, "transition_bits": _declared_smoothing, "context_bits": _declared_window,
            "edge_agreement": _declared_cut}
    left_out = of.left_out
    return {name: make(context, of, (before or {}).get(name, {})) for name, make in made.items() if name not in left_out}


def _declared_clusters(context: Context, of: KnobObjectives, before: Mapping[str, Any]) -> dict[str, Any]:
    asked = context.experiment.topology.n_clusters
    if not isinstance(asked, str):
        return {"setting": str(asked), "value": of.cluster_silhouette(asked)}
    chosen = before.get("by_layer") or of.clusters_by_layer()
    words = ", ".join("none" if n is None else str(n) for n in chosen)
    return {"setting": f"{asked}: {words} by layer", "value": of.silhouette_by_layer(chosen), "by_layer": chosen}


def _declared_smoothing(context: Context, of: KnobObjectives, _before: Mapping[str, Any]) -> dict[str, Any]:
    asked = context.experiment.topology.smoothing
    words, value = of.rule_of_smoothing() if isinstance(asked, str) else (f"{asked:g}", of.transition_bits(asked))
    return {"setting": words, "value": value}


def _declared_window(context: Context, of: KnobObjectives, before: Mapping[str, Any]) -> dict[str, Any]:
    window = context.experiment.predictor.context_tokens
    weight = before.get("context_weight") or max(_weights(context), key=lambda one: of.context_bits(window, one) or -np.inf)
    return {"setting": f"{window} tokens, which the predictor sees", "value": of.context_bits(window, weight), "context_weight": weight,
            "window": window}


def _declared_cut(context: Context, of: KnobObjectives, _before: Mapping[str, Any]) -> dict[str, Any]:
    cut = context.experiment.topology.edge_cut
    return {"setting": f"{cut:g}", "value": of.edge_agreement(cut)}


def _weights(context: Context) -> list[float]:
    knob = context.experiment.topology.knobs.context_weight
    return _spread(knob.low, knob.high, log=True)[::3]
