"""Files that try to run code, to change their reader, or to take all memory, time or disk; written opcode by opcode."""

from __future__ import annotations

import io
import pickle  # noqa: TID251 - makes the files that are refused elsewhere
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

LAUGHS = 60
STOP = b"."


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def text(words: str) -> bytes:
    return b"X" + struct.pack("<I", len(words.encode())) + words.encode()


def touch(canary: Path) -> str:
    return f"touch {canary}"


def by_global(module: str, name: str, canary: Path) -> bytes:
    """module.name("touch canary") in protocol 0's words."""
    return f"c{module}\n{name}\n".encode() + b"(" + text(touch(canary)) + b"tR" + STOP


def by_stack_global(canary: Path) -> bytes:
    return b"\x80\x04" + text("os") + text("system") + b"\x93" + text(touch(canary)) + b"\x85R" + STOP


def by_inst(canary: Path) -> bytes:
    return b"(" + text(touch(canary)) + b"ios\nsystem\n" + STOP


def by_obj(canary: Path) -> bytes:
    return b"(cos\nsystem\n" + text(touch(canary)) + b"o" + STOP


def by_builtins_of_numpy(canary: Path) -> bytes:
    """numpy.__builtins__["eval"], by way of a dotted name and by way of a mapping."""
    return b"\x80\x04" + text("numpy") + text("__builtins__") + b"\x93" + text(f"__import__('os').system('{touch(canary)}')") + b"\x85R" + STOP


def by_dotted_name(canary: Path) -> bytes:
    return b"\x80\x04" + text("collections") + text("Counter.__init__.__globals__") + b"\x93" + text(touch(canary)) + b"\x85R" + STOP


def by_nested_load(canary: Path) -> bytes:
    return pickle.dumps(Calls(pickle.loads, by_global("os", "system", canary)))


def by_storage(canary: Path) -> bytes:
    """The real layout of a tensor within a pickle, its storage the attack."""
    evil = by_global("os", "system", canary)
    return b"ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<I", len(evil)) + evil + b"tR" + STOP


def by_extension(_: Path) -> bytes:
    return b"\x80\x02\x82\x01" + STOP


def by_persistent_id(_: Path) -> bytes:
    return b"Pos.system\n" + STOP


def changes(module: str, name: str) -> bytes:
    """BUILD on what the name stands for: the state of the object, and then its attributes."""
    return f"c{module}\n{name}\n".encode() + b"(N}" + text("__call__") + text("x") + b"stb" + STOP


