"""Importance matrices of llama.cpp in GGUF: how many tokens of the calibration text were routed to each expert, per layer.

E expert.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.readers import _gguf
from experiments.readers._recorded import asked, counts_of, layer_list, recorded_meta
from experiments.readers._rows import layer_table, plain
from experiments.readers.contract import ForeignCounts, ReadError, ReadOptions, Remark

NAME, KIND = "imatrix", "counts"
COUNTS = re.compile(r"blk\.(\d{1,5})\.ffn_(gate_up|gate|up|down)_exps\.weight\.counts")
COMPONENTS = ("gate_up", "gate", "up", "down")  # the first that is there is kept
OLDER_NAME = re.compile(rb"(blk\.\d{1,5}\.[a-z0-9_.]+|output|token_embd)\.weight")
LONGEST_NAME, MOST_ENTRIES = 128, 1_000_000  # of the older format
EXACT = 2**24  # beyond it float32 skips numbers: a count that is raised by one stays what it was


def recognises(path: Path) -> bool:
    """A GGUF file with counts of a layer's experts, or the older format, of which `read` says why there is nothing to be had."""
    if not path.is_file():
        return False
    if _is_older(path):
        return True
    try:
        return any(COUNTS.fullmatch(name) for name in _gguf.read_header(path).tensors)
    except ReadError:
        return False


def read(path: Path, options: ReadOptions) -> ForeignCounts:
    """Counts of one domain; top_k is what the counts of a layer are to chunk_count x chunk_size tokens, unless `options` say otherwise.

    gate, up and down count the same tokens: the first is kept, and where another differs a remark counts the layers and
    `meta.details["components"]["differences"]` holds [domain, layer, component, expert, selections more than the kept one has].
    """
    if _is_older(path):
        raise ReadError(f"{path}: the older format of importance matrices, which keeps activations divided by each expert's count and not the "
                        "counts; write it again with --output-format gguf")
    file = _gguf.read_header(path)
    tables: dict[int, dict[str, NDArray[np.int64]]] = {}
    for name in file.tensors:
        match = COUNTS.fullmatch(name)
        if match is not None:
            tables.setdefault(int(match[1]), {})[match[2]] = _counts(file, name)
    if not tables:
        raise ReadError(f"{path}: no tensor blk.N.ffn_gate_exps.weight.counts; it is of a model without experts, or in the older format: "
                        "write it with --output-format gguf")
    depths = layer_list(options, sorted(tables), path)
    sizes = {len(table) for parts in tables.values() for table in parts.values()}
    if len(sizes) > 1 or options.n_experts not in (None, *sizes):
        raise ReadError(f"{path}: layers of {sorted(sizes)} experts, --n-experts says {options.n_experts}; is it a file of another model?")
    kept = [next(tables[depth][component] for component in COMPONENTS if component in tables[depth]) for depth in depths]
    total, chunks = {int(table.sum()) for table in kept}, _tokens(file)
    domain = options.domain or _dataset(file) or path.stem
    inferred = next(iter(total)) // chunks if len(total) == 1 and chunks and next(iter(total)) % chunks == 0 else None
    top_k = asked(options.top_k or inferred, "top-k", path, f"{chunks or 'an unknown number of'} tokens, {sorted(total)[:3]} selections in a layer")
    differences = [[domain, depth, component, int(expert), int(more[expert])] for depth, one in zip(depths, kept)
                   for component, table in sorted(tables[depth].items()) for more in [table - one] for expert in np.flatnonzero(more)]
    details: dict[str, Any] = {"components": {"recorded": sorted({component for parts in tables.values() for component in parts}),
                                              "kept": "the first of " + ", ".join(COMPONENTS), "differences": differences},
                               **{key: value for key, value in file.keys.items() if key.startswith("imatrix.")}}
    meta = recorded_meta(options, NAME, layer_table(depths, sizes.pop(), top_k, "blk.{}.ffn_gate_inp"), _plain(details))
    return counts_of([table[None] for table in kept], (domain,), meta, _remarks(tables, kept, differences, top_k, chunks))


def _is_older(path: Path) -> bool:
    """Whether a file begins as llama-imatrix wrote it before GGUF: how many entries, then the length of a tensor's name and the name."""
    try:
        with path.open("rb") as file:
            head = file.read(8 + LONGEST_NAME)
    except OSError:
        return False
    if len(head) < 8 or head[:4] == b"GGUF":
        return False
    entries, length = (int.from_bytes(head[at:at + 4], "little") for at in (0, 4))
    return 0 < entries < MOST_ENTRIES and 0 < length <= LONGEST_NAME and OLDER_NAME.fullmatch(head[8:8 + length]) is not None


def _counts(file: _gguf.Gguf, name: str) -> NDArray[np.int64]:
    found = file.floats(name)
    if found.ndim > 2 or found.shape[-1] != 1 and found.ndim == 2:
        raise ReadError(f"{file.path}: tensor {name!r}: shape {list(found.shape)}, expected [experts, 1]; write it with llama-imatrix")
    flat = found.ravel()
    bad = np.flatnonzero(~np.isfinite(flat) | (flat < 0) | (flat != np.floor(flat)) | (flat >= 2**53))
    if len(bad):
        raise ReadError(f"{file.path}: tensor {name!r}: expert {int(bad[0])}: {flat[bad[0]]}, expected a count; was the file changed?")
    return flat.astype(np.int64)


def _tokens(file: _gguf.Gguf) -> int | None:
    sizes = [file.keys.get(f"imatrix.{name}") for name in ("chunk_count", "chunk_size")]
    return sizes[0] * sizes[1] if all(type(one) is int and one > 0 for one in sizes) else None  # type: ignore[operator]


def _dataset(file: _gguf.Gguf) -> str | None:
    found = file.keys.get("imatrix.datasets")
    return Path(found[0]).stem if isinstance(found, list) and len(found) == 1 and isinstance(found[0], str) else None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {plain(str(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return plain(value) if isinstance(value, str) else value if value == value and value not in (float("inf"), float("-inf")) else str(value)


def _remarks(tables: Mapping[int, Mapping[str, Any]], kept: list[NDArray[np.int64]], differences: list[list[Any]], top_k: int, chunks: int | None,
             ) -> list[Remark]:
    found = []
    collapsed = sum(len(parts) - 1 for parts in tables.values())
    if collapsed:
        found.append(Remark("components_collapsed", "tables of another component of a layer that is counted already (all share their ids)",
                            collapsed))
    if differences:
        found.append(Remark("components_differ", "layers whose components have other counts: the first is kept, the differences are in the meta",
                            len({row[1] for row in differences})))
    inexact = sum(int((table >= EXACT).sum()) for table in kept)
    if inexact:
        found.append(Remark("inexact_counts", f"counts of {EXACT:,} or more, where float32 stops counting by one", inexact))
    if chunks is not None:
        other = sum(int(table.sum()) != top_k * chunks for table in kept)
        if other:
            found.append(Remark("chunks_disagree", f"layers whose selections are not top_k of the {chunks:,} tokens that the chunks hold", other))
    return found
