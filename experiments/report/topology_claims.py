"""The seed's four claims: their criteria judged, the seed's own numbers beside, and what a reader has to know first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.figures.forest import ForestMark, ForestPanel, forest
from analysis.gates import UNTESTABLE
from experiments.report.blocks import Block, Cell, Column, Paragraph, Picture, Section, Table
from experiments.report.display import estimate
from experiments.report.topology_columns import View, bare
from experiments.report.verdict import WORDS, bound_words, column_for, is_share
from hypotheses.claim import CriterionFinding, Outcome
from hypotheses.judge import limiting_of


@dataclass(frozen=True)
class Claim:
    """One of the seed's main claims: the prefix of its criteria, its number and its words."""

    prefix: str
    number: int
    title: str
    evidence: str


CLAIMS = (
    Claim("topology_not_data", 1, "Topology, not data", "high cross-domain MI (> 0.5 bits); expert clustering is domain-invariant"),
    Claim("structured", 2, "Routing has structured patterns", "high cross-layer MI (> 1.5 bits); clear expert co-activation clusters"),
    Claim("captured", 3, "Prophet captures the structure", "MI(Prophet, ground truth) far above random; MI correlates with accuracy (r > 0.8)"),
    Claim("generalises", 4, "The structure generalises", "cross-domain MI > 0 for all pairs; clusters consistent across domains; MI correlates with "
          "retention"),
)
SEED_NUMBERS = {"mi_first_choice": "cross_layer_mi", "transfer_info": "cross_domain_mi", "transfer_info_min": "cross_domain_min",
                "coact_clarity": "clusters"}  # metric -> name in facts["seed_rule"]
SEED_LABEL = "seed's form: point value, uncorrected"


def judged_of(view: View, claim: Claim) -> list[CriterionFinding]:
    """The criteria of a claim."""
    return [one for one in view.content.finding.criteria if one.criterion.name.partition(".")[0] == claim.prefix]


def outcome_of(judged: Sequence[CriterionFinding]) -> Outcome:
    """All supported: supported; any refuted: refuted; else inconclusive."""
    outcomes = {one.outcome for one in judged}
    return "refuted" if "refuted" in outcomes else "supported" if outcomes == {"supported"} else "inconclusive"


def _short(one: CriterionFinding) -> str:
    return one.criterion.name.partition(".")[2].replace("_", " ")


def _panel(view: View, one: CriterionFinding) -> ForestPanel:
    criterion, value = one.criterion, one.estimate
    marks = [ForestMark(f"this run, {criterion.level:.0%} interval" + (", gated" if value.gate else ""), value)]
    if value.null is not None:
        marks.append(ForestMark("matched null", bare(value.null), "null"))
    seed = _seed_number(view, one)
    if seed is not None:
        marks.append(ForestMark(SEED_LABEL, bare(seed), "seed"))
    below = criterion.below is not None or criterion.at_most is not None
    title = f"{_short(one)}: {bound_words(criterion)}   ({WORDS[one.outcome].lower()})"
    return ForestPanel(title, criterion.unit, [_cut(mark) for mark in marks], criterion.bound, "below" if below else
        "above", is_share(criterion.unit))


def _seed_number(view: View, one: CriterionFinding) -> float | None:
    number: float | None = view.facts.get("seed_rule", {}).get(SEED_NUMBERS.get(one.criterion.metric, ""))
    return number


def _cut(mark: ForestMark) -> ForestMark:
    """A reason short enough for the margin of the figure; the table beside it holds all of it."""
    reason = mark.estimate.reason
    return mark if reason is None else ForestMark(mark.label, bare(None, reason=reason.partition(":")[0]), mark.role)


def criteria_table(view: View, claim: Claim) -> Table:
    """Bound, estimate, outcome and reason of a claim's criteria, with the seed's form of the same where there is one."""
    judged = judged_of(view, claim)
    by_seed = [_seed_number(view, one) for one in judged]
    columns = [Column("criterion"), Column("bound"), Column("estimate [interval]"), Column("unit"), Column("outcome"), Column("reason")]
    rows: list[list[Cell]] = [[_short(one), bound_words(one.criterion), estimate(one.estimate, column_for(one.criterion.unit)), one.criterion.unit,
                               WORDS[one.outcome], one.estimate.gate or one.reason] for one in judged]
    name, caption = f"claim_{claim.number}", f"Claim {claim.number}: criteria"
    if not any(value is not None for value in by_seed):
        return Table(name, caption, columns, rows)
    return Table(name, caption, [*columns, Column("point value", "number")], [[*row, value] for row, value in zip(rows, by_seed, strict=True)],
                 "Point value: without correction or null; the seed's formula where it has one, else the plug-in of ours.")


OF_THE_SEED = "Claim {number} of the seed: {outcome}. Its evidence: {evidence}."
DIAMONDS = " Open diamonds: the seed's form, a point value."


