"""What readers of rows share: order within a top-k, checks that name the place, and batches of whole documents.

T token (row), L MoE layer, K slot in the top-k, D document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.trace import DocumentRow, LayerMeta, TraceBatch
from experiments.readers.contract import SPLIT, ReadError, Remark

ROWS_PER_BATCH = 65_536
MOST_EXPERTS = 1 << 16
UNSORTED = "sorted_by_weight"
WORDS = {UNSORTED: "top-k rows whose slots were not by falling weight; they were put so, ties by the lower id",
         "ties": "top-k rows with equal weights, in which the order of slots is arbitrary; ties were put by the lower id",
         "ties_at_k": "rows whose k-th and next largest scores are equal: which of the two was used is not known, the lower id was taken",
         "ids_not_of_logits": "top-k rows that are not the largest scores: the router adds a bias or limits groups, or ids and scores are of "
                              "different runs"}
Rows = Callable[[int, int], tuple[TraceBatch, Mapping[str, int]]]


@dataclass
class DocumentTrace:
    """A ForeignTrace whose rows can be had by range of documents.

    lengths: rows of each document; rows(first, last): those of documents first..last-1, and how many top-k rows were as WORDS says;
    noted: remarks that hold whatever is read; tallies: top-k rows of each batch read so far, and how many were as WORDS says.
    """

    meta: Any
    documents: Sequence[DocumentRow]
    lengths: NDArray[np.int64]
    rows: Rows
    noted: tuple[Remark, ...] = ()
    tallies: dict[int, tuple[int, Mapping[str, int]]] = field(default_factory=dict)

    @property
    def remarks(self) -> Sequence[Remark]:
        """Those of the file, then those of the rows read so far, with their share of all top-k rows read."""
        total = sum(n for n, _ in self.tallies.values())
        counts = {code: sum(met.get(code, 0) for _, met in self.tallies.values()) for code in WORDS}
        return (*self.noted, *(Remark(code, WORDS[code], count, count / total) for code, count in counts.items() if count))

    def batches(self, *, after: int = -1) -> Iterator[tuple[int, TraceBatch]]:
        """(number, rows) of whole documents, about 65,536 rows at a time."""
        for number, (first, last) in enumerate(spans(self.lengths)):
            if number > after:
                batch, met = self.rows(first, last)
                self.tallies[number] = (len(batch) * len(batch.ids), met)
                yield number, batch


def spans(lengths: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of whole documents of at most ROWS_PER_BATCH rows, or one document."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    first = 0
    while first < len(lengths):
        last = int(np.searchsorted(starts, starts[first] + ROWS_PER_BATCH, side="right")) - 1
        last = min(max(last, first + 1), len(lengths))
        yield first, last
        first = last


def numbered(lengths: NDArray[np.int64], first: int, last: int, first_position: NDArray[np.int64] | None = None,
             ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Document number and position of every row of documents first..last-1; positions count from first_position [D] (0)."""
    chosen = lengths[first:last]
    starts = np.cumsum(chosen) - chosen
    begin = np.zeros(len(chosen), np.int64) if first_position is None else first_position[first:last]
    position = np.arange(int(chosen.sum())) + np.repeat(begin - starts, chosen)
    return np.repeat(np.arange(first, last, dtype=np.int32), chosen), position.astype(np.int32)


def by_weight(ids: NDArray[Any], weights: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], dict[str, int]]:
    """ids and weights [T, K] by falling weight, ties by the lower id; how many rows were out of order, and how many have ties."""
    falling = -weights.astype(np.float64)
    order = np.lexsort((ids, falling), axis=1)
    sorted_ids, sorted_weights = (np.take_along_axis(column, order, axis=1) for column in (ids, weights))
    unsorted = (np.diff(falling, axis=1) < 0).any(axis=1)
    ties = (np.diff(sorted_weights.astype(np.float64), axis=1) == 0).any(axis=1)
    return sorted_ids, sorted_weights, {UNSORTED: int(unsorted.sum()), "ties": int(ties.sum())}


