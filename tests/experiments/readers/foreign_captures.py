"""Small pickles, .pt files and responses as their writers make them, with numbers chosen by hand; no code of the readers is used."""

from __future__ import annotations

import base64
import json
import pickle  # noqa: TID251 - writes what is read elsewhere
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.experiments.readers.foreign_files import npy


@dataclass
class GatingDataPoint:
    """The record of the collectors; it pickles as `__main__.GatingDataPoint`, for collectors are scripts."""

    layer_id: int
    hidden_states: Any
    target_routing: Any
    target_top_k: Any
    sequence_length: int
    token_ids: Any
    dataset_name: str
    sample_id: str


GatingDataPoint.__module__, GatingDataPoint.__qualname__ = "__main__", "GatingDataPoint"

# sample -> layer -> token -> probabilities of four experts, exact in float16
ROUTING = {
    "imdb_0": {1: [[0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.5, 0.0]], 3: [[0.0, 1.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]]},
    "cnn_dailymail_7": {1: [[0.125, 0.125, 0.25, 0.5]], 3: [[0.5, 0.5, 0.0, 0.0]]},
}
TOKENS = {"imdb_0": [11, 12], "cnn_dailymail_7": [9]}
CHOSEN = {1: [0, 2, 3], 3: [1, 0, 0]}  # layer -> top-1 of all three tokens, the first of equals
LN2 = float(np.log(2))
ENTROPY = {1: [1.75 * LN2, 1.5 * LN2, 1.75 * LN2], 3: [0.0, 2 * LN2, LN2]}
SIMPSON = {1: [0.34375, 0.375, 0.34375], 3: [1.0, 0.25, 0.5]}  # 1/4 + 1/16 + 2/64; 2/16 + 1/4


def seed_records(kind: str = "dict", padding: int = 0) -> list[Any]:
    """One record per sample and layer: mappings of arrays, or data points of tensors; padding: rows of zeros at the end."""
    found: list[Any] = []
    for sample, layers in ROUTING.items():
        for layer, rows in layers.items():
            routing = np.array(rows + [[0.0] * 4] * padding, np.float16 if kind == "dict" else np.float32)
            top = routing.argmax(axis=1, keepdims=True)
            name, length = f"{sample}_layer_{layer}", len(rows)
            tokens = np.array(TOKENS[sample] + [0] * padding)
            if kind == "dict":
                found.append({"layer_id": layer, "target_routing": routing, "target_top_k": top, "sample_id": name, "sequence_length": length,
                              "hidden_states": np.zeros((len(routing), 64))})
            else:
                found.append(GatingDataPoint(layer, torch.zeros(len(routing), 64), torch.from_numpy(routing), torch.from_numpy(top), length,
                                             torch.from_numpy(tokens), sample.rpartition("_")[0], name))
    return found


def pickled(path: Path, content: Any, protocol: int = 4) -> Path:
    """pickle.dump of an object of a script."""
    import sys

    main = sys.modules["__main__"]
    main.GatingDataPoint = GatingDataPoint  # type: ignore[attr-defined]
    try:
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    finally:
        del main.GatingDataPoint  # type: ignore[attr-defined]
    return path


def pickle_dicts(folder: Path) -> Path:
    return pickled(folder / "robust_traces.pkl", seed_records())


def pickle_points(folder: Path) -> Path:
    return pickled(folder / "robust_traces.pkl", seed_records("points", padding=2))


# domain -> layer -> (first, second) choice of each token: three layers, four experts, top-2
OLMOE = {"c4": [[(0, 1), (2, 3), (0, 3)], [(1, 2), (1, 0), (3, 2)], [(0, 2), (2, 1), (0, 1)]],
         "code": [[(3, 2), (3, 0), (1, 2)], [(0, 1), (2, 1), (2, 3)], [(3, 1), (3, 0), (1, 3)]]}
TYPED = {"c4": [5, 6, 5], "code": [7, 7, 8]}  # token id of each token


def olmoe_pickles(folder: Path, first: bool = True, siblings: bool = True) -> Path:
    """expert_counts and its siblings, as the script writes them."""
    for domain, layers in OLMOE.items():
        tables: dict[str, Any] = {
            "expert_counts": [Counter(np.int64(one) for ids in layer for one in ids) for layer in layers],
            "expert_counts_top1": [Counter(np.int64(ids[0]) for ids in layer) for layer in layers],
            "expert_counts_crosslayer": [Counter((a, b) for ids, others in zip(one, other) for a, b in zip(ids, others))
                                         for one, other in zip(layers, layers[1:])],
            "expert_counts_crosslayer_top1": [Counter((ids[0], others[0]) for ids, others in zip(one, other))
                                              for one, other in zip(layers, layers[1:])],
            "eid2token": [{expert: Counter(token for token, ids in zip(TYPED[domain], layer) if expert in ids) for expert in range(4)}
                          for layer in layers],
        }
        for kind, content in tables.items():
            if (first or not kind.endswith("_top1")) and (siblings or kind.startswith("expert_counts") and "cross" not in kind):
                (folder / "olmoe" / kind).mkdir(parents=True, exist_ok=True)
                (folder / "olmoe" / kind / f"{domain}.pkl").write_bytes(pickle.dumps(content))
    return folder / "olmoe"


