"""Coverage of intervals from document replicates: multinomial and Poisson weights, percentiles for means, basic for what is biased."""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np

from analysis.arithmetic import divide
from analysis.kernels import to_fixed
from analysis.registry import find
from analysis.replicates import WeightPlan, marginal_replicates, replicate_interval
from analysis.resampling import percentile_interval
from tests.calibration.checks import Claim, Rng, Study
from tests.calibration.of_means import STICKY, TOPICS, covers
from tests.calibration.worlds import TopicWorld, random_keys

N_REPLICATES = 299


def intervals(world: TopicWorld, n_documents: int, kind: Literal["multinomial", "poisson"], rng: Rng) -> list[bool]:
    """Percentiles for a mean and a load; basic and centred intervals for the entropy of loads."""
    sample, keys = world.draw(n_documents, rng), random_keys(n_documents, rng)
    plan = WeightPlan(N_REPLICATES, seed=int(rng.integers(2**31)), kind=kind)
    loads = sample.loads(world.n_experts)
    sums = sample.sums(to_fixed(np.maximum(sample.h + 8.0, 0.0)))  # weighted sums are of nonnegative integers
    unit = float(to_fixed(np.ones(1))[0])
    mean = marginal_replicates((sums, sample.lengths), divide, keys, plan) / unit - 8.0
    load = marginal_replicates((loads,), lambda c: divide(c[..., 0], c.sum(axis=-1)), keys, plan)
    entropy = find("usage_entropy_bits").function
    value = float(entropy(loads.sum(axis=0)))
    bits = marginal_replicates((loads,), entropy, keys, plan)
    basic = replicate_interval("usage_entropy_bits", value, bits)
    ends = [percentile_interval(mean), percentile_interval(load), basic]
    truths = (world.mean_h, float(world.load_X[0]), world.load_entropy)
    return [covers(float(low), float(high), truth) for (low, high), truth in zip(ends, truths)]


def study(kind: Literal["multinomial", "poisson"], text: str, world: TopicWorld, n_documents: int) -> Study:
    window = (0.92, 0.965) if n_documents >= 100 else (0.89, 0.955)
    source = "metrics specification 4.1: .90 to .96 at 25 to 100 documents"
    names = ("percentile: mean entropy", "percentile: load of an expert", "basic: load entropy")
    return Study(f"{kind} weights, {text}", f"{n_documents} documents of topics" + (", sticky" if world.sticky else ""),
                 tuple(Claim(f"{kind} document bootstrap, {name}", window=window, source=source) for name in names),
                 partial(intervals, world, n_documents, kind), 1200)


STUDIES = [study("multinomial", "30 documents", TOPICS, 30), study("multinomial", "100 documents", TOPICS, 100),
           study("poisson", "30 documents", TOPICS, 30), study("poisson", "100 sticky documents", STICKY, 100)]
