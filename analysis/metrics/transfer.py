"""What the transitions of one domain say of another: transferred information, its ratio, divergences (seed 000, 1.B).

X, Y expert chosen at layer l and l + 1; A source domain, B target domain; F half of the target's documents; joint_XY: tokens counted by
both choices. The seed's MI(routing_A, routing_B) has no meaning: tokens of two domains are not paired.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import LN2, Float, divide, entropy_bits, jensen_shannon_bits, mutual_information_bits
from analysis.estimate import Estimate
from analysis.gates import ILL_POSED
from analysis.registry import metric

UNPAIRED = (f"{ILL_POSED}: tokens of two domains are not paired, so routing_A and routing_B have no joint distribution; pairing them by "
            "row measures the order of the file. Read transfer_info instead")
FOLDS = 5


def target_information(joint_A: ArrayLike, joint_B: ArrayLike) -> float:  # noqa: ARG001
    """I_B(X;Y): transferred information is at most what the target's own table holds."""
    return float(mutual_information_bits(joint_B))


def log2_transition(joint_A: ArrayLike, smoothing: ArrayLike | None = 1.0) -> Float:
    """log2 q_A(y|x), q_A(y|x) = (n_xy + b m_A(y)) / (n_x + b), m_A(y) = (n_y + 1/2) / (N_A + E/2); unsmoothed n_xy / n_x for None.

    joint_A: counts [..., Ex, Ey]; smoothing: b > 0, a number or one per leading index. E counts every column, used or not. A row that A
    never saw is m_A; unsmoothed it is -inf, as is every cell that A never saw. ValueError for b <= 0.
    """
    n = np.asarray(joint_A, np.float64)
    row = n.sum(axis=-1, keepdims=True)
    if smoothing is None:
        q = np.nan_to_num(divide(n, row), nan=0.0)
        return np.log2(q, out=np.full(q.shape, -np.inf), where=q > 0)
    b = np.asarray(smoothing, np.float64)[..., None, None]
    if not (b > 0).all():
        raise ValueError("smoothing must be above 0; smoothing=None asks for the unsmoothed table")
    column = n.sum(axis=-2, keepdims=True)
    marginal = (column + 0.5) / (column.sum(axis=-1, keepdims=True) + n.shape[-1] / 2)
    out: Float = (np.log(n + b * marginal) - np.log(row + b)) / LN2
    return out


def cross_entropy_sum(joint_B: ArrayLike, log2_q: Float) -> Float:
    """-sum n_xy log2 q(y|x) over the last two axes, bits; cells without a token add nothing, whatever q is there."""
    n = np.asarray(joint_B, np.float64)
    out: Float = -np.multiply(n, log2_q, where=n > 0, out=np.zeros(np.broadcast_shapes(n.shape, log2_q.shape))).sum(axis=(-2, -1))
    return out


@metric("transfer_info", unit="bits", bounds=(None, target_information), undefined="no_data: a domain has no token with both choices",
        source="metrics specification 2.1 B1; Cover & Thomas 2.5 (chain rule of divergence)", takes=("joint_XY", "joint_XY"),
        estimator="two-sample group jackknife", invariant=("relabelling (same map in A and B)", "token order", "document order"))
def transfer_info(joint_A: ArrayLike, joint_B: ArrayLike, smoothing: ArrayLike | None = 1.0) -> Float:
    """Transferred information T(A->B) = H_B(Y) - CE_B(q_A) = I_B - KL(P_B(y|x) || q_A(y|x) | P_B(x)).

    joint_A, joint_B: counts [..., Ex, Ey] (probabilities only with smoothing None); gives [...]. (-inf, I_B]: negative where A's table
    predicts B worse than B's own marginal does. smoothing: b of log2_transition, chosen inside A (choose_smoothing) for estimates; None
    gives -inf wherever B holds a pair that A never saw. NaN where a domain is empty. Without bias correction it is too low.
    """
    a, b = np.asarray(joint_A, np.float64), np.asarray(joint_B, np.float64)
    _same_experts(a, b)
    total = b.sum(axis=(-2, -1))
    seen = np.where(a.sum(axis=(-2, -1)) > 0, total, 0.0)
    return entropy_bits(b.sum(axis=-2)) - divide(cross_entropy_sum(b, log2_transition(a, smoothing)), seen)


