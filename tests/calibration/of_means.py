"""Coverage of intervals of means, loads and informations over documents; mutants that resample tokens or take percentiles."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from analysis.arithmetic import divide, entropy_bits, mutual_information_bits
from analysis.estimation import Groups, group_tables, jackknife
from analysis.resampling import document_weights, jackknife_groups, percentile_interval
from tests.calibration.checks import Check, Rng
from tests.calibration.worlds import Sample, TopicWorld, document_joint, document_loads, document_sums

WORLDS = {
    "topics": TopicWorld(),
    "topics, sticky .6": TopicWorld(seed=2, sticky=0.6),
    "topics, template of 12": TopicWorld(seed=3, prefix=12),
    "unequal topics and lengths": TopicWorld(seed=4, prior=(0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.03, 0.02), lengths=(10, 190)),
}
LIMIT_NATS = 0.8
Tables = Callable[[Sample, TopicWorld], Groups]


def grouped(*tables_D: np.ndarray) -> Groups:
    """Groups of 100 at most, documents being exchangeable here."""
    return group_tables(tables_D, jackknife_groups(len(tables_D[0])))


def lengths(sample: Sample) -> np.ndarray:
    """Tokens [D]."""
    return np.diff(sample.starts)


METRICS: dict[str, tuple[Tables, Callable[..., np.ndarray], Callable[[TopicWorld], float]]] = {
    "mean entropy": (lambda s, w: grouped(document_sums(s, s.h), lengths(s)), divide, lambda w: w.mean_h),
    "share below a threshold": (lambda s, w: grouped(document_sums(s, (s.h < LIMIT_NATS).astype(float)), lengths(s)), divide,
                                lambda w: w.share_below(LIMIT_NATS)),
    "load of an expert": (lambda s, w: grouped(document_loads(s, w.n_experts)), lambda c: divide(c[..., 0], c.sum(-1)), lambda w: float(w.load_X[0])),
    "load entropy": (lambda s, w: grouped(document_loads(s, w.n_experts)), entropy_bits, lambda w: w.load_entropy),
    "mi_first_choice": (lambda s, w: grouped(document_joint(s, w.n_experts)), mutual_information_bits, lambda w: w.information),
}


def covers(metric: str, world: str, n_documents: int, rng: Rng) -> bool:
    """Whether the group jackknife covers the truth."""
    tables, value, truth = METRICS[metric]
    one = WORLDS[world]
    interval = jackknife(tables(one.draw(n_documents, rng), one), value)
    return bool(interval.low <= truth(one) <= interval.high)


def token_bootstrap_covers(metric: str, world: str, rng: Rng) -> bool:
    """The mutant: tokens drawn anew as if they were independent."""
    one = WORLDS[world]
    sample = one.draw(100, rng)
    n = len(sample.x)
    replicates = []
    for _ in range(100):
        rows = rng.integers(0, n, n)
        if metric == "mean entropy":
            replicates.append(sample.h[rows].mean())
        else:
            joint = np.bincount(sample.x[rows] * one.n_experts + sample.y[rows], minlength=one.n_experts**2)
            replicates.append(float(mutual_information_bits(joint.reshape(one.n_experts, -1))))
    low, high = percentile_interval(np.array(replicates))
    return bool(low <= METRICS[metric][2](one) <= high)


def percentile_covers(world: str, rng: Rng) -> bool:
    """The mutant: percentiles of document replicates of plug-in information, which sit two biases high."""
    one = WORLDS[world]
    joint_D = document_joint(one.draw(100, rng), one.n_experts)
    weights = document_weights(len(joint_D), 200, rng)
    replicates = mutual_information_bits(np.einsum("bd,dxy->bxy", weights, joint_D.astype(float)))
    low, high = percentile_interval(replicates)
    return bool(low <= one.information <= high)


def coverage(name: str, world: str, run: Callable[[Rng], bool], mutant: bool = False) -> Check:
    """A nominal 95 % interval; the window is what the specification measured of sound ones."""
    return Check(name, "coverage", 0.95, (0.92, 0.985), world, "metrics specification 4.1", run, mutant)


CHECKS = [
    *(coverage(f"jackknife of {metric}, topics", "topics", partial(covers, metric, "topics", 100)) for metric in METRICS),
    *(coverage(f"jackknife of {metric}, {world}", world, partial(covers, metric, world, 100))
      for metric in ("mean entropy", "load entropy", "mi_first_choice") for world in list(WORLDS)[1:]),
    *(coverage(f"token bootstrap of {metric}", "topics", partial(token_bootstrap_covers, metric, "topics"), mutant=True)
      for metric in ("mean entropy", "mi_first_choice")),
    coverage("percentile interval of mi_first_choice", "topics", partial(percentile_covers, "topics"), mutant=True),
]
