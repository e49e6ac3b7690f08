"""Whether experts that meet in one domain meet in another: rank correlation of co-activation lifts over its split-half ceiling.

E expert, D domain, G group of documents of one domain, F half, S split into halves, V pair of experts, L MoE layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from analysis.clustering import cluster_experts
from analysis.coactivation_consistency import coactivation_consistency, partition_agreement
from analysis.estimate import Estimate
from analysis.gates import NO_DATA, few_per_domain, gated
from analysis.kernels import Float, Int
from analysis.left_out import LeftOut, stack
from analysis.metrics.coactivation import coact_lift, expected_meetings, undefined_reason
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
LEAST_EXPECTED = 5.0  # meetings that chance alone would give in a half: from there on never to have met says something
LEAST_SHARE = 0.9  # of a domain's co-activation, which the compared pairs must carry for a verdict
PAIRS_LEFT_OUT = "pairs_left_out"
NEVER = -1e3  # bits: the lift of experts that never met, below any other
RENAMINGS, RENAMED_CELLS = 999, 3e8
BEYOND_NAMES = 0.01  # a verdict rests on it by itself, and so do two controls
PERMUTED_CELLS, FEWEST_PERMUTATIONS = 3e7, 199  # pairs of experts ranked anew over all permutations of a run
LEAST_RELIABILITY = 0.2  # correlation of two halves of one domain below which "different" cannot be told from "noisy"
COLUMNS = ("layer", "source", "target", "mantel", "p", "reliability_source", "reliability_target", "ceiling", "corrected", "matched", "ari", "ami",
           "n_pairs", "reason")


def consistency_part(counts: TopologyCounts, n_clusters: Sequence[int | None]) -> Part:
    """Table of domain pairs and layers; the estimates are means over both, with a jackknife over groups of documents inside domains.

    `coact_mantel`: correlation of the lifts; `coact_consistency`: of halves of two domains, over the correlation of two halves of one
    (analysis.coactivation_consistency, `matched`), whose 90 % interval is that of the equivalence test; `coact_consistency_min`: the same of
    the pair of domains that decides "all domains" (intersection-union).
    """
    part = Part()
    if len(counts.domains) < 2:
        part.estimates["coact_consistency_min"] = Estimate.undefined(ONE_DOMAIN, unit=CEILING_SHARE, n_units=counts.n_documents)
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
        each.append(_replicates(tables, generator(counts.settings.seed, "names of experts", counts.layers[layer].key), _renamings(counts)))
    for name, unit in (("coact_mantel", "correlation"), ("coact_consistency", CEILING_SHARE)):
        part.by_layer[name] = tuple(_estimate(counts, name, unit, [one]) for one in each)
        part.estimates[name] = _estimate(counts, name, unit, each)
    part.estimates["coact_mantel"] = _beyond_names(part.estimates["coact_mantel"], each)
    part.estimates["coact_consistency_min"] = _decisive(counts, each)
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


def _renamings(counts: TopologyCounts) -> int:
    """Random renamings of experts behind the p of coact_mantel: 999, fewer where they would take minutes."""
    n_cells = len(counts.domains) * sum(layer.n_experts**2 for layer in counts.layers) / 2
    return int(max(min(RENAMINGS, RENAMED_CELLS // max(n_cells, 1)), FEWEST_PERMUTATIONS))


@dataclass(frozen=True)
class _Replicates:
    """Mean Mantel correlation and mean matched ratio over pairs of domains, whole and without each group; matched ratios by pair.

    null [R]: the mean Mantel correlation after renaming the experts of each domain at random (quadratic assignment).
    compared: share of the co-activation that the compared pairs carry, of the domain where it is least.
    """

    mantel: LeftOut
    matched: LeftOut
    pairs: LeftOut
    null: Float
    compared: float


def _replicates(tables: Sequence[Int], rng: np.random.Generator, n_renamings: int) -> _Replicates | str:
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
        return (f"too_few_pairs: {int(defined.sum())} pairs of experts would meet {LEAST_EXPECTED:g} times by chance in every half of every "
                f"domain, {LEAST_PAIRS} needed")
    ranked = [one.ranked(defined) for one in vectors]
    whole = _statistics([one.whole for one in ranked], [one.halves for one in ranked])
    without, stratum = [], []
    for d, one in enumerate(ranked):
        for g in range(len(one.whole_without)):
            wholes = [other.whole_without[g] if e == d else other.whole for e, other in enumerate(ranked)]
            halves = [other.halves_without[g] if e == d else other.halves for e, other in enumerate(ranked)]
            without.append(_statistics(wholes, halves))
            stratum.append(d)
    n_documents, strata = sum(len(table) for table in tables), np.array(stratum)
    mantel, pairs = np.array([one[0] for one in without]), np.array([one[1] for one in without])
    return _Replicates(LeftOut(np.asarray(whole[0]), mantel, n_documents, strata),
                       LeftOut(np.asarray(whole[1].mean()), pairs.mean(axis=1), n_documents, strata),
                       LeftOut(whole[1], pairs, n_documents, strata),
                       _renamed([one.whole for one in ranked], defined, tables[0].shape[-1], rng, n_renamings),
                       min(one.share_of(defined) for one in vectors))


def _renamed(ranked: Sequence[Float], defined: np.ndarray, n_experts: int, rng: np.random.Generator, n_renamings: int) -> Float:
    """Mean over pairs of domains of the correlation after random renamings [R]; pairs of experts without a lift count as average in all."""
    upper = np.triu_indices(n_experts, 1)
    place = np.zeros((n_experts, n_experts), np.int64)
    place[upper] = place[upper[::-1]] = np.arange(len(upper[0]))
    filled = np.zeros((len(ranked), len(upper[0])))
    filled[:, defined] = np.stack(ranked)
    out = np.empty(n_renamings)
    for draw in range(n_renamings):
        renamed = []
        for one in filled:
            names = rng.permutation(n_experts)
            renamed.append(one[place[names[upper[0]], names[upper[1]]]])
        stacked = np.stack(renamed)
        products = stacked @ stacked.T
        out[draw] = products[np.triu_indices(len(ranked), 1)].mean()
    return out


@dataclass(frozen=True)
class _Lifts:
    """Lifts above the diagonal of one domain: whole [V], halves [S, 2, V], and the same without each group [G, ...].

    counts [V]: meetings; expected [V]: those that the loads alone give, in the half where they are fewest.
    """

    whole: Float
    halves: Float
    whole_without: Float
    halves_without: Float
    counts: Float
    expected: Float

    @classmethod
    def of(cls, tables_GEE: Int) -> _Lifts:
        upper = np.triu_indices(tables_GEE.shape[-1], 1)
        total = tables_GEE.sum(axis=0)
        halves = _halves(tables_GEE, N_SPLITS)
        sides = np.stack([_halves(np.eye(len(tables_GEE), dtype=np.int64)[:, g, None, None], N_SPLITS)[..., 0, 0] for g in range(len(tables_GEE))])
        without = halves[None] - sides[..., None, None] * tables_GEE[:, None, None].astype(np.float64)

        def lifts(table: Float) -> Float:
            lift, meetings = coact_lift(table)[..., upper[0], upper[1]], np.asarray(table)[..., upper[0], upper[1]]
            return np.where(np.isnan(lift) & (meetings == 0), NEVER, lift)

        changed = lifts(without[sides.astype(bool)]).reshape(len(tables_GEE), N_SPLITS, -1)
        same = lifts(halves)
        halves_without = np.where(sides[..., None].astype(bool), changed[:, :, None], same[None])
        expected = expected_meetings(halves)[..., upper[0], upper[1]].min(axis=(0, 1))
        return cls(lifts(total), same, lifts(total - tables_GEE), halves_without, total[upper].astype(np.float64), expected)

    @property
    def defined(self) -> np.ndarray:
        """Pairs that would meet often enough by chance in every half, with a lift everywhere [V]: chosen by the loads, not by who met."""
        parts = (self.whole[None], self.halves.reshape(-1, len(self.whole)), self.whole_without, self.halves_without.reshape(-1, len(self.whole)))
        return np.asarray(np.isfinite(np.concatenate(parts)).all(axis=0) & (self.expected >= LEAST_EXPECTED))

    def share_of(self, defined: np.ndarray) -> float:
        """Share of the domain's meetings that those pairs have."""
        return float(self.counts[defined].sum() / self.counts.sum())

    def ranked(self, defined: np.ndarray) -> _Lifts:
        """Centred mid-ranks of the defined pairs, scaled to length 1, so that a correlation is a product."""
        whole, halves, whole_without, halves_without = (
            _unit_ranks(part[..., defined]) for part in (self.whole, self.halves, self.whole_without, self.halves_without))
        return _Lifts(whole, halves, whole_without, halves_without, self.counts[defined], self.expected[defined])


