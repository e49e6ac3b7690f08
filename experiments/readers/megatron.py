"""Router decisions as Megatron Core's router trace writes them: `router_trace_rank{r}.jsonl`, and its sidecar of bfloat16 logits where kept.

T token of a record, K slot in the top-k, L MoE layer, E expert.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.halves import RouterRows, of_logits
from analysis.trace import TraceBatch, TraceMeta
from experiments.readers import _json
from experiments.readers._rows import DocumentTrace, Places, added, by_weight, check_ids, document_rows, layer_table, numbered
from experiments.readers.contract import UNKNOWN, ReadError, ReadOptions, Remark

NAME, KIND = "megatron", "rows"
TRACE = re.compile(r"router_trace_rank(\d{1,6})\.jsonl")
KEYS = {"step", "stage", "layer", "rank", "num_tokens", "topk", "top_indices"}
LOGITS = "logits_rank{}.bin"
DECODER = "decoder"
STEPS = "documents are the tokens of one pass on one rank, for the trace does not say which text a token is of: they are no independent texts"
BY_LOGIT = "falling logit, put so by the reader"
OFF_TOP_K = "ids_not_of_logits"


@dataclass(frozen=True)
class Record:
    """Where the decisions of one layer in one pass are, and its logits (byte offset in the sidecar, shape), if kept."""

    path: Path
    number: int
    offset: int
    length: int
    tokens: int
    top_k: int
    logits: tuple[int, tuple[int, int]] | None

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.path}: line {self.number}"


@dataclass
class Pass:
    """One forward pass on one rank: layer -> record; digest: of the decisions, to find ranks that hold the same tokens."""

    rank: int
    step: int
    turn: int  # the how-manieth pass of this step
    records: dict[int, Record] = field(default_factory=dict)
    digest: dict[int, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Id of the document."""
        return f"rank{self.rank}/step{self.step}" + (f".{self.turn}" if self.turn else "")


def recognises(path: Path) -> bool:
    """JSON lines with Megatron's keys, or a folder of `router_trace_rank*.jsonl`."""
    first = next(iter(_files(path)), None)
    return first is not None and _json.begins(first, b"{") and set(_json.first_record(first)) >= KEYS


def read(path: Path, options: ReadOptions) -> DocumentTrace:
    """A document per pass and rank; blocks `mtp` are left out; a rank that repeats another's decisions throughout is left out.

    Weights were not kept. With a sidecar of logits, entropies are of their softmax (Megatron's default score function), and slots are put
    by falling logit. The number of experts is that of the logits, or `options.n_experts`.
    """
    files = _files(path)
    if not files:
        raise ReadError(f"{path}: no router_trace_rank*.jsonl in it; give the trace file or its folder")
    left_out = [0]
    passes = [one for file in files for one in _index(file, left_out)]
    if not passes:
        raise ReadError(f"{path}: no record of a decoder layer in it; was the trace switched on?")
    passes, repeated = _without_repeats(passes)
    depths, top_k, n_experts, with_logits = _common(path, passes, options)
    lengths = np.array([next(iter(one.records.values())).tokens for one in passes], np.int64)
    names = [one.name for one in passes]
    noted = [Remark("steps_not_documents", STEPS, len(passes))]
    if left_out[0]:
        noted.append(Remark("mtp_left_out", "records of multi-token-prediction blocks, which are no layers of the model's path", left_out[0]))
    if repeated:
        noted.append(Remark("ranks_alike", f"ranks left out whose decisions are those of another rank throughout: {repeated}", len(repeated)))
    if with_logits:
        noted.append(Remark("softmax_assumed", "entropies are of the softmax over the logits; for a sigmoid router they are another quantity"))
    meta = TraceMeta(options.model or UNKNOWN, UNKNOWN, layer_table(depths, n_experts, top_k, "decoder.layers.{}.mlp.router"), "softmax",
                     "softmax_logits" if with_logits else "absent", "absent", "absent", 0, "assay-megatron 1",
                     details={"files": [file.name for file in files], "documents_are": STEPS, **({"slot_order": BY_LOGIT} if with_logits else {}),
                              "absent": ["token_id", "weights"] + ([] if with_logits else ["entropy_nats"])})
    places = Places(path, names, lengths)
    domain = options.domain or (path.name if path.is_dir() else path.stem)
    return DocumentTrace(meta, document_rows(names, [domain] * len(names)), lengths,
                         lambda first, last: _rows(passes, (depths, n_experts, with_logits), places, first, last), tuple(noted))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if path.is_file() else []
    ranks = {int(found[1]): file for file in path.iterdir() if (found := TRACE.fullmatch(file.name)) and file.is_file()}
    return [ranks[rank] for rank in sorted(ranks)]


