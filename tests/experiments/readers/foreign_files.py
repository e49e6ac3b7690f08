"""Small files in other people's formats, written from the formats' definitions with numbers chosen by hand; no code of the readers is used."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SHARED = Path(__file__).parents[3].parent / "shared" / "data"


def npy(array: np.ndarray, shape: str | None = None) -> bytes:
    """The bytes of an .npy, with another claimed shape if given."""
    header = f"{{'descr': {array.dtype.str!r}, 'fortran_order': False, 'shape': {shape or tuple(array.shape)}, }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + np.ascontiguousarray(array).tobytes()


def npz(path: Path, columns: dict[str, np.ndarray], claims: dict[str, str] | None = None) -> Path:
    """An .npz, compressed, some fields with another claimed shape."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in columns.items():
            archive.writestr(f"{name}.npy", npy(array, (claims or {}).get(name)))
    return path


def bfloat16(values: Any) -> np.ndarray:
    """The upper half of float32, as uint16; values must be exact in it."""
    bits = np.array(values, np.float32).view(np.uint32)
    assert not (bits & 0xFFFF).any()
    return (bits >> 16).astype(np.uint16)


def safetensors(path: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> Path:
    """A safetensors file: name -> dtype, shape, bytes."""
    header, start = {}, 0
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + len(content)]}
        start += len(content)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(content for *_, content in tensors.values()))
    return path


GPTOSS_IDS = [[[3, 1], [0, 2]], [[1, 2], [2, 3]], [[0, 3], [1, 0]]]  # three tokens, two layers, top-2
GPTOSS_PROBABILITIES = [[[0.75, 0.25], [0.5, 0.5]], [[0.625, 0.375], [0.75, 0.25]], [[0.5, 0.5], [0.875, 0.125]]]


def gptoss_json(folder: Path, **changes: Any) -> Path:
    """Two documents of the category `law`: two tokens from position 5, one token from position 0."""
    def token(position: int, row: int) -> dict[str, Any]:
        return {f"token_{position}": {f"layer_{layer}": {"selected_experts": GPTOSS_IDS[row][layer],
                                                         "selected_probs": GPTOSS_PROBABILITIES[row][layer]} for layer in range(2)}}

    one = {"row_index": 7, "dataset": "mmlu", "category": "law", "finished_successfully": False, "has_repetition": False,
           "original_prompt": "q \u2013 \U0001f600", "router_data": [token(5, 0), token(6, 1)]}
    two = one | {"row_index": 8, "has_repetition": True, "router_data": [token(0, 2)]}
    path = folder / "False_False_examples.json"
    path.write_text(json.dumps([one | changes, two], indent=2))
    return path


def gptoss_npz(folder: Path, **changes: Any) -> Path:
    """The same rows, packed."""
    columns = {"doc_id": np.array(["mmlu/law/False_False", "mmlu/law/False_True"]), "doc_len": np.array([2, 1], np.int32),
               "first_pos": np.array([5, 0], np.int32), "expert_ids": np.array(GPTOSS_IDS, np.uint8),
               "prob_bf16": bfloat16(GPTOSS_PROBABILITIES), "sample_count": np.array([4, 5]), "row_index": np.array([7, 8])}
    return npz(folder / "traces.npz", {name: column for name, column in (columns | changes).items() if column is not None})


# Two layers (blocks 0 and 4), 2 of 3 experts; four tokens in domain `a`, all of whose first choices are 0 in block 0
OLMOE_COUNTS = {"a": [[4, 3, 1], [3, 3, 2]], "b": [[2, 2, 4], [4, 4, 0]]}
OLMOE_FIRST = {"a": [[4, 0, 0], [1, 2, 1]], "b": [[0, 2, 2], [4, 0, 0]]}
OLMOE_FIRST_PAIRS = {"a": [[[1, 2, 1], [0, 0, 0], [0, 0, 0]]], "b": [[[0, 0, 0], [2, 0, 0], [2, 0, 0]]]}
OLMOE_EQUAL_PAIRS = {"a": [[[1, 2, 1], [2, 1, 0], [0, 0, 1]]], "b": [[[0, 2, 0], [2, 0, 0], [2, 2, 0]]]}
OLMOE_TYPES = [(0, 0, 11, 4), (0, 1, 11, 3), (0, 2, 9, 1), (1, 0, 11, 3), (1, 1, 9, 1), (1, 1, 11, 2), (1, 2, 11, 2)]


