"""What counts as a choice: fillers are none, a router without scores has no confidence; tables of token types are cut aloud, a layer at a time."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from analysis.metrics.specialization import mi_E_D
from hypotheses import spectra_experts, spectra_rows
from hypotheses.spectra_evidence import SpectraSettings
from hypotheses.spectra_experts import expert_rows, keywords_of
from hypotheses.spectra_rows import commonest, layer_rows, occurrences, type_table
from hypotheses.spectra_runs import UNSCORED, RunCounts
from hypotheses.spectra_tokens import diversity_draws
from tests.hypotheses import spectra_worlds as worlds

WORLD = worlds.World(seeds=1, layers=2)
SETTINGS = SpectraSettings(n_bootstrap=49)
STRINGS = [f"w{v}" for v in range(worlds.VOCABULARY)]


def with_columns(run, top_k, **columns):
    meta = replace(run.trace.meta, layers=tuple(replace(layer, top_k=top_k) for layer in run.trace.meta.layers))
    (batch,) = run.trace.shards
    return replace(run, trace=replace(run.trace, meta=meta, shards=[replace(batch, **columns)]))


@pytest.fixture(scope="module")
def first_alone():
    """A run whose tokens have one expert, and the same where a second slot holds fillers that capacity dropped."""
    run = worlds.run("expert_choice", 0, worlds.SPECIALISED, WORLD)
    (batch,) = run.trace.shards
    one = with_columns(run, 1, ids=tuple(ids[:, :1] for ids in batch.ids), weights=tuple(w[:, :1] for w in batch.weights))
    zero = tuple(np.where([True, False], w, 0).astype(np.float16) for w in batch.weights)
    filled = with_columns(run, 2, weights=zero, dropped=tuple(np.full(len(batch), 2, np.uint8) for _ in batch.ids))
    return RunCounts(one, SETTINGS), RunCounts(replace(filled, fillers=True), SETTINGS), RunCounts(filled, SETTINGS)


def test_fillers_are_no_selections(first_alone):
    alone, filled, intended = first_alone
    for draws in (RunCounts.domain_draws, RunCounts.purity_draws, RunCounts.usage_draws, diversity_draws):
        want, have = draws(alone), draws(filled)
        assert want.keys() == have.keys()
        for name in want:
            np.testing.assert_allclose(have[name].plug_in, want[name].plug_in, rtol=1e-12)
            np.testing.assert_allclose(have[name].drawn, want[name].drawn, rtol=1e-12)
    want, have = (expert_rows(one, STRINGS) for one in (alone, filled))
    assert (have.experts, have.cells, have.samples) == (want.experts, want.cells, want.samples)
    assert sum(row["count"] for row in have.cells) == 2 * sum(run.sum() for run in [alone.loads.tokens])
    assert intended.domain_draws()["mi_E_D"].plug_in[-1] != pytest.approx(alone.domain_draws()["mi_E_D"].plug_in[-1])


def test_what_a_router_chose_and_lost_to_capacity_stays_its_choice(first_alone):
    """Of a router whose dropped slots are choices, structure is what it wanted (metrics specification 1)."""
    _, _, intended = first_alone
    table = np.stack([intended.loads.by_domain(layer, "selected") for layer in range(2)])
    assert intended.domain_draws()["mi_E_D"].plug_in[-1] == pytest.approx(float(mi_E_D(table).mean()))


def test_a_router_without_scores_has_no_confidence():
    run = worlds.run("hash", 0, worlds.Law(), WORLD)
    found = RunCounts(replace(run, scored=False), SETTINGS).confidence_draws()["confidence"].estimates()
    assert [one.value for one in found] == [None] * 3
    assert {one.reason for one in found} == {UNSCORED}
    assert RunCounts(run, SETTINGS).confidence_draws()["confidence"].estimates()[-1].value > 0


def test_rows_come_whole_documents_at_a_time(first_alone, monkeypatch):
    _, filled, _ = first_alone
    whole = list(layer_rows(filled.run, "test", 1, weights=True))
    assert len(whole) == 1
    table = type_table(filled.run, "test", 1, np.arange(worlds.VOCABULARY))
    assert table.sum() == len(whole[0].document)  # one choice a token
    assert (whole[0].experts[:, 1] == -1).all()
    np.testing.assert_array_equal(table.sum(axis=0), occurrences(filled.run, "test"))


def test_a_large_vocabulary_keeps_its_commonest_types_and_says_so(first_alone, monkeypatch):
    """Token ids say nothing of how common a type is: the common types of this world have the lowest and some of the highest ids."""
    alone, _, _ = first_alone
    n = occurrences(alone.run, "calibration")
    monkeypatch.setattr(spectra_experts, "MOST_TYPES", 12)
    found = expert_rows(alone, STRINGS)
    kept = commonest(n, 12)
    assert len(kept) == 12
    assert n[kept].min() >= np.delete(n, kept).max()
    shown = {word for row in found.experts for word in row["keywords"].split(", ") if word}
    assert shown
    assert shown <= {STRINGS[v] for v in kept}
    share = n[kept].sum() / n.sum()
    assert found.said == f"expert_choice, seed 0: keywords are chosen among the 12 commonest of 60 token types, {share:.2%} of the tokens"
    words = {word.text for of_expert in keywords_of(alone, STRINGS, 0, 20) for word in of_expert}
    assert words <= {STRINGS[v] for v in commonest(occurrences(alone.run, "test"), 12)}
    monkeypatch.setattr(spectra_experts, "MOST_TYPES", 60)
    assert expert_rows(alone, STRINGS).said == ""


def test_a_type_beyond_the_sixteen_bit_ids_can_be_a_keyword():
    run = worlds.run("spectra", 0, worlds.SPECIALISED, replace(WORLD, layers=1))
    (batch,) = run.trace.shards
    far = replace(run, trace=replace(run.trace, meta=replace(run.trace.meta, vocabulary_size=70_000),
                                     shards=[replace(batch, token_id=batch.token_id + 69_900)]))
    words = keywords_of(RunCounts(far, SETTINGS), [f"v{v}" for v in range(70_000)], 0, 20)
    near = keywords_of(RunCounts(run, SETTINGS), STRINGS, 0, 20)
    assert any(near)
    assert [[(word.text, word.score) for word in of] for of in words] == [[(f"v{69_900 + int(w.text[1:])}", w.score) for w in of] for of in near]


@pytest.mark.parametrize("work", [diversity_draws, lambda counts: expert_rows(counts, STRINGS)], ids=["diversity", "experts"])
def test_no_more_than_a_layer_is_held_at_a_time(work, monkeypatch):
    monkeypatch.setattr(spectra_rows, "ROWS_AT_ONCE", 500)
    peak = []
    for layers in (1, 4):
        world = worlds.World(test=20, calibration=2, layers=layers)
        counts = RunCounts(worlds.run("spectra", 0, worlds.SPECIALISED, world), SETTINGS)
        assert counts.loads
        tracemalloc.start()
        work(counts)
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peak[1] < 1.5 * peak[0]
