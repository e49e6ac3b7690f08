import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.arithmetic import mutual_information_bits
from analysis.shuffles import ShufflePlan, arrange, shuffle_updates, shuffle_within, shuffled_information, without_alone
from tests.analysis.planted import documents, keys_of, reordered

WITHIN = [(), ("token_type",), ("token_type", "band"), ("document",), ("token_type", "band", "document")]


def world(seed=0, n_documents=25, n_types=6, experts=(4, 3)):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 60, n_documents)
    v = rng.integers(0, n_types, lengths.sum())
    x = np.where(rng.random(len(v)) < 0.7, v % experts[0], rng.integers(0, experts[0], len(v)))
    y = np.where(rng.random(len(v)) < 0.7, v % experts[1], rng.integers(-1, experts[1], len(v)))
    return documents(rng, [x, y], experts, lengths, token_id=v, group=rng.permutation(n_documents) % 4)


def strata_of(given, within):
    columns = {"token_type": given.token_id, "document": given.document,
               "band": np.searchsorted([0, 1, 4, 16, 64], given.position, side="right")}
    return np.stack([columns[name] for name in within]) if within else np.zeros((1, len(given.token_id)))


@pytest.mark.parametrize("within", WITHIN)
@pytest.mark.parametrize("cyclic", [False, True])
def test_a_shuffle_stays_in_its_strata_and_moves_every_row_once(within, cyclic):
    given, strata, _ = without_alone(world(), within, 0)
    labels = strata_of(given, within)
    source = strata.source(3, cyclic, "numpy")
    assert (np.sort(source) == np.arange(len(source))).all() and (labels[:, source] == labels).all()
    assert not cyclic or (source != np.arange(len(source))).all()
    np.testing.assert_array_equal(source, strata.source(3, cyclic, "numba"))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=10), st.booleans(), st.integers(0, 2**60))
@settings(max_examples=40, deadline=None)
def test_twins_shuffle_alike(lengths, cyclic, seed):
    lengths = np.array(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    keys = keys_of(len(lengths), str(seed))
    places = shuffle_within(starts, lengths, keys, cyclic, "numpy")
    np.testing.assert_array_equal(places, shuffle_within(starts, lengths, keys, cyclic, "numba"))
    if cyclic:
        for first, length in zip(starts, lengths):
            seen, here = set(), first
            while here not in seen:
                seen.add(here)
                here = places[here]
            assert len(seen) == length  # one cycle


def test_a_shuffle_is_uniform():
    starts, lengths = np.arange(0, 30_000, 3), np.full(10_000, 3)
    for cyclic, n_orders in ((False, 6), (True, 2)):
        places = shuffle_within(starts, lengths, keys_of(10_000), cyclic, "numba").reshape(-1, 3) % 3
        counts = np.unique(places, axis=0, return_counts=True)[1]
        assert len(counts) == n_orders and np.abs(counts - 10_000 / n_orders).max() < 5 * np.sqrt(10_000 / n_orders)


@pytest.mark.parametrize("within", WITHIN)
def test_leaving_out_a_group_leaves_a_shuffle_of_the_others(within):
    """Rebuilt by hand: the source of each row left is the first along its cycle that is left too."""
    given, strata, _ = without_alone(world(1), within, 0)
    source = strata.source(0, True, "numpy")
    updates = shuffle_updates(source, given)
    x, y = given.first_L
    group = np.unique(np.repeat(given.group, given.lengths), return_inverse=True)[1]

    def table(rows, sources):
        out = np.zeros((5, 5), int)
        np.add.at(out, (x[rows], y[sources]), 1)  # -1 counts in the last column
        return out

    whole = table(np.arange(len(x)), source)
    for g in range(group.max() + 1):
        kept = np.flatnonzero(group != g)
        follow = source[kept]
        while (group[follow] == g).any():
            follow = np.where(group[follow] == g, source[follow], follow)
        assert (np.sort(follow) == kept).all()
        change, chosen = np.zeros((5, 5), int), slice(updates.bounds[g], updates.bounds[g + 1])
        np.add.at(change, (x[updates.x_row[chosen]], y[updates.y_row[chosen]]), updates.sign[chosen])
        np.testing.assert_array_equal(whole + change, table(kept, follow))


def test_null_does_not_depend_on_backend_threads_or_order_of_documents():
    given = world(2)
    for within in WITHIN:
        made = shuffled_information(given, [[0, 1]], ShufflePlan(within, 7, 3, backend="numpy"))
        for other, plan in ((given, ShufflePlan(within, 7, 3, backend="numba", threads=2)),
                            (reordered(given, np.random.default_rng(0).permutation(25)), ShufflePlan(within, 7, 3, backend="numpy"))):
            again = shuffled_information(other, [[0, 1]], plan)
            np.testing.assert_array_equal(made.null, again.null)
            np.testing.assert_array_equal(made.observed, again.observed)


def test_tokens_alone_are_in_neither_value():
    given = world(3, n_types=400)
    labels = given.token_id
    counts = np.bincount(labels)[labels]
    made = shuffled_information(given, [[0, 1]], ShufflePlan(("token_type",), 3))
    kept = (counts > 1) & (given.first_L[1] >= 0)
    table = np.zeros((4, 3))
    np.add.at(table, (given.first_L[0][kept], given.first_L[1][kept]), 1)
    assert made.left_out == pytest.approx((counts == 1).mean()) and made.n_tokens == (counts > 1).sum()
    assert made.observed[0] == pytest.approx(float(mutual_information_bits(table)), abs=1e-9)


def test_a_global_shuffle_is_printed_and_never_a_p_value():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 8, (2, 20_000))
    made = shuffled_information(documents(rng, [x, y], (8, 8), np.full(200, 100)), [[0, 1]], ShufflePlan((), 20))
    assert made.mean[0] == pytest.approx(49 / (2 * 20_000 * np.log(2)), rel=0.2)  # the plug-in bias
    with pytest.raises(ValueError, match="circular|shift"):
        _ = made.p


def test_within_type_shuffle_tells_same_token_from_coupling():
    given = world(4, 60)
    plan = ShufflePlan(("token_type",), 99)
    assert shuffled_information(given, [[0, 1]], plan).p[0] > 0.05
    assert shuffled_information(given, [[0, 1]], ShufflePlan(("document",), 99)).p[0] == 0.01
    rng = np.random.default_rng(0)
    x = given.first_L[0]
    coupled = documents(rng, [x, np.where(rng.random(len(x)) < 0.3, x % 3, given.first_L[1])], (4, 3), given.lengths, token_id=given.token_id)
    assert shuffled_information(coupled, [[0, 1]], plan).p[0] == 0.01


def test_missing_columns_and_unknown_strata_are_named():
    rng = np.random.default_rng(0)
    plain = documents(rng, [np.zeros(9, int)] * 2, (1, 1), [9], position=None)
    for within, words in ((("token_type",), "token_id"), (("band",), "position"), (("layer",), "layer")):
        with pytest.raises(ValueError, match=words):
            arrange(plain, within, 0)


def test_layers_that_are_not_there_and_no_draw_are_refused():
    rng = np.random.default_rng(0)
    plain = documents(rng, [np.zeros(9, int)] * 2, (1, 1), [9])
    for pairs, draws, words in (([[0, 2]], 9, "within 0..1"), ([[-1, 0]], 9, "within 0..1"), ([[0, 1]], 0, "a null needs a draw")):
        with pytest.raises(ValueError, match=words):
            shuffled_information(plain, pairs, ShufflePlan(("document",), draws))
