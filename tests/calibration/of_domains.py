"""Domains and experts: size of the tests of association, coverage of information and specialisation, false discoveries among experts."""

from __future__ import annotations

from functools import partial

import numpy as np

from analysis.arithmetic import mutual_information_bits
from analysis.domain_labels import DomainDocuments, basic_estimates, domain_estimates, domain_groups, domain_table
from analysis.estimation import jackknife
from analysis.metrics.association import association_null, cramers_v, cramers_v_squared, p_naive, rao_scott, standardised
from analysis.metrics.specialists import SPECIALIST, classify_experts
from analysis.metrics.specialization import mi_E_D, specialisation_e
from analysis.multiplicity import holm, max_t
from tests.calibration.checks import SIZE, Claim, Rng, Study, size
from tests.calibration.of_means import covers
from tests.calibration.worlds_domains import DomainWorld

ALPHA, N_DRAWS, ALMOST_EVEN = 0.05, 199, 3
CLUSTERED = {
    "5 domains of 20 documents": DomainWorld(),
    "documents of 60 to 140 selections": DomainWorld(lengths=((60, 140),)),
    "6 documents a domain": DomainWorld(documents=(6,) * 5),
    "token budgets of 1 to 5": DomainWorld(documents=(20, 20, 20, 20), lengths=((40, 40), (80, 80), (120, 120), (200, 200))),
}
UNLIKE = DomainWorld(documents=(10, 40), concentration=(6.0, 200.0), n_experts=16)
AFFINE = DomainWorld(documents=(40,) * 4, n_experts=16, lengths=((20, 60), (60, 140), (100, 300), (40, 80)), effect=0.6, concentration=(20.0,))
AFFINE_100 = DomainWorld(documents=(100,) * 4, n_experts=16, lengths=AFFINE.lengths, effect=0.6, concentration=(20.0,))
EVEN = DomainWorld(documents=(40,) * 4, n_experts=16, concentration=(20.0,), lengths=((60, 100),))
MIXED = DomainWorld(documents=(25,) * 4, n_experts=16, concentration=(40.0,), effect=1.0, specialised=8, base=1.0)


def association(world: DomainWorld, rng: Rng) -> list[bool]:
    """Rejections of the label permutation, of Rao and Scott's F, and of the chi-square of tokens."""
    documents = world.draw(rng)
    null = association_null(documents, rng, n_draws=N_DRAWS)
    corrected = rao_scott(documents).p
    assert corrected is not None
    return [bool(null.p[0] <= ALPHA), corrected <= ALPHA, bool(p_naive(documents.table()) <= ALPHA)]


def domain_intervals(world: DomainWorld, rng: Rng) -> list[bool]:
    """Balanced and pooled information, V squared, variance between domains; specialisation of a specialised and of an almost even expert."""
    documents, out = world.draw(rng), []
    truths = {"mi_E_D": float(mi_E_D(world.law_DE)), "mi_E_D_pooled": float(mutual_information_bits(world.pooled_DE)),
              "V_squared": float(cramers_v_squared(world.pooled_DE)), "avg_variance": float(world.law_DE.var(axis=0, ddof=1).mean())}
    for name, truth in truths.items():
        found = domain_estimates(name, documents).item()
        out.append(covers(found.low, found.high, truth))
    each, true_E = domain_estimates("specialisation_e", documents), specialisation_e(world.law_DE)
    return [*out, *(covers(each[e].low, each[e].high, float(true_E[e])) for e in (int(true_E.argmax()), ALMOST_EVEN))]


def no_association(rng: Rng) -> list[bool]:
    """Where nothing is specific to a domain: intervals of V squared, information and specialisation; the jackknife of V itself; a specialist."""
    documents = EVEN.draw(rng)
    found = [domain_estimates(name, documents) for name in ("V_squared", "mi_E_D", "specialisation_e")]
    ends = [one if one.ndim else one[None] for one in found]
    itself = jackknife(domain_groups(documents), cramers_v)
    return [*(covers(one[0].low, one[0].high, 0.0) for one in ends), covers(float(itself.low), float(itself.high), 0.0)]


def purity(world: DomainWorld, rng: Rng) -> list[bool]:
    """Cross-fitted purity about the truth of the labels that it fitted; without domain effect also in-sample purity about the largest share."""
    documents = world.draw(rng)
    folds = domain_table(documents, "folds_FDE")
    labels = folds.sum(axis=0) - folds
    truth = float(np.mean([world.pooled_DE[label.argmax(axis=0), np.arange(world.n_experts)].sum() for label in labels]))
    out = [(basic_estimates("purity_cross_fitted", documents, rng, n_replicates=199).item(), truth)]
    if not world.effect:
        out.append((basic_estimates("purity_token_weighted", documents, rng, n_replicates=199).item(), float(world.pooled_DE.sum(axis=1).max())))
    return [covers(found.low, found.high, true) for found, true in out]


def specialists(world: DomainWorld, rng: Rng) -> list[float]:
    """Share of experts without domain effect among those with q < 0.05, and whether such an expert is called a specialist."""
    n_effects = world.specialised or 0
    found = classify_experts(world.draw(rng), rng, n_draws=N_DRAWS)
    named = [one.expert for one in found if one.q is not None and one.q < ALPHA]
    false = sum(expert >= n_effects for expert in named)
    return [false / max(len(named), 1), float(any(one.label == SPECIALIST and one.expert >= n_effects for one in found))]


