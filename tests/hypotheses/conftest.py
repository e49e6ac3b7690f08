"""Evaluations with chosen intervals, and the reference cases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.estimate import Estimate
from hypotheses.claim import Evaluation
from hypotheses.h01_var import VAR

REFERENCE = Path(__file__).parents[3] / "shared" / "reference_values.json"
UNITS = {criterion.metric: criterion.unit for criterion in VAR.criteria}

Interval = tuple[float, float, float]  # value, low, high
ENOUGH = {"n_documents": 660, "n_documents_per_domain": {"code": 330, "news": 330}, "n_types_judged": 400}
SUPPORTS: dict[str, Interval] = {"freq_entropy_rho": (-0.62, -0.68, -0.55), "entropy_share_below": (0.55, 0.51, 0.58),
                                 "fastpath_coverage": (0.5, 0.45, 0.55)}
REFUTES: dict[str, Interval] = {"freq_entropy_rho": (-0.1, -0.2, 0.0), "entropy_share_below": (0.2, 0.15, 0.25),
                                "fastpath_coverage": (0.1, 0.08, 0.12)}


@pytest.fixture
def reference() -> Callable[[str], dict[str, Any]]:
    """Look up a case of reference_values.json by id."""
    if not REFERENCE.exists():
        pytest.skip(f"{REFERENCE} is absent")
    cases = {case["id"]: case for case in json.loads(REFERENCE.read_text(encoding="utf-8"))["cases"]}
    return cases.__getitem__


@pytest.fixture
def evaluation() -> Callable[..., Evaluation]:
    """Make a VAR evaluation from (value, low, high) by metric; facts are above every floor unless given."""
    def make(intervals: dict[str, Interval | None] | None = None, facts: dict[str, Any] | None = None, **changes: Any) -> Evaluation:
        chosen: dict[str, Interval | None] = {**SUPPORTS, **(intervals or {})}
        estimates = {metric: Estimate(*ends, UNITS[metric], "document", 660, "given", **changes)
                     for metric, ends in chosen.items() if ends is not None}
        return Evaluation(estimates, facts={**ENOUGH, **(facts or {})})
    return make
