"""A report is written whole, opens with its verdict, and the same content gives the same bytes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from analysis.estimate import Estimate
from experiments.report import Paragraph, Section, write

ORDER = [
    "verdict",
    "criteria",
    "settle",
    "controls",
    "key-figure",
    "figures",
    "sensitivity",
    "seed",
    "sweep",
    "fastpath",
    "integrity",
    "quality",
    "provenance",
    "appendix",
]
SEED_FIGURES = ("frequency_vs_entropy", "entropy_distribution", "routing_consistency", "fastpath_coverage")
PNG_300_DPI = b"pHYs\x00\x00.#\x00\x00.#"  # 11,811 pixels per metre


class Outline(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "section":
            self.sections.append(dict(attrs)["id"])
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def no_panels(_content):
    return ()


def test_sections_come_in_the_order_a_reader_asks(run):
    outline = Outline((run / "report" / "report.html").read_text())
    assert outline.sections == ORDER
    assert outline.open == []


def test_page_is_self_contained(run):
    page = (run / "report" / "report.html").read_text()
    outline = Outline(page)
    assert "script" not in outline.tags
    assert "link" not in outline.tags
    assert not re.search(r'(src|href)="(?!data:image/png;base64,|#)', page)
    assert "default-src 'none'" in page
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    import base64

    assert f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}" in page


@pytest.mark.parametrize("name", SEED_FIGURES)
def test_the_seeds_figures_are_there_at_300_dpi_and_as_pdf(run, name):
    assert PNG_300_DPI in (run / "figures" / f"{name}.png").read_bytes()[:200]
    assert (run / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_validation_report_has_the_seeds_five_sections_and_both_verdicts(run):
    text = (run / "report" / "validation_report.txt").read_text()
    for heading in (
        "1. Analyzing frequency distribution...",
        "2. Testing frequency-entropy correlation...",
        "3. Analyzing entropy distribution...",
        "4. Analyzing routing consistency...",
        "5. Identifying fast-path eligible tokens...",
        "Validation Summary",
    ):
        assert heading in text
    assert "VAR Hypothesis NOT SUPPORTED" in text
    assert "REFUTED" in text
    assert re.search(r"P-value: .*n = 1,980", text)  # metrics spec 2.4: n beside every p


def test_every_table_is_written_as_csv_and_tex(run):
    tables = run / "report" / "tables"
    criteria = (tables / "criteria.csv").read_text()
    assert criteria.count("\n") == 4
    assert r"\toprule" in (tables / "criteria.tex").read_text()
    assert {path.stem for path in tables.glob("*.csv")} == {path.stem for path in tables.glob("*.tex")}


def test_same_content_gives_the_same_bytes(tmp_path, make_content):
    from experiments.report.var_panels import key_picture  # the figure with most of everything

    def panels(content):
        return [Section("key-figure", "Key", [key_picture(content)], "key")]

    digests = []
    for name in ("a", "b"):
        write(tmp_path / name, make_content(n_layers=2, n_types=100, panels=panels))
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        digests.append([(path.relative_to(tmp_path / name), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files])
    assert digests[0] == digests[1]


def test_failed_controls_open_the_page(tmp_path, make_content):
    content = make_content(panels=no_panels)
    failed = replace(content.finding, verdict=None, reason="controls failed: the positive control came out refuted, not supported")
    page = write(tmp_path, replace(content, finding=failed)).read_text()
    assert '<body class="none">' in page
    opening = page[page.index('<section id="verdict">') : page.index('<section id="criteria">')]
    assert "Verdict: no verdict" in opening
    assert "because the controls failed" in opening
    assert "the positive control came out refuted" in opening


def test_undefined_is_shown_with_its_reason_everywhere(tmp_path, make_estimates, make_evaluation, content_of):
    undefined = {
        name: Estimate.undefined("one document: no spread between documents", unit=e.unit)
        for name, e in make_estimates(-0.2, 0.3, 0.1).items()
    }
    measured = replace(make_evaluation(1, 60, 8, 1, 0, undefined), tables={})
    page = write(tmp_path, content_of(measured, 1, 8, 1, sweep=None, fastpath=None, training=None)).read_text()
    assert page.count("undefined: one document: no spread between documents") > 10
    assert "NaN" not in page and ">nan<" not in page
    assert "is undefined (one document: no spread between documents)" in page


def test_another_hypothesis_brings_its_own_panels(tmp_path, make_content):
    content = make_content()
    other = replace(
        content,
        finding=replace(content.finding, hypothesis="other"),
        panels=lambda _: [Section("mine", "My panel", [Paragraph("drawn elsewhere")], "figures")],
    )
    page = write(tmp_path, other).read_text()
    assert "drawn elsewhere" in page
    assert "mine" in Outline(page).sections
    assert not (tmp_path / "report" / "validation_report.txt").exists()