def _unit_ranks(values: Float) -> Float:
    flat = values.reshape(-1, values.shape[-1])
    ranks = np.stack([midranks(row) for row in flat])
    ranks -= ranks.mean(axis=1, keepdims=True)
    length = np.sqrt((ranks**2).sum(axis=1, keepdims=True))
    scaled: Float = np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)
    return scaled.reshape(values.shape)


def _statistics(wholes: Sequence[Float], halves: Sequence[Float]) -> tuple[float, Float]:
    """Mean over pairs of domains of the correlation of the wholes; of each pair halves across over halves within, NaN where halves disagree."""
    within = [float(np.mean([half[0] @ half[1] for half in one])) for one in halves]
    if min(within) < LEAST_RELIABILITY:
        each = [wholes[a] @ wholes[b] for a, b in combinations(range(len(wholes)), 2)]
        return float(np.mean(each)), np.full(len(each), np.nan)
    mantels, ratios = [], []
    for a, b in combinations(range(len(wholes)), 2):
        mantels.append(float(wholes[a] @ wholes[b]))
        across = float(np.mean(np.einsum("sfv,sgv->sfg", halves[a], halves[b])))
        ratios.append(across / float(np.sqrt(within[a] * within[b])))
    return float(np.mean(mantels)), np.array(ratios)


