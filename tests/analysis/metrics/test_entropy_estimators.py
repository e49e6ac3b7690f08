import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma
from scipy.stats import entropy as scipy_entropy

from analysis.metrics import entropy_estimators as ee
from tests.references.cases import case

NAMES = ("plugin", "miller_madow", "grassberger_G", "grassberger_1988", "chao_shen", "jackknife_token")
COUNTS = st.lists(st.integers(0, 60), min_size=1, max_size=12).filter(lambda n: sum(n) > 1)
TABLES = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).poisson(2.0, (4, 5)) + np.eye(4, 5, dtype=int))


@pytest.mark.parametrize("name", ["A01", "A03"])
def test_reference_estimators(name):
    given_, expected = case(name)
    for estimator, value in expected.items():
        assert ee.entropy(given_["counts"], estimator) == pytest.approx(value, abs=1e-9), estimator


def test_reference_one_symbol_a05():
    given_, expected = case("A05")
    assert ee.plug_in(given_["counts"]) == expected["plugin"]
    assert ee.miller_madow(given_["counts"]) == expected["miller_madow"]
    assert math.isnan(ee.normalised(given_["counts"]))
    assert ee.perplexity(given_["counts"]) == expected["perplexity"]


def test_reference_probabilities_a09():
    given_, expected = case("A09")
    p = given_["probabilities"]
    assert ee.plug_in(p) == pytest.approx(expected["entropy"], abs=1e-9)
    assert ee.normalised(p) == pytest.approx(expected["normalised"], abs=1e-9)
    assert ee.perplexity(p) == pytest.approx(expected["perplexity"], abs=1e-9)
    assert ee.simpson(p) == pytest.approx(expected["simpson"], abs=1e-9)


def test_reference_loads_a11():
    given_, expected = case("A11")
    n = np.asarray(given_["counts"])
    assert ee.renyi2(n) == pytest.approx(expected["renyi2_bits"], abs=1e-9)
    assert ee.miller_madow(n) == pytest.approx(expected["load_entropy_mm_bits"], abs=1e-9)
    assert len(n) * 2 ** -ee.renyi2(n) - 1 == pytest.approx(expected["cv_sq"], abs=1e-9)


def grassberger_by_series(n):
    """G of Grassberger (2003), eq. 36-37: G(n) = psi(n) + (-1)^n sum over l of 2 / ((n+2l)(n+2l+1)) / 2, by its recursion."""
    g = [math.nan, -np.euler_gamma - math.log(2), 2 - np.euler_gamma - math.log(2)]
    for m in range(3, n + 1):
        g.append(g[-1] if m % 2 else g[m - 1] + 2 / (m - 1))
    return g[n]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9, 10, 51])
