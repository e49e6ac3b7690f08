"""Templates shorter than any text, documents too short to be told apart, and layers that never choose anything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from analysis.audit import Flaw, audit, audit_tables
from analysis.trace import CountsTrace
from tests.analysis.audit.flaws import changed, joined, rows, whole, with_rows
from tests.analysis.audit.worlds import World, clean
from tests.references.memory_trace import MemoryTrace

SHORT = World(documents=150, length=20, topic=0.0, within=0.0, domains=2)


def found(trace: MemoryTrace) -> dict[str, Flaw]:
    """Findings by code."""
    return {one.code: one for one in audit(trace)}


def cut(trace: MemoryTrace, most: int, seed: int = 0) -> MemoryTrace:
    """Documents of 1 to `most` rows."""
    batch = whole(trace)
    length = np.random.default_rng(seed).integers(1, most + 1, len(trace.documents))
    return with_rows(trace, rows(batch, batch.position < length[batch.document]))


def with_templates(trace: MemoryTrace, n: int, share: float = 1.0) -> MemoryTrace:
    """Some documents of each domain begin with the n rows of its first one."""
    batch = whole(trace)
    domain = np.array([row.domain for row in trace.documents])
    chosen = np.random.default_rng(1).random(len(domain)) < share
    starts = np.flatnonzero(np.r_[True, batch.document[1:] != batch.document[:-1]])
    source = {name: int(starts[np.flatnonzero(domain == name)[0]]) for name in set(domain)}
    index = np.arange(len(batch))
    for row in np.flatnonzero((batch.position < n) & chosen[batch.document]):
        index[row] = source[domain[batch.document[row]]] + batch.position[row]
    return with_rows(trace, replace(rows(batch, index), document=batch.document, position=batch.position))


def again(trace: MemoryTrace, chosen: np.ndarray) -> MemoryTrace:
    """The chosen documents a second time, under other numbers."""
    batch, n = whole(trace), len(trace.documents)
    numbers = np.full(n, -1)
    numbers[chosen] = n + np.arange(len(chosen))
    more = rows(batch, numbers[batch.document] >= 0)
    documents = [*trace.documents, *(replace(trace.documents[i], document=n + place, id=f"again {i}") for place, i in enumerate(chosen))]
    return with_rows(trace, joined([batch, replace(more, document=numbers[more.document].astype(np.int32))]), documents)


@pytest.mark.parametrize(("n", "share"), [(3, 1.0), (5, 0.8), (7, 0.5)])
def test_a_template_of_few_rows_withholds_domains_from_a_tenth_of_the_rows_on(n: int, share: float) -> None:
    one = found(with_templates(clean(SHORT), n, share))["shared_prefix"]
    assert one.share >= 0.1 and one.invalidates == ("domains", "intervals")
    assert f"at least {n} equal rows" in one.words


def test_a_few_equal_first_tokens_are_no_template() -> None:
    assert found(with_templates(clean(SHORT), 1)) == {}  # one row in 25
    assert found(with_templates(clean(World(length=120)), 5)) == {}  # one row in 26


@pytest.mark.parametrize("most", [3, 7, 12])
def test_short_documents_by_themselves_are_no_copies_and_have_no_template(most: int) -> None:
    for seed in range(5):
        world = World(documents=150, vocabulary=(100, 400, 1000)[seed % 3], layers=1, topic=0.2 * seed)
        codes = set(found(cut(clean(world, 50 + seed), most, seed)))
        assert not codes & {"counted_twice", "shared_prefix", "dependent_documents", "repeated_rows"}, (most, seed, codes)


@pytest.mark.parametrize("most", [1, 3, 7])
def test_a_whole_pass_over_short_documents_that_is_counted_twice(most: int) -> None:
    trace = cut(clean(SHORT), most)
    one = found(again(trace, np.arange(150)))["counted_twice"]
    assert one.invalidates == ("intervals",) and one.count >= 150 and one.of == 300 and "whole pass" in one.words


def test_part_of_a_pass_over_short_documents_that_is_counted_twice() -> None:
    batch = whole(clean(SHORT))
    trace = with_rows(clean(SHORT), rows(batch, batch.position < 6))
    one = found(again(trace, np.arange(0, 150, 6)))["counted_twice"]
    assert (one.count, one.of) == (25, 175) and one.invalidates == ("intervals",)


def test_special_tokens_of_short_documents_withhold_what_rests_on_loads() -> None:
    for length, spoils in ((6, True), (40, False)):
        trace = clean(World(documents=80, length=60))
        batch = whole(trace)
        begun = replace(batch, token_id=np.where(batch.position == 0, trace.meta.vocabulary_size, batch.types).astype(np.int32))
        one = found(with_rows(trace, rows(begun, batch.position < length)))["special_tokens"]
        assert (one.share >= 0.1) == spoils and ("domains" in one.invalidates) == spoils
        assert one.severity == ("invalidating" if spoils else "warning")


@pytest.mark.parametrize("experts", [(5, 9), (15, 0)])
def test_a_layer_that_always_chooses_the_same_experts_whichever_they_are(experts: tuple[int, int]) -> None:
    trace = clean(World())
    batch = whole(trace)
    ids = [one.copy() for one in batch.ids]
    ids[1][np.random.default_rng(0).random(len(batch)) < 0.995] = experts
    one = found(with_rows(trace, changed(batch, ids=ids)))["dense_layers"]
    assert one.where == (trace.meta.layers[1].key,)
    assert audit_tables(of_counts(trace, ids)) != () == audit_tables(of_counts(trace, batch.ids))


def of_counts(trace: MemoryTrace, ids: Sequence[np.ndarray]) -> CountsTrace:
    """Selections of all documents together."""
    counts = tuple(np.bincount(one.ravel(), minlength=layer.n_experts)[None] for one, layer in zip(ids, trace.meta.layers))
    return CountsTrace(trace.meta, ("all",), counts, None, {}, True, None, None)
