"""Tensors of a .pt file with the face of a safetensors file; read in a process of its own, as everything that is a pickle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.readers import _pickles
from experiments.readers._safetensors import DTYPES, Tensor, Tensors
from experiments.readers.contract import ReadError

NAMES = {np.dtype(code): name for name, code in DTYPES.items() if name != "BF16"}


class PtTensors(Tensors):
    """One tensor, or a tuple of them, under the names that the format gives them. bfloat16 comes as float32."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        """Read the file. ReadError, with the refused global, for anything but so many tensors of numbers."""
        self.path, self.metadata = path, {}
        found = _pickles.values(path, "pt")
        every = list(found) if isinstance(found, tuple | list) else [found]
        if len(every) != len(names) or not all(isinstance(one, np.ndarray) and one.dtype in NAMES for one in every):
            raise ReadError(f"{path}: {type(found).__name__} of {len(every)}: expected {' and '.join(names)} as tensors of numbers; record again")
        self._arrays: dict[str, NDArray[Any]] = dict(zip(names, every))
        self.tensors = {name: Tensor(NAMES[one.dtype], one.shape, 0, math.prod(one.shape) * one.dtype.itemsize) for name, one in self._arrays.items()}

    def array(self, name: str) -> NDArray[Any]:
        """One tensor."""
        return self._arrays[name]


def opened(folder: Path, name: str, names: Sequence[str]) -> Tensors:
    """`name` in a folder, as safetensors if it is there, else as a .pt file whose tensors are given `names`."""
    plain = folder / f"{name}.safetensors"
    pickled = folder / f"{name}.pt"
    return PtTensors(pickled, names) if pickled.is_file() and not plain.exists() else Tensors(plain)
