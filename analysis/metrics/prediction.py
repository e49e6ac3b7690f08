"""How well predicted experts tell the actual ones: information, share of entropy, accuracy, recall, and the gain over a baseline.

T token, P, Y predicted and actual first choice, R rank of a guess, K slot of the actual top-k, G group of documents. Everything comes from
additive tables by group of documents, so that a predictor and its baselines are compared on the same documents (seed 000, 1.C).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import Float, divide, mutual_information_bits
from analysis.estimate import Estimate
from analysis.estimation import Groups, estimates
from analysis.gates import bias_sensitive, few_documents, gated, undersampled
from analysis.kernels import Int
from analysis.metrics.baselines import REQUIRED
from analysis.metrics.entropy_estimators import mutual_information
from analysis.metrics.information import ORDERLESS, smaller_alphabet_bits
from analysis.metrics.joint_tables import checked_ids, first_choice_counts
from analysis.registry import metric

GAIN_BITS = 0.1  # metrics specification 2.1 C: the lower end of predictor_gain has to exceed it
MISSING_BASELINE = "missing_baseline"
NO_TOKEN = "no_data: no token with an actual expert"


@metric("predictor_mi", unit="bits", bounds=(0.0, smaller_alphabet_bits), undefined=NO_TOKEN, source="seed 000, 1.C; metrics specification 2.1 C",
        takes=("square_XX",), invariant=(*ORDERLESS, "relabelling of predictions"), seed="MI(Prophet_predictions, Ground_truth_routing)")
def predictor_mi(joint_PY: ArrayLike) -> Float:
    """Information of the predicted about the actual first choice: I(P;Y), bits, [0, log2 E].

    joint_PY: counts [..., E, E], predicted by actual; gives [...]. Blind to labels: a permuted predictor has all of it and accuracy 0, so that
    top1_accuracy goes with it. A random predictor's plug-in is above 0: compare corrected values. Its share of H(Y) is `u`.
    """
    return mutual_information_bits(joint_PY)


@metric("top1_accuracy", unit="share of tokens", bounds=(0.0, 1.0), undefined=NO_TOKEN, source="metrics specification 2.1 C",
        takes=("square_XX",), invariant=("token order", "document order"))
def top1_accuracy(joint_PY: ArrayLike) -> Float:
    """Share of tokens whose first choice was predicted: sum of the diagonal / N, [0, 1]; joint_PY [..., E, E] with the same labels on both axes."""
    n = np.asarray(joint_PY, np.float64)
    if n.shape[-1] != n.shape[-2]:
        raise ValueError(f"joint_PY {n.shape}: predicted and actual experts need the same labels; count over all experts of the layer")
    return divide(np.trace(n, axis1=-2, axis2=-1), n.sum(axis=(-2, -1)))


@metric("recall_at_k", unit="share of selections", bounds=(0.0, 1.0), undefined=NO_TOKEN, source="metrics specification 2.1 C",
        takes=("found_of",), invariant=(*ORDERLESS, "slot order"))
def recall_at_k(found_of: ArrayLike) -> Float:
    """Share of the actual selections that are among the first k guesses: sum |guesses and S| / sum |S|, [0, 1].

    found_of: recall_counts [..., 2], selections found and all; gives [...]. The mean over tokens where no slot was dropped.
    """
    n = np.asarray(found_of, np.float64)
    return divide(n[..., 0], n[..., 1])


@metric("predictor_gain", unit="bits", undefined=NO_TOKEN,
        bounds=(lambda *tables: -smaller_alphabet_bits(tables[1]), lambda *tables: smaller_alphabet_bits(tables[0])),
        source="metrics specification 2.1 C", takes=("square_XX", "square_XX"), estimator="group jackknife, paired", seed="MI >> random")
def predictor_gain(joint_PY: ArrayLike, baseline_PY: ArrayLike) -> Float:
    """Information beyond a baseline's on the same tokens: I(P;Y) - I(B;Y), bits; joint_PY, baseline_PY counts [..., E, E]; gives [...]."""
    return mutual_information_bits(joint_PY) - mutual_information_bits(baseline_PY)


