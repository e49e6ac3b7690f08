"""The seed's summary: its paper-ready section with the numbers filled in, key findings as JSON, every result as one table."""

from __future__ import annotations

import json
from collections.abc import Sequence

from analysis.estimate import Estimate
from analysis.figures.words import interval, number, percent
from experiments.report.blocks import Cell, Column, Table
from experiments.report.markdown import plain
from experiments.report.topology_claims import CLAIMS, SEED_NUMBERS, judged_of, outcome_of
from experiments.report.topology_clusters import clarity, counted
from experiments.report.topology_columns import View
from experiments.report.topology_predictor import rank_words
from experiments.report.verdict import bound_words


def _said(one: Estimate, unit: str = "", digits: int = 2, *, gates: bool = True) -> str:
    """'0.25 bits (95% interval 0.21 to 0.28)', or undefined with its reason; a gate is said, unless the caller says it of several at once."""
    if one.value is None:
        return f"undefined ({one.reason})"
    ends = "" if one.low is None or one.high is None else f" ({one.level:.0%} interval {number(one.low, digits)} to {number(one.high, digits)})"
    gate = f", on which no verdict may rest ({one.gate})" if one.gate and gates else ""
    return f"{number(one.value, digits)} {unit}".rstrip() + ends + gate


def _outcome(view: View, metric: str) -> str:
    return next((judged.outcome for judged in view.content.finding.criteria if judged.criterion.metric == metric), "not judged")


VERBS = {"supported": "is supported", "refuted": "is refuted", "inconclusive": "is not settled by these data", "not judged": "was not judged"}


def paper_section(view: View) -> str:
    """Section 5 of seed 000, 7, with the numbers of this run, worded by what was found."""
    structured, captured = (VERBS[outcome_of(judged_of(view, CLAIMS[i]))] for i in (1, 2))
    mi, excess = view.estimate("mi_first_choice"), view.estimate("mi_excess")
    prophet, entropy, share = (view.estimate(name) for name in ("predictor_mi", "predictor_entropy", "predictor_u"))
    least, mantel, of_halves, decides = (view.estimate(name) for name in ("transfer_info_min", "coact_mantel", "coact_consistency",
                                                                          "coact_consistency_min"))
    barred = "; ".join(dict.fromkeys(one.gate for one in (mantel, of_halves, decides) if one.gate))
    r = view.estimate("mi_vs_retention")
    shown = "" if mi.value is None else " (Figure X)"
    clusters = "" if view.estimate("coact_clarity").value is None else " (Figure Y)"
    equals = "" if r.value is None else "r = "
    explains = {"supported": "Transferred information predicts in which domains the predictor keeps its accuracy.",
                "refuted": "Transferred information does not, to the extent asked for, predict in which domains the predictor keeps its accuracy."}
    lines = [
        "## Section 5: Information-Theoretic Analysis", "",
        f"**5.1 Expert routing has structure.** First choices of adjacent layers share {_said(mi, 'bits')}{shown}; beyond the composition "
        f"of documents, "
        f"by circular shifts, {_said(excess, 'bits')}. Clustering of experts by co-activation reveals {counted(view)}{clusters}, with a "
        f"silhouette above "
        f"that of random sets with the same loads of {clarity(view)}. The claim {structured}.", "",
        f"**5.2 Prophet and this structure.** MI(Prophet, ground truth) = {_said(prophet, 'bits')} of H = {_said(entropy, 'bits')}, that is "
        f"{'an undefined share' if share.value is None else percent(share.value)} of the theoretical maximum; over the best baseline "
        f"({view.facts.get('best_baseline') or 'none'}) it gains {_said(view.estimate('predictor_gain'), 'bits')}. The claim {captured}.", "",
        f"**5.3 Structure across domains.** In the ordered pair that decides, the transferred information is {_said(least, 'bits')}; that "
        f"cross-domain "
        f"information exceeds 0 in all pairs {VERBS[_outcome(view, 'transfer_info_min')]}. Co-activation in two domains correlates at "
        f"{_said(mantel, gates=False)}, mean over pairs of domains; its share of what halves of one domain reach is "
        f"{_said(of_halves, gates=False)}, mean over pairs, and {_said(decides, gates=False)} in the pair that decides"
        f"{f', numbers on which no verdict may rest ({barred})' if barred else ''}. Domain "
        f"invariance {VERBS[_outcome(view, 'coact_consistency_min')]}.", "",
        f"**5.4 Cross-domain results.** The correlation of transferred information with retention is {equals}{_said(r)}{rank_words(view)}. "
        f"{explains.get(_outcome(view, 'mi_vs_retention'), 'Whether information explains why Prophet generalises stays open.')}", ""]
    return "\n".join(plain(line) if line and not line.startswith(("#", "**")) else _bold(line) for line in lines)


