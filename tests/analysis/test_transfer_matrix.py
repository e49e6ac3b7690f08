import numpy as np
import pytest

from analysis.estimation import Groups, estimates
from analysis.metrics.transfer import choose_smoothing, transfer_info
from analysis.transfer_matrix import AT_ONCE, DomainJoints, matched_groups, ratio_estimate, transfer_matrix
from analysis.two_sample import two_sample_estimates, two_sample_jackknife


def world(rng, sizes, shapes=((4, 4), (4, 6)), tokens=80, spread=0.4):
    """Domains with half of their transitions in common; groups are documents."""
    laws = [rng.dirichlet(np.full(shape[1], 0.3), size=shape[0]) / shape[0] for shape in shapes]
    domains = []
    for number, size in enumerate(sizes):
        own = [(1 - spread) * law + spread * rng.dirichlet(np.full(law.shape[1], 0.3), size=len(law)) / len(law) for law in laws]
        tables = [rng.multinomial(tokens, law.reshape(-1) / law.sum(), size=size).reshape(size, *law.shape) for law in own]
        domains.append(DomainJoints("abc"[number], tables, size))
    return domains


def same(one, other):
    numbers = [[e.value, e.low, e.high, e.plug_in, e.se] for e in (one, other)]
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-10)


def test_every_cell_is_the_two_sample_jackknife_of_its_pair():
    domains = world(np.random.default_rng(0), (30, 25, 40))
    made = transfer_matrix(domains)
    assert made.names == ("a", "b", "c") and made.by_pair.shape == (3, 3, 2) and made.mean.shape == (3, 3)
    for a, source in enumerate(domains):
        for pair, joint in enumerate(source.joints_P):
            b = choose_smoothing(joint)
            assert made.smoothing[a, pair] == b
            for t, target in enumerate(domains):
                if t != a:
                    groups = Groups((joint,), source.n_documents), Groups((target.joints_P[pair],), target.n_documents)
                    twin = two_sample_estimates("transfer_info", *groups, value=lambda x, y, b=b: transfer_info(x, y, b))
                    same(made.by_pair[a, t, pair], twin.item())


def test_the_mean_over_layers_is_jackknifed_as_one_number():
    a, b = world(np.random.default_rng(1), (30, 30))
    made = transfer_matrix([a, b], smoothing=2.0).mean[0, 1]

    def mean(x1, x2, y1, y2):
        return (transfer_info(x1, y1, 2.0) + transfer_info(x2, y2, 2.0)) / 2

    twin = two_sample_jackknife(*(Groups(tuple(d.joints_P), d.n_documents) for d in (a, b)), mean)
    assert [made.value, made.low, made.high] == pytest.approx([float(twin.value), float(twin.low), float(twin.high)], abs=1e-10)


def test_the_diagonal_is_the_domains_own_information():
    (a,) = world(np.random.default_rng(2), (35,))
    made = transfer_matrix([a])
    for pair, joint in enumerate(a.joints_P):
        same(made.by_pair[0, 0, pair], estimates("mi_first_choice", Groups((joint,), 35)).item())
    assert made.mean[0, 0].value == pytest.approx(np.mean([one.value for one in made.by_pair[0, 0]]))


def test_sources_too_small_for_their_cells_are_gated_and_keep_their_number():
    a, b = world(np.random.default_rng(3), (25, 25), tokens=4)
    made = transfer_matrix([a, b])
    assert made.by_pair[0, 1, 0].gate.startswith("undersampled: 100 tokens") and made.by_pair[0, 1, 0].value is not None
    assert made.mean[0, 1].gate.startswith("undersampled")
    few = transfer_matrix(world(np.random.default_rng(3), (25, 12)))
    assert few.by_pair[0, 1, 0].gate.startswith("too_few_documents: 12")
    assert transfer_matrix(world(np.random.default_rng(3), (25, 25))).mean[0, 1].gate is None


def test_a_domain_missing_at_one_layer_is_undefined_there_and_in_the_mean():
    a, b = world(np.random.default_rng(4), (25, 25))
    a = DomainJoints("a", [a.joints_P[0], np.zeros_like(a.joints_P[1])], 25)
    made = transfer_matrix([a, b])
    for cell in (made.by_pair[0, 1], made.by_pair[1, 0]):
        assert cell[0].value is not None and cell[1].value is None and cell[1].reason.startswith("no_data")
    assert made.mean[0, 1].reason == "no_data: undefined at layer pairs [1]" and made.mean[0, 0].value is None


