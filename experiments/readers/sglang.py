"""Routed experts that SGLang returns: responses (JSON, JSON lines) whose `meta_info` or `sglext` hold base64 of raw int32 without a shape.

T token (row), H hidden layer, K slot in the top-k.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.readers import _json
from experiments.readers._captured import Capture, Document, decoded, token_list, trace_of
from experiments.readers._recorded import MOST_LAYERS, asked
from experiments.readers._rows import DocumentTrace
from experiments.readers.contract import ReadError, ReadOptions
from experiments.readers.vllm import LAST, responses

NAME, KIND = "sglang", "rows"
FIELD, PLACES = "routed_experts", ("meta_info", "sglext")
WORD = 4
MEANS = "text, prompt_tokens and completion_tokens in meta_info (or usage), or input_ids and output_ids"


def recognises(path: Path) -> bool:
    """JSON responses that hold `routed_experts` in SGLang's places."""
    return path.is_file() and _json.begins(path, b"{[") and _json.holds(path, f'"{FIELD}"'.encode()) \
        and any(_json.holds(path, f'"{place}"'.encode()) for place in PLACES)


def read(path: Path, options: ReadOptions) -> DocumentTrace:
    """A document is a response. Needs `options.top_k`: the bytes have no shape.

    Rows are known from the numbers of prompt and completion tokens, the last of which has none, and the number of hidden layers is what
    remains; it must be one number for all responses. Dense layers, zero in the bytes, are absent here.
    """
    top_k = asked(options.top_k, "top-k", path, "routed_experts are bytes without a shape")
    raw = list(_raw(path, options))
    if not raw:
        raise ReadError(f"{path}: no field {FIELD} that holds anything; ask for return_routed_experts and record again")
    found: set[int] = set()
    for one, words, rows in raw:
        layers, rest = divmod(len(words), rows * top_k)
        if rest or not 1 <= layers <= MOST_LAYERS:
            raise ReadError(f"{one.where}: field {FIELD}: {len(words):,} ids are not {rows} tokens x hidden layers x top-{top_k}; correct --top-k, "
                            "or the response lacks tokens")
        found.add(layers)
    if len(found) > 1:
        raise ReadError(f"{path}: {sorted(found)[:4]} hidden layers in its responses; they are of different models, or --top-k is wrong")
    shape = (-1, found.pop(), top_k)
    documents = [Document(one.where, one.name, one.domain, words.reshape(shape), one.positions, one.tokens) for one, words, _ in raw]
    notes = (type(LAST)(LAST.code, LAST.words, len(documents), 1.0),)
    return trace_of(path, documents, Capture(NAME, 0, notes=notes), options)


def _raw(path: Path, options: ReadOptions) -> Iterator[tuple[Document, NDArray[Any], int]]:
    """(document without shape, its ids one after the other, rows) of every response, or of every choice of one."""
    for number, (where, response) in enumerate(responses(path)):
        if not isinstance(response, dict):
            raise ReadError(f"{where}: {type(response).__name__}, expected a response")
        choices = response.get("choices")
        parts = choices if isinstance(choices, list) else [response]
        for place, part in enumerate(parts):
            at = f"{where}: choices[{place}]" if parts is choices else where
            if not isinstance(part, dict):
                raise ReadError(f"{at}: {type(part).__name__}, expected a choice")
            about = next((one for name in PLACES for one in (part.get(name), response.get(name)) if isinstance(one, dict) and one.get(FIELD)), None)
            if about is None:
                continue
            text = about[FIELD]
            if not isinstance(text, str):
                raise ReadError(f"{at}: field {FIELD}: {type(text).__name__}, expected base64; save the response as it came")
            content = decoded(text, at)
            if not content or len(content) % WORD:
                raise ReadError(f"{at}: field {FIELD}: {len(content)} bytes are no int32; was the response cut?")
            tokens = _tokens(part, response, at)
            start = _start(about, at)
            rows = _rows(about, response if len(parts) == 1 else {}, tokens, at) - start  # usage adds up the choices of a response
            if rows < 1:
                raise ReadError(f"{at}: field {FIELD}: {rows + start + 1} tokens from token {start} on leave no row; record again")
            name = about.get("id") or response.get("id") or f"{path.stem}/{number:05d}"
            domain = options.domain or response.get("domain") or path.stem
            if not isinstance(name, str) or not isinstance(domain, str):
                raise ReadError(f"{at}: field id or domain: expected text; save the response again")
            name = name if len(parts) == 1 else f"{name}/{place}"
            column = tokens[start : start + rows] if tokens is not None and len(tokens) >= start + rows else None
            yield Document(at, name, domain, np.empty(0), np.arange(start, start + rows), column), np.frombuffer(content, "<i4"), rows


def _tokens(part: Any, response: Any, where: str) -> NDArray[np.int64] | None:
    before = token_list(part.get("input_ids", response.get("input_ids")), where, "input_ids")
    after = token_list(part.get("output_ids", response.get("output_ids")), where, "output_ids")
    return None if before is None or after is None else np.concatenate([before, after])


def _rows(about: Any, response: Any, tokens: NDArray[np.int64] | None, where: str) -> int:
    """Tokens of the sequence but the last."""
    usage = response.get("usage")
    for source in (about, usage if isinstance(usage, dict) else {}):
        prompt, completion = (source.get(name) for name in ("prompt_tokens", "completion_tokens"))
        if isinstance(prompt, int) and isinstance(completion, int) and 0 <= min(prompt, completion) <= max(prompt, completion) < 2**31:
            return prompt + completion - 1
    if tokens is None:
        raise ReadError(f"{where}: field {FIELD}: how many tokens it is of is not said; save responses with {MEANS}")
    return len(tokens) - 1


def _start(about: Any, where: str) -> int:
    start = about.get("routed_experts_start_len", 0)
    if type(start) is not int or start < 0:
        raise ReadError(f"{where}: field routed_experts_start_len: {str(start)[:40]}, expected a number of tokens")
    return start
