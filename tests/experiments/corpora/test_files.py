import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.corpora import CorpusError, load, sample, write_splits
from experiments.progress import Silent
from experiments.specs import CorpusSpec

Rows = list[dict[str, object]]


def rows(n: int = 30) -> Rows:
    return [
        {"id": f"{domain}{i}", "domain": domain, "text": " ".join(f"{domain}{i}w{j}" for j in range(60))}
        for domain in ("history", "physics") for i in range(n)
    ]


def write_jsonl(path: Path, content: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return path


def test_jsonl_parquet_and_folders_give_the_same_texts(tmp_path: Path) -> None:
    content = rows()
    write_jsonl(tmp_path / "c.jsonl", content)
    pq.write_table(pa.Table.from_pylist(content), tmp_path / "c.parquet")
    for row in content:
        (tmp_path / "c" / str(row["domain"])).mkdir(parents=True, exist_ok=True)
        (tmp_path / "c" / str(row["domain"]) / f"{row['id']}.txt").write_text(str(row["text"]))
    kinds = {"jsonl": "c.jsonl", "parquet": "c.parquet", "text": "c"}
    specs = [CorpusSpec.model_validate({"name": name, "path": str(tmp_path / path)}) for name, path in kinds.items()]
    corpora = [load(spec, tmp_path / "cache", Silent()) for spec in specs]
    assert [{(d.domain, d.text) for d in corpus.documents} for corpus in corpora] == [{(r["domain"], r["text"]) for r in content}] * 3
    assert corpora[0].documents == corpora[1].documents
    assert corpora[0].digest == corpora[1].digest != corpora[2].digest


def test_the_second_load_reads_the_kept_corpus_and_a_changed_file_does_not(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", rows())
    spec = CorpusSpec(name="jsonl", path=str(path))
    first = load(spec, tmp_path / "cache", Silent())
    kept = sorted((tmp_path / "cache").iterdir())
    assert load(spec, tmp_path / "cache", Silent()) == first
    assert sorted((tmp_path / "cache").iterdir()) == kept
    write_jsonl(path, rows(29))
    assert len(load(spec, tmp_path / "cache", Silent()).documents) == 58


def test_a_damaged_kept_corpus_is_made_again(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", rows())
    spec = CorpusSpec(name="jsonl", path=str(path))
    first = load(spec, tmp_path / "cache", Silent())
    kept = next((tmp_path / "cache").glob("*.parquet"))
    whole = kept.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 40)):
        kept.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert load(spec, tmp_path / "cache", Silent()).documents == first.documents


def test_without_ids_the_split_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    content = [{"domain": r["domain"], "text": r["text"]} for r in rows()]
    one = load(CorpusSpec(name="jsonl", path=str(write_jsonl(tmp_path / "a.jsonl", content))), tmp_path / "cache", Silent())
    two = load(CorpusSpec(name="jsonl", path=str(write_jsonl(tmp_path / "b.jsonl", content[::-1]))), tmp_path / "cache", Silent())
    assert {d.text: d.split for d in one.documents} == {d.text: d.split for d in two.documents}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(("field", "renamed"), [("text_field", "text"), ("domain_field", "domain")])
def test_a_wrong_column_is_named_with_the_columns_seen(tmp_path: Path, kind: str, field: str, renamed: str) -> None:
    content = [{("body" if key == renamed else key): value for key, value in row.items()} for row in rows(3)]
    path = tmp_path / f"c.{kind}"
    if kind == "jsonl":
        write_jsonl(path, content)
    else:
        pq.write_table(pa.Table.from_pylist(content), path)
    with pytest.raises(CorpusError) as caught:
        load(CorpusSpec(name=kind, path=str(path)), tmp_path / "cache", Silent())
    for part in (str(path), repr(renamed), "'body'", f"corpus.{field}"):
        assert part in str(caught.value)
    declared = CorpusSpec(name=kind, path=str(path)).model_copy(update={field: "body"})
    assert len(load(declared, tmp_path / "cache", Silent()).documents) == 6


BROKEN = [
    (b'{"id": "1", "domain": "a", "text": ', r"c\.jsonl:3: not JSON"),
    (b'["a", "b"]', r"c\.jsonl:3: a JSON object is expected, found list"),
    (b"[" * 100_000, r"c\.jsonl:3: not JSON"),
    (b'{"domain": "a", "text": "\xff\xfe"}', r"c\.jsonl:3: byte 25 is not UTF-8"),
    (b'{"domain": "a", "text": 7}', r"c\.jsonl:3: the field 'text' must be text and is int"),
    (b'{"domain": "", "text": "words"}', r"c\.jsonl:3: the field 'domain' must be text and is blank"),
    (b'{"domain": null, "text": "words"}', r"c\.jsonl:3: the field 'domain' must be text and is absent"),
    (b'{"domain": "a", "text": "half \\ud83d"}', r"c\.jsonl:3: 'text' holds half a surrogate pair at character 5"),
]


@pytest.mark.parametrize(("line", "message"), BROKEN)
def test_a_broken_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", rows(1))
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(CorpusError, match=message):
        load(CorpusSpec(name="jsonl", path=str(path)), tmp_path / "cache", Silent())


def test_a_byte_order_mark_and_blank_lines_are_no_error(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", rows())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\n\n")
    assert len(load(CorpusSpec(name="jsonl", path=str(path)), tmp_path / "cache", Silent()).documents) == 60


def test_one_text_under_two_domains_is_refused(tmp_path: Path) -> None:
    content = rows(5)
    content.append({"id": "copy", "domain": "physics", "text": str(content[0]["text"]).replace(" ", "  ")})
    path = write_jsonl(tmp_path / "c.jsonl", content)
    with pytest.raises(CorpusError, match=r"1 texts stand under two domains, such as 'history0' in 'history' and 'copy' in 'physics'"):
        load(CorpusSpec(name="jsonl", path=str(path)), tmp_path / "cache", Silent())


def test_a_repeated_id_is_refused(tmp_path: Path) -> None:
    content = rows(3)
    content[1]["id"] = content[0]["id"]
    path = write_jsonl(tmp_path / "c.jsonl", content)
    with pytest.raises(CorpusError, match=r"the id 'history0' \(field 'id'\) occurs twice"):
        load(CorpusSpec(name="jsonl", path=str(path)), tmp_path / "cache", Silent())


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    def message(**fields: str) -> str:
        with pytest.raises(CorpusError) as caught:
            load(CorpusSpec(**fields), tmp_path / "cache", Silent())
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not at all")
    assert "no such file or folder (corpus.path)" in message(name="jsonl", path=str(tmp_path / "absent"))
    assert "corpus.path: missing" in message(name="jsonl")
    assert "no file ending in .txt or .md" in message(name="text", path=str(tmp_path / "empty"))
    assert "not a readable Parquet file" in message(name="parquet", path=str(tmp_path / "bad.parquet"))
    assert "a text corpus is a folder" in message(name="text", path=str(tmp_path / "bad.parquet"))


def test_text_folders_refuse_what_is_not_theirs(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("x" * 500)
    root = tmp_path / "c"
    for domain in ("a", "b"):
        (root / domain).mkdir(parents=True)
        (root / domain / "1.txt").write_text(" ".join(f"{domain}{j}" for j in range(100)))
    (root / "a" / "link.txt").symlink_to(secret)
    corpus = load(CorpusSpec(name="text", path=str(root)), tmp_path / "cache", Silent())
    assert {d.id for d in corpus.documents} == {"a/1.txt", "b/1.txt"}
    (root / "loose.txt").write_text("y" * 500)
    with pytest.raises(CorpusError, match="lies in no sub-folder"):
        load(CorpusSpec(name="text", path=str(root)), tmp_path / "cache", Silent())
    (root / "loose.txt").unlink()
    (root / "b" / "2.txt").write_bytes(b"latin \xe9 one" * 50)
    with pytest.raises(CorpusError, match=r"2\.txt: byte 6 is not UTF-8"):
        load(CorpusSpec(name="text", path=str(root)), tmp_path / "cache", Silent())


def test_a_text_file_longer_than_the_cut_ends_on_a_character(tmp_path: Path) -> None:
    for domain in ("a", "b"):
        (tmp_path / "c" / domain).mkdir(parents=True)
        (tmp_path / "c" / domain / "1.txt").write_text(domain + "é" * 4000, encoding="utf-8")
    corpus = load(CorpusSpec(name="text", path=str(tmp_path / "c")), tmp_path / "cache", Silent())
    assert {d.text for d in corpus.documents} == {domain + "é" * 2047 for domain in ("a", "b")}


def test_a_sample_is_even_over_domains_and_keeps_splits(tmp_path: Path) -> None:
    content = rows(40)[:60]  # 40 of history, 20 of physics
    corpus = load(CorpusSpec(name="jsonl", path=str(write_jsonl(tmp_path / "c.jsonl", content))), tmp_path / "cache", Silent())
    few = sample(corpus, 21)
    assert {name: sum(d.domain == name for d in few.documents) for name in few.domains} == {"history": 11, "physics": 10}
    assert set(few.documents) <= set(corpus.documents)
    assert few.manifest["dropped"]["not sampled"] == {"history": 29, "physics": 10}
    assert few.digest != corpus.digest
    many = sample(corpus, 50)  # physics has 20 in all, history gives the rest
    assert {name: sum(d.domain == name for d in many.documents) for name in many.domains} == {"history": 30, "physics": 20}
    assert sample(corpus, 1000) is corpus
    with pytest.raises(CorpusError, match="num-samples = 1"):
        sample(corpus, 1)


def test_splits_are_written_and_load_again(tmp_path: Path) -> None:
    corpus = load(CorpusSpec(name="jsonl", path=str(write_jsonl(tmp_path / "c.jsonl", rows()))), tmp_path / "cache", Silent())
    paths = write_splits(corpus, tmp_path / "splits")
    assert [path.name for path in paths] == ["train.jsonl", "calibration.jsonl", "test.jsonl"]
    again = load(CorpusSpec(name="jsonl", path=str(tmp_path / "splits")), tmp_path / "cache", Silent())
    assert again.documents == corpus.documents
    assert json.loads((tmp_path / "splits" / "manifest.json").read_text())["sha256"] == corpus.digest
