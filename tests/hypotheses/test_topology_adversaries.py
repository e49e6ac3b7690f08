"""Worlds that look like a topology and are none: trends of position, topics of documents, domains whose experts never meet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hypotheses.h02_topology import evaluate
from hypotheses.topology_evidence import TopologyEvidence, TopologySettings
from tests.hypotheses.topology_worlds import corpus
from tests.references.memory_trace import MemoryTrace

FAST = TopologySettings(n_shifts=39, n_null_clusters=39, judged_only=True)


def rewritten(base, choose):
    """The rows of a corpus with ids choose(rng, document [T], position [T], number of layers) -> ids [L, T, K]."""
    rng = np.random.default_rng(11)
    batches = [replace(batch, ids=tuple(choose(rng, batch.document, batch.position, len(batch.ids)).astype(np.uint8))) for batch in base.shards]
    return MemoryTrace(base.meta, base.documents, batches)


def sets_of_two(rng, weights_TE):
    """Two distinct experts a row, successive draws of the weights."""
    return np.argsort(-(np.log(weights_TE) + rng.gumbel(size=weights_TE.shape)), axis=1)[:, :2]


def test_a_trend_of_position_is_no_coupling_of_tokens():
    def choose(rng, document, position, n_layers):
        ids = np.stack([sets_of_two(rng, np.ones((len(document), 8))) for _ in range(n_layers)])
        early = position < 4
        ids[:, early] = np.stack([2 * position[early], 2 * position[early] + 1], axis=1) % 8
        return ids

    made = evaluate(TopologyEvidence(rewritten(corpus(), choose), FAST))
    excess = made.estimates["mi_excess"]
    assert excess.low < 0 < excess.high or abs(excess.value) < 0.01

    def slow(rng, document, position, n_layers):
        half = (position >= 16).astype(int)
        return np.stack([sets_of_two(rng, np.exp(3.0 * (np.arange(8) // 4 == half[:, None]))) for _ in range(n_layers)])

    trend = evaluate(TopologyEvidence(rewritten(corpus(), slow), FAST))
    assert trend.estimates["mi_excess"].value > 0.05 and trend.estimates["mi_excess"].gate.startswith("position")
    assert trend.estimates["mi_excess_banded"].value < 0.05


def test_topics_of_documents_alone_are_no_clusters_of_experts():
    base = corpus(test=120, length=100, experts=16, layers=1)

    def topics(rng, document, position, n_layers):
        liked = np.arange(16) // 4 == (document % 4)[:, None]
        return np.stack([sets_of_two(rng, np.where(liked, 3.0, 1.0)) for _ in range(n_layers)])

    def companions(rng, document, position, n_layers):
        first = rng.integers(0, 16, len(document))
        weights = np.where(np.arange(16) // 4 == (first // 4)[:, None], 3.0, 1.0)
        weights[np.arange(len(first)), first] = 1e6
        return sets_of_two(rng, weights)[None].repeat(n_layers, axis=0)

    alone, real = (evaluate(TopologyEvidence(rewritten(base, choose), FAST)) for choose in (topics, companions))
    assert alone.tables["cluster_clarity"]["composition"][0] == pytest.approx(alone.tables["cluster_clarity"]["silhouette"][0], abs=0.004)
    assert alone.estimates["coact_clarity"].low < 0
    assert real.estimates["coact_clarity"].low > 0


def test_domains_whose_experts_never_meet_are_not_told_to_be_alike():
    base = corpus(test=80, length=120, experts=24, layers=1)
    in_domain = np.array([row.domain == "domain1" for row in base.documents])
    affinity = np.random.default_rng(3).normal(size=24)

    def apart(rng, document, position, n_layers):
        own = in_domain[document][:, None]
        allowed = np.where(own, np.arange(24) >= 9, np.arange(24) < 15)
        return np.stack([sets_of_two(rng, np.where(allowed, np.exp(affinity), 1e-9)) for _ in range(n_layers)])

    made = evaluate(TopologyEvidence(rewritten(base, apart), FAST))
    for name in ("coact_consistency_min", "coact_mantel"):
        one = made.estimates[name]
        assert one.value is None or one.gate.startswith("pairs_left_out")


def test_pairs_that_never_meet_in_one_domain_count_against_consistency():
    base = corpus(test=80, length=120, experts=8, layers=1)
    in_domain = np.array([row.domain == "domain1" for row in base.documents])

    def forbidden(rng, document, position, n_layers):
        ids = sets_of_two(rng, np.ones((len(document), 8)))
        split = np.where(in_domain[document], (ids.sum(axis=1) % 3) == 0, (ids.sum(axis=1) % 3) == 1)  # another third of the pairs in each
        ids[split] = np.stack([ids[split][:, 0], (ids[split][:, 0] + 3 + in_domain[document][split]) % 8], axis=1)
        return ids[None].repeat(n_layers, axis=0)

    made = evaluate(TopologyEvidence(rewritten(base, forbidden), FAST))
    assert made.estimates["coact_consistency_min"].high < 0.8


def test_topics_of_more_documents_than_are_kept_apart_elsewhere_are_no_clusters_either():
    base = corpus(test=1_300, calibration=100, length=24, experts=16, layers=1)

    def topics(rng, document, position, n_layers):
        liked = np.arange(16) // 4 == (document % 4)[:, None]
        return np.stack([sets_of_two(rng, np.where(liked, 3.0, 1.0)) for _ in range(n_layers)])

    made = evaluate(TopologyEvidence(rewritten(base, topics), FAST))
    assert made.tables["cluster_clarity"]["null_quantile"][0] > 0.005
    assert made.estimates["coact_clarity"].low < 0
