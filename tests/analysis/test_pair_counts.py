import tracemalloc

import numpy as np
import pytest

from analysis import joint
from analysis import pair_counts as module
from analysis.arithmetic import mutual_information_bits
from analysis.counts import CountPlan, Units
from analysis.estimation import jackknife
from analysis.joint import coactivation_counts, set_codes, transition_counts
from analysis.pair_counts import PairPlan, accumulate_pairs, pair_groups, scan_pairs
from analysis.planes import planes
from analysis.resampling import jackknife_groups
from analysis.threads import each
from analysis.trace import DocumentRow, TraceBatch, TraceError
from tests.references.memory_trace import meta
from tests.references.slow_tables import reordered, slow_order, slow_pair, uneven_trace

TRACE = uneven_trace()
PAIRS = ((0, 1), (1, 2), (2, 0), (3, 4), (0, 0))
BACKENDS = ("numpy", "numba")


def slow_groups(pair, group_of, n_groups, *, first, lag=0):
    sizes = [TRACE.meta.layers[layer].n_experts for layer in pair]
    out = np.zeros((n_groups, *sizes), np.int64)
    for number, counter in slow_pair(TRACE, "test", pair, first=first, lag=lag).items():
        for (i, j), n in counter.items():
            out[group_of[number], i, j] += n
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", ["first", "slots"])
@pytest.mark.parametrize("lag", [0, 1, 6])
def test_tables_are_those_of_plain_loops(backend, variant, lag, monkeypatch):
    group_of = {d.document: i % 5 for i, d in enumerate(slow_order(TRACE, "test", "3"))}
    for rows in (50, 2**21):
        monkeypatch.setattr(module, "BUFFER_ROWS", rows)
        counts = accumulate_pairs(TRACE, PairPlan("test", "3", PAIRS, 5, variant, lag), backend, threads=2)
        for pair in PAIRS:
            slow = slow_groups(pair, group_of, 5, first=variant == "first", lag=lag)
            groups = counts.groups(pair)
            assert groups.tables[0].dtype == np.int64 and groups.n_documents == len(group_of) and groups.stratum is None
            assert np.array_equal(groups.tables[0], slow) and np.array_equal(counts.total(pair), slow.sum(axis=0))
    assert counts.n_rows == counts.total((3, 4)).sum() // (8 if variant == "slots" else 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sets_are_symbols(backend):
    counts = accumulate_pairs(TRACE, PairPlan("test", "3", ((0, 1), (4, 0)), 3, "sets"), backend)
    plain = {}
    for shard in TRACE.batches(split="test"):
        codes = [set_codes(shard.ids[layer].T, n) for layer, n in ((0, 8), (1, 5))]
        for x, y in zip(*codes):
            plain[int(x), int(y)] = plain.get((int(x), int(y)), 0) + 1
    total = counts.total((0, 1))
    assert {(int(counts.codes[0][i]), int(counts.codes[1][j])): int(total[i, j]) for i, j in zip(*np.nonzero(total))} == plain
    assert (total.sum(axis=1) > 0).all() and counts.total((4, 0)).shape[0] == 1


def test_sets_at_k_1_are_first_choices():
    sets = accumulate_pairs(TRACE, PairPlan("test", "", ((1, 3),), 4, "sets"))
    assert np.array_equal(sets.groups((1, 3)).tables[0], accumulate_pairs(TRACE, PairPlan("test", "", ((1, 3),), 4)).groups((1, 3)).tables[0])


def test_too_many_sets_are_undersampled_and_the_others_counted(monkeypatch):
    monkeypatch.setattr(module, "MOST_SETS", 30)
    plan = PairPlan("test", "3", ((0, 2), (1, 3)), 3, "sets")
    counts = accumulate_pairs(TRACE, plan)
    assert counts.pairs == ((1, 3),)
    with pytest.raises(KeyError, match="undersampled: .* observed sets; take first choices"):
        counts.groups((0, 2))
    assert [pair for pair, _ in pair_groups(TRACE, plan)] == [(1, 3)]


