"""Next steps (seed 002, Part 10): what to look at follows from what was found, and is open where it is not."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.estimate import Estimate
from analysis.figures.words import interval
from experiments.report.atlas_view import depth_names
from experiments.report.blocks import Block, Cell, Column, Paragraph, Table
from experiments.report.topology_columns import View
from experiments.report.verdict import WORDS
from hypotheses.claim import Finding

DOMAINS, TOKENS = "domain_specialisation", "repetition"


def blocks(view: View, findings: Sequence[Finding]) -> list[Block]:
    """The seed's three questions with their answers, and what follows from each."""
    by_name = {finding.hypothesis: finding for finding in findings}
    rows = [_domains(view, by_name.get(DOMAINS)), _tokens(by_name.get(TOKENS)), _layers(view)]
    return [Paragraph("The seed goes on from what its figures look like; here from verdicts and intervals."),
            Table("next_steps", "What to pursue", [Column("question"), Column("found"), Column("next")], rows)]


def _open(finding: Finding | None) -> str:
    """What would settle a claim that is open."""
    if finding is None:
        return "judge the claim first: name it under `hypotheses` in the declaration"
    settle = next((one.settle for one in finding.criteria if one.criterion.name == finding.limiting and one.settle), None)
    return f"first settle it: {finding.reason}{f'; {settle}' if settle else ''}"


def _found(finding: Finding | None, metric: str) -> str:
    if finding is None:
        return "not judged"
    one = next((one.estimate for one in finding.criteria if one.criterion.metric == metric), None)
    return f"{WORDS[finding.verdict]}{'' if one is None else f'; {metric} {interval(one)}'}"


def _domains(view: View, finding: Finding | None) -> list[Cell]:
    verdict = finding.verdict if finding else None
    named = [row for row in view.rows("experts") if row["label"] == "specialist"]
    layers = ", ".join(depth_names(view)[int(one)] for one in view.facts.get("separated", ()))
    if verdict == "supported":
        step = f"domain-specific experts: {len(named)} specialists are listed; the most separated layers are {layers}"
    elif verdict == "refuted":
        step = "nothing: the experts do not follow these domains; other labels (syntax, token type) may serve better"
    else:
        step = _open(finding)
    return ["Do experts follow domains?", _found(finding, "mi_E_D_share"), step]


def _tokens(finding: Finding | None) -> list[Cell]:
    verdict = finding.verdict if finding else None
    order = next((one for one in finding.criteria if one.criterion.metric == "repetition_order_higher"), None) if finding else None
    if verdict == "supported" or (order is not None and order.outcome == "supported"):
        step = "transition matrices, and caching of experts across neighbouring tokens: order tells more than the loads do"
    elif order is not None and order.outcome == "refuted":
        step = "nothing along documents: what repeats is the composition of documents, not the order of their tokens"
    else:
        step = _open(finding)
    return ["Do neighbouring tokens repeat experts?", _found(finding, "repetition_first_higher"), step]


def _layers(view: View) -> list[Cell]:
    one = view.estimate("mi_E_D_late_minus_early")
    return ["Do early and late layers differ in how they separate domains?", _difference(one), _layer_step(one)]


def _difference(one: Estimate) -> str:
    return f"I(E;D) of the deeper half less the other: {interval(one)} bits" if one.value is not None else f"undefined: {one.reason}"


def _layer_step(one: Estimate) -> str:
    if one.value is None or one.low is None or one.high is None or one.gate:
        return f"open: {one.reason or one.gate or 'no interval'}"
    if one.low > 0:
        return "early against late layers: domains separate more in the deeper half (exploratory: no claim was declared)"
    if one.high < 0:
        return "early against late layers: domains separate more in the first half (exploratory: no claim was declared)"
    return "nothing yet: the interval holds 0, so that the halves cannot be told apart"
