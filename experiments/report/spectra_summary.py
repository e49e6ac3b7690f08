"""A paragraph for a paper, worded by the verdicts, and the summary of the seed's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence

from analysis.estimate import Estimate
from analysis.figures.words import number
from experiments.report.markdown import plain
from experiments.report.spectra_claims import CLAIMS, holds, outcomes_of, which_holds
from experiments.report.topology_claims import judged_of
from experiments.report.topology_columns import View
from experiments.report.verdict import bound_words
from hypotheses.claim import Outcome
from hypotheses.judge import FLAWED, GATED

OPENING: dict[tuple[Outcome, Outcome], str] = {
    ("supported", "supported"): "SPECTRA makes expert outputs more orthogonal, and experts specialise more by domain.",
    ("supported", "refuted"): "SPECTRA makes expert outputs more orthogonal, but orthogonality does not bring specialisation by domain.",
    ("supported", "inconclusive"): "SPECTRA makes expert outputs more orthogonal; whether experts specialise more by domain these trainings do not "
                                   "settle."}


def _said(one: Estimate, unit: str, digits: int = 3) -> str:
    """'a change of 0.12 bits (95% interval 0.05 to 0.19, 5 training seeds)', or that it is undefined; a gate is said."""
    if one.value is None:
        return f"undefined ({one.reason})"
    ends = "" if one.low is None or one.high is None else f"{one.level:.0%} interval {number(one.low, digits)} to {number(one.high, digits)}, "
    gate = f"; no verdict rests on it ({one.gate})" if one.gate else ""
    return f"{number(one.value, digits)} {unit} ({ends}{one.n_units} training seeds{gate})"


def _changes(what: str, one: Estimate, unit: str) -> str:
    """'what changes by 0.12 bits (...)', or that its change could not be estimated, with the code of the reason."""
    if one.value is None:
        return f"how {what} changes could not be estimated ({(one.reason or '').partition(':')[0].replace('_', ' ')})"
    return f"{what} changes by {_said(one, unit)}"


def withheld(view: View) -> str:
    """In a sentence, why criteria stay without an outcome whatever their intervals; empty where none does."""
    reasons = dict.fromkeys(one.reason.partition(" (")[0].partition(";")[0] for one in view.content.finding.criteria
                            if one.reason.startswith((FLAWED, GATED)))
    return f"Verdicts are withheld ({'; '.join(reasons)}). " if reasons else ""


def paper_paragraph(view: View) -> str:
    """The seed's key message (H) as these verdicts allow it; no percentage, and nothing that was not judged."""
    if view.content.finding.verdict is None:
        return f"No statement can be made: {view.content.finding.reason}."
    found = outcomes_of(view)
    opening = OPENING.get((found["orthogonality"], found["specialisation"]), f"{holds(view, 'orthogonality')} {holds(view, 'specialisation')}")
    unmatched = view.facts.get("confounded")
    terms = "with which it was not matched" if unmatched else "at equal parameters, experts per token, data and steps"
    changes = [_changes(what, view.estimate(name), unit) for what, name, unit in (
        ("the rms cosine between expert outputs", "gram_rms_change", "cosine"),
        ("the information between expert and domain", "mi_E_D_change", "bits"),
        ("the held-out loss", "held_out_loss_change", "nats per token"))]
    why = withheld(view)
    return (f"{opening} {why}Against switch top-2 routing, {terms}: {changes[0]}; {changes[1]}; {changes[2]}. {holds(view, 'collapse')} "
            f"{holds(view, 'loss')} Means over MoE layers; intervals over training seeds. Domains are sources of text, so that style and topic are "
            "one here.")


def summary(view: View, missing: Sequence[str]) -> str:
    """SPECIALIZATION_SUMMARY.md."""
    finding = view.content.finding
    lines = ["# Expert specialization: summary", "", f"Verdict: **{(finding.verdict or 'no verdict').upper()}**. {plain(finding.reason)}", "",
             f"**{plain(which_holds(view))}**", "", "## Criteria", "", "| part | criterion | bound | change | outcome | reason |",
             "|---|---|---|---|---|---|"]
    for claim in CLAIMS:
        for one in judged_of(view, claim):
            value = "undefined" if one.estimate.value is None else _said(one.estimate, one.criterion.unit)
            lines.append("| " + " | ".join(plain(cell) for cell in (claim.title, one.criterion.name, bound_words(one.criterion), value, one.outcome,
                                                                     one.estimate.gate or one.reason)) + " |")
    lines += ["", "## Read first", "", *(f"- {plain(str(one))}" for one in view.facts.get("caveats", ())), "", "## For a paper", "",
              plain(paper_paragraph(view)), ""]
    if missing:
        lines += ["## Files that could not be made", "", *(f"- {path}: see the report for the reason" for path in missing), ""]
    return "\n".join(lines)


def results(view: View) -> bytes:
    """results.json: verdict, parts, estimates, the comparison's rows."""
    found = {"verdict": view.content.finding.verdict, "reason": view.content.finding.reason, "parts": outcomes_of(view),
             "declaration": view.content.finding.fingerprint,
             "estimates": {name: one.to_json() for name, one in sorted(view.content.evaluation.estimates.items())},
             "comparison": view.rows("comparison"),
             "caveats": list(view.facts.get("caveats", ())), "paragraph": paper_paragraph(view)}
    return (json.dumps(found, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()