@metric("accuracy_gain", unit="share of tokens", bounds=(-1.0, 1.0), undefined=NO_TOKEN, source="metrics specification 2.1 C",
        takes=("square_XX", "square_XX"), estimator="group jackknife, paired", invariant=("token order", "document order"))
def accuracy_gain(joint_PY: ArrayLike, baseline_PY: ArrayLike) -> Float:
    """Accuracy beyond a baseline's on the same tokens: acc(P) - acc(B); joint_PY, baseline_PY counts [..., E, E]; gives [...]."""
    return top1_accuracy(joint_PY) - top1_accuracy(baseline_PY)


def prediction_counts(predicted: ArrayLike, actual: ArrayLike, n_experts: int, group: ArrayLike | None = None, n_groups: int | None = None) -> Int:
    """Tokens by first guess and actual first choice [(G,) E, E]; predicted [T] or [T, R] by rank, actual [T] or [T, K].

    Tokens whose actual slots were all dropped are left out. ValueError for a guess of -1: a predictor guesses for every token.
    """
    return first_choice_counts(_guesses(predicted, n_experts)[:, :1], actual, n_experts, group, n_groups)


def recall_counts(predicted: ArrayLike, actual: ArrayLike, n_experts: int, group: ArrayLike | None = None, n_groups: int | None = None) -> Int:
    """Actual selections among the guesses, and all of them, [(G,) 2]; predicted [T, R], actual [T] (first choice) or [T, K] (the set)."""
    guesses, ids = _guesses(predicted, n_experts), checked_ids(actual, n_experts, "actual")
    if len(guesses) != len(ids):
        raise ValueError(f"predicted: {len(guesses)} tokens, actual: {len(ids)}; give the same tokens")
    kept = ids >= 0
    found = np.zeros(len(ids), np.int64)
    for rank in guesses.T:
        found += ((ids == rank[:, None]) & kept).sum(axis=1)
    both = np.stack([found, kept.sum(axis=1)], axis=1)
    if group is None:
        return cast(Int, both.sum(axis=0))
    member = np.asarray(group, np.int64)
    out = np.zeros((int(member.max(initial=-1)) + 1 if n_groups is None else n_groups, 2), np.int64)
    np.add.at(out, member, both)
    return out


def _guesses(predicted: ArrayLike, n_experts: int) -> Int:
    guesses = checked_ids(predicted, n_experts, "predicted")
    if (guesses < 0).any():
        raise ValueError("predicted: -1 is no guess; a predictor guesses for every token, or leaves the token out of both sides")
    return guesses


@dataclass(frozen=True)
class PredictionTables:
    """A predictor's counts by group of documents: joint_GPY [G, E, E], and recall_G [G, 2] where it makes k guesses."""

    joint_GPY: Int
    recall_G: Int | None = None


@dataclass(frozen=True)
class PredictorEstimates:
    """One predictor on the scored documents; u is the seed's `W% of maximum`; recall is None where it was not counted."""

    mi: Estimate
    u: Estimate
    accuracy: Estimate
    recall: Estimate | None
    grassberger: float | None


@dataclass(frozen=True)
class PredictorComparison:
    """A predictor beside its baselines; gains are paired over the same groups of documents.

    best_baseline: the largest corrected information; gain: over it, in bits (criterion: gain.low > GAIN_BITS).
    best_accuracy_baseline, accuracy_gain: the same for top-1 accuracy, without which information alone shows nothing.
    """

    predictor: PredictorEstimates
    baselines: Mapping[str, PredictorEstimates]
    gains: Mapping[str, Estimate]
    accuracy_gains: Mapping[str, Estimate]
    best_baseline: str
    best_accuracy_baseline: str

    @property
    def gain(self) -> Estimate:
        """I(P;Y) - I(best baseline;Y) in bits."""
        return self.gains[self.best_baseline]

    @property
    def accuracy_gain(self) -> Estimate:
        """Accuracy beyond the most accurate baseline's."""
        return self.accuracy_gains[self.best_accuracy_baseline]


