"""Binary routing logs of llama.cpp with MBOLT_TRACE: int32 little-endian, magic "MBLT", version 1, then one record per layer and pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.readers._passes import Record, trace_of
from experiments.readers._rows import MOST_EXPERTS, DocumentTrace
from experiments.readers.contract import ReadError, ReadOptions

NAME, KIND = "mbolt", "rows"
MAGIC, VERSION, HEADER = 0x544C424D, 1, 3  # header: magic, version, experts of a layer
WORD = 4


def recognises(path: Path) -> bool:
    """A file that begins with the magic number."""
    try:
        with path.open("rb") as file:
            return file.read(WORD) == MAGIC.to_bytes(WORD, "little")
    except OSError:
        return False


def read(path: Path, options: ReadOptions) -> DocumentTrace:
    """All passes of one process; records are layer, k, number of tokens, and ids token by token."""
    try:
        size = path.stat().st_size
        words = np.fromfile(path, "<i4") if size % WORD == 0 else np.empty(0, np.int32)
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror or error}") from error
    if len(words) < HEADER or words[0] != MAGIC:
        raise ReadError(f"{path}: {size:,} bytes that are no MBOLT trace, or one that was cut; record again")
    if words[1] != VERSION:
        raise ReadError(f"{path}: field version: {words[1]}; version {VERSION} is read")
    n_experts = int(words[2])
    if not 1 <= n_experts <= MOST_EXPERTS or options.n_experts not in (None, n_experts):
        raise ReadError(f"{path}: field n_expert: {n_experts}, but --n-experts says {options.n_experts}; is it a trace of another model?")
    return trace_of(path, _records(path, words, n_experts), options, NAME, n_experts)


def _records(path: Path, words: NDArray[Any], n_experts: int) -> Iterator[Record]:
    at = HEADER
    while at < len(words):
        where = f"{path}: byte {at * WORD}"
        if at + 3 > len(words):
            raise ReadError(f"{where}: the last record is cut; record again, or cut the file there")
        layer, top_k, tokens = (int(word) for word in words[at : at + 3])
        if layer < 0 or not 1 <= top_k <= n_experts or tokens < 1:
            raise ReadError(f"{where}: layer {layer}, k {top_k}, {tokens} tokens: not those of a record; record again")
        start, at = at + 3, at + 3 + top_k * tokens
        if at > len(words):
            raise ReadError(f"{where}: the record claims {tokens} tokens of {top_k} ids, but the file ends; record again, or cut the file there")
        yield Record(where, layer, words[start:at].reshape(tokens, top_k), tokens)
