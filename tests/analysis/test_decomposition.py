import dataclasses

import numpy as np
import pytest

from analysis.decomposition import DecompositionPlan, decompose
from tests.analysis.planted import documents, keys_of, reordered

D, T, E = 120, 64, 4
SOURCES = ("token identity", "position", "document", "residual")


def planted(source, seed=0, **columns):
    """x and y both follow one hidden choice of experts in 70 % of tokens: a function of the token, its band, its document, or a coin."""
    rng = np.random.default_rng(seed)
    n, position = D * T, np.tile(np.arange(T), D)
    v = rng.integers(0, 6, n)
    hidden = {"token identity": v % E, "position": np.searchsorted([0, 1, 4, 16, 64], position, side="right") % E,
              "document": np.repeat(rng.integers(0, E, D), T), "residual": rng.integers(0, E, n), "nothing": np.zeros(n, int)}[source]
    share = 0.0 if source == "nothing" else 0.7
    x, y = (np.where(rng.random(n) < share, hidden, rng.integers(0, E, n)) for _ in range(2))
    return documents(rng, [x, y], (E, E), np.full(D, T), token_id=v, group=np.arange(D) % 30, **columns)


@pytest.mark.parametrize("source", [*SOURCES, "nothing"])
def test_each_source_alone_gives_its_term_and_zero_elsewhere(source):
    made = decompose(planted(source), [[0, 1]], DecompositionPlan(20, backend="numba"))
    for terms in (made.forward, made.reverse):
        assert sorted(terms.names) == sorted(SOURCES)
        for name, value, se in zip(terms.names, terms.interval.value[:, 0], terms.interval.se[:, 0]):
            if name == source:
                assert value > 10 * se and value == pytest.approx(made.total.value[0], abs=5 * se)
            else:
                assert abs(value) < 4 * se + 2e-3, (name, value, se)
        assert terms.interval.plug_in.sum() == pytest.approx(made.total.plug_in[0], abs=1e-12)


def test_errors_match_the_spread_over_repetitions():
    values, errors = [], []
    for seed in range(40):
        made = decompose(planted("document", seed), [[0, 1]], DecompositionPlan(15, seed=seed, backend="numba"))
        values.append(made.forward.interval.value[[2, 3], 0])
        errors.append(made.forward.interval.se[[2, 3], 0])
    ratio = np.sqrt(np.mean(np.square(errors), axis=0)) / np.std(values, axis=0, ddof=1)
    assert (ratio > 0.7).all() and (ratio < 1.5).all()  # 40 repetitions: sd of a ratio about 0.11
    assert abs(np.mean(values, axis=0)[1]) < 4 * np.std(values, axis=0)[1] / np.sqrt(40)


def test_same_bits_whatever_backend_threads_and_order():
    given = planted("token identity").take(np.arange(D * T) % T < 9)
    plan = DecompositionPlan(6, 3, backend="numpy")
    made = decompose(given, [[0, 1], [1, 0]], plan)
    fast = decompose(given, [[0, 1], [1, 0]], dataclasses.replace(plan, backend="numba", threads=2))
    other = decompose(reordered(given, np.random.default_rng(0).permutation(D)), [[0, 1], [1, 0]], plan)
    for field in ("value", "se", "low", "plug_in"):
        np.testing.assert_array_equal(getattr(made.forward.interval, field), getattr(fast.forward.interval, field))
        np.testing.assert_allclose(getattr(made.reverse.interval, field), getattr(other.reverse.interval, field), rtol=1e-9, atol=1e-12)
    assert made.left_out == other.left_out > 0


def test_tokens_alone_are_left_out_of_every_term_alike():
    rng = np.random.default_rng(0)
    v = np.tile([0, 0, 1, 2, 0, 0, 3, 3], 10)  # positions 0 | 1-3 | 4-7: four of eight are alone in band and document
    x = rng.integers(0, 2, 80)
    made = decompose(documents(rng, [x, x], (2, 2), np.full(10, 8), token_id=v), [[0, 1]], DecompositionPlan(5))
    assert made.left_out == 0.5 and made.n_tokens == 40
    assert np.isnan(made.forward.interval.se).all() and not np.isnan(made.forward.interval.plug_in).any()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_all_tokens_alone_is_undefined(backend):
    rng = np.random.default_rng(0)
    given = documents(rng, [np.zeros(20, int)] * 2, (1, 1), [10, 10], token_id=np.arange(20), group=np.arange(2), keys=keys_of(2))
    made = decompose(given, [[0, 1]], DecompositionPlan(3, backend=backend))
    assert np.isnan(made.total.value).all() and made.left_out == 1 and made.n_tokens == 0


@pytest.mark.parametrize(("pairs", "plan", "words"), [
    ([[0, 2]], DecompositionPlan(3), "within 0..1"), ([[0, 1]], DecompositionPlan(0), "needs a draw"),
    ([[0, 1]], DecompositionPlan(3, n_interval_draws=0), "needs a draw")])
def test_layers_that_are_not_there_and_no_draw_are_refused(pairs, plan, words):
    given = documents(np.random.default_rng(0), [np.zeros(20, int)] * 2, (1, 1), [10, 10], token_id=np.zeros(20, int))
    with pytest.raises(ValueError, match=words):
        decompose(given, pairs, plan)
