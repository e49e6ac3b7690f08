"""`assay export`: the counts of a trace in the forms that placement and caching tools read, and as tables.

D document or domain, L MoE layer, E expert.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.trace import SPLITS, CountsTrace, RoutingTrace, TraceError, TraceMeta

FORMS = {"eplb": ".npy", "moe-infinity": ".npy", "csv": ".csv", "parquet": ".parquet"}  # form -> ending of its file
ORIGIN = ".origin.json"
DOCUMENTS_LIMIT = 1_000_000


@dataclass(frozen=True)
class Tally:
    """Selections of units (documents or domains). counts, first: L arrays int64 [D, E]; tokens: int64 [D] or None; ids, domains: of the units."""

    meta: TraceMeta
    unit: str
    ids: tuple[str, ...]
    domains: tuple[str, ...]
    counts: tuple[NDArray[np.int64], ...]
    first: tuple[NDArray[np.int64], ...] | None
    tokens: NDArray[np.int64] | None


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `assay export` takes."""
    from experiments.importing import add_reading

    command.add_argument("trace", metavar="TRACE", help="run (directory or name), trace directory, or a file or folder that `assay import` knows")
    command.add_argument("out", metavar="OUT", help="file to write: .npy, .csv or .parquet as the form has it; OUT" + ORIGIN + " says of what")
    command.add_argument("--form", required=True, choices=tuple(FORMS), help="eplb: load [layers, experts]; moe-infinity: activations [documents, "
                         "layers, experts]; csv, parquet: a row per domain, layer and expert")
    command.add_argument("--split", default="all", choices=("all", *SPLITS), help="documents that are counted")
    add_reading(command)


def run(root: Path, arguments: argparse.Namespace) -> int:
    """Count and write."""
    from experiments.importing import Reading
    from experiments.inspecting import findings, opened
    from tracking.atomic import write_bytes, write_json

    given, out = Path(arguments.trace), Path(arguments.out)
    ending = FORMS[arguments.form]
    if out.suffix != ending or not out.parent.is_dir():
        raise TraceError(f"{out}: form {arguments.form} is written as {ending}, into a folder that is there; choose another name, or make "
                         f"{out.parent}")
    trace = opened(given if given.exists() else root / given, Reading.of(arguments))
    tally = tally_of(trace, None if arguments.split == "all" else arguments.split, by_document=arguments.form == "moe-infinity")
    content = {"eplb": lambda: npy(load_matrix(tally)), "moe-infinity": lambda: npy(activations(tally)),
               "csv": lambda: csv_bytes(table(tally)), "parquet": lambda: parquet_bytes(table(tally))}[arguments.form]()
    spoilt = [one.to_json() for one in findings(trace, None if arguments.split == "all" else arguments.split) if "loads" in one.invalidates]
    write_bytes(out, content)
    write_json(out.with_name(out.name + ORIGIN), {**origin(tally, given.name, arguments.form, arguments.split), "flaws": spoilt})
    for one in spoilt:
        print(f"  flawed: {one['code']}: {one['words']}; {one['remedy']}")
    print(f"{out}: {arguments.form} of {len(tally.ids):,} {tally.unit}s, {len(tally.counts)} layers; its origin is in {out.name}{ORIGIN}")
    return 0


def tally_of(trace: RoutingTrace | CountsTrace, split: str | None, *, by_document: bool) -> Tally:
    """Selections by document or by domain. Raises TraceError for documents or a split asked of counts, and where nothing is to be counted."""
    if isinstance(trace, CountsTrace):
        if by_document or split is not None:
            raise TraceError("the trace holds counts by domain and no documents: neither documents nor a split can be told apart; export eplb, "
                             "csv or parquet of all")
        return Tally(trace.meta, "domain", trace.domains, trace.domains, trace.counts, trace.first, trace.tokens)
    rows = [row for row in trace.documents if split in (None, row.split)]
    if not rows:
        raise TraceError(f"split {split!r}: no documents; choose among {', '.join(dict.fromkeys(row.split for row in trace.documents))}")
    if by_document and len(rows) > DOCUMENTS_LIMIT:
        raise TraceError(f"{len(rows):,} documents, more than {DOCUMENTS_LIMIT:,} in one file; export a sample: assay sample")
    domains = tuple(dict.fromkeys(row.domain for row in rows))
    units = [number for number, _ in enumerate(rows)] if by_document else [domains.index(row.domain) for row in rows]
    place = np.full(max(row.document for row in trace.documents) + 1, -1, np.int64)
    place[[row.document for row in rows]] = units
    n_units = len(rows) if by_document else len(domains)
    counts, first = (tuple(np.zeros((n_units, layer.n_experts), np.int64) for layer in trace.meta.layers) for _ in range(2))
    tokens = np.zeros(n_units, np.int64)
    for batch in trace.batches(split=split):
        unit = place[batch.document]
        tokens += np.bincount(unit, minlength=n_units)
        for index, ids in enumerate(batch.ids):
            key = unit[:, None] * counts[index].shape[1] + ids.astype(np.int64)
            for total, chosen in ((counts[index], key), (first[index], key[:, 0])):
                total += np.bincount(chosen.ravel(), minlength=total.size).reshape(total.shape)
    if by_document:
        return Tally(trace.meta, "document", tuple(row.id for row in rows), tuple(row.domain for row in rows), counts, first, tokens)
    return Tally(trace.meta, "domain", domains, domains, counts, first, tokens)


