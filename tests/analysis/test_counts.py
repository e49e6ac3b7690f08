from dataclasses import fields, replace

import numpy as np
import pytest

from analysis import counts as counting
from analysis import fused
from analysis.counts import CountPlan, Units, accumulate, document_hash
from analysis.kernels import from_fixed
from analysis.rows import take
from analysis.trace import DocumentRow, TraceError
from tests.references.memory_trace import MemoryTrace, Shape, sample_trace
from tests.references.slow_counts import slow_counts

SHAPE = Shape(n_test=12, n_calibration=5, n_train=3, length=30, vocabulary=25)
TRACE, _ = sample_trace(3, SHAPE, shard=4)
PLAN = CountPlan("test", "0", np.array([[0.5, 0.6], [0.3, 0.3]]))


def test_counts_are_those_of_plain_loops():
    counts, slow = accumulate(TRACE, PLAN), slow_counts(TRACE, "test")
    assert np.flatnonzero(counts.n_V).tolist() == sorted(slow)
    for v, one in slow.items():
        assert counts.n_V[v] == len(one["positions"]) and counts.n_documents_V[v] == len(one["documents"])
        assert counts.position_V[v] == sum(one["positions"])
        for layer in range(2):
            h, c = np.array(one["h"][layer]), np.array(one["c"][layer])
            assert counts.mean_entropy_LV[layer, v] == pytest.approx(h.mean(), abs=1e-9)
            assert from_fixed(counts.entropy_square_LV)[layer, v] == pytest.approx((h**2).sum(), abs=1e-7)
            assert from_fixed(counts.confidence_LV)[layer, v] == pytest.approx(c.sum(), abs=1e-7)
            assert counts.extremes_LV2[layer, v].tolist() == pytest.approx([h.min(), h.max()], abs=0)
            choices, types = counts.choices[layer], np.array([v])
            for column, name in ((choices.n, "n_e"), (choices.first, "first")):
                assert choices.dense(column, types)[0].tolist() == [one[name][layer][e] for e in range(8)]
            assert from_fixed(choices.dense(choices.weight, types))[0].tolist() == [one["weight"][layer][e] for e in range(8)]


def test_document_sums_are_those_of_plain_loops():
    counts = accumulate(TRACE, PLAN)
    for document, unit in counts.units.of_document.items():
        rows = [take(s, s.document == document) for s in TRACE.shards if (s.document == document).any()][0]
        assert counts.tokens_D[unit] == len(rows)
        assert counts.below_HLD[:, :, unit].tolist() == [[int((rows.entropy_nats[i] < limits[i]).sum()) for i in range(2)]
                                                         for limits in PLAN.thresholds_nats]