def _beyond_names(estimate: Estimate, each: Sequence[_Replicates | str]) -> Estimate:
    """coact_mantel with its p under renamings; without significance no support rests on it, for the interval speaks of these experts only."""
    known = [one for one in each if not isinstance(one, str)]
    if estimate.value is None or not known:
        return estimate
    null = np.mean([one.null for one in known], axis=0)
    p = (1 + int((null >= estimate.value - 1e-12).sum())) / (len(null) + 1)
    shown = replace(estimate, null=float(null.mean()), p=p)
    if p < BEYOND_NAMES or estimate.low is None or estimate.low <= 0:
        return shown
    return gated(shown, f"not beyond chance: p = {p:.3f} when the experts of each domain are renamed at random ({len(null)} draws)")


def _decisive(counts: TopologyCounts, each: Sequence[_Replicates | str]) -> Estimate:
    """coact_consistency of the pair of domains with the least lower end, mean over layers; undefined where one of the pairs is."""
    reasons = [one for one in each if isinstance(one, str)]
    known = [one for one in each if not isinstance(one, str)]
    if reasons or not known:
        return Estimate.undefined(next(iter(reasons), NO_DATA), unit=CEILING_SHARE, n_units=counts.n_documents)
    made = []
    for place, pair in enumerate(combinations(range(len(counts.domains)), 2)):
        rows = np.isin(known[0].pairs.stratum, pair)  # type: ignore[arg-type]
        names = [counts.domains[d] for d in pair]
        n_documents = sum(counts.documents_of(name) for name in names)
        parts = [LeftOut(one.pairs.plug_in[place], one.pairs.left_out[rows, place], n_documents, np.asarray(one.pairs.stratum)[rows])
                 for one in known]
        made.append((" and ".join(names), _mean(parts, CEILING_SHARE, EQUIVALENCE_LEVEL, names, counts)))
    name, chosen = min(made, key=lambda one: float("-inf") if one[1].low is None else one[1].low)
    if chosen.value is None:
        return replace(chosen, reason=f"{chosen.reason} ({name})")
    return gated(replace(chosen, method=f"{chosen.method}, of {name}, the pair that decides"), _not_compared(known))


def _estimate(counts: TopologyCounts, name: str, unit: str, each: Sequence[_Replicates | str]) -> Estimate:
    reasons = [one for one in each if isinstance(one, str)]
    known = [one for one in each if not isinstance(one, str)]
    if reasons or not known:
        return Estimate.undefined(next(iter(reasons), NO_DATA), unit=unit, n_units=counts.n_documents)
    level = counts.settings.level if name == "coact_mantel" else EQUIVALENCE_LEVEL
    made = _mean([one.mantel if name == "coact_mantel" else one.matched for one in known], unit, level, counts.domains, counts)
    return made if made.value is None else gated(made, _not_compared(known))


def _not_compared(known: Sequence[_Replicates]) -> str | None:
    """Why no verdict may rest on the compared pairs: domains whose experts never meet are told apart by the pairs that are left out."""
    share = min(one.compared for one in known)
    if share >= LEAST_SHARE:
        return None
    return (f"{PAIRS_LEFT_OUT}: the pairs of experts that the loads of every domain let meet carry {share:.0%} of a domain's co-activation, "
            f"{LEAST_SHARE:.0%} needed")


def _mean(parts: Sequence[LeftOut], unit: str, level: float, domains: Sequence[str], counts: TopologyCounts) -> Estimate:
    """Mean over layers with its jackknife spread, of the documents of `domains`."""
    mean = stack(parts).mean([list(range(len(parts)))])
    n_documents = parts[0].n_documents if domains is not counts.domains else counts.n_documents
    if np.isnan(mean.plug_in[0]):
        reason = "unreliable: halves of one domain's documents do not agree; collect more documents"
        return Estimate.undefined(reason, unit=unit, n_units=n_documents)
    made: Estimate = mean.estimates("coact_mantel", level=level)[0]
    value = made.plug_in  # ranks step where lifts cross: their jackknife gives a spread, but no correction of a bias
    assert value is not None
    half = made.half_width
    estimate = Estimate(value, None if half is None else value - half, None if half is None else value + half, unit, "document", n_documents,
                        "group jackknife inside domains", level, plug_in=value, se=made.se)
    return gated(estimate, few_per_domain([counts.documents_of(domain) for domain in domains]))
