"""How far experts keep to domains (seed 002, Parts 3, 5, 6 and 8; seed 004, B.1 and B.2; metrics specification 2.3 and 2.5).

D domain, E expert, F document fold, S moment. counts_DE: selections of an expert in a domain (each slot of a top-k is one selection; sums of
weights give the weighted variant). Domains weigh alike (P(d) = 1/D) unless a name says pooled: a table is then free of the domains' token
budgets. A domain without selections makes every balanced quantity undefined; an expert without selections only its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import Float, divide, entropy_bits, mutual_information_bits
from analysis.registry import metric

EMPTY = "no_data: a domain has no selections"
UNUSED = "unused_expert: the expert has no selections; no_data: a domain has none"
BUDGET = ("relabelling", "token budget per domain", "document order")
LABELS = ("relabelling", "document order")
TOP = 5
MOMENTS = 4  # of the documents of a domain: sums of c, c^2, c M, and how many; see analysis.domain_labels


def n_domains(counts_DE: ArrayLike) -> float:
    """D: the largest affinity of a balanced table."""
    return float(np.shape(counts_DE)[-2])


def domain_bits(counts_DE: ArrayLike) -> float:
    """log2 min(D, E): the largest mutual information of expert and domain."""
    return float(np.log2(min(np.shape(counts_DE)[-2:])))


def expert_bits(counts_DE: ArrayLike) -> float:
    """log2 E: the largest entropy of a domain's usage."""
    return float(np.log2(np.shape(counts_DE)[-1]))


def even_purity(counts_DE: ArrayLike) -> float:
    """1/D: the purity of an expert used alike by D domains of the same size."""
    return 1 / n_domains(counts_DE)


def _balanced_joint(counts_DE: ArrayLike, p_D: ArrayLike | None = None) -> Float:
    """P(d, e) = P(d) P(e|d) for the declared P(d), 1/D if none."""
    p = freq_matrix(counts_DE)
    return p / p.shape[-2] if p_D is None else p * np.asarray(p_D, np.float64)[..., :, None]


def mean_over_used(values_E: Float, counts_DE: ArrayLike) -> Float:
    """Mean over experts with a selection; NaN where none has one, or a used expert's value is NaN."""
    used = np.asarray(counts_DE).sum(axis=-2) > 0
    return divide(np.where(used, values_E, 0.0).sum(axis=-1), used.sum(axis=-1))


@metric("freq_matrix", unit="probability", bounds=(0.0, 1.0), undefined=EMPTY, source="seed 002, Part 3", takes=("counts_DE",), invariant=BUDGET,
        seed="frequency matrix")
def freq_matrix(counts_DE: ArrayLike) -> Float:
    """Usage of each expert within a domain: P(e|d) = n_de / N_d; [..., D, E], NaN rows for a domain without selections."""
    n = np.asarray(counts_DE, np.float64)
    return divide(n, n.sum(axis=-1, keepdims=True))


@metric("mi_E_D", unit="bits", bounds=(0.0, domain_bits), undefined=EMPTY, source="metrics specification 2.5 B.1",
        takes=("counts_DE",), estimator="stratified group jackknife", invariant=BUDGET, seed="affinity, domain clustering strength")
def mi_E_D(counts_DE: ArrayLike) -> Float:
    """Domain-balanced mutual information of expert and domain: I(E;D) with P(d) = 1/D, the mean log-affinity; bits, [0, log2 min(D, E)].

    counts_DE [..., D, E] gives [...]. The headline of specialisation. NaN where a domain has no selections.
    """
    return mutual_information_bits(_balanced_joint(counts_DE))


@metric("mi_E_D_share", unit="share of log2 D", bounds=(0.0, 1.0), undefined="one domain, or " + EMPTY, source="metrics specification 2.6",
        takes=("counts_DE",), estimator="stratified group jackknife", invariant=BUDGET)
def mi_E_D_share(counts_DE: ArrayLike) -> Float:
    """Domain-balanced mutual information over its limit: I(E;D) / log2 D, [0, 1]; NaN for one domain or an empty one."""
    return divide(mi_E_D(counts_DE), np.log2(n_domains(counts_DE)))


@metric("mi_E_D_pooled", unit="bits", bounds=(0.0, domain_bits), undefined="no_data: no selections", source="metrics specification 4.2",
        takes=("counts_DE",), estimator="stratified group jackknife", invariant=LABELS)
