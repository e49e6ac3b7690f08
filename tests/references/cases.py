"""The project's reference values, by case id."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).parents[2].parent / "shared" / "reference_values.json"


@cache
def _cases() -> dict[str, Any]:
    return {case["id"]: case for case in json.loads(SHARED.read_text())["cases"]}


def case(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and expected values of a case; skips where the shared pages are not beside the clone."""
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is not there: the reference values live beside the clone, not in it")
    return _cases()[name]["inputs"], _cases()[name]["expected"]
