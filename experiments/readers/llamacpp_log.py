"""Text logs of llama.cpp with LLAMA_EXPERT_LOG: lines `EXPERT|L<layer>|T<tokens>: [ids] [ids]`, one bracket per token, among other output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from experiments.readers import _json, _text
from experiments.readers._passes import Record, trace_of
from experiments.readers._rows import MOST_EXPERTS, DocumentTrace
from experiments.readers.contract import ReadError, ReadOptions, Remark

NAME, KIND = "llamacpp-log", "rows"
PREFIX = b"EXPERT|L"
LINE = re.compile(r"EXPERT\|L(\d{1,5})\|T(\d{1,9}):((?:\s*\[\s*\d{1,5}(?:\s*,\s*\d{1,5})*\s*\])+)\s*(\.\.\.)?\s*")
BRACKET = re.compile(r"\[([^\]]*)\]")


def recognises(path: Path) -> bool:
    """A file of which some line begins as the recorder writes it."""
    return path.is_file() and _text.is_text(path) and _json.holds(path, PREFIX) and next(_logged(path), None) is not None


def read(path: Path, options: ReadOptions) -> DocumentTrace:
    """All passes of one process; other lines are skipped. A line that names more tokens than it lists gives those that it lists."""
    short: list[int] = []
    trace = trace_of(path, _records(path, short), options, NAME)
    if short:
        trace.noted = (*trace.noted, Remark("tokens_not_logged", "tokens that a layer's line counts without giving their ids", sum(short)))
    return trace


def _logged(path: Path) -> Iterator[tuple[str, bytes]]:
    for number, _, line in _json.lines(path):
        text = line.strip()
        if text.startswith(PREFIX):
            yield f"{path}: line {number}", text


def _records(path: Path, short: list[int]) -> Iterator[Record]:
    for where, text in _logged(path):
        match = LINE.fullmatch(text.decode(errors="replace"))
        if match is None:
            raise ReadError(f"{where}: {text[:60].decode(errors='replace')!r} is not EXPERT|L<layer>|T<tokens>: [ids]; was it cut?")
        groups = [[int(one) for one in group.split(",")] for group in BRACKET.findall(match[3])]
        tokens = int(match[2])
        if len(groups) > tokens or len({len(group) for group in groups}) > 1:
            raise ReadError(f"{where}: {len(groups)} lists of {sorted({len(group) for group in groups})} ids where T says {tokens} tokens; "
                            "one list per token is expected")
        if max(map(max, groups)) >= MOST_EXPERTS:
            raise ReadError(f"{where}: expert id {max(map(max, groups))}: no layer has so many; record again")
        if len(groups) < tokens:
            short.append(tokens - len(groups))
        yield Record(where, int(match[1]), np.array(groups), tokens)
