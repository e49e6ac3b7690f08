"""Traces made to mislead: what must not appear does not, what has no answer says so, what must not matter does not (metrics specification 8).

D document, T token, L layer, K slot, E expert, V token type.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analysis.domain_labels import DomainDocuments, domain_estimates
from analysis.estimation import Groups, estimates
from analysis.loads import document_loads
from analysis.metrics.association import association_tests
from analysis.metrics.consistency import collision_v, modal_share_rarefied, modal_share_seed
from analysis.metrics.entropy import h_full, probabilities
from analysis.metrics.joint_tables import soft_counts
from analysis.metrics.prediction import PredictionTables, ScoredDocuments, compare_predictor, prediction_counts
from analysis.metrics.specialists import SPECIALIST, UNDETERMINED, classify_experts
from analysis.pair_counts import PairPlan, accumulate_pairs
from analysis.registry import Metric, every
from analysis.resampling import generator
from analysis.survey import Row, SurveyPlan, survey
from analysis.trace import DocumentRow, LayerMeta, TraceBatch, TraceMeta
from tests.analysis.examples import KINDS
from tests.calibration.worlds import ApartWorld
from tests.references.memory_trace import MemoryTrace

PLAN = SurveyPlan(n_shifts=99)


def trace_of(layers: Sequence[np.ndarray], n_experts: Sequence[int], lengths: Sequence[int], *, domains: Sequence[str] = ("a",),
             names: Sequence[str] | None = None, dropped: Sequence[np.ndarray | None] | None = None, shards: int = 1) -> MemoryTrace:
    """A test split of whole documents: ids [T, K] of each layer; domains are dealt in turn."""
    table = tuple(LayerMeta(f"layer.{i}", i, "decoder", e, ids.shape[1]) for i, (ids, e) in enumerate(zip(layers, n_experts)))
    meta = TraceMeta("made up", "0", table, "softmax", "softmax_logits", "renormalised top-k", "0", 64, "tests")
    rows = [DocumentRow(i, names[i] if names else f"document {i}", domains[i % len(domains)], "test") for i in range(len(lengths))]
    document = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    position = np.concatenate([np.arange(n) for n in lengths] or [np.zeros(0)]).astype(np.int32)
    batches = []
    for part in np.array_split(np.arange(len(lengths)), shards):
        kept = np.isin(document, part)
        lost = None if dropped is None else tuple(None if one is None else one[kept].astype(np.uint8) for one in dropped)
        batches.append(TraceBatch(document[kept], position[kept], position[kept] % 64,
                                  tuple(ids[kept].astype(layer.id_dtype) for ids, layer in zip(layers, table)), dropped=lost))
    return MemoryTrace(meta, rows, batches)


def surveyed(trace: MemoryTrace, **changes: Any) -> list[Row]:
    """The survey, of which every number is finite and every absence has its reason."""
    rows = list(survey(trace, replace(PLAN, **changes)))
    for row in rows:
        json.dumps(row.to_json(), allow_nan=False)
        assert row.estimate.value is not None or row.estimate.reason
    return rows


def found(rows: list[Row], metric: str, layer: str | None = None) -> list[Row]:
    return [row for row in rows if row.metric == metric and (layer is None or row.layers[0] == layer)]


def one(rows: list[Row], metric: str, layer: str | None = None) -> Row:
    return found(rows, metric, layer)[0]


def routed(rng: np.random.Generator, n_tokens: int, n_experts: int, k: int, skew: float = 1.0) -> np.ndarray:
    """Sets of k distinct experts [T, k] with unequal loads."""
    return np.argsort(rng.random((n_tokens, n_experts)) ** (1 / (1 + skew * np.arange(n_experts))), axis=1)[:, ::-1][:, :k]


def stream(seed: int = 0, n_documents: int = 40, layers: Sequence[tuple[int, int]] = ((8, 2), (8, 2)), **fields: Any) -> MemoryTrace:
    """Random routing, the second layer partly a copy of the first where it can be."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(30, 60, n_documents).tolist()
    ids = [routed(rng, sum(lengths), e, k) for e, k in layers]
    return trace_of(ids, [e for e, _ in layers], lengths, **{"domains": ("a", "b"), **fields})


