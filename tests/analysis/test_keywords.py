import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis.keywords import ChosenTokens, Keyword, Sample, class_tfidf, expert_keywords, held_out_agreement, log_odds, representative_samples

TEXTS = ["the", "def", "return", "war", "century", "zebra"]
CODE_AND_HISTORY = np.array([[300, 80, 60, 2, 1, 0], [310, 1, 3, 70, 50, 0], [0, 0, 0, 0, 0, 0]])


def test_class_tfidf_against_the_written_formula():
    made = class_tfidf(CODE_AND_HISTORY)
    n = CODE_AND_HISTORY
    average = n.sum() / 2  # of the two used experts
    assert made[0, 1] == pytest.approx(80 / n[0].sum() * np.log(1 + average / n[:, 1].sum()))
    assert np.isnan(made[2]).all() and np.isnan(made[:, 5]).all()
    for lonely in ([[3, 4]], [[3, 4], [0, 0]]):
        with pytest.raises(ValueError, match="at least two"):
            class_tfidf(lonely)


def test_log_odds_against_the_written_formula():
    y = CODE_AND_HISTORY
    delta, z = log_odds(y, prior_tokens=10)
    a = 10 * y.sum(axis=0) / y.sum()
    n0, n1 = y[0].sum(), y[1].sum()
    for v in range(5):
        expected = np.log((y[0, v] + a[v]) / (n0 + 10 - y[0, v] - a[v])) - np.log((y[1, v] + a[v]) / (n1 + 10 - y[1, v] - a[v]))
        assert delta[0, v] == pytest.approx(expected) and delta[1, v] == pytest.approx(-expected)
        assert z[0, v] == pytest.approx(expected / np.sqrt(1 / (y[0, v] + a[v]) + 1 / (y[1, v] + a[v])))
    assert np.isnan(z[2]).all() and np.isnan(z[:, 5]).all()
    with pytest.raises(ValueError, match="prior"):
        log_odds(y, prior_tokens=0)


@settings(max_examples=60, deadline=None)
@given(n=arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.integers(0, 40)), order=st.randoms())
def test_scores_follow_their_experts_and_types_and_never_warn(n, order):
    experts, types = (np.array(order.sample(range(size), size), int) for size in n.shape)
    with np.errstate(all="raise"):
        for one, other in zip(log_odds(n), log_odds(n[experts][:, types])):
            assert other == pytest.approx(one[experts][:, types], nan_ok=True, abs=1e-9)


def test_experts_of_one_law_have_few_keywords():
    """z is about standard normal where counts are independent: 3 is crossed by about one type in a thousand."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(500, 2.0))
    z = log_odds(rng.multinomial(20_000, p, size=8))[1]
    assert np.std(z) == pytest.approx(1, abs=0.15) and (z > 3).mean() < 0.004


def test_keywords_are_the_words_that_tell_experts_apart():
    for method in ("log_odds", "class_tfidf"):
        code, history, unused = expert_keywords(CODE_AND_HISTORY, TEXTS, most=3, method=method)
        assert {word.text for word in code[:3]} >= {"def", "return"} and {"war", "century"} <= {word.text for word in history[:3]}
        assert unused == () and all(a.score >= b.score for a, b in zip(code, code[1:]))
    code = expert_keywords(CODE_AND_HISTORY, TEXTS)[0]
    delta, z = log_odds(CODE_AND_HISTORY)
    assert code == (Keyword(2, "return", z[0, 2], delta[0, 2], 60), Keyword(1, "def", z[0, 1], delta[0, 1], 80))  # "the" is no keyword


def test_the_seed_s_one_token_documents_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="class_tfidf"):
        expert_keywords(CODE_AND_HISTORY, TEXTS, method="token_tfidf")
    with pytest.raises(ValueError, match="there are"):
        expert_keywords(CODE_AND_HISTORY, TEXTS, method="bm25")
    with pytest.raises(ValueError, match="every type"):
        expert_keywords(CODE_AND_HISTORY, TEXTS[:3])
    with pytest.raises(ValueError, match="integer"):
        class_tfidf(CODE_AND_HISTORY / 2)


def test_labels_are_judged_on_documents_that_did_not_choose_them():
    rng = np.random.default_rng(0)
    common = rng.dirichlet(np.full(200, 1.0))
    own = common.copy()
    own[:10] += 0.05
    laws = np.stack([own / own.sum(), common, common])
    train, held_out = (np.stack([rng.multinomial(5000, p) for p in laws]) for _ in range(2))
    texts = [f"w{v}" for v in range(200)]
    real = held_out_agreement(expert_keywords(train, texts), held_out)[0]
    assert real.same_sign == 1 and real.confirmed > 0.9 and real.chance < 0.6 and set(real.label) <= {f"w{v}" for v in range(10)}
    forced = expert_keywords(train[1:], texts, least_z=0.5)  # experts of one law: words chosen from noise
    noise = held_out_agreement(forced, held_out[1:], least_z=3)[0]
    assert noise.judged > 5 and noise.confirmed < 0.1 and abs(noise.same_sign - noise.chance) < 0.35


def test_what_cannot_be_judged_says_why():
    chosen = expert_keywords(CODE_AND_HISTORY, TEXTS)
    found = held_out_agreement(chosen, np.zeros_like(CODE_AND_HISTORY))
    assert found[0].same_sign is None and found[0].reason.startswith("no_data") and found[2].reason == "no keyword"
    with pytest.raises(ValueError, match="same layer"):
        held_out_agreement(chosen, CODE_AND_HISTORY[:2])


def tokens(order=None):
    document = np.array([0, 0, 1, 1, 2, 2])
    position = np.array([0, 1, 0, 1, 0, 1])
    experts = np.array([[0, 1], [0, -1], [1, 0], [0, 1], [0, 1], [0, 2]])
    weights = np.array([[0.9, 0.1], [1.0, 0.0], [0.6, 0.4], [0.9, 0.1], [0.9, 0.1], [0.8, 0.2]])
    order = np.arange(6) if order is None else order
    return ChosenTokens(document[order], position[order], experts[order], weights[order], np.array([2, 0, 1]))


def test_samples_have_the_largest_weight_one_a_document_and_ties_go_by_hash():
    found = representative_samples(tokens(), 4)
    assert found[0] == (Sample(0, 1, 1.0), Sample(1, 1, 0.9), Sample(2, 0, 0.9))
    assert found[1] == (Sample(1, 0, 0.6), Sample(2, 0, 0.1), Sample(0, 0, 0.1))
    assert found[2] == (Sample(2, 1, 0.2),) and found[3] == ()
    assert representative_samples(tokens(), 4, most=1)[0] == (Sample(0, 1, 1.0),)
    for seed in range(5):
        assert representative_samples(tokens(np.random.default_rng(seed).permutation(6)), 4) == found


def test_samples_of_odd_input():
    with pytest.raises(ValueError, match="experts: expert .* the layer has 2"):
        representative_samples(tokens(), 2)
    with pytest.raises(ValueError, match="both as"):
        ChosenTokens(np.zeros(2, int), np.zeros(2, int), np.zeros((2, 1), int), np.zeros((2, 2)), np.zeros(1, int))
    with pytest.raises(ValueError, match="finite"):
        ChosenTokens(np.zeros(1, int), np.zeros(1, int), np.zeros((1, 1), int), np.full((1, 1), np.nan), np.zeros(1, int))
    empty = ChosenTokens(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2), int), np.zeros((0, 2)), np.zeros(0, int))
    assert representative_samples(empty, 3) == ((), (), ())
