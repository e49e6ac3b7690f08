"""Plain values of a pickle or .pt file that nobody vouches for: a process of its own reads it, with limits; this one never unpickles."""

from __future__ import annotations

import json
import math
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tracking.untrusted import UntrustedError

CHILD = Path(__file__).with_name("untrusted_child.py")
MEMORY_BASE, MEMORY_PER_BYTE = 1 << 30, 8  # of the child: Python objects are larger than what is written of them
CPU_BASE_S, BYTES_PER_CPU_S = 30, 2 << 20
WRITTEN_BASE, WRITTEN_PER_BYTE = 64 << 20, 32  # the JSON tree of a table of small numbers
PATIENCE = 4  # wall seconds per CPU second before the child is ended
SHOWN = 200
ENDED = {-signal.SIGXCPU: "it takes more CPU time than a file of its size is given", -signal.SIGKILL: "its reader was killed; is memory short?",
         -signal.SIGXFSZ: "more would be written of it than of a file of its size"}
KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # where some installations have their Python
BFLOAT16 = np.dtype("<u2", metadata={"bfloat16": True})

Kind = Literal["pickle", "pt"]


def is_bfloat16(array: NDArray[Any]) -> bool:
    """Whether the uint16 of an array are bit patterns of bfloat16, as `plain_values` gives them."""
    return array.dtype.metadata is not None and "bfloat16" in array.dtype.metadata


def plain_values(path: Path, kind: Kind, dropped: Sequence[str] = ()) -> Any:
    """Numbers, text, None, lists, tuples, mappings and NumPy arrays as the file holds them, without the fields named in `dropped`.

    Counters are mappings, records mappings of their fields, tensors arrays (bfloat16 as bits: `is_bfloat16`). Arrays are read-only views of a
    temporary file that is gone when the last of them is. Raises UntrustedError, which names the refused global, for anything else
    than plain data, for damaged files, and where memory, CPU time or output exceed what a file of its size is given.
    """
    with tempfile.TemporaryFile() as arrays, tempfile.TemporaryFile() as tree:
        _run(path, kind, arrays, tree, list(dropped))
        tree.seek(0)
        answer = json.load(tree)
        if "error" in answer:
            raise UntrustedError(f"{path}: refused: {answer['error']}; have it written again, or as npz, Parquet or safetensors")
        size = os.fstat(arrays.fileno()).st_size
        content = mmap.mmap(arrays.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        try:
            return _value(answer["value"], content)
        except (TypeError, ValueError, OverflowError, KeyError) as error:
            raise UntrustedError(f"{path}: not plain data: {error}; have it written again, or as npz, Parquet or safetensors") from error


def _run(path: Path, kind: Kind, arrays: IO[bytes], tree: IO[bytes], dropped: list[str]) -> None:
    try:
        file = path.open("rb")
    except OSError as error:
        raise UntrustedError(f"{path}: {error.strerror or error}") from error
    with file, tempfile.TemporaryFile() as said:
        size = os.fstat(file.fileno()).st_size
        limits = {"AS": min(MEMORY_BASE + MEMORY_PER_BYTE * size, _memory() * 3 // 4), "CPU": CPU_BASE_S + size // BYTES_PER_CPU_S,
                  "FSIZE": WRITTEN_BASE + WRITTEN_PER_BYTE * size}
        asked = {"kind": kind, "limits": limits, "arrays": arrays.fileno(), "tree": tree.fileno(), "dropped": dropped}
        variables = {name: os.environ[name] for name in KEPT if name in os.environ}
        child = subprocess.Popen([sys.executable, "-I", "-S", str(CHILD), json.dumps(asked)], stdin=file, stdout=subprocess.DEVNULL, stderr=said,
                                 env=variables, cwd="/", pass_fds=(arrays.fileno(), tree.fileno()))
        try:
            status = child.wait(PATIENCE * limits["CPU"])
        except subprocess.TimeoutExpired:
            raise UntrustedError(f"{path}: refused: not read after {PATIENCE * limits['CPU']} s; a trace of its size takes seconds") from None
        finally:
            child.kill()
            child.wait()
        if status:
            said.seek(max(0, said.seek(0, os.SEEK_END) - SHOWN))
            why = ENDED.get(status, f"its reader ended with status {status}")
            raise UntrustedError(f"{path}: refused: {why} {said.read().decode(errors='replace')}".rstrip())


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _value(node: Any, content: Any) -> Any:
    if not isinstance(node, dict):
        return node
    ((kind, inner),) = node.items()
    if kind == "f":
        return float(inner)
    if kind == "l":
        return [_value(one, content) for one in inner]
    if kind == "t":
        return tuple(_value(one, content) for one in inner)
    if kind == "d":
        return {_value(key, content): _value(one, content) for key, one in inner}
    if kind == "n":
        keys, values = _flat(np.dtype("<i8"), inner[0], inner[1], content).reshape(2, -1).tolist()
        return dict(zip(keys, values))
    if kind == "r":
        return _value(inner, content)
    return _array(content, *inner) if kind == "a" else _tensor(content, *inner)


def _array(content: Any, dtype: str, shape: list[int], fortran: bool, start: int, length: int) -> NDArray[Any]:
    count = math.prod(shape)
    flat = _flat(np.dtype(dtype), start, length, content)
    if count != len(flat):
        raise UntrustedError(f"an array of shape {shape} over {len(flat)} elements")
    return flat.reshape(shape, order="F" if fortran else "C")


def _tensor(content: Any, dtype: str, size: list[int], stride: list[int], first: int, start: int, length: int) -> NDArray[Any]:
    flat = _flat(BFLOAT16 if dtype == "bf" else np.dtype(f"<{dtype}"), start, length, content)
    if first < 0 or len(size) != len(stride) or min([0, *size, *stride]) < 0:
        raise UntrustedError(f"a tensor from element {first} of size {size} and stride {stride}; save it with .contiguous()")
    count = math.prod(size)
    last = first + sum((n - 1) * step for n, step in zip(size, stride))
    if count and (last >= len(flat) or count > len(flat)):
        raise UntrustedError(f"a tensor of size {size} and stride {stride} over {len(flat)} elements; save it with .contiguous()")
    return np.lib.stride_tricks.as_strided(flat[first:], size, [step * flat.itemsize for step in stride], writeable=False) if count else \
        flat[:0].reshape(size)


def _flat(dtype: np.dtype[Any], start: int, length: int, content: Any) -> NDArray[Any]:
    if not 0 <= start <= start + length <= len(content):
        raise UntrustedError("an array outside what was written of it")
    return np.frombuffer(content, dtype, length // dtype.itemsize, start) if length else np.frombuffer(b"", dtype)
