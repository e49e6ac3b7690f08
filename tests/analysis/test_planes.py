from dataclasses import replace

import numpy as np
import pytest

from analysis.planes import Deal, Planes, buffered, grouped_rows, id_batches, planes
from analysis.resampling import jackknife_groups
from analysis.rows import whole_documents
from analysis.trace import TraceError
from tests.references.memory_trace import MemoryTrace
from tests.references.slow_tables import LAYERS, reordered, slow_order, slow_rows, uneven_trace
from tests.synthetic_trace import make_trace

TRACE = uneven_trace()


def with_ids(layer, ids):
    """The first shard with other ids in one layer."""
    batch = TRACE.shards[0]
    return replace(batch, ids=tuple(ids if i == layer else other for i, other in enumerate(batch.ids)))


def test_rows_are_whole_documents_in_hash_order():
    found, slow = planes(TRACE, "test", salt="7"), slow_rows(TRACE, "test")
    order = slow_order(TRACE, "test", "7")
    assert found.document.tolist() == [d.document for d in order]
    assert len(found) == sum(len(parts[0]) for parts in slow.values()) == found.starts[-1]
    for d, row in enumerate(order):
        (expected,) = slow[row.document]
        rows = slice(found.starts[d], found.starts[d + 1])
        assert np.array_equal(found.token_id[rows], expected.token_id) and np.array_equal(found.position[rows], expected.position)
        for layer, ids in enumerate(expected.ids):
            assert np.array_equal(found.ids[layer][:, rows], ids.T) and np.array_equal(found.first[layer][rows], ids[:, 0])


def test_planes_are_contiguous_and_as_narrow_as_the_layer():
    found = planes(TRACE, "test")
    assert found.n_experts == tuple(n for n, _ in LAYERS)
    for (n, k), ids in zip(LAYERS, found.ids):
        assert ids.shape == (k, len(found)) and ids.flags.c_contiguous and ids.flags.writeable
        assert ids.dtype == (np.uint8 if n <= 256 else np.uint16)


def test_nothing_depends_on_the_order_of_documents_or_shards():
    a = planes(TRACE, "test", max_rows=150)
    for seed, size in ((0, 1), (1, 17), (2, 10_000)):
        b = planes(reordered(TRACE, seed, size), "test", max_rows=150)
        assert np.array_equal(a.token_id, b.token_id) and np.array_equal(a.position, b.position) and np.array_equal(a.starts, b.starts)
        assert all(np.array_equal(x, y) for x, y in zip(a.ids, b.ids))


def test_a_sample_is_the_beginning_of_the_whole_and_fits():
    whole = planes(TRACE, "test")
    for most in (0, 1, 40, 150, len(whole) - 1, len(whole)):
        part = planes(TRACE, "test", max_rows=most)
        assert len(part) <= most or len(part.document) == 1
        assert np.array_equal(whole.ids[2][:, : len(part)], part.ids[2])
        n = len(part.document)
        assert n == len(whole.document) or whole.starts[n + 1] > most
    assert len(planes(TRACE, "test", max_rows=len(whole))) == len(whole)


def test_layers_and_documents_can_be_chosen():
    whole, some = planes(TRACE, "test"), planes(TRACE, "test", layers=(2, 0), documents=[1, 7, 10])
    assert sorted(some.document.tolist()) == [1, 7, 10] and [layer.key for layer in some.layers] == ["layers.2.gate", "layers.0.gate"]
    rows = np.isin(np.repeat(whole.document, whole.lengths), [1, 7, 10])
    assert np.array_equal(some.ids[0], whole.ids[2][:, rows]) and np.array_equal(some.ids[1], whole.ids[0][:, rows])
    with pytest.raises(TraceError, match="document 2 is no test document"):
        planes(TRACE, "test", documents=[1, 2])
    with pytest.raises(TraceError, match="no calibration document to read"):
        planes(TRACE, "calibration")


def test_planes_work_without_token_types_and_refuse_to_give_them():
    trace = replace(TRACE, shards=[replace(shard, token_id=None) for shard in TRACE.shards])
    found, expected = planes(trace, "test"), planes(TRACE, "test")
    assert found.token_id is None and Planes.joined([found, found]).token_id is None
    assert all(np.array_equal(x, y) for x, y in zip(found.ids, expected.ids))
    with pytest.raises(TraceError, match="token_id: absent"):
        _ = found.types


def test_an_expert_out_of_range_is_named_by_layer_document_and_position():
    ids = TRACE.shards[0].ids[0].astype(np.int16)
    for wrong in (8, -1):
        ids[2, 1] = wrong
        row = TRACE.shards[0]
        place = rf"expert id {wrong} at layer layers.0.gate, document {row.document[2]}, position {row.position[2]}, which has 8 experts; correct"
        with pytest.raises(TraceError, match=place):
            Planes.of(with_ids(0, ids), TRACE.meta.layers)


def test_an_expert_twice_in_one_top_k_is_named():
    ids = TRACE.shards[0].ids[2].copy()
    ids[1, 2] = ids[1, 0]
    batch = TRACE.shards[0]
    with pytest.raises(TraceError, match=rf"expert {ids[1, 0]} twice in one top-3 at layer layers.2.gate, document {batch.document[1]}, position"):
        Planes.of(with_ids(2, ids), TRACE.meta.layers)


