"""Reads one pickle or .pt file that nobody vouches for, alone in a process with limits, and writes it out as plain values.

Run by tracking.untrusted_files as `python -I -S untrusted_child.py ARGUMENTS`: standard input is the file, and of two more open files one takes the
bytes of arrays, the other a JSON tree. Names in the file are compared with an exact list and stand for inert objects made here: nothing
is imported for a file, none of these objects can be changed by it, and of torch and NumPy only the layout of their files is known. What
`torch.load(weights_only=True)` takes as plain tensors is taken here too, without torch.
"""

from __future__ import annotations

import io
import json
import os
import pickle  # noqa: TID251 - the one place where it is read, behind the list below
import re
import resource
import struct
import sys
from array import array
from collections.abc import Callable
from typing import Any, BinaryIO

DEEPEST = 12  # containers within containers; a trace has six
MOST_NODES = 50_000_000
MOST_MEMBERS = 100_000
LARGE_TABLE = 64  # entries of a mapping of numbers that is written as two columns
SHOWN = 100
NUMBERS = {"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "f2": "e", "f4": "f", "f8": "d"}
STORAGES = {"FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": "bf", "LongStorage": "i8", "IntStorage": "i4",
            "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "b1"}
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
DTYPE = re.compile("[biuf][1248]")


class RefusedError(Exception):
    """Something in the file that plain data does not have."""


class Frozen(type):
    """Classes whose attributes cannot be set, by BUILD or otherwise."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise RefusedError(f"the file changes {cls.__name__}.{name}")


class Fixed(metaclass=Frozen):
    """Instances are made here and checked once; the file cannot set their state afterwards, slots included."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise RefusedError(f"the file changes {getattr(self, 'name', f'a {type(self).__name__} after it was checked')}")


class Named(Fixed):
    """Stand-in for a function or class: does what `work` does, and has no state that could be set."""

    __slots__ = ("name", "work")

    def __init__(self, name: str, work: Callable[..., Any] | None = None) -> None:
        self.name, self.work = name, work

    def __call__(self, *arguments: Any) -> Any:
        """What the file takes for a call of the function. Raises RefusedError where there is nothing to call."""
        if self.work is None:
            raise RefusedError(f"the file calls {self.name}")
        return self.work(*arguments)


class Record(metaclass=Frozen):
    """An instance of a class of fields; the class itself stays unknown."""

    __slots__ = ("fields",)
    fields: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict) or not all(type(key) is str for key in state):
            raise RefusedError("a record whose state is no mapping of names")
        self.fields = state


class Dtype(metaclass=Frozen):
    """A NumPy number type: kind and size, and the order of its bytes."""

    __slots__ = ("order", "text")

    def __init__(self, text: Any, *_: Any) -> None:
        if type(text) is not str or not DTYPE.fullmatch(text):
            raise RefusedError(f"an array of dtype {str(text)[:SHOWN]!r}; only plain numbers are read")
        self.text, self.order = text, "<"

    def __setstate__(self, state: Any) -> None:
        if type(state) is not tuple or len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise RefusedError("an array of a structured dtype; only plain numbers are read")
        self.order = ">" if state[1] == ">" else "<"


class Array(metaclass=Frozen):
    """A NumPy array: dtype, shape, whether columns run first, and bytes."""

    __slots__ = ("data", "dtype", "fortran", "shape")
    data: bytes | bytearray
    dtype: str
    fortran: bool
    shape: tuple[int, ...]

    def fill(self, shape: Any, dtype: Any, fortran: Any, data: Any) -> Array:
        """Set and check everything."""
        if type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape) or type(dtype) is not Dtype:
            raise RefusedError("an array whose shape or dtype is not plain")
        if type(data) not in (bytes, bytearray):
            raise RefusedError("an array of objects; only plain numbers are read")
        claimed = int(dtype.text[1])
        for n in shape:
            claimed *= n
        if claimed != len(data):
            raise RefusedError(f"an array that claims shape {str(list(shape))[:SHOWN]} of {dtype.text} ({claimed:,} bytes) over {len(data):,} bytes")
        self.shape, self.dtype, self.fortran, self.data = shape, dtype.order + dtype.text, bool(fortran), data
        return self

    def __setstate__(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise RefusedError("an array with another state than NumPy gives it")
        self.fill(*state[1:])


class Storage(Fixed):
    """Bytes that tensors are views of, and how many they have to be; those of an old .pt file come after the tensors."""

    __slots__ = ("claimed", "data", "dtype", "numel")

    def __init__(self, dtype: str, numel: int, data: bytes | None = None) -> None:
        self.dtype, self.numel, self.data, self.claimed = dtype, numel, data, numel * (2 if dtype == "bf" else int(dtype[1]))


class Tensor(Fixed):
    """A view of a storage: first element, size and stride in elements."""

    __slots__ = ("first", "size", "storage", "stride")

    def __init__(self, storage: Storage, first: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.storage, self.first, self.size, self.stride = storage, first, size, stride


def _tensor(storage: Any, first: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    plain = all(type(part) is tuple and all(type(n) is int and n >= 0 for n in part) for part in (size, stride))
    if type(storage) is not Storage or type(first) is not int or first < 0 or not plain or len(size) != len(stride):
        raise RefusedError("a tensor whose storage, size or stride is not plain")
    return Tensor(storage, first, size, stride)


def _number(dtype: Any, data: Any) -> int | float | bool:
    if type(dtype) is not Dtype or type(data) is not bytes or len(data) != int(dtype.text[1]):
        raise RefusedError("a NumPy number whose bytes are not those of its dtype")
    found: int | float | bool = struct.unpack(dtype.order + NUMBERS[dtype.text], data)[0]
    return found


def _latin(text: Any, coding: Any) -> bytes:
    if type(text) is not str or coding not in ("latin1", "latin-1"):
        raise RefusedError("the file calls _codecs.encode with another coding than latin1")
    return text.encode("latin1")


def _instance(cls: Any, base: Any, state: Any) -> Record:
    if cls is not Record or state is not None or getattr(base, "name", "") != "object":
        raise RefusedError("the file makes an instance of something that is no record")
    return Record()


def _allowed() -> dict[tuple[str, str], Any]:
    """(module, name) -> what it stands for. Nothing else passes."""
    found: dict[tuple[str, str], Any] = {("_codecs", "encode"): Named("_codecs.encode", _latin)}
    for core in ("numpy.core", "numpy._core"):
        found[f"{core}.multiarray", "_reconstruct"] = Named("_reconstruct", lambda *_: Array())
        found[f"{core}.multiarray", "scalar"] = Named("scalar", _number)
        found[f"{core}.numeric", "_frombuffer"] = Named(
            "_frombuffer", lambda data, dtype, shape, order: Array().fill(shape, dtype, order == "F", data))
    found["numpy", "ndarray"], found["numpy", "dtype"] = Named("numpy.ndarray"), Named("numpy.dtype", Dtype)
    for name in ("Counter", "OrderedDict"):
        found["collections", name] = Named(name, lambda *content: dict(*content))
    found["collections", "defaultdict"] = Named("defaultdict", lambda *_: {})
    for module in ("builtins", "__builtin__"):
        found |= {(module, name): Named(name) for name in ("int", "long", "float", "list", "dict", "object")}
        found[module, "bytes"] = Named("bytes", lambda: b"")
    for module in ("copyreg", "copy_reg"):
        found[module, "_reconstructor"] = Named("_reconstructor", _instance)
    for module in ("__main__", "__mp_main__", "gating_data_collector", "training.gating_data_collector", "src.training.gating_data_collector"):
        found[module, "GatingDataPoint"] = Record
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
        found["torch._utils", name] = Named(name, _tensor)
    found["torch._utils", "_rebuild_parameter"] = Named("_rebuild_parameter", lambda tensor, *_: tensor)
    found["torch.storage", "_load_from_bytes"] = Named("_load_from_bytes", _stored)
    return found | {("torch", name): Named(name) for name in STORAGES}


class Restricted(pickle.Unpickler):
    """Takes the names of ALLOWED for their stand-ins, and storages by `storage_of`."""

    def __init__(self, file: BinaryIO, storage_of: Callable[[Any], Storage] | None = None) -> None:
        super().__init__(file)
        self._storage_of = storage_of

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in. Raises RefusedError for any other name."""
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise RefusedError(f"global {f'{module}.{name}'[:SHOWN]!r} is not on the list of plain data") from None

    def persistent_load(self, pid: Any) -> Storage:
        """The storage of a .pt file."""
        if self._storage_of is None:
            raise RefusedError("a persistent id outside a .pt file")
        return self._storage_of(pid)


def _named_storage(pid: Any, made: dict[str, Storage]) -> Storage:
    """The one storage of a key, for ("storage", type, key, location, elements) and, in old files, no view."""
    plain = type(pid) is tuple and len(pid) in (5, 6) and pid[0] == "storage" and type(pid[2]) is str and type(pid[4]) is int
    if not plain or (len(pid) == 6 and pid[5] is not None) or getattr(pid[1], "name", "") not in STORAGES:
        raise RefusedError("a storage that is not one of plain numbers")
    dtype = STORAGES[pid[1].name]
    storage = made.setdefault(pid[2], Storage(dtype, pid[4]))
    if (storage.dtype, storage.numel) != (dtype, pid[4]):
        raise RefusedError("one storage under two types or sizes")
    return storage


def _old(file: BinaryIO) -> Any:
    """Content of a .pt file as torch wrote it before 1.6, and still writes storages within pickles."""
    made: dict[str, Storage] = {}
    magic, protocol, system = (Restricted(file).load() for _ in range(3))
    if magic != LEGACY_MAGIC or protocol != LEGACY_PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise RefusedError("not a .pt file, or not one of a little-endian machine")
    content = Restricted(file, lambda pid: _named_storage(pid, made)).load()
    keys = Restricted(file).load()
    if type(keys) is not list or sorted(map(str, keys)) != sorted(made):
        raise RefusedError("storages that no tensor names, or tensors without a storage")
    for key in keys:
        head = file.read(8)
        if len(head) != 8 or struct.unpack("<q", head)[0] != made[key].numel:
            raise RefusedError("a storage of another size than its tensors say; was the file cut?")
        _put(made[key], file.read(made[key].claimed))
    return content


def _put(storage: Storage, data: bytes) -> None:
    if len(data) != storage.claimed:
        raise RefusedError(f"a storage of {len(data):,} bytes where {storage.numel:,} elements are claimed; was the file cut?")
    storage.data = data


def _stored(data: Any) -> Any:
    if type(data) is not bytes:
        raise RefusedError("a storage that is not bytes")
    file = io.BytesIO(data)
    content = _old(file)
    if file.read(1):
        raise RefusedError("bytes after a storage")
    return content


def _zipped(file: BinaryIO) -> Any:
    """Content of a .pt file as torch writes it: an archive of one pickle and a member for each storage, not compressed."""
    import zipfile  # not for a pickle, which starts a third faster without

    made: dict[str, Storage] = {}
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = {member.filename: member for member in members}
        if len(names) != len(members) or len(members) > MOST_MEMBERS:
            raise RefusedError("a member of the archive occurs twice, or there are too many")
        if any(member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size for member in members):
            raise RefusedError("a compressed member; torch writes none")
        roots = [name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(roots) != 1:
            raise RefusedError("an archive without one data.pkl; not a .pt file of tensors")
        if f"{roots[0]}/byteorder" in names and archive.read(f"{roots[0]}/byteorder") != b"little":
            raise RefusedError("not a .pt file of a little-endian machine")

        def storage_of(pid: Any) -> Storage:
            storage = _named_storage(pid, made)
            name = f"{roots[0]}/data/{pid[2]}"
            if name not in names:
                raise RefusedError("a tensor without a storage; was the file cut?")
            if storage.data is None:
                _put(storage, archive.read(name))
            return storage

        return _whole(io.BytesIO(archive.read(f"{roots[0]}/data.pkl")), storage_of)


def _whole(file: BinaryIO, storage_of: Callable[[Any], Storage] | None = None) -> Any:
    content = Restricted(file, storage_of).load()
    if file.read(1):
        raise RefusedError("bytes after the end of the pickle")
    return content


ALLOWED = _allowed()


class Writer:
    """Values as a JSON tree, arrays as (where, what) in a file of bytes. Walks no deeper than DEEPEST."""

    def __init__(self, file: BinaryIO, dropped: list[str]) -> None:
        self._file, self._dropped = file, frozenset(dropped)
        self._nodes = self._written = 0
        self._at: dict[int, tuple[int, int]] = {}
        self._tables: list[bytes] = []

    def tree(self, value: Any, depth: int = 0) -> Any:
        """JSON of a value. Raises RefusedError for what is not plain, too deep or too much."""
        self._nodes += 1
        if self._nodes > MOST_NODES or depth > DEEPEST:
            raise RefusedError(f"data nested deeper than {DEEPEST}, or of more than {MOST_NODES:,} values; no trace is so")
        kind = type(value)
        if value is None or kind in (bool, str):
            return value
        if kind is int and -(2**63) <= value < 2**64:
            return value
        if kind is float:
            return value if value - value == 0 else {"f": str(value)}
        if kind in (list, tuple):
            return {"l" if kind is list else "t": [self.tree(one, depth + 1) for one in value]}
        if kind is dict:
            return self._mapping(value, depth)
        if kind is Record:
            return {"r": self.tree(getattr(value, "fields", {}), depth)}
        if kind is Array and hasattr(value, "data"):
            return {"a": [value.dtype, list(value.shape), value.fortran, *self._bytes(value.data)]}
        if kind is Tensor and value.storage.data is not None:
            return {"x": [value.storage.dtype, list(value.size), list(value.stride), value.first, *self._bytes(value.storage.data)]}
        raise RefusedError(f"a value of type {kind.__name__}; only numbers, text, lists, mappings and arrays are read")

    def _mapping(self, value: dict[Any, Any], depth: int) -> Any:
        if len(value) >= LARGE_TABLE and all(type(key) is int and type(one) is int for key, one in value.items()):
            return {"n": self._table(value)}
        return {"d": [[self.tree(key, depth + 1), self.tree(one, depth + 1)] for key, one in value.items() if key not in self._dropped]}

    def _table(self, value: dict[int, int]) -> tuple[int, int]:
        """Keys and then values of a mapping of whole numbers, eight bytes each. Raises RefusedError for larger ones."""
        try:
            columns = array("q", value.keys()), array("q", value.values())
        except OverflowError:
            raise RefusedError("a number beyond 64 bits") from None
        data = columns[0].tobytes() + columns[1].tobytes()
        self._tables.append(data)  # so that its place in memory, by which bytes are known, is not used again
        return self._bytes(data)

    def _bytes(self, data: bytes) -> tuple[int, int]:
        if id(data) not in self._at:
            start = -(-self._written // 16) * 16
            self._file.write(bytes(start - self._written))
            self._file.write(data)
            self._at[id(data)] = start, len(data)
            self._written = start + len(data)
        return self._at[id(data)]


def _limit(limits: dict[str, int]) -> None:
    for name, value in {**limits, "CORE": 0, "NOFILE": 32, "NPROC": 0}.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        grace = 1 if name == "CPU" and hard != value else 0  # so that the signal says which limit it was
        resource.setrlimit(kind, (value, value + grace))


def _read(kind: str, file: BinaryIO) -> Any:
    head = file.read(2)
    file.seek(0)
    if kind == "pt":
        return _zipped(file) if head == b"PK" else _stored(file.read())
    return _whole(file)


def main() -> None:
    """Read standard input and answer {"value": tree} or {"error": words} in the second file."""
    asked = json.loads(sys.argv[1])
    _limit(asked["limits"])
    answer: dict[str, Any]
    with os.fdopen(asked["arrays"], "wb") as arrays, os.fdopen(asked["tree"], "w", encoding="ascii") as tree:
        try:
            answer = {"value": Writer(arrays, asked["dropped"]).tree(_read(asked["kind"], sys.stdin.buffer))}
        except RefusedError as error:
            answer = {"error": str(error)}
        except MemoryError:
            answer = {"error": f"it takes more than the {asked['limits']['AS']:,} bytes of memory that a file of its size is given"}
        except Exception as error:  # whatever damaged bytes make the unpickler or zipfile raise
            answer = {"error": f"damaged or of another format ({type(error).__name__}: {str(error)[:SHOWN]})"}
        tree.write(json.dumps(answer, allow_nan=False))


if __name__ == "__main__":
    main()
