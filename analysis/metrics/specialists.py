"""Statements about single experts and the purity of all: specialist or generalist, affinity of a cell, purity with its interval.

D domain, E expert, N document, F fold, B replicate. Everything is resampled or permuted by documents (metrics specification 2.3, 2.5, 5.3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.domain_labels import N_REPLICATES, DomainDocuments, basic_estimates_of, domain_estimates, domain_groups
from analysis.estimate import Estimate
from analysis.gates import NO_DATA, SELECTION_BIASED
from analysis.label_permutation import N_DRAWS, label_null, untestable
from analysis.metrics.specialization import purity_e, specialisation_e
from analysis.multiplicity import benjamini_hochberg, holm

SPECIALIST, GENERALIST, UNDETERMINED, UNUSED = "specialist", "generalist", "undetermined", "unused"
SPECIALIST_ABOVE, GENERALIST_BELOW, FALSE_DISCOVERIES = 0.1, 0.02, 0.05
IN_SAMPLE = ("purity_seed", "purity_token_weighted", "lambda")
CROSS_FITTED = ("purity_cross_fitted", "expert_affinity_avg", "top5_share")


@dataclass(frozen=True)
class QuantileSplit:
    """Experts above the upper and below the lower quantile of a score."""

    specialists: tuple[int, ...]
    generalists: tuple[int, ...]
    upper: float
    lower: float


def quantile_specialists(cv_E: ArrayLike, tail: float = 0.25) -> QuantileSplit:
    """The seed's classes: experts with CV above its 75 % quantile (linear) are specialists, below its 25 % quantile generalists.

    What is wrong: the cut-offs follow the data, so that a quarter are specialists and a quarter generalists whatever the routing (8 and 8 of
    32). Unused experts (NaN) are left out. ValueError where no expert is used.
    """
    cv = np.asarray(cv_E, np.float64)
    known = cv[~np.isnan(cv)]
    if not known.size:
        raise ValueError("no expert has a selection; nothing to split")
    lower, upper = np.quantile(known, [tail, 1 - tail])
    return QuantileSplit(tuple(np.flatnonzero(cv > upper).tolist()), tuple(np.flatnonzero(cv < lower).tolist()), float(upper), float(lower))


@dataclass(frozen=True)
class ExpertClass:
    """One expert: its class, the specialisation it rests on, p under label permutation and q over the layer's used experts.

    domain: where P(e|d) is largest (None if unused), with p_expert_given_domain = P(e|d) and p_domain_given_expert = q_e(d), which the seed
    confuses. reason: why it is undetermined whatever the numbers.
    """

    expert: int
    label: str
    specialisation: Estimate
    p: float | None
    q: float | None
    domain: int | None
    p_expert_given_domain: float | None
    p_domain_given_expert: float | None
    reason: str | None = None


@dataclass(frozen=True)
class ClassRule:
    """Cut-offs, declared beforehand: specialist above s0 with q below fdr, generalist below the equivalence bound."""

    s0: float = SPECIALIST_ABOVE
    equivalence: float = GENERALIST_BELOW
    fdr: float = FALSE_DISCOVERIES
    level: float = 0.95


def classify_experts(documents: DomainDocuments, rng: np.random.Generator, layer: int = 0, *, rule: ClassRule | None = None,
                     n_draws: int = N_DRAWS) -> tuple[ExpertClass, ...]:
    """Specialist: lower end of specialisation_e > s0 and BH q < fdr; generalist: upper end < equivalence; the rest undetermined.

    p: share of document-label permutations inside sources with at least the observed specialisation_e. The q are over the used experts of this
    layer. Everyone is undetermined, with the reason, where labels are untestable or a domain has too few documents for an interval.
    """
    rule = rule or ClassRule()
    kept = documents.at(layer)
    found = domain_estimates("specialisation_e", kept, level=rule.level)
    reason = untestable(kept, rule.fdr)
    table = kept.table()
    p: list[float | None] = [None] * len(found)
    if reason is None:
        null = label_null(kept, specialisation_e, rng, n_draws=n_draws)
        p = [None if np.isnan(value) else float(one) for value, one in zip(null.observed, null.p)]
    return tuple(_expert(e, found[e], table, (p[e], q), reason, rule) for e, q in enumerate(benjamini_hochberg(p)))


def _expert(
    e: int, found: Estimate, table: NDArray[np.int64], p_q: tuple[float | None, float | None], reason: str | None, rule: ClassRule
) -> ExpertClass:
    if found.value is None:
        return ExpertClass(e, UNUSED if not table[:, e].any() else UNDETERMINED, found, None, None, None, None, None, found.reason)
    share = table[:, e] / table.sum(axis=1)
    domain = int(share.argmax())
    p, q = p_q
    reason = reason or found.gate
    label = UNDETERMINED
    if reason is None and found.low is not None and found.high is not None:
        if found.low > rule.s0 and q is not None and q < rule.fdr:
            label = SPECIALIST
        elif found.high < rule.equivalence:
            label = GENERALIST
    return ExpertClass(e, label, found, p, q, domain, float(share[domain]), float(share[domain] / share.sum()), reason)


@dataclass(frozen=True)
class AffinityCell:
    """One cell of the affinity matrix: log2 affinity with its interval, two-sided Student p against 0, BH q over the testable cells."""

    expert: int
    domain: int
    log2_affinity: Estimate
    p: float | None
    q: float | None


def affinity_cells(documents: DomainDocuments, layer: int = 0, *, level: float = 0.95) -> tuple[AffinityCell, ...]:
    """log2 affinity of every expert and domain, jackknifed inside domains; p from the jackknife's Student law, q over cells (BH).

    A cell that is empty in some replicate has no p and does not count in the family.
    """
    kept = documents.at(layer)
    found = domain_estimates("log2_affinity", kept, level=level)
    p = _student_p(list(found.flat), kept)
    cells = [(*place, replace(one, p=chance) if chance is not None else one, chance)
             for (place, one), chance in zip(np.ndenumerate(found), p)]
    return tuple(AffinityCell(e, d, one, chance, q) for (e, d, one, chance), q in zip(cells, benjamini_hochberg(p)))


@dataclass(frozen=True)
class EntropyDifference:
    """H(P(.|first)) - H(P(.|second)) in bits, two-sided Student p, and Holm's p over the pairs of domains."""

    first: int
    second: int
    difference: Estimate
    p: float | None
    p_adjusted: float | None


