"""The panels of the domain specialisation hypothesis: information by layer, the test, the controls."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.report.atlas_claims import claim_panels, layer_series
from experiments.report.blocks import Section
from experiments.report.content import ReportContent
from experiments.report.topology_columns import View
from hypotheses.h04_domain_specialisation import MIXTRAL

PLANTED = {"positive": "every domain has a law of its own over experts, from which its documents stray little",
           "negative": "one law for all domains, from which single documents stray: what the naive test takes for domains"}


def panels(content: ReportContent) -> Sequence[Section]:
    """All panels of the domain specialisation report."""
    view = View(content)
    series = [layer_series(view, "mi_E_D_share", "I(E;D) as a share of log2 D", "mi_E_D_share", MIXTRAL),
              layer_series(view, "mi_E_D", "I(E;D), bits", "mi_E_D")]
    return claim_panels(view, PLANTED, series)
