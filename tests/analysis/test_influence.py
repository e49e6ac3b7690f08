import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis.arithmetic import mutual_information_bits
from analysis.estimation import Groups, jackknife
from analysis.influence import document_influence, influence_errors, ordered_sum, pointwise_information
from tests.references.cases import case


def by_document(x, y, starts, ex, ey):
    document = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    both = (x >= 0) & (y >= 0)
    out = np.zeros((len(starts) - 1, ex, ey), int)
    np.add.at(out, (document[both], x[both], y[both]), 1)
    return out


def world(seed=0, n_documents=60, missing=0.1):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 40, n_documents)
    topic = np.repeat(rng.integers(0, 3, n_documents), lengths)
    x = (topic + rng.integers(0, 3, len(topic))) % 5
    y = np.where(rng.random(len(topic)) < missing, -1, (x + rng.integers(0, 2, len(x))) % 4)
    return x, y, np.concatenate([[0], np.cumsum(lengths)])


def test_duplicated_documents_p02():
    given, expected = case("P02")
    counts = np.array(given["doc_counts"])
    value, se, influence = document_influence(counts)
    assert (value, se) == pytest.approx((expected["plugin"], expected["se_influence"]), abs=1e-9)
    doubled = document_influence(np.concatenate([counts, counts]))
    assert doubled[:2] == pytest.approx((expected["plugin_duplicated"], expected["se_influence_duplicated_docs"]), abs=1e-9)
    assert influence.sum() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_scan_of_pairs_is_the_sum_over_documents(backend):
    x, y, starts = world()
    made = influence_errors([x, y, x], [5, 4, 5], starts, [[0, 1], [1, 0], [0, 2]], backend=backend, threads=2)
    for place, (a, b, ea, eb) in enumerate(((x, y, 5, 4), (y, x, 4, 5), (x, x, 5, 5))):
        counts = by_document(a, b, starts, ea, eb)
        value, se, _ = document_influence(counts)
        assert made.information[place] == pytest.approx(value, abs=1e-12) and made.se[place] == pytest.approx(se, rel=1e-10)
        assert made.n_tokens[place] == counts.sum()


def test_same_bits_for_twins_given_tables_and_any_order_of_documents():
    x, y, starts = world(1)
    plain = influence_errors([x, y], [5, 4], starts, [[0, 1]], backend="numpy")
    table = by_document(x, y, starts, 5, 4).sum(axis=0)
    order = np.random.default_rng(0).permutation(60)
    rows = np.concatenate([np.arange(starts[d], starts[d + 1]) for d in order]).astype(int)
    moved = np.concatenate([[0], np.cumsum(np.diff(starts)[order])])
    for other in (influence_errors([x, y], [5, 4], starts, [[0, 1]], backend="numba"),
                  influence_errors([x, y], [5, 4], starts, [[0, 1]], backend="numba", tables=[table]),
                  influence_errors([x[rows], y[rows]], [5, 4], moved, [[0, 1]], backend="numba")):
        assert other.se[0] == plain.se[0] and other.information[0] == plain.information[0]


@given(arrays(np.int64, (5, 3, 4), elements=st.integers(0, 6)))
@settings(max_examples=60, deadline=None)
def test_influence_is_the_derivative_of_information_in_a_documents_weight(counts):
    value, _, influence = document_influence(counts)
    total = counts.sum(axis=0).astype(float)
    if total.sum() == 0:
        assert np.isnan(value) and np.isnan(influence).all()
        return
    assert value == pytest.approx(float(mutual_information_bits(total)), abs=1e-12)
    step = 1e-5
    for d in range(5):
        moved = [float(mutual_information_bits(total + e * counts[d])) for e in (-step, step)]
        assert influence[d] / total.sum() == pytest.approx((moved[1] - moved[0]) / (2 * step), abs=1e-6)


def test_error_is_near_the_jackknifes():
    x, y, starts = world(2, 400, 0.0)
    counts = by_document(x, y, starts, 5, 4)
    groups = Groups((np.add.reduceat(counts, np.arange(0, 400, 4)),), 400)
    made = jackknife(groups, mutual_information_bits)
    assert document_influence(counts)[1] == pytest.approx(float(made.se), rel=0.25)


@given(st.lists(st.just(0.0) | st.floats(1e-100, 1e6), min_size=1, max_size=40), st.randoms())
@settings(max_examples=80, deadline=None)
def test_a_sum_does_not_depend_on_order(values, random):
    from math import fsum

    shuffled = list(values)
    random.shuffle(shuffled)
    assert ordered_sum(np.array(values)) == ordered_sum(np.array(shuffled)) == pytest.approx(fsum(values), rel=1e-14)


def test_pointwise_information_is_zero_where_nothing_is_read():
    table = np.array([[4, 0], [0, 4]])
    np.testing.assert_allclose(pointwise_information(table), [[1, 0], [0, 1]])


def test_one_document_one_expert_and_nothing_at_all():
    x = np.array([0, 1, 0, 1])
    one = influence_errors([x, x], [2, 2], np.array([0, 4]), [[0, 1]])
    assert one.information[0] == pytest.approx(1.0) and np.isnan(one.se[0])
    flat = influence_errors([x * 0, x], [1, 2], np.array([0, 2, 4]), [[0, 1]])
    assert flat.information[0] == 0 and flat.se[0] == 0
    empty = influence_errors([x * 0 - 1, x], [2, 2], np.array([0, 2, 4]), [[0, 1]])
    assert np.isnan(empty.information[0]) and np.isnan(empty.se[0]) and empty.n_tokens[0] == 0
