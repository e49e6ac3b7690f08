"""The control for domain = source format: what topics of one format say of one another, by the same numbers as between domains.

Transferred information is made of every topic as it is; everything else of groups of topics with enough documents for a number to mean something.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.estimate import Estimate
from analysis.gates import DOMAIN_FLOOR, NO_DATA, TOO_FEW_DOCUMENTS
from analysis.rows import take
from analysis.trace import DocumentRow, RoutingTrace, TraceBatch, TraceMeta
from analysis.transfer_matrix import transfer_matrix
from hypotheses.topology_domains import COLUMNS, WIDE_COLUMNS, domain_part
from hypotheses.topology_evidence import TopologyCounts, TopologyEvidence
from hypotheses.topology_parts import Part, cells, columns

NONE_DECLARED = f"{NO_DATA}: no topics of one format are declared"
UNITS = {"transfer_info": "bits", "transfer_info_min": "bits", "transfer_info_within": "bits", "transfer_ratio": "ratio", "type_aligned_mi": "bits",
         "jsd_transition": "bits", "jsd_load": "bits"}
PREFIX = "wiki_"


@dataclass(frozen=True)
class TopicTrace:
    """The documents of a trace that have a topic, each in the domain of its topic."""

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


def groups_of(documents: Mapping[str, int], floor: int = DOMAIN_FLOOR) -> dict[str, tuple[str, ...]]:
    """Name -> topics of each group: topics of `floor` documents alone, smaller ones joined by name until they have as many.

    What is left over goes to the last joined group; without one it is in no group. No routing is looked at.
    """
    alone = [(topic,) for topic, n in documents.items() if n >= floor]
    joined: list[tuple[str, ...]] = []
    held: tuple[str, ...] = ()
    for topic in sorted(topic for topic, n in documents.items() if n < floor):
        held = (*held, topic)
        if sum(documents[one] for one in held) >= floor:
            joined, held = [*joined, held], ()
    if held and joined:
        joined[-1] = (*joined[-1], *held)
    return {" + ".join(one): one for one in sorted([*alone, *joined])}


def topics_part(evidence: TopologyEvidence) -> Part:
    """`transfer_info_topics` between all topics, and under `wiki_` what domain_part makes of their groups, by layer in its tables."""
    judged = (row for row in evidence.trace.documents if row.split == evidence.split)
    topic_of = {row.document: evidence.topics[row.id] for row in judged if row.id in evidence.topics}
    documents = dict(sorted(Counter(topic_of.values()).items()))
    groups = groups_of(documents)
    part = _every_topic(evidence, topic_of)
    part.facts["topics"] = {"documents": documents, "groups": {name: list(topics) for name, topics in groups.items()}, "floor": DOMAIN_FLOOR}
    if len(groups) < 2:
        n = sum(documents.values())
        why = NONE_DECLARED if not n else (f"{TOO_FEW_DOCUMENTS}: {n} documents over {len(documents)} topics; two groups of topics need "
                                           f"{2 * DOMAIN_FLOOR}, every topic alone {DOMAIN_FLOOR * max(len(documents), 2)}")
        part.estimates |= {PREFIX + name: Estimate.undefined(why, unit=unit, n_units=n) for name, unit in UNITS.items()}
        part.tables |= {f"{PREFIX}cross_domain_mi": columns([], WIDE_COLUMNS), f"{PREFIX}cross_domain_metrics": columns([], COLUMNS)}
        return part
    named = {topic: name for name, topics in groups.items() for topic in topics}
    between = domain_part(_counts(evidence, {document: named[topic] for document, topic in topic_of.items() if topic in named}))
    part.estimates |= {PREFIX + name: between.estimates[name] for name in UNITS}
    part.tables |= {PREFIX + name: between.tables[name] for name in ("cross_domain_mi", "cross_domain_metrics")}
    return part


def _counts(evidence: TopologyEvidence, topic_of: dict[int, str]) -> TopologyCounts:
    own = replace(evidence, trace=TopicTrace(evidence.trace, topic_of), domains=(), predictor=None, pairs_of_interest=(), topics={}, retention={})
    return TopologyCounts(own)


def _every_topic(evidence: TopologyEvidence, topic_of: dict[int, str]) -> Part:
    """Transferred information between topics as they are, however few documents they have."""
    missing = Estimate.undefined(NONE_DECLARED, unit="bits")
    part = Part(estimates={"transfer_info_topics": missing}, tables={"wiki_topics": columns([], ("source", "target", *cells(missing)))})
    if len(set(topic_of.values())) < 2:
        return part
    counts = _counts(evidence, topic_of)
    if not counts.adjacent:
        return part
    matrix = transfer_matrix(counts.domain_joints, smoothing=counts.settings.smoothing, level=counts.settings.level)
    part.estimates["transfer_info_topics"] = matrix.overall
    part.tables["wiki_topics"] = columns([{"source": a, "target": b, **cells(matrix.mean[i, j])} for i, a in enumerate(matrix.names)
                                          for j, b in enumerate(matrix.names)])
    return part
