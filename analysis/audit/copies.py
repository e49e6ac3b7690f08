"""Findings about documents that are not independent: copies, repeated blocks, shared beginnings, too few of them.

D document, P length of a beginning.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.audit.flaw import ALIKE_ROWS, Flaw, flaw
from analysis.audit.hashing import WINDOW
from analysis.audit.observed import Observed
from analysis.audit.of_documents import PREFIXES, SHORT_PREFIXES, DocumentTally
from analysis.gates import DOCUMENT_FLOOR
from analysis.kernels import Int

LEAST_ROWS = 8  # of a document that can be told from another by itself
BEYOND_CHANCE = 3.0  # times the copies among shorter documents that chance gives, and
FEWEST_COPIES = 10  # at least, before they are copies
FEWEST_EVEN = 20  # different short documents that all occur twice, or three times, before that is no chance (2**-20)
REPEATED_SHARE = 0.005  # of blocks that are found again
LONG_BEGINNING = 16  # rows, at least, and half of the document: then it is no document of its own
DEPENDENT_SHARE = 0.005  # of documents
ALIKE_DOCUMENTS = 0.5  # share of documents with a beginning that another document has
SAME_BEGINNING, FEWEST_SAME = 0.1, 5  # share and number of a domain's documents with one beginning shorter than 8 rows: two have it by chance


def copies(documents: DocumentTally) -> NDArray[np.bool_]:
    """Documents whose content an earlier one has [D]; those below LEAST_ROWS rows where copies are many more than chance gives."""
    out = np.zeros(len(documents.rows), bool)
    told = np.flatnonzero((documents.rows >= LEAST_ROWS) | _told_together(documents))
    keys = np.column_stack([documents.content[told], documents.rows[told].astype(np.uint64)])
    if len(told):
        order = np.argsort(documents.arrival[told], kind="stable")
        _, first = np.unique(keys[order], axis=0, return_index=True)
        out[told] = True
        out[told[order[first]]] = False
    return out


def _told_together(documents: DocumentTally) -> NDArray[np.bool_]:
    """Documents [D] of a number of rows below LEAST_ROWS at which equal documents are no chance.

    Chance: n rows agree as often as n first rows would one by one. All are told where every content occurs twice, or three times.
    """
    out = np.zeros(len(documents.rows), bool)
    short = np.flatnonzero((documents.rows > 0) & (documents.rows < LEAST_ROWS))
    _, first = np.unique(documents.short_prefix[short, 0], return_counts=True)
    _, counts = np.unique(np.column_stack([documents.content[short], documents.rows[short].astype(np.uint64)]), axis=0, return_counts=True)
    if len(counts) >= FEWEST_EVEN and np.gcd.reduce(counts) > 1:
        out[short] = True
        return out
    alike = float((first * (first - 1)).sum()) / max(len(short) * (len(short) - 1), 1)
    for n in np.unique(documents.rows[short]).tolist():
        inside = short[documents.rows[short] == n]
        _, counts = np.unique(documents.content[inside], return_counts=True)
        by_chance = alike**n * len(inside) * (len(inside) - 1) / 2
        out[inside] = len(inside) - len(counts) >= FEWEST_COPIES + BEYOND_CHANCE * by_chance
    return out


def beginnings(documents: DocumentTally) -> Int:
    """Rows that each document has in common with the beginning of another [D], down to a length of PREFIXES; copies have none."""
    shared, single = np.zeros(len(documents.rows), np.int64), ~copies(documents)
    for place, length in enumerate(PREFIXES):
        long = np.flatnonzero(single & (documents.rows >= length))
        if len(long) < 2:
            break
        _, number, count = np.unique(documents.prefix[long, place], return_inverse=True, return_counts=True)
        shared[long[count[number.reshape(-1)] > 1]] = length
    return shared


def short_beginnings(seen: Observed) -> Int:
    """Rows, 2 to 7, that each document has in common with many others of its domain [D], and is longer than; copies have none.

    One row is a common first word, or a special token, which is another finding.
    """
    documents = seen.documents
    shared, single = np.zeros(len(documents.rows), np.int64), ~copies(documents)
    for number in range(len(seen.domains)):
        own = np.flatnonzero((seen.domain == number) & single)
        least = max(FEWEST_SAME, SAME_BEGINNING * len(own))
        for place, length in enumerate(SHORT_PREFIXES[1:], 1):
            long = own[documents.rows[own] > length]
            _, group, count = np.unique(documents.short_prefix[long, place], return_inverse=True, return_counts=True)
            shared[long[count[group.reshape(-1)] >= least]] = length
    return shared


def names(seen: Observed, chosen: Int) -> list[str]:
    """Ids of documents by their places."""
    return [seen.documents.documents[one].id for one in chosen]


def counted_twice(seen: Observed) -> Flaw | None:
    """Documents whose content (token types, or choices where there are none) another document has."""
    again = copies(seen.documents)
    if not again.any():
        return None
    rows, n = int(seen.documents.rows[again].sum()), len(again)
    half = "; as many as a whole pass over the documents" if again.sum() * 2 >= n - 1 else ""
    return flaw("counted_twice", int(again.sum()), n, "documents", f"{int(again.sum()):,} of {n:,} documents, {rows:,} rows, are copies of "
                f"others{half}", names(seen, np.flatnonzero(again)))


def repeated_rows(seen: Observed) -> Flaw | None:
    """Blocks of WINDOW rows, types and choices of all layers, that are found again elsewhere."""
    number, document, ordinal = seen.documents.blocks.every()
    own = ~copies(seen.documents)[document]
    number, document, ordinal = number[own], document[own], ordinal[own]
    if not len(number):
        return None
    order = np.lexsort((ordinal, document, number))
    number, document, ordinal = number[order], document[order], ordinal[order]
    begins = np.r_[False, ordinal[1:] == ordinal[:-1]] & (beginnings(seen.documents)[document] > 0)  # their documents begin alike: another finding
    again = np.r_[False, number[1:] == number[:-1]] & ~begins
    share = float(again.mean())
    if share < REPEATED_SHARE:
        return None
    count = int(round(share * seen.n_rows))
    return flaw("repeated_rows", count, seen.n_rows, "rows", f"{share:.1%} of blocks of {WINDOW} rows are found a second time",
                names(seen, np.unique(document[again])))


def dependent_documents(seen: Observed) -> Flaw | None:
    """Documents of which at least half is the beginning of another one: a cluster is one observation."""
    documents = seen.documents
    shared = beginnings(documents)
    single = ~copies(documents)
    alike = (shared >= LONG_BEGINNING) & (2 * shared >= documents.rows)
    surplus, clusters, n = 0, 0, len(alike)
    for place, length in enumerate(PREFIXES):
        inside = alike & (shared == length)
        for key in np.unique(documents.prefix[inside, place]):
            same = single & (documents.rows >= length) & (documents.prefix[:, place] == key)
            surplus += min(int((same & inside).sum()), int(same.sum()) - 1)
            clusters += 1
    if surplus < 1 or surplus < DEPENDENT_SHARE * n:
        return None
    independent = n - int((~single).sum()) - surplus
    return flaw("dependent_documents", surplus, n, "documents", f"{int(alike.sum()):,} documents have at least half of their rows in common with the "
                f"beginning of others, in {clusters:,} clusters: {independent:,} of {n:,} are independent", names(seen, np.flatnonzero(alike)))


def shared_prefix(seen: Observed) -> Flaw | None:
    """A beginning that documents of a domain share, such as a chat template; counted in the domain of the largest share.

    Of 8 rows and more where most documents have one, and of 2 and more where it is a tenth of the rows.
    """
    documents = seen.documents
    told, long = documents.rows >= PREFIXES[0], beginnings(documents)
    shared = np.maximum(long, short_beginnings(seen))
    found: list[tuple[float, int, int, str]] = []  # share, rows in shared beginnings, rows, domain
    for number, name in enumerate(seen.domains):
        own = seen.domain == number
        rows, of, n = int(shared[own].sum()), int(documents.rows[own].sum()), int((long[own] > 0).sum())
        if own.sum() >= 2 and (n >= max(1, ALIKE_DOCUMENTS * told[own].sum()) or (rows and rows >= ALIKE_ROWS * of)):
            found.append((rows / of, rows, of, name))
    if not found:
        return None
    (_, rows, of, name), n = max(found), int((shared > 0).sum())
    return flaw("shared_prefix", rows, of, "rows" if len(seen.domains) == 1 else f"rows of {name}", f"{n:,} of {len(told):,} documents begin like "
                f"another one, with at least {int(np.median(shared[shared > 0]))} equal rows (median)", [f"{name} ({share:.1%})" for share, _, _, name
                in sorted(found, reverse=True)] if len(seen.domains) > 1 else ())


def documents_not_texts(seen: Observed) -> Flaw | None:
    """Documents that are passes, batches or blocks, as the source says (the meta's `documents_are`)."""
    said = seen.meta.details.get("documents_are")
    if not said or not len(seen.documents.rows):
        return None
    return flaw("documents_not_texts", len(seen.documents.rows), len(seen.documents.rows), "documents", str(said))


def few_documents(seen: Observed) -> Flaw | None:
    """Fewer documents than the floor at which an interval means something, copies left out."""
    n = len(seen.documents.rows) - int(copies(seen.documents).sum())
    if n >= DOCUMENT_FLOOR:
        return None
    return flaw("few_documents", n, DOCUMENT_FLOOR, "documents", f"{n} documents, {DOCUMENT_FLOOR} are the floor of an interval")
