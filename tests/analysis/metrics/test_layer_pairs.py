import numpy as np
import pytest

from analysis.estimation import Groups, estimates, jackknife
from analysis.left_out import leave_out, stack
from analysis.metrics import information as mi
from analysis.metrics.entropy_estimators import mutual_information
from analysis.metrics.layer_pairs import LayerPair, cross_layer_estimates


def tables(rng, n_groups=40, shape=(4, 5), rate=8.0):
    lean = rng.dirichlet(np.ones(shape[0] * shape[1])).reshape(shape) * shape[0] * shape[1]
    return rng.poisson(rate * lean, (n_groups, *shape))


def all_pairs(seed, n_layers=4, n_groups=40, **options):
    rng = np.random.default_rng(seed)
    return [LayerPair(a, b, Groups((tables(rng, n_groups, **options),), n_groups), 0.0) for a in range(n_layers) for b in range(a + 1, n_layers)]


def test_each_pair_is_estimated_as_alone():
    pairs = all_pairs(0)
    found = cross_layer_estimates(pairs)
    for pair, one in zip(pairs, found.pairs):
        alone = estimates("mi_first_choice", pair.groups)[()]
        for field in ("value", "low", "high", "plug_in", "se"):
            assert getattr(one.estimate, field) == pytest.approx(getattr(alone, field), abs=1e-12)
        assert one.grassberger == pytest.approx(float(mutual_information(pair.groups.totals[0], "grassberger_G")), abs=1e-12)
        assert (one.first, one.second) == (pair.first, pair.second)


def test_an_aggregate_is_jackknifed_as_a_whole():
    pairs = all_pairs(1)
    found = cross_layer_estimates(pairs)
    every = Groups(tuple(pair.groups.tables[0] for pair in pairs), 40)
    places = [(pair.first, pair.second) for pair in pairs]

    def mean_over(chosen):
        return jackknife(every, lambda *t: np.mean([mi.mi_first_choice(t[number]) for number in chosen], axis=0))

    members = {
        "adjacent": ([i for i, (a, b) in enumerate(places) if b - a == 1], found.mean_adjacent),
        "distance": ([i for i, (a, b) in enumerate(places) if b - a == 2], found.by_distance[2]),
        "layer": ([i for i, place in enumerate(places) if 2 in place], found.by_layer[2]),
    }
    for chosen, estimate in members.values():
        twin = mean_over(chosen)
        assert estimate.value == pytest.approx(float(twin.value), abs=1e-12)
        assert (estimate.low, estimate.high) == pytest.approx((float(twin.low), float(twin.high)), abs=1e-12)
    assert found.by_distance[3].value == pytest.approx(found.pairs[places.index((0, 3))].estimate.value, abs=1e-12)
    assert sorted(found.by_distance) == [1, 2, 3] and sorted(found.by_layer) == [0, 1, 2, 3]


def test_shared_documents_widen_the_interval_of_a_mean_of_equal_pairs():
    """Two layer pairs with the same tokens carry one pair's information: the mean has the interval of one, not one over root two."""
    shared = Groups((tables(np.random.default_rng(2)),), 40)
    found = cross_layer_estimates([LayerPair(0, 1, shared), LayerPair(1, 2, shared)])
    assert found.mean_adjacent.half_width == pytest.approx(found.pairs[0].estimate.half_width, abs=1e-12)


