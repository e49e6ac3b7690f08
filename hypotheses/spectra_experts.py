"""Single experts of one trained model: top domain, affinity and purity against their null, keywords judged on held-out documents, samples.

E expert, D domain, V token type, T token, K slot. The top domain and the keywords are chosen on calibration documents where there are any, and
counted on test documents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from analysis.arithmetic import Float, divide
from analysis.counts import document_hash
from analysis.domain_labels import DomainDocuments
from analysis.kernels import Int
from analysis.keywords import ChosenTokens, Keyword, Sample, expert_keywords, held_out_agreement, representative_samples
from analysis.label_permutation import label_null
from analysis.loads import Loads, document_loads
from analysis.metrics.specialists import affinity_cells
from analysis.metrics.specialization import affinity, freq_matrix, purity_e
from analysis.resampling import generator
from hypotheses.spectra_rows import LayerRows, commonest, layer_rows, occurrences, type_table
from hypotheses.spectra_runs import SPLIT, RunCounts
from hypotheses.topology_parts import Row, cells

KEYWORDS, SAMPLES, CONTEXT = 8, 3, 8  # words and samples shown of each expert; tokens before and after a sample
PURITY_DRAWS = 99
MOST_TYPES, MOST_CELLS = 2**16 - 1, 2**24  # of a table of types [E, V], int64: 128 MiB
JOINER = ", "
EXPERT_COLUMNS = ("arm", "seed", "layer", "expert", "load", "top_domain", "chosen_on", "value", "low", "high", "plug_in", "null", "p", "n_documents",
                  "unit", "status", "reason", "q", "affinity", "purity", "purity_null", "keywords", "n_keywords", "confirmed", "confirmed_words")
SAMPLE_COLUMNS = ("arm", "seed", "layer", "expert", "rank", "document", "domain", "position", "weight", "before", "token", "after")
CELL_COLUMNS = ("arm", "seed", "layer", "expert", "domain", "count", "p_e_given_d", "p_d_given_e", "value", "low", "high", "plug_in", "null", "p",
                "n_documents", "unit", "status", "reason", "q")


@dataclass(frozen=True)
class ExpertRows:
    """Rows of three tables: experts, expert by domain, and representative samples; said: which token types keywords leave out."""

    experts: list[Row]
    cells: list[Row]
    samples: list[Row]
    said: str = ""


def expert_rows(counts: RunCounts, token_strings: Sequence[str]) -> ExpertRows:
    """Every expert of every layer of one run."""
    chosen_on, chooser = _chooser(counts)
    words, said = _keywords(counts, token_strings, chosen_on)
    shown = _Shown(counts, token_strings)
    out = ExpertRows([], [], [], said)
    for layer in range(len(counts.layers)):
        documents = counts.in_domains(layer)
        found, null = _affinity(documents), _purity_null(counts, documents, layer)
        out.cells.extend(_cell_rows(counts, layer, found))
        out.experts.extend(_rows_of_layer(counts, layer, (chosen_on, chooser[layer]), found, null, words(layer)))
        out.samples.extend(shown.rows(layer))
    return out


def _chooser(counts: RunCounts) -> tuple[str, list[Int]]:
    """On which documents the top domain of each expert is chosen, and their counts [D, E] by layer."""
    if {row.domain for row in counts.run.trace.documents if row.split == "calibration"} >= set(counts.domains):
        loads: Loads = document_loads(counts.run.trace, "calibration", salt=counts.settings.salt)
        places = [loads.domains.index(name) for name in counts.domains]
        return "calibration", [loads.by_domain(layer, counts.counted)[places] for layer in range(len(counts.layers))]
    return SPLIT, [counts.by_domain(layer) for layer in range(len(counts.layers))]


Cells = dict[tuple[int, int], tuple[Row, float | None]]


def _affinity(documents: DomainDocuments) -> Cells:
    if documents.n_domains < 2:
        return {}
    return {(one.expert, one.domain): (cells(one.log2_affinity), one.q) for one in affinity_cells(documents)}


def _purity_null(counts: RunCounts, documents: DomainDocuments, layer: int) -> Float:
    """Mean purity of each expert [E] under permuted domain labels."""
    if documents.n_domains < 2:
        return np.full(counts.n_experts, np.nan)
    null = label_null(documents, purity_e, generator(counts.settings.seed, "purity_null", layer), n_draws=PURITY_DRAWS, keep=True)
    return np.full(counts.n_experts, np.nan) if null.null is None else np.asarray(null.null, np.float64).mean(axis=0)


def _cell_rows(counts: RunCounts, layer: int, found: Cells) -> list[Row]:
    table = counts.by_domain(layer)
    share = freq_matrix(table)
    total = share.sum(axis=0)
    mix = np.divide(share, total, out=np.full_like(share, np.nan), where=total > 0)
    rows: list[Row] = []
    for (e, d), (cell, q) in found.items():
        rows.append({**_place(counts, layer, e), "domain": counts.domains[d], "count": int(table[d, e]),
                     "p_e_given_d": float(share[d, e]), "p_d_given_e": float(mix[d, e]), **cell, "q": q})
    return rows


def _rows_of_layer(counts: RunCounts, layer: int, chosen: tuple[str, Int], found: Cells, null: Float, words: Words | None) -> list[Row]:
    chosen_on, chooser = chosen
    table = counts.by_domain(layer)
    picked, ratio, purity = affinity(chooser), affinity(table), purity_e(table)
    rows: list[Row] = []
    for e in range(counts.n_experts):
        known = bool(np.isfinite(picked[e]).all())
        d = int(picked[e].argmax()) if known else 0
        cell, q = found.get((e, d), ({}, None)) if known else ({}, None)
        text = words.of(e) if words else {"keywords": "", "n_keywords": 0, "confirmed": None, "confirmed_words": ""}
        rows.append({**_place(counts, layer, e), "load": float(table[:, e].sum() / max(table.sum(), 1)),
                     "top_domain": counts.domains[d] if known else "", "chosen_on": chosen_on, **BLANK, **cell, "q": q,
                     "affinity": float(ratio[e, d]) if known else None, "purity": float(purity[e]), "purity_null": float(null[e]), **text})
    return rows


def _place(counts: RunCounts, layer: int, expert: int) -> dict[str, Any]:
    return {"arm": counts.run.arm, "seed": counts.run.seed, "layer": layer, "expert": expert}


BLANK: Row = {"value": None, "low": None, "high": None, "plug_in": None, "null": None, "p": None, "n_documents": 0, "unit": "bits",
              "status": "undefined", "reason": "unused_expert: no selections where the domain is chosen"}


@dataclass(frozen=True)
class Words:
    """Keywords of every expert of a layer, and how many of them held-out documents confirm."""

    texts: Sequence[Sequence[str]]
    confirmed: Sequence[float | None]
    labels: Sequence[Sequence[str]]

    def of(self, expert: int) -> Row:
        """The fields of a row."""
        return {"keywords": JOINER.join(self.texts[expert]), "n_keywords": len(self.texts[expert]), "confirmed": self.confirmed[expert],
                "confirmed_words": JOINER.join(self.labels[expert])}


def keyword_types(counts: RunCounts, token_strings: Sequence[str], split: str) -> tuple[Int, str]:
    """Types that keywords are chosen among, ascending, and what was cut: all that have a string, or the commonest that a table holds.

    A table has at most MOST_TYPES types and MOST_CELLS cells. No types where the trace has none.
    """
    n_types, n = min(counts.run.trace.meta.vocabulary_size, len(token_strings)), occurrences(counts.run, split)
    if n is None or not n_types:
        return np.zeros(0, np.int64), ""
    chosen = commonest(n, min(MOST_TYPES, MOST_CELLS // counts.n_experts), np.arange(n_types))
    said = f"{counts.name}: keywords are chosen among the {len(chosen):,} commonest of {n_types:,} token types, " \
           f"{divide(n[chosen].sum(), n.sum()):.2%} of the tokens"
    return chosen, said if len(chosen) < n_types else ""


def _keywords(counts: RunCounts, token_strings: Sequence[str], split: str) -> tuple[Callable[[int], Words | None], str]:
    """Keywords of a layer, chosen on `split` and judged on test documents (on none where they are the same); None without token types.

    And what was cut, empty if nothing.
    """
    chosen, said = keyword_types(counts, token_strings, split)
    texts = [readable(token_strings[v]) for v in chosen.tolist()]

    def of(layer: int) -> Words | None:
        if not len(chosen):
            return None
        words = expert_keywords(type_table(counts.run, split, layer, chosen), texts, most=KEYWORDS)
        named = [[repr(word.text)[1:-1].strip() or repr(word.text) for word in of_expert] for of_expert in words]
        if split == SPLIT:
            return Words(named, [None] * len(words), [[]] * len(words))
        agreed = held_out_agreement(words, type_table(counts.run, SPLIT, layer, chosen))
        return Words(named, [one.confirmed for one in agreed], [[repr(text)[1:-1].strip() for text in one.label] for one in agreed])

    return of, said


def keywords_of(counts: RunCounts, token_strings: Sequence[str], layer: int, most: int) -> tuple[tuple[Keyword, ...], ...]:
    """Keywords of every expert of one layer, chosen on the test documents and judged on none; empty without token types.

    Of a larger vocabulary than keyword_types takes, its commonest types are looked at.
    """
    chosen, _ = keyword_types(counts, token_strings, SPLIT)
    if not len(chosen):
        return tuple(() for _ in range(counts.n_experts))
    return expert_keywords(type_table(counts.run, SPLIT, layer, chosen), [token_strings[v] for v in chosen.tolist()], most=most)


class _Shown:
    """Tokens with the largest weight on each expert, with the text around them; some documents of one layer at a time."""

    def __init__(self, counts: RunCounts, token_strings: Sequence[str]) -> None:
        self.counts, self.strings = counts, token_strings
        ordered = sorted((document_hash(row.id, counts.settings.salt), row.document) for row in counts.run.trace.documents)
        self.rank = np.zeros(max((number for _, number in ordered), default=-1) + 1, np.int64)
        self.rank[[number for _, number in ordered]] = np.arange(len(ordered))
        self.named = {row.document: (row.id, row.domain) for row in counts.run.trace.documents}

    def rows(self, layer: int) -> list[Row]:
        """Samples of every expert of a layer; none where the trace has no weights or no token types."""
        best: list[list[tuple[Sample, tuple[str, str, str]]]] = [[] for _ in range(self.counts.n_experts)]
        for rows in layer_rows(self.counts.run, SPLIT, layer, weights=True) if len(self.strings) else ():
            if rows.weights is None or rows.types is None:
                return []
            tokens = ChosenTokens(rows.document, rows.position, rows.experts, rows.weights, self.rank)
            for expert, found in enumerate(representative_samples(tokens, self.counts.n_experts, SAMPLES)):
                both = best[expert] + [(one, self._around(rows, one)) for one in found]
                best[expert] = sorted(both, key=lambda one: (-one[0].weight, self.rank[one[0].document], one[0].position))[:SAMPLES]
        out: list[Row] = []
        for expert, samples in enumerate(best):
            for rank, (one, (before, token, after)) in enumerate(samples):
                name, domain = self.named[one.document]
                out.append({**_place(self.counts, layer, expert), "rank": rank, "document": name, "domain": domain, "position": one.position,
                            "weight": one.weight, "before": before, "token": token, "after": after})
        return out

    def _around(self, rows: LayerRows, one: Sample) -> tuple[str, str, str]:
        """Text before a sample, of it, and after it, of its document."""
        assert rows.types is not None
        inside = np.flatnonzero(rows.document == one.document)
        row, first, last = int(inside[np.searchsorted(rows.position[inside], one.position)]), int(inside[0]), int(inside[-1]) + 1
        ends = ((max(row - CONTEXT, first), row), (row, row + 1), (row + 1, min(row + 1 + CONTEXT, last)))
        before, token, after = (self._text(rows.types[start:end].tolist()) for start, end in ends)
        return before, token, after

    def _text(self, types: list[int]) -> str:
        return readable("".join(self.strings[t] if t < len(self.strings) else f"<{t}>" for t in types))


@cache
def _bytes_of() -> dict[str, int]:
    """The byte behind each character of a byte-level vocabulary: printable bytes stand for themselves, the others from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(rest)}


def readable(text: str) -> str:
    """Text of byte-level tokens as it was written (a character cut in two becomes a replacement mark); other text as it is."""
    table = _bytes_of()
    if all(character in table for character in text):
        return bytes(table[character] for character in text).decode("utf-8", "replace")
    return text.replace("\u2581", " ")