def test_groups_inside_domains_have_strata_and_give_a_domain():
    counts = accumulate_pairs(TRACE, PairPlan("test", "3", ((0, 1),), 4, by_domain=True))
    order, group_of, stratum = slow_order(TRACE, "test", "3"), {}, []
    for number in range(3):
        members = [d for d in order if d.domain == f"domain{number}"]
        size = min(4, len(members))
        group_of |= {d.document: len(stratum) + i % size for i, d in enumerate(members)}
        stratum += [number] * size
    slow = slow_groups((0, 1), group_of, len(stratum), first=True)
    groups, one = counts.groups((0, 1)), counts.groups((0, 1), "domain1")
    assert np.array_equal(groups.tables[0], slow) and groups.stratum.tolist() == stratum
    assert np.array_equal(one.tables[0], slow[np.array(stratum) == 1])
    assert one.n_documents == sum(d.domain == "domain1" for d in order) and one.stratum is None
    pooled = accumulate_pairs(TRACE, PairPlan("test", "3", ((0, 1),)))
    with pytest.raises(ValueError, match="by_domain=True"):
        pooled.groups((0, 1), "domain1")


def test_groups_are_those_of_the_counts_of_a_split():
    units = Units.of(TRACE.documents, CountPlan("test", "9", np.zeros((0, 5))))
    group = jackknife_groups(units.n, 6)
    group_of = {number: int(group[unit]) for number, unit in units.of_document.items()}
    counts = accumulate_pairs(TRACE, PairPlan("test", "9", ((0, 1),), 6))
    assert np.array_equal(counts.groups((0, 1)).tables[0], slow_groups((0, 1), group_of, 6, first=True))