def test_strata_add():
    rng = np.random.default_rng(3)
    groups = Groups((tables(rng),), 40, np.arange(40) // 20)
    found = cross_layer_estimates([LayerPair(0, 1, groups)])
    alone = estimates("mi_first_choice", groups)[()]
    assert (found.mean_adjacent.low, found.mean_adjacent.high) == pytest.approx((alone.low, alone.high), abs=1e-12)


def test_the_diagonal_is_entropy_or_nothing_and_symmetric_forms_fill_both_halves():
    found = cross_layer_estimates(all_pairs(4, n_layers=3))
    matrix = found.matrix(3)
    assert np.isnan(np.diag(matrix)).all()
    assert (matrix == matrix.T)[~np.eye(3, dtype=bool)].all()
    assert np.diag(found.matrix(3, [1.0, 1.5, 2.0])).tolist() == [1.0, 1.5, 2.0]
    assert np.isnan(found.matrix(4)[3]).all()


def test_a_directed_share_is_not_mirrored():
    pairs = all_pairs(5, n_layers=3)
    back = [LayerPair(p.second, p.first, Groups((np.swapaxes(p.groups.tables[0], 1, 2),), 40)) for p in pairs]
    one_way = cross_layer_estimates(pairs, "u")
    assert np.isnan(one_way.matrix(3)[np.tril_indices(3)]).all()
    assert one_way.by_layer[1].value is None and "not every pair" in one_way.by_layer[1].reason
    both = cross_layer_estimates(pairs + back, "u")
    assert both.matrix(3)[1, 0] != pytest.approx(both.matrix(3)[0, 1], abs=1e-6)
    assert both.by_layer[1].value == pytest.approx((both.matrix(3)[0, 1] + both.matrix(3)[2, 1]) / 2, abs=1e-12)
    assert both.mean_adjacent.value == pytest.approx((both.matrix(3)[0, 1] + both.matrix(3)[1, 2]) / 2, abs=1e-12)
    assert both.pairs[0].grassberger is None


def test_a_layer_mean_needs_every_pair_of_its_stack():
    pairs = all_pairs(6, n_layers=3)
    chain = cross_layer_estimates([p for p in pairs if p.second - p.first == 1])
    assert all(estimate.value is None and estimate.reason.startswith("no_data") for estimate in chain.by_layer.values())
    assert chain.mean_adjacent.value is not None
    far = cross_layer_estimates([p for p in pairs if p.second - p.first == 2])
    assert far.mean_adjacent.value is None and "adjacent" in far.mean_adjacent.reason
    stacks = cross_layer_estimates([*pairs, LayerPair(7, 8, pairs[0].groups)])  # an encoder beside a decoder
    assert stacks.by_layer[8].value == pytest.approx(stacks.pairs[-1].estimate.value) and stacks.by_layer[0].value is not None


@pytest.mark.parametrize(("n", "gated"), [(159, True), (160, False)])
def test_five_tokens_per_pair_of_active_experts(n, gated):
    """N >= 5 Kx Ky counts active experts: 4 of 6 and 8 of 9 here, so 160 tokens (metrics specification 3.2)."""
    table = np.zeros((32, 6, 9), int)
    for token in range(n):
        table[token % 32, token % 4, (token // 4) % 8] += 1
    found = cross_layer_estimates([LayerPair(0, 1, Groups((table,), 32))]).pairs[0].estimate
    assert (found.gate or "").startswith("undersampled") is gated
    assert found.value is not None


def test_gates_leave_the_number_and_reach_the_aggregate():
    good = all_pairs(7, n_layers=3, rate=40.0)
    assert cross_layer_estimates(good).mean_adjacent.gate is None
    few = [LayerPair(p.first, p.second, Groups((p.groups.tables[0][:29],), 29)) for p in good]
    assert cross_layer_estimates(few).mean_adjacent.gate.startswith("too_few_documents")
    dropped = [LayerPair(p.first, p.second, p.groups, 0.051 if p.first == 0 and p.second == 1 else 0.02) for p in good]
    found = cross_layer_estimates(dropped)
    assert found.pairs[0].estimate.gate.startswith("selection_biased") and found.mean_adjacent.gate.endswith("(layers 0 and 1)")
    assert found.pairs[1].estimate.gate is None and found.pairs[1].warning.startswith("2.0%")
    assert found.by_distance[2].gate is None
    assert cross_layer_estimates(good).mean_adjacent.value == found.mean_adjacent.value


def test_a_large_correction_is_bias_sensitive():
    rng = np.random.default_rng(8)
    table = rng.poisson(0.14, (40, 20, 20))  # about 2,240 tokens for 400 cells: past the gate, by little
    estimate = cross_layer_estimates([LayerPair(0, 1, Groups((table,), 40))]).pairs[0].estimate
    assert table.sum() >= 2000 and estimate.plug_in - estimate.value < 0.2 and estimate.gate is None
    clustered = table * 6  # every token six times in its document: six times less is known
    clustered_estimate = cross_layer_estimates([LayerPair(0, 1, Groups((clustered,), 40))]).pairs[0].estimate
    assert clustered_estimate.gate.startswith("bias_sensitive")


def test_corrected_information_of_independent_layers_is_centred_on_zero_and_may_be_negative():
    rng = np.random.default_rng(9)
    values = [cross_layer_estimates([LayerPair(0, 1, Groups((rng.poisson(2.0, (40, 6, 6)),), 40))]).mean_adjacent for _ in range(60)]
    assert min(v.value for v in values) < 0 < min(v.plug_in for v in values)
    assert abs(np.mean([v.value for v in values])) < 4 * np.std([v.value for v in values]) / np.sqrt(60)


def test_a_pair_without_tokens_is_undefined_and_so_is_its_mean():
    good = all_pairs(10, n_layers=3)
    empty = LayerPair(0, 1, Groups((np.zeros((40, 4, 5), int),), 40))
    found = cross_layer_estimates([empty, *good[1:]])
    assert found.pairs[0].estimate.reason.startswith("no_data") and found.pairs[0].grassberger is None
    assert found.mean_adjacent.value is None and found.by_distance[2].value is not None


def test_one_document_has_no_interval():
    found = cross_layer_estimates([LayerPair(0, 1, Groups((tables(np.random.default_rng(0), 1),), 1))])
    assert found.mean_adjacent.low is None and found.mean_adjacent.gate.startswith("too_few_documents")


def test_slot_average_tables_have_no_second_estimator():
    pairs = [LayerPair(p.first, p.second, Groups((p.groups.tables[0] / 4,), 40)) for p in all_pairs(11)]
    assert {one.grassberger for one in cross_layer_estimates(pairs, "mi_slot_average").pairs} == {None}


def test_bad_pairs_are_named():
    good = all_pairs(12, n_layers=3)
    with pytest.raises(ValueError, match="two layers"):
        cross_layer_estimates([LayerPair(1, 1, good[0].groups)])
    with pytest.raises(ValueError, match="given once"):
        cross_layer_estimates([*good, LayerPair(1, 0, good[0].groups)])
    with pytest.raises(ValueError, match="two MoE layers"):
        cross_layer_estimates([])
    with pytest.raises(ValueError, match="same groups"):
        cross_layer_estimates([good[0], LayerPair(0, 2, Groups((good[1].groups.tables[0][:30],), 30))])
    with pytest.raises(ValueError, match="indicators_XY"):
        cross_layer_estimates(good, "mi_per_expert")
    with pytest.raises(ValueError, match="tokens"):
        cross_layer_estimates([LayerPair(0, 1, Groups(good[0].groups.tables, 40, unit="token"))])


def test_replicates_agree_however_many_tables_are_made_at_a_time():
    groups = Groups((tables(np.random.default_rng(13)),), 40)
    a, b = (leave_out(groups, mi.mi_first_choice, at_once=size) for size in (1, 10**9))
    assert (a.left_out == b.left_out).all() and a.left_out.shape == (40,)
    assert stack([a, b]).mean([[0, 1], []]).left_out.shape == (40, 2)
    with pytest.raises(ValueError, match="no group"):
        leave_out(Groups((np.zeros((0, 2, 2)),), 0), mi.mi_first_choice).estimates("mi_first_choice")
    with pytest.raises(ValueError, match="nothing to stack"):
        stack([])
