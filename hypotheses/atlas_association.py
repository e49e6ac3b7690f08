"""Whether experts and domains go together: information by layer, one test over all layers, and the table of both with the seed's numbers.

L MoE layer, D domain, E expert, B permutation of document labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.domain_labels import domain_estimates, domain_groups
from analysis.estimate import Estimate
from analysis.gates import NO_DATA, few_per_domain, gated
from analysis.left_out import LeftOut, leave_out, stack
from analysis.metrics.association import AssociationTest, association_null, association_strength, association_tests, standardised
from analysis.metrics.specialization import mi_E_D, mi_E_D_share
from analysis.multiplicity import benjamini_hochberg
from analysis.resampling import generator
from hypotheses.atlas_evidence import AtlasCounts, AtlasEvidence, facts
from hypotheses.claim import Evaluation
from hypotheses.topology_domains import ONE_DOMAIN
from hypotheses.topology_parts import Part, Row, columns

SHARE, BITS, TEST = "mi_E_D_share", "mi_E_D", "association_p"
ALPHA = 0.05
NOT_SIGNIFICANT = "not_significant: p = {:.3g}, and want of evidence is no evidence of want"
SMALLEST_TAIL, FRACTION_STEPS = 1e-200, 60
SCALARS = ("mi_E_D", "avg_variance", "avg_variance_seed")


def evaluate(evidence: AtlasEvidence) -> Evaluation:
    """The estimates that the claim of domain specialisation is judged on, by layer and over layers."""
    counts = AtlasCounts(evidence)
    part = information_part(counts)
    part.estimates[TEST] = omnibus_test(counts)
    return Evaluation(part.estimates, part.by_layer, part.tables, facts(counts))


def information_part(counts: AtlasCounts) -> Part:
    """I(E;D), bits and as a share of log2 D: each layer, and the mean over layers by one jackknife over the same documents."""
    part = Part()
    for name, function, unit in ((SHARE, mi_E_D_share, "share of log2 D"), (BITS, mi_E_D, "bits")):
        if len(counts.domains) < 2:
            missing = Estimate.undefined(ONE_DOMAIN, unit=unit, n_units=counts.n_documents)
            part.estimates[name], part.by_layer[name] = missing, tuple(missing for _ in counts.layers)
            continue
        layers = range(len(counts.layers))
        found = [domain_estimates(name, counts.documents, layer, level=counts.settings.level).item() for layer in layers]
        part.by_layer[name] = counts.honestly(found)
        together = stack([leave_out(domain_groups(counts.documents, layer=layer), function) for layer in layers])
        mean = together.mean([list(layers)]).estimates(name, level=counts.settings.level)[0]
        part.estimates[name] = mean if mean.value is None else counts.honest(gated(mean, few_per_domain(counts.documents.per_domain)))
        part.estimates[f"{name}_late_minus_early"] = _late_minus_early(counts, together, name, unit)
    return part


def _late_minus_early(counts: AtlasCounts, together: LeftOut, name: str, unit: str) -> Estimate:
    """Mean of the deeper half of the layers less that of the other half, over the same documents; the middle one of an odd number is in neither."""
    n = len(counts.layers)
    if n < 2:
        return Estimate.undefined(f"{NO_DATA}: one MoE layer", unit=unit, n_units=counts.n_documents)
    halves = together.mean([list(range(n // 2)), list(range(n - n // 2, n))])
    difference = LeftOut(halves.plug_in[..., 1:] - halves.plug_in[..., :1], halves.left_out[..., 1:] - halves.left_out[..., :1], halves.n_documents,
                         halves.stratum)
    found: Estimate = difference.estimates(name, level=counts.settings.level)[0]
    return found if found.value is None else counts.honest(gated(found, few_per_domain(counts.documents.per_domain)))


def omnibus_test(counts: AtlasCounts) -> Estimate:
    """p of the association of experts and domains over all layers, with the interval that drawing permutations leaves it.

    Mean over layers of the standardised chi-square under one permutation of document labels; where documents spread unequally in most
    layers, twice the mean of the Rao-Scott p of the layers, which holds under any dependence (Vovk & Wang 2020). Not below ALPHA: gated.
    """
    settings, documents = counts.settings, counts.documents.take(counts.documents.used)
    reason = counts.untestable or (ONE_DOMAIN if len(counts.domains) < 2 else None)
    if reason:
        return Estimate.undefined(reason, unit="probability", n_units=counts.n_documents)
    tests = association_tests(documents, generator(settings.seed, "association"), n_draws=settings.n_permutations)
    testable = [one for one in tests if one.reason is None]
    if not testable:
        return Estimate.undefined(tests[0].reason or NO_DATA, unit="probability", n_units=counts.n_documents)
    corrected = [one.rao_scott.p for one in testable if one.preferred == "rao_scott" and one.rao_scott.p is not None]
    if len(corrected) > len(testable) / 2:
        p = min(1.0, 2 * float(np.mean([one.rao_scott.p for one in testable if one.rao_scott.p is not None])))
        return _p_estimate(counts, p, (p, p), "twice the mean Rao-Scott p of the layers")
    null = association_null(documents, generator(settings.seed, "association omnibus"), n_draws=settings.n_permutations, keep=True)
    observed, drawn = standardised(null)
    known = np.isfinite(observed)
    reached = int((drawn[:, known].mean(axis=1) >= observed[known].mean() - 1e-9).sum())
    p = reached / null.n_draws if null.exact else (1 + reached) / (null.n_draws + 1)
    ends = (p, p) if null.exact else drawn_interval(reached, null.n_draws, settings.level)
    return _p_estimate(counts, p, ends, f"permutation of document labels, {'exact' if null.exact else f'{null.n_draws:,} draws'}, all layers")


def drawn_interval(reached: int, n_draws: int, level: float) -> tuple[float, float]:
    """Interval of the p-value that `reached` of n_draws random permutations estimate (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = float(betaincinv(reached, n_draws - reached + 1, tail)) if reached else 0.0
    high = float(betaincinv(reached + 1, n_draws - reached, 1 - tail)) if reached < n_draws else 1.0
    return low, high


def _p_estimate(counts: AtlasCounts, p: float, ends: tuple[float, float], method: str) -> Estimate:
    found = Estimate(p, *ends, "probability", "document", counts.n_documents, method, counts.settings.level, p=p)
    return found if p < ALPHA else gated(found, NOT_SIGNIFICANT.format(p))


def association_table(counts: AtlasCounts) -> dict[str, Any]:
    """One row per layer: the seed's chi-square, p and variance, marked naive, beside the clustered tests, V and I(E;D) with intervals."""
    if len(counts.domains) < 2:
        return columns([], ("layer", "depth", "reason"))
    settings, documents = counts.settings, counts.documents
    tests = association_tests(documents, generator(settings.seed, "association"), n_draws=settings.n_permutations)
    clustered = [_clustered(counts, one) for one in tests]
    q = benjamini_hochberg([p for p, _ in clustered])
    return columns([_row(counts, number, one, (*clustered[number], q[number])) for number, one in enumerate(tests)])


def _clustered(counts: AtlasCounts, test: AssociationTest) -> tuple[float | None, str]:
    """The p to read, and why there is none."""
    reason = counts.untestable or test.reason
    if reason:
        return None, reason
    return (test.rao_scott.p if test.preferred == "rao_scott" else test.p_permutation), test.gate or ""


def _row(counts: AtlasCounts, number: int, test: AssociationTest, read: tuple[float | None, str, float | None]) -> Row:
    documents, level, layer = counts.documents, counts.settings.level, counts.layers[number]
    p, reason, q = read
    found = {name: counts.honest(domain_estimates(name, documents, number, level=level).item()) for name in SCALARS}
    strength = counts.honest(association_strength(documents, number, level=level))
    bergsma = counts.honest(association_strength(documents, number, bergsma=True, level=level))
    return {
        "layer": number, "depth": layer.depth, "chi2_seed": test.chi2, "df": test.df, "p_seed": test.naive_p,
        "log10_p_seed": log10_p(test.chi2, test.df), "p_permutation": None if counts.untestable else test.p_permutation,
        "n_draws": test.n_draws, "exact": int(test.exact), "p_rao_scott": None if counts.untestable else test.rao_scott.p, "F": test.rao_scott.F,
        "design_effect": test.rao_scott.delta, "spread_ratio": test.rao_scott.spread_ratio, "read": "" if p is None else test.preferred, "p": p,
        "q": q, "V": strength.value, "V_low": strength.low, "V_high": strength.high, "V_seed": strength.plug_in, "V_bergsma": bergsma.value,
        "mi": found["mi_E_D"].value, "mi_low": found["mi_E_D"].low, "mi_high": found["mi_E_D"].high, "mi_seed": found["mi_E_D"].plug_in,
        "avg_variance": found["avg_variance"].value, "avg_variance_low": found["avg_variance"].low, "avg_variance_high": found["avg_variance"].high,
        "avg_variance_seed": found["avg_variance_seed"].plug_in, "status": "untestable" if p is None else "tested", "reason": reason,
        "caveats": " | ".join(test.caveats), "gate": found["mi_E_D"].gate or ""}


def log10_p(chi2: float | None, df: int) -> float | None:
    """log10 of the upper tail of chi-square, to any size: the seed adds 1e-300 and can show no less.

    Far out by the continued fraction of the incomplete gamma function (Abramowitz & Stegun 6.5.31).
    """
    from scipy.special import gammaincc, gammaln

    if chi2 is None or df <= 0:
        return None
    a, x = df / 2, chi2 / 2
    tail = float(gammaincc(a, x))
    if tail > SMALLEST_TAIL:
        return float(np.log10(tail))
    fraction = x + 2 * FRACTION_STEPS + 1 - a
    for step in range(FRACTION_STEPS, 0, -1):
        fraction = x + 2 * step - 1 - a - step * (step - a) / fraction
    return float((a * np.log(x) - x - gammaln(a) - np.log(fraction)) / np.log(10))
