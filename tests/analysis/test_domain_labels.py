"""Tables, groups, folds and estimates of documents with domains."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.domain_labels import (
    GROUPS_PER_DOMAIN,
    DomainDocuments,
    basic_estimates,
    basic_estimates_of,
    bootstrap_tables,
    document_tables,
    domain_estimates,
    domain_groups,
    domain_table,
    rank_in_domain,
)
from analysis.gates import ONE_DOCUMENT, SELECTION_BIASED, TOO_FEW_DOCUMENTS
from analysis.resampling import generator, t_quantile
from tests.references.cases import case


def documents(per_domain: tuple[int, ...] = (4, 3, 5), n_experts: int = 6, seed: int = 0, n_layers: int = 1) -> DomainDocuments:
    rng = np.random.default_rng(seed)
    domain = rng.permutation(np.repeat(np.arange(len(per_domain)), per_domain))
    return DomainDocuments(tuple(1 + rng.poisson(2.0, (len(domain), n_experts + layer)) for layer in range(n_layers)), domain, len(per_domain))


def test_reference_stratified_jackknife() -> None:
    inputs, expected = case("K10")
    got = domain_estimates("mi_E_D_pooled", DomainDocuments.of(inputs["counts_domain_doc_expert"])).item()
    assert got.plug_in == pytest.approx(expected["plugin"], abs=1e-9)
    assert got.value == pytest.approx(expected["bias_corrected"], abs=1e-9)
    assert got.se == pytest.approx(expected["se"], abs=1e-9)
    assert [got.low, got.high] == pytest.approx(expected["ci"], abs=1e-9)
    assert got.half_width == pytest.approx(t_quantile(0.95, expected["df"]) * expected["se"], rel=1e-9)


def test_tables_are_plain_sums() -> None:
    docs = documents()
    counts, table = docs.layers[0], np.zeros((3, 6))
    folds, moments = np.zeros((2, 3, 6)), np.zeros((4, 3, 6))
    seen = [0, 0, 0]
    for row, d in zip(counts, docs.domain):
        table[d] += row
        folds[seen[d] % 2, d] += row
        seen[d] += 1
        moments[:, d] += np.stack([row, row**2, row * row.sum(), np.ones(6)])
    np.testing.assert_array_equal(docs.table(), table)
    np.testing.assert_array_equal(domain_table(docs, "counts_DE"), table)
    np.testing.assert_array_equal(domain_table(docs, "folds_FDE"), folds)
    np.testing.assert_array_equal(domain_table(docs, "moments_SDE"), moments)
    for kind, whole in (("counts_DE", table), ("folds_FDE", folds), ("moments_SDE", moments)):
        groups = domain_groups(docs, kind)
        np.testing.assert_array_equal(groups.totals[0], whole)
        assert groups.stratum is not None and np.bincount(groups.stratum).tolist() == [4, 3, 5] and groups.n_documents == 12
    with pytest.raises(ValueError, match="joint_XY"):
        document_tables(docs, "joint_XY")


def test_squares_that_would_overflow_are_refused() -> None:
    docs = documents()
    huge = DomainDocuments((docs.layers[0] * 2**33,), docs.domain, 3)
    assert domain_estimates("mi_E_D", huge).item().value == pytest.approx(domain_estimates("mi_E_D", docs).item().value)
    with pytest.raises(ValueError, match="64 bits"):
        domain_estimates("avg_variance", huge)


def test_many_documents_of_a_domain_share_groups() -> None:
    docs = documents((120, 7))
    groups = domain_groups(docs)
    assert groups.stratum is not None and np.bincount(groups.stratum).tolist() == [GROUPS_PER_DOMAIN, 7]


def test_ranks_count_inside_domains() -> None:
    assert rank_in_domain(np.array([1, 0, 1, 1, 0])).tolist() == [0, 0, 1, 2, 1]
    assert rank_in_domain(np.zeros(0, np.int64)).tolist() == []


def test_a_layer_keeps_only_documents_that_chose_there() -> None:
    docs = documents(n_layers=2)
    docs.layers[1][3] = 0
    assert len(docs.at(0).domain) == 12 and len(docs.at(1).domain) == 11 and docs.used.all()
    assert docs.at(1).layers[0].shape[1] == 7


@pytest.mark.parametrize(("change", "words"), [
    ({"domain": np.array([0, 1, 3])}, "number the domains from 0"), ({"domain": np.array([0, -1, 1])}, "number the domains from 0"),
    ({"domain": np.array([0, 1])}, "a row for each"), ({"layers": (np.array([[1, 2], [0, -1], [1, 1]]),)}, "below 0"),
    ({"layers": (np.array([[0.5, 2], [0, 1], [1, 1]]),)}, "integers"), ({"source": np.array([0])}, "source"),
])
def test_what_is_no_count_or_label_is_refused(change: dict[str, object], words: str) -> None:
    fields = {"layers": (np.array([[1, 2], [0, 1], [1, 1]]),), "domain": np.array([0, 1, 1]), "n_domains": 2, **change}
    with pytest.raises(ValueError, match=words):
        DomainDocuments(**fields)  # type: ignore[arg-type]


def test_gates_name_what_is_missing() -> None:
    assert str(domain_estimates("mi_E_D", documents()).item().gate).startswith(TOO_FEW_DOCUMENTS)
    single = domain_estimates("mi_E_D", documents((1, 1, 1))).item()
    assert single.value is not None and single.low is None and str(single.gate).startswith(ONE_DOCUMENT)
    mixed = domain_estimates("mi_E_D", documents((1, 30, 30))).item()
    assert mixed.low is None and str(mixed.gate).startswith(ONE_DOCUMENT)
    assert domain_estimates("mi_E_D", documents((25, 25))).item().gate is None
    empty = domain_estimates("mi_E_D", DomainDocuments(documents((5, 5)).layers, documents((5, 5)).domain, 3)).item()
    assert empty.value is None and "no_data" in str(empty.reason)
    none = domain_estimates("mi_E_D", DomainDocuments((np.zeros((0, 4), np.int64),), np.zeros(0, np.int64), 2)).item()
    assert none.value is None and "no_data" in str(none.reason)


def test_an_unused_expert_has_a_reason_and_no_gate_text_in_its_place() -> None:
    docs = documents((25, 25))
    docs.layers[0][:, 2] = 0
    found = domain_estimates("specialisation_e", docs)
    assert found[2].value is None and "unused_expert" in found[2].reason and found[1].low is not None


def test_replicates_are_whole_documents_inside_domains(monkeypatch: pytest.MonkeyPatch) -> None:
    docs = documents((4, 3, 5))
    tables = np.concatenate(list(bootstrap_tables(docs, "moments_SDE", 50, generator(1, "x"))))
    np.testing.assert_array_equal(tables[:, 3, :, 0], np.tile([4, 3, 5], (50, 1)))
    monkeypatch.setattr("analysis.domain_labels.CELLS_AT_ONCE", 200)
    again = np.concatenate(list(bootstrap_tables(docs, "moments_SDE", 50, generator(1, "x"))))
    np.testing.assert_array_equal(tables, again)
    folds = np.concatenate(list(bootstrap_tables(docs, "folds_FDE", 400, generator(2, "x"))))
    np.testing.assert_allclose(folds.mean(axis=0), domain_table(docs, "folds_FDE"), rtol=0.25)


def test_basic_intervals_reflect_the_replicates_and_in_sample_purity_never_judges() -> None:
    docs = documents((30, 30), seed=4)
    found = basic_estimates("purity_token_weighted", docs, generator(3, "purity"), n_replicates=200)
    drawn = [np.asarray(table) for table in bootstrap_tables(docs, "counts_DE", 200, generator(3, "purity"))]
    values = np.concatenate([table.max(axis=1).sum(axis=-1) / table.sum(axis=(1, 2)) for table in drawn])
    plug_in = docs.table().max(axis=0).sum() / docs.table().sum()
    low, high = np.quantile(values, [0.025, 0.975])
    one = found.item()
    assert (one.value, one.low, one.high) == pytest.approx((plug_in, 2 * plug_in - high, 2 * plug_in - low))
    assert one.gate.startswith(SELECTION_BIASED)
    both = basic_estimates_of(("purity_cross_fitted", "top5_share"), docs, generator(3, "purity"), n_replicates=50)
    assert both["purity_cross_fitted"].item().gate is None and both["top5_share"].shape == (2,)
    single = basic_estimates("purity_cross_fitted", documents((1, 30)), generator(3, "purity")).item()
    assert single.value is None or (single.low is None and single.gate)


def test_an_undefined_estimate_names_the_reason_that_holds() -> None:
    counts = np.array([[3, 1, 0], [2, 2, 0], [1, 5, 0], [4, 1, 0]])
    one = DomainDocuments((counts,), np.zeros(4, np.int64), 1)
    two = DomainDocuments((counts,), np.array([0, 0, 1, 1]), 2)
    empty = DomainDocuments((counts,), np.array([0, 0, 1, 1]), 3)
    reasons = [domain_estimates("specialisation_e", documents)[2].reason for documents in (one, two, empty)]
    assert reasons == ["no_data: one domain; what is specific to a domain needs two", "unused_expert: the expert has no selections",
                       "no_data: a domain has no selections"]
    assert domain_estimates("domain_entropy", empty)[2].reason == "no_data: a domain has no selections"
    assert domain_estimates("log2_affinity", two)[2, 0].reason == "no selection in the domain"


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32])
def test_narrow_counts_are_those_of_64_bits(dtype: type) -> None:
    rng = np.random.default_rng(4)
    counts, domain = rng.poisson(60, (12, 3)), np.arange(12) % 3
    wide, narrow = (DomainDocuments((one,), domain, 3) for one in (counts, counts.astype(dtype)))
    for name in ("avg_variance", "mi_E_D", "V_squared", "specialisation_e"):
        for a, b in zip(domain_estimates(name, wide).flat, domain_estimates(name, narrow).flat):
            assert (a.value, a.low, a.high) == (b.value, b.low, b.high)
