"""Columns of foreign Parquet and CSV files: a Parquet file is first read through by another process, for a damaged one can end its reader."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.readers._bounds import unpacked_limit
from experiments.readers.contract import ReadError

ROWS_LIMIT = 200_000_000
FIELD_LIMIT = 1 << 20  # characters of one CSV field
SECONDS_LIMIT = 600
MEMORY_LIMIT = 8 << 30
ROWS_AT_ONCE = 65_536
FILES_AT_ONCE = 64
MAGIC = b"PAR1"
CHILD = """
import resource, sys
most, seconds, at_once, most_rows = map(int, sys.argv[1:5])
resource.setrlimit(resource.RLIMIT_AS, (most,) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (seconds,) * 2)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import pyarrow.parquet
def size_of(column):
    if pyarrow.types.is_dictionary(column.type):
        return size_of(column.dictionary_decode())
    if pyarrow.types.is_nested(column.type) and hasattr(column, "flatten") and not pyarrow.types.is_struct(column.type):
        return 8 * len(column) + size_of(column.flatten())
    return column.nbytes
def check(path, limit):
    with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
        meta = file.metadata
        rows, size = meta.num_rows, sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        if not (0 <= rows <= most_rows and 0 <= size <= limit):
            sys.exit(f"it claims {rows:,} rows and {size:,} bytes unpacked; the limits are {most_rows:,} and {limit:,}: split it")
        total = 0
        for batch in file.iter_batches(batch_size=at_once, use_threads=False):
            batch.validate(full=True)
            total += sum(size_of(column) for column in batch.columns)  # of values: a dictionary or a run of one value can stand for very many
            if total > limit:
                sys.exit(f"its values take more than {limit:,} bytes, the limit for a file of its size and the memory at hand: split it")
for path, limit in zip(sys.argv[5::2], sys.argv[6::2]):
    check(path, int(limit))
"""


def begins_as_parquet(path: Path) -> bool:
    """Whether a file begins with Parquet's mark, whole or not. Never raises."""
    try:
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    except OSError:
        return False


def is_parquet(path: Path) -> bool:
    """Whether a file begins and ends as Parquet does. Never raises."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
            file.seek(-4, 2)
            return head == MAGIC and file.read(4) == MAGIC
    except (OSError, ValueError):
        return False


def parquet_names(path: Path) -> tuple[str, ...]:
    """Names of the columns, after the file was read through elsewhere. ReadError for a file that cannot be read."""
    import pyarrow.parquet as pq

    check_parquet(path)
    return tuple(pq.read_schema(path).names)


def parquet_batches(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Record batches of at most 65,536 rows with the given columns; call check_parquet before."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        yield from file.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(columns), use_threads=False)


def check_parquet(path: Path) -> None:
    """Read a file through in a process of its own, within limits of memory and time. ReadError where that process does not end well."""
    if not path.is_file():
        raise ReadError(f"{path}: no such file")
    if not is_parquet(path):
        raise ReadError(f"{path}: not Parquet, or cut: it does not begin and end with PAR1; copy it again")
    why = _fault_of([path])
    if why:
        raise ReadError(f"{path}: not read ({why}); copy or export it again")


def check_parquets(paths: Sequence[Path]) -> None:
    """`check_parquet` of each, several in one process where nothing is wrong."""
    for first in range(0, len(paths), FILES_AT_ONCE):
        some = paths[first:first + FILES_AT_ONCE]
        if not all(path.is_file() and is_parquet(path) for path in some) or _fault_of(some):
            for path in some:
                check_parquet(path)


def _fault_of(paths: Sequence[Path]) -> str | None:
    """Why a process of its own could not read some file; None where it read all."""
    limits = (MEMORY_LIMIT, SECONDS_LIMIT, ROWS_AT_ONCE, ROWS_LIMIT)
    files = [word for path in paths for word in (str(path.absolute()), str(unpacked_limit(path)))]
    try:
        child = subprocess.run([sys.executable, "-I", "-c", CHILD, *map(str, limits), *files], capture_output=True, text=True,
                               timeout=SECONDS_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return f"not within {SECONDS_LIMIT} s; split it"
    if not child.returncode:
        return None
    return (child.stderr.strip().splitlines() or ["its reader ended with signal " + str(-child.returncode)])[-1][:300]


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, field by name) of a CSV with a header. ReadError for a row of another length and for what is no text."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            csv.field_size_limit(FIELD_LIMIT)
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if len(set(header)) != len(header) or not header:
                raise ReadError(f"{path}: line 1: {'two columns of one name' if header else 'empty'}; write a header with one name a column")
            for row in reader:
                if len(row) != len(header):
                    raise ReadError(f"{path}: line {reader.line_num}: {len(row)} fields, the header has {len(header)}; was the file cut? "
                                    "copy it again")
                yield reader.line_num, dict(zip(header, row))
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror or error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ReadError(f"{path}: no CSV in UTF-8 ({error}); export it again") from error
