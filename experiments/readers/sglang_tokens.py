"""Dumps of SGLang's expert distribution recorder in mode per_token: expert places of every token, without names of requests.

T token (row), L hidden layer, K slot in the top-k.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.readers import _pickles
from experiments.readers._captured import Capture, Document, trace_of
from experiments.readers._rows import DocumentTrace
from experiments.readers.contract import ReadError, ReadOptions, Remark
from experiments.readers.sglang_recorder import MAP, NOTE, content, dumps, is_dump, physical_to_logical

NAME, KIND = "sglang-tokens", "rows"
EXTEND, DECODE, IDLE = 1, 2, 4  # forward modes; others mix prompts and decoding, or verify drafts
PADDED = -1
FIELDS = ("input_ids", "positions", "topk_ids_of_layer", "forward_mode")


@dataclass
class Request:
    """The sequence of one request so far: parts of ids [T, L, K], tokens and positions, and the position that would come next."""

    where: str
    ids: list[NDArray[Any]] = field(default_factory=list)
    tokens: list[NDArray[Any]] = field(default_factory=list)
    positions: list[NDArray[Any]] = field(default_factory=list)

    @property
    def following(self) -> int:
        """One after its last position."""
        return int(self.positions[-1][-1]) + 1

    def add(self, ids: NDArray[Any], tokens: NDArray[Any], positions: NDArray[Any]) -> None:
        """Append tokens."""
        self.ids.append(ids)
        self.tokens.append(tokens)
        self.positions.append(positions)


def recognises(path: Path) -> bool:
    """A dump with ids of tokens, or a folder of such dumps."""
    first = next(iter(dumps(path)), None)
    return first is not None and is_dump(first) and _pickles.names(first, ("topk_ids_of_layer", MAP))


def read(path: Path, options: ReadOptions) -> DocumentTrace:
    """A document is one prompt of an extend pass with the tokens decoded after it. Places are mapped to experts, padding is left out.

    Requests have no names in a dump: a decoded token belongs to the one sequence that waits for its position; where several do, it is left
    out and counted. Files of several ranks are of different tokens only where ranks compute different requests; those whose passes are
    alike are read once.
    """
    files = dumps(path)
    if not files:
        raise ReadError(f"{path}: no dump in it; give expert_distribution_recorder_*.pt or its folder")
    sequences: list[Request] = []
    counts = {"ambiguous": 0, "other_modes": 0, "copies": 0}
    seen: list[Any] = []
    n_experts = 0
    for file in files:
        dump = content(file)
        if not isinstance(dump.get("records"), list):
            raise ReadError(f"{file}: field records: absent; it is a dump of another mode")
        places = physical_to_logical(file, dump)
        n_experts = max(n_experts, int(places.max()) + 1)
        records = [_record(f"{file}: records[{index}]", record, places) for index, record in enumerate(dump["records"])]
        digest = [(one["mode"], one["tokens"].tobytes(), one["ids"].tobytes()) for one in records]
        if digest in seen:
            counts["copies"] += 1
            continue
        seen.append(digest)
        sequences += _sequences(records, counts)
    if not sequences:
        raise ReadError(f"{path}: no prompt in it; record per token from before the first request")
    domain = options.domain or path.stem
    parts = [np.concatenate(one.ids) for one in sequences]
    used = max((int(np.flatnonzero((ids != PADDED).any(axis=(0, 1))).max(initial=0)) for ids in parts), default=0) + 1  # the rest pads to eight slots
    documents = [Document(one.where, f"{domain}/{number:05d}", domain, ids[:, :, :used], np.concatenate(one.positions), np.concatenate(one.tokens))
                 for number, (one, ids) in enumerate(zip(sequences, parts))]
    late = sum(int(one.positions[0]) > 0 for one in documents)
    words = (("decoded_tokens_left_out", counts["ambiguous"], "decoded tokens left out, for no sequence or several wait for their position"),
             ("other_passes_left_out", counts["other_modes"], "passes left out that mix prompts and decoding, or verify drafts"),
             ("copied_ranks", counts["copies"], "files alike another one, as those of ranks that compute the same tokens: read once"),
             ("prefix_missing", late, "documents that do not begin at position 0: what is before was cached, or is another chunk of the prompt"))
    notes = (NOTE, Remark("last_tokens_missing", "the last token of a sequence is sampled and routed nowhere: it has no row", len(documents), 1.0),
             *(Remark(code, text, count) for code, count, text in words if count))
    return trace_of(path, documents, Capture(NAME, PADDED, n_experts, notes=notes), options)


def _record(where: str, record: Any, places: NDArray[np.int64]) -> dict[str, Any]:
    """ids of experts [T, L, K] without padded slots, tokens and positions [T], lengths of prompts, and the mode."""
    missing = [name for name in FIELDS if not isinstance(record, dict) or name not in record]
    if missing:
        raise ReadError(f"{where}: field {', '.join(missing)}: absent; record in mode per_token")
    tokens, positions = (_numbers(where, name, record[name]) for name in ("input_ids", "positions"))
    physical, mode = record["topk_ids_of_layer"], record["forward_mode"]
    if not isinstance(physical, np.ndarray) or physical.ndim != 3 or physical.dtype.kind != "i" or physical.shape[:2] != (len(places), len(tokens)) \
            or len(positions) != len(tokens) or type(mode) is not int:
        raise ReadError(f"{where}: field topk_ids_of_layer: expected integers [{len(places)} layers, {len(tokens)} tokens, top_k] and as many "
                        "positions; record again")
    if physical.size and (int(physical.max()) >= places.shape[1] or int(physical.min()) < PADDED):
        raise ReadError(f"{where}: field topk_ids_of_layer: place {int(physical.max())}, but the map has {places.shape[1]}; were shared experts "
                        "fused? record without")
    logical = np.where(physical == PADDED, PADDED, np.take_along_axis(
        places, np.maximum(physical, 0).reshape(len(places), -1).astype(np.int64), axis=1).reshape(physical.shape))
    lengths = record.get("extend_seq_lens")
    return {"where": where, "ids": logical.transpose(1, 0, 2), "tokens": tokens, "positions": positions, "mode": mode,
            "lengths": [] if lengths is None else _numbers(where, "extend_seq_lens", lengths).tolist()}


def _numbers(where: str, name: str, found: Any) -> NDArray[np.int64]:
    flat = found if isinstance(found, np.ndarray) else np.array(found if isinstance(found, list) and all(type(one) is int for one in found) else [[]])
    if flat.ndim != 1 or (flat.size and (flat.dtype.kind not in "iu" or int(flat.min()) < 0 or int(flat.max()) >= 2**31 - 1)):
        raise ReadError(f"{where}: field {name}: expected a list of numbers that are not negative; record again")
    return flat.astype(np.int64)


def _sequences(records: Sequence[Mapping[str, Any]], counts: dict[str, int]) -> list[Request]:
    found: list[Request] = []
    for one in records:
        if one["mode"] == EXTEND:
            if sum(one["lengths"]) != len(one["tokens"]) or min(one["lengths"], default=1) < 1:
                raise ReadError(f"{one['where']}: field extend_seq_lens: lengths that sum to {sum(one['lengths'])} for {len(one['tokens'])} tokens")
            ends = np.cumsum(one["lengths"])
            for start, end in zip(ends - one["lengths"], ends):
                sequence = Request(one["where"])
                sequence.add(*(one[name][start:end] for name in ("ids", "tokens", "positions")))
                found.append(sequence)
        elif one["mode"] == DECODE:
            waiting: dict[int, list[Request]] = {}
            for sequence in found:
                waiting.setdefault(sequence.following, []).append(sequence)
            for row, position in enumerate(one["positions"].tolist()):
                ready = waiting.get(position, [])
                if len(ready) == 1 and int((one["positions"] == position).sum()) == 1:
                    ready[0].add(*(one[name][row : row + 1] for name in ("ids", "tokens", "positions")))
                else:
                    counts["ambiguous"] += 1
        elif one["mode"] != IDLE:
            counts["other_modes"] += 1
    return found