def test_a_batch_of_other_layers_is_refused():
    with pytest.raises(TraceError, match="5 layers but 4 were asked for"):
        Planes.of(TRACE.shards[0], TRACE.meta.layers[:4])
    with pytest.raises(TraceError, match=r"\[\d+, 1\] at layer layers.0.gate, expected \[\d+, 2\]; correct top_k"):
        Planes.of(with_ids(0, TRACE.shards[0].ids[1]), TRACE.meta.layers)


WRONG = [("token_id", 40, "token_id: 40 but the vocabulary has 40"), ("token_id", -1, "token_id: -1"), ("position", -3, "position: -3; positions")]


@pytest.mark.parametrize(("column", "value", "message"), WRONG)
def test_rows_that_cannot_be_counted_are_refused(column, value, message):
    shard = TRACE.shards[0]
    values = getattr(shard, column).copy()
    values[0] = value
    trace = replace(TRACE, shards=[replace(shard, **{column: values})])
    with pytest.raises(TraceError, match=message):
        list(id_batches(trace, "test", [0]))


class Columns(MemoryTrace):
    """A trace that reads only the columns it is asked for."""

    def batches(self, *, split=None, layers=None, columns=None):
        self.meta.details["asked"].append(columns)
        return super().batches(split=split, layers=layers)


def test_only_ids_are_asked_of_a_trace_that_can_choose():
    asked = []
    trace = Columns(replace(TRACE.meta, details={"asked": asked}), TRACE.documents, TRACE.shards)
    list(id_batches(trace, "test", [0], ("ids", "dropped")))
    assert asked == [("ids", "dropped")]


def test_a_stored_trace_gives_the_same_planes(tmp_path):
    stored = make_trace(tmp_path / "trace", np.random.default_rng(0), 20, ((16, 2), (300, 3), (8, 1)), dropping=(0,))
    held = MemoryTrace(stored.meta, stored.documents, list(stored.batches()))
    for layers in (None, (2, 0)):
        a, b = planes(stored, "test", layers=layers, max_rows=400), planes(held, "test", layers=layers, max_rows=400)
        assert np.array_equal(a.token_id, b.token_id) and np.array_equal(a.document, b.document) and len(a) > 200
        assert all(np.array_equal(x, y) for x, y in zip(a.ids, b.ids))


def test_joined_and_buffered_planes_are_the_same_rows():
    layers = TRACE.meta.layers
    parts = [Planes.of(batch, layers) for batch in whole_documents(TRACE.batches(split="test"))]
    whole = Planes.joined(parts)
    for size in (1, 30, 100, 10_000):
        pieces = list(buffered(iter(parts), size))
        again = Planes.joined(pieces)
        assert all(len(piece) <= size or any(len(piece) == len(part) for part in parts) for piece in pieces)
        assert np.array_equal(again.starts, whole.starts) and np.array_equal(again.document, whole.document)
        assert all(np.array_equal(x, y) for x, y in zip(again.ids, whole.ids))


@pytest.mark.parametrize("by_domain", [False, True])
@pytest.mark.parametrize("max_groups", [1, 2, 5, 100])
def test_documents_are_dealt_by_hash(by_domain, max_groups):
    deal = Deal.of(TRACE.documents, "test", "salt", max_groups, by_domain=by_domain)
    order = slow_order(TRACE, "test", "salt")
    expected = {}
    if by_domain:
        base = 0
        for number, name in enumerate(("domain0", "domain1", "domain2")):
            members = [d for d in order if d.domain == name]
            size = min(len(members), max_groups)
            expected |= {d.document: base + i % size for i, d in enumerate(members)}
            assert (deal.stratum[base : base + size] == number).all()
            base += size
    else:
        expected = {d.document: i % min(len(order), max_groups) for i, d in enumerate(order)}
        assert deal.stratum is None
    if max_groups > 1 or not by_domain:
        assert {d.document: int(g) for d, g in zip(deal.documents, deal.group)} == expected
    assert deal.n_groups == max(expected.values()) + 1


def test_the_deal_of_planes_is_that_of_the_trace():
    found, deal = planes(TRACE, "test", salt="s"), Deal.of(TRACE.documents, "test", "s", 4)
    assert np.array_equal(found.group(4), deal.group[deal.place_of(found.document, "test")])
    assert np.array_equal(found.group(4), jackknife_groups(len(found.document), 4))
    with pytest.raises(TraceError, match="column document: 13 is no test document"):
        deal.place_of(np.array([1, 13]), "test")


@pytest.mark.parametrize("lag", [0, 1, 5, 40])
def test_rows_come_group_after_group(lag):
    found, deal = planes(TRACE, "test"), Deal.of(TRACE.documents, "test", "other", 4)
    rows, bounds = grouped_rows(found, deal, "test", lag)
    document = np.repeat(np.arange(len(found.document)), found.lengths)
    group = deal.group[deal.place_of(found.document, "test")]
    kept = [t for t in range(len(found)) if t + lag < found.starts[document[t] + 1]]
    assert sorted(rows.tolist()) == kept
    for g in range(4):
        assert (group[document[rows[bounds[g] : bounds[g + 1]]]] == g).all()
    assert bounds[-1] == len(rows)


def test_one_group_leaves_the_rows_as_they_are():
    found = planes(TRACE, "test")
    rows, bounds = grouped_rows(found, Deal.of(TRACE.documents, "test", "", 1), "test")
    assert rows is None and bounds.tolist() == [0, len(found)]
