"""Whether experts that meet in one domain meet in another: rank correlation of co-activation lifts over its split-half ceiling.

E expert, D domain, G group of documents of one domain, F half, S split into halves, V pair of experts, L MoE layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from analysis.clustering import cluster_experts
from analysis.coactivation_consistency import coactivation_consistency, partition_agreement
from analysis.estimate import Estimate
from analysis.gates import NO_DATA, few_per_domain, gated
from analysis.kernels import Float, Int
from analysis.left_out import LeftOut, stack
from analysis.metrics.coactivation import coact_lift, undefined_reason
from analysis.metrics.frequency import midranks
from analysis.pair_counts import PairPlan, pair_groups
from analysis.resampling import generator
from hypotheses.topology_domains import ONE_DOMAIN
from hypotheses.topology_evidence import TopologyCounts
from hypotheses.topology_parts import Part, Row, columns

EQUIVALENCE_LEVEL = 0.90  # two one-sided tests at 5 % (metrics specification 6)
CEILING_SHARE = "share of the split-half ceiling"
N_GROUPS, N_SPLITS = 20, 4
LEAST_PAIRS = 10
PERMUTED_CELLS, FEWEST_PERMUTATIONS = 3e7, 199  # pairs of experts ranked anew over all permutations of a run
LEAST_RELIABILITY = 0.2  # correlation of two halves of one domain below which "different" cannot be told from "noisy"
COLUMNS = ("layer", "source", "target", "mantel", "p", "reliability_source", "reliability_target", "ceiling", "corrected", "matched", "ari", "ami",
           "n_pairs", "reason")


def consistency_part(counts: TopologyCounts, n_clusters: Sequence[int | None]) -> Part:
    """Table of domain pairs and layers; the estimates are means over both, with a jackknife over groups of documents inside domains.

    `coact_mantel`: correlation of the lifts; `coact_consistency`: of halves of two domains, over the correlation of two halves of one
    (analysis.coactivation_consistency, `matched`), whose 90 % interval is that of the equivalence test.
    """
    part = Part()
    if len(counts.domains) < 2:
        for name, unit in (("coact_mantel", "correlation"), ("coact_consistency", CEILING_SHARE)):
            part.estimates[name] = Estimate.undefined(ONE_DOMAIN, unit=unit, n_units=counts.n_documents)
            part.by_layer[name] = tuple(part.estimates[name] for _ in counts.layers)
        part.tables["cluster_consistency"] = columns([], COLUMNS)
        return part
    own = tuple((layer, layer) for layer in range(len(counts.layers)))
    plan = PairPlan(counts.split, counts.settings.salt, own, max_groups=N_GROUPS, by_domain=True, variant="slots")
    rows: list[Row] = []
    each: list[_Replicates | str] = []
    for (layer, _), groups in pair_groups(counts.trace, plan, threads=counts.settings.threads):
        assert groups.stratum is not None
        tables = [groups.tables[0][groups.stratum == d] for d in range(len(counts.domains))]
        if not counts.settings.judged_only:
            rows += _rows(counts, layer, tables, n_clusters[layer])
        each.append(_replicates(tables))
    for name, unit in (("coact_mantel", "correlation"), ("coact_consistency", CEILING_SHARE)):
        part.by_layer[name] = tuple(_estimate(counts, name, unit, [one]) for one in each)
        part.estimates[name] = _estimate(counts, name, unit, each)
    part.tables["cluster_consistency"] = columns(rows, COLUMNS)
    return part


def _halves(tables_GEE: Int, n_splits: int) -> Float:
    """Sums over two halves of the groups [S, 2, E, E]: split s takes groups by bit s of their number, so that splits differ."""
    number = np.arange(len(tables_GEE))
    sides = np.stack([(number // 2**s + (number // 2**(s + 1) if s else 0)) % 2 for s in range(n_splits)])
    return np.stack([[tables_GEE[side == half].sum(axis=0) for half in (0, 1)] for side in sides]).astype(np.float64)


def _rows(counts: TopologyCounts, layer: int, tables: Sequence[Int], n_clusters: int | None) -> list[Row]:
    rows: list[Row] = []
    n_cells = len(counts.layers) * len(tables) * (len(tables) - 1) / 2 * tables[0].shape[-1] ** 2 / 2
    n_permutations = int(min(counts.settings.n_permutations, max(PERMUTED_CELLS // n_cells, FEWEST_PERMUTATIONS)))
    labels = [cluster_experts(table.sum(axis=0), n_clusters).labels if n_clusters else None for table in tables]
    for a, b in combinations(range(len(tables)), 2):
        rng = generator(counts.settings.seed, f"mantel {a} {b}", counts.layers[layer].key)
        row: dict[str, object] = {"layer": layer, "source": counts.domains[a], "target": counts.domains[b]}
        if min(len(tables[a]), len(tables[b])) < 2:
            reason = "one_document_per_domain: halves need two documents in each domain"
            rows.append({**row, **dict.fromkeys(COLUMNS[3:-1]), "reason": reason})
            continue
        found = coactivation_consistency(_halves(tables[a], 1), _halves(tables[b], 1), rng, n_permutations)
        left, right = labels[a], labels[b]
        agreement = None if left is None or right is None else partition_agreement(left, right)
        rows.append({**row, "mantel": found.mantel.rho, "p": found.mantel.p, "reliability_source": found.reliability_a,
                     "reliability_target": found.reliability_b, "ceiling": found.ceiling, "corrected": found.corrected, "matched": found.matched,
                     "ari": agreement and agreement.ari, "ami": agreement and agreement.ami, "n_pairs": found.mantel.n_pairs,
                     "reason": found.reason or ""})
    return rows


@dataclass(frozen=True)
class _Replicates:
    """Mean Mantel correlation and mean matched ratio over pairs of domains, whole and without each group."""

    mantel: LeftOut
    matched: LeftOut


def _replicates(tables: Sequence[Int]) -> _Replicates | str:
    """Both statistics of one layer, or why there are none."""
    for table in tables:
        reason = undefined_reason(table.sum(axis=0))
        if reason:
            return reason
    if min(len(table) for table in tables) < 4:
        return "one_document_per_domain: halves of two documents or more are needed in every domain"
    vectors = [_Lifts.of(table) for table in tables]
    defined = np.logical_and.reduce([one.defined for one in vectors])
    if defined.sum() < LEAST_PAIRS:
        return f"too_few_pairs: {int(defined.sum())} pairs of experts met in every half of every domain, {LEAST_PAIRS} needed"
    ranked = [one.ranked(defined) for one in vectors]
    whole = _statistics([one.whole for one in ranked], [one.halves for one in ranked])
    without, stratum = [], []
    for d, one in enumerate(ranked):
        for g in range(len(one.whole_without)):
            wholes = [other.whole_without[g] if e == d else other.whole for e, other in enumerate(ranked)]
            halves = [other.halves_without[g] if e == d else other.halves for e, other in enumerate(ranked)]
            without.append(_statistics(wholes, halves))
            stratum.append(d)
    left = np.array(without)
    n_documents = sum(len(table) for table in tables)
    of = [LeftOut(np.asarray(whole[place]), left[:, place], n_documents, np.array(stratum)) for place in (0, 1)]
    return _Replicates(*of)


@dataclass(frozen=True)
class _Lifts:
    """Lifts above the diagonal of one domain: whole [V], halves [S, 2, V], and the same without each group [G, ...]."""

    whole: Float
    halves: Float
    whole_without: Float
    halves_without: Float

    @classmethod
    def of(cls, tables_GEE: Int) -> _Lifts:
        upper = np.triu_indices(tables_GEE.shape[-1], 1)
        total = tables_GEE.sum(axis=0)
        halves = _halves(tables_GEE, N_SPLITS)
        sides = np.stack([_halves(np.eye(len(tables_GEE), dtype=np.int64)[:, g, None, None], N_SPLITS)[..., 0, 0] for g in range(len(tables_GEE))])
        without = halves[None] - sides[..., None, None] * tables_GEE[:, None, None].astype(np.float64)

        def lifts(table: Float) -> Float:
            return np.asarray(coact_lift(table)[..., upper[0], upper[1]])

        changed = lifts(without[sides.astype(bool)]).reshape(len(tables_GEE), N_SPLITS, -1)
        same = lifts(halves)
        halves_without = np.where(sides[..., None].astype(bool), changed[:, :, None], same[None])
        return cls(lifts(total), same, lifts(total - tables_GEE), halves_without)

    @property
    def defined(self) -> np.ndarray:
        """Pairs with a lift everywhere [V]."""
        parts = (self.whole[None], self.halves.reshape(-1, len(self.whole)), self.whole_without, self.halves_without.reshape(-1, len(self.whole)))
        return np.asarray(np.isfinite(np.concatenate(parts)).all(axis=0))

    def ranked(self, defined: np.ndarray) -> _Lifts:
        """Centred mid-ranks of the defined pairs, scaled to length 1, so that a correlation is a product."""
        return _Lifts(*(_unit_ranks(part[..., defined]) for part in (self.whole, self.halves, self.whole_without, self.halves_without)))


def _unit_ranks(values: Float) -> Float:
    flat = values.reshape(-1, values.shape[-1])
    ranks = np.stack([midranks(row) for row in flat])
    ranks -= ranks.mean(axis=1, keepdims=True)
    length = np.sqrt((ranks**2).sum(axis=1, keepdims=True))
    scaled: Float = np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)
    return scaled.reshape(values.shape)


def _statistics(wholes: Sequence[Float], halves: Sequence[Float]) -> tuple[float, float]:
    """Mean over pairs of domains of the correlation of the wholes, and of halves across over halves within; NaN where halves do not agree."""
    within = [float(np.mean([half[0] @ half[1] for half in one])) for one in halves]
    if min(within) < LEAST_RELIABILITY:
        return float(np.mean([wholes[a] @ wholes[b] for a, b in combinations(range(len(wholes)), 2)])), float("nan")
    mantels, ratios = [], []
    for a, b in combinations(range(len(wholes)), 2):
        mantels.append(float(wholes[a] @ wholes[b]))
        across = float(np.mean(np.einsum("sfv,sgv->sfg", halves[a], halves[b])))
        ratios.append(across / float(np.sqrt(within[a] * within[b])))
    return float(np.mean(mantels)), float(np.mean(ratios))


def _estimate(counts: TopologyCounts, name: str, unit: str, each: Sequence[_Replicates | str]) -> Estimate:
    reasons = [one for one in each if isinstance(one, str)]
    known = [one for one in each if not isinstance(one, str)]
    if reasons or not known:
        return Estimate.undefined(next(iter(reasons), NO_DATA), unit=unit, n_units=counts.n_documents)
    together = stack([one.mantel if name == "coact_mantel" else one.matched for one in known])
    mean = together.mean([list(range(len(known)))])
    if np.isnan(mean.plug_in[0]):
        reason = "unreliable: halves of one domain's documents do not agree; collect more documents"
        return Estimate.undefined(reason, unit=unit, n_units=counts.n_documents)
    level = counts.settings.level if name == "coact_mantel" else EQUIVALENCE_LEVEL
    made: Estimate = mean.estimates("coact_mantel", level=level)[0]
    value = made.plug_in  # ranks step where lifts cross: their jackknife gives a spread, but no correction of a bias
    assert value is not None
    half = made.half_width
    estimate = Estimate(value, None if half is None else value - half, None if half is None else value + half, unit, "document", counts.n_documents,
                        "group jackknife inside domains", level, plug_in=value, se=made.se)
    return gated(estimate, few_per_domain([counts.documents_of(domain) for domain in counts.domains]))
