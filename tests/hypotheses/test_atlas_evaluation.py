"""The atlas described: tables against numpy, scipy and loops over tokens; counts give the same points and no interval."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from analysis.atlas_controls import AtlasPlan
from analysis.metrics.usage import SEED_ROW
from analysis.registry import find
from hypotheses.atlas_evaluation import describe, separated
from hypotheses.atlas_evidence import AtlasEvidence, AtlasSettings
from tests.hypotheses.atlas_worlds import counts_of, world
from tests.hypotheses.topology_worlds import corpus
from tests.references.memory_trace import MemoryTrace

FAST = AtlasSettings(n_permutations=199, lags=(1, 2), threads=1)
PLAN = AtlasPlan(0.8, 0.3, 0.2)


@pytest.fixture(scope="module")
def trace():
    """Three domains of unlike sizes; every document is judged."""
    base = corpus(domains=3, test=22, calibration=0, length=40, layers=3, experts=8, k=2)
    documents = [row for row in base.documents if row.domain != "domain2" or row.document % 2]
    kept = {row.document for row in documents}
    shards = [replace(batch, document=batch.document[rows], position=batch.position[rows], token_id=batch.token_id[rows],
                      ids=tuple(ids[rows] for ids in batch.ids)) for batch in base.batches() for rows in [np.isin(batch.document, list(kept))]]
    return world(PLAN, base=MemoryTrace(base.meta, documents, shards))


@pytest.fixture(scope="module")
def found(trace):
    return describe(AtlasEvidence(trace, replace(FAST)))


@pytest.fixture(scope="module")
def tables(trace):
    """Selections by domain and expert of each layer, counted token by token."""
    return counts_of(trace).counts


def rows_of(table, **chosen):
    names = list(table)
    every = [dict(zip(names, values)) for values in zip(*table.values())]
    return [row for row in every if all(row[name] == value for name, value in chosen.items())]


def test_usage_is_the_seeds_beside_its_null(found, tables):
    by_seed = {one.seed: one.id for name in set(found.tables["usage"]["statistic"]) for one in [find(name)] if one.seed}
    assert set(SEED_ROW) <= set(by_seed)
    for layer, table in enumerate(tables):
        n = table.sum(axis=0)
        (cv,) = rows_of(found.tables["usage"], layer=layer, statistic="usage_cv")
        assert cv["seed"] == pytest.approx(n.std() / n.mean()) and cv["low"] < cv["seed"] < cv["high"] and cv["null"] < cv["seed"]
        assert cv["excess"] == pytest.approx(cv["seed"] - cv["null"]) and cv["n_selections"] == n.sum()
        (entropy,) = rows_of(found.tables["usage"], layer=layer, statistic="usage_entropy_bits")
        assert entropy["seed"] == pytest.approx(stats.entropy(n, base=2)) and entropy["seed"] < entropy["null"] <= 3
        assert [row["n"] for row in rows_of(found.tables["loads"], layer=layer)] == n.tolist()


def test_what_is_left_out_is_a_caveat(trace):
    details = {"rows_left_out_first": 16, "moe_layers_of_model": 5}
    said = describe(AtlasEvidence(replace(trace, meta=replace(trace.meta, details=details)), FAST)).facts["caveats"]
    assert "the first 16 rows of every document are left out" in said
    assert any(one.startswith("2 of the model's 5 MoE layers are not in the trace") for one in said)


def test_no_interval_goes_beyond_what_its_statistic_can_be():
    """An expert of one document is in use; an end of the bootstrap, reflected at the value, would be 9 of 8 experts."""
    base = world(PLAN, base=corpus(domains=2, test=20, calibration=0, length=40, layers=1, experts=8, k=1))
    shards = []
    for batch in base.shards:
        ids = np.where((batch.ids[0] == 7) & (batch.document != 0)[:, None], 0, batch.ids[0])
        ids[batch.document == 0, 0] = 7
        shards.append(replace(batch, ids=(ids.astype(np.uint8),)))
    usage = describe(AtlasEvidence(MemoryTrace(base.meta, base.documents, shards), FAST)).tables["usage"]
    (active,) = rows_of(usage, statistic="usage_active")
    assert (active["value"], active["high"]) == (8.0, 8.0) and active["low"] <= 8
    (diversity,) = rows_of(usage, statistic="usage_diversity")
    assert diversity["high"] == 1.0


def test_association_is_scipys_and_marked_naive(found, tables):
    for layer, table in enumerate(tables):
        (row,) = rows_of(found.tables["association"], layer=layer)
        chi2, p, df, _ = stats.chi2_contingency(table)
        assert (row["chi2_seed"], row["df"]) == pytest.approx((chi2, df)) and row["p_seed"] == pytest.approx(p, abs=1e-12)
        assert row["V_seed"] == pytest.approx(stats.contingency.association(table, "cramer"))
        balanced = table / table.sum(axis=1, keepdims=True) / 3
        want = sum(stats.entropy(one, base=2) for one in (balanced.sum(axis=0), balanced.sum(axis=1))) - stats.entropy(balanced.ravel(), base=2)
        assert row["mi_seed"] == pytest.approx(want) and row["mi"] < row["mi_seed"] and row["mi_low"] < row["mi"] < row["mi_high"]
        assert row["avg_variance_seed"] == pytest.approx((table / table.sum(axis=1, keepdims=True)).var(axis=0, ddof=1).mean())
        assert row["p"] in (row["p_permutation"], row["p_rao_scott"]) and row["p"] < 0.01 and row["status"] == "tested"


def test_domains_are_those_of_the_counts(found, tables):
    for layer, table in enumerate(tables):
        share = table / table.sum(axis=1, keepdims=True)
        for d in range(3):
            (entropy,) = rows_of(found.tables["domain_entropy"], layer=layer, domain=f"domain{d}")
            assert entropy["seed"] == pytest.approx(stats.entropy(table[d], base=2))
            (top,) = rows_of(found.tables["top_experts"], layer=layer, domain=f"domain{d}")
            best = np.argsort(-table[d], kind="stable")[:5]
            assert top["experts"] == ", ".join(map(str, best)) and top["share_seed"] == pytest.approx(share[d, best].sum())
        for row in rows_of(found.tables["experts"], layer=layer):
            assert row["p_e_given_d"] == pytest.approx(share[:, row["expert"]].max())
            assert row["p_d_given_e"] == pytest.approx(share[:, row["expert"]].max() / share[:, row["expert"]].sum())
            assert row["cv_seed"] == pytest.approx(table[:, row["expert"]].std(ddof=1) / table[:, row["expert"]].mean())
        assert sum(row["label_seed"] == "specialist" for row in rows_of(found.tables["experts"], layer=layer)) == 2  # a quarter of 8, always


def test_the_overview_counts(found, trace):
    overview = rows_of(found.tables["overview"])
    assert [row["documents"] for row in overview] == [22, 22, 11]
    n = {f"domain{d}": 0 for d in range(3)}
    domain = {row.document: row.domain for row in trace.documents}
    for batch in trace.batches():
        for one in batch.document.tolist():
            n[domain[one]] += 1
    assert {row["domain"]: row["tokens"] for row in overview} == n
    assert all(row["activations"] == row["tokens"] * 3 * 2 for row in overview)


def test_the_timeline_adds_up_to_the_loads(found, tables):
    for layer, table in enumerate(tables):
        rows = rows_of(found.tables["timeline"], layer=layer)
        n = np.zeros(8)
        for row in rows:
            n[row["expert"]] += row["n"]
        assert n.tolist() == table.sum(axis=0).tolist()
        starts = sorted({row["start"] for row in rows})
        assert len(starts) <= 24 and all(np.isclose(sum(row["share"] for row in rows if row["start"] == start), 1) for start in starts)


def test_sample_paths_are_rows_of_the_trace(found, trace):
    sample = found.tables["sample_paths"]["sample"]
    assert len(set(sample)) == 4 and {row["domain"] for row in rows_of(found.tables["sample_paths"])} == {"domain0", "domain1", "domain2"}
    number = next(row.document for row in trace.documents if row.id == sample[0])
    for batch in trace.batches():
        mine = batch.document == number
        if mine.any():
            path = rows_of(found.tables["sample_paths"], sample=sample[0], layer=2)
            assert [row["expert"] for row in path] == batch.ids[2][mine, 0].tolist()[:64]


def test_agreement_by_type_splits_all_pairs(found):
    rows = rows_of(found.tables["repeats_by_type"], layer=1)
    pairs = rows_of(found.tables["autocorrelation"], layer=1, lag=1)[0]["n_pairs"]
    assert sum(row["n_pairs"] for row in rows) == pairs and all(row["kappa"] is not None for row in rows)


def test_separated_layers_come_in_order(found):
    mi = found.tables["association"]["mi"]
    assert found.facts["separated"] == np.argsort(-mi).tolist()
    assert separated({"layer": np.arange(7), "mi": np.array([3.0, np.nan, 9, 1, 2, 8, 5])}, "mi") == [2, 5, 6, 0, 4]
    assert separated({}, "mi") == []


def test_deeper_layers_that_separate_more_are_seen():
    base = corpus(domains=3, test=40, calibration=0, length=40, layers=2)
    near, far = world(AtlasPlan(0.2, 0.1), base=base), world(AtlasPlan(1.2, 0.1), base=base)
    mixed = MemoryTrace(base.meta, base.documents, [replace(a, ids=(a.ids[0], b.ids[1])) for a, b in zip(near.shards, far.shards)])
    one = describe(AtlasEvidence(mixed, FAST)).estimates["mi_E_D_late_minus_early"]
    assert one.low > 0.02


def test_counts_give_the_same_points_without_intervals(trace, found):
    alone = describe(AtlasEvidence(counts_of(trace), FAST))
    for name in ("chi2_seed", "V_seed", "mi_seed", "avg_variance_seed"):
        assert alone.tables["association"][name] == pytest.approx(found.tables["association"][name])
    assert np.isnan(alone.tables["association"]["mi_low"]).all() and np.isnan(alone.tables["association"]["p"]).all()
    assert set(alone.tables["association"]["status"]) == {"untestable"}
    assert alone.tables["usage"]["seed"][:10] == pytest.approx(found.tables["usage"]["seed"][:10])
    assert np.isnan(alone.tables["usage"]["low"]).all() and not np.isnan(alone.tables["usage"]["null"]).all()
    assert set(alone.tables["experts"]["label"]) == {"undetermined"} and all("counts" in one for one in alone.tables["experts"]["reason"])
    for name in ("transition_matrix", "timeline", "sample_paths", "repetition", "sequence"):
        assert not len(next(iter(alone.tables[name].values())))
    assert "no tokens" in alone.estimates["lag_kappa"].reason


def test_components_that_differ_are_counted_apart(trace):
    changes = [["domain0", 1, "ffn_up", 3, 2], ["domain0", 1, "ffn_up", 5, -2]]
    meta = replace(trace.meta, details={"components": {"recorded": ["ffn_down", "ffn_up"], "differences": changes}})
    found = describe(AtlasEvidence(MemoryTrace(meta, trace.documents, trace.shards), FAST))
    assert set(found.tables["components"]["layer"].tolist()) == {1}
    n = {(row["component"], row["expert"]): row["n"] for row in rows_of(found.tables["components"], domain="domain0")}
    assert n["ffn_up", 3] == n["ffn_down", 3] + 2 and n["ffn_up", 5] == n["ffn_down", 5] - 2 and n["ffn_up", 0] == n["ffn_down", 0]


def test_components_are_not_compared_where_some_documents_are_not_judged():
    base = world(PLAN, domains=2, test=4, calibration=2, layers=2)
    details = {"components": {"recorded": ["down", "up"], "differences": [["domain0", 1, "up", 3, 2]]}}
    found = describe(AtlasEvidence(MemoryTrace(replace(base.meta, details=details), base.documents, base.shards), FAST))
    assert not len(found.tables["components"]["layer"]) and "not judged" in found.facts["components_reason"]


def test_components_are_not_compared_where_rows_are_left_out(trace):
    """Their differences are counted over all rows: beside the rest they would be wrong, or below 0."""
    details = {"components": {"recorded": ["down", "up"], "differences": [["domain0", 1, "up", 3, -10**9]]}, "rows_left_out_first": 2}
    found = describe(AtlasEvidence(MemoryTrace(replace(trace.meta, details=details), trace.documents, trace.shards), FAST))
    assert not len(found.tables["components"]["layer"]) and "first 2 of every document are left out" in found.facts["components_reason"]


def test_layers_of_unlike_k_are_rarefied():
    base = corpus(domains=2, test=22, calibration=0, length=30, layers=2)
    wide = world(PLAN, base=base)
    layers = (wide.meta.layers[0], replace(wide.meta.layers[1], top_k=1))
    mixed = MemoryTrace(replace(wide.meta, layers=layers), wide.documents, [replace(one, ids=(one.ids[0], one.ids[1][:, :1])) for one in wide.shards])
    found = describe(AtlasEvidence(mixed, FAST))
    table = found.tables["usage_rarefied"]
    assert len(set(table["n_selections"].tolist())) == 1 and len(table["layer"]) == 6
    assert found.by_layer["repetition_any"][1].reason.startswith("k=1")


def test_one_document_per_domain_leaves_usage_its_intervals():
    found = describe(AtlasEvidence(world(PLAN, domains=12, test=1, calibration=0, length=120), FAST))
    (cv,) = rows_of(found.tables["usage"], layer=0, statistic="usage_cv")
    assert np.isfinite(cv["low"]) and cv["reason"].startswith("too_few_documents")
    assert found.estimates["association_p"].value is None and set(found.tables["association"]["status"]) == {"untestable"}


def test_one_domain_and_one_layer_are_described():
    found = describe(AtlasEvidence(world(PLAN, domains=1, layers=1), FAST))
    assert not len(found.tables["association"]["layer"]) and not len(found.tables["experts"]["layer"])
    assert "one domain" in found.estimates["mi_E_D"].reason and found.facts["separated"] == []
    assert len(found.tables["usage"]["layer"]) == 20 and len(found.tables["domain_entropy"]["layer"]) == 1
