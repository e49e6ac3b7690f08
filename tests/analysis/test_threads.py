"""Work shared among threads: order kept, exceptions raised, no more drawn ahead than there are threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from analysis.threads import each, streamed


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_outcomes_come_in_the_order_of_the_items(threads: int) -> None:
    assert each(lambda n: n * n, range(20), threads) == list(streamed(lambda n: n * n, range(20), threads)) == [n * n for n in range(20)]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_no_more_items_are_drawn_ahead_than_there_are_threads(threads: int) -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for n in range(10):
            drawn.append(n)
            yield n

    for done, outcome in enumerate(streamed(lambda n: n, items(), threads), start=1):
        assert outcome == done - 1 and len(drawn) <= done - 1 + threads


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_exception_is_raised(threads: int) -> None:
    def work(n: int) -> int:
        if n >= 3:
            raise ValueError(f"item {n}")
        return n

    for share in (each, streamed):
        with pytest.raises(ValueError, match="item 3"):
            list(share(work, range(6), threads))
    with pytest.raises(ValueError, match="at least one thread"):
        list(streamed(work, range(2), 0))
