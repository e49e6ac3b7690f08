import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.planes import Planes
from analysis.trace import DocumentRow
from experiments.predictor.foreign import ImportedError
from experiments.predictor.imported import read_predictions, read_retention
from experiments.predictor.predictions import Predictions, about, save

from .planted import planted_trace, source_planes

TRACE = planted_trace(n_documents=8, tokens=(2, 5))
HOSTILE = "\u202e=cmd|' /C calc'!A0,\"\n<script>\x1b[31m/../../etc\x00"


@pytest.fixture(scope="module")
def planes() -> Planes:
    return source_planes(TRACE, split="test")


@pytest.fixture(scope="module")
def predictions(planes: Planes) -> Predictions:
    rng = np.random.default_rng(0)
    sets = tuple(np.array([rng.permutation(layer.n_experts)[: layer.top_k] for _ in range(len(planes))], layer.id_dtype).T.copy()
                 for layer in planes.layers)
    return Predictions(planes.layers, sets, {"predictor": "abc"})


def rows_of(predictions: Predictions, planes: Planes, documents: tuple[DocumentRow, ...] = TRACE.documents) -> list[dict]:
    names = {row.document: row.id for row in documents}
    place = np.repeat(planes.document, planes.lengths)
    return [{"document": names[int(place[t])], "token": int(planes.position[t]), "layer": layer.key, "ids": [int(x) for x in ids[:, t]]}
            for layer, ids in zip(predictions.layers, predictions.sets) if ids is not None for t in range(len(planes))]


