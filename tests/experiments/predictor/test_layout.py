import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.planes import Planes
from experiments.predictor.layout import lay_out, slots

from .planted import metas, planted_trace, source_planes


def planes_of(lengths: list[int]) -> Planes:
    n = sum(lengths)
    position = np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)
    return Planes(metas(((4, 1),)), (np.zeros((1, n), np.uint8),), None, position, np.r_[0, np.cumsum(lengths)], np.arange(len(lengths)))


@settings(max_examples=30)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 9), st.randoms())
def test_every_row_once_in_order_and_no_block_holds_two_documents(lengths: list[int], size: int, shuffle: object) -> None:
    planes = planes_of(lengths)
    order = list(range(len(lengths)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    blocks = lay_out(planes, order, size)
    assert blocks.row_NS[blocks.row_NS >= 0].tolist() == [row for d in order for row in range(planes.starts[d], planes.starts[d + 1])]
    document = np.searchsorted(planes.starts, np.maximum(blocks.row_NS, 0), side="right") - 1
    for block, of_rows, previous in zip(blocks.row_NS, document, blocks.previous_N):
        assert len(set(of_rows[block >= 0])) == 1
        assert previous == (planes.position[block[0]] > 0)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 5), st.integers(0, 4))
def test_batches_after_their_warm_blocks_are_the_whole(lengths: list[int], size: int, warm: int) -> None:
    blocks = lay_out(planes_of(lengths), range(len(lengths)), 4)
    parts = [batch.row_NS[n_warm:] for batch, n_warm in blocks.batches(size, warm)]
    assert np.array_equal(np.concatenate(parts), blocks.row_NS)
    for batch, n_warm in blocks.batches(size, warm):
        assert n_warm <= warm and not batch.previous_N[0]


def test_slots_are_the_planes_turned() -> None:
    planes = source_planes(planted_trace())
    table = slots(planes)
    assert table.shape == (len(planes), 3, 3)
    for index, ids in enumerate(planes.ids):
        assert np.array_equal(table[:, index, : len(ids)].T, ids)
        assert (table[:, index, len(ids):] == 0).all()


def test_no_document_makes_no_block() -> None:
    assert len(lay_out(planes_of([3]), [], 4)) == 0
    assert list(lay_out(planes_of([3]), [], 4).batches(2)) == []


@pytest.mark.parametrize("size", [1, 7])
def test_blocks_cover_a_document_of_one_token(size: int) -> None:
    assert lay_out(planes_of([1]), [0], size).row_NS.tolist() == [[0] + [-1] * (size - 1)]
