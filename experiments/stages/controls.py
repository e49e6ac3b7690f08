"""Controls: traces with a known right answer, planted on the run's own documents and read through the same store, splits and estimators."""

from __future__ import annotations

from typing import Any

import hypotheses
from experiments import claims, evaluation_files
from experiments.evaluation_files import plain
from experiments.stages.context import Context, stored_routing
from hypotheses.judge import expected_words
from tracking.atomic import write_json


def run(context: Context) -> dict[str, Any]:
    """Plant the controls of each hypothesis, store them as traces, and evaluate the hypothesis on them exactly as on the run's own trace."""
    remarks: dict[str, Any] = {}
    (context.directory / "controls").mkdir(exist_ok=True)
    for name in context.experiment.hypotheses:
        claim = claims.of(name)
        for kind in hypotheses.find(name).controls:
            (context.directory / "controls" / kind).mkdir(exist_ok=True)
        planted = claim.plant(context)
        for kind in hypotheses.find(name).controls:
            with context.progress.stage(f"control {kind}", unit="parts") as context.task:
                evaluation = hypotheses.evaluator(name)(_evidence(claim, context, kind))
            evaluation_files.save(evaluation, context.directory / "controls" / kind / name)
        remarks[name] = plain({**planted, "expected": {kind: expected_words(hypotheses.find(name), kind) for kind in hypotheses.find(name).controls}})
    write_json(context.directory / "controls" / "controls.json", remarks)
    return {name: {"planted": one.get("planted"), "unreachable": one.get("unreachable")} for name, one in remarks.items()}


def _evidence(claim: claims.Claim, context: Context, kind: str) -> Any:
    """What a control is judged from: its stored trace, or, for a claim of several traces, what the claim makes of them."""
    of_several = claims.control_evidence(claim)
    return claim.evidence(context, stored_routing(context.directory / claim.control_trace(kind))) if of_several is None else of_several(context, kind)
