"""The report's section on the trace's integrity."""

from __future__ import annotations

from experiments.report.blocks import Paragraph, Table
from experiments.report.integrity import integrity_section
from experiments.report.sections import assemble


def entry(**fields: object) -> dict[str, object]:
    return {"code": "counted_twice", "count": 10, "of": 60, "unit": "documents", "share": 1 / 6, "where": ["d1", "d2"], "words": "10 are copies",
            "consequence": "errors shrink", "remedy": "keep one", "invalidates": ["intervals"], "severity": "invalidating", "accepted": False,
            **fields}


def texts(audit: dict[str, object] | None) -> list[tuple[str, str]]:
    return [(block.role, block.text) for block in integrity_section(audit).blocks if isinstance(block, Paragraph)]


def test_a_run_without_an_audit_and_a_clean_one() -> None:
    assert texts(None)[0][0] == "warning" and "was not audited" in texts(None)[0][1]
    assert texts({"findings": []})[0][0] == "body" and texts({"findings": []})[0][1].startswith("Nothing was found")


def test_tables_without_a_finding_say_what_cannot_be_seen_in_them() -> None:
    (said,) = texts({"findings": [], "rows": False})
    assert said[1].startswith("Nothing was found in the tables") and "cannot be seen" in said[1] and "no padding" not in said[1]


def test_findings_are_in_a_table_and_the_invalidating_ones_are_loud() -> None:
    section = integrity_section({"findings": [entry(), entry(code="shared_prefix", invalidates=[], severity="warning")]})
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert [row[:2] for row in table.rows] == [["counted_twice", "invalidating"], ["shared_prefix", "warning"]]
    loud = [block.text for block in section.blocks if isinstance(block, Paragraph) and block.role == "warning"]
    assert len(loud) == 1 and "It invalidates: intervals." in loud[0]
    accepted = integrity_section({"findings": [entry(accepted=True)]})
    assert any(isinstance(block, Paragraph) and "It was accepted" in block.text for block in accepted.blocks)


def test_every_report_has_the_section(make_content) -> None:
    titles = [section.id for section in assemble(make_content(), ())]
    assert titles.index("integrity") + 1 == titles.index("quality")