def mi_E_D_pooled(counts_DE: ArrayLike) -> Float:
    """Token-pooled mutual information of expert and domain: I(E;D) with P(d) = N_d / N; bits, [0, log2 min(D, E)].

    Depends on the domains' token budgets; mi_E_D does not. An empty domain adds nothing. NaN without selections.
    """
    return mutual_information_bits(counts_DE)


@metric("affinity", unit="ratio", bounds=(0.0, n_domains), undefined=UNUSED, source="seed 004, B.1", takes=("counts_DE",),
        estimator="stratified group jackknife of log2", invariant=BUDGET, seed="Affinity(expert_i, domain_d)")
def affinity(counts_DE: ArrayLike, p_D: ArrayLike | None = None) -> Float:
    """Affinity of expert and domain: P(e|d) / P(e), P(e) = sum_d P(d) P(e|d) with the declared P(d); [..., E, D] in [0, 1/P(d)].

    p_D: declared P(d), 1/D by default. sum_d P(d) Aff(e, d) = 1 for every used expert, so that the plain average says nothing.
    NaN for an unused expert, and everywhere if a domain is empty.
    """
    joint = _balanced_joint(counts_DE, p_D)
    return np.swapaxes(divide(freq_matrix(counts_DE), joint.sum(axis=-2, keepdims=True)), -1, -2)


@metric("affinity_seed", unit="ratio", bounds=(0.0, None), undefined=UNUSED, source="seed 004, B.1", takes=("counts_DE",), invariant=LABELS,
        seed="Affinity(expert_i, domain_d)", seed_form=True)
def affinity_seed(counts_DE: ArrayLike) -> Float:
    """The seed's affinity: P(e|d) over the pooled P(e) = n_e / N; [..., E, D].

    What is wrong: P(e) follows the token budgets, so that a domain with more tokens is drawn to 1 whatever the routing.
    """
    n = np.asarray(counts_DE, np.float64)
    pooled = divide(n.sum(axis=-2, keepdims=True), n.sum(axis=(-1, -2), keepdims=True))
    return np.swapaxes(divide(freq_matrix(n), pooled), -1, -2)


@metric("log2_affinity", unit="bits", bounds=(None, lambda counts_DE: np.log2(n_domains(counts_DE))), undefined="no selection in the domain",
        source="metrics specification 2.6", takes=("counts_DE",), estimator="stratified group jackknife", invariant=BUDGET)
def log2_affinity(counts_DE: ArrayLike) -> Float:
    """Affinity on the scale of its interval: log2 Aff(e, d); [..., E, D], at most log2 D; NaN where the expert has no selection in the domain."""
    ratio = affinity(counts_DE)
    out: Float = np.log2(ratio, out=np.full(ratio.shape, np.nan), where=ratio > 0)
    return out


def shrunk_log2_affinity(counts_DE: ArrayLike) -> Float:
    """log2 affinity from n_de + 1/2, [..., E, D]: for heat maps only, never for a statement. NaN for an unused expert."""
    n = np.asarray(counts_DE, np.float64)
    used = (n.sum(axis=-2) > 0)[..., :, None]
    return np.where(used, np.log2(affinity(n + 0.5)), np.nan)


@metric("specialisation_e", unit="share of log2 D", bounds=(0.0, 1.0), undefined=UNUSED + "; one domain", source="seed 000, 2C, its sign set right",
        takes=("counts_DE",), estimator="stratified group jackknife", invariant=BUDGET, seed="expert specialisation (entropy across domains)")
def specialisation_e(counts_DE: ArrayLike) -> Float:
    """How far one expert keeps to few domains: 1 - H(q_e) / log2 D, q_e(d) = P(e|d) / sum_d' P(e|d'); [..., E], 0 even, 1 a single domain.

    NaN for an unused expert, for one domain, and everywhere if a domain is empty.
    """
    share = freq_matrix(counts_DE)
    return np.maximum(1.0 - divide(entropy_bits(np.swapaxes(share, -1, -2)), np.log2(n_domains(counts_DE))), 0.0)


@metric("specialisation_seed", unit="bits", bounds=(0.0, lambda counts_DE: np.log2(n_domains(counts_DE))), undefined="unused_expert",
        source="seed 000, 2C", takes=("counts_DE",), invariant=LABELS, seed="expert specialisation (entropy across domains)", seed_form=True)
def specialisation_seed(counts_DE: ArrayLike) -> Float:
    """The seed's specialisation: entropy of an expert's raw counts over domains; bits, [..., E].

    What is wrong: high means even use, the opposite of specialised, and the domain with most tokens dominates.
    """
    return entropy_bits(np.swapaxes(np.asarray(counts_DE, np.float64), -1, -2))


