"""Audit of the arms: what is wrong with each arm's trace, into arms/audit.json; a flaw in the judged pair leaves the claim without a verdict."""

from __future__ import annotations

from typing import Any

from experiments.inspecting import SCHEMA, content, findings, known
from experiments.stages.arms import DIRECTORY, collected
from experiments.stages.context import Context
from experiments.stages.stage import StageOf
from hypotheses.spectra_evidence import BASELINE, TREATMENT
from tracking.atomic import write_json

ARMS_AUDIT = f"{DIRECTORY}/audit.json"


def run(context: Context) -> dict[str, Any]:
    """Look at every row of every arm's trace; the findings are kept with whether they were declared to be accepted."""
    accepted = known(context.experiment.audit.accept)
    runs = [one for of_arm in collected(context).values() for one in of_arm]
    found = []
    with context.progress.stage("audit arms", len(runs), "arms") as task:
        for one in runs:
            found.append({"arm": one.arm, "seed": one.seed, "judged": one.arm in (BASELINE, TREATMENT), **content(findings(one.trace), accepted)})
            task.advance(1)
    write_json(context.directory / ARMS_AUDIT, {"schema": SCHEMA, "accepted": sorted(accepted), "arms": found})
    return {"findings": {f"{one['arm']}-{one['seed']}": [each["code"] for each in one["findings"]] for one in found if one["findings"]},
            "accepted": sorted(accepted)}


def of_judged_pair(context: Context) -> list[dict[str, Any]]:
    """Findings of the traces that the claim is judged from, each with `trace`, its arm and seed."""
    return [{**each, "trace": f"{one['arm']}, seed {one['seed']}"} for one in context.read_json(ARMS_AUDIT).get("arms", ()) if one["judged"]
            for each in one["findings"]]


AUDIT_ARMS = StageOf("audit_arms", run, (ARMS_AUDIT,), ("arms",), opens_test=True, feeds=True)