# What must not be found.

def test_topics_alone_are_no_coupling_of_tokens() -> None:
    documents = ApartWorld(n_documents=60).draw(np.random.default_rng(3))
    trace = trace_of([np.asarray(first)[:, None] for first in documents.first_L], [8, 8], [64] * 60)
    rows = surveyed(trace, sections=("layers",))
    pooled, excess = one(rows, "mi_first_choice").estimate, one(rows, "mi_excess").estimate
    assert pooled.low is not None and pooled.low > 0.02
    assert excess.low is not None and excess.high is not None and excess.low <= 0 <= excess.high and excess.high < pooled.low
    assert excess.p is not None and excess.p > 0.05 and excess.null == pytest.approx(pooled.plug_in, abs=0.05)


def test_a_permuted_predictor_has_all_the_information_and_no_accuracy() -> None:
    rng = np.random.default_rng(0)
    group, actual = np.repeat(np.arange(40), 50), rng.integers(0, 6, 2000)
    tables = {name: PredictionTables(prediction_counts(guess, actual, 6, group, 40))
              for name, guess in {"permuted": (actual + 1) % 6, "modal": np.zeros(2000, np.int64)}.items()}
    outcome = compare_predictor(tables.pop("permuted"), tables, ScoredDocuments(40))
    assert outcome.predictor.u.plug_in == pytest.approx(1.0) and outcome.predictor.accuracy.plug_in == 0.0
    assert outcome.gain.low is not None and outcome.gain.low > 0.1  # by information alone it would pass
    assert outcome.accuracy_gain.high is not None and outcome.accuracy_gain.high < 0


def test_ten_times_the_tokens_make_no_specialist() -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 8, (40, 30))
    layers = np.concatenate([np.tile(row, 1 if d % 2 else 10) for d, row in enumerate(np.repeat(ids[::2], 2, axis=0))])[:, None]
    trace = trace_of([layers], [8], [30 if d % 2 else 300 for d in range(40)], domains=("many", "few"))
    rows = surveyed(trace, sections=("domains",))
    assert one(rows, "mi_E_D").estimate.plug_in == pytest.approx(0, abs=1e-12)
    assert all(row.estimate.plug_in == pytest.approx(0, abs=1e-12) for row in found(rows, "specialisation_e"))
    assert one(rows, "V").estimate.plug_in == pytest.approx(0, abs=1e-6)
    loads = document_loads(trace, "test")
    documents = DomainDocuments(loads.selected, loads.domain, 2)
    assert all(expert.label != SPECIALIST for expert in classify_experts(documents, generator(0, "classes"), n_draws=99))
    assert (every()["cv_domains_seed"].function(documents.table()) > 1).all()  # the seed's form calls every expert a specialist


def test_types_of_one_law_look_consistent_only_to_the_seed() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(2)
    n = np.round(2000 / np.arange(1, 2001)).astype(np.int64)
    table = rng.multinomial(n, np.full(8, 1 / 8))
    frequent = n >= 50
    artefact, honest = spearmanr(n, modal_share_seed(table))[0], spearmanr(n[frequent], modal_share_rarefied(table)[frequent])[0]
    assert artefact < -0.85 and abs(honest) < 0.3
    assert np.average(collision_v(table)[n > 1], weights=(n * (n - 1))[n > 1]) == pytest.approx(1 / 8, abs=0.005)


def test_a_domain_of_one_document_is_not_tested() -> None:
    rows = surveyed(stream(3, 4, domains=("a", "b", "c", "d")), sections=("domains",))
    information = one(rows, "mi_E_D").estimate
    assert information.plug_in is not None and information.low is None and "one_document_per_domain" in str(information.gate)
    loads = document_loads(stream(3, 4, domains=("a", "b", "c", "d")), "test")
    documents = DomainDocuments(loads.selected, loads.domain, 4)
    test = association_tests(documents, generator(0, "association"), n_draws=99)[0]
    assert test.status == "untestable" and test.p_permutation is None and test.naive_p is not None
    assert {expert.label for expert in classify_experts(documents, generator(0, "classes"), n_draws=99)} == {UNDETERMINED}


# What has no answer, or an exact one.

