import re

import numpy as np
import pytest

from experiments.corpora.shingles import MAX_SHARE_SEEN, near_duplicates


def brute_force(texts: list[str]) -> list[bool]:
    kept: set[tuple[str, ...]] = set()
    dropped = []
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        own = {tuple(words[i : i + 8]) for i in range(len(words) - 7)}
        duplicate = bool(own) and len(own & kept) > MAX_SHARE_SEEN * len(own)
        dropped.append(duplicate)
        if not duplicate:
            kept |= own
    return dropped


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_sets_of_tuples(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool = [" ".join(f"w{word}" for word in rng.integers(0, 400, rng.integers(3, 60))) for _ in range(40)]
    texts = []
    for _ in range(300):  # documents are pasted together from few passages, so that shares near the bound occur
        texts.append(". ".join(pool[i] for i in rng.integers(0, len(pool), rng.integers(1, 5))) + f" tail {rng.integers(0, 10**6)}")
    assert near_duplicates(texts).tolist() == brute_force(texts)
    assert 10 < sum(near_duplicates(texts)) < 295


def test_the_bound_is_thirty_per_cent_of_distinct_shingles() -> None:
    first = " ".join(f"a{i}" for i in range(10))  # 3 shingles
    at_bound = first + " " + " ".join(f"b{i}" for i in range(7))  # 10 shingles, 3 of them seen
    beyond = first + " " + " ".join(f"c{i}" for i in range(6))  # 9 shingles, 3 of them seen
    assert near_duplicates([first, at_bound]).tolist() == [False, False]
    assert near_duplicates([first, beyond]).tolist() == [False, True]


def test_punctuation_and_case_do_not_hide_a_copy() -> None:
    text = "One two three, four five six seven; eight nine ten."
    assert near_duplicates([text, text.upper().replace(",", " --")]).tolist() == [False, True]


@pytest.mark.parametrize("texts", [[], [""], ["short text", "short text"], ["!!!", "???"]])
def test_texts_without_eight_words_stay(texts: list[str]) -> None:
    assert not near_duplicates(texts).any()
