"""Plain Parquet, JSON lines or npz whose columns a TOML file explains: a row for each token, each token and layer, or each choice.

T token, K slot in the top-k, L MoE layer, n row of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.trace import TraceBatch, TraceMeta
from experiments.readers._mapping import TableMapping, load
from experiments.readers._plain_tables import Table
from experiments.readers._plain_tables import load as load_table
from experiments.readers._rows import DocumentTrace, Places, added, by_weight, check_ids, check_weights, document_rows, layer_table, numbered
from experiments.readers.contract import UNKNOWN, ReadError, ReadOptions, Remark

NAME, KIND = "mapped", "rows"
SCORE_ORDER = "falling score"
Int = NDArray[np.int64]


@dataclass(frozen=True)
class Dense:
    """Rows in order of document and position. ids: [T, L, K]; weights the same or None; depths: block indices; first_position [D]."""

    names: tuple[str, ...]
    domains: tuple[str, ...]
    lengths: Int
    position: Int
    token_id: Int | None
    ids: Int
    weights: NDArray[np.float64] | None
    depths: tuple[int, ...]


def recognises(path: Path) -> bool:
    """Never: a plain table does not say what its columns mean, so that it is read only where a mapping is given."""
    del path
    return False


def read(path: Path, options: ReadOptions) -> DocumentTrace:
    """The table of `path` under the mapping of `options`; options go before what the mapping says.

    Slots are put by falling weight where there are weights, else they stay as they are. Every token must have all layers, and k choices in
    each; a (document, position, layer, slot) given twice is refused. Raises ReadError.
    """
    if options.mapping is None:
        raise ReadError(f"{path}: a plain table; say what its columns mean with --mapping FILE.toml")
    mapping = _with(load(options.mapping), options)
    return trace_of(path, mapping, load_table(path, mapping), options.domain)


def trace_of(path: Path, mapping: TableMapping, table: Table, domain: str | None = None) -> DocumentTrace:
    """The rows of a table as documents; `domain` goes before what the table says. Raises ReadError."""
    if mapping.slot_order not in (None, SCORE_ORDER):
        raise ReadError(f"{mapping.path}: slot_order: {mapping.slot_order!r}, expected {SCORE_ORDER!r}; leave it out where the order is another, or "
                        "not known")
    dense = _dense(path, mapping, table)
    top_k = dense.ids.shape[2]
    for name, asked, found in (("top_k", mapping.top_k, top_k), ("layers", mapping.layers, dense.depths)):
        if asked not in (None, found):
            raise ReadError(f"{path}: {name} {found} in the table, but {asked} in {mapping.path} or the options; correct the one that is wrong")
    if mapping.n_experts is None:
        raise ReadError(f"{path}: the largest id is {int(dense.ids.max())}, which does not tell how many experts there are; give n_experts in "
                        f"{mapping.path}, or --n-experts")
    _check(path, dense, mapping.n_experts)
    largest = 0 if dense.token_id is None else int(dense.token_id.max()) + 1
    if mapping.vocabulary_size is not None and largest > mapping.vocabulary_size:
        raise ReadError(f"{path}: column {mapping.columns['token_id']!r}: token id {largest - 1}, but the vocabulary has {mapping.vocabulary_size} "
                        f"types; correct vocabulary_size in {mapping.path}")
    absent = [name for name, column in (("token_id", dense.token_id), ("weights", dense.weights)) if column is None]
    meta = TraceMeta(mapping.model or UNKNOWN, UNKNOWN, layer_table(dense.depths, mapping.n_experts, top_k, "layers.{}.router"), "softmax", "absent",
                     (mapping.weights_mean or "as recorded") if dense.weights is not None else "absent", "absent",
                     0 if dense.token_id is None else mapping.vocabulary_size or largest, "assay-mapped 1",
                     details={"mapping": mapping.path.name, "form": mapping.form, "absent": [*absent, "entropy_nats"],
                              **({"slot_order": SCORE_ORDER} if mapping.slot_order else {})})
    noted = () if "position" in mapping.columns else (Remark("positions_counted", "the table has no positions; rows of a document were counted "
                                                             "in the order of the file", len(dense.ids)),)
    other = mapping.domain or path.stem
    return DocumentTrace(meta, document_rows(dense.names, [domain or one or other for one in dense.domains]), dense.lengths,
                         lambda first, last: _rows(dense, first, last, mapping.n_experts or 0), noted)


def _with(mapping: TableMapping, options: ReadOptions) -> TableMapping:
    given = {name: getattr(options, name) for name in ("model", "n_experts", "top_k", "layers", "domain") if getattr(options, name) is not None}
    return replace(mapping, **given)


def _dense(path: Path, mapping: TableMapping, table: Table) -> Dense:
    """Tokens in order, whatever a row of the table is."""
    known: dict[str, int] = {}  # documents in the order in which they appear
    document = np.array([known.setdefault(one, len(known)) for one in table.document.tolist()], np.int64)
    names = list(known)
    domains = _domains(path, mapping, table, document, names)
    position = _counted(document) if table.position is None else table.position
    bad = np.flatnonzero((position < 0) | (position >= 2**31))
    if len(bad):
        raise ReadError(f"{path}: row {int(bad[0])}, column {mapping.columns['position']!r}: {int(position[bad[0]])}; positions count from 0")
    if mapping.form == "token":
        return _of_tokens(path, names, domains, table, document, position)
    return _of_parts(path, mapping, names, domains, table, document, position)


def _domains(path: Path, mapping: TableMapping, table: Table, document: Int, names: list[str]) -> tuple[str, ...]:
    if table.domain is None:
        return ("",) * len(names)
    found: list[str] = [""] * len(names)
    for row, (one, domain) in enumerate(zip(document.tolist(), table.domain.tolist())):
        if found[one] and found[one] != domain:
            raise ReadError(f"{path}: row {row}, column {mapping.columns['domain']!r}: document {names[one]!r} is of {found[one]!r} and of "
                            f"{domain!r}; a document has one domain")
        found[one] = domain
    return tuple(found)


def _counted(document: Int) -> Int:
    """Running number of each row within its document."""
    order = np.argsort(document, kind="stable")
    counts = np.bincount(document)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    found = np.empty(len(document), np.int64)
    found[order] = np.arange(len(document)) - starts
    return found


def _of_tokens(path: Path, names: list[str], domains: tuple[str, ...], table: Table, document: Int, position: Int) -> Dense:
    order = np.lexsort((position, document))
    document, position = document[order], position[order]
    twice = np.flatnonzero((document[1:] == document[:-1]) & (position[1:] == position[:-1]))
    if len(twice):
        row = int(twice[0])
        raise ReadError(f"{path}: row {int(order[row + 1])}: document {names[document[row]]!r} has position {int(position[row])} twice; "
                        "a token is counted once")
    tokens = None if table.token_id is None else table.token_id[order]
    return Dense(tuple(names), domains, np.bincount(document, minlength=len(names)).astype(np.int64), position, tokens, table.ids[order],
                 None if table.weights is None else table.weights[order], table.depths or ())


def _of_parts(path: Path, mapping: TableMapping, names: list[str], domains: tuple[str, ...], table: Table, document: Int, position: Int) -> Dense:
    """A row per token and layer, or per choice: put together by key, every part needed and none twice."""
    layer = table.layer if table.layer is not None else np.zeros(len(document), np.int64)
    slot = table.slot if table.slot is not None else np.zeros(len(document), np.int64)
    order = np.lexsort((slot, layer, position, document))  # stable: choices without a slot stay in the order of the file
    document, position, layer, slot = (column[order] for column in (document, position, layer, slot))
    new_token = np.concatenate([[True], (document[1:] != document[:-1]) | (position[1:] != position[:-1])])
    new_layer = new_token | np.concatenate([[True], layer[1:] != layer[:-1]])
    if mapping.form == "layer" or table.slot is not None:
        twice = np.flatnonzero(~new_layer[1:] & (slot[1:] == slot[:-1]))
        if len(twice):
            row = int(twice[0])
            raise ReadError(f"{path}: row {int(order[row + 1])}: document {names[document[row]]!r}, position {int(position[row])}, layer "
                            f"{int(layer[row])}: given twice; a choice is counted once")
    depths = np.unique(layer)
    groups, starts = len(depths), np.flatnonzero(new_layer)
    sizes = np.diff(starts, append=len(layer))
    tokens = np.flatnonzero(new_token)
    per_token = np.add.reduceat(new_layer.astype(np.int64), tokens)
    for wrong, words in ((per_token != groups, f"layers recorded, expected all {groups} of {depths.tolist()[:8]}"),
                         (np.add.reduceat((sizes != sizes[0]).astype(np.int64), np.cumsum(per_token) - per_token) > 0,
                          f"of its layers have another number of choices than {int(sizes[0])}")):
        if wrong.any():
            one = int(np.flatnonzero(wrong)[0])
            row = tokens[one]
            n = int(per_token[one]) if "recorded" in words else "some"
            raise ReadError(f"{path}: document {names[document[row]]!r}, position {int(position[row])}: {n} {words}; was the file cut? export "
                            "it again")
    shape = (len(tokens), groups, table.ids.shape[1] if mapping.form == "layer" else int(sizes[0]))
    token_id = None if table.token_id is None else _one_token_id(path, table.token_id[order], tokens, names, document, position)
    return Dense(tuple(names), domains, np.bincount(document[tokens], minlength=len(names)).astype(np.int64), position[tokens], token_id,
                 table.ids[order].reshape(shape), None if table.weights is None else table.weights[order].reshape(shape), tuple(depths.tolist()))


def _one_token_id(path: Path, token_id: Int, tokens: NDArray[np.intp], names: list[str], document: Int, position: Int) -> Int:
    spread = np.repeat(token_id[tokens], np.diff(tokens, append=len(token_id)))
    bad = np.flatnonzero(spread != token_id)
    if len(bad):
        row = int(bad[0])
        raise ReadError(f"{path}: document {names[document[row]]!r}, position {int(position[row])}: token ids {int(spread[row])} and "
                        f"{int(token_id[row])}; a token has one")
    return token_id[tokens]


def _check(path: Path, dense: Dense, n_experts: int) -> None:
    places = Places(path, dense.names, dense.lengths)
    for index, depth in enumerate(dense.depths):
        check_ids(dense.ids[:, index], n_experts, places.at("ids", depth))
        if dense.weights is not None:
            check_weights(dense.weights[:, index], places.at("weights", depth))
    if dense.token_id is not None:
        bad = np.flatnonzero((dense.token_id < 0) | (dense.token_id >= 2**31))
        if len(bad):
            raise ReadError(f"{places.at('token_id', '-')(int(bad[0]))}: {int(dense.token_id[bad[0]])} is no token id")


def _rows(dense: Dense, first: int, last: int, n_experts: int) -> tuple[TraceBatch, Mapping[str, int]]:
    starts = np.concatenate([[0], np.cumsum(dense.lengths)])
    rows = slice(int(starts[first]), int(starts[last]))
    document, _ = numbered(dense.lengths, first, last)
    dtype = np.uint8 if n_experts <= 256 else np.uint16
    ids, weights, met = [], [], dict[str, int]()
    for index in range(len(dense.depths)):
        one = dense.ids[rows, index]
        if dense.weights is not None:
            one, weight, found = by_weight(one, dense.weights[rows, index])
            weights.append(weight.astype(np.float16))
            met = added(met, found)
        ids.append(one.astype(dtype))
    tokens = None if dense.token_id is None else dense.token_id[rows].astype(np.int32)
    return TraceBatch(document, dense.position[rows].astype(np.int32), tokens, tuple(ids), tuple(weights) or None), met
