"""Classes of experts, cells of the affinity matrix, purity with its interval: planted experts are found, null ones are not."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.domain_labels import DomainDocuments
from analysis.gates import ONE_DOCUMENT, SELECTION_BIASED, TOO_FEW_DOCUMENTS
from analysis.metrics.specialists import (
    GENERALIST,
    SPECIALIST,
    UNDETERMINED,
    UNUSED,
    ClassRule,
    affinity_cells,
    classify_experts,
    entropy_differences,
    purity_baseline,
    purity_estimates,
    purity_of_experts,
    quantile_specialists,
)
from analysis.metrics.specialization import cv_domains, cv_domains_seed
from analysis.resampling import generator


def planted(per_domain: int = 40, effect: float = 0.2, tokens: int = 200, seed: int = 0) -> DomainDocuments:
    """Three domains, each with an expert of its own (0, 1, 2); experts 3, 4, 5 serve all alike; expert 6 is never used."""
    rng = np.random.default_rng(seed)
    base = np.r_[np.full(3, 0.05), np.full(3, (1 - 0.15) / 3), 0.0]
    domain = np.repeat(np.arange(3), per_domain)
    laws = (1 - effect) * base + effect * np.eye(3, 7)
    counts = [rng.multinomial(tokens, rng.dirichlet(200 * laws[d][:6]).tolist() + [0.0]) for d in domain]
    return DomainDocuments((np.array(counts),), domain, 3)


def test_planted_specialists_are_found_and_generalists_by_equivalence() -> None:
    found = classify_experts(planted(), generator(0, "specialists"), n_draws=499)
    assert [one.label for one in found] == [SPECIALIST] * 3 + [GENERALIST] * 3 + [UNUSED]
    assert [one.domain for one in found[:3]] == [0, 1, 2]
    first = found[0]
    assert first.p == pytest.approx(1 / 500) and first.q is not None and first.q <= 6 / 500 * 1.01
    assert first.p_expert_given_domain == pytest.approx(0.24, abs=0.02)  # 0.8 x 0.05 + 0.2
    assert first.p_domain_given_expert == pytest.approx(0.24 / 0.32, abs=0.03)  # not the same number
    assert found[6].p is None and found[6].reason


def test_documents_without_domains_make_no_specialist() -> None:
    for seed in range(10):
        found = classify_experts(planted(effect=0.0, tokens=60, seed=seed), generator(seed, "specialists"), n_draws=199)
        assert SPECIALIST not in [one.label for one in found]


def test_a_budget_makes_no_specialist() -> None:
    """Ten times the tokens in one domain: the seed's CV calls every expert specialised, the law does not change."""
    docs = planted(effect=0.0)
    docs.layers[0][docs.domain == 0] *= 10
    assert (cv_domains_seed(docs.table())[:6] > 1).all() and (cv_domains(docs.table())[:6] < 0.2).all()
    assert SPECIALIST not in [one.label for one in classify_experts(docs, generator(0, "specialists"), n_draws=199)]


def test_too_little_data_leaves_everyone_undetermined_with_the_reason() -> None:
    few = classify_experts(planted(per_domain=5), generator(0, "specialists"), n_draws=99)
    assert {one.label for one in few[:6]} == {UNDETERMINED} and all(str(one.reason).startswith(TOO_FEW_DOCUMENTS) for one in few[:6])
    single = classify_experts(planted(per_domain=1), generator(0, "specialists"), n_draws=99)
    assert {one.label for one in single[:6]} == {UNDETERMINED}
    assert all(str(one.reason).startswith(ONE_DOCUMENT) and one.p is None for one in single[:6])


def test_the_rule_is_an_argument() -> None:
    strict = classify_experts(planted(), generator(0, "specialists"), rule=ClassRule(s0=0.9), n_draws=199)
    assert {one.label for one in strict[:3]} == {UNDETERMINED}
    loose = classify_experts(planted(), generator(0, "specialists"), rule=ClassRule(s0=0.9, equivalence=0.95), n_draws=199)
    assert {one.label for one in loose[:6]} == {GENERALIST}