def test_nothing_depends_on_the_order_or_size_of_shards_or_on_document_numbers():
    other = renumbered(TRACE, seed=5)
    a, b = accumulate(TRACE, PLAN), accumulate(other, PLAN)
    for name in ("band", "unit", "type", "n", "position", "entropy", "entropy_square_LV", "tokens_D", "below_HLD", "entropy_LD", "histogram"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert all(np.array_equal(x.weight, y.weight) for x, y in zip(a.choices, b.choices))


def renumbered(trace: MemoryTrace, seed: int) -> MemoryTrace:
    """The same documents in another order under other numbers, one shard each."""
    numbers = np.random.default_rng(seed).permutation(len(trace.documents))
    documents = sorted((replace(d, document=int(numbers[d.document])) for d in trace.documents), key=lambda d: d.document)
    shards = {}
    for shard in trace.shards:
        for document in np.unique(shard.document):
            rows = take(shard, shard.document == document)
            shards[int(numbers[document])] = replace(rows, document=np.full(len(rows), numbers[document], np.int32))
    return MemoryTrace(trace.meta, documents, [shards[d.document] for d in documents])


def test_documents_are_folded_only_beyond_the_limit_and_the_name_says_so():
    documents = [DocumentRow(i, f"d{i}", "a", "test") for i in range(25)]
    whole, folded = (Units.of(documents, replace(PLAN, max_units=n)) for n in (25, 10))
    assert (whole.n, whole.folded, whole.name) == (25, False, "documents")
    assert folded.n == 10 and folded.name == "25 documents folded into 10 hashed groups" and folded.domains is None
    assert sorted(np.bincount(list(folded.of_document.values())).tolist()) == [2] * 5 + [3] * 5


def test_documents_are_ordered_by_the_hash_of_id_and_salt():
    documents = [DocumentRow(i, f"d{i}", "a", "test") for i in range(9)]
    ids = [d.id for d in Units.of(documents, PLAN).documents]
    assert ids == sorted((d.id for d in documents), key=lambda i: document_hash(i, "0"))
    # metrics specification 4.2: SHA-256 of doc_id, NUL, salt
    assert document_hash("d0", "0").hex() == __import__("hashlib").sha256(b"d0\x000").hexdigest()


def test_folding_changes_no_total():
    a, b = accumulate(TRACE, PLAN), accumulate(TRACE, replace(PLAN, max_units=5))
    assert b.units.n == 5 and a.n_tokens == b.n_tokens and np.array_equal(a.entropy_LV, b.entropy_LV)
    assert np.array_equal(a.n_documents_V, b.n_documents_V)


def test_a_trace_without_entropies_is_refused_with_the_remedy():
    bare = MemoryTrace(TRACE.meta, TRACE.documents, [replace(s, entropy_nats=None) for s in TRACE.shards])
    with pytest.raises(TraceError, match="entropy_nats: absent; .*collect"):
        accumulate(bare, PLAN)


def test_a_row_of_an_unknown_document_is_refused():
    class Lying(MemoryTrace):
        def batches(self, *, split=None, layers=None):
            yield from self.shards

    with pytest.raises(TraceError, match="document: 0 is no test document"):
        accumulate(Lying(TRACE.meta, TRACE.documents, TRACE.shards), PLAN)


def test_an_empty_split_counts_nothing():
    counts = accumulate(TRACE, replace(PLAN, split="train"))
    assert counts.n_tokens == 0 and counts.units.n == 0


def without(name):
    return MemoryTrace(TRACE.meta, TRACE.documents, [replace(shard, **{name: None}) for shard in TRACE.shards])


def with_wide_weights():
    return MemoryTrace(TRACE.meta, TRACE.documents, [replace(s, weights=tuple(w.astype(np.float32) / 3 for w in s.weights)) for s in TRACE.shards])


def strided():
    """Columns in another memory order, as fancy indexing leaves them."""
    return MemoryTrace(TRACE.meta, TRACE.documents, [replace(shard, entropy_nats=np.asfortranarray(shard.entropy_nats),
                                                             ids=tuple(np.asfortranarray(ids) for ids in shard.ids)) for shard in TRACE.shards])


TRACES = {"whole": TRACE, "no weights": without("weights"), "no confidence": without("top1_prob"), "float32 weights": with_wide_weights(),
          "strided": strided(), "renumbered": renumbered(TRACE, seed=2)}


def assert_same(a, b):
    for name in (f.name for f in fields(a) if f.name not in ("choices", "units")):
        x, y = getattr(a, name), getattr(b, name)
        assert np.array_equal(x, y) and getattr(x, "dtype", None) == getattr(y, "dtype", None), name
    for x, y in zip(a.choices, b.choices, strict=True):
        assert all(np.array_equal(getattr(x, f.name), getattr(y, f.name)) for f in fields(x))


@pytest.mark.parametrize("max_units", [2000, 5])
@pytest.mark.parametrize("name", TRACES)
def test_compiled_and_plain_counts_are_the_same_bits(name, max_units):
    plan = replace(PLAN, max_units=max_units)
    assert_same(accumulate(TRACES[name], plan, "numpy"), accumulate(TRACES[name], plan, "numba"))


def test_pairs_are_counted_alike_in_a_table_that_grows(monkeypatch):
    plain = accumulate(TRACE, PLAN, "numpy")
    monkeypatch.setattr(counting, "DENSE_PAIRS", 0)
    monkeypatch.setattr(fused, "FIRST_CAPACITY", 16)
    assert_same(plain, accumulate(TRACE, PLAN, "numba"))


def test_counts_may_change_from_plain_to_compiled_on_the_way(monkeypatch):
    plain, chosen = accumulate(TRACE, PLAN, "numpy"), iter(["numpy", "numba"] * 9)
    monkeypatch.setattr(counting, "choose_backend", lambda work, compiled_from: next(chosen))
    assert_same(plain, accumulate(TRACE, PLAN))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_what_nobody_asks_for_is_left_out_and_the_rest_is_the_same(backend):
    whole = accumulate(TRACE, PLAN, backend)
    lean = accumulate(TRACE, replace(PLAN, cells=False, choices=False, histogram_bins=0, thresholds_nats=np.zeros((0, 2))), backend)
    assert len(lean.n) == lean.entropy.size == lean.histogram.size == lean.below_HLD.size == len(lean.choices) == 0
    for name in ("n_V", "n_documents_V", "position_V", "entropy_LV", "entropy_square_LV", "confidence_LV", "extremes_LV2", "tokens_D", "entropy_LD"):
        assert np.array_equal(getattr(lean, name), getattr(whole, name)), name


def test_type_sums_are_those_of_the_cells():
    counts = accumulate(TRACE, PLAN)
    for cells, by_type in ((counts.n[None], counts.n_V[None]), (counts.position[None], counts.position_V[None]), (counts.entropy, counts.entropy_LV)):
        summed = np.zeros_like(by_type)
        np.add.at(summed.T, counts.type, cells.T)
        assert np.array_equal(summed, by_type)


def test_threads_change_no_bit():
    assert_same(accumulate(TRACE, PLAN, "numba"), accumulate(TRACE, PLAN, "numba", threads=2))


def test_every_kind_of_float16_weight_is_summed_alike():
    kinds = np.array([0.0, -0.0, 6e-8, 3e-5, 6.1e-5, 0.3, 1.0, 1.5, -0.25, 65504.0], np.float16)
    rng = np.random.default_rng(0)
    trace = MemoryTrace(TRACE.meta, TRACE.documents, [replace(s, weights=tuple(rng.choice(kinds, w.shape) for w in s.weights)) for s in TRACE.shards])
    assert_same(accumulate(trace, PLAN, "numpy"), accumulate(trace, PLAN, "numba"))