def test_grassberger_agrees_with_the_recursion_of_the_paper(n):
    # G(1) = -gamma - ln 2, G(2) = 2 - gamma - ln 2, G(2n+1) = G(2n), G(2n+2) = G(2n) + 2 / (2n+1)
    assert math.log(2 * n) - grassberger_by_series(n) == pytest.approx(ee.grassberger([n, n], base=math.e), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(COUNTS)
def test_the_token_jackknife_is_leaving_out_each_token(n):
    def plug_in(m):
        return scipy_entropy([c for c in m if c])

    total = sum(n)
    left_out = sum(c * plug_in([m - (i == j) for j, m in enumerate(n)]) for i, c in enumerate(n) if c) / total
    assert ee.token_jackknife(n, base=math.e) == pytest.approx(total * plug_in(n) - (total - 1) * left_out, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(COUNTS)
def test_estimators_against_plain_loops(n):
    seen, total = [c for c in n if c], sum(n)
    once = seen.count(1) - (seen.count(1) == total)
    shares = [(1 - once / total) * c / total for c in seen]
    twins = {
        "plugin": -sum(c / total * math.log(c / total) for c in seen),
        "miller_madow": -sum(c / total * math.log(c / total) for c in seen) + (len(seen) - 1) / (2 * total),
        "grassberger_1988": sum(c / total * (math.log(total) - digamma(c) - (-1) ** c / (c + 1)) for c in seen),
        "chao_shen": -sum(q * math.log(q) / (1 - (1 - q) ** total) for q in shares if q > 0),
    }
    for name, value in twins.items():
        assert ee.entropy(n, name, base=math.e) == pytest.approx(value, abs=1e-10), name


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.randoms(use_true_random=False))
def test_bounds_relabelling_and_empty_symbols(n, random):
    shuffled = random.sample(n, len(n)) + [0, 0]
    for name in NAMES:
        assert ee.entropy(shuffled, name) == pytest.approx(float(ee.entropy(n, name)), abs=1e-10)
    support = np.count_nonzero(n)
    assert ee.renyi2(n) >= -1e-12 and ee.renyi2(n) <= ee.plug_in(n) + 1e-12 <= math.log2(support) + 1e-9
    assert ee.plug_in(n) <= ee.miller_madow(n) + 1e-12
    assert 1 / support - 1e-12 <= ee.simpson(n) <= 1 + 1e-12
    assert 1 - 1e-12 <= ee.perplexity(n) <= support + 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_members(name):
    n = np.random.default_rng(0).poisson(1.5, (3, 4, 6)) + np.eye(4, 6, dtype=int) * 2
    together = ee.entropy(n, name)
    assert together.shape == (3, 4)
    for place in product(range(3), range(4)):
        assert together[place] == pytest.approx(float(ee.entropy(n[place], name)), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(COUNTS)
def test_repeating_every_document_leaves_the_plug_in(n):
    assert ee.plug_in(np.asarray(n) * 7) == pytest.approx(float(ee.plug_in(n)), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_counts_beyond_32_bits_approach_the_plug_in(name):
    n = np.array([2**31 + 5, 3 * 2**32, 7 * 2**33, 2**40])
    assert ee.entropy(n, name) == pytest.approx(float(ee.plug_in(n / n.sum())), abs=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_no_counts_are_undefined(name):
    with np.errstate(all="raise"):
        assert np.isnan(ee.entropy(np.zeros((2, 5)), name)).all()
        assert np.isnan(ee.entropy(np.zeros((2, 0)), name)).all()
    for index in (ee.renyi2, ee.simpson, ee.perplexity, ee.normalised):
        assert np.isnan(index(np.zeros((2, 5)))).all()


def test_one_token_says_nothing_by_the_jackknife_and_zero_by_the_plug_in():
    assert math.isnan(ee.token_jackknife([1])) and ee.plug_in([1]) == ee.miller_madow([1]) == ee.chao_shen([1]) == 0.0


@pytest.mark.parametrize("counts", [[1, -1], [1, math.nan], [math.inf, 1]])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match="how often"):
        ee.plug_in(counts)


def test_shares_are_for_the_plug_in_only():
    for name in set(NAMES) - {"plugin"}:
        with pytest.raises(ValueError, match="whole counts"):
            ee.entropy([0.5, 0.25, 0.25], name)
    assert ee.entropy([0.5, 0.25, 0.25]) == 1.5


def test_bad_names_bases_and_shapes_are_named():
    with pytest.raises(ValueError, match="grassberger_G"):
        ee.entropy([1, 2], "grassberger")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="base"):
        ee.entropy([1, 2], base=1.0)
    with pytest.raises(ValueError, match="axis"):
        ee.mutual_information([1, 2])
    with pytest.raises(ValueError, match="axis"):
        ee.entropy(3)
    with pytest.raises(ValueError, match="n_symbols"):
        ee.normalised([1, 2], 0)


def test_chao_shen_is_refused_for_mutual_information_unless_for_diagnosis():
    table = [[3, 1], [1, 4]]
    with pytest.raises(ValueError, match="changes sign"):
        ee.mutual_information(table, "chao_shen")
    terms = [ee.chao_shen(np.sum(table, axis=1)), ee.chao_shen(np.sum(table, axis=0)), -ee.chao_shen(np.ravel(table))]
    assert ee.mutual_information(table, "chao_shen", diagnostic=True) == pytest.approx(sum(terms))


@settings(max_examples=40, deadline=None)
@given(TABLES, st.integers(0, 1000))
def test_mutual_information_is_symmetric_and_blind_to_labels(table, seed):
    rng = np.random.default_rng(seed)
    relabelled = table[rng.permutation(4)][:, rng.permutation(5)]
    for name in NAMES:
        value = float(ee.mutual_information(table, name, diagnostic=True))
        assert ee.mutual_information(table.T, name, diagnostic=True) == pytest.approx(value, abs=1e-10)
        assert ee.mutual_information(relabelled, name, diagnostic=True) == pytest.approx(value, abs=1e-10)
        x, y, xy = (ee.entropy(part, name) for part in (table.sum(1), table.sum(0), table.ravel()))
        assert value == pytest.approx(float(x + y - xy), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(COUNTS)
def test_a_variable_tells_itself_all_of_its_entropy_by_every_estimator(n):
    for name in NAMES:
        assert ee.mutual_information(np.diag(n), name, diagnostic=True) == pytest.approx(float(ee.entropy(n, name)), abs=1e-10)


def test_corrected_information_is_not_clipped():
    assert ee.mutual_information([[10, 9], [9, 10]], "miller_madow") < 0


def test_bias_at_independence_s04():
    """A few of the published runs: mean plug-in and Grassberger information of independent layers with 128 experts."""
    given_, expected = case("S04")
    share = np.arange(1, 129) ** -0.5
    share /= share.sum()
    rng = np.random.default_rng(0)
    for n, plug_in, corrected in list(zip(given_["n"], expected["plugin_mean_bits"], expected["grassberger_mean_bits"]))[:3]:
        tables = rng.multinomial(n, np.outer(share, share).ravel(), size=8).reshape(8, 128, 128)
        assert ee.mutual_information(tables).mean() == pytest.approx(plug_in, abs=expected["abs_tol"])
        assert ee.mutual_information(tables, "grassberger_G").mean() == pytest.approx(corrected, abs=expected["abs_tol"])