def _bold(line: str) -> str:
    """A line whose heading or bold opening stays, the rest escaped."""
    if not line.startswith("**"):
        return line
    _, opening, rest = line.split("**", 2)
    return f"**{opening}** {plain(rest)}"


def summary(view: View, missing: Sequence[str]) -> str:
    """MI_CLUSTERING_SUMMARY.md."""
    finding = view.content.finding
    lines = ["# Mutual information and expert clustering: summary", "",
             f"Verdict: **{(finding.verdict or 'no verdict').upper()}**. {plain(finding.reason)}", "", "## Read first", ""]
    lines += [f"- {plain(str(one))}" for one in view.facts.get("caveats", ())]
    naive = view.estimate("cross_domain_naive_pairing")
    lines += [f"- {plain(f'The cross-domain MI as the seed defines it is {naive.reason}')}", "", "## Claims", "",
              "| claim | criterion | bound | estimate | outcome | reason | point value |", "|---|---|---|---|---|---|---|"]
    seed = view.facts.get("seed_rule", {})
    for claim in CLAIMS:
        for one in judged_of(view, claim):
            by_seed = seed.get(SEED_NUMBERS.get(one.criterion.metric, ""))
            cells = (f"{claim.number}. {claim.title}", one.criterion.name, bound_words(one.criterion), interval(one.estimate), one.outcome,
                     one.estimate.gate or one.reason, "" if by_seed is None else number(by_seed))
            lines.append("| " + " | ".join(plain(cell) for cell in cells) + " |")
    lines += ["", "Point value: uncorrected; the seed's formula on these data where it has one, else the plug-in of ours.", "", paper_section(view)]
    if missing:
        lines += ["## Figures that could not be drawn", "", *(f"- {path}: see the report for the reason" for path in missing), ""]
    return "\n".join(lines)


def key_findings(view: View) -> bytes:
    """key_findings.json: verdict, claims with their criteria, every mean estimate, the seed's numbers, caveats."""
    finding = view.content.finding
    found = {
        "verdict": finding.verdict, "reason": finding.reason, "declaration": finding.fingerprint, "caveats": list(view.facts.get("caveats", ())),
        "claims": [{"claim": claim.number, "title": claim.title, "outcome": outcome_of(judged_of(view, claim)) if judged_of(view, claim) else None,
                    "criteria": [{"name": one.criterion.name, "metric": one.criterion.metric, "bound": one.criterion.inequality,
                                  "outcome": one.outcome, "reason": one.reason, "estimate": one.estimate.to_json()}
                                 for one in judged_of(view, claim)]} for claim in CLAIMS],
        "estimates": {name: one.to_json() for name, one in sorted(view.content.evaluation.estimates.items())},
        "seeds_own_form": dict(view.facts.get("seed_rule", {})), "seed_verdict": dict(finding.seed_verdict)}
    return (json.dumps(found, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()


def results_table(view: View) -> Table:
    """Every mean estimate with its interval, null, and why it is undefined or gated."""
    rows: list[list[Cell]] = [[name, one, one.unit, one.plug_in, one.null, one.p, one.reason or one.gate or ""]
                              for name, one in sorted(view.content.evaluation.estimates.items())]
    return Table("all_results_table", "All results on held-out documents",
                 [Column("metric"), Column("estimate [interval]", "estimate"), Column("unit"), Column("plug-in", "number"),
                  Column("null", "number"), Column("p", "number"), Column("undefined or gated because")], rows)
