"""Audit: what is wrong with the collected trace, into audit.json; a flaw that spoils what a claim rests on leaves the claim without a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.trace import CountsTrace
from experiments import claims
from experiments.inspecting import SCHEMA, content, findings, known
from experiments.stages.context import Context
from tracking.atomic import write_json

AUDIT = "audit.json"


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
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for one in spoiling:
        alike.setdefault(one["code"], []).append(one)
    why = "; ".join(_words(same) for same in alike.values())
    remedy = "; ".join(dict.fromkeys(f"{one['remedy']} (or, where it is known to do no harm: --accept {one['code']})" for one in spoiling))
    return {criterion.metric: (why, remedy) for criterion in hypotheses.find(name).criteria}


def _words(same: Sequence[Mapping[str, Any]]) -> str:
    """The first finding of a code in full, and in how many traces it is."""
    one, traces = same[0], list(dict.fromkeys(each["trace"] for each in same if each.get("trace")))
    more = "" if not traces else f" (in {traces[0]})" if len(traces) == 1 else f" (in {len(traces)} traces, such as {traces[0]})"
    return f"{one['code']} ({one['count']:,} of {one['of']:,} {one['unit']}): {one['words']}{more}"
