"""Operation traces of llama.cpp (seed 002): `domain/traces/token-00000.json`, one file per token, with every MUL_MAT_ID and its expert ids.

T token (row), L MoE layer, K slot in the top-k.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.trace import TraceBatch
from experiments.readers import _json
from experiments.readers._recorded import ORDER, asked, labelled, layer_list, recorded_meta, shown
from experiments.readers._rows import MOST_EXPERTS, DocumentTrace, check_ids, document_rows, layer_table, plain
from experiments.readers.contract import ReadError, ReadOptions, Remark

NAME, KIND = "llamacpp", "rows"
TOKEN_FILE = re.compile(r"token-(\d{1,9})\.json")
OPERATION, PHASES = "MUL_MAT_ID", ("PROMPT", "GENERATE")
COMPONENT = re.compile(r"ffn_moe_(gate_up|gate|up|down)(?:_exps)?(?:-(\d{1,5}))?")
COMPONENTS = ("gate_up", "gate", "up", "down")  # in the order in which the graph computes them; the first that is there is kept
FILE_LIMIT = 256 << 20
MARKS = (b'"entries"', b'"dst_name"', b'"operation_type"')

Ids = list[int]
Decision = dict[int, dict[str, Ids]]  # layer -> component -> ids


@dataclass(frozen=True)
class Token:
    """The operations of one token. where: file, for messages; entries: (place, operation) in order, read when asked for."""

    number: int
    where: str
    entries: Callable[[], Iterable[tuple[str, Mapping[str, Any]]]]


@dataclass
class Tally:
    """What was met in all files. deltas: (domain, layer, component, expert) -> selections more than the component that was kept has."""

    collapsed: int = 0
    differing: int = 0
    reordered: int = 0
    truncated: Counter[str] = field(default_factory=Counter)  # by phase
    prompt_rows: int = 0
    incomplete: int = 0
    missing_files: int = 0
    without_ids: int = 0
    without_component: int = 0
    unknown: int = 0
    repeated: int = 0
    deltas: Counter[tuple[str, int, str, int]] = field(default_factory=Counter)
    components: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Shape:
    """What every row has: layers, ids per layer, and components of a decision."""

    layers: tuple[int, ...]
    top_k: int
    components: frozenset[str]


def recognises(path: Path) -> bool:
    """A folder of token files, a domain folder that holds one as `traces`, or a folder of such domains."""
    first = next(_folders(path), None)
    return first is not None and all(_json.holds(_files(first)[0][1], mark) for mark in MARKS)


def read(path: Path, options: ReadOptions) -> DocumentTrace:
    """Each domain folder is one document: the tokens of one generation. Every file is read once, here.

    gate, up and down of one decision are one row. Where they differ, the first of them is kept, the remark `components_differ` counts
    it, and `meta.details["components"]["differences"]` holds [domain, layer, component, expert, selections more than the kept one has],
    from which the counts by component follow. A token file with a PROMPT and a GENERATE pass gives two rows.
    """
    folders = list(_domains(path))
    if not folders:
        raise ReadError(f"{path}: no domain/traces/token-00000.json in it; give a folder of domains, or one domain's folder")
    return trace_of(path, [(name, [_token(number, file) for number, file in files]) for name, files in folders], options, NAME)


def trace_of(path: Path, domains: Sequence[tuple[str, Sequence[Token]]], options: ReadOptions, collector: str) -> DocumentTrace:
    """Tokens by domain as rows, in whatever form their operations were kept."""
    folders = [(name, tokens) for (_, tokens), name in zip(domains, labelled([name for name, _ in domains], options, path))]
    shape, tally = _shape(folders, options, path), Tally()
    parts = [_document(name, tokens, shape, tally) for name, tokens in folders]
    n_experts = asked(options.n_experts, "n-experts", path, f"highest id {max(int(ids.max()) for ids, _ in parts)}")
    layers = layer_table(shape.layers, n_experts, shape.top_k, "blk.{}.ffn_gate_inp")
    for (name, _), (ids, position) in zip(folders, parts):
        for index, layer in enumerate(shape.layers):
            check_ids(ids[:, index], n_experts, lambda row, name=name, layer=layer, position=position:  # type: ignore[misc]
                      f"{path}: field expert_ids: domain {name!r}, token {position[row]}, layer {layer}")
    details = {"components": {"recorded": sorted(tally.components), "kept": "the first of " + ", ".join(COMPONENTS),
                              "differences": [[*key, more] for key, more in sorted(tally.deltas.items()) if more]}}
    trace = DocumentTrace(
        recorded_meta(options, collector, layers, details), document_rows([name for name, _ in folders], [name for name, _ in folders]),
        np.array([len(ids) for ids, _ in parts], np.int64), lambda first, last: _rows(parts, first, last, layers[0].id_dtype))
    trace.noted = tuple(_remarks(tally, sum(len(ids) for ids, _ in parts)))
    return trace


def _rows(parts: Sequence[tuple[NDArray[Any], NDArray[Any]]], first: int, last: int, dtype: np.dtype[Any]) -> tuple[TraceBatch, Mapping[str, int]]:
    ids = np.concatenate([part[0] for part in parts[first:last]]).astype(dtype)
    document = np.concatenate([np.full(len(part[0]), number, np.int32) for number, part in enumerate(parts[first:last], first)])
    position = np.concatenate([part[1] for part in parts[first:last]])
    return TraceBatch(document, position, None, tuple(np.ascontiguousarray(ids[:, layer]) for layer in range(ids.shape[1]))), {}


def _folders(path: Path) -> Iterator[Path]:
    """Folders with token files: the path, its `traces`, or those of its sub-folders."""
    if path.is_dir():
        for folder in (path, path / "traces", *(one / "traces" for one in sorted(path.iterdir()) if one.is_dir())):
            if folder.is_dir() and _files(folder):
                yield folder


def _files(folder: Path) -> list[tuple[int, Path]]:
    found = [(int(match[1]), one) for one in folder.iterdir() if (match := TOKEN_FILE.fullmatch(one.name))]
    return sorted(found)


def _domains(path: Path) -> Iterator[tuple[str, list[tuple[int, Path]]]]:
    for folder in _folders(path):
        name = plain(folder.resolve().parent.name if folder.name == "traces" else folder.resolve().name)
        files = _files(folder)
        numbers = [number for number, _ in files]
        if len(set(numbers)) != len(numbers):
            raise ReadError(f"{folder}: one token number under two file names; keep one of them")
        yield name, files


def _token(number: int, path: Path) -> Token:
    def entries() -> Iterator[tuple[str, Mapping[str, Any]]]:
        record = _json.load(path, FILE_LIMIT)
        if _json.field(record, "token_id", int, str(path)) != number:
            raise ReadError(f"{path}: field token_id: {record['token_id']}, but the file is named after token {number}; put the files in order again")
        for index, entry in enumerate(_json.field(record, "entries", list, str(path))):
            yield f"{path}: entries[{index}]", entry

    return Token(number, str(path), entries)


def _shape(folders: Sequence[tuple[str, Sequence[Token]]], options: ReadOptions, path: Path) -> Shape:
    """Layers of the first token; top_k is the option, or the length that the first generated token has in all its records."""
    first = _decisions(folders[0][1][0], Tally())
    layers = layer_list(options, sorted({layer for _, decision in first for layer in decision}), path)
    if not layers:
        raise ReadError(f"{folders[0][1][0].where}: no {OPERATION} with expert ids in it; the model has no experts, or ids were not recorded")
    components = frozenset(component for _, decision in first for parts in decision.values() for component in parts)
    if options.top_k is not None:
        return Shape(layers, options.top_k, components)
    for token in folders[0][1]:
        generated = [decision for phase, decision in _decisions(token, Tally()) if phase == "GENERATE"]
        lengths = {len(ids) for decision in generated for parts in decision.values() for ids in parts.values()}
        if len(lengths) == 1:
            return Shape(layers, lengths.pop(), components)
        if lengths:
            break
    raise ReadError(f"{path}: field expert_ids: the first generated token does not have the same number of ids in every record; give --top-k")


def _decisions(token: Token, tally: Tally) -> list[tuple[str, Decision]]:
    """(phase, decision) in order; the n-th record of a layer and component in a phase is of the n-th decision of that phase."""
    seen: Counter[tuple[str, int, str]] = Counter()
    found: dict[tuple[str, int], Decision] = {}
    for where, entry in token.entries():
        if _json.field(entry, "operation_type", str, where) != OPERATION:
            continue
        match = COMPONENT.fullmatch(_json.field(entry, "dst_name", str, where))
        if match is None:
            tally.unknown += 1
            continue
        ids = entry.get("expert_ids")
        if not ids:
            tally.without_ids += 1
            continue
        layer, phase = _json.field(entry, "layer_id", int, where), _json.field(entry, "phase", str, where)
        _check(where, entry["dst_name"], match[2], layer, phase, ids)
        key = (phase, seen[phase, layer, match[1]])
        seen[phase, layer, match[1]] += 1
        found.setdefault(key, {}).setdefault(layer, {})[match[1]] = ids
    made = [(phase, decision) for (phase, _), decision in found.items()]
    generated = [decision for phase, decision in made if phase == "GENERATE"]
    again = sum(decision == generated[0] for decision in generated[1:])
    if again:  # a file is of one token, which is generated once
        tally.repeated += again
        made = [one for one in made if one[0] != "GENERATE"] + [("GENERATE", one) for one in generated[:1]] + [
            ("GENERATE", one) for one in generated[1:] if one != generated[0]]
    return made


def _check(where: str, name: str, suffix: str | None, layer: int, phase: str, ids: Any) -> None:
    if suffix is not None and int(suffix) != layer:
        raise ReadError(f"{where}: field layer_id: {layer}, but dst_name is {name!r}; trace again")
    if phase not in PHASES:
        raise ReadError(f"{where}: field phase: {phase[:40]!r}, expected {' or '.join(PHASES)}; trace again")
    if not isinstance(ids, list) or not all(type(one) is int and 0 <= one < MOST_EXPERTS for one in ids):
        raise ReadError(f"{where}: field expert_ids: {str(ids)[:60]}, expected a list of expert ids; trace again")


def _document(name: str, tokens: Sequence[Token], shape: Shape, tally: Tally) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """ids [T, L, K] and positions [T] of one domain's tokens; a gap in their numbers is a gap in positions."""
    rows: list[list[Ids]] = []
    positions: list[int] = []
    position, before = 0, tokens[0].number - 1
    for token in tokens:
        position += token.number - before - 1
        tally.missing_files += token.number - before - 1
        before = token.number
        for phase, decision in _decisions(token, tally):
            strange = sorted(set(decision) - set(shape.layers))
            if strange:
                raise ReadError(f"{token.where}: layers {shown(strange)} are not in the first file ({shown(shape.layers)}): these are of two models; "
                                "import them apart")
            if len(decision) == len(shape.layers):
                rows.append([_collapsed(decision[layer], (name, layer), shape, phase, token.where, tally) for layer in shape.layers])
                positions.append(position)
                tally.prompt_rows += phase == "PROMPT"
            else:
                tally.incomplete += 1
            position += 1
    if not rows:
        raise ReadError(f"{tokens[0].where}: no token from here on with all of the {len(shape.layers)} layers; trace again")
    return np.array(rows, np.uint16), np.array(positions, np.int32)


