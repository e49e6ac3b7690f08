"""The atlas of a trace (seeds 001 and 002): usage, domains, layers and sequence of its experts, with honest statistics; nothing is judged here.

L MoE layer, D domain, E expert.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hypotheses.atlas_association import association_table, information_part, omnibus_test
from hypotheses.atlas_domains import domains_part
from hypotheses.atlas_evidence import AtlasCounts, AtlasEvidence, facts
from hypotheses.atlas_sequence import atlas_sequence
from hypotheses.atlas_usage import usage_part
from hypotheses.claim import Evaluation
from hypotheses.topology_parts import Part, columns

MOST_SEPARATED = 5  # layers, seed 002 Part 6


def describe(evidence: AtlasEvidence, *, told: Callable[[str], Any] = str) -> Evaluation:
    """Estimates, tables and facts of an atlas; `told` is given the name of each part before it is made.

    Raises TraceError for a split without documents, and for rows that cannot be counted. What cannot be estimated is there with its reason.
    """
    counts = AtlasCounts(evidence)
    whole = Part()
    for name, make in (("usage", usage_part), ("information", information_part), ("domains", domains_part), ("sequence", atlas_sequence)):
        told(name)
        whole.add(make(counts))
    told("association")
    whole.estimates["association_p"] = omnibus_test(counts)
    whole.tables["association"] = association_table(counts)
    whole.tables["overview"] = _overview(counts)
    whole.facts |= facts(counts) | {"separated": separated(whole.tables["association"], "mi"),
                                    "separated_seed": separated(whole.tables["association"], "chi2_seed")}
    return Evaluation(whole.estimates, whole.by_layer, whole.tables, whole.facts)


def separated(table: dict[str, Any], by: str) -> list[int]:
    """Layers in the order of a column of the association table, largest first, at most five; those without a value are left out."""
    values = np.asarray(table.get(by, ()), np.float64)
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    return [int(table["layer"][i]) for i in order[:MOST_SEPARATED] if np.isfinite(values[i])]


def _overview(counts: AtlasCounts) -> dict[str, Any]:
    """Documents, tokens and activations (selections over all layers) of each domain."""
    loads, documents = counts.loads, counts.documents_per_domain
    rows = []
    for number, name in enumerate(loads.domains):
        mine = loads.domain == number
        rows.append({"domain": name, "documents": documents[name], "tokens": int(loads.tokens[mine].sum()),
                     "activations": sum(int(table[mine].sum()) for table in loads.selected)})
    return columns(rows, ("domain", "documents", "tokens", "activations"))
