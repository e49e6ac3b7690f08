"""Names and tokens from outside are text and nothing else (fault cases 32, 38, 39)."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import pytest

from experiments.report import Paragraph, Section, write
from experiments.report.blocks import Column, Table

HOSTILE = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>"
NAMES = (HOSTILE, "../x", "a/b", "CON", "n" * 300, "=HYPERLINK(1)", "{{ 7*7 }}", "\u202egnp.exe", "half \ud83d surrogate")


@pytest.fixture
def page(make_content, tmp_path):
    content = make_content(n_types=60)
    table = Table("names", "Names", [Column("name"), Column("again")], [[name, name] for name in NAMES])
    panels = [Section("names", HOSTILE, [Paragraph(HOSTILE), table], "figures")]
    stats = dict(content.evaluation.tables["routing_stats"])
    stats["token_str"] = [NAMES[i % len(NAMES)] for i in range(len(stats["token_str"]))]
    hostile = replace(
        content,
        panels=lambda _: panels,
        finding=replace(content.finding, title=HOSTILE, claim=HOSTILE),
        evaluation=replace(content.evaluation, tables={**content.evaluation.tables, "routing_stats": stats}),
        trace=replace(
            content.trace, meta=replace(content.trace.meta, model=HOSTILE), events=[{"event": HOSTILE, "detail": "\x00\x1b[31m"}]
        ),
        corpus={"documents": {name: {"train": 1, "calibration": 1, "test": 1} for name in NAMES}},
    )
    return write(tmp_path, hostile)


def test_nothing_from_data_becomes_markup(page):
    text = page.read_text()
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;window.pwned=1&lt;/script&gt;" in text
    assert "{{ 7*7 }}" in text
    markdown = (page.parent / "report.md").read_text()
    assert "<script" not in markdown and "<img" not in markdown


def test_files_are_named_by_us(page):
    written = {path.name for path in page.parent.parent.rglob("*") if path.is_file()}
    assert all(name.isascii() and len(name) < 60 and "script" not in name for name in written)
    assert not (page.parent.parent.parent / "x").exists()


def test_csv_cells_are_no_formulas(page):
    lines = (page.parent / "tables" / "names.csv").read_text().splitlines()
    assert any(line.startswith("'=HYPERLINK(1)") for line in lines)
    assert not any(line.startswith(("=", "+", "-", "@")) for line in lines)


def test_plain_text_shows_tokens_escaped(page):
    text = (page.parent / "analysis_summary.txt").read_text()
    assert "\u202e" not in text
    assert "\\u202egnp.exe" in text
    assert "half \\ud83d" in text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed (apt-get install chromium)")
def test_a_browser_runs_nothing_of_it(page, tmp_path):
    probe = tmp_path / "probe.html"  # a frame without sandbox: would see window.pwned if anything had run
    probe.write_text(page.read_text().replace("</body>", "<p id=probe></p></body>"))
    dom = subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            probe.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert "&lt;script&gt;window.pwned=1" in dom
    assert "onerror=" not in dom.replace("onerror=window.pwned=1&gt;", "")
    assert dom.count("<script") == 0
