"""The opening of every report, whatever the hypothesis: verdict, criteria, what would settle it, controls, the seed's own rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.estimate import Estimate
from experiments.report.blocks import Block, Cell, Column, Paragraph, Section, Table
from experiments.report.content import ReportContent
from experiments.report.display import estimate, level_words
from hypotheses.claim import Criterion, CriterionFinding, Finding
from hypotheses.judge import FLAWED

WORDS = {"supported": "Supported", "refuted": "Refuted", "inconclusive": "Inconclusive", None: "No verdict"}
SIGNS = {"<=": "\u2264", ">=": "\u2265"}


def is_share(unit: str) -> bool:
    """Whether a unit is a proportion, shown in per cent."""
    return unit.startswith(("share", "fraction"))


def column_for(unit: str, digits: int = 3) -> Column:
    """How estimates in `unit` are shown."""
    return Column("", "estimate", 1 if is_share(unit) else digits, is_share(unit))


def bound_words(criterion: Criterion) -> str:
    """The bound as shown: '< -0.4' with a true minus sign, shares in per cent."""
    sign = criterion.inequality.split()[0]
    bound = f"{100 * criterion.bound:g}%" if is_share(criterion.unit) else f"{criterion.bound:g}"
    return f"{SIGNS.get(sign, sign)} {bound}".replace("-", "\u2212")


def headline(finding: Finding) -> str:
    """One sentence: the limiting criterion's estimate with its interval, and the bound that the claim needs."""
    limiting = next((judged for judged in finding.criteria if judged.criterion.name == finding.limiting), None)
    if limiting is None:
        return f"The claim has no criterion that could be judged: {finding.reason}."
    criterion, value = limiting.criterion, limiting.estimate
    needs = f"the claim needs {bound_words(criterion)} ({criterion.unit})"
    if value.value is None:
        return f"{criterion.name} is undefined ({value.reason}); {needs}."
    number, _, ends = estimate(value, column_for(criterion.unit)).partition(" ")
    within = f", {value.level:.0%} interval {ends.strip('[]').replace(', ', ' to ')}" if ends else ", without an interval"
    over = f" over {value.n_units:,} {'training seeds' if value.resampled == 'seed' else 'test documents'}" if value.n_units else ""
    flawed = f" No verdict: {limiting.reason}." if limiting.reason.startswith(FLAWED) else ""
    return f"{criterion.name} is {number}{within}{over}; {needs}.{flawed}"


def units_of(value: Estimate) -> str:
    """What was resampled and how many of it, then the further sample size."""
    parts = [f"{value.n_units:,} {value.resampled.split(' x ')[0]}s"] if value.n_units else []
    if value.n is not None:
        parts.append(f"{value.n:,} {value.n_of or ''}".rstrip())
    return ", ".join(parts)


def null_words(value: Estimate, unit: str) -> str:
    """The matched null with its central 95 %, or a dash."""
    if value.null is None:
        return "\u2014"
    return estimate(Estimate(value.null, value.null_low, value.null_high, unit, value.resampled, value.n_units, "null"), column_for(unit))


def _criterion_row(judged: CriterionFinding) -> list[Cell]:
    criterion, value = judged.criterion, judged.estimate
    grades = " / ".join(grade or "\u2014" for grade in (judged.point_grade, judged.guaranteed_grade))
    return [
        criterion.name,
        bound_words(criterion),
        estimate(value, column_for(criterion.unit)),
        criterion.unit,
        units_of(value),
        null_words(value, criterion.unit),
        WORDS[judged.outcome],
        grades,
    ]


def criteria_table(finding: Finding) -> Table:
    """Criterion, bound, estimate with interval, unit, sample sizes, matched null, outcome, grades."""
    columns = [
        Column(title)
        for title in (
            "criterion",
            "bound",
            f"estimate [{level_words(judged.estimate for judged in finding.criteria)}]",
            "unit",
            "documents, types",
            "matched null [95%]",
            "outcome",
            "grade: point / guaranteed",
        )
    ]
    return Table(
        "criteria",
        "Criteria and what was measured on held-out documents",
        columns,
        [_criterion_row(judged) for judged in finding.criteria],
        "A criterion is supported when its whole interval respects the bound, refuted when no part of it does, and inconclusive otherwise. "
        "The point grade is the seed's band of the estimate; the guaranteed grade is that of the interval's less favourable end. "
        "A dash: the matched null leaves the statistic as it is." + _levels(finding),
    )


def _levels(finding: Finding) -> str:
    """Which criterion's interval has which level, where they have several."""
    names: dict[float, list[str]] = {}
    for judged in finding.criteria:
        if judged.estimate.low is not None:
            names.setdefault(judged.estimate.level, []).append(judged.criterion.name)
    if len(names) < 2:
        return ""
    usual, *others = sorted(names, key=lambda level: -len(names[level]))
    return f" Intervals: {usual:.0%}; " + "; ".join(f"{level:.0%} of {', '.join(names[level])}" for level in others) + "."


def verdict_section(content: ReportContent) -> Section:
    """The verdict in one sentence, and the claim it answers."""
    finding = content.finding
    blocks: list[Block] = [Paragraph(headline(finding), "lead"), Paragraph(f"Claim: {finding.claim}")]
    if finding.verdict is None:
        blocks.insert(0, Paragraph(f"No verdict is given, because the controls failed: {finding.reason}", "warning"))
    note = finding.registration.get("note")
    if note:
        as_registered = finding.registration.get("status") == "registered" and not finding.registration.get("post_hoc")
        blocks.append(Paragraph(f"The criteria were {note}.", "note" if as_registered else "warning"))
    return Section("verdict", f"Verdict: {WORDS[finding.verdict].lower()}", blocks)


def criteria_section(finding: Finding, overview: Sequence[Block]) -> Section:
    """The criteria table, the reason for each outcome, and an overview figure if there is one."""
    reasons = [Paragraph(f"{judged.criterion.name}: {judged.reason}", "note") for judged in finding.criteria]
    return Section("criteria", "Criteria", [criteria_table(finding), *reasons, *overview])


def settle_section(finding: Finding) -> Section | None:
    """What would settle each inconclusive criterion; None when all are settled."""
    open_ones = [judged for judged in finding.criteria if judged.outcome == "inconclusive"]
    if not open_ones:
        return None
    return Section(
        "settle",
        "What would settle it",
        [
            Paragraph(
                f"{judged.criterion.name}: {judged.settle or 'no number of documents is known to settle it: ' + judged.reason}"
            )
            for judged in open_ones
        ],
    )


def flat(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (dotted name, text) pairs; lists of plain values are joined, empty ones are 'none'."""
    pairs: list[tuple[str, str]] = []
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            pairs += flat(value, f"{name}.") if value else [(name, "none")]
        elif isinstance(value, list | tuple):
            pairs.append((name, "; ".join(str(item) for item in value) or "none"))
        else:
            pairs.append(
                (
                    name,
                    "not recorded"
                    if value is None
                    else f"{value:,}"
                    if isinstance(value, int) and not isinstance(value, bool)
                    else str(value),
                )
            )
    return pairs


def pairs_table(name: str, caption: str, mapping: Mapping[str, Any], note: str = "") -> Table:
    """Any mapping as a two-column table."""
    return Table(name, caption, [Column("item"), Column("value")], [list(pair) for pair in flat(mapping)], note)