def _same_experts(a: NDArray[np.generic], b: NDArray[np.generic]) -> None:
    if a.shape[-2:] != b.shape[-2:]:
        raise ValueError(f"joint_A is {a.shape[-2:]} and joint_B {b.shape[-2:]}: transfer needs the same two layers of the same model")


def smoothing_candidates(n_experts: int) -> Float:
    """b in {1, sqrt(E), E, 4E}, ascending."""
    return np.array([1.0, n_experts**0.5, n_experts, 4.0 * n_experts])


def choose_smoothing(joint_GXY: ArrayLike, n_folds: int = FOLDS, standard_errors: float = 1.0) -> float:
    """Least b whose held-out -sum n log2 q over document folds of the source is within one standard error of the least one.

    joint_GXY: tables of jackknife groups (or documents) of A [G, Ex, Ey], in hash order; group g is in fold g mod 5, or each its own
    fold below five. The target domain is never seen. The standard error is that of the paired difference over folds; standard_errors 0 is
    the plain minimum, which flips between near-ties that no jackknife sees: at E = 16 and N_A = 10 E^2 it covers 88 to 89 % in place of
    93 to 94 % (metrics specification 2.1 B1 leaves the rule open; the one-standard-error rule is Breiman et al. 1984, 3.4.3).
    ValueError for one group: nothing can be held out.
    """
    groups = np.asarray(joint_GXY, np.float64)
    n_folds = min(n_folds, len(groups))
    if n_folds < 2:
        raise ValueError("one document: smoothing cannot be chosen without a held-out document; pass smoothing, or collect more documents")
    folds = np.stack([groups[fold::n_folds].sum(axis=0) for fold in range(n_folds)])
    training, candidates = folds.sum(axis=0) - folds, smoothing_candidates(groups.shape[-1])
    loss_bF = np.stack([cross_entropy_sum(folds, log2_transition(training, b)) for b in candidates])
    behind_bF = loss_bF - loss_bF[int(loss_bF.sum(axis=1).argmin())]
    allowed = standard_errors * behind_bF.std(axis=1, ddof=1) * n_folds**0.5
    return float(candidates[int(np.argmax(behind_bF.sum(axis=1) <= allowed))])


@metric("transfer_ratio", unit="ratio", bounds=(None, None), undefined="T(B->B) is not above 0: the target's own table predicts nothing",
        source="metrics specification 2.1 B2", takes=("joint_XY", "halves_FXY", "halves_FXY"), estimator="two-sample group jackknife",
        invariant=("relabelling (same map in A and B)", "token order"))
def transfer_ratio(joint_A: ArrayLike, target_FXY: ArrayLike, trained_FXY: ArrayLike, smoothing: ArrayLike = 1.0,
                   smoothing_F: ArrayLike = (1.0, 1.0)) -> Float:
    """Transfer ratio T(A->B) / T(B->B), the denominator cross-fitted: each half of B is predicted from the other half.

    joint_A: source counts [..., Ex, Ey]; target_FXY: the two halves of B's documents [..., 2, Ex, Ey]; trained_FXY: the table that
    predicts half f, summed over as many tokens as A has (analysis.transfer_matrix.ratio_estimate cuts all three to one size). Gives [...],
    1 where the domains agree. NaN where T(B->B) <= 0 or a table is empty.
    """
    upper, lower = ratio_terms(joint_A, target_FXY, trained_FXY, smoothing, smoothing_F)
    return divide(upper, np.where(lower > 0, lower, 0.0))


def ratio_terms(joint_A: ArrayLike, target_FXY: ArrayLike, trained_FXY: ArrayLike, smoothing: ArrayLike,
                smoothing_F: ArrayLike) -> tuple[Float, Float]:
    """T(A->B) and cross-fitted T(B->B) = H_B(Y) - sum_f CE sums of half f / N_B, each [...]; NaN where a table is empty."""
    halves, trained = np.asarray(target_FXY, np.float64), np.asarray(trained_FXY, np.float64)
    whole = halves.sum(axis=-3)
    usable = ((halves.sum(axis=(-2, -1)) > 0) & (trained.sum(axis=(-2, -1)) > 0)).all(axis=-1)
    loss = cross_entropy_sum(halves, log2_transition(trained, smoothing_F)).sum(axis=-1)
    own = entropy_bits(whole.sum(axis=-2)) - divide(loss, np.where(usable, whole.sum(axis=(-2, -1)), 0.0))
    return transfer_info(joint_A, whole, smoothing), own


