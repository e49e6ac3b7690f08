from collections import Counter

import pytest

from experiments.corpora.document import CorpusError, RawDocument
from experiments.corpora.rules import assemble, cut, split_of
from experiments.specs import CorpusSpec

OWN = CorpusSpec(name="jsonl", path="corpus.jsonl")


def prose(seed: int, n_words: int = 80) -> str:
    return " ".join(f"word{seed}x{i}" for i in range(n_words))


def documents(domain: str, numbers: range) -> list[RawDocument]:
    return [RawDocument(f"{domain}-{i}", domain, prose(ord(domain) * 1000 + i)) for i in numbers]


@pytest.mark.parametrize("text", ["plain ascii text", "añb", "日本語のテキスト", "a😀b😀"])
def test_cut_ends_on_a_character(text: str) -> None:
    for n in range(len(text.encode()) + 3):
        short = cut(text, n)
        assert len(short.encode()) <= n
        assert text.startswith(short)
        assert len(text[: len(short) + 1].encode()) > n or short == text


def test_split_shares_are_as_declared() -> None:
    counts = Counter(split_of(f"document {i}", CorpusSpec()) for i in range(20_000))
    # binomial, n = 20,000: four standard deviations are below 0.014
    assert counts["test"] / 20_000 == pytest.approx(0.28, abs=0.014)
    assert counts["calibration"] / 20_000 == pytest.approx(0.12, abs=0.014)


def test_split_depends_on_no_other_document_and_on_the_salt() -> None:
    few, many = (assemble(documents("a", range(20)) + documents("b", range(n)), OWN, {}) for n in (10, 40))
    later = {d.id: d.split for d in many.documents}
    assert all(later[d.id] == d.split for d in few.documents)
    salted = CorpusSpec(salt="other")
    assert any(split_of(f"d{i}", CorpusSpec()) != split_of(f"d{i}", salted) for i in range(50))


def test_what_is_dropped_is_counted_by_reason_and_domain() -> None:
    raw = documents("a", range(5)) + documents("b", range(5))
    raw.append(RawDocument("short", "a", "too short"))
    raw.append(RawDocument("spaced", "a", raw[0].text.replace(" ", "\n\n ")))
    raw.append(RawDocument("elsewhere", "b", raw[1].text))
    raw.append(RawDocument("nearly", "b", raw[6].text + " and a tail"))
    corpus = assemble(raw, OWN, {})
    assert corpus.manifest["dropped"] == {
        "under 200 bytes": {"a": 1}, "repeat within its domain": {"a": 1}, "repeat across domains": {"b": 1}, "near-duplicate": {"b": 1},
        "over the cap": {},
    }
    assert {d.id for d in corpus.documents} == {d.id for d in raw[:10]}
    assert sum(sum(by_split.values()) for by_split in corpus.manifest["documents"].values()) == len(corpus.documents) == 10


def test_texts_that_differ_only_beyond_the_cut_are_repeats() -> None:
    raw = documents("a", range(3)) + documents("b", range(3))
    head = prose(-1, 700)
    raw += [RawDocument("x", "a", head + " one end"), RawDocument("y", "a", head + " another end")]
    corpus = assemble(raw, OWN, {})
    assert corpus.manifest["dropped"]["repeat within its domain"] == {"a": 1}


def test_caps_take_whole_documents_in_the_order_of_their_hashes() -> None:
    raw = documents("a", range(60)) + documents("b", range(60))
    every = assemble(raw, OWN, {})
    capped = assemble(raw, OWN.model_copy(update={"documents_per_domain": 20}), {})
    a_in_order = [d.id for d in every.documents if d.domain == "a"]
    assert [d.id for d in capped.documents if d.domain == "a"] == a_in_order[:20]
    by_bytes = assemble(raw, OWN.model_copy(update={"max_bytes_per_domain": 10_000}), {})
    assert 0 < by_bytes.manifest["bytes"]["a"] <= 10_000
    assert [d.id for d in by_bytes.documents if d.domain == "a"] == a_in_order[: len([d for d in by_bytes.documents if d.domain == "a"])]


def test_an_empty_corpus_says_what_took_its_documents() -> None:
    with pytest.raises(CorpusError, match=r"corpus\.jsonl: the corpus is empty \(2 under 200 bytes\)"):
        assemble([RawDocument("1", "a", "x"), RawDocument("2", "b", "y")], OWN, {})


def test_one_domain_is_refused_unless_meant() -> None:
    raw = documents("a", range(5))
    with pytest.raises(CorpusError, match=r"only the domain 'a' has documents.*one_domain = true"):
        assemble(raw, OWN, {})
    assert assemble(raw, OWN.model_copy(update={"one_domain": True}), {}).domains == ("a",)
    assert assemble(raw, OWN.model_copy(update={"domains": ("a",)}), {}).domains == ("a",)


def test_an_empty_domain_is_named() -> None:
    declared = OWN.model_copy(update={"domains": ("a", "b", "void")})
    corpus = assemble(documents("a", range(5)) + documents("b", range(5)), declared, {})
    assert corpus.manifest["empty_domains"] == ["void"]
    with pytest.raises(CorpusError, match="without a document: b, void"):
        assemble(documents("a", range(5)), declared, {})