def written(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows([{key: " ".join(map(str, value)) if isinstance(value, list) else value for key, value in row.items()} for row in rows])
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def alike(one: Predictions, other: Predictions) -> bool:
    return all((a is None) == (b is None) and (a is None or b is None or (np.array_equal(a, b) and a.dtype == b.dtype))
               for a, b in zip(one.sets, other.sets))


def test_what_is_saved_is_read_back(predictions: Predictions, planes: Planes, tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    save(path, predictions, planes, TRACE.documents)
    assert alike(read_predictions(path, planes, TRACE.documents), predictions)
    assert about(path) == {"predictor": "abc"}
    before = path.read_bytes()
    save(path, predictions, planes, TRACE.documents)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]
    partial = Predictions(predictions.layers, (None, *predictions.sets[1:]), {})
    save(path, partial, planes, TRACE.documents)
    assert alike(read_predictions(path, planes, TRACE.documents), partial)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_the_same_rows_in_any_format_and_order(ending: str, predictions: Predictions, planes: Planes, tmp_path: Path) -> None:
    rows = rows_of(predictions, planes)
    others = rows_of(Predictions(predictions.layers, tuple(ids[:, :1].repeat(len(p), 1) for ids, p in
                                                           zip(predictions.sets, [source_planes(TRACE, "news", "test")] * 3)), {}),
                     source_planes(TRACE, "news", "test"))
    shuffled = [(rows + others)[i] for i in np.random.default_rng(1).permutation(len(rows) + len(others))]
    found = read_predictions(written(tmp_path / f"made.{ending}", shuffled), planes, TRACE.documents)
    assert alike(found, predictions)
    assert found.first[1] is not None and np.array_equal(found.first[1], predictions.sets[1][0])  # type: ignore[index]


def test_layers_by_place_and_a_layer_left_out(predictions: Predictions, planes: Planes, tmp_path: Path) -> None:
    place = {layer.key: index for index, layer in enumerate(planes.layers)}
    rows = [row | {"layer": place[row["layer"]]} for row in rows_of(predictions, planes) if place[row["layer"]] > 0]
    found = read_predictions(written(tmp_path / "made.jsonl", rows), planes, TRACE.documents)
    assert found.sets[0] is None and alike(found, Predictions(planes.layers, (None, *predictions.sets[1:]), {}))


def test_fewer_guesses_than_k_and_more(predictions: Predictions, planes: Planes, tmp_path: Path) -> None:
    rows = [row | {"ids": row["ids"][:1]} for row in rows_of(predictions, planes)]
    found = read_predictions(written(tmp_path / "one.csv", rows), planes, TRACE.documents)
    assert [ids.shape for ids in found.sets if ids is not None] == [(1, len(planes))] * 3
    rows = [row | {"ids": list(range(6))} for row in rows]
    found = read_predictions(written(tmp_path / "six.parquet", rows), planes, TRACE.documents)
    assert all(ids is not None and (ids[:, 0] == np.arange(6)).all() for ids in found.sets)


def test_a_document_with_a_hostile_id(planes: Planes, predictions: Predictions, tmp_path: Path) -> None:
    documents = tuple(DocumentRow(row.document, f"{HOSTILE}{row.document}", row.domain, row.split) for row in TRACE.documents)
    save(tmp_path / "p.parquet", predictions, planes, documents)
    assert alike(read_predictions(tmp_path / "p.parquet", planes, documents), predictions)
    rows = rows_of(predictions, planes, documents)
    assert alike(read_predictions(written(tmp_path / "p.jsonl", rows), planes, documents), predictions)
    with pytest.raises(ImportedError, match="unknown document") as error:
        read_predictions(written(tmp_path / "q.jsonl", rows), planes, TRACE.documents)
    assert str(error.value).isascii() and "\x1b" not in str(error.value) and "\n" not in str(error.value)


BAD = {
    "an unknown document": ({"document": "doc/99"}, r"document: unknown document 'doc/99'; write the id that"),
    "a position that is not there": ({"token": 77}, r"token: document 'doc/\d' has no token at position 77; the trace keeps \d of its tokens"),
    "an unknown layer": ({"layer": "mlp"}, r"layer: unknown layer 'mlp'; write a layer's key or its place from 0 to 2"),
    "an expert too high": ({"ids": [1, 8]}, r"ids: an expert beyond the 8 of layer model\.layers\.0\.mlp\.gate: '\[1, 8\]'"),
    "an expert twice": ({"ids": [3, 3]}, r"ids: an expert twice"),
    "another number of guesses": ({"ids": [3]}, r"ids: not [12] ids, as in .*write equally many"),
}


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("name", BAD)
def test_a_wrong_row_is_named(name: str, ending: str, predictions: Predictions, planes: Planes, tmp_path: Path) -> None:
    change, message = BAD[name]
    rows = rows_of(predictions, planes)
    rows[3] |= change
    where = r"made\.parquet:row 4" if ending == "parquet" else rf"made\.{ending}:{5 if ending == 'csv' else 4}"
    with pytest.raises(ImportedError, match=f"{where}: {message}"):
        read_predictions(written(tmp_path / f"made.{ending}", rows), planes, TRACE.documents)


WRONG_VALUES = {
    "token": ["", "1.5", -1, True, None, 2**31, "0x1", [1]], "ids": ["", "a b", [], [1, None], [1.0], [-1], "1;x", {"a": 1}, True, [True], None],
    "document": [None, "", "  ", ["a"], True, "x" * 5000, "\ud800"], "layer": [None, "", {}, 2.5],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG_VALUES.items() for value in values])
def test_a_wrong_value_is_named_by_line_and_field(field: str, value: object, predictions: Predictions, planes: Planes, tmp_path: Path) -> None:
    rows = rows_of(predictions, planes)
    rows[2][field] = value
    with pytest.raises(ImportedError, match=rf"made\.jsonl:3: {field}: .*; (write|encode) "):
        read_predictions(written(tmp_path / "made.jsonl", rows), planes, TRACE.documents)