def test_all_tokens_to_one_expert() -> None:
    rows = surveyed(trace_of([np.zeros((900, 1), int)] * 2, [8, 8], [30] * 30, domains=("a", "b")))
    assert one(rows, "usage_cv").estimate.plug_in == pytest.approx(7**0.5) and one(rows, "usage_entropy_bits").estimate.plug_in == 0
    for metric in ("mi_first_choice", "mi_excess", "mi_E_D", "lag_mi", "transition_rate"):
        assert one(rows, metric).estimate.plug_in == 0, metric
    for metric in ("u", "lag_kappa", "V", "usage_skewness", "autocorrelation_of_ids_seed"):
        assert (one(rows, metric).estimate.value is None) == (metric != "usage_skewness"), metric
    assert one(rows, "same_expert").estimate.value == 1 and one(rows, "usage_active").estimate.value == 1


def test_k_of_one_has_no_sets() -> None:
    rows = surveyed(stream(4, layers=((8, 1), (8, 1))))
    assert not found(rows, "mi_set") and not found(rows, "lag_overlap_kappa")
    counts = np.bincount(stream(4, layers=((8, 1), (8, 1))).shards[0].ids[0][:, 0], minlength=8)
    for metric in ("coactivation", "coact_lift", "coactivation_jaccard"):
        assert np.isnan(every()[metric].function(np.diag(counts))).all(), metric
    assert np.isnan(every()["h_topk"].function(np.ones((5, 1)))).all()


def test_k_of_all_experts_is_constant() -> None:
    rows = surveyed(stream(5, layers=((4, 4), (4, 4))))
    for metric in ("mi_set", "mi_slot_average", "mi_E_D", "V"):
        assert one(rows, metric).estimate.plug_in == pytest.approx(0, abs=1e-9), metric
    assert one(rows, "lag_overlap_kappa").estimate.value is None
    assert one(rows, "usage_cv").estimate.value == pytest.approx(0, abs=1e-9)
    joint = accumulate_pairs(stream(5, layers=((4, 4), (4, 4))), PairPlan("test", "0", ((0, 1),), variant="slots")).total((0, 1))
    assert np.isnan(every()["mi_slot_average_ratio"].function(joint, joint))


def test_an_empty_layer_is_undefined_not_zero() -> None:
    trace = stream(6, layers=((8, 2), (8, 2)))
    lost = np.full(len(trace.shards[0]), 3)
    gone = replace(trace.shards[0], dropped=(np.zeros_like(lost, dtype=np.uint8), lost.astype(np.uint8)))
    loads = document_loads(MemoryTrace(trace.meta, trace.documents, [gone]), "test")
    assert loads.drop_rate == (0.0, 1.0)
    rows = surveyed(MemoryTrace(trace.meta, trace.documents, [gone]), sections=("usage",))
    collapse = [row.estimate for row in found(rows, "collapse_rate")]
    assert collapse[0].value is not None and collapse[1].value is None and "no executed selections" in str(collapse[1].reason)
    for metric in ("mi_first_choice", "u", "mi_slot_average"):
        nothing = estimates(metric, Groups((np.zeros((5, 8, 8), np.int64),), 5)).item()
        assert nothing.value is None and nothing.reason


def test_a_document_without_tokens_changes_nothing() -> None:
    rng = np.random.default_rng(7)
    ids = [routed(rng, 1200, 8, 2) for _ in range(2)]
    whole = surveyed(trace_of(ids, [8, 8], [30] * 40, domains=("a", "b")))
    values = {(row.metric, row.layers, row.part): row.estimate.plug_in for row in whole}
    empty = surveyed(trace_of(ids, [8, 8], [30] * 40 + [0, 0], domains=("a", "b")))
    seen = {(row.metric, row.layers, row.part): row.estimate.plug_in for row in empty}
    assert seen.keys() == values.keys()
    for key, value in values.items():
        if "excess" not in key[0] and "purity" not in key[0]:
            assert seen[key] == pytest.approx(value, abs=1e-12), key


