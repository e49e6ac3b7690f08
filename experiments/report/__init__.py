"""Findings into a report: one-file HTML, Markdown, CSV, TeX, figures and plain text."""

from experiments.report.blocks import Column, Listing, Paragraph, Picture, Section, Table
from experiments.report.content import PanelMaker, ReportContent, TraceFacts
from experiments.report.writer import write

__all__ = ["Column", "Listing", "PanelMaker", "Paragraph", "Picture", "ReportContent", "Section", "Table", "TraceFacts", "write"]
