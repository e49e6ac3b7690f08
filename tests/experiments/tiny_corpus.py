"""A JSONL corpus of made-up words: three domains, each with a vocabulary of its own beside a common one, the same bytes every time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

DOMAINS = ("herbs", "rocks", "winds")
LETTERS = {"herbs": "aelmorst", "rocks": "gikortuz", "winds": "adfhnsuw"}
COMMON = ("the", "of", "and", "in", "is", "with", "for", "not")


def words_of(domain: str, rng: np.random.Generator) -> list[str]:
    """Sixty words of a domain's own letters."""
    letters = list(LETTERS[domain])
    return ["".join(rng.choice(letters, int(rng.integers(3, 9)))) for _ in range(60)]


def rows(domains: Sequence[str] = DOMAINS, per_domain: int = 40) -> Iterator[dict[str, str]]:
    """Documents of 60 to 110 words; word frequencies fall like 1/rank, as in language."""
    weights = 1 / np.arange(1, 61)
    for domain in domains:
        rng = np.random.default_rng([7, DOMAINS.index(domain)])
        words = words_of(domain, rng)
        for number in range(per_domain):
            own = rng.choice(words, int(rng.integers(40, 70)), p=weights / weights.sum())
            common = rng.choice(COMMON, len(own) * 2 // 3)
            text = " ".join(rng.permutation(np.concatenate((own, common))).tolist())
            yield {"id": f"{domain}/{number:03d}", "domain": domain, "text": text}


def write(path: Path, domains: Sequence[str] = DOMAINS, per_domain: int = 40) -> Path:
    """Write the documents as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(domains, per_domain)), encoding="utf-8")
    return path
