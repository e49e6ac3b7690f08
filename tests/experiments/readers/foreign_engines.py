"""Small files as inference engines write them, made from the formats' definitions with numbers chosen by hand; no code of the readers is used."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Ids = Sequence[int]


def entry(layer: int, component: str, ids: Ids, phase: str = "GENERATE", **changes: Any) -> dict[str, Any]:
    """One operation of the tensor trace, in the layout of its parser."""
    return {"entry_id": 7, "timestamp_ns": 1, "timestamp_relative_ms": 0.0, "token_id": 0, "layer_id": layer, "thread_id": 3, "phase": phase,
            "operation_type": "MUL_MAT_ID", "dst_name": f"ffn_moe_{component}-{layer}", "num_sources": 2,
            "sources": [{"name": f"blk.{layer}.ffn_{component}_exps.weight", "tensor_ptr": "0x7f", "size_bytes": 4096, "layer_id": layer,
                         "memory_source": "DISK", "disk_offset": 64}],
            "expert_ids": list(ids), "num_experts": len(ids)} | changes


def operations(layer: int, ids: Ids, phase: str = "GENERATE") -> list[dict[str, Any]]:
    """An attention product, and the three products of one decision."""
    dense = {**entry(layer, "gate", [], phase), "operation_type": "MUL_MAT", "dst_name": f"Qcur-{layer}", "expert_ids": [], "num_experts": 0}
    return [dense, *(entry(layer, component, ids, phase) for component in ("gate", "up", "down"))]


def token_file(folder: Path, number: int, entries: list[dict[str, Any]], **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"token-{number:05d}.json"
    path.write_text(json.dumps({"token_id": number, "metadata": {"total_entries": len(entries), "duration_ms": 1.5, "timestamp_start_ns": 1,
                                                                 "format_version": "1024-byte"}, "entries": entries} | changes))
    return path


LLAMACPP = {  # domain -> token -> layer -> ids; two layers, top-2 of 8
    "domain-1-code": [[[3, 1], [0, 2]], [[1, 7], [2, 6]], [[3, 0], [1, 0]]],
    "domain-2-math": [[[4, 5], [6, 2]], [[5, 4], [2, 6]]],
}


def llamacpp(folder: Path, prompt: bool = True) -> Path:
    """Two domains. The first file of each has a PROMPT pass of two tokens too: four ids, of which the first two are the first token's."""
    for name, tokens in LLAMACPP.items():
        for number, token in enumerate(tokens):
            passes = [("PROMPT", [[6, 2, 5, 4], [7, 3, 1, 0]])] if prompt and number == 0 else []
            entries = [one for phase, rows in [*passes, ("GENERATE", token)] for layer, ids in enumerate(rows)
                       for one in operations(layer, ids, phase)]
            token_file(folder / "run" / name / "traces", number, entries)
    return folder / "run"


def trace_record(token: int, layer: int, name: str, ids: Ids, phase: str = "GENERATE") -> bytes:
    """One packed record of the tensor trace, field by field."""
    head = struct.pack("<QIHHBBB5x", 1_000 + token, token, layer, 3, 30 if ids else 29, ("PROMPT", "GENERATE").index(phase), 2)
    source = struct.pack("<128sQIHBBQI4x", f"blk.{layer}.weight".encode(), 0x7F, 4096, layer, 0, 0, 64, 5)
    experts = struct.pack("<16iB167x", *ids, *[-1] * (16 - len(ids)), len(ids))
    return head + struct.pack("128s", name.encode()) + 2 * source + bytes(2 * 160) + experts


def llamacpp_binary(folder: Path, prompt: bool = True) -> Path:
    """The same two domains as `llamacpp` writes, as packed records, each file with an unwritten record at its end."""
    for name, tokens in LLAMACPP.items():
        records = []
        for number, token in enumerate(tokens):
            passes = [("PROMPT", [[6, 2, 5, 4], [7, 3, 1, 0]])] if prompt and number == 0 else []
            for phase, rows in [*passes, ("GENERATE", token)]:
                for layer, ids in enumerate(rows):
                    records.append(trace_record(number, layer, f"Qcur-{layer}", [], phase))
                    records += [trace_record(number, layer, f"ffn_moe_{part}-{layer}", ids, phase) for part in ("gate", "up", "down")]
        (folder / "binary" / name).mkdir(parents=True, exist_ok=True)
        (folder / "binary" / name / "tensor_trace.bin").write_bytes(b"".join(records) + bytes(1024))
    return folder / "binary"


MBOLT_PASSES = [  # layer -> token -> ids; a prompt of three tokens, of which the last layer routes the last only, then two tokens
    {0: [[1, 2], [3, 4], [5, 6]], 1: [[2, 1], [4, 3], [6, 5]], 2: [[7, 0]]},
    {0: [[0, 1]], 1: [[2, 3]], 2: [[4, 5]]},
    {0: [[6, 7]], 1: [[7, 6]], 2: [[1, 3]]},
]
PASS_ROWS = [[[5, 6], [6, 5], [7, 0]], [[0, 1], [2, 3], [4, 5]], [[6, 7], [7, 6], [1, 3]]]  # [token, layer, slot] of those above
PASS_POSITIONS = [2, 3, 4]