def changes_plainly(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode() + b"}" + text("work") + text("x") + b"sb" + STOP


def laughs(_: Path) -> bytes:
    """Sixty lists, each of ten references to the one before."""
    content = b"\x80\x02]q\x00"
    for level in range(LAUGHS):
        content += b"](" + b"".join(b"h" + bytes([level]) for _ in range(10)) + b"e" + b"q" + bytes([level + 1])
    return content + STOP


def hashed_laughs(_: Path) -> bytes:
    """The same as tuples, and the last a key: its hash takes 10^60 steps."""
    content = b"\x80\x02})q\x000"
    for level in range(LAUGHS):
        content += b"(" + b"".join(b"h" + bytes([level]) for _ in range(10)) + b"tq" + bytes([level + 1]) + b"0"
    return content + b"h" + bytes([LAUGHS]) + b"K\x01s" + STOP


def claims_bytes(_: Path) -> bytes:
    return b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x" * 10 + STOP


def claims_memo(_: Path) -> bytes:
    return b"\x80\x02Nr\xff\xff\xff\x7f" + STOP


def claims_array(_: Path) -> bytes:
    """10^9 x 10^9 of float64 over eight bytes."""
    return (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01"
            b"(J\x00\xca\x9a;J\x00\xca\x9a;tcnumpy\ndtype\n(U\x02f8K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            b"\x89C\x08aaaaaaaatb" + STOP)


def array_of_objects(_: Path) -> bytes:
    return b"cnumpy\ndtype\n(" + text("O8") + b"tR" + STOP


def followed(_: Path) -> bytes:
    return pickle.dumps([1]) + b"more"


ATTACKS: dict[str, tuple[Callable[[Path], bytes], str]] = {  # name: (maker, what the refusal names)
    "os.system": (lambda canary: by_global("os", "system", canary), "'os.system'"),
    "posix.system": (lambda canary: by_global("posix", "system", canary), "'posix.system'"),
    "eval": (lambda canary: by_global("builtins", "eval", canary), "'builtins.eval'"),
    "old eval": (lambda canary: by_global("__builtin__", "eval", canary), "'__builtin__.eval'"),
    "getattr": (lambda canary: by_global("builtins", "getattr", canary), "'builtins.getattr'"),
    "partial": (lambda canary: by_global("functools", "partial", canary), "'functools.partial'"),
    "torch.load": (lambda canary: by_global("torch", "load", canary), "'torch.load'"),
    "stack global": (by_stack_global, "'os.system'"),
    "inst": (by_inst, "'os.system'"),
    "obj": (by_obj, "'os.system'"),
    "builtins of numpy": (by_builtins_of_numpy, "'numpy.__builtins__'"),
    "dotted name": (by_dotted_name, "'collections.Counter.__init__.__globals__'"),
    "nested load": (by_nested_load, "'_pickle.loads'"),
    "within a storage": (by_storage, "'os.system'"),
    "called constant": (lambda canary: by_global("numpy", "ndarray", canary), "calls numpy.ndarray"),
    "extension": (by_extension, "damaged or of another format"),
    "persistent id": (by_persistent_id, "persistent id"),
    "laughs": (laughs, "nested deeper"),
    "claims bytes": (claims_bytes, "damaged|memory"),
    "claims memo": (claims_memo, "memory"),
    "claims array": (claims_array, r"claims shape \[1000000000, 1000000000\] of f8 .* over 8 bytes"),
    "objects": (array_of_objects, "only plain numbers"),
    "followed": (followed, "bytes after the end"),
    "empty": (lambda _: b"", "damaged"),
    "text": (lambda _: b"<html>not found</html>", "damaged"),
    "set": (lambda _: pickle.dumps({1, 2}, protocol=4), "type set"),
}


def archive(pickled: bytes, **members: bytes) -> bytes:
    """A .pt file with this pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as made:
        made.writestr("archive/data.pkl", pickled)
        for name, content in members.items():
            made.writestr(name, content)
    return file.getvalue()


def compressed() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("archive/data.pkl", pickle.dumps([1], protocol=2))
        made.writestr("archive/data/0", bytes(50 << 20))
    return file.getvalue()


def doubled() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "w") as made:
        made.writestr("archive/data.pkl", pickle.dumps([1], protocol=2))
        made.writestr("archive/data.pkl", pickle.dumps([2], protocol=2))
    return file.getvalue()


def expanded() -> bytes:
    """2^40 elements that are one and the same."""
    file = io.BytesIO()
    torch.save({"x": torch.zeros(1).expand(2**20, 2**20)}, file)
    return file.getvalue()


def changed_tensor(slot: bytes, value: bytes, *, of_storage: bool = False) -> bytes:
    """Two of four floats as a view whose size and stride are checked, and then BUILD with a state for slots, which calls no setter of a class."""
    def number(n: int) -> bytes:
        return b"I%d\n" % n

    stored = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(4) + b"tQ"
    build = b"(N}" + slot + value + b"stb"
    shape = number(0) + b"(" + number(2) + b"t(" + number(1) + b"t"
    made = [b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(", stored, build if of_storage else b"", shape, b"tR", b"" if of_storage else build, STOP]
    return archive(b"".join(made), **{"archive/data/0": struct.pack("<4f", 1, 2, 3, 4)})


TORCH_ATTACKS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "zipped": (lambda canary: archive(by_global("os", "system", canary)), "'os.system'"),
    "old": (lambda canary: by_global("os", "system", canary), "'os.system'"),
    "climbing member": (lambda canary: archive(pickle.dumps([1], protocol=2), **{"../../" + canary.name: b"x", "/" + canary.name: b"x"}), ""),
    "compressed bomb": (lambda _: compressed(), "compressed member"),
    "member twice": (lambda _: doubled(), "occurs twice"),
    "no pickle": (lambda _: archive(b"")[:30] + b"", "damaged"),
    "expanded": (lambda _: expanded(), "contiguous"),
    "stride set later": (lambda _: changed_tensor(text("stride"), b"(I-10000000000\nt"), "changes a Tensor"),
    "first set later": (lambda _: changed_tensor(text("first"), b"I-1000000\n"), "changes a Tensor"),
    "storage set later": (lambda _: changed_tensor(text("numel"), b"I1\n", of_storage=True), "changes a Storage"),
}