@pytest.mark.parametrize("seed", range(3))
def test_quantile_cut_offs_find_a_quarter_whatever_the_routing(seed: int) -> None:
    noise = np.random.default_rng(seed).poisson(100.0, (5, 32))
    found = quantile_specialists(cv_domains_seed(noise))
    assert len(found.specialists) == len(found.generalists) == 8 and not set(found.specialists) & set(found.generalists)
    assert found.lower < found.upper


def test_quantiles_leave_out_unused_experts() -> None:
    found = quantile_specialists([0.1, np.nan, 0.2, 0.3, 0.4])
    assert (found.specialists, found.generalists) == ((4,), (0,))
    with pytest.raises(ValueError, match="no expert"):
        quantile_specialists([np.nan])


def test_cells_are_found_and_untestable_ones_do_not_count() -> None:
    cells = {(one.expert, one.domain): one for one in affinity_cells(planted())}
    assert len(cells) == 21
    own, common, unused = cells[0, 0], cells[3, 1], cells[6, 0]
    assert own.q is not None and own.q < 0.001 and own.log2_affinity.low is not None and own.log2_affinity.low > 0
    assert own.log2_affinity.value == pytest.approx(np.log2(0.24 * 3 / 0.32), abs=0.1)
    assert common.log2_affinity.value is not None and abs(common.log2_affinity.value) < 0.1
    assert unused.p is None and unused.q is None and unused.log2_affinity.reason
    tested = [one for one in cells.values() if one.p is not None]
    least = min(tested, key=lambda one: one.p or 0.0)
    assert least.q is not None and least.p is not None and least.q <= len(tested) * least.p + 1e-12
    assert all(one.p is None for one in affinity_cells(planted(per_domain=1)))


def test_entropy_differences_are_paired_and_adjusted() -> None:
    docs = planted(effect=0.0, tokens=400)
    docs.layers[0][docs.domain == 2, 3] += docs.layers[0][docs.domain == 2, 4]
    docs.layers[0][docs.domain == 2, 4] = 0
    found = {(one.first, one.second): one for one in entropy_differences(docs)}
    assert list(found) == [(0, 1), (0, 2), (1, 2)]
    assert found[0, 2].p_adjusted is not None and found[0, 2].p_adjusted < 1e-3 and found[0, 1].p_adjusted is not None
    assert found[0, 1].p_adjusted > 0.01 and found[0, 2].difference.low is not None and found[0, 2].difference.low > 0
    assert all(one.p is None and one.p_adjusted is None for one in entropy_differences(planted(per_domain=1)))


def test_purity_comes_with_gates_and_an_interval_that_holds_the_truth() -> None:
    found = purity_estimates(planted(), generator(0, "purity"), n_replicates=299)
    for name in ("purity_seed", "purity_token_weighted", "lambda"):
        assert found[name].item().gate.startswith(SELECTION_BIASED)
    crossed = found["purity_cross_fitted"].item()
    truth = (3 * 0.24 + (1 - 0.32) * 3 / 3) / 3  # own experts hit in their domain, common ones a third
    assert crossed.gate is None and crossed.low < truth < crossed.high
    assert found["expert_affinity_avg"].item().low > 1 and found["top5_share"].shape == (3,)
    assert purity_estimates(planted(per_domain=1), generator(0, "purity"))["purity_seed"].item().low is None


def test_purity_of_each_expert_is_a_number_for_a_chart_only() -> None:
    found = purity_of_experts([[8, 1, 0], [2, 1, 0]])
    assert [one.value for one in found] == [0.8, 0.5, None]
    assert found[0].gate == SELECTION_BIASED and found[2].reason == "unused_expert"
    assert purity_baseline([[8, 1], [2, 1]]) == pytest.approx(9 / 12) and purity_baseline([[0], [0]]) is None


def test_a_layer_without_selections_has_cells_and_pairs_without_a_number() -> None:
    empty = DomainDocuments((np.zeros((6, 4), np.int64),), np.arange(6) % 2, 2)
    assert all(cell.p is None and cell.log2_affinity.reason for cell in affinity_cells(empty))
    (pair,) = entropy_differences(empty)
    assert pair.p is None and str(pair.difference.reason).startswith("no_data")
