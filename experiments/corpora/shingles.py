"""Near-duplicates by word 8-grams: a greedy filter that sees every document once."""
# G distinct n-grams, T words of a document

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WORDS_PER_SHINGLE = 8
MAX_SHARE_SEEN = 0.30  # a document is kept if at most this share of its distinct 8-grams is in documents already kept

_WORD = re.compile(r"\w+")


def word_ids(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Words of all texts on end, lower-cased and numbered by first appearance; and the number of words of each text."""
    numbers: dict[str, int] = {}
    words: list[int] = []
    lengths = np.zeros(len(texts), dtype=np.int64)
    for i, text in enumerate(texts):
        found = _WORD.findall(text.lower())
        words += [numbers.setdefault(word, len(numbers)) for word in found]
        lengths[i] = len(found)
    return np.array(words, dtype=np.uint64), lengths


def shingles(words: NDArray[np.uint64], lengths: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """64-bit hashes of all runs of eight consecutive words that lie within one text, and the text of each run."""
    n = WORDS_PER_SHINGLE
    n_runs = words.size - n + 1
    if n_runs <= 0:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    mixed = _mix(words + np.uint64(1))
    hashes = np.zeros(n_runs, dtype=np.uint64)
    for offset in range(n):
        hashes = hashes * _MULTIPLIER + mixed[offset : offset + n_runs]
    text_of = np.repeat(np.arange(lengths.size), lengths)
    inside = text_of[:n_runs] == text_of[n - 1 :]
    return hashes[inside], text_of[:n_runs][inside]


_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Bijective mixing of 64-bit integers (splitmix64 finaliser, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * _MULTIPLIER
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def near_duplicates(texts: Sequence[str], max_share: float = MAX_SHARE_SEEN) -> NDArray[np.bool_]:
    """Which texts are dropped: those of whose distinct word 8-grams more than `max_share` occur in texts kept before them.

    Texts are seen in the order given. Returns bool [len(texts)]. A text of fewer than eight words is never dropped here.
    """
    dropped = np.zeros(len(texts), dtype=np.bool_)
    hashes, text_of = shingles(*word_ids(texts))
    if not hashes.size:
        return dropped
    distinct_G, dense = np.unique(hashes, return_inverse=True)
    kept_G = np.zeros(distinct_G.size, dtype=np.bool_)
    ends = np.searchsorted(text_of, np.arange(len(texts)), side="right")
    for i, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
        own = np.unique(dense[start:end])
        if np.count_nonzero(kept_G[own]) > max_share * own.size:
            dropped[i] = True
        else:
            kept_G[own] = True
    return dropped
