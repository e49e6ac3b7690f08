"""Routed experts that vLLM returns: an .npy per sequence, or responses (JSON, JSON lines) with base64 of an .npy or nested lists.

T token (row), H hidden layer, K slot in the top-k.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.readers import _json, _npz
from experiments.readers._captured import Capture, Document, decoded, token_list, trace_of
from experiments.readers._rows import DocumentTrace
from experiments.readers.contract import ReadError, ReadOptions, Remark

NAME, KIND = "vllm", "rows"
FIELD = "routed_experts"
MAGIC = b"\x93NUMPY"
SGLANG = (b'"meta_info"', b'"sglext"')  # whose responses name their field alike
LAST = Remark("last_tokens_missing", "the last token of a sequence is sampled and routed nowhere: it has no row")
MOST_IDS = 1 << 16


def recognises(path: Path) -> bool:
    """An .npy of whole numbers in three dimensions, a folder of such files, or responses with `routed_experts`."""
    if path.is_dir():
        first = next(iter(sorted(path.glob("*.npy"))), None)
        return first is not None and recognises(first)
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                found = _npz.load_npy(path)
                return found.ndim == 3 and found.dtype.kind in "iu"
    except (ReadError, OSError):
        return False
    return _json.begins(path, b"{[") and _json.holds(path, f'"{FIELD}"'.encode()) and not any(_json.holds(path, mark) for mark in SGLANG)


def read(path: Path, options: ReadOptions) -> DocumentTrace:
    """A document is a sequence: one .npy, or one choice of a response with its prompt.

    Arrays are [tokens, hidden layers, top_k] and dense layers are zero in them: these are absent here. Token ids are there where the
    responses hold `prompt_token_ids` and `token_ids`. Choices of one response share its prompt, which a remark counts.
    """
    documents = list(_arrays(path, options) if _is_npy(path) else _responses(path, options))
    if not documents:
        raise ReadError(f"{path}: no field {FIELD} that holds anything; start vLLM with --enable-return-routed-experts and record again")
    names = [one.where for one in documents]
    shared = sum(names.count(name) > 1 for name in set(names)) if len(set(names)) < len(names) else 0
    notes = [Remark(LAST.code, LAST.words, len(documents), 1.0)]
    if shared:
        notes.append(Remark("shared_prompts", "responses with several choices: their documents share a prompt and are not independent", shared))
    return trace_of(path, documents, Capture(NAME, 0, notes=tuple(notes)), options)


def _is_npy(path: Path) -> bool:
    if path.is_dir():
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror or error}") from error


def _arrays(path: Path, options: ReadOptions) -> Iterator[Document]:
    files = sorted(path.glob("*.npy")) if path.is_dir() else [path]
    domain = options.domain or (path.resolve().name if path.is_dir() else path.stem)
    for file in files:
        ids = _three(np.asarray(_npz.load_npy(file)), str(file))
        yield Document(str(file), file.stem, domain, ids, np.arange(len(ids)))


def _responses(path: Path, options: ReadOptions) -> Iterator[Document]:
    for number, (where, response) in enumerate(responses(path)):
        if not isinstance(response, dict):
            raise ReadError(f"{where}: {type(response).__name__}, expected a response")
        choices = response.get("choices")
        parts = choices if isinstance(choices, list) else [response]
        name = response.get("id") or response.get("request_id") or f"{path.stem}/{number:05d}"
        domain = options.domain or response.get("domain") or path.stem
        if not isinstance(name, str) or not isinstance(domain, str):
            raise ReadError(f"{where}: field id or domain: expected text; save the response again")
        prompt = response.get("prompt_routed_experts")
        for place, choice in enumerate(parts):
            at = f"{where}: choices[{place}]" if parts is choices else where
            if not isinstance(choice, dict):
                raise ReadError(f"{at}: {type(choice).__name__}, expected a choice")
            if choice.get(FIELD) is None:
                continue
            ids = _ids(choice[FIELD], at)
            if prompt is not None and not (len(parts) == 1 and _whole(response, len(ids))):
                ids = _with_prompt(_ids(prompt, where), ids, at)
            before = token_list(choice.get("prompt_token_ids", response.get("prompt_token_ids")), at, "prompt_token_ids")
            after = token_list(choice.get("token_ids"), at, "token_ids")
            tokens = None if before is None or after is None else np.concatenate([before, after])
            if tokens is not None and len(tokens) not in (len(ids), len(ids) + 1):
                raise ReadError(f"{at}: field {FIELD}: {len(ids)} rows for {len(tokens)} tokens; all but the last have one: record from token 0")
            yield Document(where, name if len(parts) == 1 else f"{name}/{place}", domain, ids, np.arange(len(ids)),
                           None if tokens is None else tokens[: len(ids)])


def responses(path: Path) -> Iterator[tuple[str, Any]]:
    """(where, value) of every response: lines of JSON, or one JSON value, a list being several."""
    first = next(iter(_json.lines(path)), None)
    if first is None:
        raise ReadError(f"{path}: byte 0: empty; record again")
    try:
        _json.parse(first[2], f"{path}: line 1")
        lines = True
    except ReadError:
        lines = False
    if lines and not first[2].lstrip().startswith(b"["):
        for number, offset, line in _json.lines(path):
            yield f"{path}: line {number}", _json.parse(line, f"{path}: line {number} from byte {offset}")
        return
    content = _json.load(path)
    for index, one in enumerate(content if isinstance(content, list) else [content]):
        yield f"{path}: [{index}]" if isinstance(content, list) else str(path), one


def _ids(found: Any, where: str) -> NDArray[Any]:
    if isinstance(found, str):
        content = decoded(found, where)
        with _npz.damage(Path(where), f"field {FIELD}: not base64 of an .npy"):
            file = io.BytesIO(content)
            _npz.read_header(file, f"{where}: field {FIELD}", len(content))
            file.seek(0)
            array = np.lib.format.read_array(file, allow_pickle=False)  # honours the order of axes that the header says
        return _three(array, where)
    if not isinstance(found, list):
        raise ReadError(f"{where}: field {FIELD}: {type(found).__name__}, expected base64 of an .npy or nested lists; save the response again")
    flat = [one for token in found if isinstance(token, list) for layer in token if isinstance(layer, list) for one in layer]
    shape = (len(found), *_inner(found))
    if len(flat) != shape[0] * shape[1] * shape[2] or not all(type(one) is int and 0 <= one < MOST_IDS for one in flat):
        raise ReadError(f"{where}: field {FIELD}: lists of unequal length, or what is no expert id; save the response again")
    return _three(np.array(flat, np.int64).reshape(shape), where)


def _inner(found: list[Any]) -> tuple[int, int]:
    token = found[0] if found and isinstance(found[0], list) else []
    sizes = {(len(one), *{len(layer) for layer in one if isinstance(layer, list)}) for one in found if isinstance(one, list)}
    if len(sizes) != 1 or not token or not isinstance(token[0], list) or not token[0]:
        return 0, 0
    return len(token), len(token[0])


def _three(found: NDArray[Any], where: str) -> NDArray[Any]:
    if found.ndim != 3 or found.dtype.kind not in "iu" or not found.size:
        raise ReadError(f"{where}: {found.dtype} {list(found.shape)}, expected whole numbers [tokens, hidden layers, top_k]; record again")
    return found


def _whole(response: dict[str, Any], n_rows: int) -> bool:
    """Whether the only choice of a response has the rows of its prompt already."""
    usage = response.get("usage")
    prompt, completion = (usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens"))
    return isinstance(prompt, int) and isinstance(completion, int) and n_rows >= prompt + completion - 1


def _with_prompt(prompt: NDArray[Any], ids: NDArray[Any], where: str) -> NDArray[Any]:
    if prompt.shape[1:] != ids.shape[1:]:
        raise ReadError(f"{where}: field {FIELD}: {list(ids.shape[1:])} of layers and top_k, but prompt_routed_experts has {list(prompt.shape[1:])}")
    if len(ids) >= len(prompt) and np.array_equal(ids[:len(prompt)], prompt):  # the choice holds the rows of its prompt already
        return ids
    return np.concatenate([prompt, ids])
