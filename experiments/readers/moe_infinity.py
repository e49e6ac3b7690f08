"""MoE-Infinity's expert traces: an .npy of activation counts [sequences, layers, experts], as `ExpertTracer.load_trace` reads it.

D sequence, L MoE layer, E expert.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from analysis.trace import TraceMeta
from experiments.readers import _npz
from experiments.readers._rows import layer_table, plain
from experiments.readers.contract import UNKNOWN, ForeignCounts, ReadError, ReadOptions, Remark

NAME, KIND = "moe-infinity", "counts"
MAGIC = b"\x93NUMPY"
MOST = 2**48
SUMMED = "sequences whose counts were added up: the file has counts for each, but neither their tokens nor where one expert followed another"


def recognises(path: Path) -> bool:
    """An .npy with three dimensions of reals."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return False
        found = _npz.load_npy(path)
    except (OSError, ReadError):
        return False
    return found.ndim == 3 and found.dtype.kind == "f"


def read(path: Path, options: ReadOptions) -> ForeignCounts:
    """Counts of all sequences in one domain (the file's name). k is `options.top_k`; tokens follow from it where all layers agree."""
    found = _npz.load_npy(path)
    if found.ndim != 3 or found.dtype.kind not in "fiu" or 0 in found.shape:
        raise ReadError(f"{path}: {found.dtype} {list(found.shape)}, expected counts [sequences, layers, experts]")
    if options.top_k is None:
        raise ReadError(f"{path}: counts of {found.shape[2]} experts do not say how many a token is sent to; give --top-k of the model")
    whole = np.asarray(found, np.float64)
    bad = np.argwhere(~np.isfinite(whole) | (whole < 0) | (whole != np.floor(whole)) | (whole >= MOST))
    if len(bad):
        sequence, layer, expert = map(int, bad[0])
        raise ReadError(f"{path}: sequence {sequence}, layer {layer}, expert {expert}: {whole[sequence, layer, expert]:g} is no count; "
                        "only traces of activation counts are read")
    depths = options.layers or tuple(range(found.shape[1]))
    if len(depths) != found.shape[1] or options.n_experts not in (None, found.shape[2]):
        raise ReadError(f"{path}: {found.shape[1]} layers of {found.shape[2]} experts, but the options say {len(depths)} and {options.n_experts}; "
                        "correct them")
    totals = whole.sum(axis=0).astype(np.int64)
    sums = {int(total) for total in totals.sum(axis=1)}
    remarks = [Remark("sequences_summed", SUMMED, len(found))]
    uneven = sum(total % options.top_k != 0 for total in sums)
    if len(sums) > 1 or uneven:
        remarks.append(Remark("layers_of_unequal_sums", f"layers have {min(sums):,} to {max(sums):,} activations at k={options.top_k}: the number of "
                              "tokens is not known", len(sums)))
    meta = TraceMeta(options.model or UNKNOWN, UNKNOWN, layer_table(depths, found.shape[2], options.top_k, "layers.{}.router"), "absent", "absent",
                     "absent", "absent", 0, "assay-moe-infinity 1", details={"sequences": len(found), "absent": ["documents", "weights"]})
    tokens = np.array([sums.pop() // options.top_k]) if len(sums) == 1 and not uneven else None
    return ForeignCounts(meta, (plain(options.domain or path.stem),), tuple(total[None] for total in totals), tokens=tokens, remarks=tuple(remarks))