def olmoe_columns() -> dict[str, np.ndarray]:
    """Tables of two domains and of another model's third."""
    columns = {"layers": np.array([0, 4]), "top_k": np.array(2), "tokens": np.array(4)}
    for domain in "ab":
        columns |= {f"expert_counts__{domain}": np.array(OLMOE_COUNTS[domain]), f"expert_counts_top1__{domain}": np.array(OLMOE_FIRST[domain]),
                    f"expert_counts_crosslayer__{domain}": np.array(OLMOE_EQUAL_PAIRS[domain]),
                    f"expert_counts_crosslayer_top1__{domain}": np.array(OLMOE_FIRST_PAIRS[domain])}
    return columns | {"expert_counts__tulu__other": np.array([[2, 2, 2], [3, 3, 0]])}


def olmoe_counts(folder: Path, types: bool = True, **changes: Any) -> Path:
    """`olmoe_counts.npz`, and the token types of domain `a` beside it."""
    if types:
        rows = np.array(OLMOE_TYPES)
        npz(folder / "olmoe_vocab_a.npz", {name: rows[:, i].astype(np.int32) for i, name in enumerate(("layer_idx", "expert", "token_id", "count"))})
    columns = {name: column for name, column in (olmoe_columns() | changes).items() if column is not None}
    return npz(folder / "olmoe_counts.npz", columns)


OLMOE_CHOICES = [[[0, 1, 2], [3, 0, 1]], [[1, 1, 0], [2, 3, 3]], [[3, 2, 1], [1, 0, 0]]]  # three tokens, k=2, three layers


def olmoe_jsonl(folder: Path, **changes: Any) -> Path:
    """Two blocks: three tokens, then one."""
    one = {"input_ids": [5, 9, 5], "predicted_token_ids": [9, 5, 7], "exp_ids": OLMOE_CHOICES}
    two = {"input_ids": [40], "predicted_token_ids": [1], "exp_ids": [[[2, 2, 3], [0, 1, 2]]]}
    path = folder / "c4_results.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in (one, two | changes)))
    return path


ESFT_LAYERS = {  # layer -> sequences of tokens of (id, weight) in no order
    3: [[[(5, "0.1"), (2, "0.3"), (7, "0.0002")], [(1, "0.2"), (0, "0.2"), (6, "0.1999")]], [[(4, "0.5"), (3, "0.25"), (2, "0.125")]]],
    12: [[[(0, "0.05"), (1, "0.06"), (2, "0.07")], [(7, "0.3"), (6, "0.2"), (5, "0.1")]], [[(1, "0.0"), (0, "0.9"), (2, "0.1")]]],
}


def esft_text(folder: Path, layers: Any = None, **summary: Any) -> Path:
    """A folder `task` of two layers: a sequence of two tokens and one of one, k = 3."""
    task = folder / "task"
    task.mkdir(exist_ok=True)
    for layer, sequences in (layers or ESFT_LAYERS).items():
        lines = []
        for tokens in sequences:
            flat = [slot for token in tokens for slot in token]
            lines.append("\t".join(str(one) for one, _ in flat) + "\t\t" + "\t".join(weight for _, weight in flat) + "\n")
        (task / f"expert_weights_{layer}.txt").write_text("".join(lines))
    if summary:
        (task / "summary.json").write_text(json.dumps(summary))
    return task


MEGATRON_LOGITS = {  # (layer, step) -> rows over four experts, exact in bfloat16
    (1, 0): [[0.0, 1.0, 2.0, -1.0], [3.0, 0.0, 0.0, 1.0]], (4, 0): [[0.5, 0.25, 0.0, 1.0], [0.0, 0.0, 4.0, 2.0]],
    (1, 1): [[-2.0, -1.0, 0.0, 1.0]], (4, 1): [[1.0, 0.0, 2.0, 0.0]],
}
MEGATRON_IDS = {(1, 0): [[2, 1], [0, 3]], (4, 0): [[3, 0], [2, 3]], (1, 1): [[3, 2]], (4, 1): [[0, 2]]}  # the last is in no order


