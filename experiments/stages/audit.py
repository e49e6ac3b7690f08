"""Audit: what is wrong with the collected trace, into audit.json; a flaw that spoils what a claim rests on leaves the claim without a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.trace import CountsTrace
from experiments import claims
from experiments.inspecting import SCHEMA, content, findings, known
from experiments.stages.context import Context
from tracking.atomic import write_json

AUDIT = "audit.json"
NAMED = 4  # findings that a reason names; more are counted


def run(context: Context) -> dict[str, Any]:
    """Look at every row of every split; the findings are kept with whether they were declared to be accepted."""
    accepted, routing = known(context.experiment.audit.accept), context.routing
    with context.progress.stage("audit"):
        found = findings(routing)
    write_json(context.directory / AUDIT, {"schema": SCHEMA, "rows": not isinstance(routing, CountsTrace), "accepted": sorted(accepted),
                                           **content(found, accepted)})
    return {"findings": [one.code for one in found], "accepted": sorted(accepted)}


def flawed(context: Context, name: str) -> dict[str, tuple[str, str]]:
    """(why, remedy) for each metric of a hypothesis that an unaccepted finding invalidates; empty where its traces are sound for it."""
    import hypotheses

    claim = claims.of(name)
    rests_on = claims.rests_on(claim)
    found = [*context.read_json(AUDIT).get("findings", ()), *claims.further_findings(claim, context)]
    spoiling = [one for one in found if not one["accepted"] and set(one["invalidates"]) & set(rests_on)]
    if not spoiling:
        return {}
    why = "; ".join(_words(one) for one in spoiling[:NAMED])
    if len(spoiling) > NAMED:
        why += f"; {len(spoiling) - NAMED} further findings"
    remedy = "; ".join(dict.fromkeys(f"{one['remedy']} (or, where it is known to do no harm: --accept {one['code']})" for one in spoiling))
    return {criterion.metric: (why, remedy) for criterion in hypotheses.find(name).criteria}


def _words(one: Mapping[str, Any]) -> str:
    where = f" in {one['trace']}" if one.get("trace") else ""
    return f"{one['code']}{where} ({one['count']:,} of {one['of']:,} {one['unit']}): {one['words']}"