@metric("purity_e", unit="share", bounds=(even_purity, 1.0), undefined="unused_expert", source="seed 004, B.2", takes=("counts_DE",),
        estimator="none: in-sample", invariant=LABELS, seed="Purity(expert_i)")
def purity_e(counts_DE: ArrayLike) -> Float:
    """In-sample purity of an expert: max_d n_de / n_e; [..., E] in [1/D, 1]. 1 for an expert with one selection; baseline max_d P(d)."""
    n = np.asarray(counts_DE, np.float64)
    return divide(n.max(axis=-2), n.sum(axis=-2))


@metric("purity_seed", unit="share", bounds=(even_purity, 1.0), undefined="no_data: no selections", source="seed 004, B.2", takes=("counts_DE",),
        estimator="basic document bootstrap", invariant=LABELS, seed="Avg_Purity", seed_form=True)
def purity_seed(counts_DE: ArrayLike) -> Float:
    """The seed's average purity: mean of max_d P(d|e) over active experts; [...].

    What is wrong: the domain is picked on the tokens that are then counted, so that it grows with E and falls with N without any
    specialisation, and rare experts weigh as much as common ones. purity_cross_fitted has no such bias.
    """
    return mean_over_used(purity_e(counts_DE), counts_DE)


@metric("purity_token_weighted", unit="share", bounds=(even_purity, 1.0), undefined="no_data: no selections", source="metrics specification 2.5 B.2",
        takes=("counts_DE",), estimator="basic document bootstrap", invariant=LABELS)
def purity_token_weighted(counts_DE: ArrayLike) -> Float:
    """In-sample purity by selections: sum_e max_d n_de / N; [...] in [max_d P(d), 1]."""
    n = np.asarray(counts_DE, np.float64)
    return divide(n.max(axis=-2).sum(axis=-1), n.sum(axis=(-1, -2)))


@metric("lambda", unit="share of errors", bounds=(0.0, 1.0), undefined="no selections, or all in one domain", source="Goodman & Kruskal 1954",
        takes=("counts_DE",), estimator="basic document bootstrap", invariant=LABELS)
def goodman_kruskal_lambda(counts_DE: ArrayLike) -> Float:
    """Errors in guessing the domain that the expert removes: (purity - base) / (1 - base), token-weighted purity, base = max_d N_d / N; [0, 1]."""
    n = np.asarray(counts_DE, np.float64)
    base, total = n.sum(axis=-1).max(axis=-1), n.sum(axis=(-1, -2))
    return divide(n.max(axis=-2).sum(axis=-1) - base, total - base)


def _label_and_value(folds_FDE: ArrayLike) -> tuple[Float, Float]:
    """Tables [..., F, D, E] that labels come from (all other folds) and that they are valued on (the fold itself)."""
    value = np.asarray(folds_FDE, np.float64)
    return value.sum(axis=-3, keepdims=True) - value, value


@metric("purity_cross_fitted", unit="share", bounds=(0.0, 1.0), undefined="no_data: an empty fold", source="metrics specification 2.5 B.2",
        takes=("folds_FDE",), estimator="basic document bootstrap", invariant=LABELS, seed="Avg_Purity")
def purity_cross_fitted(folds_FDE: ArrayLike) -> Float:
    """Purity without picking and counting on the same documents: label d(e) = argmax_d n_de on the other folds, share of labelled selections on one.

    folds_FDE [..., F, D, E] gives [...], the mean over folds, in [0, 1]: unbiased for the fitted labels. Ties take the first domain; an
    expert unseen where labels are fitted takes the majority domain there. NaN where a fold is empty.
    """
    out: Float = purity_of_labels(*_label_and_value(folds_FDE)).mean(axis=-1)
    return out


def purity_of_labels(label_DE: ArrayLike, value_DE: ArrayLike) -> Float:
    """Cross-fitted purity in one direction: share of the selections of value_DE in the domain that label_DE gives their expert; [...], [0, 1].

    Ties and unseen experts as in purity_cross_fitted, which is the mean over folds. NaN where either table is empty.
    """
    label, value = np.broadcast_arrays(np.asarray(label_DE, np.float64), np.asarray(value_DE, np.float64))
    majority = label.sum(axis=-1).argmax(axis=-1)[..., None]
    domain = np.where(label.sum(axis=-2) > 0, label.argmax(axis=-2), majority)
    hits = np.take_along_axis(value, domain[..., None, :], axis=-2)[..., 0, :].sum(axis=-1)
    filled = (label.sum(axis=(-1, -2)) > 0) & (value.sum(axis=(-1, -2)) > 0)
    return np.where(filled, divide(hits, value.sum(axis=(-1, -2))), np.nan)