def megatron(folder: Path, ranks: tuple[int, ...] = (0,), logits: bool = True, edit: Callable[[dict[str, Any]], Any] | None = None) -> Path:
    """A folder of router traces: layers 1 and 4 in two steps of two tokens and one, top-2 of 4, and a block of multi-token prediction."""
    trace = folder / "routing"
    trace.mkdir(exist_ok=True)
    for rank in ranks:
        lines, sidecar = [], b""
        for step in (0, 1):
            for layer in (1, 4):
                ids = [[(one + rank) % 4 for one in row] for row in MEGATRON_IDS[layer, step]]
                record: dict[str, Any] = {"step": step, "stage": "pre_dispatch", "block": "decoder", "layer": layer, "rank": rank,
                                          "num_tokens": len(ids), "topk": 2, "top_indices": ids}
                if logits:
                    content = bfloat16([row[-rank:] + row[:-rank] if rank else row for row in MEGATRON_LOGITS[layer, step]]).tobytes()
                    record |= {"logit_offset": len(sidecar), "logit_bytes": len(content), "logit_shape": [len(ids), 4]}
                    sidecar += content
                lines.append(json.dumps(edit(record) if edit else record))
            lines.append(json.dumps({"step": step, "stage": "pre_dispatch", "block": "mtp", "mtp_idx": 0, "layer": 1, "rank": rank, "num_tokens": 1,
                                     "topk": 2, "top_indices": [[0, 1]]}))
        (trace / f"router_trace_rank{rank}.jsonl").write_text("\n".join(lines) + "\n")
        if logits:
            (trace / f"logits_rank{rank}.bin").write_bytes(sidecar)
    return trace


TENSORRT = {0: {"5_0": [0, 0, 0], "5_3": [4, 1, 1], "6_0": [0, 0, 0], "6_3": [2, 0, 0]},  # rank -> iteration_layer -> counts; layer 0 is dense
            1: {"5_0": [0, 0, 0], "5_3": [0, 2, 0], "6_0": [0, 0, 0], "6_3": [1, 0, 1]}}


def tensorrt(folder: Path, info: Any = None, **changes: Any) -> Path:
    """A folder of two ranks, two iterations, layers 0 and 3, top-2 of 3. changes: tensors of rank 1 by `t{key}`."""
    statistics = folder / "statistics"
    statistics.mkdir(exist_ok=True)
    for rank, counts in TENSORRT.items():
        tensors = {key: ("I64", (3,), np.array(row, "<i8").tobytes()) for key, row in counts.items()}
        if rank == 1:
            tensors |= {key[1:]: one for key, one in changes.items() if one is not None}
            tensors = {key: one for key, one in tensors.items() if changes.get(f"t{key}", 1) is not None}
        safetensors(statistics / f"rank{rank}.safetensors", tensors)
    (statistics / "meta_info.json").write_text(json.dumps(info or {"num_experts": 3, "num_experts_per_token": 2, "ep_size": 2}))
    return statistics


FLAME = {2: {"0-0": ([[0.5, 0.25], [0.125, 0.5]], [[7, 3], [1, 2]]), "0-1": ([[0.25, 0.25]], [[6, 5]])},  # layer -> batch -> scores, indices
         5: {"0-0": ([[0.75, 0.125], [0.5, 0.25]], [[0, 1], [4, 3]]), "0-1": ([[0.5, 0.375]], [[2, 7]])}}
FLAME_TOKENS = {"0-0": [11, 12], "0-1": [50_300]}


def flame_moe(folder: Path, edit: Callable[[int, str, list[Any]], list[Any]] | None = None, samples: bool = True) -> Path:
    """A recording of step 1080: layers 2 and 5, a batch of two tokens and one of one, top-2 of 8."""
    root = folder / "recording"
    for layer, batches in FLAME.items():
        for name, columns in batches.items():
            scores, indices = edit(layer, name, list(columns)) if edit else columns
            place = root / "actives" / "1080" / str(layer)
            place.mkdir(parents=True, exist_ok=True)
            safetensors(place / f"{name}.safetensors", {"scores": ("F32", np.shape(scores), np.array(scores, "<f4").tobytes()),
                                                        "indices": ("I64", np.shape(indices), np.array(indices, "<i8").tobytes())})
    if samples:
        (root / "samples").mkdir(exist_ok=True)
        for name, tokens in FLAME_TOKENS.items():
            safetensors(root / "samples" / f"{name}.safetensors", {"tokens": ("I64", (len(tokens),), np.array(tokens, "<i8").tobytes())})
    return root


