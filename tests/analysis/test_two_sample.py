import numpy as np
import pytest

from analysis.estimation import Groups, jackknife
from analysis.metrics.transfer import choose_smoothing, transfer_info
from analysis.resampling import t_quantile
from analysis.two_sample import two_sample_estimates, two_sample_interval, two_sample_jackknife


def means(a, b):
    return a[..., 0] / a[..., 1] - b[..., 0] / b[..., 1]


def documents(values):
    return Groups((np.stack([values, np.ones(len(values))], axis=1),), len(values))


def test_a_difference_of_means_gets_the_textbook_interval():
    rng = np.random.default_rng(0)
    x, y = rng.normal(2, 1, 40), rng.normal(1, 3, 25)
    made = two_sample_jackknife(documents(x), documents(y), means)
    se = (x.var(ddof=1) / 40 + y.var(ddof=1) / 25) ** 0.5
    assert (made.value, made.se) == pytest.approx((x.mean() - y.mean(), se), abs=1e-12)
    assert made.high - made.low == pytest.approx(2 * t_quantile(0.95, 63) * se)


def test_it_is_the_stratified_jackknife_of_both_samples_together():
    rng = np.random.default_rng(1)
    a, b = rng.poisson(3.0, (7, 4, 4)), rng.poisson(3.0, (12, 4, 4))
    made = two_sample_jackknife(Groups((a,), 7), Groups((b,), 12), transfer_info, at_once=40)
    joined = Groups((np.concatenate([a, 0 * b]), np.concatenate([0 * a, b])), 19, np.array([0] * 7 + [1] * 12))
    twin = jackknife(joined, transfer_info)
    for name in ("value", "plug_in", "se", "low", "high"):
        assert getattr(made, name) == pytest.approx(getattr(twin, name), abs=1e-10)


def test_the_order_of_groups_changes_nothing():
    rng = np.random.default_rng(2)
    a, b = rng.poisson(3.0, (9, 4, 4)), rng.poisson(3.0, (8, 4, 4))
    first = two_sample_jackknife(Groups((a,), 9), Groups((b,), 8), transfer_info)
    second = two_sample_jackknife(Groups((a[::-1],), 9), Groups((rng.permutation(b),), 8), transfer_info)
    assert np.array([first.value, first.se]) == pytest.approx(np.array([second.value, second.se]), abs=1e-12)


def test_one_document_has_a_value_and_no_interval():
    rng = np.random.default_rng(3)
    one, more = Groups((rng.poisson(9.0, (1, 3, 3)),), 1), Groups((rng.poisson(9.0, (30, 3, 3)),), 30)
    for pair in ((one, more), (more, one)):
        made = two_sample_estimates("transfer_info", *pair).item()
        assert made.low is None and made.value == made.plug_in and made.gate.startswith("one_document_per_domain")
        with pytest.raises(ValueError, match="at least two in each domain"):
            two_sample_jackknife(*pair, transfer_info)
    with pytest.raises(ValueError, match="one document"):
        two_sample_interval(np.float64(0), np.zeros(1), np.zeros(5))


def test_an_empty_domain_is_undefined_with_its_reason():
    empty, full = Groups((np.zeros((5, 3, 3), int),), 5), Groups((np.ones((5, 3, 3), int),), 5)
    made = two_sample_estimates("transfer_info", empty, full).item()
    assert made.value is None and made.reason.startswith("no_data")


def test_tokens_are_never_left_out_one_at_a_time():
    table = np.ones((5, 3, 3))
    with pytest.raises(ValueError, match="token"):
        two_sample_jackknife(Groups((table,), 5), Groups((table,), 5, unit="token"), transfer_info)


def test_transfer_is_covered_and_too_low_without_correction():
    """Documents of mixed topics, E = 8, N = 30 E^2: a short form of the calibration of transfer_info."""
    n_experts, n_documents, n_tokens, runs = 8, 60, 32, 250
    rng = np.random.default_rng(7)
    shared = rng.dirichlet(np.full(n_experts, 0.3), size=(3, n_experts))
    joints = [0.7 * shared + 0.3 * rng.dirichlet(np.full(n_experts, 0.3), size=(3, n_experts)) for _ in "ab"]
    topics = [joint * rng.dirichlet(np.ones(n_experts), size=3)[:, :, None] for joint in joints]
    truth = float(transfer_info(topics[0].mean(axis=0), topics[1].mean(axis=0), None))
    inside, plug_in, corrected = [], [], []
    for _ in range(runs):
        tables = []
        for topic in topics:
            shares = rng.dirichlet(np.full(3, 0.5), size=n_documents)
            laws = np.einsum("dk,kxy->dxy", shares, topic).reshape(n_documents, -1)
            tables.append(rng.multinomial(n_tokens, laws / laws.sum(axis=1, keepdims=True)).reshape(n_documents, n_experts, n_experts))
        smoothing = choose_smoothing(tables[0])
        made = two_sample_jackknife(*(Groups((table,), n_documents) for table in tables), lambda a, b, s=smoothing: transfer_info(a, b, s))
        inside.append(made.low <= truth <= made.high)
        plug_in.append(made.plug_in)
        corrected.append(made.value)
    assert 0.90 <= np.mean(inside) <= 0.99
    error = np.std(plug_in) / runs**0.5
    assert np.mean(plug_in) < truth - 8 * error
    assert abs(np.mean(corrected) - truth) < 4 * np.std(corrected) / runs**0.5 + 0.005