def _collapsed(parts: dict[str, Ids], place: tuple[str, int], shape: Shape, phase: str, path: str, tally: Tally) -> Ids:
    cut, top_k = {}, shape.top_k
    for component, ids in parts.items():
        if len(ids) < top_k:
            raise ReadError(f"{path}: field expert_ids: layer {place[1]}, {component}: {len(ids)} ids where {top_k} are chosen; correct --top-k, "
                            "or trace again")
        tally.truncated[phase] += len(ids) > top_k
        cut[component] = ids[:top_k]
    ordered = [component for component in COMPONENTS if component in cut]
    kept = cut[ordered[0]]
    tally.components.update(ordered)
    tally.collapsed += len(ordered) - 1
    others = [component for component in ordered[1:] if cut[component] != kept]
    tally.differing += bool(others)
    tally.reordered += bool(others) and all(sorted(cut[component]) == sorted(kept) for component in others)
    for component in others:
        for expert in cut[component]:
            tally.deltas[*place, component, expert] += 1
        for expert in kept:
            tally.deltas[*place, component, expert] -= 1
    absent = shape.components - set(cut)
    tally.without_component += len(absent)
    for component in absent:
        for expert in kept:
            tally.deltas[*place, component, expert] -= 1
    return kept


def _remarks(tally: Tally, n_rows: int) -> Iterator[Remark]:
    yield ORDER
    if tally.collapsed:
        yield Remark("components_collapsed", "records of another component of a decision that is counted already (gate, up and down share their ids)",
                     tally.collapsed)
    if tally.differing:
        yield Remark("components_differ", f"decisions whose components have other ids ({tally.reordered} only in another order): the first is kept, "
                     "the differences are in the meta", tally.differing)
    for phase, count in sorted(tally.truncated.items()):
        if count:
            yield Remark("truncated_top_k", f"{phase} records with more ids than top_k, as those of several tokens have: the first were kept", count)
    if tally.prompt_rows:
        yield Remark("prompt_rows", "rows of a PROMPT pass, of which only one token was recorded: the rest of the prompt is missing, and the row "
                     "beside it, of the first generated token, is no neighbour: one false pair in each such document", tally.prompt_rows,
                     tally.prompt_rows / n_rows)
    for code, count, words in (("incomplete_tokens", tally.incomplete, "tokens left out, for a layer is missing: was the trace cut?"),
                               ("missing_token_files", tally.missing_files, "tokens without a file or record before the last; positions leave room"),
                               ("components_missing", tally.without_component, "components that a decision has no record of"),
                               ("records_without_ids", tally.without_ids, f"{OPERATION} records without expert ids, left out"),
                               ("repeated_decisions", tally.repeated, "decisions of a generated token that its file holds again: counted once"),
                               ("unknown_components", tally.unknown, f"{OPERATION} records of no gate, up or down, left out")):
        if count:
            yield Remark(code, words, count)