def test_layers_may_differ_in_experts() -> None:
    trace = stream(8, layers=((8, 2), (16, 1), (4, 3)))
    rows = surveyed(trace)
    assert [row.n_experts for row in found(rows, "usage_cv")] == [8, 16, 4]
    groups = accumulate_pairs(trace, PairPlan("test", "0", ((0, 1), (1, 2)))).groups((1, 2))
    assert groups.totals[0].shape == (16, 4)
    information = found(rows, "mi_first_choice")
    assert len(information) == 3 and all(row.estimate.plug_in is not None for row in information)
    assert one(rows, "usage_gini", "layer.1").estimate.value is not None


def test_a_domain_missing_at_one_layer_is_missing_there_only() -> None:
    rng = np.random.default_rng(9)
    domain = np.arange(60) % 3
    first, second = rng.poisson(5, (2, 60, 8))
    second[domain == 2] = 0
    documents = DomainDocuments((first, second), domain, 3)
    here, there = (domain_estimates("mi_E_D", documents, layer).item() for layer in (0, 1))
    assert here.value is not None and here.low is not None and there.value is None and there.reason
    tests = association_tests(documents, generator(0, "association"), n_draws=99)
    assert tests[0].p_permutation is not None and tests[1].p_permutation is None and tests[1].reason
    assert np.isnan(every()["specialisation_e"].function(documents.table(1))).all()


# What must not matter.

def test_shards_document_numbers_and_file_order_change_nothing() -> None:
    trace = stream(10, layers=((8, 2), (16, 1)), shards=3)
    number = np.random.default_rng(0).permutation(len(trace.documents)).astype(np.int32)
    documents = sorted((replace(row, document=int(number[row.document])) for row in trace.documents), key=lambda row: row.document)
    shards = [replace(shard, document=number[shard.document]) for shard in trace.shards[::-1]]
    again = surveyed(MemoryTrace(trace.meta, documents, shards))
    assert [row.to_json() for row in again] == [row.to_json() for row in surveyed(trace)]


def test_duplicated_documents_leave_estimates_and_shrink_errors() -> None:
    rng = np.random.default_rng(11)
    ids = [routed(rng, 1200, 8, 2) for _ in range(2)]
    once = surveyed(trace_of(ids, [8, 8], [30] * 40, domains=("a", "b")), sections=("layers", "sequence", "domains"))
    twice = surveyed(trace_of([np.concatenate([one, one]) for one in ids], [8, 8], [30] * 80, domains=("a", "b")),
                     sections=("layers", "sequence", "domains"))
    checked = 0
    for before, after in zip(once, twice, strict=True):
        if before.metric in ("mi_first_choice", "mi_slot_average", "same_expert", "lag_kappa", "transition_diversity", "mi_E_D", "domain_entropy"):
            assert after.estimate.plug_in == pytest.approx(before.estimate.plug_in, abs=1e-12)
            assert before.estimate.se is not None and after.estimate.se == pytest.approx(before.estimate.se / 2**0.5, rel=0.15)
            checked += 1
    assert checked > 8


def test_relabelled_experts_change_no_row_of_a_survey() -> None:
    trace = stream(12, layers=((8, 2), (6, 1)))
    order = [np.random.default_rng(i).permutation(layer.n_experts) for i, layer in enumerate(trace.meta.layers)]
    renamed = replace(trace.shards[0], ids=tuple(new[ids].astype(ids.dtype) for new, ids in zip(order, trace.shards[0].ids)))
    before, after = surveyed(trace), surveyed(MemoryTrace(trace.meta, trace.documents, [renamed]))
    new_name = {(f"layer.{i}", f"expert {old}"): f"expert {new}" for i, names in enumerate(order) for old, new in enumerate(names)}
    values = {(row.metric, row.estimand, row.layers, row.part): row.estimate for row in after}
    for row in before:
        other = values[row.metric, row.estimand, row.layers, new_name.get((row.layers[0], row.part), row.part)]
        if row.metric == "autocorrelation_of_ids_seed":
            assert abs(row.estimate.value - other.value) > 1e-6  # ids are names, and it reads them as numbers
        elif row.estimate.value is None:
            assert other.reason == row.estimate.reason
        else:
            assert other.plug_in == pytest.approx(row.estimate.plug_in, abs=1e-9), row.metric
            assert (other.low is None) == (row.estimate.low is None)