def test_one_document_chooses_no_smoothing():
    a, b = world(np.random.default_rng(5), (1, 25))
    made = transfer_matrix([a, b])
    assert made.by_pair[0, 1, 0].reason.startswith("one_document_per_domain: smoothing cannot be chosen")
    assert made.by_pair[1, 0, 0].value is not None and made.by_pair[1, 0, 0].low is None
    assert made.by_pair[1, 0, 0].gate.startswith("one_document_per_domain")
    assert transfer_matrix([a, b], smoothing=1.0).by_pair[0, 1, 0].value is not None


def test_neither_document_order_nor_chunks_matter(monkeypatch):
    a, b = world(np.random.default_rng(6), (30, 30))
    first = transfer_matrix([a, b], smoothing=1.0).by_pair[0, 1, 0]
    turned = [DomainJoints(d.name, [joint[::-1] for joint in d.joints_P], d.n_documents) for d in (a, b)]
    same(first, transfer_matrix(turned, smoothing=1.0).by_pair[0, 1, 0])
    assert AT_ONCE > 16
    monkeypatch.setattr("analysis.transfer_matrix.AT_ONCE", 16)
    same(first, transfer_matrix([a, b], smoothing=1.0).by_pair[0, 1, 0])


def test_tables_of_two_models_are_refused():
    a, b = world(np.random.default_rng(7), (5, 5))
    with pytest.raises(ValueError, match="same model"):
        transfer_matrix([a, DomainJoints("b", b.joints_P[:1], 5)])
    with pytest.raises(ValueError, match="same groups"):
        transfer_matrix([DomainJoints("a", [a.joints_P[0], a.joints_P[1][:3]], 5)])
    with pytest.raises(ValueError, match="two MoE layers"):
        transfer_matrix([DomainJoints("a", [], 5)])


def test_groups_are_cut_to_the_nearest_size():
    assert matched_groups(np.array([10, 10, 10, 10]), 21).tolist() == [True, True, False, False]
    assert matched_groups(np.array([10, 10]), 0).tolist() == [True, False]
    assert matched_groups(np.array([10, 10]), 99).tolist() == [True, True]


def test_the_ratio_is_one_where_domains_agree():
    values = []
    for seed in range(40):
        made = ratio_estimate(*world(np.random.default_rng(seed), (60, 60), tokens=60, spread=0.0))
        assert made.low <= made.value <= made.high and made.gate is None
        values.append(made.value)
    assert np.mean(values) == pytest.approx(1.0, abs=4 * np.std(values) / 40**0.5 + 0.005)
    agreeing, other = (ratio_estimate(*world(np.random.default_rng(0), (60, 90), spread=spread)) for spread in (0.0, 0.9))
    assert agreeing.value > other.high


def test_the_ratio_needs_a_target_that_predicts_itself():
    rng = np.random.default_rng(9)
    flat = [DomainJoints(name, [rng.multinomial(60, np.full(16, 1 / 16), size=40).reshape(40, 4, 4)], 40) for name in "ab"]
    made = ratio_estimate(*flat)
    assert made.value is None and "does not exclude 0" in made.reason
    a, b = world(rng, (3, 40))
    assert ratio_estimate(a, b).reason.startswith("one_document_per_domain")
    empty = DomainJoints("e", [np.zeros((40, 4, 4), int), np.zeros((40, 4, 6), int)], 40)
    assert ratio_estimate(b, empty).reason.startswith("no_data") and ratio_estimate(empty, b).reason.startswith("no_data")


def test_a_domain_without_documents_is_undefined_and_does_not_stop_the_others():
    a, b, c = world(np.random.default_rng(3), (30, 30, 30))
    none = DomainJoints("none", [joint[:0] for joint in a.joints_P], 0)
    made = transfer_matrix([a, none, b])
    assert made.mean[0, 2].value is not None
    for source, target in ((0, 1), (1, 0), (1, 2)):
        assert made.mean[source, target].value is None and made.mean[source, target].reason.startswith("no_data")
    assert made.mean[1, 1].value is None and made.overall.value is None
