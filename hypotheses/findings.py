"""Findings as JSON and back; equal findings give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from analysis.estimate import Estimate
from hypotheses.claim import Criterion, CriterionFinding, Finding, Gate

SCHEMA = "assay-findings/1"


def findings_to_json(findings: Sequence[Finding]) -> str:
    """Sorted keys, one space of indentation, null for what is undefined; NaN and infinities are refused by json.dumps."""
    fields = {"schema": SCHEMA, "findings": [asdict(finding) for finding in findings]}
    return json.dumps(fields, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def findings_from_json(text: str) -> tuple[Finding, ...]:
    """Inverse of findings_to_json. Raises ValueError on another schema."""
    fields = json.loads(text)
    if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
        raise ValueError(f"findings: schema is not {SCHEMA!r}; write the findings again with assay report RUN")
    return tuple(_finding(one) for one in fields["findings"])


def _finding(fields: dict[str, Any]) -> Finding:
    return Finding(**{**fields, "criteria": tuple(_criterion_finding(one) for one in fields["criteria"])})


def _criterion_finding(fields: dict[str, Any]) -> CriterionFinding:
    criterion = Criterion(**{**fields["criterion"], "gate": Gate(**fields["criterion"]["gate"])})
    return CriterionFinding(**{**fields, "criterion": criterion, "estimate": Estimate.from_json(fields["estimate"])})
