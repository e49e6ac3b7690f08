"""Tensors of .pt files with the face of a safetensors file; read in a process of its own, as everything that is a pickle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.readers import _pickles
from experiments.readers._safetensors import DTYPES, Tensor, Tensors
from experiments.readers.contract import ReadError
from tracking.untrusted_files import is_bfloat16

NAMES = {np.dtype(code): name for name, code in DTYPES.items() if name != "BF16"}


class PtTensors(Tensors):
    """Arrays under the names that the format gives them; bfloat16 as its bit patterns."""

    def __init__(self, path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
        """`path` is for messages."""
        self.path, self.metadata, self._arrays = path, {}, arrays
        self.tensors = {name: Tensor("BF16" if is_bfloat16(one) else NAMES[one.dtype], one.shape, 0, math.prod(one.shape) * one.dtype.itemsize)
                        for name, one in arrays.items()}

    def array(self, name: str) -> NDArray[Any]:
        """One tensor."""
        return self._arrays[name]


def load(path: Path, names: Sequence[str]) -> PtTensors:
    """One tensor or several, in the order of `names`. ReadError, with the refused global, for anything but so many tensors of numbers."""
    found = _pickles.values(path, "pt")
    every = list(found) if isinstance(found, tuple | list) else [found]
    if len(every) != len(names) or not all(isinstance(one, np.ndarray) and one.dtype in NAMES for one in every):
        raise ReadError(f"{path}: {type(found).__name__} of {len(every)}: expected {' and '.join(names)} as tensors of numbers; record again")
    return PtTensors(path, dict(zip(names, every)))


def opened(folder: Path, name: str, names: Sequence[str]) -> Tensors:
    """`name` in a folder, as safetensors if it is there, else as a .pt file whose tensors are given `names`."""
    plain, pickled = folder / f"{name}.safetensors", folder / f"{name}.pt"
    return load(pickled, names) if pickled.is_file() and not plain.exists() else Tensors(plain)