# layer -> corpus -> [samples, tokens, experts], probabilities exact in bfloat16
LRC = {0: {"c4": [[[0.5, 0.25, 0.125, 0.125], [0.125, 0.125, 0.25, 0.5]]], "github": [[[0.25, 0.25, 0.25, 0.25]], [[0.0, 0.0, 1.0, 0.0]]]},
       1: {"c4": [[[0.125, 0.5, 0.125, 0.25], [0.75, 0.125, 0.125, 0.0]]], "github": [[[0.5, 0.0, 0.5, 0.0]], [[0.0625, 0.4375, 0.25, 0.25]]]}}


def moe_lrc(folder: Path, form: str = "probabilities", edit: Callable[[Any], Any] | None = None, tokens: Any = None) -> Path:
    """`output/merged/tiny_{layer}.safetensors`: one sample of two tokens of c4, two of one token of github, four experts."""
    merged = folder / "output" / "merged"
    merged.mkdir(parents=True, exist_ok=True)
    for layer, corpora in (edit(json.loads(json.dumps(LRC))) if edit else LRC).items():
        tensors = {}
        for corpus, values in corpora.items():
            array = np.array(values, np.float32)
            content = {"probabilities": lambda a=array: ("BF16", a.shape, bfloat16(a).tobytes()),
                       "logits": lambda a=array: ("F32", a.shape, (8 * a).astype("<f4").tobytes()),
                       "ranks": lambda a=array: ("I8", a.shape, a.argsort(axis=-1, kind="stable").argsort(axis=-1).astype("<i1").tobytes())}[form]
            tensors[corpus] = content()
        safetensors(merged / f"tiny_{int(layer):02d}.safetensors", tensors)
    if tokens:
        (folder / "data" / "merged").mkdir(parents=True, exist_ok=True)
        safetensors(folder / "data" / "merged" / "tiny.safetensors", {
            corpus: ("I64", np.shape(one), np.array(one, "<i8").tobytes()) for corpus, one in tokens.items()})
    return merged


# document, domain, position, token id, then for layers 2 and 9 the choices with weights; in no order of documents or positions
PLAIN = [("b", "law", 1, 31, [(3, 0.25), (0, 0.5)], [(1, 0.5), (2, 0.25)]), ("a", "code", 0, 30, [(1, 0.75), (2, 0.125)], [(0, 0.5), (3, 0.375)]),
         ("b", "law", 0, 32, [(2, 0.5), (1, 0.25)], [(3, 0.5), (0, 0.25)])]
PLAIN_TOML = {
    "token": 'form = "token"\nn_experts = 4\nmodel = "tiny"\n[columns]\ndocument = "doc"\ndomain = "kind"\nposition = "pos"\ntoken_id = "tok"\n'
             'ids = "ids_{layer}"\nweights = "w_{layer}"\n',
    "layer": 'form = "layer"\nn_experts = 4\nmodel = "tiny"\n[columns]\ndocument = "doc"\ndomain = "kind"\nposition = "pos"\ntoken_id = "tok"\n'
             'layer = "layer"\nids = "ids"\nweights = "w"\n',
    "slot": 'form = "slot"\nn_experts = 4\nmodel = "tiny"\n[columns]\ndocument = "doc"\ndomain = "kind"\nposition = "pos"\ntoken_id = "tok"\n'
            'layer = "layer"\nslot = "slot"\nexpert = "expert"\nweight = "w"\n'}


def plain_records(form: str) -> list[dict[str, Any]]:
    """PLAIN as records of one of the three forms."""
    found: list[dict[str, Any]] = []
    for document, domain, position, token, *layers in PLAIN:
        head: dict[str, Any] = {"doc": document, "kind": domain, "pos": position, "tok": token}
        if form == "token":
            found.append(head | {f"{name}_{layer}": [pair[i] for pair in pairs] for layer, pairs in zip((2, 9), layers)
                                 for i, name in enumerate(("ids", "w"))})
        elif form == "layer":
            found += [head | {"layer": layer, "ids": [one for one, _ in pairs], "w": [weight for _, weight in pairs]}
                      for layer, pairs in zip((9, 2), layers[::-1])]
        else:
            found += [head | {"layer": layer, "slot": slot, "expert": one, "w": weight}
                      for layer, pairs in zip((9, 2), layers[::-1]) for slot, (one, weight) in reversed(list(enumerate(pairs)))]
    return found


