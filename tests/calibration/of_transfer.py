"""Coverage of what one domain says of another: transferred information and its ratio, retention, predictors against baselines."""

from __future__ import annotations

from functools import partial

import numpy as np

from analysis.arithmetic import entropy_bits, mutual_information_bits
from analysis.estimation import estimates
from analysis.metrics.prediction import PredictionTables, ScoredDocuments, compare_predictor
from analysis.metrics.retention import markov_prediction, retention, right_by_document, right_by_mode
from analysis.metrics.transfer import transfer_info
from analysis.resampling import jackknife_groups
from analysis.transfer_matrix import DomainJoints, ratio_estimate, transfer_matrix
from tests.calibration.checks import Claim, Rng, Study
from tests.calibration.of_means import covers, grouped
from tests.calibration.worlds import Float, Sample, TopicWorld, choose

PRIOR_A, PRIOR_B = (0.25, 0.25, 0.15, 0.15, 0.05, 0.05, 0.05, 0.05), (0.05, 0.05, 0.05, 0.05, 0.15, 0.15, 0.25, 0.25)
SOURCE = "metrics specification 2.1 B1"


def domains(n_experts: int, lengths: tuple[int, int], *, alike: bool = False, seed: int = 11) -> tuple[TopicWorld, TopicWorld]:
    """Two domains with the same topics, more or less of each (alike: as much of each)."""
    a = TopicWorld(seed=seed, n_experts=n_experts, lengths=lengths, prior=PRIOR_A, alpha=0.3)
    return a, a if alike else TopicWorld(seed=seed, n_experts=n_experts, lengths=lengths, prior=PRIOR_B, alpha=0.3)


def tables(sample: Sample, n_experts: int, name: str) -> DomainJoints:
    """Joint tables by group of documents."""
    groups = grouped(sample.joint(n_experts))
    return DomainJoints(name, [groups.tables[0]], groups.n_documents)


def true_transfer(a: TopicWorld, b: TopicWorld) -> float:
    """H_B(Y) - CE_B(P_A(y|x)), no smoothing: both laws are known."""
    return float(transfer_info(a.joint_XY, b.joint_XY, None))


def transfers(a: TopicWorld, b: TopicWorld, n_documents: int, rng: Rng) -> list[bool]:
    """T in both directions; the mutant: plug-in T with the same error."""
    found = transfer_matrix([tables(world.draw(n_documents, rng), world.n_experts, name) for world, name in ((a, "A"), (b, "B"))]).mean
    there, back = found[0, 1], found[1, 0]
    half = there.half_width
    truth = true_transfer(a, b)
    return [covers(there.low, there.high, truth), covers(back.low, back.high, true_transfer(b, a)),
            covers(there.plug_in - half, there.plug_in + half, truth)]


def ratios(a: TopicWorld, b: TopicWorld, n_documents: int, rng: Rng) -> list[bool]:
    """T(A->B) / T(B->B)."""
    found = ratio_estimate(*(tables(world.draw(n_documents, rng), world.n_experts, name) for world, name in ((a, "A"), (b, "B"))))
    return [covers(found.low, found.high, true_transfer(a, b) / float(mutual_information_bits(b.joint_XY)))]


def retained(a: TopicWorld, b: TopicWorld, rng: Rng) -> list[bool]:
    """Retention on 100 documents of B, given predictors fitted on other documents of A and B."""
    e = a.n_experts
    of_A, of_B = (markov_prediction(world.draw(100, rng).joint(e).sum(axis=0)) for world in (a, b))
    joint = b.draw(100, rng).joint(e)
    right = [right_by_document(guess, joint) for guess in (of_A, of_B)]
    found = estimates("retention", grouped(*right, right_by_mode(joint.sum(axis=1)), joint.sum(axis=(1, 2)))).item()
    law = b.joint_XY
    accuracy = [float(law[np.arange(e), guess].sum()) for guess in (of_A, of_B)]
    return [covers(found.low, found.high, float(retention(*accuracy, float(law.sum(axis=0).max()))))]