def _index(path: Path, left_out: list[int]) -> list[Pass]:
    """Every pass of a file, in order; left_out[0] counts the records that are of no decoder layer."""
    turns: dict[tuple[int, int, int], int] = {}
    passes: dict[tuple[int, int, int], Pass] = {}
    for number, offset, line in _json.lines(path):
        where = f"{path}: line {number}"
        record = _json.parse(line, where)
        rank, step, layer, tokens, top_k = (_json.field(record, name, int, where) for name in ("rank", "step", "layer", "num_tokens", "topk"))
        if record.get("block", DECODER) != DECODER:
            left_out[0] += 1
            continue
        ids = _ids(record, where, (tokens, top_k))
        if not 0 <= layer < 2**31 or rank < 0 or tokens < 1:
            raise ReadError(f"{where}: layer {layer}, rank {rank}, num_tokens {tokens}: none of them may be so; write the trace again")
        turn = turns[rank, step, layer] = turns.get((rank, step, layer), -1) + 1
        one = passes.setdefault((rank, step, turn), Pass(rank, step, turn))
        one.records[layer] = Record(path, number, offset, len(line), tokens, top_k, _logits_of(record, where, path, rank))
        one.digest[layer] = hash(ids.tobytes())
    return list(passes.values())


def _ids(record: Mapping[str, Any], where: str, shape: tuple[int, int]) -> NDArray[np.int64]:
    rows = _json.field(record, "top_indices", list, where)
    try:
        found = np.array(rows)
    except ValueError:
        found = np.empty(0)
    if found.shape != shape or found.dtype.kind != "i" or 0 in shape:
        raise ReadError(f"{where}: field top_indices: {found.dtype} {list(found.shape)}, expected whole numbers [{shape[0]} tokens, k={shape[1]}] as "
                        "num_tokens and topk say; write the trace again")
    return found.astype(np.int64)


def _logits_of(record: Mapping[str, Any], where: str, path: Path, rank: int) -> tuple[int, tuple[int, int]] | None:
    """Offset and shape of a record's logits, compared with the sidecar's size."""
    if "logit_offset" not in record:
        return None
    offset, n_bytes = (_json.field(record, name, int, where) for name in ("logit_offset", "logit_bytes"))
    shape = _json.field(record, "logit_shape", list, where)
    sidecar = path.with_name(LOGITS.format(rank))
    if not sidecar.is_file():
        raise ReadError(f"{where}: field logit_offset: its logits are in {sidecar.name}, which is not beside it; copy it there")
    whole = all(type(one) is int and one > 0 for one in shape) and len(shape) >= 2
    if not whole or math.prod(shape) * 2 != n_bytes or math.prod(shape[:-1]) != record["num_tokens"]:
        raise ReadError(f"{where}: field logit_shape: {str(shape)[:80]} in {n_bytes} bytes, expected [num_tokens, experts] of two bytes each; "
                        "write the trace again")
    if offset < 0 or offset + n_bytes > sidecar.stat().st_size:
        raise ReadError(f"{where}: field logit_offset: bytes {offset} to {offset + n_bytes} of {sidecar}, which has {sidecar.stat().st_size:,}; "
                        "it was cut: copy it again")
    return offset, (record["num_tokens"], shape[-1])


def _without_repeats(passes: list[Pass]) -> tuple[list[Pass], list[int]]:
    """Passes without ranks that have every pass of a lower rank with the same decisions, and those ranks."""
    whole: dict[int, frozenset[Any]] = {}
    for rank in sorted({one.rank for one in passes}):
        whole[rank] = frozenset((one.step, one.turn, tuple(sorted(one.digest.items()))) for one in passes if one.rank == rank)
    repeated = [rank for rank in whole if any(other < rank and whole[other] == whole[rank] for other in whole)]
    return [one for one in passes if one.rank not in repeated], repeated


