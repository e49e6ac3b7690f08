import numpy as np
import pytest
from scipy.sparse import csr_matrix

from analysis.counts import CountPlan, accumulate
from analysis.kernels import from_fixed
from analysis.metrics.fastpath import FastPathEffect, eligible, fast_path_point, fastpath_coverage, lookup_tables
from analysis.rows import whole_documents
from analysis.trace import DocumentRow, TraceBatch
from tests.references.cases import case
from tests.references.memory_trace import MemoryTrace, Shape, meta, sample_trace
from tests.references.slow_counts import slow_table

SHAPE = Shape(n_test=20, n_calibration=20, n_train=3, length=40, vocabulary=20, n_layers=2)
TRACE, _ = sample_trace(5, SHAPE)
LIMITS = np.array([0.7, 0.7])


def counted(split, trace=TRACE, limits=LIMITS):
    return accumulate(trace, CountPlan(split, "0", limits[None]))


def test_the_seeds_rule_e11():
    given, expected = case("E11")
    types = np.repeat(np.arange(5), given["frequency"])
    entropy = np.repeat(given["mean_entropy_nats"], given["frequency"]).astype(np.float32)[None]
    ids = np.zeros((len(types), 1), np.uint8)
    rows = TraceBatch(np.zeros(len(types), np.int32), np.arange(len(types), dtype=np.int32), types.astype(np.int32), (ids,), None, entropy)
    trace = MemoryTrace(meta(1, 8, 1, 5), [DocumentRow(0, "d", "a", "calibration")], [rows])
    counts = counted("calibration", trace, np.array([given["entropy_threshold"]]))
    chosen = eligible(counts, given["frequency_threshold"], np.array([given["entropy_threshold"]]))[0]
    assert chosen.tolist() == expected["eligible"] and chosen.mean() == expected["eligible_type_fraction"]
    assert counts.n_V[chosen].sum() / counts.n_tokens == expected["occurrence_coverage"]
    assert (counts.mean_entropy_LV[0] < given["entropy_threshold"]).mean() == expected["low_entropy_type_fraction"]
    assert counts.below_HLD[0, 0].sum() / counts.n_tokens == expected["low_entropy_occurrence_fraction_if_all_tokens_at_mean"]


def test_the_table_holds_the_experts_of_largest_weight():
    calibration = counted("calibration")
    chosen = eligible(calibration, 20, LIMITS)
    slow = slow_table(TRACE, LIMITS, 20)
    for table, expected, row in zip(lookup_tables(calibration, chosen), slow, chosen):
        assert table.types.tolist() == sorted(expected) == np.flatnonzero(row).tolist() and len(expected) > 2
        assert {v: e.tolist() for v, e in zip(table.types.tolist(), table.experts)} == expected
        assert table.weights.sum(axis=1) == pytest.approx(1) and (np.diff(table.weights, axis=1) <= 0).all()


def test_the_effect_is_that_of_plain_loops():
    calibration, test = counted("calibration"), counted("test")
    tables = lookup_tables(calibration, eligible(calibration, 20, LIMITS))
    effect, unit_of, slow = FastPathEffect(tables, test), test.units.numbers(), slow_table(TRACE, LIMITS, 20)
    expected = np.zeros((2, 4))
    for batch in whole_documents(TRACE.batches(split="test")):
        effect.add(batch, unit_of[batch.document])
        for t in range(len(batch)):
            for layer in range(2):
                experts = slow[layer].get(int(batch.token_id[t]))
                if experts is not None:
                    ids, w = batch.ids[layer][t].tolist(), batch.weights[layer][t].astype(float)
                    outside = sum(x for x, e in zip(w, ids) if e not in experts) / w.sum()
                    expected[layer] += [1, ids[0] == experts[0], len(set(ids) & set(experts)), outside]
    sums = effect.sums.sum(axis=2)
    assert sums[:, :3].tolist() == expected[:, :3].astype(int).tolist()
    assert from_fixed(sums[:, 3]) == pytest.approx(expected[:, 3], abs=1e-6)


def test_no_eligible_type_gives_an_empty_table():
    calibration = counted("calibration")
    tables = lookup_tables(calibration, eligible(calibration, 10**6, LIMITS))
    assert all(table.types.size == 0 and table.experts.shape == (0, 2) for table in tables)
    assert csr_matrix(tables[0].weights).nnz == 0


def test_the_seeds_rule_on_counts_per_type_e11():
    given, expected = case("E11")
    found = fast_path_point(given["frequency"], given["mean_entropy_nats"], given["frequency_threshold"], given["entropy_threshold"])
    assert found.eligible.tolist() == expected["eligible"] and found.eligible_types == expected["eligible_types"]
    assert found.eligible_type_share == expected["eligible_type_fraction"] and found.coverage == expected["occurrence_coverage"]
    assert found.low_entropy_type_share == expected["low_entropy_type_fraction"]
    assert fastpath_coverage(250, 400) == found.coverage


def test_coverage_is_of_held_out_occurrences_and_eligibility_of_calibration():
    counts, entropy = np.array([100, 100, 0, 100]), np.array([0.1, 0.9, np.nan, 0.5])
    found = fast_path_point(counts, entropy, 50, 0.5, np.array([1, 2, 3, 4]))
    assert found.eligible.tolist() == [True, False, False, False] and found.coverage == 0.1
    assert found.eligible_type_share == pytest.approx(1 / 3)
    nothing = fast_path_point(counts, entropy, 50, 0.5, np.zeros(4))
    assert nothing.coverage is None and nothing.reason.startswith("no_data") and nothing.eligible_types == 1
    assert fast_path_point(np.zeros(2), np.full(2, np.nan), 50, 0.5).eligible_type_share is None
    with pytest.raises(ValueError, match="per type"):
        fast_path_point(counts, entropy[:2], 50, 0.5)
