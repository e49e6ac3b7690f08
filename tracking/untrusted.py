"""What comes from outside: paths that must stay in their folder, and names that must not become paths."""

from __future__ import annotations

import re
from pathlib import Path

LONGEST_NAME = 120
RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class UntrustedError(ValueError):
    """A path or name that is not accepted; the message shows it and the remedy."""


def inside(root: Path, path: Path | str) -> Path:
    """`path` under `root`, resolved. Raises UntrustedError where it leads outside, by dots, links or an absolute name."""
    base = root.resolve()
    if "\0" in str(path):
        raise UntrustedError(f"{str(path)!r}: a path holds a NUL; name a file inside {root}")
    resolved = (base / path).resolve()
    if not resolved.is_relative_to(base):
        raise UntrustedError(f"{str(path)!r}: leads outside {root}; name a file inside it")
    return resolved


def safe_name(name: str, what: str) -> str:
    """`name` if it can be the name of a file on any system. Raises UntrustedError otherwise; `what` says whose name it is."""
    if not SAFE.fullmatch(name) or len(name) > LONGEST_NAME or name.split(".")[0].lower() in RESERVED or name.endswith("."):
        raise UntrustedError(f"{what} {name[:LONGEST_NAME]!r}: not a file name; use letters, digits, '.', '_' and '-', begin with a letter "
                             f"or digit, at most {LONGEST_NAME} characters, no name of a device")
    return name