# request -> token -> layer -> ids; of three hidden layers the first is dense, top-2 of 300 experts
CAPTURED = {"cmpl-a": [[[0, 0], [5, 299], [1, 2]], [[0, 0], [7, 3], [0, 4]], [[0, 0], [0, 1], [9, 8]]], "cmpl-b": [[[0, 0], [3, 4], [6, 7]]]}
PROMPTS = {"cmpl-a": ([10, 11], [12, 13]), "cmpl-b": ([20], [21])}  # prompt and sampled tokens; the last has no row


def vllm_arrays(folder: Path) -> Path:
    (folder / "routed").mkdir()
    for name, tokens in CAPTURED.items():
        (folder / "routed" / f"{name}.npy").write_bytes(npy(np.array(tokens, np.uint16)))
    return folder / "routed"


def vllm_response(name: str, nested: bool, **changes: Any) -> dict[str, Any]:
    array = np.array(CAPTURED[name], np.uint16)
    prompt, sampled = PROMPTS[name]
    return {"id": name, "object": "text_completion", "model": "m", "prompt_token_ids": prompt, "choices": [
        {"index": 0, "text": "\u65e5", "token_ids": sampled, "routed_experts": array.tolist() if nested else base64.b64encode(npy(array)).decode()}],
        "usage": {"prompt_tokens": len(prompt), "completion_tokens": len(sampled)}} | changes


