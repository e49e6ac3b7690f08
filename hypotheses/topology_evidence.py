"""What the topology hypothesis is judged from: a trace, settings, what predictors made of it; and the counts made of the trace once.

L MoE layer, P adjacent pair of layers, G jackknife group of documents of one domain, E expert (X, Y at two layers), D document.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import Int
from analysis.loads import Loads, document_loads
from analysis.moved_rows import RoutedDocuments
from analysis.pair_counts import PairCounts, PairPlan, accumulate_pairs
from analysis.planes import Planes, planes
from analysis.survey_layers import adjacent, routed
from analysis.trace import RoutingTrace
from analysis.transfer_matrix import DomainJoints

# Seed 000, 1.B: "all 7 cross-domain pairs", of which it names two, Q&A vs sentiment and news vs wiki; the others are declared here, on the
# domains of the embedded corpus. Pairs whose domains a trace has not are listed as absent.
DECLARED_PAIRS = (("news", "wiki"), ("code", "math"), ("math", "medical"), ("medical", "wiki"), ("news", "social"), ("social", "wiki"),
                  ("code", "news"))
PROPHET, ABLATION = "prophet", "prophet_without_attention"
DOMAIN_TABLE_BYTES = 2**29  # joint tables by domain held at once


@dataclass(frozen=True)
class TopologySettings:
    """Knobs of the evaluation; what the criteria mean are the defaults.

    n_shifts: circular shifts behind the excess of adjacent layers; n_map_shifts: behind that of all pairs; n_decomposition: shuffles of each
    strata; smoothing: b of the transfer tables, None: chosen inside each source by cross-validation; n_clusters: None: chosen on calibration
    documents; edge_cut: least |phi| of an edge; max_rows: rows that nulls run on; n_edge_shifts: shifts behind the edges' false-discovery rate.
    """

    seed: int = 0
    level: float = 0.95
    n_shifts: int = 199
    n_map_shifts: int = 25
    n_decomposition: int = 25
    smoothing: float | None = None
    n_clusters: int | None = None
    lags: tuple[int, ...] = (1, 2, 4, 8, 16)
    edge_cut: float = 0.1
    max_rows: int = 2_000_000
    threads: int = 2
    n_null_clusters: int = 199
    n_edge_shifts: int = 999
    n_permutations: int = 999
    n_type_replicates: int = 199
    n_type_permutations: int = 99
    judged_only: bool = False  # leave out what no criterion rests on, as for controls

    @property
    def salt(self) -> str:
        """What orders documents into groups."""
        return str(self.seed)


@dataclass(frozen=True)
class PredictionScores:
    """A predictor on the test documents of one target domain, by predicted layer.

    joint_LGPY: int64 [G, E, E], predicted by actual first choice in each jackknife group; recall_LG2: int64 [G, 2], actual selections among
    the guesses and all of them (None: not counted).
    The same groups of documents in hash order for every predictor of a target. Tokens right are the tables' diagonals, tokens their sums.
    """

    joint_LGPY: Sequence[NDArray[np.integer]]
    recall_LG2: Sequence[NDArray[np.integer]] | None = None


@dataclass(frozen=True)
class PredictorEvidence:
    """What predictors made of the test documents, as arrays.

    layers: places in the trace's layers that were predicted; scores: (predictor, source domain, target domain) -> PredictionScores.
    Predictors are `prophet`, `prophet_without_attention` (the ablation) and the baselines (analysis.metrics.baselines: uniform, modal,
    token_type, previous_layer, ordered_pair), each fitted on training documents of the source. n_documents: test documents per target.
    learning: columns source, epoch, layer, mi_bits, loss, accuracy, equally long. missing: predictor -> why it was not scored. caveat: why no
    verdict may rest on what Prophet gains.
    """

    layers: tuple[int, ...]
    scores: Mapping[tuple[str, str, str], PredictionScores]
    n_documents: Mapping[str, int]
    learning: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    caveat: str | None = None

    def __post_init__(self) -> None:
        for key, one in self.scores.items():
            if len(one.joint_LGPY) != len(self.layers):
                raise ValueError(f"scores {key}: {len(one.joint_LGPY)} layers, {len(self.layers)} were predicted; give one table per predicted layer")
            if any(np.ndim(table) != 3 or np.shape(table)[1] != np.shape(table)[2] for table in one.joint_LGPY):
                raise ValueError(f"scores {key}: tables must be [groups, experts, experts], predicted by actual first choice")
            if key[2] not in self.n_documents:
                raise ValueError(f"scores {key}: n_documents says nothing of target {key[2]!r}")

    @property
    def sources(self) -> tuple[str, ...]:
        """Domains that a predictor was fitted on."""
        return tuple(sorted({source for _, source, _ in self.scores}))

    @property
    def targets(self) -> tuple[str, ...]:
        """Domains that a predictor was applied to."""
        return tuple(sorted({target for _, _, target in self.scores}))

    @property
    def baselines(self) -> tuple[str, ...]:
        """Predictors but Prophet and its ablation."""
        return tuple(sorted({name for name, _, _ in self.scores} - {PROPHET, ABLATION}))


@dataclass(frozen=True)
class TopologyEvidence:
    """domains: those that the corpus was to have; one without test documents is counted as 0. predictor: None where none was run.

    topics: document id -> topic, for documents of one format: the control for domain = source format. tell: hears what is being measured.
    """

    trace: RoutingTrace
    settings: TopologySettings = TopologySettings()
    domains: tuple[str, ...] = ()
    predictor: PredictorEvidence | None = None
    pairs_of_interest: tuple[tuple[str, str], ...] = DECLARED_PAIRS
    split: str = "test"
    topics: Mapping[str, str] = field(default_factory=dict)
    retention: Mapping[tuple[str, str], float | None] = field(default_factory=dict)
    tell: Callable[[str], None] = field(default=lambda _part: None, compare=False)


class TopologyCounts:
    """Counts of the judged split, each made once."""

    def __init__(self, evidence: TopologyEvidence) -> None:
        self.evidence, self.settings, self.trace = evidence, evidence.settings, evidence.trace
        self.layers, self.split = evidence.trace.meta.layers, evidence.split
        self.adjacent = adjacent(self.layers)
        self.pairs = tuple((a, b) for a, b in combinations(range(len(self.layers)), 2) if self.layers[a].stack == self.layers[b].stack)

    @cached_property
    def loads(self) -> Loads:
        """Selections per document (or unit of documents), layer and expert."""
        return document_loads(self.trace, self.split, salt=self.settings.salt)

    @property
    def n_documents(self) -> int:
        """Documents of the judged split that have rows."""
        return int(self.loads.n_documents.sum())

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains with documents, by name."""
        return self.loads.domains

    @cached_property
    def sample(self) -> Planes:
        """Rows that the nulls run on: whole documents in hash order, at most max_rows rows."""
        return planes(self.trace, self.split, salt=self.settings.salt, max_rows=self.settings.max_rows)

    @cached_property
    def routed(self) -> RoutedDocuments:
        """The sample's first choices with keys and groups of its documents."""
        return routed(self.sample, self.trace, self.settings.seed)

    def sample_loads(self, layer: int) -> Int:
        """Selections by document of the sample and expert [D, E]: every document apart, where `loads` folds many."""
        sample, n_experts = self.sample, self.layers[layer].n_experts
        row = np.repeat(np.arange(len(sample.document)) * n_experts, sample.lengths)
        size = len(sample.document) * n_experts
        table = sum(np.bincount(row + slot, minlength=size) for slot in sample.ids[layer])
        return np.asarray(table, np.int64).reshape(-1, n_experts)

    @cached_property
    def domain_of_sample(self) -> NDArray[Any]:
        """Domain of each document of the sample [D]."""
        name = {row.document: row.domain for row in self.trace.documents}
        return np.array([name[number] for number in self.sample.document.tolist()])

    def domain_groups(self, cells: int) -> int:
        """Jackknife groups inside each domain, 50 unless the tables of so many cells would not fit."""
        return int(np.clip(DOMAIN_TABLE_BYTES // (4 * max(cells, 1) * max(len(self.domains), 1)), 4, 50))

    @cached_property
    def _joints(self) -> PairCounts:
        cells = sum(self.layers[a].n_experts * self.layers[b].n_experts for a, b in self.adjacent)
        plan = PairPlan(self.split, self.settings.salt, self.adjacent, max_groups=self.domain_groups(cells), by_domain=True)
        return accumulate_pairs(self.trace, plan, threads=self.settings.threads)

    @cached_property
    def domain_joints(self) -> tuple[DomainJoints, ...]:
        """Joint tables of adjacent layers by group of documents inside each domain."""
        counts = self._joints
        found = []
        for name in counts.deal.domains:
            groups = [counts.groups(pair, name) for pair in self.adjacent]
            found.append(DomainJoints(name, tuple(one.tables[0] for one in groups), groups[0].n_documents))
        return tuple(found)

    def documents_of(self, domain: str) -> int:
        """Documents of a domain."""
        return int(self.loads.documents_H[self.domains.index(domain)])

    def experts(self, layer: int) -> Int:
        """Experts of a layer with a selection."""
        return np.flatnonzero(self.loads.selected[layer].sum(axis=0))