EXPERT_AXES = {
    **dict.fromkeys(("weights_E", "counts_E", "counts_DE", "folds_FDE", "moments_SDE", "types_VE", "frequent_VE", "logits_TE", "p_TE", "sets_TE",
                     "lag_sources_E", "lag_targets_E", "two_sources_E", "two_targets_E"), (-1,)),
    **dict.fromkeys(("shifts_RXY", "joint_XY", "square_XX", "halves_FXY", "joint_VXY", "coactivation_EE", "consecutive_EE", "indicators_XY"),
                    (-2, -1)),
    **dict.fromkeys(("vectors_Ed", "counts_EV", "shuffles_REV"), (-2,)),
    **dict.fromkeys(("tokens", "right", "part", "whole", "counts_V", "entropy_V", "weights_TK", "vectors_Td", "found_of", "lag_matches", "lag_pairs",
                     "overlap_sizes_M", "n_clusters", "labels_T", "two_sizes_M", "order_repeats", "order_shuffled", "order_pairs"), ()),
}


def relabelled(kind: str, argument: Any) -> Any:
    """An argument with its experts renamed: the same new names for axes of the same length."""
    if kind == "labels_T":
        return np.where(np.asarray(argument) >= 0, 3 - np.asarray(argument), -1)
    if kind in ("two_source_pairs_P", "two_target_pairs_P"):  # unordered pairs of experts
        n = round((1 + (1 + 8 * np.shape(argument)[-1]) ** 0.5) / 2)
        low, high = np.triu_indices(n, 1)
        table = np.zeros((*np.shape(argument)[:-1], n, n))
        table[..., low, high] = table[..., high, low] = argument
        order = np.random.default_rng(n).permutation(n)
        return table[..., order[:, None], order][..., low, high]
    out = argument
    for axis in EXPERT_AXES[kind]:
        n = np.shape(out)[axis] - (kind == "indicators_XY")  # whose last indicator is that of all tokens
        order = np.random.default_rng(n).permutation(n)
        out = np.take(out, np.r_[order, np.arange(n, np.shape(out)[axis])], axis=axis)
    return out


@pytest.mark.parametrize("metric", list(every().values()), ids=lambda one: one.id)
def test_no_registered_metric_reads_the_names_of_experts(metric: Metric) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        arguments = [KINDS[kind](rng, ()) for kind in metric.takes]
        if metric.id == "top5_share":  # whose ties go to the lowest id
            arguments = [1000 * np.asarray(one) + rng.permutation(np.size(one)).reshape(np.shape(one)) for one in arguments]
        value = np.asarray(metric.function(*arguments), np.float64)
        renamed = np.asarray(metric.function(*(relabelled(kind, one) for kind, one in zip(metric.takes, arguments))), np.float64)
        if metric.id == "autocorrelation_of_ids_seed":
            assert abs(float(value - renamed)) > 1e-9
        else:
            np.testing.assert_allclose(np.sort(renamed, axis=None), np.sort(value, axis=None), atol=1e-9)


# Router outputs that are not what they should be.

def test_float16_probabilities_are_renormalised_and_their_deviation_kept() -> None:
    logits = np.random.default_rng(13).normal(0, 2, (500, 64))
    exact = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rough = exact.astype(np.float16)
    rows, deviation = probabilities(rough)
    assert 0 < deviation < 2e-3 and deviation == pytest.approx(np.abs(rough.astype(np.float64).sum(axis=1) - 1).max())
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-12)
    table = soft_counts(rough, rough)
    assert table.largest_deviation == pytest.approx(deviation) and table.joint_XY.sum() == pytest.approx(500)
    with pytest.raises(ValueError, match="declare"):
        probabilities(0.9 * exact)
    with pytest.raises(ValueError, match="not finite"):
        probabilities(np.where(exact > 0.5, np.nan, exact))


def test_masked_experts_carry_no_probability() -> None:
    logits = np.array([[0.0, 0.0, -np.inf, -np.inf], [1.0, -np.inf, -np.inf, -np.inf], [0.0, 0.0, 0.0, 0.0]])
    with np.errstate(all="raise"):
        np.testing.assert_allclose(h_full(logits), [np.log(2), 0.0, np.log(4)], atol=1e-12)
        assert np.isnan(h_full(np.full((1, 4), -np.inf))).all()
