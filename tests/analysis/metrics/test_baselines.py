from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.metrics.baselines import REQUIRED, CountTable, TokensToPredict, baseline_guesses, fit_table, ordered_pair_key, uniform_guesses
from analysis.trace import TraceError

SEEDS = st.integers(0, 2**32 - 1)


def ranked(counts, n_experts):
    return sorted(range(n_experts), key=lambda e: (-counts[e], e))


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 5))
def test_a_table_ranks_by_count_then_id_then_by_the_whole(seed, n_guesses):
    rng = np.random.default_rng(seed)
    keys, ids = rng.integers(-1, 6, 40), rng.random((40, 5)).argsort(axis=1)[:, :2]
    ids[rng.random(ids.shape) < 0.2] = -1
    table = fit_table(keys, ids, 5, n_guesses)
    whole = Counter(e for row in ids.tolist() for e in row if e >= 0)
    overall = ranked(whole, 5)[:n_guesses]
    assert table.overall_R.tolist() == overall
    asked = np.arange(-3, 9)
    for key, guesses in zip(asked, table.predict(asked).tolist()):
        seen = Counter(e for k, row in zip(keys, ids.tolist()) for e in row if k == key and e >= 0)
        own = [e for e in ranked(seen, 5) if seen[e]][:n_guesses]
        assert guesses == (own + [e for e in overall if e not in own])[:n_guesses]
    order = rng.permutation(40)
    again = fit_table(keys[order], ids[order][:, ::-1], 5, n_guesses)
    assert (again.predict(asked) == table.predict(asked)).all()


def test_the_ties_of_a_table_go_to_the_lowest_id():
    assert fit_table([7, 7, 7, 7], [3, 1, 3, 1], 4).predict([7]).tolist() == [[1]]
    assert fit_table([0, 1], [2, 1], 4).predict([99]).tolist() == [[1]]


def test_every_key_has_distinct_guesses():
    rng = np.random.default_rng(0)
    guesses = fit_table(rng.integers(0, 30, 50), rng.integers(0, 8, 50), 8, 8).predict(np.arange(30))
    assert (np.sort(guesses, axis=1) == np.arange(8)).all()


def test_nothing_to_fit_and_odd_keys_are_named():
    with pytest.raises(ValueError, match="nothing to fit"):
        fit_table([0, 1], [-1, -1], 4)
    with pytest.raises(ValueError, match="one integer per token"):
        fit_table([0.5, 1], [1, 1], 4)
    with pytest.raises(ValueError, match="one integer per token"):
        fit_table([0], [1, 1], 4)
    with pytest.raises(ValueError, match="n_guesses"):
        fit_table([0], [1], 4, 5)
    with pytest.raises(TraceError, match="actual"):
        fit_table([0], [4], 4)
    assert CountTable(np.zeros(0, int), np.zeros((0, 1), int), np.array([2])).predict([5, 6]).tolist() == [[2], [2]]


def test_an_ordered_pair_knows_its_order():
    keys = ordered_pair_key([[0, 1], [1, 0], [0, -1], [-1, 0], [0, 1]], 2)
    assert len(set(keys.tolist())) == 4 and keys[0] == keys[4]
    with pytest.raises(ValueError, match="two slots"):
        ordered_pair_key([[0], [1]], 2)


def test_uniform_guesses_are_uniform_distinct_and_tied_to_the_token():
    keys = np.arange(40_000, dtype=np.uint64)
    guesses = uniform_guesses(keys, 8, 3)
    assert (np.diff(np.sort(guesses, axis=1), axis=1) > 0).all()
    share = np.bincount(guesses[:, 0], minlength=8) / len(keys)
    assert np.abs(share - 1 / 8).max() < 5 * np.sqrt(7 / 64 / len(keys))
    order = np.random.default_rng(0).permutation(len(keys))
    assert (uniform_guesses(keys[order], 8, 3) == guesses[order]).all()
    assert (uniform_guesses(keys, 1) == 0).all()


def planted(rng, n_tokens):
    token = rng.integers(0, 20, n_tokens)
    previous = rng.random((n_tokens, 6)).argsort(axis=1)[:, :2]
    actual = (previous[:, 0] + 2 * (previous[:, 1] > previous[:, 0])) % 6
    return TokensToPredict(actual, rng.integers(0, 2**63, n_tokens).astype(np.uint64), previous, token)


def test_each_baseline_finds_what_was_planted_for_it():
    rng = np.random.default_rng(1)
    fitted, scored = planted(rng, 3000), planted(rng, 3000)
    guesses = baseline_guesses(fitted, scored, 6)
    assert set(REQUIRED) | {"ordered_pair"} == set(guesses)
    right = {name: float(np.mean(g[:, 0] == scored.actual)) for name, g in guesses.items()}
    assert right["ordered_pair"] == 1.0 and 0.5 < right["previous_layer"] < 1.0
    assert right["uniform"] == pytest.approx(1 / 6, abs=0.05) and right["modal"] < 0.3 and right["token_type"] < 0.35
    assert len(np.unique(guesses["modal"])) == 1


def test_a_trace_without_ids_of_tokens_or_of_a_layer_before_has_fewer_baselines():
    rng = np.random.default_rng(2)
    tokens = planted(rng, 50)
    bare = TokensToPredict(tokens.actual, tokens.key_T)
    assert set(baseline_guesses(bare, bare, 6)) == {"uniform", "modal"}
    first = TokensToPredict(tokens.actual, tokens.key_T, tokens.previous[:, 0])
    assert set(baseline_guesses(first, first, 6)) == {"uniform", "modal", "previous_layer"}
    assert {g.shape for g in baseline_guesses(tokens, tokens, 6, 3).values()} == {(50, 3)}
