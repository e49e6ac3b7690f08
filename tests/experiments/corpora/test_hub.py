import importlib.util
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.corpora.document import CorpusError
from experiments.corpora.hub import articles
from experiments.corpora.loading import load
from experiments.progress import Silent
from experiments.specs import CorpusSpec, DatasetSource


def folder(root: Path, column: str = "text", n: int = 30) -> Path:
    """A dataset's Parquet files as the hub lays them out."""
    texts = [f"{root.name} document {i} " + " ".join(f"{root.name}{i}x{j}" for j in range(60)) for i in range(n)]
    (root / "plain").mkdir(parents=True)
    pq.write_table(pa.table({column: texts[: n // 2], "other": list(range(n // 2))}), root / "plain" / "train-00000-of-00002.parquet")
    pq.write_table(pa.table({column: texts[n // 2 :], "other": list(range(n - n // 2))}), root / "plain" / "train-00001-of-00002.parquet")
    pq.write_table(pa.table({column: ["never read " * 40]}), root / "plain" / "validation-00000-of-00001.parquet")
    return root


def source(root: Path, **fields: object) -> DatasetSource:
    return DatasetSource.model_validate({"name": str(root), "domain": root.name} | fields)


def test_a_folder_of_parquet_files_stands_for_a_name(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one"), folder(tmp_path / "two", column="body")
    sources = (source(one, config="plain", cap=25), source(two, text_field="body"))
    corpus = load(CorpusSpec(name="datasets", sources=sources), tmp_path / "cache", Silent())
    counts = {domain: sum(by_split.values()) for domain, by_split in corpus.manifest["documents"].items()}
    assert counts == {"one": 25, "two": 30}
    assert not any("never read" in d.text for d in corpus.documents)


def test_repeats_do_not_count_against_the_cap(tmp_path: Path) -> None:
    root = tmp_path / "one"
    root.mkdir()
    rows = [" ".join(f"t{i // 5}x{j}" for j in range(60)) for i in range(100)]  # each text five times, as SQuAD repeats its passages
    pq.write_table(pa.table({"text": rows}), root / "train.parquet")
    spec = CorpusSpec(name="datasets", one_domain=True, sources=(source(root, cap=12),))
    assert len(load(spec, tmp_path / "cache", Silent()).documents) == 12


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "nowhere"}, r"no file \[config/\]nowhere-\*\.parquet in .*; Parquet files seen: plain/train-00000"),
        ({"config": "absent"}, r"no file \[config/\]train"),
        ({"text_field": "question+answer"}, r"no column 'question' \(corpus.sources.text_field\); columns seen: 'text', 'other'"),
    ],
)
def test_what_a_folder_does_not_have_is_named(tmp_path: Path, fields: dict[str, str], message: str) -> None:
    spec = CorpusSpec(name="datasets", one_domain=True, sources=(source(folder(tmp_path / "one"), **fields),))
    with pytest.raises(CorpusError, match=message):
        load(spec, tmp_path / "cache", Silent())


def test_no_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"corpus\.sources: empty"):
        load(CorpusSpec(name="datasets"), tmp_path, Silent())


@pytest.mark.skipif(importlib.util.find_spec("datasets") is not None, reason="the extra is installed")
def test_a_name_without_the_extra_says_what_to_install(tmp_path: Path) -> None:
    spec = CorpusSpec(name="datasets", sources=(DatasetSource(name="allenai/c4", config="en", domain="c4"),))
    with pytest.raises(CorpusError, match=r"\(allenai/c4\) needs the extra: pip install 'moe-assay\[datasets\]'"):
        load(spec, tmp_path, Silent())


def test_a_name_that_cannot_be_had_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="the datasets extra is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    spec = CorpusSpec(name="datasets", one_domain=True, sources=(DatasetSource(name="no-such-owner/no-such-name", domain="x"),))
    with pytest.raises(CorpusError, match="'no-such-owner/no-such-name' .* cannot be had: .*download its Parquet files elsewhere"):
        load(spec, tmp_path, Silent())


def test_lines_of_wikitext_are_joined_into_articles() -> None:
    lines = ["", " = One = \n", "", " First. \n", " = = Section = = \n", " More. \n", " = Two = \n", " Second. \n"]
    assert list(articles(iter(lines))) == ["= One = \n First. \n = = Section = = \n More.", "= Two = \n Second."]
