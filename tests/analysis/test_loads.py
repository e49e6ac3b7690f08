from dataclasses import replace

import numpy as np
import pytest

from analysis import loads as module
from analysis.estimation import jackknife
from analysis.loads import document_loads, type_loads
from analysis.planes import Deal
from analysis.trace import TraceError
from tests.references.slow_tables import LAYERS, reordered, slow_order, slow_rows, uneven_trace

TRACE = uneven_trace()
BACKENDS = ("numpy", "numba")
NEVER = replace(TRACE, shards=[replace(shard, dropped=None) for shard in TRACE.shards])


def slow_loads(trace, layer, kind):
    """Counts by document number."""
    out = {}
    for number, (rows,) in slow_rows(trace, "test").items():
        counts = np.zeros(LAYERS[layer][0], np.int64)
        for t in range(len(rows)):
            for slot, expert in enumerate(rows.ids[layer][t].tolist()):
                lost = rows.dropped is not None and rows.dropped[layer] is not None and int(rows.dropped[layer][t]) >> slot & 1
                counts[expert] += (kind == "selected") or (kind == "first" and slot == 0) or (kind == "executed" and not lost)
        out[number] = counts
    return out


def unit_order(trace, salt):
    """Documents by domain, inside it by hash."""
    return sorted(slow_order(trace, "test", salt), key=lambda d: d.domain)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["selected", "first", "executed"])
def test_loads_are_those_of_plain_loops(backend, kind):
    loads, order = document_loads(TRACE, "test", salt="5", backend=backend), unit_order(TRACE, "5")
    for layer in range(len(LAYERS)):
        slow = slow_loads(TRACE, layer, kind)
        assert loads.table(layer, kind).dtype == np.int64
        assert np.array_equal(loads.table(layer, kind), [slow[d.document] for d in order])
    assert loads.domains == ("domain0", "domain1", "domain2") and [loads.domains[h] for h in loads.domain] == [d.domain for d in order]
    lengths = {number: len(rows) for number, (rows,) in slow_rows(TRACE, "test").items()}
    assert loads.tokens.tolist() == [lengths[d.document] for d in order]
    assert not loads.folded and (loads.n_documents == 1).all()


def test_the_drop_rate_is_the_share_of_slots_lost():
    bits = np.concatenate([rows.dropped[0] for (rows,) in slow_rows(TRACE, "test").values()])
    loads = document_loads(TRACE, "test")
    assert loads.drop_rate[0] == pytest.approx(np.bitwise_count(bits).mean() / 2) and loads.drop_rate[1:] == (0.0,) * 4


def test_without_a_record_of_drops_nothing_is_executed():
    loads = document_loads(NEVER, "test", layers=(2, 0))
    assert loads.executed is None and loads.drop_rate == (None, None) and loads.table(1).shape[1] == 8
    with pytest.raises(TraceError, match="column dropped: absent; executed loads"):
        loads.table(0, "executed")


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_depends_on_the_order_of_documents_shards_or_backend(backend):
    a = document_loads(TRACE, "test", salt="1", max_units=9)
    for seed, size in ((0, 1), (1, 29)):
        b = document_loads(reordered(TRACE, seed, size), "test", salt="1", max_units=9, backend=backend)
        for name in ("selected", "first", "executed"):
            assert all(np.array_equal(x, y) for x, y in zip(getattr(a, name), getattr(b, name)))
        assert all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("tokens", "domain", "rank", "n_documents"))


def test_many_documents_are_folded_inside_their_domains(monkeypatch):
    monkeypatch.setattr(module, "FOLD", 2)
    trace = uneven_trace(1, n_documents=60, longest=5)
    whole, folded = document_loads(trace, "test"), document_loads(trace, "test", max_units=14)
    assert folded.folded and len(folded.tokens) == 12 and folded.n_documents.sum() == len(whole.tokens)
    for layer in range(len(LAYERS)):
        assert np.array_equal(folded.by_domain(layer), whole.by_domain(layer))
    assert np.array_equal(folded.documents_H, whole.documents_H) and np.ptp(folded.n_documents) <= 1
    for groups in (2, 4):
        a, b = whole.domain_groups(2, max_groups=groups), folded.domain_groups(2, max_groups=groups)
        assert np.array_equal(a.tables[0], b.tables[0]) and np.array_equal(a.stratum, b.stratum) and a.n_documents == b.n_documents
    assert np.array_equal(folded.groups(1, max_groups=6).tables[0].sum(axis=0), whole.groups(1).tables[0].sum(axis=0))


