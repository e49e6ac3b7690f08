from dataclasses import replace

import numpy as np
import pytest

from analysis.arithmetic import mutual_information_bits
from analysis.metrics.type_aligned import TypeRouting, decile_permutation, type_aligned_estimate, type_aligned_mi, type_null
from analysis.resampling import generator


def slow(a, b, floor=20):
    """By loops over types and experts."""
    joint = np.zeros((a.shape[1], b.shape[1]))
    shared = [v for v in range(len(a)) if a[v].sum() >= floor and b[v].sum() >= floor]
    weight = {v: min(a[v].sum(), b[v].sum()) for v in shared}
    for v in shared:
        for i in range(a.shape[1]):
            for j in range(b.shape[1]):
                joint[i, j] += weight[v] / sum(weight.values()) * a[v, i] / a[v].sum() * b[v, j] / b[v].sum()
    return mutual_information_bits(joint)


def test_it_is_its_slow_twin():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.poisson(4.0, (12, 5)), rng.poisson(4.5, (12, 5))
        np.testing.assert_allclose(type_aligned_mi(a, b), slow(a, b), atol=1e-12)


def test_pure_types_on_matching_experts_give_all_bits():
    pure = 25 * np.eye(4, dtype=int)
    assert type_aligned_mi(pure, pure) == pytest.approx(2.0)
    assert type_aligned_mi(pure, pure[:, [1, 0, 3, 2]]) == pytest.approx(2.0)  # relabelled: information is blind to names
    assert type_aligned_mi(pure, 25 * np.ones((4, 4))) == pytest.approx(0.0, abs=1e-12)


def test_types_below_the_floor_in_either_domain_take_no_part():
    a, b = np.array([[20, 0], [0, 20], [19, 0]]), np.array([[20, 0], [0, 20], [0, 500]])
    assert type_aligned_mi(a, b) == pytest.approx(1.0)
    assert np.isnan(type_aligned_mi(a[2:], b[2:]))
    assert np.isnan(type_aligned_mi(a, b, selections_per_token=2))  # 20 selections of top-2 are 10 tokens
    assert type_aligned_mi(2 * a, 2 * b, selections_per_token=2) == pytest.approx(1.0)


def test_more_tokens_of_one_domain_change_no_weight():
    rng = np.random.default_rng(1)
    a, b = rng.poisson(9.0, (6, 4)), rng.poisson(9.0, (6, 4))
    assert type_aligned_mi(a, 50 * b + 50) != type_aligned_mi(a, b)
    order = rng.permutation(6)
    assert type_aligned_mi(a, b, floor=1) == pytest.approx(type_aligned_mi(a[order], b[order], floor=1), abs=1e-12)


def test_types_of_two_vocabularies_are_refused():
    with pytest.raises(ValueError, match="same types"):
        type_aligned_mi(np.ones((3, 2)), np.ones((4, 2)))


