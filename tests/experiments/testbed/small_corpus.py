"""A corpus of made-up sentences in three domains, and a testbed small enough to train in a second."""

import numpy as np

from experiments.corpora import Corpus
from experiments.corpora.document import RawDocument
from experiments.corpora.rules import assemble
from experiments.specs import CorpusSpec, TestbedSpec

SMALL = TestbedSpec(
    steps=110, batch=6, window=32, vocabulary=300, layers=2, hidden=32, heads=2, experts=4, top_k=2, intermediate=32, seed=3
)


def small_corpus(test_word: str = "") -> Corpus:
    """About 90 documents; `test_word` is put into every test document and nowhere else."""
    rng = np.random.default_rng(11)
    raw = []
    for domain in ("herbs", "rocks", "winds"):
        words = [f"{domain[:2]}{''.join(rng.choice(list('aeioustrnl'), 5))}" for _ in range(60)]
        raw += [RawDocument(f"{domain}/{i}", domain, " ".join(rng.choice(words, 60))) for i in range(30)]
    spec = CorpusSpec(name="jsonl", path="small")
    plain = assemble(raw, spec, {})
    if not test_word:
        return plain
    of_test = {d.id for d in plain.of_split("test")}
    return assemble([RawDocument(d.id, d.domain, f"{test_word} {d.text}" if d.id in of_test else d.text) for d in raw], spec, {})
