"""Tables from elsewhere, read with suspicion: Parquet, CSV and JSON lines, every mistake named by file, row and field."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = {".parquet": "Parquet", ".csv": "CSV", ".jsonl": "JSON lines", ".ndjson": "JSON lines"}
MAX_LINE_BYTES = 2**20
MAX_ROW_GROUP_BYTES = 2**31
MAX_TEXT = 4096
LARGEST = 2**31 - 1
INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
IDS = re.compile(r"\s*\[?\s*([0-9]{1,18}(?:[\s,;|]+[0-9]{1,18})*)\s*\]?\s*")

Row = tuple[str, dict[str, Any]]  # where it is (file and line or row), and its fields


class ImportedError(ValueError):
    """A file from elsewhere that is not what it should be; the message names file, row, field and remedy."""


def refuse(where: str, field: str, found: str, remedy: str) -> NoReturn:
    """Raise ImportedError."""
    raise ImportedError(f"{where}: {field}: {found}; {remedy}")


def shown(value: object) -> str:
    """A value of a foreign file for a message: quoted, without control characters, cut."""
    text = value if isinstance(value, str) else str(value)[:200] if isinstance(value, int | float | list | dict) else type(value).__name__
    return ascii(text if len(text) <= 60 else f"{text[:57]}...")


def format_of(path: Path) -> str:
    """Parquet, CSV or JSON lines by the ending of the name. ImportedError for another ending, and for what is no file."""
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        refuse(str(path), "name", f"ends in {path.suffix or 'nothing'}", f"give a file ending in {', '.join(FORMATS)}")
    if not path.is_file():
        refuse(str(path), "file", "is not there, or is no regular file", "correct the path")
    return found


def rows(path: Path, fields: Sequence[str]) -> Iterator[Row]:
    """Rows of a file of any of the formats, with the given fields only; ImportedError where one is missing."""
    kind = format_of(path)
    found = _jsonl(path, fields) if kind == "JSON lines" else _csv(path, fields) if kind == "CSV" else _parquet_rows(path, fields)
    some = False
    for row in found:
        some = True
        yield row
    if not some:
        refuse(str(path), "rows", "none", f"write one row with {', '.join(fields)} each")


def _jsonl(path: Path, fields: Sequence[str]) -> Iterator[Row]:
    with path.open("rb") as lines:
        number = 0
        while line := lines.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{path}:{number}"
            if len(line) > MAX_LINE_BYTES:
                refuse(where, "line", f"longer than {MAX_LINE_BYTES} bytes", "write one object per line")
            if line.strip():
                yield where, _object(line, where, fields)


def _object(line: bytes, where: str, fields: Sequence[str]) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        refuse(where, "line", f"byte {error.start} is not UTF-8", "convert the file with 'iconv -t UTF-8'")
    except (ValueError, RecursionError) as error:
        refuse(where, "line", f"not JSON ({shown(str(error))})", "correct or delete the line")
    if not isinstance(row, dict):
        refuse(where, "line", f"{type(row).__name__}, not an object", f"write an object with {', '.join(fields)}")
    for field in fields:
        if field not in row:
            refuse(where, field, "missing", f"fields seen: {', '.join(shown(name) for name in list(row)[:20]) or 'none'}; add {field}")
    return {field: row[field] for field in fields}


def _csv(path: Path, fields: Sequence[str]) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            header = next(reader, None)
            if header is None:
                refuse(str(path), "header", "missing: the file is empty", f"begin with the line {','.join(fields)}")
            check_columns(str(path), header, fields)
            places = [header.index(field) for field in fields]
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if row and len(row) != len(header):
                    refuse(where, "line", f"{len(row)} fields under a header of {len(header)}", "quote fields that hold a comma")
                if row:
                    yield where, {field: row[place] for field, place in zip(fields, places)}
    except UnicodeDecodeError as error:
        refuse(str(path), "text", f"byte {error.start} of a piece of it is not UTF-8", "convert the file with 'iconv -t UTF-8'")
    except csv.Error as error:
        refuse(f"{path}:{reader.line_num}", "line", f"not CSV ({shown(str(error))})", "write it again with a CSV library")


def check_columns(where: str, seen: Sequence[str], fields: Sequence[str]) -> None:
    """ImportedError for a field that is missing, or there twice."""
    for field in fields:
        if list(seen).count(field) != 1:
            what = "missing" if field not in seen else "there twice"
            names = ", ".join(shown(name) for name in list(seen)[:20]) or "none"
            refuse(where, field, f"the column is {what}", f"columns seen: {names}; the columns must be {', '.join(fields)}")


def parquet_table(path: Path, fields: Sequence[str]) -> pa.Table:
    """The given columns of a Parquet file; claimed sizes are checked before anything is read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            check_columns(str(path), file.schema_arrow.names, fields)
            for group in range(file.metadata.num_row_groups):
                claim = file.metadata.row_group(group)  # not its columns': damaged statistics of one abort the process (pyarrow 25)
                if claim.total_byte_size > MAX_ROW_GROUP_BYTES or claim.num_rows < 0:
                    refuse(str(path), f"row group {group}", f"claims {claim.total_byte_size} bytes", "write smaller row groups")
            return file.read(columns=list(fields), use_threads=False).combine_chunks()
    except (pa.ArrowException, OSError, KeyError, OverflowError, UnicodeDecodeError) as error:
        refuse(str(path), "file", f"not a readable Parquet file ({shown(str(error))})", "write it again")
    except ValueError as error:
        if isinstance(error, ImportedError):
            raise
        refuse(str(path), "file", f"not a readable Parquet file ({shown(str(error))})", "write it again")


def _parquet_rows(path: Path, fields: Sequence[str]) -> Iterator[Row]:
    table = parquet_table(path, fields)
    for start in range(0, table.num_rows, 1024):
        for number, row in enumerate(table.slice(start, 1024).to_pylist(), start + 1):
            yield f"{path}:row {number}", row


def text(value: object, where: str, field: str) -> str:
    """A name: text that is not blank, or an integer written out."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(integer(value, where, field))
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
        refuse(where, field, shown(value) if isinstance(value, str) else type(value).__name__, f"write text of 1 to {MAX_TEXT} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        refuse(where, field, f"{shown(value)} holds half a surrogate pair", "encode it again as UTF-8")
    return value


def integer(value: object, where: str, field: str) -> int:
    """A whole number from 0, as one or as digits."""
    if isinstance(value, str) and INTEGER.fullmatch(value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        refuse(where, field, shown(value), f"write a whole number from 0 to {LARGEST}")
    return value


def ids(value: object, where: str, field: str) -> list[int]:
    """Expert ids by rank: a list of whole numbers, or digits between blanks, commas, semicolons or bars, brackets allowed."""
    if isinstance(value, str):
        match = IDS.fullmatch(value)
        value = None if match is None else [int(part) for part in re.split(r"[\s,;|]+", match[1])]
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, list) or not value:
        refuse(where, field, "no list of expert ids", 'write the ids best first, such as [3, 11] or "3 11"')
    return [integer(one, where, field) for one in value]


def number(value: object, where: str, field: str) -> float | None:
    """A finite number, or None for nothing written: undefined."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        found = math.nan if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        refuse(where, field, shown(value), "write a finite number, or nothing where it is undefined")
    return found
