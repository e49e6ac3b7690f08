"""The file to copy: a whole hypothesis with one criterion. `cp h00_template.py h02_mine.py`, rename, then `assay register mine`.

1. Say the claim and its criteria, each with the source of its threshold. 2. Write evaluate(): evidence in, Estimates out.
3. Name the Hypothesis as the file (h02_mine.py: "mine"); it is then found by that name in a declaration's `hypotheses`.
D document, L MoE layer.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from analysis.counts import document_hash
from analysis.estimate import Estimate
from analysis.resampling import MIN_UNITS_FOR_INTERVAL, delete_group_jackknife, group_sums, jackknife_groups
from analysis.trace import RoutingTrace
from hypotheses.claim import Criterion, Evaluation, Gate, Hypothesis

TEMPLATE = Hypothesis(
    name="template",
    title="Routers are decided",
    claim="On held-out documents the mean routing entropy is less than half of the largest possible, ln E.",
    source="an example; its threshold has no source",
    criteria=(Criterion("decided", metric="entropy_mean_normalised", unit="share of ln E", population="occurrences, mean over MoE layers",
                        source="an example", below=0.5, gate=Gate(min_documents=100, min_documents_per_domain=50)),),
    null="none: the value is compared with a bound, not with chance",
)


def evaluate(trace: RoutingTrace) -> Evaluation:
    """Mean normalised entropy over test occurrences, averaged over MoE layers; the interval is a jackknife over documents."""
    documents = sorted((one for one in trace.documents if one.split == "test"), key=lambda one: document_hash(one.id, "0"))
    per_domain = Counter(one.domain for one in documents)
    estimate = _mean_entropy(trace, {one.document: row for row, one in enumerate(documents)})
    return Evaluation({"entropy_mean_normalised": estimate},
                      facts={"n_documents": len(documents), "n_documents_per_domain": dict(sorted(per_domain.items()))})


def _mean_entropy(trace: RoutingTrace, row_of: dict[int, int]) -> Estimate:
    n_documents = len(row_of)
    if n_documents < MIN_UNITS_FOR_INTERVAL:  # undefined is a reason, never a number without an interval
        few = f"{n_documents} documents, the floor of an interval is {MIN_UNITS_FOR_INTERVAL}"
        few = "one document: no spread between documents" if n_documents == 1 else few
        return Estimate.undefined(few, unit="share of ln E", n_units=n_documents)
    scale_L = np.array([math.log(layer.n_experts) for layer in trace.meta.layers])
    entropy_D, tokens_D = np.zeros(n_documents), np.zeros(n_documents)
    for batch in trace.batches(split="test"):
        if batch.entropy_nats is None:
            return Estimate.undefined("the trace has no entropies", unit="share of ln E", n_units=n_documents)
        rows = np.array([row_of[document] for document in batch.document.tolist()], dtype=np.int64)
        np.add.at(entropy_D, rows, (batch.entropy_nats / scale_L[:, None]).mean(axis=0))
        np.add.at(tokens_D, rows, 1)
    groups = jackknife_groups(n_documents)
    interval = delete_group_jackknife(group_sums(np.stack([entropy_D, tokens_D]), groups), lambda sums: sums[:, :1] / sums[:, 1:])
    value, low, high, plug_in, se = (float(one[0]) for one in (interval.value, interval.low, interval.high, interval.plug_in, interval.se))
    return Estimate(value, low, high, "share of ln E", "document", n_documents, "delete-group jackknife", plug_in=plug_in, se=se,
                    n=int(tokens_D.sum()), n_of="tokens")
