from dataclasses import replace

import numpy as np
import pytest

from analysis.rows import bands, check, join, take, whole_documents
from analysis.trace import TraceError
from tests.references.memory_trace import Shape, sample_trace

TRACE, _ = sample_trace(shape=Shape(n_test=8, n_calibration=4, n_train=2, length=20, vocabulary=30), shard=5)


def whole():
    batch = TRACE.shards[0]
    for other in TRACE.shards[1:]:
        batch = join(batch, other)
    return batch


@pytest.mark.parametrize("size", [1, 7, 33, 10_000])
def test_documents_come_whole_however_the_rows_are_cut(size):
    batch = whole()
    pieces = [take(batch, slice(a, a + size)) for a in range(0, len(batch), size)]
    rows = list(whole_documents(pieces))
    documents = [set(piece.document.tolist()) for piece in rows]
    assert sum(len(d) for d in documents) == len(set.union(*documents))
    joined = rows[0]
    for piece in rows[1:]:
        joined = join(joined, piece)
    assert (joined.token_id == batch.token_id).all() and (joined.ids[1] == batch.ids[1]).all()


def test_rows_of_a_document_are_put_in_order_of_position():
    batch = take(whole(), np.flatnonzero(whole().document == 3))
    shuffled = take(batch, np.random.default_rng(0).permutation(len(batch)))
    (ordered,) = whole_documents([shuffled])
    assert (ordered.token_id == batch.token_id).all()


def test_a_document_whose_rows_are_apart_is_refused():
    a, b = (take(whole(), np.flatnonzero(whole().document == d)) for d in (0, 1))
    with pytest.raises(TraceError, match="document 0 are not together; export"):
        list(whole_documents([a, b, a]))


def test_a_document_counted_twice_is_refused():
    a = take(whole(), np.flatnonzero(whole().document == 0))
    with pytest.raises(TraceError, match="document 0 has position 0 twice"):
        list(whole_documents([a, a]))


def test_bands_of_positions():
    assert bands(np.array([0, 1, 3, 4, 15, 16, 63, 64, 9999])).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4]


def broken(**columns):
    return replace(TRACE.shards[0], **columns)


def test_an_entropy_that_is_no_number_is_named_by_layer_document_and_position():
    entropy = np.array(TRACE.shards[0].entropy_nats)
    entropy[1, 3] = np.nan
    with pytest.raises(TraceError, match=r"entropy_nats: nan at layer model.layers.1.mlp.gate, document 0, position 3, outside \[0, .*; collect"):
        check(broken(entropy_nats=entropy), TRACE.meta.layers, 30)


def test_an_expert_beyond_the_layer_is_refused():
    ids = np.array(TRACE.shards[0].ids[0])
    ids[0, 0] = 8
    with pytest.raises(TraceError, match="expert id 8 at layer model.layers.0.mlp.gate, document 0, position 0, which has 8 experts"):
        check(broken(ids=(ids, TRACE.shards[0].ids[1])), TRACE.meta.layers, 30)


def test_a_token_beyond_the_vocabulary_is_refused():
    with pytest.raises(TraceError, match="token_id"):
        check(TRACE.shards[0], TRACE.meta.layers, 10)


def test_a_position_below_zero_is_refused():
    with pytest.raises(TraceError, match="column position: -1; positions count from 0"):
        check(broken(position=TRACE.shards[0].position - 1), TRACE.meta.layers, 30)


@pytest.mark.parametrize(("column", "value"), [("entropy_nats", -0.1), ("entropy_nats", 3.0), ("entropy_nats", np.inf), ("top1_prob", 1.1)])
def test_an_entropy_or_probability_outside_its_range_is_refused(column, value):
    values = np.array(getattr(TRACE.shards[0], column))
    values[1, 3] = value  # an entropy of 3 is in bits: ln 8 = 2.08 is the most
    with pytest.raises(TraceError, match=rf"column {column}: .* document 0, position 3, outside"):
        check(broken(**{column: values}), TRACE.meta.layers, 30)


def test_rounding_at_the_ends_of_a_range_is_not_refused():
    entropy = np.array(TRACE.shards[0].entropy_nats)
    entropy[0, :2] = -1e-6, np.log(8) + 1e-6
    check(broken(entropy_nats=entropy), TRACE.meta.layers, 30)


def test_a_dropped_slot_as_an_id_is_refused():
    ids = np.array(TRACE.shards[0].ids[0], np.int16)
    ids[2, 1] = -1
    with pytest.raises(TraceError, match="expert id -1 at layer model.layers.0.mlp.gate, document 0, position 2.*bit of `dropped`"):
        check(broken(ids=(ids, TRACE.shards[0].ids[1])), TRACE.meta.layers, 30)


def test_an_expert_twice_in_one_top_k_is_refused_in_any_block(monkeypatch):
    monkeypatch.setattr("analysis.rows.BLOCK_ROWS", 7)
    ids = np.array(TRACE.shards[0].ids[0])
    ids[9, 1] = ids[9, 0]
    with pytest.raises(TraceError, match=rf"expert {ids[9, 0]} twice in one top-2 at layer model.layers.0.mlp.gate, document 0, position 9"):
        check(broken(ids=(ids, TRACE.shards[0].ids[1])), TRACE.meta.layers, 30)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_weight_that_is_not_finite_is_refused(dtype, value):
    weights = np.array(TRACE.shards[0].weights[0], dtype)
    weights[4, 1] = value
    with pytest.raises(TraceError, match="column weights: .* document 0, position 4 is not finite"):
        check(broken(weights=(weights, TRACE.shards[0].weights[1])), TRACE.meta.layers, 30)


@pytest.mark.parametrize("column", ["ids", "weights"])
def test_another_number_of_slots_than_declared_is_refused(column):
    first, second = getattr(TRACE.shards[0], column)
    with pytest.raises(TraceError, match=rf"column {column}: \[\d+, 1\] at layer .*, expected \[\d+, 2\]"):
        check(broken(**{column: (first[:, :1], second)}), TRACE.meta.layers, 30)


def test_ids_that_are_no_integers_are_refused():
    first, second = TRACE.shards[0].ids
    with pytest.raises(TraceError, match="column ids: float32 at layer .*; expert ids are integers"):
        check(broken(ids=(first.astype(np.float32), second)), TRACE.meta.layers, 30)
