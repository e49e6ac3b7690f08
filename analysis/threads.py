"""Work shared among threads: compiled kernels and numpy release the interpreter, and every item has its own place to write."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def each(work: Callable[[Item], Outcome], items: Iterable[Item], threads: int = 1) -> list[Outcome]:
    """work(item) for every item, in the items' order, on so many threads; the first exception is raised. ValueError below one thread."""
    if threads < 1:
        raise ValueError(f"threads = {threads}: at least one thread has to work")
    if threads == 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def streamed(work: Callable[[Item], Outcome], items: Iterable[Item], threads: int = 1) -> Iterator[Outcome]:
    """work(item) for every item, in the items' order; no more items are drawn ahead than there are threads. ValueError below one thread."""
    if threads < 1:
        raise ValueError(f"threads = {threads}: at least one thread has to work")
    if threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Outcome]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