@metric("jsd_transition", unit="bits", bounds=(0.0, 1.0), undefined="no_data: a domain has no token with both choices",
        source="metrics specification 2.1 B4; Lin 1991", takes=("joint_XY", "joint_XY"), estimator="two-sample group jackknife",
        invariant=("relabelling (same map in A and B)", "token order", "exchange of A and B"))
def jsd_transition(joint_A: ArrayLike, joint_B: ArrayLike) -> Float:
    """Jensen-Shannon divergence of two joint tables (X_l, X_l+1): H((P_A + P_B)/2) - (H(P_A) + H(P_B))/2, base 2.

    joint_A, joint_B: counts [..., Ex, Ey]; gives [...], [0, 1]. A dissimilarity, not information; the divergence, not its square root.
    """
    a, b = np.asarray(joint_A, np.float64), np.asarray(joint_B, np.float64)
    _same_experts(a, b)
    return jensen_shannon_bits(*(x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1]) for x in (a, b)))


@metric("jsd_load", unit="bits", bounds=(0.0, 1.0), undefined="no_data: a domain without selections", source="metrics specification 2.1 B4",
        takes=("counts_E", "counts_E"), estimator="two-sample group jackknife",
        invariant=("relabelling (same map in A and B)", "token order", "exchange of A and B"))
def jsd_load(counts_A: ArrayLike, counts_B: ArrayLike) -> Float:
    """Jensen-Shannon divergence of the experts' loads in two domains, base 2; counts [..., E], gives [...], [0, 1]; not its root."""
    a, b = np.asarray(counts_A, np.float64), np.asarray(counts_B, np.float64)
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"counts_A has {a.shape[-1]} experts and counts_B {b.shape[-1]}: compare the same layer of the same model")
    return jensen_shannon_bits(a, b)


@metric("cross_domain_naive_pairing", unit="bits", bounds=(None, None), undefined=UNPAIRED, source="seed 000, 1.B",
        takes=("joint_XY", "joint_XY"), estimator="none", seed="MI(routing_A, routing_B)", seed_form=True)
def cross_domain_naive_pairing(joint_A: ArrayLike, joint_B: ArrayLike) -> Float:
    """The seed's MI(routing_A, routing_B): undefined for every pair of domains, because their tokens are not paired.

    Gives NaN [...], which estimates turn into the reason `ill_posed`. Wrong with it: see naive_pairing_bits. transfer_info answers the
    question that the seed asks.
    """
    return np.full(np.broadcast_shapes(np.shape(joint_A)[:-2], np.shape(joint_B)[:-2]), np.nan)


def ill_posed_cross_domain_mi(n_documents: int = 0) -> Estimate:
    """What the seed's name MI(routing_A, routing_B) resolves to: no number, and why."""
    return Estimate.undefined(UNPAIRED, unit="bits", n_units=n_documents)


def naive_pairing_bits(choice_A: ArrayLike, choice_B: ArrayLike) -> float:
    """I of the table that pairs token i of A with token i of B; shown only to let it change as a file is reordered, never published.

    choice_A, choice_B: expert ids [T]; the longer one is cut. NaN where either is empty or holds a dropped slot only (-1).
    """
    n = min(len(np.atleast_1d(choice_A)), len(np.atleast_1d(choice_B)))
    a, b = (np.atleast_1d(np.asarray(x, np.int64))[:n] for x in (choice_A, choice_B))
    kept = (a >= 0) & (b >= 0)
    joint = np.zeros((a.max(initial=0) + 1, b.max(initial=0) + 1), np.int64)
    np.add.at(joint, (a[kept], b[kept]), 1)
    return float(mutual_information_bits(joint))