@metric("expert_affinity_avg", unit="ratio", bounds=(0.0, n_domains), undefined="no expert is seen in two folds, or " + EMPTY,
        source="seed 004, F; metrics specification 2.5 B.1", takes=("folds_FDE",), estimator="basic document bootstrap", invariant=BUDGET,
        seed="Expert Affinity (avg)")
def expert_affinity_avg(folds_FDE: ArrayLike) -> Float:
    """Mean over active experts of the affinity to their own domain: d(e) = argmax_d Aff on the other folds, Aff(e, d(e)) on one; 1 by chance.

    folds_FDE [..., F, D, E] gives [...] in [0, D]. A fold counts for an expert that is seen both in it and in the others.
    """
    label, value = (affinity(table) for table in _label_and_value(folds_FDE))
    filled = (np.isfinite(label) & np.isfinite(value)).all(axis=-1)
    domain = np.where(np.isnan(label), -1.0, label).argmax(axis=-1)
    chosen = np.take_along_axis(value, domain[..., None], axis=-1)[..., 0]
    n_folds = filled.sum(axis=-2)
    per_expert = divide(np.where(filled, chosen, 0.0).sum(axis=-2), n_folds)
    return divide(np.where(n_folds > 0, per_expert, 0.0).sum(axis=-1), (n_folds > 0).sum(axis=-1))


@metric("expert_affinity_seed", unit="ratio", bounds=(0.0, n_domains), undefined=EMPTY, source="seed 004, F", takes=("counts_DE",), invariant=BUDGET,
        estimator="none: in-sample", seed="Expert Affinity (avg)", seed_form=True)
def expert_affinity_seed(counts_DE: ArrayLike) -> Float:
    """Mean over active experts of the largest affinity, in-sample: mean_e max_d Aff(e, d); [...] in [1, D].

    What is wrong: the largest of D noisy ratios is above 1 without any specialisation; expert_affinity_avg picks on other documents.
    """
    best = affinity(counts_DE).max(axis=-1)
    return mean_over_used(best, counts_DE)


def _shares_of_top(picked_on: Float, valued_on: Float) -> Float:
    top = np.argsort(-picked_on, axis=-1, kind="stable")[..., :TOP]
    return divide(np.take_along_axis(valued_on, top, axis=-1).sum(axis=-1), valued_on.sum(axis=-1))


@metric("top5_share_seed", unit="share", bounds=(0.0, 1.0), undefined="no_data: the domain is empty", source="seed 002, Part 3", takes=("counts_DE",),
        estimator="none: in-sample", invariant=BUDGET, seed="top-5 share", seed_form=True)
def top5_share_seed(counts_DE: ArrayLike) -> Float:
    """The seed's share of the five most used experts of a domain, in-sample; [..., D].

    What is wrong: the five largest of E noisy counts, above 5/E under even routing.
    """
    n = np.asarray(counts_DE, np.float64)
    return _shares_of_top(n, n)


@metric("top5_share", unit="share", bounds=(0.0, 1.0), undefined="no_data: the domain is empty in a fold", source="metrics specification 2.3",
        takes=("folds_FDE",), estimator="basic document bootstrap", invariant=BUDGET, seed="top-5 share")
def top5_share(folds_FDE: ArrayLike) -> Float:
    """Cross-fitted share of a domain's five most used experts: picked on the other folds, counted on one, mean over folds; [..., D].

    folds_FDE [..., F, D, E]; ties take the lowest expert; NaN where the domain is empty in a fold or in all others.
    """
    picked_on, valued_on = _label_and_value(folds_FDE)
    known = picked_on.sum(axis=-1) > 0
    out: Float = np.where(known, _shares_of_top(picked_on, valued_on), np.nan).mean(axis=-2)
    return out


@metric("avg_variance_seed", unit="probability squared", bounds=(0.0, None), undefined="one domain, or " + EMPTY, source="seed 002, Part 6",
        takes=("counts_DE",), invariant=BUDGET, seed="avg_variance", seed_form=True)
def avg_variance_seed(counts_DE: ArrayLike) -> Float:
    """The seed's average variance: mean over used experts of var_d P(e|d), ddof 1; [...].

    What is wrong: it holds the documents' sampling noise, so that it is above 0 for domains of the same law; avg_variance subtracts that.
    """
    p = freq_matrix(counts_DE)
    squares = ((p - p.mean(axis=-2, keepdims=True)) ** 2).sum(axis=-2)
    return mean_over_used(divide(squares, n_domains(counts_DE) - 1), counts_DE)


