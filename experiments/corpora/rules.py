"""The rules every corpus goes through: what is dropped, where a text is cut, which split a document falls into."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from experiments.corpora.document import SPLITS, Corpus, CorpusError, Document, RawDocument
from experiments.corpora.shingles import near_duplicates
from experiments.specs import CorpusSpec
from hypotheses.claim import fingerprint

RULES_VERSION = 1
MIN_BYTES = 200


@dataclass
class Selection:
    """Documents that are left, and how many each reason took, per domain."""

    documents: list[RawDocument]
    dropped: dict[str, Counter[str]] = field(default_factory=dict)

    def keep(self, flags: Iterable[bool], reason: str) -> None:
        """Keep the flagged documents; count the others under `reason`."""
        kept, counts = [], self.dropped.setdefault(reason, Counter())
        for document, flag in zip(self.documents, flags, strict=True):
            if flag:
                kept.append(document)
            else:
                counts[document.domain] += 1
        self.documents = kept


def cut(text: str, max_bytes: int) -> str:
    """The longest beginning of the text of at most `max_bytes` UTF-8 bytes that ends on a character boundary."""
    if len(text) * 4 <= max_bytes:
        return text
    return text[:max_bytes].encode()[:max_bytes].decode("utf-8", "ignore")


def split_of(document_id: str, spec: CorpusSpec) -> str:
    """Split by the SHA-256 of salt and id, so that it depends on no other document: test, then calibration, else train."""
    digest = hashlib.sha256(f"{spec.salt}\0{document_id}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < spec.test_share:
        return "test"
    return "calibration" if position < spec.test_share + spec.calibration_share else "train"


def id_order(document_id: str) -> bytes:
    """Key of the order in which caps take documents: SHA-256 of the id."""
    return hashlib.sha256(document_id.encode()).digest()


def select(documents: Sequence[RawDocument], spec: CorpusSpec) -> Selection:
    """Apply the rules in order: cut, drop short texts, exact repeats and near-duplicates (over all domains together), cap each domain.

    Cutting comes first because duplicates matter in the text that is used: two documents that differ only beyond the cut are repeats.
    Dropping duplicates before the split is why none can lie on both sides of it.
    """
    cut_documents = [RawDocument(d.id, d.domain, cut(d.text, spec.max_bytes_per_document), d.topic) for d in documents]
    chosen = Selection(cut_documents)
    chosen.keep((len(d.text.encode()) >= MIN_BYTES for d in chosen.documents), f"under {MIN_BYTES} bytes")
    _drop_repeats(chosen)
    chosen.keep(~near_duplicates([d.text for d in chosen.documents]), "near-duplicate")
    taken = _within_caps(chosen.documents, spec)
    chosen.keep((d.id in taken for d in chosen.documents), "over the cap")
    return chosen


def _drop_repeats(chosen: Selection) -> None:
    """Drop texts equal but for whitespace to an earlier one; within a domain and across domains are counted apart."""
    first_domain: dict[bytes, str] = {}
    repeats: list[str] = []
    for document in chosen.documents:
        key = whitespace_free_digest(document.text)
        repeats.append("" if key not in first_domain else "within" if first_domain[key] == document.domain else "across")
        first_domain.setdefault(key, document.domain)
    within = [place != "within" for place in repeats]
    across = [place != "across" for place in repeats if place != "within"]
    chosen.keep(within, "repeat within its domain")
    chosen.keep(across, "repeat across domains")


def whitespace_free_digest(text: str) -> bytes:
    """SHA-256 of the words of a text, so that other spacing and line ends are the same text."""
    return hashlib.sha256(" ".join(text.split()).encode()).digest()


def _within_caps(documents: Sequence[RawDocument], spec: CorpusSpec) -> set[str]:
    n_bytes: Counter[str] = Counter()
    n_documents: Counter[str] = Counter()
    full: set[str] = set()
    taken = set()
    for document in sorted(documents, key=lambda d: id_order(d.id)):
        size = len(document.text.encode())
        at_cap = spec.documents_per_domain is not None and n_documents[document.domain] >= spec.documents_per_domain
        if document.domain in full or at_cap:
            continue
        if n_bytes[document.domain] + size > spec.max_bytes_per_domain:
            full.add(document.domain)
            continue
        n_bytes[document.domain] += size
        n_documents[document.domain] += 1
        taken.add(document.id)
    return taken


def assemble(documents: Sequence[RawDocument], spec: CorpusSpec, origin: dict[str, object]) -> Corpus:
    """Corpus of the selected and split documents, ordered by domain and then by the hash of the id; `origin` goes into the manifest.

    Raises CorpusError for a corpus that is empty or has one domain where more were meant.
    """
    chosen = select(documents, spec)
    domains = list(dict.fromkeys(document.domain for document in documents))
    wanted = domains_asked_for(spec) or domains
    _check_domains(chosen, wanted, spec)
    rank = {domain: i for i, domain in enumerate(wanted)}
    ordered = sorted(chosen.documents, key=lambda d: (rank[d.domain], id_order(d.id)))
    split = tuple(
        Document(d.id, d.domain, split_of(d.id, spec), d.text, hashlib.sha256(d.text.encode()).hexdigest(), d.topic) for d in ordered
    )
    return Corpus(split, manifest_of(split, wanted, spec, origin, chosen.dropped))


def domains_asked_for(spec: CorpusSpec) -> tuple[str, ...]:
    """Domains the declaration names; none (all that are found) if an own corpus leaves the field at its default."""
    if spec.name == "datasets":
        return tuple(dict.fromkeys(source.domain for source in spec.sources))
    if spec.name != "six_domains" and spec.domains == CorpusSpec.model_fields["domains"].default:
        return ()
    return spec.domains


def _check_domains(chosen: Selection, wanted: Sequence[str], spec: CorpusSpec) -> None:
    left = {document.domain for document in chosen.documents}
    where = spec.path or spec.name
    if not left:
        reasons = ", ".join(f"{sum(counts.values())} {reason}" for reason, counts in chosen.dropped.items() if counts) or "none were found"
        raise CorpusError(
            f"{where}: the corpus is empty ({reasons}); give documents of at least {MIN_BYTES} bytes, "
            f"or check corpus.domains {list(wanted)}"
        )
    if len(left) == 1 and len(domains_asked_for(spec)) != 1 and not spec.one_domain:
        empty = [domain for domain in wanted if domain not in left]
        without = f"; without a document: {', '.join(empty)}" if empty else ""
        only = next(iter(left))
        raise CorpusError(
            f"{where}: only the domain {only!r} has documents{without}; label more domains in the field {spec.domain_field!r}, "
            "or say that one is meant with corpus.one_domain = true"
        )


def manifest_of(
    documents: Sequence[Document], wanted: Sequence[str], spec: CorpusSpec, origin: dict[str, object], dropped: dict[str, Counter[str]]
) -> dict[str, object]:
    """What is known of a corpus besides its texts: declaration, origin, digest, counts per domain and split, and what was dropped."""
    counts = {domain: dict.fromkeys(SPLITS, 0) for domain in wanted}
    n_bytes = dict.fromkeys(wanted, 0)
    for document in documents:
        counts[document.domain][document.split] += 1
        n_bytes[document.domain] += len(document.text.encode())
    return {
        "rules_version": RULES_VERSION,
        "spec": spec.model_dump(mode="json"),
        "origin": origin,
        "sha256": fingerprint([[d.id, d.domain, d.split, d.sha256] for d in documents]),
        "n_documents": len(documents),
        "documents": counts,
        "bytes": n_bytes,
        "topics": dict(sorted(Counter(d.topic for d in documents if d.topic is not None).items())),
        "empty_domains": [domain for domain in wanted if not n_bytes[domain]],
        "dropped": {reason: dict(sorted(by_domain.items())) for reason, by_domain in dropped.items()},
    }
