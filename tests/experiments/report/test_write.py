"""A report is written whole, and the same content gives the same bytes."""

from __future__ import annotations

from experiments.report import write


def test_report_and_key_figure_are_written(make_content, tmp_path):
    page = write(tmp_path, make_content(n_layers=2, n_types=200))
    assert page == tmp_path / "report" / "report.html"
    assert (tmp_path / "figures" / "frequency_vs_entropy.png").stat().st_size > 10_000
    assert "rank_correlation" in page.read_text()
