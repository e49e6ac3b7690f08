"""Topology evaluated: every metric of seed 000 on held-out documents, with nulls, tables and facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.estimate import Estimate
from analysis.gates import NO_DATA
from analysis.metrics.transfer import ill_posed_cross_domain_mi
from analysis.rows import take
from analysis.trace import DocumentRow, RoutingTrace, TraceBatch, TraceMeta
from analysis.transfer_matrix import transfer_matrix
from hypotheses.claim import Criterion, Evaluation
from hypotheses.judge import held_against_bound, judge_criterion
from hypotheses.topology_clusters import cluster_part
from hypotheses.topology_consistency import consistency_part
from hypotheses.topology_domains import domain_part
from hypotheses.topology_edges import edge_part
from hypotheses.topology_evidence import PredictionScores, PredictorEvidence, TopologyCounts, TopologyEvidence, TopologySettings
from hypotheses.topology_facts import facts
from hypotheses.topology_layers import layer_part
from hypotheses.topology_parts import Part, Row, cells, columns
from hypotheses.topology_predictor import UNITS, predictor_part
from hypotheses.topology_sequence import sequence_part
from hypotheses.topology_specialisation import specialisation_part

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
                  "edges": lambda: edge_part(counts), "topics": lambda: _topics(evidence)}
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


@dataclass(frozen=True)
class TopicTrace:
    """The documents of a trace that have a topic, each in the domain of its topic: the control for domain = source format."""

    trace: RoutingTrace
    topic_of: dict[int, str]

    @property
    def meta(self) -> TraceMeta:
        """Of the trace."""
        return self.trace.meta

    @property
    def documents(self) -> Sequence[DocumentRow]:
        """Those with a topic, the topic as their domain."""
        return [replace(row, domain=self.topic_of[row.document]) for row in self.trace.documents if row.document in self.topic_of]

    def batches(self, *, split: str | None = None, layers: Sequence[int] | None = None) -> Iterator[TraceBatch]:
        """Rows of those documents."""
        kept = np.array(sorted(self.topic_of), np.int64)
        for batch in self.trace.batches(split=split, layers=layers):
            rows = np.isin(batch.document, kept)
            if rows.any():
                yield batch if rows.all() else take(batch, rows)


def _topics(evidence: TopologyEvidence) -> Part:
    """Transferred information between topics of one format, where the evidence names the topic of documents."""
    missing = Estimate.undefined(f"{NO_DATA}: no topics of one format are declared", unit="bits")
    part = Part(estimates={"transfer_info_topics": missing})
    part.tables["wiki_topics"] = columns([], ("source", "target", *cells(missing)))
    judged = (row for row in evidence.trace.documents if row.split == evidence.split)
    topic_of = {row.document: evidence.topics[row.id] for row in judged if row.id in evidence.topics}
    if len(set(topic_of.values())) < 2:
        return part
    counts = TopologyCounts(replace(evidence, trace=TopicTrace(evidence.trace, topic_of), predictor=None, topics={}))
    if not counts.adjacent:
        return part
    matrix = transfer_matrix(counts.domain_joints, smoothing=counts.settings.smoothing, level=counts.settings.level)
    part.estimates["transfer_info_topics"] = matrix.overall
    part.tables["wiki_topics"] = columns([{"source": a, "target": b, **cells(matrix.mean[i, j])} for i, a in enumerate(matrix.names)
                                          for j, b in enumerate(matrix.names)])
    return part


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
