"""The statistics of seed 000 at its full size, by our library: what each stage of the bench runs.

D document, L layer, T token, P layer pair, H domain, X, Y, E expert, B replicate, M lag, U unit (documents folded by the hundred).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.influence import InfluenceErrors, influence_errors
from analysis.joint import transition_counts
from analysis.lags import lag_matches, lag_pairs
from analysis.loads import Loads, document_loads
from analysis.metrics import association, diversity, sequence, specialization
from analysis.metrics.coupling import first_choice_indicators, phi_cross
from analysis.metrics.entropy_estimators import mutual_information
from analysis.metrics.information import mi_first_choice
from analysis.metrics.layer_pairs import CrossLayerEstimates, LayerPair, cross_layer_estimates
from analysis.metrics.transfer import jsd_load
from analysis.moved_rows import RoutedDocuments
from analysis.nulls import document_keys
from analysis.pair_counts import PairCounts, PairPlan, accumulate_pairs, pair_groups
from analysis.planes import Planes
from analysis.registry import every, find
from analysis.replicates import WeightedSums, WeightPlan, document_weights, weighted_joint_information
from analysis.shift import ShiftNull, ShiftPlan, shifted_information
from tests.bench.worlds import DOMAINS, HeldTrace, Shape, documents_of, planes_of, trace_of

Float = NDArray[np.float64]
Int = NDArray[np.int64]
OF_DOMAINS: dict[str, Callable[..., Float]] = {
    "mi_E_D": specialization.mi_E_D, "affinity": specialization.affinity, "specialisation_e": specialization.specialisation_e,
    "purity": specialization.purity_token_weighted, "lambda": specialization.goodman_kruskal_lambda, "V": association.cramers_v,
    "domain_entropy": specialization.domain_entropy}
OF_TABLES = OF_DOMAINS | {"chi2": association.chi2_naive, "p": association.p_naive, "V_bergsma": association.bergsma_v,
                          "purity_seed": specialization.purity_seed, "cv_domains": specialization.cv_domains}
REPLICATED_USAGE = ("usage_entropy_bits", "usage_cv", "usage_gini", "usage_max_violation")
AT_ONCE = 64


@dataclass(frozen=True)
class Seed000:
    """The world of seed 000 in memory: the trace as it is read, and its rows layer-major."""

    shape: Shape
    planes: Planes
    trace: HeldTrace

    @classmethod
    def of(cls, shape: Shape) -> Seed000:
        planes = planes_of(shape)
        return cls(shape, planes, trace_of(shape, planes=planes))

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """All pairs of layers."""
        return tuple(self.shape.pairs)

    @property
    def adjacent(self) -> tuple[tuple[int, int], ...]:
        """Pairs of neighbouring layers."""
        return tuple((layer, layer + 1) for layer in range(self.shape.n_layers - 1))

    @property
    def lags(self) -> range:
        """Every lag inside a document."""
        return range(1, self.shape.length)

    @cached_property
    def domain(self) -> Int:
        """Domain of each document [D]."""
        return np.arange(self.shape.n_documents) % len(DOMAINS)

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """Random key of each document."""
        return document_keys(documents_of(self.shape), 0)

    @cached_property
    def documents(self) -> RoutedDocuments:
        """As the nulls take them."""
        return RoutedDocuments(self.planes.first, self.planes.n_experts, self.planes.starts, self.keys)

    def joint(self) -> PairCounts:
        """Tables of every pair by domain."""
        return accumulate_pairs(self.trace, PairPlan("test", "0", self.pairs, max_groups=1, by_domain=True), "numba")

    def information(self, counts: PairCounts | None = None) -> Float:
        """Plug-in bits of every pair, overall and by domain [P, 1 + H]."""
        counts = counts or self.joint()
        out = np.empty((len(self.pairs), 1 + len(DOMAINS)))
        for place, pair in enumerate(self.pairs):
            tables = counts.groups(pair).tables[0]
            out[place] = mi_first_choice(np.concatenate([tables.sum(axis=0, keepdims=True), tables]))
        return out

    def tables(self) -> Int:
        """Joint tables of all pairs [P, X, Y], without domains."""
        counts = accumulate_pairs(self.trace, PairPlan("test", "0", self.pairs, max_groups=1), "numba")
        return np.stack([counts.total(pair) for pair in self.pairs])

    def correlation(self, counts: PairCounts | None = None) -> Float:
        """phi of every pair of experts of neighbouring layers [L - 1, X, Y]."""
        counts = counts or accumulate_pairs(self.trace, PairPlan("test", "0", self.adjacent, max_groups=1), "numba")
        return phi_cross(first_choice_indicators(np.stack([counts.total(pair) for pair in self.adjacent])))

    def loads(self, max_units: int = 2_000) -> Loads:
        """Selections of every document, or unit of documents."""
        return document_loads(self.trace, "test", max_units=max_units, backend="numba")

    def marginals(self, loads: Loads | None = None) -> dict[str, Float]:
        """Usage per layer, association and specialisation per layer, JSD of usage between domains [L, pairs of domains]."""
        loads = loads or self.loads()
        counts_LHE = np.stack([loads.by_domain(layer) for layer in range(self.shape.n_layers)])
        a, b = np.triu_indices(len(DOMAINS), 1)
        usage = {name: find(name).function(counts_LHE.sum(axis=1)) for name in every() if name.startswith("usage_")}
        return {name: of(counts_LHE) for name, of in OF_TABLES.items()} | usage | {"jsd": jsd_load(counts_LHE[:, a], counts_LHE[:, b])}

    def pair_nmi(self, loads: Loads | None = None) -> Float:
        """1 - mean NMI of the indicators of two experts, per layer [L]."""
        loads = loads or self.loads()
        return diversity.diversity_nmi_seed(np.stack([loads.table(layer).sum(axis=0) for layer in range(self.shape.n_layers)]))

    def transitions(self) -> dict[str, Any]:
        """Tables of neighbouring tokens [L, E, E] and what is read off them."""
        tables = np.stack([transition_counts(first, self.planes.starts, self.shape.n_experts, backend="numba") for first in self.planes.first])
        return {"counts": tables, "matrix": sequence.transition_matrix(tables), "kappa": sequence.lag_kappa(tables),
                "diversity": sequence.transition_diversity(tables), "mi": sequence.lag_mi(tables)}

    def lag_kappas(self) -> Float:
        """(same - c) / (1 - c) at every lag [L, M], c the chance of all tokens."""
        pairs = lag_pairs(self.planes.starts, self.lags)
        out = np.empty((self.shape.n_layers, len(self.lags)))
        for layer, first in enumerate(self.planes.first):
            same = lag_matches(first, self.planes.starts, self.shape.n_experts, self.lags)
            of_all = np.bincount(first, minlength=self.shape.n_experts)[None]
            out[layer] = sequence.lag_overlap_kappa(same, of_all * (pairs / len(first))[:, None], of_all * (pairs / len(first))[:, None], pairs)
        return out

    @cached_property
    def kept(self) -> tuple[Int, Loads]:
        """What stage a has counted, for the stages after it."""
        return self.tables(), self.loads()

    def errors(self, n_replicates: int) -> Any:
        """Stage b."""
        tables, loads = self.kept
        return self.replicates(n_replicates, loads), self.scan(tables)

    def point_estimates(self) -> dict[str, Any]:
        """Stage a, every table counted once."""
        counts, loads = self.joint(), self.loads()
        return {"information": self.information(counts), "correlation": self.correlation(counts), "nmi": self.pair_nmi(loads),
                "lags": self.lag_kappas()} | self.marginals(loads) | self.transitions()

    def replicates(self, n_replicates: int, loads: Loads | None = None) -> dict[str, Float]:
        """Every marginal statistic of n_replicates bootstrap samples of units drawn inside domains: name -> [L, B, ...]."""
        loads = loads or self.loads()
        weights = document_weights(self.keys[loads.rank], WeightPlan(n_replicates), range(n_replicates), loads.domain)
        members = [np.flatnonzero(loads.domain == domain) for domain in range(len(DOMAINS))]
        found = [self._replicated(loads.table(layer), members, [weights[:, rows] for rows in members]) for layer in range(self.shape.n_layers)]
        return {name: np.stack([one[name] for one in found]) for name in found[0]}

    def _replicated(self, counts_UE: Int, members: list[Int], weights: list[NDArray[np.uint8]]) -> dict[str, Float]:
        sums = [WeightedSums(counts_UE[rows]) for rows in members]
        parts = []
        for first in range(0, len(weights[0]), AT_ONCE):
            tables = np.stack([each(w[first : first + AT_ONCE]) for each, w in zip(sums, weights)], axis=1)
            usage = {name: find(name).function(tables.sum(axis=1)) for name in REPLICATED_USAGE}
            parts.append({name: of(tables) for name, of in OF_DOMAINS.items()} | usage)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def scan(self, tables: Int | None = None) -> tuple[Float, InfluenceErrors]:
        """Bias-corrected (Miller-Madow) information of every pair and its standard error over documents."""
        tables = self.tables() if tables is None else tables
        errors = influence_errors(self.planes.first, self.planes.n_experts, self.planes.starts, self.pairs, tables=list(tables), backend="numba")
        return np.array([mutual_information(table, "miller_madow") for table in tables]), errors

    def jackknife(self) -> CrossLayerEstimates:
        """The form of judged numbers: 100 groups of documents, each left out once."""
        return cross_layer_estimates(LayerPair(*pair, groups) for pair, groups in pair_groups(self.trace, PairPlan("test", "0", self.pairs), "numba"))

    def shifts(self, n_draws: int, threads: int = 1) -> ShiftNull:
        """Circular shifts inside documents, all pairs."""
        return shifted_information(self.documents, self.pairs, ShiftPlan(n_draws, threads=threads, backend="numba"))

    def exact_replicates(self, n_replicates: int, threads: int = 1, n_pairs: int | None = None, n_groups: int | None = None) -> Float:
        """Plug-in information of every pair in every bootstrap sample of documents, or of hashed groups of them [P, B]; opt-in."""
        keys = self.keys if n_groups is None else self.keys[:n_groups]
        unit = np.repeat(np.arange(self.shape.n_documents) % len(keys), self.shape.length)
        weights = document_weights(keys, WeightPlan(n_replicates), range(n_replicates))
        first, n = self.planes.first, self.shape.n_experts
        return np.array([weighted_joint_information((first[a], first[b]), (n, n), unit, weights, threads=threads, backend="numba")
                         for a, b in self.pairs[:n_pairs]])
