"""Planted topology: the stated information, the same rows, and what distinguishes the three kinds."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.metrics.coactivation import coact_lift, expected_meetings
from analysis.metrics.information import mi_first_choice
from analysis.metrics.transfer import transfer_info
from analysis.topology_controls import KINDS, TopologyAim, follow_for, information_of_step, plan_topology_controls, plant_topology
from tests.hypotheses.topology_worlds import corpus, planted
from tests.references.memory_trace import MemoryTrace

BASE = corpus(test=120, length=100)


def joints(trace, a=0, b=1):
    """Joint tables [D, E, E] of the first choices of two layers, by domain."""
    size = trace.meta.layers[a].n_experts, trace.meta.layers[b].n_experts
    domain = {row.document: int(row.domain[-1]) for row in trace.documents}
    out = np.zeros((max(domain.values()) + 1, *size))
    for batch in trace.shards:
        np.add.at(out, ([domain[d] for d in batch.document.tolist()], batch.ids[a][:, 0], batch.ids[b][:, 0]), 1)
    return out


def lifts(trace, layer=0):
    """Lift tables [D, E, E] by domain."""
    n = trace.meta.layers[layer].n_experts
    domain = {row.document: int(row.domain[-1]) for row in trace.documents}
    out = np.zeros((max(domain.values()) + 1, n, n))
    for batch in trace.shards:
        of = np.array([domain[d] for d in batch.document.tolist()])
        for one in batch.ids[layer].T:
            for other in batch.ids[layer].T:
                np.add.at(out, (of, one, other), 1)
    return coact_lift(out)


def test_information_of_a_step_is_that_of_its_table():
    for follow in (0.0, 0.3, 1.0):
        table = np.full((6, 6), (1 - follow) / 36) + follow * np.eye(6)[np.roll(np.arange(6), 2)] / 6
        assert information_of_step(follow, 6) == pytest.approx(float(mi_first_choice(table)), abs=1e-9)


@pytest.mark.parametrize(("bits", "experts"), [(1.5, 4), (2.5, 16), (2.5, 128), (0.1, 2)])
def test_the_follow_probability_gives_the_bits_asked_for(bits, experts):
    assert information_of_step(follow_for(bits, experts), experts) == pytest.approx(bits, abs=1e-9)
    assert follow_for(9.0, experts) == 1.0


def test_positive_has_the_stated_information_in_every_domain_and_transfers_it():
    found = joints(planted("positive", BASE))
    stated = plan_topology_controls(BASE).facts["planted_bits"]
    assert mi_first_choice(found) == pytest.approx([stated, stated], abs=0.1)
    assert float(transfer_info(found[0], found[1])) == pytest.approx(stated, abs=0.1)


def test_misleading_has_equal_information_within_domains_and_none_between():
    found = joints(planted("misleading", BASE))
    own = mi_first_choice(found)
    assert own[0] == pytest.approx(own[1], abs=0.05) and own.min() > 1.5
    assert float(transfer_info(found[0], found[1])) < 0 and float(transfer_info(found[1], found[0])) < 0


def test_independent_has_no_information_given_the_topic():
    trace = planted("independent", BASE)
    plan = plan_topology_controls(BASE)
    topic = plan.key % np.uint64(4) + 4 * plan.domain.astype(np.uint64)
    table = np.zeros((8, 8, 8))
    for batch in trace.shards:
        np.add.at(table, (topic[batch.document].astype(int), batch.ids[0][:, 0], batch.ids[1][:, 0]), 1)
    bias = 7 * 7 / (2 * np.log(2) * table.sum(axis=(1, 2)))
    assert np.abs(mi_first_choice(table) - bias).max() < 4 * bias.max()
    assert 0 < float(mi_first_choice(table.sum(axis=0))) < 1.5


def test_companions_are_shared_by_domains_in_positive_alone():
    upper = np.triu_indices(8, 1)

    def agreement(kind):
        a, b = (one[upper] for one in lifts(planted(kind, BASE)))
        return np.corrcoef(a, b)[0, 1]

    assert agreement("positive") > 0.95
    assert abs(agreement("misleading")) < 0.6
    assert abs(agreement("independent")) < 0.6


def test_sets_of_independent_have_no_companions_given_the_topic():
    trace, plan = planted("independent", BASE), plan_topology_controls(BASE)
    topic = plan.key % np.uint64(4) + 4 * plan.domain.astype(np.uint64)
    tables = np.zeros((8, 8, 8))
    for batch in trace.shards:
        of = topic[batch.document].astype(int)
        for a in batch.ids[0].T:
            for b in batch.ids[0].T:
                np.add.at(tables, (of, a, b), 1)
    upper = np.triu_indices(8, 1)
    n, expected = tables[:, *upper], expected_meetings(tables)[:, *upper]
    assert ((n - expected) ** 2 / expected).mean() == pytest.approx(1.0, abs=0.35)  # as Poisson counts about the law of the topic's loads
    assert np.abs(lifts(trace)[:, *upper]).max() > 0.3  # and of all topics together they have


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_runs_own_and_sets_are_sets(kind):
    base = corpus(layers=2, experts=6, k=3)
    trace = planted(kind, base)
    for own, made in zip(base.shards, trace.shards):
        assert all(np.array_equal(getattr(own, name), getattr(made, name)) for name in ("document", "position", "token_id"))
        for ids in made.ids:
            assert ids.dtype == np.uint8 and ids.max() < 6
            assert (np.diff(np.sort(ids.astype(int), axis=1), axis=1) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_planted_alike_whatever_lies_beside_it(kind):
    plan = plan_topology_controls(BASE)
    whole = MemoryTrace(BASE.meta, BASE.documents, list(plant_topology(BASE.batches(), plan, kind)))
    some = list(plant_topology(BASE.batches(split="calibration"), plan, kind))
    expected = [ids for batch in whole.batches(split="calibration") for ids in batch.ids[1].tolist()]
    assert [ids for batch in some for ids in batch.ids[1].tolist()] == expected


def test_seeds_differ():
    assert not np.array_equal(planted("positive", BASE, seed=1).shards[0].ids[0], planted("positive", BASE, seed=2).shards[0].ids[0])


@pytest.mark.parametrize(("shape", "words"), [({"experts": 3}, "1.58 bits"), ({"layers": 1}, "one MoE layer")])
def test_what_cannot_be_planted_is_said(shape, words):
    plan = plan_topology_controls(corpus(**shape), TopologyAim())
    assert words in plan.unreachable
    for kind in KINDS:  # and it is planted nonetheless
        assert len(list(plant_topology(corpus(**shape).batches(), plan, kind))) > 0


def test_enough_experts_are_reachable():
    assert plan_topology_controls(corpus(experts=4)).unreachable is None
