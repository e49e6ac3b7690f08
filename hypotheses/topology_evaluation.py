"""Topology evaluated: every metric of seed 000 on held-out documents, with nulls, tables and facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from analysis.estimate import Estimate
from analysis.gates import NO_DATA
from analysis.metrics.transfer import ill_posed_cross_domain_mi
from hypotheses.claim import Criterion, Evaluation
from hypotheses.judge import held_against_bound, judge_criterion
from hypotheses.topology_clusters import cluster_part
from hypotheses.topology_consistency import consistency_part
from hypotheses.topology_domains import domain_part
from hypotheses.topology_edges import edge_part
from hypotheses.topology_evidence import PredictionScores, PredictorEvidence, TopologyCounts, TopologyEvidence, TopologySettings
from hypotheses.topology_facts import facts
from hypotheses.topology_layers import layer_part
from hypotheses.topology_parts import Part, Row, columns
from hypotheses.topology_predictor import UNITS, predictor_part
from hypotheses.topology_sequence import sequence_part
from hypotheses.topology_specialisation import specialisation_part
from hypotheses.topology_topics import topics_part

__all__ = ["PredictionScores", "PredictorEvidence", "TopologyEvidence", "TopologySettings", "evaluate"]

CURVE_POINTS, CURVE_HALF_WIDTHS = 41, 4.0


def evaluate(evidence: TopologyEvidence, criteria: Sequence[Criterion] = ()) -> Evaluation:
    """Every topology metric, table and fact of a trace; criteria: those whose verdict is shown against other thresholds.

    Raises TraceError for rows that cannot be counted. What cannot be estimated is an Estimate with its reason; so is everything where the split
    has no documents.
    """
    counts = TopologyCounts(evidence)
    if not any(row.split == evidence.split for row in evidence.trace.documents):
        return _nothing(counts, criteria)
    made: dict[str, Part] = {}
    parts: dict[str, Callable[[], Part]] = {
        "layers": lambda: layer_part(counts), "domains": lambda: domain_part(counts), "clusters": lambda: cluster_part(counts),
        "consistency": lambda: consistency_part(counts, made["clusters"].facts["n_clusters"]),
        "predictors": lambda: predictor_part(counts, _information(made["domains"]))}
    if not evidence.settings.judged_only:
        parts |= {"sequence": lambda: sequence_part(counts), "specialisation": lambda: specialisation_part(counts),
                  "edges": lambda: edge_part(counts), "topics": lambda: topics_part(evidence)}
    whole = Part()
    for number, (name, part) in enumerate(parts.items(), start=1):
        evidence.tell(f"{name} ({number} of {len(parts)})")
        made[name] = part()
        whole.add(made[name])
    whole.facts |= facts(counts, whole.estimates)
    made_of_all = Evaluation(whole.estimates, whole.by_layer, whole.tables, whole.facts)
    whole.tables["threshold_curve"] = columns(list(threshold_curve(criteria, made_of_all)), ("criterion", "threshold", "outcome"))
    return made_of_all


def _nothing(counts: TopologyCounts, criteria: Sequence[Criterion]) -> Evaluation:
    """The evaluation of a split without documents: every number undefined, for that reason."""
    reason = f"{NO_DATA}: no {counts.split} documents"
    units = {**UNITS, **{one.metric: one.unit for one in criteria}}
    estimates = {name: Estimate.undefined(reason, unit=unit) for name, unit in units.items()}
    estimates["cross_domain_naive_pairing"] = ill_posed_cross_domain_mi(0)
    return Evaluation(estimates, facts={**facts(counts, estimates), "nothing": reason})


def _information(between: Part) -> dict[tuple[str, str], Estimate]:
    """T(A->B) of each ordered pair, mean over adjacent layers, as the table has it."""
    table = between.tables["cross_domain_mi"]
    out: dict[tuple[str, str], Estimate] = {}
    for source, target, layer, value in zip(table["source"], table["target"], table["layer"], table["T"]):
        if layer == "mean" and source != target and np.isfinite(value):
            out[source, target] = Estimate(float(value), None, None, "bits", "document", 0, "plug-in")
    return out


def threshold_curve(criteria: Iterable[Criterion], evaluation: Evaluation) -> Iterator[Row]:
    """What the judge says of each criterion at other thresholds; exploratory, the declared threshold alone is judged.

    A criterion that no threshold would settle (below its floor, gated, undefined, without an interval at its level) has no rows.
    """
    for criterion in criteria:
        judged = judge_criterion(None, criterion, evaluation)
        one = judged.estimate
        if not held_against_bound(judged) or one.value is None:
            continue
        half = max(one.half_width or 0.0, abs(one.value - criterion.bound) / CURVE_HALF_WIDTHS, 1e-6)
        name = next(bound for bound in ("below", "above", "at_least", "at_most") if getattr(criterion, bound) is not None)
        for threshold in np.linspace(one.value - CURVE_HALF_WIDTHS * half, one.value + CURVE_HALF_WIDTHS * half, CURVE_POINTS).tolist():
            changed = judge_criterion(None, replace(criterion, **{name: threshold}), evaluation)
            yield {"criterion": criterion.name, "threshold": threshold, "outcome": changed.outcome}
