import numpy as np
import pytest

from analysis import nulls
from analysis.counts import CountPlan, accumulate
from analysis.nulls import NullPlan, permuted_entropy_sums
from tests.analysis.test_counts import renumbered
from tests.references.memory_trace import Shape, sample_trace

SHAPE = Shape(n_test=30, n_calibration=4, n_train=3, length=40, vocabulary=30)
TRACE, _ = sample_trace(2, SHAPE)
PLAN = NullPlan("test", 12, 0)
TYPES = np.arange(30)


def draws(trace=TRACE, plan=PLAN):
    return np.concatenate([sums for _, sums in permuted_entropy_sums(trace, plan, TYPES)], axis=1)


def counts():
    return accumulate(TRACE, CountPlan("test", "0", np.array([[0.5, 0.5]])))


def test_permuting_moves_entropies_between_types_and_loses_none():
    sums = draws()
    assert (sums.sum(axis=2) == counts().entropy_LV.sum(axis=1)).all()
    assert len({row.tobytes() for row in sums[:, 0]}) == 12


def test_the_null_keeps_the_composition_of_documents_and_bands():
    """Mean over draws of a type's mean entropy is what its occurrences would have if each took the mean of its document and band."""
    expected, n = np.zeros((2, 30)), np.zeros(30)
    for batch in TRACE.batches(split="test"):
        band = np.searchsorted([0, 1, 4, 16, 64], batch.position, side="right")
        for cell in {(d, b) for d, b in zip(batch.document.tolist(), band.tolist())}:
            rows = (batch.document == cell[0]) & (band == cell[1])
            for v in batch.token_id[rows]:
                expected[:, v] += batch.entropy_nats[:, rows].mean(axis=1)
                n[v] += 1
    seen = n >= 50
    drawn = draws(plan=NullPlan("test", 400, 0)).mean(axis=0) / 2.0**32
    assert drawn[:, seen] / n[seen] == pytest.approx(expected[:, seen] / n[seen], abs=0.02)


def test_draws_depend_on_no_shard_order_document_number_or_layer_chunk(monkeypatch):
    plain = draws()
    assert (draws(renumbered(TRACE, 3)) == plain).all()
    monkeypatch.setattr(nulls, "ACCUMULATOR_BYTES", 1)
    assert (draws() == plain).all()


def test_both_backends_draw_alike():
    assert (draws(plan=NullPlan("test", 12, 0, n_rows=10**9)) == draws()).all()


def test_a_band_permutes_only_its_own_rows():
    whole = sum(draws(plan=NullPlan("test", 3, 0, band)) for band in range(5))
    assert (whole == draws(plan=NullPlan("test", 3, 0))).all()
