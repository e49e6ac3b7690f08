from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis.arithmetic import jensen_shannon_bits, mutual_information_bits
from analysis.estimation import Groups, estimates
from analysis.kernels import digest64
from analysis.metrics import diversity
from analysis.metrics.diversity import TokenRows, diversity_jsd, diversity_nmi_seed, mi_E_V, shuffled_tables
from tests.references.cases import case

TABLES = arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 8)), elements=st.integers(0, 30))


def slow_jsd(table):
    used = [row for row in table if row.sum()]
    return np.mean([jensen_shannon_bits(p, q) for p, q in combinations(used, 2)]) if len(used) > 1 else np.nan


def keys(n):
    return np.array([digest64(str(d)) for d in range(n)], np.uint64)


def test_indicator_diversity_h02():
    given_, expected = case("H02")
    for n_experts, seed, nmi in zip(given_["n_experts"], expected["diversity_seed"], expected["nmi"]):
        made = float(diversity_nmi_seed(np.full(n_experts, 7)))
        assert (made, 1 - made) == pytest.approx((seed, nmi), abs=1e-9)


def test_the_seed_s_form_never_sees_a_token():
    """Two experts always give 0, whatever they serve; balanced experts always give the same number (H01, H02)."""
    for loads in ([5, 5], [1, 99], [30, 2]):
        assert diversity_nmi_seed(loads) == pytest.approx(0, abs=1e-12)
    assert diversity_nmi_seed(np.full(128, 3)) == pytest.approx(0.9986535663664646, abs=1e-12)
    assert np.isnan(diversity_nmi_seed([9, 0, 0])) and np.isnan(diversity_nmi_seed([0, 0]))


def test_the_seed_s_form_agrees_with_sklearn_and_with_its_set_form_at_k_1():
    from sklearn.metrics import normalized_mutual_info_score

    rng = np.random.default_rng(0)
    first = rng.choice(5, 200, p=[0.4, 0.3, 0.2, 0.1, 0.0])
    chosen = first[:, None] == np.arange(5)
    brute = 1 - np.mean([normalized_mutual_info_score(chosen[:, i], chosen[:, j], average_method="geometric")
                         for i, j in combinations(range(4), 2)])
    assert diversity_nmi_seed(chosen.sum(axis=0)) == pytest.approx(brute, abs=1e-12)
    assert diversity.diversity_nmi_topk_seed(chosen) == pytest.approx(brute, abs=1e-12)
    assert np.isnan(diversity.diversity_nmi_topk_seed(np.ones((4, 3), bool)))  # k = E: constant
    assert np.isnan(diversity.diversity_nmi_topk_seed(np.zeros((0, 3), bool)))


def test_identical_profiles_have_no_diversity_h04():
    given_, expected = case("H04")
    found = diversity.diversity(np.array(given_["expert_by_type"]), floor=1)
    assert found.mean_pairwise_jsd == pytest.approx(expected["mean_pairwise_jsd"], abs=1e-9)
    assert found.mi_E_V_bits == pytest.approx(expected["mi_E_V_bits"], abs=1e-9)
    assert (found.n_pairs, list(found.unused)) == (expected["n_pairs"], expected["unused"])


@settings(max_examples=80, deadline=None)
@given(table=TABLES, order=st.randoms())
def test_divergence_is_the_mean_over_pairs_and_forgets_names(table, order):
    made = float(diversity_jsd(table))
    assert made == pytest.approx(slow_jsd(table), abs=1e-12, nan_ok=True)
    experts, types = (np.array(order.sample(range(n), n), int) for n in table.shape)
    assert float(diversity_jsd(table[experts][:, types])) == pytest.approx(made, abs=1e-12, nan_ok=True)
    information = float(mi_E_V(table))
    if table.sum():
        load = table.sum(axis=1) / table.sum()
        assert -1e-12 <= information <= -(load[load > 0] * np.log2(load[load > 0])).sum() + 1e-9


def test_disjoint_profiles_have_all_of_it_and_blocks_change_nothing(monkeypatch):
    table = np.kron(np.eye(5, dtype=int), [[3, 1]])
    assert diversity_jsd(table) == 1 and mi_E_V(table) == pytest.approx(np.log2(5))
    sparse = np.random.default_rng(0).poisson(0.2, (40, 300))
    whole = float(diversity_jsd(sparse))
    monkeypatch.setattr(diversity, "AT_ONCE", 100)
    assert float(diversity_jsd(sparse)) == pytest.approx(whole, abs=1e-13) and whole == pytest.approx(slow_jsd(sparse), abs=1e-12)


def test_counts_past_31_bits():
    table = np.random.default_rng(0).integers(1, 9, (3, 5))
    assert diversity_jsd(table * 2**33) == pytest.approx(float(diversity_jsd(table)), abs=1e-12)


def test_restriction_to_frequent_types_counts_occurrences():
    table = np.array([[20, 10, 30], [0, 9, 9]])
    assert diversity.frequent_types(table).tolist() == [0, 2] and diversity.frequent_types(table, k=2).tolist() == []
    found = diversity.diversity(table)
    assert found.n_types == 2 and found.share_kept == pytest.approx(59 / 78)
    assert diversity.diversity(table, k=2).reason.startswith("no_data") and diversity.diversity(table, k=2).mean_pairwise_jsd is None
    assert diversity.diversity(np.array([[40, 40]])).reason == "one expert is used"
    with pytest.raises(ValueError, match="one table"):
        diversity.diversity(np.array([3, 4]))