def added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Sums by key."""
    return {code: one.get(code, 0) + other.get(code, 0) for code in {**one, **other}}


def check_ids(ids: NDArray[Any], n_experts: int, at: Callable[[int], str]) -> None:
    """Raise ReadError where a row [T, K] holds an id outside the layer's experts, or one twice; at(row) names file, field and place."""
    bad = (ids < 0) | (ids >= n_experts)
    if bad.any():
        row = int(np.flatnonzero(bad.any(axis=1))[0])
        hint = "; off by one?" if int(ids.max()) == n_experts and int(ids.min()) >= 0 else ""
        raise ReadError(f"{at(row)}: expert id {int(ids[row][bad[row]][0])}, but the layer has {n_experts} experts{hint}; "
                        "give --n-experts of the recorded model, or export again")
    ordered = np.sort(ids, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    if twice.any():
        row = int(np.flatnonzero(twice)[0])
        raise ReadError(f"{at(row)}: one expert twice in a top-{ids.shape[1]}: {ids[row].tolist()}; export again")


LARGEST_WEIGHT = float(np.finfo(np.float16).max)  # as traces hold weights


def check_weights(weights: NDArray[Any], at: Callable[[int], str], most: float | None = None, slack: float = 0.01) -> None:
    """Raise ReadError where a weight [T, K] is negative or not finite, or a row sums to more than `most`."""
    bad = ~np.isfinite(weights).all(axis=1) | (weights < 0).any(axis=1) | (weights > LARGEST_WEIGHT).any(axis=1)
    words = f"a weight that is negative, not finite or above {LARGEST_WEIGHT:,.0f}"
    if most is not None and not bad.any():
        bad = weights.astype(np.float64).sum(axis=1) > most + slack
        words = f"weights that sum to more than {most:g}"
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ReadError(f"{at(row)}: {words}: {weights[row].tolist()}; export again")


@dataclass(frozen=True)
class Places:
    """Where a row is, for messages. names: of the documents; lengths: their rows; a row counts from the first document's first."""

    path: Path
    names: Sequence[str]
    lengths: NDArray[np.int64]
    first: int = 0  # document of row 0

    def at(self, field: str, layer: int | str) -> Callable[[int], str]:
        """Words for a row: file, field, document, token, layer."""
        def words(row: int) -> str:
            ends = np.cumsum(self.lengths[self.first:])
            document = int(np.searchsorted(ends, row, side="right"))
            token = row - int(ends[document] - self.lengths[self.first + document])
            return f"{self.path}: field {field}: document {self.names[self.first + document]!r}, token {token}, layer {layer}"

        return words


def layer_table(depths: Sequence[int], n_experts: int, top_k: int, key: str = "model.layers.{}.mlp.router") -> tuple[LayerMeta, ...]:
    """LayerMeta of each block, all alike. ReadError for sizes that no layer has."""
    if not 1 <= top_k <= n_experts <= MOST_EXPERTS:
        raise ReadError(f"top {top_k} of {n_experts} experts: needed is 1 <= top_k <= n_experts <= {MOST_EXPERTS}; give --n-experts and --top-k")
    if len(set(depths)) != len(depths):
        raise ReadError(f"layers {list(depths)}: one occurs twice; name every layer once")
    return tuple(LayerMeta(key.format(depth), int(depth), "decoder", n_experts, top_k) for depth in depths)


def document_rows(ids: Sequence[str], domains: Sequence[str]) -> tuple[DocumentRow, ...]:
    """Documents numbered from 0, all of the split SPLIT."""
    return tuple(DocumentRow(number, plain(one), plain(domain), SPLIT) for number, (one, domain) in enumerate(zip(ids, domains, strict=True)))


def plain(text: str) -> str:
    """Text that UTF-8 can hold: half a surrogate pair is written as its escape."""
    return text.encode(errors="backslashreplace").decode()
