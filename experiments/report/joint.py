"""The page of a run with several hypotheses: their verdicts side by side, what describes the trace, and where it all comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.report.blocks import Block, Cell, Column, Link, Paragraph, Section, Table
from experiments.report.content import ReportContent
from experiments.report.evidence import provenance_section, quality_section
from experiments.report.integrity import integrity_section
from experiments.report.verdict import WORDS, headline
from experiments.report.writer import Page, model_words, write_page


@dataclass(frozen=True)
class Joint:
    """title: of the experiment; contents: one for each hypothesis; sections: what describes the trace."""

    title: str
    contents: Sequence[ReportContent]
    sections: Sequence[Section] = ()


def verdicts_section(contents: Sequence[ReportContent]) -> Section:
    """Every claim with its verdict, what limits it, and the page that holds its criteria and controls."""
    blocks: list[Block] = []
    rows: list[list[Cell]] = []
    for content in contents:
        finding = content.finding
        rows.append([finding.title, WORDS[finding.verdict], finding.limiting or "", finding.reason])
    blocks.append(Table("verdicts", "Claims judged on held-out documents",
                        [Column("claim"), Column("verdict"), Column("limiting criterion"), Column("because")], rows))
    for content in contents:
        finding = content.finding
        blocks += [Paragraph(f"{finding.title}: {headline(finding)}"),
                   Link(f"Criteria, controls and figures of {finding.title!r}", f"../hypotheses/{finding.hypothesis}/report/report.html")]
    return Section("verdict", "Verdicts", blocks)


def write_joint(run_directory: Path, joint: Joint) -> Path:
    """Write report/ and figures/ of a run with several hypotheses; return the path of report.html."""
    first = joint.contents[0]
    sections = [verdicts_section(joint.contents), *joint.sections, integrity_section(first.audit), quality_section(first), provenance_section(first)]
    words = {content.finding.verdict or "none" for content in joint.contents}
    page = Page(joint.title, [model_words(first), f"Hypotheses {', '.join(content.finding.hypothesis for content in joint.contents)}"],
                words.pop() if len(words) == 1 else "none" if "none" in words else "inconclusive", sections)
    return write_page(run_directory, page)