def tokens(n_documents=30, length=40, n_experts=4, n_types=12, *, by_type=False, k=1, seed=0):
    """Documents with topics: experts and types follow the topic; by_type: experts follow the type."""
    rng = np.random.default_rng(seed)
    document = np.repeat(np.arange(n_documents), length)
    topic = document % n_experts
    types = (rng.integers(0, n_types // n_experts, len(document)) + topic * (n_types // n_experts)) % n_types
    first = types % n_experts if by_type else np.where(rng.random(len(document)) < 0.7, topic, rng.integers(0, n_experts, len(document)))
    rest = [(first + 1 + rng.permuted(np.arange(n_experts - 1))[0]) % n_experts for _ in range(k - 1)]
    return TokenRows(document, types, np.stack([first, *rest], axis=1), (n_experts, n_types))


def test_topics_alone_leave_no_excess_and_types_leave_some():
    for by_type, low, high in ((False, -0.03, 0.03), (True, 0.2, 2.0)):
        rows = tokens(by_type=by_type)
        null = np.stack(list(shuffled_tables(rows, keys(30), 20)))
        assert diversity.mi_E_V(rows.table()) > 0.3
        assert low < diversity.mi_E_V_excess(rows.table(), null) < high
        assert (low < diversity.diversity_jsd_excess(rows.table(), null) < high)
        assert np.isnan(diversity.mi_E_V_excess(rows.table(), null[:0]))


def test_shuffles_keep_margins_add_up_over_documents_and_forget_their_order():
    rows = tokens(k=2)
    assert rows.table().sum() == 2 * len(rows.type)
    whole = list(shuffled_tables(rows, keys(30), 3))
    for table in whole:
        assert (table.sum(axis=1) == rows.table().sum(axis=1)).all() and (table.sum(axis=0) == rows.table().sum(axis=0)).all()
    parts = []
    for document in np.random.default_rng(1).permutation(30):
        chosen = rows.document == document
        part = TokenRows(rows.document[chosen], rows.type[chosen], rows.experts[chosen], rows.shape)
        parts.append(list(shuffled_tables(part, keys(30), 3)))
    assert (np.sum(parts, axis=0) == np.stack(whole)).all()
    again = list(shuffled_tables(rows, keys(30), 5))
    assert all((a == b).all() for a, b in zip(whole, again))


def test_dropped_slots_and_unwanted_types_count_in_no_table():
    rows = TokenRows(np.array([0, 0, 0]), np.array([0, 1, 7]), np.array([[0, 1], [1, -1], [0, 1]]), (2, 2))
    assert rows.table().tolist() == [[1, 0], [1, 1]]
    empty = TokenRows(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2), int), (2, 2))
    assert [t.sum() for t in shuffled_tables(empty, keys(1), 2)] == [0, 0]


@pytest.mark.parametrize(("document", "experts", "why"), [
    ([0, 1, 0], [[0], [1], [0]], "together"),
    ([0, 0, 0], [[0], [2], [0]], "expert 2 at token 1"), ([0, 0, 0], [[0], [-2], [0]], "expert -2 at token 1"),
    ([0, 0, 0], [[0, 1], [1, 1], [-1, -1]], "twice in the top-k of token 1"),
    ([0, 0], [[0], [1], [0]], "one row per token")])
def test_rows_that_are_none_are_refused_with_the_remedy(document, experts, why):
    with pytest.raises(ValueError, match=why):
        TokenRows(np.array(document), np.array([0, 1, 1]), np.array(experts), (2, 2))


def test_the_jackknife_takes_the_chance_difference_of_sparse_profiles_back():
    """Experts of one law over documents of independent tokens: the plug-in is far above 0, the corrected value near it."""
    rng = np.random.default_rng(0)
    tables = rng.poisson(0.15, (60, 6, 40))
    found = estimates("mi_E_V", Groups((tables,), 60))[()]
    assert found.plug_in > 0.05 and abs(found.value) < 0.02 and found.low < 0 < found.high
    divergence = estimates("diversity_jsd", Groups((tables,), 60))[()]
    assert divergence.value < divergence.plug_in / 4
    assert mutual_information_bits(tables.sum(axis=0)) == pytest.approx(found.plug_in)


def test_tables_of_narrow_ids_are_those_of_64_bits():
    rng = np.random.default_rng(9)
    experts, types = np.argsort(rng.random((40, 100)), axis=1)[:, :3], rng.integers(0, 300, 40)
    wide, narrow = (TokenRows(np.zeros(40, int), types, ids, (100, 300)) for ids in (experts, experts.astype(np.uint8)))
    assert (wide.table() == narrow.table()).all()
    keys_D = np.arange(1, dtype=np.uint64)
    assert all((a == b).all() for a, b in zip(shuffled_tables(wide, keys_D, 3), shuffled_tables(narrow, keys_D, 3)))