def mbolt(folder: Path) -> Path:
    words = [0x544C424D, 1, 8]
    for one in MBOLT_PASSES:
        for layer, tokens in one.items():
            words += [layer, 2, len(tokens), *(expert for ids in tokens for expert in ids)]
    (folder / "route.bin").write_bytes(struct.pack(f"<{len(words)}i", *words))
    return folder / "route.bin"


def expert_log(folder: Path) -> Path:
    lines = ["llama_model_loader: loaded meta data", ""]
    for one in MBOLT_PASSES:
        lines.append("main: decoded \u65e5\u672c")
        lines += [f"EXPERT|L{layer}|T{len(tokens)}: " + " ".join(f"[{','.join(map(str, ids))}]" for ids in tokens) for layer, tokens in one.items()]
    (folder / "expert_data.log").write_text("\n".join(lines) + "\n")
    return folder / "expert_data.log"


TABLE = {0: [3, 0, 1, 4], 2: [2, 2, 2, 2]}  # layer -> count of each of four experts; eight selections each, so four tokens of top-2


def moe_trace(folder: Path) -> Path:
    lines = [f"{layer},{expert}" for layer, counts in TABLE.items() for expert, count in enumerate(counts) for _ in range(count)]
    (folder / "moe_trace.csv").write_text("layer,expert\n" + "\n".join(lines) + "\n")
    return folder / "moe_trace.csv"


def colibri(folder: Path) -> Path:
    lines = ["-1 4 2"] + [f"{layer} {expert} {count}" for layer, counts in TABLE.items() for expert, count in enumerate(counts) if count]
    (folder / "stats.txt").write_text("\n".join(lines) + "\n")
    return folder / "stats.txt"


def prefetch(folder: Path) -> Path:
    layers = [{"layer_id": layer, "total_tokens": sum(counts), "experts": [
        {"expert_id": expert, "activations": count, "percentage": 100 * count / sum(counts)} for expert, count in enumerate(counts)]}
        for layer, counts in TABLE.items()]
    (folder / "expert_stats.json").write_text(json.dumps({"layers": layers}))
    return folder / "expert_stats.json"


def gguf_text(words: str) -> bytes:
    return struct.pack("<Q", len(words.encode())) + words.encode()


def gguf(path: Path, keys: dict[str, tuple[int, bytes]], tensors: dict[str, tuple[tuple[int, ...], int, bytes]], version: int = 3) -> Path:
    """A GGUF file: keys as (type, bytes), tensors as (dimensions with the fastest first, type, bytes)."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    head += b"".join(gguf_text(name) + struct.pack("<I", kind) + value for name, (kind, value) in keys.items())
    data = b""
    for name, (shape, kind, content) in tensors.items():
        data += bytes(-len(data) % 32)
        head += gguf_text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape) + struct.pack("<IQ", kind, len(data))
        data += content
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path


IMATRIX = {0: [3, 0, 1, 4], 5: [2, 2, 2, 2]}


def imatrix_tensors(counts: dict[int, dict[str, list[float]]]) -> dict[str, tuple[tuple[int, ...], int, bytes]]:
    found: dict[str, tuple[tuple[int, ...], int, bytes]] = {}
    for layer, parts in counts.items():
        found[f"blk.{layer}.attn_q.weight.counts"] = ((1, 1), 0, struct.pack("<f", 4))
        for component, values in parts.items():
            name = f"blk.{layer}.ffn_{component}_exps.weight"
            found[f"{name}.in_sum2"] = ((3, len(values)), 0, struct.pack(f"<{3 * len(values)}f", *range(3 * len(values))))
            found[f"{name}.counts"] = ((1, len(values)), 0, struct.pack(f"<{len(values)}f", *values))
    return found


def imatrix_keys(chunk_count: int = 2, chunk_size: int = 2) -> dict[str, tuple[int, bytes]]:
    """Two chunks of two tokens."""
    return {"general.type": (8, gguf_text("imatrix")), "imatrix.datasets": (9, struct.pack("<IQ", 8, 1) + gguf_text("wiki.train.raw")),
            "imatrix.chunk_count": (4, struct.pack("<I", chunk_count)), "imatrix.chunk_size": (4, struct.pack("<I", chunk_size))}


def imatrix(folder: Path) -> Path:
    counts: Any = {layer: dict.fromkeys(("gate", "up", "down"), values) for layer, values in IMATRIX.items()}
    return gguf(folder / "imatrix.gguf", imatrix_keys(), imatrix_tensors(counts))


EXAMPLES: dict[str, tuple[str, Callable[[Path], Path]]] = {  # name -> format, what writes one
    "llamacpp": ("llamacpp", llamacpp), "llamacpp_binary": ("llamacpp-binary", llamacpp_binary), "mbolt": ("mbolt", mbolt),
    "llamacpp_log": ("llamacpp-log", expert_log),
    "moe_trace": ("moe-trace", moe_trace), "colibri": ("colibri", colibri), "llama_prefetch": ("llama-prefetch", prefetch),
    "imatrix": ("imatrix", imatrix),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "llamacpp": {"n_experts": 8}, "llamacpp_binary": {"n_experts": 8}, "llamacpp_log": {"n_experts": 8},
    **{name: {"n_experts": 4, "top_k": 2} for name in ("moe_trace", "colibri", "llama_prefetch")},
}
CUT_UNSEEN = ("llamacpp_log", "moe_trace", "colibri", "mbolt")  # a file cut between two records is a shorter file of the format