def plain_table(folder: Path, form: str, kind: str, records: Any = None) -> Path:
    """PLAIN as Parquet or JSON lines, with `mapping.toml` beside it."""
    rows = plain_records(form) if records is None else records
    (folder / "mapping.toml").write_text(PLAIN_TOML[form])
    path = folder / f"table.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


MOE_INFINITY = [[[3, 1, 0], [2, 2, 0]], [[0, 2, 2], [1, 1, 2]], [[1, 0, 1], [0, 0, 2]]]  # three sequences, two layers, three experts


def moe_infinity(folder: Path, counts: Any = None) -> Path:
    """Counts as float32."""
    path = folder / "sequences.npy"
    path.write_bytes(npy(np.array(MOE_INFINITY if counts is None else counts, np.float32)))
    return path


def moe_atlas(folder: Path, name: str = "prompt", **changes: Any) -> Path:
    """Two tokens, layers 1 and 3, top-2 of 4; choices in no order."""
    choices = {(0, 1): [(2, 0.25), (0, 0.75)], (0, 3): [(1, 0.5), (3, 0.25)], (1, 1): [(3, 0.5), (2, 0.5)], (1, 3): [(0, 0.625), (1, 0.125)]}
    activations = [{"layer": layer, "token_idx": token, "expert_idx": expert, "gate_weight": weight, "output_norm": 1.5}
                   for (token, layer), pairs in choices.items() for expert, weight in pairs]
    content = {"model_id": "tiny", "num_layers": 4, "num_experts": 4, "top_k": 2, "token_ids": [8, 9], "token_strs": ["a", "\u00e9"],
               "activations": activations, "domain": "law"}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content | changes))
    return path


def torch_pickle(path: Path) -> Path:
    """What begins as torch's own files do; it is never unpickled."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"cos\nsystem\n(S'touch canary'\ntR.")
    return path


def esft_npz(folder: Path) -> Path:
    """Two layers, a sequence of two tokens and one of one, top-2 of 64."""
    return npz(folder / "task.npz", {
        "expert_ids": np.array([[[9, 4], [63, 0], [5, 6]], [[1, 2], [3, 4], [30, 20]]], np.uint8),
        "weight_e4": np.array([[[100, 200], [3000, 1], [7, 7]], [[50, 40], [30, 20], [9000, 900]]], np.uint16),
        "doc_len": np.array([2, 1], np.int32), "layers": np.array([1, 2])})


def object_npz(path: Path) -> Path:
    """An .npz with a member that numpy would unpickle."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("doc_id.npy", buffer.getvalue())
    return path


EXAMPLES: dict[str, tuple[str, Callable[[Path], Path]]] = {  # name -> format, what writes one
    "gptoss_json": ("gptoss", gptoss_json), "gptoss_npz": ("gptoss", gptoss_npz),
    "esft_npz": ("esft", esft_npz), "olmoe_counts": ("olmoe-counts", olmoe_counts), "olmoe_jsonl": ("olmoe-jsonl", olmoe_jsonl),
    "esft_text": ("esft-text", esft_text), "megatron": ("megatron", megatron), "tensorrt": ("tensorrt", tensorrt),
    "flame_moe": ("flame-moe", flame_moe), "moe_lrc": ("moe-lrc", moe_lrc),
    "moe_infinity": ("moe-infinity", moe_infinity), "moe_atlas": ("moe-atlas", moe_atlas),
}
OPTIONS: dict[str, dict[str, Any]] = {"gptoss_json": {"n_experts": 4}, "gptoss_npz": {"n_experts": 4},
                                      "olmoe_jsonl": {"n_experts": 4, "model": "tiny"}, "esft_text": {"n_experts": 8, "top_k": 3},
                                      "flame_moe": {"n_experts": 8}, "moe_lrc": {"top_k": 2}, "moe_infinity": {"top_k": 2}}
LINES = ("olmoe_jsonl", "megatron")  # whole lines can be cut off unseen
CHECKSUMMED = ("esft_npz", "gptoss_npz", "olmoe_counts")  # a changed byte of these is never a number
