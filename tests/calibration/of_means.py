"""Coverage of the group jackknife for means, loads and informations over documents; mutants that resample tokens or take percentiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from analysis.arithmetic import divide, entropy_bits, mutual_information_bits
from analysis.estimation import Groups, estimates, group_tables, jackknife
from analysis.influence import document_influence
from analysis.metrics.sequence import lag_kappa
from analysis.registry import find
from analysis.resampling import document_weights, jackknife_groups, normal_quantile, percentile_interval
from tests.calibration.checks import Claim, Rng, Study
from tests.calibration.worlds import Sample, TopicWorld

TOPICS = TopicWorld()
STICKY = TopicWorld(seed=2, sticky=0.6)
TEMPLATE = TopicWorld(seed=3, prefix=12)
UNEQUAL = TopicWorld(seed=4, prior=(0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.03, 0.02), lengths=(10, 190))
ROOMY = TopicWorld(seed=5, n_experts=64, n_topics=12, lengths=(400, 600), spread=0.3)
WEAK = TopicWorld(seed=5, n_experts=64, n_topics=12, lengths=(160, 250), spread=1.0)
COUPLED = TopicWorld(seed=5, n_experts=64, n_topics=12, lengths=(160, 250), spread=0.1)
INFORMATION = ("usage_entropy_bits", "mi_first_choice", "u")
SKEWED = "The spread of loads that a few topics make has a skewed law, at 400 documents still"
GATE = ("At the gate N = 5 Kx Ky the jackknife leaves a bias of 0.01 to 0.015 bits, which is as large as the error of 100 documents; "
        "12 tokens a cell leave none")
LIMIT_NATS = 0.8
Tables = Callable[[Sample, TopicWorld], Groups]


def covers(low: float | None, high: float | None, truth: float) -> bool:
    """Whether an interval holds the truth; one that is undefined does not."""
    return low is not None and high is not None and bool(low <= truth <= high)


def grouped(*tables_D: np.ndarray) -> Groups:
    """Groups of 100 at most, documents being exchangeable here."""
    return group_tables(tables_D, jackknife_groups(len(tables_D[0])))


def joint(s: Sample, w: TopicWorld) -> Groups:
    return grouped(s.joint(w.n_experts))


def loads(s: Sample, w: TopicWorld) -> Groups:
    return grouped(s.loads(w.n_experts))


def pairs(s: Sample, w: TopicWorld) -> Groups:
    return grouped(s.transitions(w.n_experts))


REGISTERED: dict[str, tuple[Tables, Callable[[TopicWorld], float]]] = {
    "h_full": (lambda s, w: grouped(s.sums(s.h), s.lengths), lambda w: w.mean_h),
    "entropy_share_below": (lambda s, w: grouped(s.sums((s.h < LIMIT_NATS).astype(np.int64)), s.lengths), lambda w: w.share_below(LIMIT_NATS)),
    "load": (loads, lambda w: float(w.load_X[0])),
    "usage_entropy_bits": (loads, lambda w: w.load_entropy),
    "usage_cv": (loads, lambda w: float(np.sqrt(w.n_experts * (w.load_X**2).sum() - 1))),
    "usage_gini": (loads, lambda w: float(find("usage_gini").function(w.load_X))),
    "mi_first_choice": (joint, lambda w: w.information),
    "u": (joint, lambda w: w.information / float(entropy_bits(w.joint_XY.sum(axis=0)))),
    "lag_kappa": (pairs, lambda w: float(lag_kappa(w.lag_one_XX))),
    "lag_mi": (pairs, lambda w: float(mutual_information_bits(w.lag_one_XX))),
    "transition_diversity": (pairs, lambda w: float(find("transition_diversity").function(w.lag_one_XX))),
}
OWN = {"h_full": divide, "load": lambda c: divide(c[..., 0], c.sum(axis=-1))}  # means that the register has per token
LABEL = {"h_full": "mean entropy", "entropy_share_below": "share below a threshold", "load": "load of an expert",
         "usage_entropy_bits": "load entropy"}
STILL = tuple(name for name in REGISTERED if REGISTERED[name][0] is not pairs)


def intervals(names: Sequence[str], world: TopicWorld, n_documents: int, rng: Rng) -> list[bool]:
    """Whether the jackknife interval of each metric covers the truth; then that of information with influence errors."""
    sample, out = world.draw(n_documents, rng), []
    for name in names:
        tables, truth = REGISTERED[name]
        groups = tables(sample, world)
        if name in OWN:
            one = jackknife(groups, OWN[name])
            out.append(covers(float(one.low), float(one.high), truth(world)))
        else:
            found = estimates(name, groups).item()
            out.append(covers(found.low, found.high, truth(world)))
    return [*out, influence_covers(sample, world)]


def influence_covers(sample: Sample, world: TopicWorld) -> bool:
    """The interval of large scans: jackknife point, influence error."""
    tables = sample.joint(world.n_experts)
    half = normal_quantile(0.95) * document_influence(tables)[1]
    value = float(jackknife(grouped(tables), mutual_information_bits).value)
    return covers(value - half, value + half, world.information)


def token_bootstrap(world: TopicWorld, rng: Rng) -> list[bool]:
    """The mutants: tokens drawn anew as if they were independent, for mean entropy and information; percentiles of document replicates."""
    sample, n_experts = world.draw(100, rng), world.n_experts
    n, means, informations = len(sample.x), [], []
    cell = sample.x * n_experts + sample.y
    for _ in range(100):
        rows = rng.integers(0, n, n)
        means.append(sample.h[rows].mean())
        informations.append(float(mutual_information_bits(np.bincount(cell[rows], minlength=n_experts**2).reshape(n_experts, -1))))
    joint_D = sample.joint(n_experts).reshape(len(sample.lengths), -1)
    documents = mutual_information_bits((document_weights(100, 200, rng) @ joint_D).reshape(-1, n_experts, n_experts))
    found = [percentile_interval(np.asarray(replicates)) for replicates in (means, informations, documents)]
    return [covers(float(low), float(high), truth) for (low, high), truth in zip(found, (world.mean_h, world.information, world.information))]


def study(name: str, text: str, world: TopicWorld, n_documents: int, names: Sequence[str], replicates: int = 2000) -> Study:
    """Every metric of the same draws."""
    claims = [Claim(f"jackknife: {LABEL.get(one, one)}", window=(0.91, 0.96), limit=SKEWED) if one in ("usage_cv", "usage_gini") else
              Claim(f"jackknife: {LABEL.get(one, one)}") for one in names]
    influence = Claim("influence error about the jackknife value: mi_first_choice", source="metrics specification 4.2", window=(0.915, 0.97))
    return Study(name, text, (*claims, influence), partial(intervals, names, world, n_documents), replicates)


def limited(name: str, text: str, world: TopicWorld, window: tuple[float, float], influence: tuple[float, float]) -> Study:
    """Information where there are only just enough tokens."""
    claims = (Claim("jackknife: load entropy"), *(Claim(f"jackknife: {one}", window=window, limit=GATE) for one in INFORMATION[1:]),
              Claim("influence error about the jackknife value: mi_first_choice", window=influence, limit=GATE))
    return Study(name, text, claims, partial(intervals, INFORMATION, world, 100), 400)


STUDIES = [
    study("30 documents", "30 documents of topics", TOPICS, 30, tuple(REGISTERED)),
    study("100 documents", "100 documents of topics", TOPICS, 100, tuple(REGISTERED)),
    study("sticky documents", "100 documents of topics, a token repeats the last with probability 0.6", STICKY, 100, tuple(REGISTERED)),
    study("template", "100 documents of topics that begin with the same 12 tokens", TEMPLATE, 100, STILL),
    study("unequal documents", "100 documents of 10 to 190 tokens, topics of probability 0.4 to 0.02", UNEQUAL, 100, tuple(REGISTERED)),
    study("twelve tokens a cell", "100 documents of topics, 64 experts, 12 tokens per cell", ROOMY, 100, INFORMATION, 400),
    limited("at the gate", "100 documents of topics, 64 experts, 5 tokens per cell, layers hardly coupled", WEAK, (0.65, 0.82), (0.45, 0.62)),
    limited("at the gate, coupled", "100 documents of topics, 64 experts, 5 tokens per cell, layers coupled", COUPLED, (0.84, 0.93), (0.75, 0.92)),
    Study("tokens as if independent", "100 documents of topics",
          (Claim("token bootstrap: mean entropy", mutant=True), Claim("token bootstrap: mi_first_choice", mutant=True),
           Claim("percentiles of document replicates: mi_first_choice", mutant=True)), partial(token_bootstrap, TOPICS), 400),
]