def test_permutations_keep_to_their_decile():
    weight = np.random.default_rng(2).permutation(np.arange(100.0))
    places = decile_permutation(weight, np.random.default_rng(3))
    assert sorted(places) == list(range(100)) and (places != np.arange(100)).any()
    assert (weight[places] // 10 == weight // 10).all()
    assert decile_permutation(np.zeros(1), np.random.default_rng(0)).tolist() == [0]


def routing(rng, preference_VE, n_documents=30, tokens=200, tokenizer="t"):
    """Documents with their own mix of types; each type's expert is drawn by its preference."""
    n_types, n_experts = preference_VE.shape
    doc, kind, expert = [], [], []
    for document in range(n_documents):
        types = rng.choice(n_types, tokens, p=rng.dirichlet(np.full(n_types, 1.0)))
        doc += [document] * tokens
        kind += types.tolist()
        expert += [int(rng.choice(n_experts, p=preference_VE[v])) for v in types]
    keys, counts = np.unique(np.stack([doc, kind, expert]), axis=1, return_counts=True)
    return TypeRouting(keys[0], keys[1], keys[2], counts, n_documents, n_types, n_experts, tokenizer)


def test_estimates_see_alignment_and_its_absence():
    rng = np.random.default_rng(4)
    law, other = (rng.dirichlet(np.full(4, 0.3), size=40) for _ in "ab")
    a = routing(rng, law)
    aligned = type_aligned_estimate(a, routing(rng, law), seed=1, n_replicates=200, n_permutations=99)
    unlike = type_aligned_estimate(a, routing(rng, other), seed=1, n_replicates=200, n_permutations=99)
    assert aligned.low > aligned.null_high and aligned.p == 0.01 and aligned.gate is None and aligned.n == 40
    assert unlike.p > 0.01 and unlike.null_low < unlike.value
    assert unlike.value < aligned.low


def test_replicates_are_weighted_documents():
    rng = np.random.default_rng(5)
    law = rng.dirichlet(np.full(3, 0.3), size=6)
    a, b = routing(rng, law, 25, 60), routing(rng, law, 25, 60)
    first = type_aligned_estimate(a, b, seed=3, n_replicates=70, n_permutations=9)
    order = rng.permutation(len(a.document))
    turned = TypeRouting(a.document[order], a.type[order], a.expert[order], a.selections[order], 25, 6, 3, "t")
    assert type_aligned_estimate(turned, b, seed=3, n_replicates=70, n_permutations=9) == first
    split = TypeRouting(*(np.repeat(x, 2) for x in (a.document, a.type, a.expert)), np.repeat(a.selections, 2), 25, 6, 3, "t", 2)
    twice = replace(b, selections=2 * b.selections, selections_per_token=2)
    assert type_aligned_estimate(split, twice, seed=3, n_replicates=70, n_permutations=9).high == pytest.approx(first.high, abs=1e-12)


def test_the_null_has_the_frequencies_but_not_the_alignment():
    pure = np.eye(4, dtype=int)[np.arange(40) % 4] * 50
    weight = pure.sum(axis=1)
    null = type_null(pure, pure, weight, generator(0, "x"), 50)
    assert null.max() < 2.0 and (null >= 0).all() and len(null) == 50


def test_no_shared_types_one_document_and_other_tokenizers():
    rng = np.random.default_rng(7)
    law = np.full((4, 3), 1 / 3)
    a, b = routing(rng, law, 2, 8), routing(rng, law, 2, 8)
    none = type_aligned_estimate(a, b, seed=0)
    assert none.value is None and none.reason.startswith("no_data")
    one = type_aligned_estimate(routing(rng, law, 1, 400), routing(rng, law, 25, 100), seed=0, n_replicates=9, n_permutations=9)
    assert one.low is None and one.value is not None and one.gate.startswith("one_document_per_domain")
    with pytest.raises(ValueError, match="tokenizers differ"):
        type_aligned_estimate(a, routing(rng, law, 2, 8, "other"), seed=0)
    with pytest.raises(ValueError, match="same layer of one model"):
        type_aligned_estimate(a, routing(rng, np.full((4, 2), 0.5), 2, 8), seed=0)


@pytest.mark.parametrize("column", ["document", "type", "expert"])
def test_numbers_out_of_range_are_refused_before_they_count_for_another(column):
    for wrong in (-1, 3):
        fields = {name: np.array([0, 1, 2]) for name in ("document", "type", "expert")} | {column: np.array([0, wrong, 1])}
        with pytest.raises(ValueError, match=f"{column}: numbers are integers from 0 to 2"):
            TypeRouting(**fields, selections=np.ones(3, int), n_documents=3, n_types=3, n_experts=3, tokenizer="t")
    with pytest.raises(ValueError, match=f"{column}: 2 entries for 3"):
        TypeRouting(**fields | {column: np.array([0, 1])}, selections=np.ones(3, int), n_documents=3, n_types=3, n_experts=3, tokenizer="t")


def test_narrow_numbers_are_those_of_64_bits():
    rng = np.random.default_rng(6)
    wide = routing(rng, rng.dirichlet(np.full(4, 0.3), 100), n_documents=4)
    narrow = replace(wide, document=wide.document.astype(np.uint8), type=wide.type.astype(np.uint8), expert=wide.expert.astype(np.uint8))
    assert (narrow.totals() == wide.totals()).all()
    made = [type_aligned_estimate(one, one, seed=0, n_replicates=9, n_permutations=9, floor=1) for one in (wide, narrow)]
    assert made[0] == made[1]