def load_matrix(tally: Tally) -> NDArray[np.int64]:
    """Selections [L, E], as EPLB's `rebalance_experts` takes its weight."""
    return _square(tally, [table.sum(axis=0) for table in tally.counts])


def activations(tally: Tally) -> NDArray[np.float32]:
    """Selections [D, L, E] as float32, as MoE-Infinity's `ExpertTracer.load_trace` reads them. Raises TraceError where float32 cannot hold one."""
    found = _square(tally, list(tally.counts)).swapaxes(0, 1)
    if int(found.max(initial=0)) > 2**24:
        raise TraceError(f"a document has {int(found.max()):,} selections of one expert, which float32 cannot hold; export csv or parquet")
    return np.ascontiguousarray(found, dtype=np.float32)


def _square(tally: Tally, tables: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """One array over layers. Raises TraceError where they differ in their number of experts, which the form cannot say."""
    experts = sorted({layer.n_experts for layer in tally.meta.layers})
    if len(experts) > 1:
        raise TraceError(f"layers of {', '.join(map(str, experts))} experts: the form has one number of experts for all layers; export csv or "
                         "parquet")
    return np.stack(tables)


def table(tally: Tally) -> dict[str, Any]:
    """Columns domain, depth, layer, expert, selections, first_choices (None where unknown), tokens (None where unknown); a row per expert."""
    columns: dict[str, list[Any]] = {name: [] for name in ("domain", "depth", "layer", "expert", "selections", "first_choices", "tokens")}
    for unit, domain in enumerate(tally.ids):
        for index, layer in enumerate(tally.meta.layers):
            n = layer.n_experts
            first = [None] * n if tally.first is None else tally.first[index][unit].tolist()
            parts = {"domain": [domain] * n, "depth": [layer.depth] * n, "layer": [layer.key] * n, "expert": list(range(n)),
                     "selections": tally.counts[index][unit].tolist(), "first_choices": first,
                     "tokens": [None if tally.tokens is None else int(tally.tokens[unit])] * n}
            for name, values in parts.items():
                columns[name] += values
    return columns


def npy(array: NDArray[Any]) -> bytes:
    """The bytes of an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def csv_bytes(columns: dict[str, Any]) -> bytes:
    """CSV with a header; text that a spreadsheet would take for a formula is quoted."""
    import csv

    from experiments.report.table_files import csv_text

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if one is None else csv_text(one) if isinstance(one, str) else one for one in row] for row in zip(*columns.values()))
    return text.getvalue().encode()


def parquet_bytes(columns: dict[str, Any]) -> bytes:
    """Parquet with page checksums."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"domain": pa.string(), "layer": pa.string()}
    buffer = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(column, kinds.get(name, pa.int64())) for name, column in columns.items()}), buffer,
                   write_page_checksum=True)
    return buffer.getvalue()


def origin(tally: Tally, name: str, form: str, split: str) -> dict[str, Any]:
    """What the numbers are of: the trace, its layers, and the units in the order of the first axis."""
    return {"form": form, "trace": name, "model": tally.meta.model, "split": split, "unit": tally.unit,
            "counts": "selections: k for each token and layer, dropped ones included",
            "layers": [{"key": layer.key, "depth": layer.depth, "n_experts": layer.n_experts, "top_k": layer.top_k} for layer in tally.meta.layers],
            "units": [{"id": one, "domain": domain} for one, domain in zip(tally.ids, tally.domains)],
            "tokens": None if tally.tokens is None else tally.tokens.tolist()}