def vllm_lines(folder: Path) -> Path:
    lines = [json.dumps(vllm_response(name, nested)) for name, nested in (("cmpl-a", True), ("cmpl-b", False))]
    (folder / "responses.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "responses.jsonl"


def vllm_json(folder: Path) -> Path:
    (folder / "responses.json").write_text(json.dumps([vllm_response(name, False) for name in CAPTURED], indent=1))
    return folder / "responses.json"


def vllm_stats_file(folder: Path, rank: int, local: list[int], steps: list[list[int]], iteration: int = 0) -> Path:
    """One layer of four experts, top-2; steps: useful assignments of the local experts."""
    records: list[dict[str, Any]] = [{"record_type": "metadata", "schema_version": 2, "iteration": iteration, "global_rank": rank, "top_k": 2,
                                      "capture_backend": "x", "layers": [{"layer_id": 3, "global_num_experts": 4, "local_expert_ids": local,
                                                                          "placement_strategy": "linear", "capture_backend": "x"}]}]
    records += [{"record_type": "decode_step", "decode_step": number, "num_reqs": 2, "num_scheduled_tokens": 2, "num_physical_tokens": 4,
                 "num_padding_tokens": 2, "layers": [{"layer_id": 3, "useful_route_sha256": f"{number}", "physical_route_sha256": "y",
                                                      "useful_local_assignments_per_expert": counts,
                                                      "physical_local_assignments_per_expert": [one + 1 for one in counts],
                                                      "padding_local_assignments_per_expert": [1 for _ in counts]}]}
                for number, counts in enumerate(steps)]
    path = folder / f"expert-routing-rank-{rank}-iteration-{iteration}.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [*records, {"record_type": "summary"}]))
    return path


def vllm_stats(folder: Path) -> Path:
    (folder / "stats").mkdir()
    vllm_stats_file(folder / "stats", 0, [0, 1], [[1, 2], [0, 1]])
    vllm_stats_file(folder / "stats", 1, [2, 3], [[1, 0], [3, 0]])
    return folder / "stats"


def sglang_response(name: str, start: int = 0) -> dict[str, Any]:
    content = np.array(CAPTURED[name], "<i4")[start:].tobytes()
    prompt, sampled = PROMPTS[name]
    return {"text": "x", "output_ids": sampled, "meta_info": {"id": name, "prompt_tokens": len(prompt), "completion_tokens": len(sampled),
                                                              "routed_experts": base64.b64encode(content).decode()}}


def sglang(folder: Path) -> Path:
    (folder / "generate.jsonl").write_text("".join(json.dumps(sglang_response(name)) + "\n" for name in CAPTURED))
    return folder / "generate.jsonl"


PLACES = [[0, 1, 2, 3, 0, 2], [3, 2, 1, 0, 1, 1]]  # layer -> expert of each of six places


def recorder_stat(folder: Path) -> Path:
    """Two used steps of a buffer of three; the first of three layers is dense."""
    counts = torch.zeros(3, 3, 4, dtype=torch.int32)
    counts[0, 1:] = torch.tensor([[1, 2, 0, 1], [4, 0, 0, 0]])
    counts[1, 1:] = torch.tensor([[0, 0, 2, 2], [1, 1, 1, 1]])
    torch.save({"rank": 0, "logical_count": counts, "average_utilization_rate_over_window": None}, folder / "expert_distribution_recorder_1.5.pt")
    return folder / "expert_distribution_recorder_1.5.pt"


def recorder_passes(folder: Path, ranks: int = 2, alike: bool = False) -> Path:
    """Counts by place of two passes; ranks of their own tokens count other numbers."""
    (folder / "dumps").mkdir()
    for rank in range(ranks):
        add = 0 if alike else rank
        records = [{"forward_pass_id": number, "rank": rank, "gatherer_key": "primary", "global_physical_count": torch.tensor(
            [[1, 0, 2, 0, 3, number], [0, 1, 1, 2, 2, add]], dtype=torch.int32)} for number in range(2)]
        torch.save({"records": records, "last_physical_to_logical_map": torch.tensor(PLACES)},
                   folder / "dumps" / f"expert_distribution_recorder_2_{rank}.pt")
    return folder / "dumps"


def token_record(mode: int, tokens: list[int], positions: list[int], lengths: list[int] | None, places: list[list[list[int]]]) -> dict[str, Any]:
    """places: [layer][token] of two places, padded to eight slots."""
    padded = torch.full((2, len(tokens), 8), -1, dtype=torch.int32)
    padded[:, :, :2] = torch.tensor(places, dtype=torch.int32).reshape(2, len(tokens), 2)
    return {"forward_pass_id": 1, "rank": 0, "gatherer_key": "primary", "input_ids": tokens, "positions": positions, "extend_seq_lens": lengths,
            "forward_mode": mode, "topk_ids_of_layer": padded, "misc_objects": []}


def recorder_tokens(folder: Path) -> Path:
    """Prompts of two tokens and of one, then a token of each, then one of the first."""
    records = [token_record(1, [10, 11, 20], [0, 1, 0], [2, 1], [[[4, 1], [5, 3], [0, 2]], [[0, 1], [4, 3], [5, 0]]]),
               token_record(2, [12, 21], [2, 1], None, [[[1, 2], [2, 0]], [[1, 0], [3, 2]]]),
               token_record(2, [13], [3], None, [[[3, 4]], [[2, 3]]]), token_record(4, [], [], None, [[], []])]
    torch.save({"records": records, "last_physical_to_logical_map": torch.tensor(PLACES)}, folder / "expert_distribution_recorder_3_0.pt")
    return folder / "expert_distribution_recorder_3_0.pt"


def sglang_csv(folder: Path) -> Path:
    (folder / "counts.csv").write_text("layer_id,expert_id,count\n0,0,3\n0,2,5\n1,1,8\n")
    return folder / "counts.csv"


EXAMPLES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "pickle_dicts": ("pickled", pickle_dicts), "pickle_points": ("pickled", pickle_points),
    "olmoe_pickle": ("olmoe-pickles", lambda folder: olmoe_pickles(folder, siblings=False)),
    "vllm_arrays": ("vllm", vllm_arrays), "vllm_lines": ("vllm", vllm_lines), "vllm_json": ("vllm", vllm_json),
    "vllm_stats": ("vllm-stats", vllm_stats), "sglang": ("sglang", sglang), "recorder_stat": ("sglang-recorder", recorder_stat),
    "recorder_passes": ("sglang-recorder", recorder_passes),
    "recorder_csv": ("sglang-recorder", sglang_csv), "recorder_tokens": ("sglang-tokens", recorder_tokens),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "olmoe_pickle": {"n_experts": 4}, "sglang": {"n_experts": 300, "top_k": 2}, "recorder_csv": {"n_experts": 4, "top_k": 2},
    **{name: {"n_experts": 300} for name in ("vllm_arrays", "vllm_lines", "vllm_json")},
    **{name: {"top_k": 2} for name in ("recorder_stat", "recorder_passes")},
}
CUT_UNSEEN = ("vllm_stats", "sglang", "vllm_lines", "recorder_csv")  # lines of JSON: cut between two of them, a shorter file of the format