def test_a_repeated_and_a_missing_row(predictions: Predictions, planes: Planes, tmp_path: Path) -> None:
    rows = rows_of(predictions, planes)
    with pytest.raises(ImportedError, match=rf":{len(rows) + 1}: document, token, layer: given before at .*:6; keep one"):
        read_predictions(written(tmp_path / "twice.jsonl", [*rows, rows[5]]), planes, TRACE.documents)
    with pytest.raises(ImportedError, match=r"token: no prediction for document 'doc/\d', token \d, layer model\.layers\.\d\.mlp\.gate; a predictor"):
        read_predictions(written(tmp_path / "less.jsonl", rows[:5] + rows[6:]), planes, TRACE.documents)
    other = rows_of(predictions, planes)
    with pytest.raises(ImportedError, match="no row is of these documents"):
        read_predictions(written(tmp_path / "other.jsonl", other), source_planes(TRACE, "news"), TRACE.documents)


@pytest.mark.parametrize(("columns", "message"), [
    ({"token": ["1"]}, "token: the column is string; write it as integers"),
    ({"ids": ["1 2"]}, "ids: the column is string; write it as lists of integers"),
    ({"ids": [[1.5]]}, "ids: the column is list<.*double>; write it as lists"),
    ({"document": [1.5]}, "document: the column is double; write it as text"),
    ({"token": pa.array([None], pa.int32())}, "row 1: token: null; write a value"),
    ({"ids": [[1, None]]}, "row 1: ids: a null among them"), ({"ids": [[-1, 2]]}, "row 1: ids: expert -1; ids count from 0"),
    ({"token": [-4]}, "row 1: token: -4; write a whole number"),
    ({"ids": pa.array([[]], pa.list_(pa.int32()))}, "row 1: ids: empty; write at least one"),
])
def test_parquet_columns_of_another_kind(columns: dict, message: str, planes: Planes, tmp_path: Path) -> None:
    name = next(row.id for row in TRACE.documents if row.document == planes.document[0])
    table = {"document": [name], "token": [0], "layer": [planes.layers[0].key], "ids": [[1, 2]]} | columns
    pq.write_table(pa.table(table), tmp_path / "made.parquet")
    with pytest.raises(ImportedError, match=message):
        read_predictions(tmp_path / "made.parquet", planes, TRACE.documents)


def test_large_and_fixed_lists_are_read_too(predictions: Predictions, planes: Planes, tmp_path: Path) -> None:
    rows = [row for row in rows_of(predictions, planes) if row["layer"] == planes.layers[0].key]
    for kind in (pa.large_list(pa.int64()), pa.list_(pa.uint8(), 2)):
        schema = pa.schema([("document", pa.large_string()), ("token", pa.uint64()), ("layer", pa.string()), ("ids", kind)])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "made.parquet", row_group_size=3)
        found = read_predictions(tmp_path / "made.parquet", planes, TRACE.documents)
        assert alike(found, Predictions(planes.layers, (predictions.sets[0], None, None), {}))


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.pkl", b"\x80\x04.", r"name: ends in \.pkl; give a file ending in \.parquet, \.csv, \.jsonl, \.ndjson"), ("a.csv", b"", "header: missing"),
    ("a.csv", b"document,token,layer,ids\n", "rows: none"),
    ("a.csv", b"document,token,layer\n", "ids: the column is missing; columns seen"),
    ("a.csv", b"document,token,token,layer,ids\n", "token: the column is there twice"),
    ("a.csv", b"document,token,layer,ids\na,b\n", "2 fields under a"),
    ("a.csv", b"document,token,layer,ids\n\xff", "not UTF-8"), ("a.csv", b'document,token,layer,ids\n"a', "not CSV"),
    ("a.csv", b"document,token,layer,ids\n" + b"a" * 200_000, "not CSV"), ("a.jsonl", b"", "rows: none"),
    ("a.jsonl", b"{", r"a\.jsonl:1: line: not JSON"),
    ("a.jsonl", b"[1]", "list, not an object"), ("a.jsonl", b"{}", "document: missing"), ("a.jsonl", b"\xff", "byte 0 is not UTF-8"),
    ("a.jsonl", b"[" * 100_000, "not JSON"), ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}", "not JSON"), ("a.jsonl", b" " * (2**20 + 1), "longer than"),
    ("a.parquet", b"", "not a readable Parquet file"), ("a.parquet", b"PAR1" * 20, "not a readable Parquet file"),
])
def test_a_file_that_cannot_be_read_is_named(name: str, content: bytes, message: str, planes: Planes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImportedError, match=message) as error:
        read_predictions(tmp_path / name, planes, TRACE.documents)
    assert str(tmp_path / name) in str(error.value)