@pytest.mark.parametrize("max_groups", [1, 3, 100])
def test_groups_are_dealt_as_the_deal_says(max_groups):
    loads, slow = document_loads(TRACE, "test", salt="2"), slow_loads(TRACE, 0, "first")
    order = slow_order(TRACE, "test", "2")
    expected = np.zeros((min(max_groups, len(order)), 8), np.int64)
    for rank, row in enumerate(order):
        expected[rank % len(expected)] += slow[row.document]
    groups = loads.groups(0, "first", max_groups)
    assert np.array_equal(groups.tables[0], expected) and groups.n_documents == len(order)


@pytest.mark.parametrize("max_groups", [2, 3, 50])
def test_domain_groups_hold_one_domain_each(max_groups):
    loads, slow = document_loads(TRACE, "test", salt="2"), slow_loads(TRACE, 2, "selected")
    deal = Deal.of(TRACE.documents, "test", "2", max_groups, by_domain=True)
    expected = np.zeros((deal.n_groups, 3, 300), np.int64)
    for row, group in zip(deal.documents, deal.group):
        expected[group, int(row.domain[-1])] += slow[row.document]
    groups = loads.domain_groups(2, max_groups=max_groups)
    assert np.array_equal(groups.tables[0], expected) and np.array_equal(groups.stratum, deal.stratum)
    interval = jackknife(groups, lambda table: table.sum(axis=-1) / table.sum(axis=(-1, -2))[..., None])
    assert interval.plug_in.sum() == pytest.approx(1.0) and (interval.se >= 0).all()


def test_a_table_of_too_many_cells_is_refused(monkeypatch):
    monkeypatch.setattr(module, "GROUP_CELLS", 100)
    with pytest.raises(ValueError, match="too many cells; pass a smaller max_groups"):
        document_loads(TRACE, "test").domain_groups(0)


def test_a_split_without_documents_has_empty_loads():
    loads = document_loads(TRACE, "calibration")
    assert loads.domains == () and loads.table(0).shape == (0, 8) and loads.tokens.shape == (0,) and loads.drop_rate[1] is None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("first_only", [False, True])
def test_choices_of_token_types_are_those_of_plain_loops(backend, first_only, monkeypatch):
    types = [7, 0, 39, 12]
    group_of = {d.document: i % 4 for i, d in enumerate(slow_order(TRACE, "test", "8"))}
    n, expected = np.zeros((4, 4), np.int64), [np.zeros((4, n, 4), np.int64) for n, _ in LAYERS]
    for number, (rows,) in slow_rows(TRACE, "test").items():
        for t in range(len(rows)):
            if int(rows.token_id[t]) in types:
                v, g = types.index(int(rows.token_id[t])), group_of[number]
                n[g, v] += 1
                for layer, ids in enumerate(rows.ids):
                    for expert in ids[t, : 1 if first_only else None].tolist():
                        expected[layer][g, expert, v] += 1
    for rows_at_once in (2**20, 30):
        monkeypatch.setattr(module, "TYPE_ROWS", rows_at_once)
        found = type_loads(TRACE, "test", types, salt="8", max_groups=4, first_only=first_only, backend=backend)
        assert np.array_equal(found.n, n)
        assert all(np.array_equal(found.groups(layer).tables[0], table) for layer, table in enumerate(expected))


def test_types_that_cannot_be_counted_are_refused():
    with pytest.raises(ValueError, match="40 but the vocabulary has 40 types"):
        type_loads(TRACE, "test", [1, 40])
    with pytest.raises(ValueError, match="some twice"):
        type_loads(TRACE, "test", [1, 1])
    with pytest.raises(TraceError, match="token_id: absent"):
        type_loads(replace(TRACE, shards=[replace(shard, token_id=None) for shard in TRACE.shards]), "test", [1])
    assert type_loads(TRACE, "test", []).counts[0].shape[2] == 0
