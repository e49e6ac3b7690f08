from collections import Counter

import numpy as np

from experiments.testbed.tokenizer import END_ID, PAD_ID
from experiments.testbed.windows import batch, cut_into_windows, spread


def test_windows_hold_one_document_each_and_lose_only_short_rests() -> None:
    documents = [list(range(100 * i + 10, 100 * i + 10 + n)) for i, n in enumerate((5, 31, 32, 50, 70, 90))]
    windows = cut_into_windows(documents, 32)
    for ids, n in zip(windows.ids_WS, windows.lengths_W, strict=True):
        own = ids[:n][ids[:n] != END_ID]
        assert len({token // 100 for token in own.tolist()}) <= 1
        assert (ids[n:] == PAD_ID).all()
    # 5+1 | 31+1 | 32, rest 1 lost | 32, 19 | 32, 32, rest 7 lost | 32, 32, 27
    assert windows.lengths_W.tolist() == [6, 32, 32, 32, 19, 32, 32, 32, 32, 27]


def test_domains_take_turns_and_windows_come_once_an_epoch() -> None:
    sizes = {"a": 7, "b": 30, "c": 4}
    by_domain = {name: cut_into_windows([[1000 * d + w] * 20 for w in range(n)], 32) for d, (name, n) in enumerate(sizes.items())}
    drawn = [int(row[0]) for step in range(28) for row in batch(by_domain, step, 3, seed=0)[0]]
    assert Counter(token // 1000 for token in drawn) == {0: 28, 1: 28, 2: 28}
    per_window = Counter(drawn)
    assert {per_window[w] for w in range(7)} == {4}  # 28 draws of 7 windows
    assert {per_window[2000 + w] for w in range(4)} == {7}
    assert max(per_window[1000 + w] for w in range(30)) == 1


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    by_domain = {"a": cut_into_windows([[w + 2] * 20 for w in range(50)], 32)}
    first, again, other_step, other_seed = (batch(by_domain, step, 8, seed)[0] for step, seed in ((3, 1), (3, 1), (4, 1), (3, 2)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other_step)
    assert not np.array_equal(first, other_seed)


def test_spread_takes_evenly() -> None:
    windows = cut_into_windows([[w + 2] * 20 for w in range(11)], 32)
    assert spread(windows, 3).ids_WS[:, 0].tolist() == [2, 7, 12]
    assert len(spread(windows, 99)) == 11