def _common(path: Path, passes: Sequence[Pass], options: ReadOptions) -> tuple[list[int], int, int, bool]:
    """Layers, k, experts, and whether all records have logits; every pass must have all layers, of the same tokens."""
    first = passes[0]
    depths = sorted({depth for one in passes for depth in one.records})
    sizes = {record.logits[1][1] if record.logits else None for one in passes for record in one.records.values()}
    for one in passes:
        lacking = sorted(set(depths) - set(one.records))
        if lacking:
            record = next(iter(one.records.values()))
            raise ReadError(f"{record.path}: {one.name}: layers {lacking[:8]} are absent, which other passes have; the file was cut, or ranks hold "
                            "different layers (pipeline stages): give one stage's files at a time")
        tokens = {record.tokens for record in one.records.values()}
        if len(tokens) > 1:
            raise ReadError(f"{one.records[depths[0]].where}: {one.name}: field num_tokens: {sorted(tokens)} by layer, expected one number; "
                            "write the trace again")
        other = next((record for record in one.records.values() if record.top_k != first.records[depths[0]].top_k), None)
        if other:
            raise ReadError(f"{other.where}: field topk: {other.top_k}, the first record has {first.records[depths[0]].top_k}; two models are never "
                            "one trace: import them apart")
    if len(sizes) > 1:
        raise ReadError(f"{path}: field logit_shape: {sorted(sizes, key=str)} experts by record; two models, or logits of some records only: "
                        "write the trace again")
    n_logits = sizes.pop()
    n_experts = n_logits or options.n_experts
    if n_experts is None or options.n_experts not in (None, n_experts):
        raise ReadError(f"{path}: " + (f"the logits are of {n_logits} experts, but --n-experts says {options.n_experts}; leave the option out"
                                       if n_logits else "the trace does not say how many experts there are; give --n-experts"))
    if options.layers is not None and list(options.layers) != depths:
        raise ReadError(f"{path}: the trace is of layers {depths}, but {list(options.layers)} were named; leave --layers out")
    return depths, first.records[depths[0]].top_k, n_experts, n_logits is not None


def _rows(passes: Sequence[Pass], plan: tuple[list[int], int, bool], places: Places, first: int, last: int) -> tuple[TraceBatch, Mapping[str, int]]:
    depths, n_experts, with_logits = plan
    here = Places(places.path, places.names, places.lengths, first)
    columns, ids, met = [], [], dict[str, int]()
    for depth in depths:
        records = [one.records[depth] for one in passes[first:last]]
        found = np.concatenate([_read_ids(record) for record in records])
        check_ids(found, n_experts, here.at("top_indices", depth))
        if with_logits:
            bits = np.concatenate([_read_logits(record, one.rank) for record, one in zip(records, passes[first:last])])
            rows = _of(bits, here, depth)
            columns.append((rows.entropy_nats, rows.simpson, rows.confidence))
            logits = (bits.astype(np.uint32) << 16).view(np.float32)
            chosen = np.take_along_axis(logits, found, axis=1)
            top = -np.sort(-logits, axis=1)[:, : found.shape[1]]
            found, in_order, moved = by_weight(found, chosen)
            met = added(met, moved | {OFF_TOP_K: int((in_order != top).any(axis=1).sum())})
        ids.append(found.astype(np.uint8 if n_experts <= 256 else np.uint16))
    reals = [np.stack(part).astype(np.float32) for part in zip(*columns)] if with_logits else [None, None, None]
    return TraceBatch(*numbered(places.lengths, first, last), None, tuple(ids), None, *reals), met


def _of(bits: NDArray[np.uint16], here: Places, depth: int) -> RouterRows:
    try:
        return of_logits(bits)
    except ValueError as error:
        finite = np.isfinite((bits.astype(np.uint32) << 16).view(np.float32)).all(axis=1)
        row = int(np.flatnonzero(~finite)[0]) if not finite.all() else 0
        raise ReadError(f"{here.at('logits', depth)(row)}: {error}; the model overflowed, or the sidecar is damaged") from error


def _read_ids(record: Record) -> NDArray[np.int64]:
    with record.path.open("rb") as file:
        file.seek(record.offset)
        content = _json.parse(file.read(record.length), record.where)
    return _ids(content, record.where, (record.tokens, record.top_k))


def _read_logits(record: Record, rank: int) -> NDArray[np.uint16]:
    offset, shape = record.logits or (0, (0, 0))
    with record.path.with_name(LOGITS.format(rank)).open("rb") as file:
        file.seek(offset)
        content = file.read(2 * math.prod(shape))
    if len(content) != 2 * math.prod(shape):
        raise ReadError(f"{record.where}: field logit_offset: the sidecar was cut meanwhile; copy it again")
    return np.frombuffer(content, "<u2").reshape(shape).astype(np.uint16)