def entropy_differences(documents: DomainDocuments, layer: int = 0, *, level: float = 0.95) -> tuple[EntropyDifference, ...]:
    """Difference of usage entropy for every pair of domains, both from the same jackknife groups; Holm over the testable pairs."""
    kept = documents.at(layer)
    found = domain_estimates("domain_entropy_difference", kept, level=level)
    pairs = [(a, b) for a in range(kept.n_domains) for b in range(a + 1, kept.n_domains)]
    p = _student_p([found[pair] for pair in pairs], kept)
    return tuple(EntropyDifference(a, b, replace(found[a, b], p=one) if one is not None else found[a, b], one, adjusted)
                 for (a, b), one, adjusted in zip(pairs, p, holm(p)))


def _student_p(found: list[Estimate], documents: DomainDocuments) -> list[float | None]:
    """Two-sided p against 0 from value and SE of the stratified jackknife; None where there is no SE, or none above 0."""
    from scipy.special import stdtr

    stratum = domain_groups(documents).stratum
    df = 0 if stratum is None else len(stratum) - len(np.unique(stratum))
    known = [one.value is not None and one.se is not None and one.se > 0 and df > 0 for one in found]
    return [float(2 * stdtr(df, -abs((one.value or 0.0) / (one.se or 1.0)))) if ok else None for one, ok in zip(found, known)]


def purity_estimates(documents: DomainDocuments, rng: np.random.Generator, layer: int = 0, *, n_replicates: int = N_REPLICATES,
                     level: float = 0.95) -> dict[str, NDArray[np.object_]]:
    """Purity in its three forms, lambda, cross-fitted affinity and top-5 share, by metric id, with basic document-bootstrap intervals.

    In-sample forms carry the gate selection_biased; see domain_labels.basic_estimates_of.
    """
    one, two = rng.spawn(2)
    return {**basic_estimates_of(IN_SAMPLE, documents, one, layer, level=level, n_replicates=n_replicates),
            **basic_estimates_of(CROSS_FITTED, documents, two, layer, level=level, n_replicates=n_replicates)}


def purity_baseline(counts_DE: ArrayLike) -> float | None:
    """What purity is without specialisation: max_d N_d / N, not 1/D; None without selections."""
    n = np.asarray(counts_DE, np.float64)
    return float(n.sum(axis=1).max() / n.sum()) if n.sum() > 0 else None


def purity_of_experts(counts_DE: ArrayLike) -> tuple[Estimate, ...]:
    """In-sample purity of each expert for a table or bar chart: a number without interval, gated selection_biased."""
    values = purity_e(counts_DE)
    return tuple(Estimate.undefined("unused_expert" if np.any(counts_DE) else NO_DATA, unit="share") if np.isnan(one) else
                 Estimate(float(one), None, None, "share", "document", 0, "plug-in", plug_in=float(one), gate=SELECTION_BIASED) for one in values)
