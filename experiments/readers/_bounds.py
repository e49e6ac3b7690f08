"""How many bytes a compressed file may become: a multiple of its size, and a part of the memory at hand."""

from __future__ import annotations

import os
from pathlib import Path

SMALL = 64 << 20  # that any file may become
RATIO = 200  # recorded routing shrinks 1.5 to 5 times, sparse counts 50 times; a bomb of zeros 1,000 times
SHARE = 8  # of the memory at hand, one part: what is read is held, converted and checked beside itself
MEMINFO = Path("/proc/meminfo")


def at_hand() -> int:
    """Bytes of memory that can be had without swapping; all there is where the system does not tell."""
    try:
        for line in MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError):
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def unpacked_limit(path: Path) -> int:
    """Bytes that the file at `path` may hold unpacked: RATIO times its size, SMALL at least, never more than its share of the memory at hand."""
    return min(max(SMALL, RATIO * path.stat().st_size), at_hand() // SHARE)