def claim_section(view: View, claim: Claim, blocks: Sequence[Block], lead: str = OF_THE_SEED) -> Section:
    """One claim: its outcome, its criteria against their bounds, and its figures and tables; lead: its first sentence."""
    judged = judged_of(view, claim)
    words = WORDS[outcome_of(judged)].lower() if judged else "not judged"
    own: list[Block] = [Paragraph(lead.format(number=claim.number, outcome=words, evidence=claim.evidence), "lead")]
    limiting = limiting_of(judged)
    if limiting is not None:
        own.append(Paragraph(f"Limiting criterion: {_short(limiting)}, {limiting.outcome}: {limiting.estimate.gate or limiting.reason}."))
    own += [Paragraph(f"{_short(one)} cannot be supported on these domains, whatever the numbers: so this claim, and the hypothesis as a whole, can "
                      "be refuted or stay inconclusive here, but not be supported. Domains, not tokens, would settle it.", "warning")
            for one in judged if (one.estimate.gate or "").startswith(UNTESTABLE)]
    if judged:
        own += [Picture(f"claim_{claim.number}", forest([_panel(view, one) for one in judged]),
                        "Criteria against their bounds (red); the claim holds on the green side."
                        + (DIAMONDS if any(_seed_number(view, one) is not None for one in judged) else ""),
                        "One panel per criterion."), criteria_table(view, claim)]
    return Section(f"claim-{claim.number}", f"{claim.number}. {claim.title}", [*own, *blocks])


def overview_table(view: View, claims: Sequence[Claim] = CLAIMS, caption: str = "The seed's four claims") -> Table:
    """The claims, a row each; caption: whose they are."""
    rows: list[list[Cell]] = []
    for claim in claims:
        judged = judged_of(view, claim)
        open_ones = [_short(one) for one in judged if one.outcome != "supported"]
        rows.append([claim.number, claim.title, WORDS[outcome_of(judged)] if judged else "Not judged", ", ".join(open_ones) or "none"])
    return Table("claims", caption, [Column("claim", "number"), Column("words"), Column("outcome"), Column("criteria not "
                                                                                                                            "supported")], rows,
                 "A claim is supported when all of its criteria are, refuted when one of them is, inconclusive otherwise.")


def caveats(view: View) -> Section:
    """What a reader of any number here has to know: of the trace, of gates, of what is absent."""
    said = [str(one) for one in view.facts.get("caveats", ())]
    blocks: list[Block] = [Paragraph(f"{one[0].upper()}{one[1:]}.", "warning") for one in said if one]
    blocks += [Paragraph(f"{_short(one)} is undefined: {one.estimate.reason}.", "note") for one in view.content.finding.criteria
               if one.estimate.value is None]
    gates: dict[str, list[str]] = {}
    for one in view.content.finding.criteria:
        if one.estimate.gate:
            gates.setdefault(one.estimate.gate, []).append(_short(one))
    blocks += [Paragraph(f"No verdict rests on {', '.join(names)}: {gate}.", "note") for gate, names in gates.items()]
    naive = view.estimate("cross_domain_naive_pairing")
    if naive.value is None:
        blocks.append(Paragraph(f"The seed's cross-domain MI is {naive.reason}.", "note"))
    counts = ", ".join(f"{name} {n}" for name, n in view.facts.get("n_documents_per_domain", {}).items())
    blocks.append(Paragraph(f"Judged on test documents: {counts or 'not recorded'}. Intervals resample whole documents."))
    unused = {key: ids for key, ids in view.facts.get("unused_experts", {}).items() if ids}
    if unused:
        shown = "; ".join(f"{key}: {len(ids)}" for key, ids in unused.items())
        blocks.append(Paragraph(f"Experts never selected: {shown}.", "note"))
    return Section("caveats", "Read first", blocks, "caveats")


def seed_panel(view: View) -> Section:
    """What the seed's rule says on these data, and in what it differs."""
    seed = view.content.finding.seed_verdict
    blocks: list[Block] = [Paragraph(str(seed.get("words", "The seed's rule was not applied.")), "lead")]
    if seed.get("reason"):
        blocks.append(Paragraph(f"Undefined: {seed['reason']}"))
    if seed.get("lines"):
        rows: list[list[Cell]] = [["met" if line["passed"] else "not met", line["text"]] for line in seed["lines"]]
        blocks.append(Table("seed_rule", "The seed's criteria on these data", [Column("outcome"), Column("criterion")], rows))
    blocks.append(Paragraph(
        "How it differs: the seed compares uncorrected point values with its bounds. Its cross-domain MI has no value, so transferred "
        "information is read "
        "in its place; its random predictor is a bar that any table passes; its r of MI against accuracy holds by construction. We compare whole "
        "intervals over documents, subtract what the composition of documents brings, ask for more than the best baseline, and may answer that "
        "the data "
        "do not settle it.", "note"))
    return Section("seed-panel", "The seed's own verdict", blocks, "seed")