@dataclass(frozen=True)
class ScoredDocuments:
    """Documents behind the groups; stratum [G] where groups lie inside domains."""

    n_documents: int
    stratum: Int | None = None

    def estimate(self, name: str, *tables: ArrayLike, level: float) -> Estimate:
        """Jackknife Estimate of a scalar metric of tables by group."""
        groups = Groups(tuple(np.asarray(table) for table in tables), self.n_documents, self.stratum)
        return cast(Estimate, estimates(name, groups, level=level)[()])


def predictor_estimates(tables: PredictionTables, documents: ScoredDocuments, *, level: float = 0.95) -> PredictorEstimates:
    """predictor_mi, u, top1_accuracy and recall_at_k with jackknife intervals; gates: undersampled, too_few_documents, bias_sensitive."""
    joint = np.asarray(tables.joint_GPY).sum(axis=0)
    few = few_documents(documents.n_documents)
    second = float(mutual_information(joint, "grassberger_G")) if joint.sum() else None
    mi = documents.estimate("predictor_mi", tables.joint_GPY, level=level)
    u = documents.estimate("u", tables.joint_GPY, level=level)
    if mi.value is not None and mi.plug_in is not None:
        mi = gated(mi, undersampled(joint), few, bias_sensitive(mi.plug_in, mi.value, second))
    if u.value is not None:
        u = gated(u, undersampled(joint), few)
    recall = None if tables.recall_G is None else _gated(documents.estimate("recall_at_k", tables.recall_G, level=level), few)
    return PredictorEstimates(mi, u, _gated(documents.estimate("top1_accuracy", tables.joint_GPY, level=level), few), recall, second)


def compare_predictor(predictor: PredictionTables, baselines: Mapping[str, PredictionTables], documents: ScoredDocuments, *,
                      level: float = 0.95) -> PredictorComparison:
    """A predictor against baselines counted on the same tokens. Without a baseline of baselines.REQUIRED the gain is gated missing_baseline.

    ValueError for no baseline, and for baselines counted on other tokens (their counts of actual experts differ in some group).
    """
    if not baselines:
        raise ValueError(f"baselines: none; a predictor is compared with {', '.join(REQUIRED)}")
    actual = np.asarray(predictor.joint_GPY).sum(axis=1)
    for name, tables in baselines.items():
        if not np.array_equal(np.asarray(tables.joint_GPY).sum(axis=1), actual):
            raise ValueError(f"baseline {name!r} was counted on other tokens than the predictor; score both on the same tokens and groups")
    every = {name: predictor_estimates(tables, documents, level=level) for name, tables in baselines.items()}
    own = predictor_estimates(predictor, documents, level=level)
    missing = [name for name in REQUIRED if name not in baselines]
    absent = f"{MISSING_BASELINE}: {', '.join(missing)}" if missing else None

    def against(metric_id: str, name: str) -> Estimate:
        tables = baselines[name]
        reasons = [few_documents(documents.n_documents), absent]
        if metric_id == "predictor_gain":
            reasons = [undersampled(np.asarray(t.joint_GPY).sum(axis=0)) for t in (predictor, tables)] + reasons
        return _gated(documents.estimate(metric_id, predictor.joint_GPY, tables.joint_GPY, level=level), *reasons)

    gains, accuracy_gains = ({name: against(id, name) for name in baselines} for id in ("predictor_gain", "accuracy_gain"))
    best = max(sorted(every), key=lambda name: _value(every[name].mi))
    return PredictorComparison(own, every, gains, accuracy_gains, best, max(sorted(every), key=lambda name: _value(every[name].accuracy)))


def _gated(estimate: Estimate, *reasons: str | None) -> Estimate:
    return estimate if estimate.value is None else gated(estimate, *reasons)


def _value(estimate: Estimate) -> float:
    return -np.inf if estimate.value is None else estimate.value