def families(rng: Rng) -> list[bool]:
    """Any rejection among four layers of the same documents without domain effect: Holm, maxT of studentised statistics, and none."""
    layers = [CLUSTERED["5 domains of 20 documents"].draw(rng) for _ in range(4)]
    shared = DomainDocuments((layers[0].layers[0], layers[0].layers[0] + layers[1].layers[0], layers[2].layers[0], layers[3].layers[0]),
                             layers[0].domain, 5)
    null = association_null(shared, rng, n_draws=N_DRAWS, keep=True)
    observed, draws = standardised(null)
    adjusted = holm(null.p.tolist()), max_t(observed.tolist(), draws), null.p.tolist()
    return [min(p) <= ALPHA for p in adjusted]


PERMUTATION = size("permutation of document labels", source="metrics specification 5.2a")
RAO_SCOTT = size("Rao-Scott F", window=(0.025, 0.065), source="metrics specification 5.2b: .033 to .065")
NAIVE = size("chi-square of tokens", mutant=True, source="metrics specification 5.2: 1.0")
LENGTHS = ("Documents of very unequal lengths: few of them weigh, the variance between them comes out too small (by a fifth for log-normal lengths), "
           "and F on thousands of degrees of freedom does not forgive it")
SPREADS = "Label permutation also answers to unequal spread within domains (metrics specification 5.2): read Rao-Scott"
QUADRATIC = "At 0 the statistic is a square, and its jackknife error too large: conservative"
SKEWED = "Within two errors of its bound 0 the estimate is skewed"
LABELS = "Replicates fit their labels anew, the truth is that of the labels fitted once (metrics specification 2.5: .87 to .92)"


def tests_of(text: str, world: DomainWorld, *claims: Claim) -> Study:
    return Study(f"association, {text}", f"{text}, clustered selections, no domain effect", claims or (PERMUTATION, RAO_SCOTT, NAIVE),
                 partial(association, world), 2000)


def estimates_of(text: str, world: DomainWorld) -> Study:
    names = ("mi_E_D", "mi_E_D_pooled", "V_squared", "avg_variance", "specialisation_e of a specialised expert")
    near = Claim("jackknife: specialisation_e of an almost even expert", window=(0.88, 0.94), limit=SKEWED)
    claims = (*(Claim(f"jackknife: {one}") for one in names), near)
    return Study(f"domains of {text}", f"4 domains of {text}, token budgets of 1 to 5, clustered", claims, partial(domain_intervals, world), 1500)


STUDIES = [
    *(tests_of(text, world) for text, world in CLUSTERED.items()),
    tests_of("documents of 20 to 180 selections", DomainWorld(lengths=((20, 180),)), PERMUTATION,
             size("Rao-Scott F", window=(0.05, 0.09), limit=LENGTHS), NAIVE),
    tests_of("log-normal lengths", DomainWorld(heavy=1.0, lengths=((60, 60),)), PERMUTATION,
             size("Rao-Scott F", window=(0.35, 0.6), limit=LENGTHS), NAIVE),
    tests_of("10 scattered documents against 40 alike", UNLIKE, size("permutation of document labels", window=(0.8, 0.95), limit=SPREADS),
             RAO_SCOTT, NAIVE),
    estimates_of("40 documents", AFFINE),
    estimates_of("100 documents", AFFINE_100),
    Study("no specialisation", "4 domains of 40 documents, all of one law", (
        Claim("jackknife: V_squared at 0", window=(0.95, 1.0), limit=QUADRATIC), Claim("jackknife: mi_E_D at 0", window=(0.95, 1.0), limit=QUADRATIC),
        Claim("jackknife: specialisation_e at 0"),
        Claim("jackknife of V itself at 0", mutant=True, source="metrics specification 2.3: .007")), no_association, 1000),
    Study("purity", "4 domains of 40 documents, experts specialised", (
        Claim("basic bootstrap: purity_cross_fitted", window=(0.87, 0.93), limit=LABELS),), partial(purity, AFFINE), 800),
    Study("purity without specialisation", "4 domains of 40 documents, all of one law", (
        Claim("basic bootstrap: purity_cross_fitted", window=(0.80, 0.90), limit=LABELS),
        Claim("basic bootstrap: purity_token_weighted, in-sample", mutant=True, source="metrics specification 2.5: .02 to .05")),
        partial(purity, EVEN), 800),
    Study("specialists", "8 experts of 16 specialised, 4 domains of 25 documents", (
        Claim("BH over experts, label permutation", "false discoveries", 0.05, SIZE, "metrics specification 5.3"),
        size("an expert without effect called specialist", source="metrics specification 2.3")), partial(specialists, MIXED), 2000),
    Study("no specialists", "4 domains of 40 documents, all of one law", (
        Claim("BH over experts, label permutation", "false discoveries", 0.05, SIZE, "metrics specification 5.3"),
        size("any expert called specialist", source="metrics specification 2.3")), partial(specialists, EVEN), 2000),
    Study("layers together", "4 layers of the same documents, two of them dependent, no domain effect", (
        size("Holm over layers, label permutation", source="metrics specification 5.3"), size("maxT over layers, shared permutations"),
        size("each layer on its own at 5 %", mutant=True)), families, 2000),
]
