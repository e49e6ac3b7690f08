"""Findings about token types and the ends of documents: padding, special tokens, a type that dominates, first tokens that act as sinks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.audit.flaw import Flaw, flaw
from analysis.audit.observed import Observed
from analysis.kernels import Float, Int

LEAST_RUN = 8  # equal types at the end of a document that are no text
EDGE_ONLY = 0.95  # share of a type's occurrences at the ends of documents that no word has
FEWEST_DOCUMENTS = 10  # that a type ends or begins before it is taken for padding or a special token
PADDING_SHARE = 0.002  # of rows
DOMINATES = 0.3  # share of rows of one type
SINK_EXCESS = 0.7  # share of first rows on one expert, beyond what their types show elsewhere
SINK_DOCUMENTS = 20
SINK_OCCURRENCES = 50  # of a first row's type elsewhere, below which the layer's loads stand for it


def padding(seen: Observed) -> Flaw | None:
    """Types that are nearly only at the ends of documents, several in a row; without types, long runs of one routing decision there."""
    documents = seen.documents
    inner = documents.rows > np.maximum(documents.tail.length, documents.head.length)
    found: dict[int, int] = {}
    if seen.layers.types is None:
        tails = documents.tail.length * (inner & (documents.tail.length >= LEAST_RUN))
        if tails.sum():
            found[-1] = int(tails.sum())
    else:
        for type_ in _edge_types(seen, inner):
            lengths = np.concatenate([edge.length[inner & (edge.value == type_)] for edge in (documents.head, documents.tail)])
            if lengths.mean() > 1.5:
                found[type_] = int(lengths.sum())
        long = inner & (documents.tail.length >= LEAST_RUN)
        for type_ in np.unique(documents.tail.value[long]).tolist():
            found.setdefault(type_, int(documents.tail.length[long & (documents.tail.value == type_)].sum()))
    total, n = sum(found.values()), seen.n_rows
    if not total or total < PADDING_SHARE * n:
        return None
    names = [f"token type {one}" for one in sorted(found, key=lambda one: -found[one]) if one >= 0]
    return flaw("padding", total, n, "rows", f"{total:,} rows at the ends of documents repeat one "
                f"{'token type' if names else 'routing decision'}", names)


def special_tokens(seen: Observed) -> Flaw | None:
    """Rows of ids that the meta calls special, and types that are found only as the first or last token of documents."""
    if seen.layers.types is None:
        return None
    counts, documents = seen.layers.types, seen.documents
    declared = seen.meta.details.get("special_tokens")
    ids = declared.get("without_rows", ()) if isinstance(declared, dict) else ()
    found = {int(one): int(counts[one]) for one in ids if 0 <= one < len(counts) and counts[one]}
    inner = documents.rows > np.maximum(documents.tail.length, documents.head.length)
    for type_ in _edge_types(seen, inner):
        lengths = np.concatenate([edge.length[inner & (edge.value == type_)] for edge in (documents.head, documents.tail)])
        if lengths.mean() <= 1.5:
            found[type_] = int(counts[type_])
    if not found:
        return None
    total = sum(found.values())
    return flaw("special_tokens", total, seen.n_rows, "rows", f"{len(found)} token types are declared special, or occur only where documents "
                "begin or end", [f"token type {one}" for one in sorted(found)])


def _edge_types(seen: Observed, inner: NDArray[np.bool_]) -> list[int]:
    """Token types of which nearly all occurrences begin or end a document, in at least FEWEST_DOCUMENTS."""
    counts, documents = seen.layers.types, seen.documents
    assert counts is not None
    values = np.concatenate([documents.head.value[inner], documents.tail.value[inner]])
    lengths = np.concatenate([documents.head.length[inner], documents.tail.length[inner]])
    at_edges = np.bincount(np.maximum(values, 0), lengths, minlength=len(counts))[:len(counts)]
    ended = np.bincount(np.maximum(values, 0), minlength=len(counts))[:len(counts)]
    found = (at_edges >= EDGE_ONLY * counts) & (ended >= max(FEWEST_DOCUMENTS, 0.05 * inner.sum())) & (counts > 0)
    return [int(one) for one in np.flatnonzero(found)]


def one_type_dominates(seen: Observed) -> Flaw | None:
    """A token type with at least DOMINATES of the rows."""
    counts = seen.layers.types
    if counts is None or not counts.sum():
        return None
    most = int(np.argmax(counts))
    if counts[most] < DOMINATES * counts.sum():
        return None
    return flaw("one_type_dominates", int(counts[most]), int(counts.sum()), "rows", f"token type {most} has {counts[most] / counts.sum():.0%} of "
                "the rows", [f"token type {most}"])


def first_token_sinks(seen: Observed) -> Flaw | None:
    """Layers where nearly all first tokens choose one expert that their types, elsewhere, do not choose."""
    layers, n = seen.layers, seen.layers.first_rows
    if n < SINK_DOCUMENTS:
        return None
    found, largest = [], 0.0
    for tally in layers.layers:
        if tally.layer.n_experts <= tally.layer.top_k:
            continue
        elsewhere = tally.first - tally.starting
        expected = _expected(tally.tracked, layers.first_of_tracked, n, elsewhere)
        share = tally.starting / max(int(tally.starting.sum()), 1)
        excess = float((share - expected).max(initial=0.0))
        if excess >= SINK_EXCESS:
            found.append(tally.layer.key)
            largest = max(largest, float(share.max()))
    if not found:
        return None
    return flaw("first_token_sinks", len(found), len(layers.layers), "layers", f"up to {largest:.0%} of {n:,} first tokens choose one expert that "
                f"other tokens rarely choose; they are {n / seen.n_rows:.1%} of the rows", found)


def _expected(tracked: Int, first_of: Int, n_first: int, elsewhere: Int) -> Float:
    """Shares of experts that the types of first tokens have elsewhere; the layer's own shares for types that are not followed."""
    usual = elsewhere / max(int(elsewhere.sum()), 1)
    total = tracked.sum(axis=1)
    known = total >= SINK_OCCURRENCES
    weight = np.where(known, first_of, 0) / n_first
    own = tracked / np.maximum(total, 1)[:, None]
    return np.asarray(weight @ own + (1 - weight.sum()) * usual, np.float64)