def test_no_file_and_a_folder(planes: Planes, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name in ("none.csv", "folder.csv"):
        with pytest.raises(ImportedError, match="is not there, or is no regular file"):
            read_predictions(tmp_path / name, planes, TRACE.documents)


@given(noise=st.binary(max_size=300), ending=st.sampled_from(["csv", "jsonl", "parquet"]), place=st.integers(0, 3000), byte=st.integers(0, 255))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_do_anything_but_read_or_refuse(noise: bytes, ending: str, place: int, byte: int, planes: Planes, predictions: Predictions,
                                                 tmp_path: Path) -> None:
    path = written(tmp_path / f"made.{ending}", rows_of(predictions, planes))
    content = bytearray(path.read_bytes())
    content[place % len(content)] = byte
    for damaged in (bytes(content), noise, bytes(content[: place % len(content)]) + noise):
        path.write_bytes(damaged)
        try:
            found = read_predictions(path, planes, TRACE.documents)
        except ImportedError as error:
            assert str(path) in str(error)
        else:
            assert all(ids is None or (ids < layer.n_experts).all() for ids, layer in zip(found.sets, planes.layers))


def test_no_damaged_footer_ends_the_process(planes: Planes, predictions: Predictions, tmp_path: Path) -> None:
    path = written(tmp_path / "made.parquet", rows_of(predictions, planes))
    good = path.read_bytes()
    footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    refused = 0
    for place in range(footer, len(good), 2):
        path.write_bytes(good[:place] + b"\0" + good[place + 1:])
        try:
            read_predictions(path, planes, TRACE.documents)
        except ImportedError:
            refused += 1
    assert refused > 25


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_retention_tables(ending: str, tmp_path: Path) -> None:
    rows = [{"source": "code", "target": "news", "value": 0.68}, {"source": "news", "target": "code", "value": None}]
    found = read_retention(written(tmp_path / f"retention.{ending}", rows), {"code", "news"})
    assert [(one.source, one.target, one.value) for one in found] == [("code", "news", 0.68), ("news", "code", None)]


@pytest.mark.parametrize(("row", "message"), [
    ({"source": "law"}, r":2: source: unknown domain 'law'; the domains are code, news"),
    ({"value": "nan"}, ":2: value: 'nan'; write a finite number"),
    ({"value": True}, ":2: value: 'True'"), ({"value": "1e999"}, ":2: value: '1e999'"), ({"value": [1]}, ":2: value: "),
    ({"target": ""}, ":2: target: ''"),
    ({"source": "code", "target": "news"}, r":2: source, target: 'code' to 'news' was given at .*:1; keep one"), ({"value": 10**400}, ":2: value: "),
])
def test_a_wrong_retention_row_is_named(row: dict, message: str, tmp_path: Path) -> None:
    rows = [{"source": "code", "target": "news", "value": 0.68}, {"source": "news", "target": "code", "value": 0.1} | row]
    with pytest.raises(ImportedError, match=message):
        read_retention(written(tmp_path / "retention.jsonl", rows), {"code", "news"})


def test_csv_with_quotes_a_byte_order_mark_and_columns_of_its_own(planes: Planes, predictions: Predictions, tmp_path: Path) -> None:
    out = io.StringIO()
    table = csv.writer(out, quoting=csv.QUOTE_ALL)
    table.writerow(["note", "ids", "layer", "token", "document"])
    for row in rows_of(predictions, planes):
        table.writerow(["a, b\nc", row["ids"], row["layer"], f" {row['token']} ", row["document"]])
    (tmp_path / "made.csv").write_bytes(b"\xef\xbb\xbf" + out.getvalue().encode())
    assert alike(read_predictions(tmp_path / "made.csv", planes, TRACE.documents), predictions)
