"""Work shared among threads: compiled kernels and numpy release the interpreter, and every item has its own place to write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
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
