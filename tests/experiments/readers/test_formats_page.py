"""The page of formats names readers that exist, and what they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments import readers

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "formats.md").read_text(encoding="utf-8")
ROWS = [(name, cells[1].strip()) for line in PAGE.splitlines() if line.startswith("| `")
        for cells in [line.strip("|").split(" | ")] for name in re.findall(r"`([a-z-]+)`", cells[0])]


def test_there_is_a_table() -> None:
    assert len(ROWS) >= 24 and len({name for name, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("name", "kind"), ROWS)
def test_a_format_of_the_page_is_read_and_is_of_that_kind(name: str, kind: str) -> None:
    assert kind == readers.find(name).KIND