@pytest.mark.parametrize("variant", ["first", "slots", "sets"])
def test_the_same_bits_for_any_chunk_thread_shard_order_and_backend(variant, monkeypatch):
    plan = PairPlan("test", "1", PAIRS[:4], 7, variant)
    expected = {pair: groups.tables[0] for pair, groups in pair_groups(TRACE, plan, "numpy")}
    for seed, (backend, threads, table_bytes) in enumerate([("numba", 2, 2**28), ("numpy", 2, 1), ("numba", 1, 4000)]):
        monkeypatch.setattr(module, "TABLE_BYTES", table_bytes)
        monkeypatch.setattr(module, "BUFFER_BYTES", 10 ** (seed + 1))
        other = reordered(TRACE, seed, 13)
        found = dict(pair_groups(other, plan, backend, threads))
        whole = accumulate_pairs(other, plan, backend, threads)
        assert list(found) == list(expected)
        for pair, table in expected.items():
            assert np.array_equal(found[pair].tables[0], table) and np.array_equal(whole.groups(pair).tables[0], table)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scan_gives_the_totals_of_every_pair(backend):
    scan = scan_pairs(TRACE, "test", backend=backend, threads=2)
    assert len(scan.pairs) == 10
    for pair in scan.pairs:
        assert np.array_equal(scan.total(pair), slow_groups(pair, dict.fromkeys(range(200), 0), 1, first=True)[0])
    slots = scan_pairs(TRACE, "test", [(2, 0)], variant="slots", backend=backend)
    assert np.array_equal(slots.total((2, 0)), slow_groups((2, 0), dict.fromkeys(range(200), 0), 1, first=False)[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_cells_widen_before_they_overflow(backend, monkeypatch):
    long = uneven_trace(4, n_documents=9, longest=200)
    plan = PairPlan("test", "0", ((3, 3), (0, 1)), 1)
    expected = accumulate_pairs(long, plan, backend)
    monkeypatch.setattr(joint, "WIDTHS", (np.uint8, np.uint16, np.int64))
    monkeypatch.setattr(module, "WIDTHS", (np.uint8,))
    monkeypatch.setattr(module, "BUFFER_ROWS", 100)
    found = accumulate_pairs(long, plan, backend)
    assert found.n_rows > 255 and found.tables[3, 3].dtype == np.uint16
    assert found.total((3, 3)).tolist() == [[found.n_rows]]
    assert all(np.array_equal(found.total(pair), expected.total(pair)) for pair in plan.pairs)


def test_totals_beyond_32_bits_are_right():
    counts = accumulate_pairs(TRACE, PairPlan("test", "0", ((3, 3),), 3))
    counts.tables[3, 3] = np.full((3, 1, 1), 2**32 - 1, np.uint32)
    assert counts.total((3, 3)).tolist() == [[3 * (2**32 - 1)]] and counts.groups((3, 3)).tables[0].dtype == np.int64


def test_tables_go_straight_into_the_jackknife():
    groups = accumulate_pairs(TRACE, PairPlan("test", "0", ((0, 4),))).groups((0, 4))
    interval = jackknife(groups, mutual_information_bits)
    assert interval.plug_in == pytest.approx(float(mutual_information_bits(groups.tables[0].sum(axis=0))))
    assert interval.low < interval.value < interval.high


def test_a_layer_with_itself_counts_coactivation_and_transitions():
    found = planes(TRACE, "test")
    slots = accumulate_pairs(TRACE, PairPlan("test", "", ((2, 2), (4, 4)), variant="slots"))
    moves = accumulate_pairs(TRACE, PairPlan("test", "", ((2, 2), (0, 0)), lag=2))
    for layer in (2, 4):
        assert np.array_equal(slots.total((layer, layer)), coactivation_counts(found.ids[layer], found.n_experts[layer]))
    for layer in (2, 0):
        assert np.array_equal(moves.total((layer, layer)), transition_counts(found.first[layer], found.starts, found.n_experts[layer], lag=2))


def test_what_is_not_there_is_named(monkeypatch):
    with pytest.raises(ValueError, match=r"pair \(0, 5\): the trace has layers 0 to 4"):
        accumulate_pairs(TRACE, PairPlan("test", "", ((0, 5),)))
    with pytest.raises(ValueError, match="lag -1"):
        accumulate_pairs(TRACE, PairPlan("test", "", ((0, 1),), lag=-1))
    with pytest.raises(TraceError, match="no calibration document to count"):
        accumulate_pairs(TRACE, PairPlan("calibration", "", ((0, 1),)))
    monkeypatch.setattr(module, "HELD_BYTES", 100)
    with pytest.raises(ValueError, match="read them one by one with pair_groups"):
        accumulate_pairs(TRACE, PairPlan("test", "", ((0, 1),)))


class Endless:
    """A trace made batch by batch as it is read: 200 documents of 5,000 rows, 10 MiB of ids, and never held."""

    def __init__(self):
        self.meta = meta(10, 16, 1, 10)
        self.documents = [DocumentRow(i, f"d{i}", "one", "test") for i in range(200)]
        self.columns = [np.arange(5_000, dtype=np.int32), np.zeros(5_000, np.int32)]

    def batches(self, *, split=None, layers=None):
        for d in range(200):
            ids = tuple(np.random.default_rng([d, layer]).integers(0, 16, (5_000, 1), np.uint8) for layer in layers)
            yield TraceBatch(np.full(5_000, d, np.int32), *self.columns, ids)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_trace_larger_than_the_buffer_streams(backend, monkeypatch):
    scan_pairs(TRACE, "test", backend=backend)
    monkeypatch.setattr(module, "BUFFER_BYTES", 2**17)
    tracemalloc.start()
    scan = scan_pairs(Endless(), "test", backend=backend)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert scan.n_rows == 1_000_000 and all(scan.total(pair).sum() == 1_000_000 for pair in scan.pairs)
    assert peak < 6 * 2**20


def test_work_is_shared_in_order_and_its_error_raised():
    assert each(lambda i: i * i, range(7), 3) == each(lambda i: i * i, range(7)) == [i * i for i in range(7)]
    with pytest.raises(ZeroDivisionError):
        each(lambda i: 1 // i, [1, 0], 2)
    with pytest.raises(ValueError, match="threads = 0"):
        each(abs, [1], 0)