def within_domain_variance(moments_SDE: ArrayLike) -> Float:
    """Cluster variance of P(e|d): n_d/(n_d - 1) sum_i (c_ie - M_i p_de)^2 / N_d^2; [..., D, E].

    moments_SDE [..., 4, D, E]: sums over a domain's documents i of c_ie, c_ie^2, c_ie M_i, and their number. NaN for fewer than two documents.
    """
    count, square, product, documents = np.moveaxis(np.asarray(moments_SDE, np.float64), -3, 0)
    p, total = freq_matrix(count), count.sum(axis=-1, keepdims=True)
    length_square = product.sum(axis=-1, keepdims=True)  # sum_i M_i^2, for M_i = sum_e c_ie
    spread = np.maximum(square - 2 * p * product + p**2 * length_square, 0.0)
    return divide(divide(documents, np.maximum(documents - 1, 0.0)) * spread, total**2)


@metric("avg_variance", unit="probability squared", bounds=(None, None), undefined="one domain, a domain of one document, or " + EMPTY,
        source="metrics specification 2.3", takes=("moments_SDE",), estimator="stratified group jackknife", invariant=BUDGET, seed="avg_variance")
def avg_variance(moments_SDE: ArrayLike) -> Float:
    """Variance between domains beyond that of documents: mean over used e of [var_d P(e|d) - mean_d v_de] (unbiased ANOVA form); may be negative.

    moments_SDE [..., 4, D, E] (see within_domain_variance) gives [...]. NaN where a domain has fewer than two documents.
    """
    moments = np.asarray(moments_SDE, np.float64)
    counts = moments[..., 0, :, :]
    return avg_variance_seed(counts) - mean_over_used(within_domain_variance(moments).mean(axis=-2), counts)


def _cv_over_domains(values_DE: Float) -> Float:
    mean = values_DE.mean(axis=-2)
    squares = ((values_DE - mean[..., None, :]) ** 2).sum(axis=-2)
    return divide(np.sqrt(divide(squares, values_DE.shape[-2] - 1)), mean)


@metric("cv_domains_seed", unit="ratio", bounds=(0.0, lambda counts_DE: np.sqrt(n_domains(counts_DE))), undefined="unused_expert; one domain",
        source="seed 002, Part 5", takes=("counts_DE",), invariant=LABELS, seed="CV specialists and generalists", seed_form=True)
def cv_domains_seed(counts_DE: ArrayLike) -> Float:
    """The seed's coefficient of variation over domains: std (ddof 1) / mean of raw counts n_de; [..., E].

    What is wrong: unequal token budgets make every expert a specialist; cv_domains takes P(e|d).
    """
    return _cv_over_domains(np.asarray(counts_DE, np.float64))


@metric("cv_domains", unit="ratio", bounds=(0.0, lambda counts_DE: np.sqrt(n_domains(counts_DE))), undefined=UNUSED + "; one domain",
        source="metrics specification 2.3", takes=("counts_DE",), invariant=BUDGET, seed="CV specialists and generalists")
def cv_domains(counts_DE: ArrayLike) -> Float:
    """Coefficient of variation of an expert's usage over domains: std (ddof 1) / mean of P(e|d); [..., E], at most sqrt(D)."""
    return _cv_over_domains(freq_matrix(counts_DE))


@metric("domain_entropy", unit="bits", bounds=(0.0, expert_bits), undefined="no_data: the domain has no selections", source="seed 002, Part 8",
        takes=("counts_DE",), estimator="stratified group jackknife", invariant=BUDGET, seed="domain entropy")
def domain_entropy(counts_DE: ArrayLike) -> Float:
    """Entropy of a domain's expert usage: H(P(.|d)), bits; [..., D] in [0, log2 E]."""
    return entropy_bits(counts_DE)


@metric("domain_entropy_difference", unit="bits", bounds=(lambda counts_DE: -expert_bits(counts_DE), expert_bits),
        undefined="no_data: a domain of the pair has no selections", source="metrics specification 2.3", takes=("counts_DE",),
        estimator="stratified group jackknife", invariant=BUDGET)
def domain_entropy_difference(counts_DE: ArrayLike) -> Float:
    """Difference of two domains' entropies: H(P(.|a)) - H(P(.|b)), bits; [..., D, D], antisymmetric, made on the same jackknife groups."""
    entropy = entropy_bits(counts_DE)
    return entropy[..., :, None] - entropy[..., None, :]