class PredictedWorld:
    """A layer to predict, and predictors that are right with a known probability and guess from a law of their own otherwise."""

    world = TopicWorld(seed=12, n_experts=12)
    right = {"predictor": 0.6, "token_type": 0.45, "uniform": 0.0}

    def __init__(self) -> None:
        rng = np.random.default_rng(13)
        self.guess = {name: rng.dirichlet(np.full(12, 20.0)) for name in self.right}

    def joint(self, name: str) -> Float:
        """Law of predicted and actual."""
        y, share = self.world.load_X, self.right[name]
        return share * np.diag(y) + (1 - share) * np.outer(self.guess[name], y)

    def draw(self, n_documents: int, rng: Rng) -> dict[str, PredictionTables]:
        """Counts by group of documents of every predictor, on the same tokens."""
        sample, out = self.world.draw(n_documents, rng), {}
        group = jackknife_groups(n_documents)[sample.document]
        for name, share in self.right.items():
            guess = choose(self.guess[name][None], np.zeros(len(sample.x), np.int64), rng)
            guess = np.where(rng.random(len(guess)) < share, sample.x, guess)
            cell = (group * 12 + guess) * 12 + sample.x
            out[name] = PredictionTables(np.bincount(cell, minlength=n_documents * 144).reshape(-1, 12, 12))
        return out


def predictors(n_documents: int, rng: Rng) -> list[bool]:
    """predictor_mi, its share of H, accuracy, and the paired gain over the best baseline."""
    world = PredictedWorld()
    drawn = world.draw(n_documents, rng)
    found = compare_predictor(drawn.pop("predictor"), drawn, ScoredDocuments(n_documents))
    law, base = world.joint("predictor"), world.joint("token_type")
    bits, gain = float(mutual_information_bits(law)), float(mutual_information_bits(law) - mutual_information_bits(base))
    pairs = ((found.predictor.mi, bits), (found.predictor.u, bits / float(entropy_bits(law.sum(axis=0)))),
             (found.predictor.accuracy, float(np.trace(law))), (found.gains["token_type"], gain), (found.baselines["uniform"].mi, 0.0))
    return [covers(one.low, one.high, truth) for one, truth in pairs]


PLUG_IN = Claim("plug-in T with the jackknife's error", mutant=True, source=SOURCE)
WIDE = ("At 64 experts and 10 tokens a cell smoothing and the choice of b leave a bias that no jackknife sees "
        "(metrics specification 2.1 B1: .85 to .90)")
AGREE = "Where domains agree the ratio differs from 1 by squares only, and the jackknife error of squares is too large: conservative"
CHANCE = "At 0 information is a square, and its jackknife error too large: conservative"
GATED, LARGE = domains(16, (48, 80)), domains(16, (64, 128))


def transfer_study(text: str, worlds: tuple[TopicWorld, TopicWorld], n: int, replicates: int, limit: tuple[float, float] | None = None) -> Study:
    claims = tuple(Claim(f"two-sample jackknife: transfer_info {way}", window=limit or (0.92, 0.97), source=SOURCE, limit=WIDE if limit else "")
                   for way in ("A to B", "B to A"))
    return Study(f"transfer, {text}", f"2 domains of {n} documents, {text}", (*claims, PLUG_IN), partial(transfers, *worlds, n), replicates)


def predictor_study(n_documents: int) -> Study:
    names = ("predictor_mi", "u of a predictor", "top1_accuracy", "predictor_gain, paired")
    return Study(f"predictors, {n_documents} documents", f"{n_documents} documents of topics, a predictor right 6 times in 10", (
        *(Claim(f"jackknife: {name}", source="metrics specification 2.1 C") for name in names),
        Claim("jackknife: predictor_mi of uniform guesses", window=(0.95, 1.0), limit=CHANCE)), partial(predictors, n_documents), 800)


STUDIES = [
    transfer_study("16 experts, 10 tokens a cell", GATED, 40, 1200),
    transfer_study("16 experts, 30 tokens a cell", LARGE, 80, 800),
    transfer_study("64 experts, 10 tokens a cell", domains(64, (300, 519)), 100, 400, (0.86, 0.95)),
    Study("transfer ratio", "2 domains of 80 documents, 16 experts, topics in other shares", (
        Claim("two-sample jackknife: transfer_ratio", window=(0.93, 0.985), source="metrics specification 2.1 B2"),),
        partial(ratios, *LARGE, 80), 800),
    Study("transfer ratio of 1", "2 domains of 80 documents, 16 experts, the same law", (
        Claim("two-sample jackknife: transfer_ratio", window=(0.96, 1.0), source="metrics specification 2.1 B2", limit=AGREE),),
        partial(ratios, *domains(16, (64, 128), alike=True), 80), 400),
    Study("retention", "2 domains of 100 documents, 16 experts, predictors fitted on 100 others", (
        Claim("paired jackknife: retention", source="metrics specification 2.1, K05"),), partial(retained, *GATED), 1200),
    predictor_study(30),
    predictor_study(100),
]
