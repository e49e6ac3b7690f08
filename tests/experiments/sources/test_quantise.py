"""Quantised experts are really quantised, counted and close to the unquantised routing, or refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.declaration import SourceSpec
from experiments.progress import Silent
from experiments.sources import quantise
from experiments.sources.errors import SourceError
from experiments.sources.loading import Checkpoint, load_model, locate
from experiments.sources.quantise import expert_matrices, expert_storage
from tests.experiments.sources import tiny_checkpoints
from tests.experiments.sources.capturing import Shelf, documents, opened

if importlib.util.find_spec("torchao") is None:
    pytest.skip("torchao is an extra: pip install 'moe-assay[torchao]'", allow_module_level=True)


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.save("mixtral", tmp_path_factory.mktemp("mixtral"), dtype=torch.bfloat16)


@pytest.mark.parametrize(("quantize", "method", "largest"), [("8bit", "torchao int8", 0.6), ("4bit", "bitsandbytes nf4", 0.3)])
def test_experts_are_quantised_and_the_router_is_not(mixtral: Path, quantize: str, method: str, largest: float) -> None:
    source = opened(mixtral, quantize=quantize)
    record = source.meta.details["quantisation"]
    assert record["share_of_expert_weights"] >= 0.95 and record["method"].startswith(method)
    assert record["expert_bytes"] < largest * record["expert_bytes_before"]
    assert record["torchao" if quantize == "8bit" else "bitsandbytes"]
    assert all(site.module.weight.dtype == torch.bfloat16 for site in source.opened.sites)
    assert source.meta.details["conformance"]["layers"]["model.layers.0.mlp.gate"]["router_dtype"] == "bfloat16"
    assert source.opened.model.model.layers[0].self_attn.q_proj.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(("quantize", "least"), [("8bit", 0.9), ("4bit", 0.6)])
def test_routing_stays_near_the_unquantised_one(mixtral: Path, quantize: str, least: float) -> None:
    """ecosystem.md §8: same top-2 set as bf16 .95-.99 (int8), .63-.9 (nf4) on random routers, which have many near ties."""
    shelves = []
    for asked in (None, quantize):
        source, shelf = opened(mixtral, quantize=asked), Shelf()
        source.collect(documents(source), shelf, Silent())
        shelves.append(shelf)
    same = [np.sort(a, axis=1) == np.sort(b, axis=1) for n in shelves[0].shards
            for a, b in zip(shelves[0].shards[n].ids, shelves[1].shards[n].ids)]
    share = float(np.concatenate([rows.all(axis=1) for rows in same]).mean())
    assert least <= share < 1


def test_a_quantised_trace_is_another_trace(mixtral: Path) -> None:
    assert opened(mixtral, quantize="8bit").meta != opened(mixtral).meta


@pytest.mark.parametrize(("architecture", "quantize"),
                         [("deepseek_v3", "8bit"), ("switch", "8bit"), ("gpt_oss", "4bit"), ("llama4", "4bit")])
def test_other_shapes_of_experts(tmp_path: Path, architecture: str, quantize: str) -> None:
    record = opened(tiny_checkpoints.save(architecture, tmp_path, dtype=torch.bfloat16), quantize=quantize).meta.details["quantisation"]
    assert record["share_of_expert_weights"] >= 0.95


@pytest.mark.parametrize("architecture", ["gpt_oss", "llama4"])
def test_what_cannot_be_run_is_refused(tmp_path: Path, architecture: str) -> None:
    with pytest.raises(SourceError, match=r'quantize = "8bit": the quantised experts of \w+ cannot be run'):
        opened(tiny_checkpoints.save(architecture, tmp_path, dtype=torch.bfloat16), quantize="8bit")


def test_the_ordinary_settings_would_leave_experts_alone_and_are_caught(mixtral: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes replaces nn.Linear only; fused experts stay bf16 (ecosystem.md §8)."""
    from transformers import BitsAndBytesConfig

    def ordinary(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, names: list[str]) -> object:
        return load_model(checkpoint, dtype, quantization_config=BitsAndBytesConfig(load_in_4bit=True))

    monkeypatch.setattr(quantise, "_nf4", ordinary)
    with pytest.raises(SourceError, match=r"only 0\.0% of the expert weights of MixtralForCausalLM were quantised"):
        opened(mixtral, quantize="4bit")


def test_a_missing_library_names_the_extra(mixtral: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torchao" else find(name, *rest))
    with pytest.raises(SourceError, match=r"needs torchao, which is not installed; run `pip install 'moe-assay\[torchao\]'`"):
        opened(mixtral, quantize="8bit")


def test_unquantised_storage_counts_as_none(mixtral: Path) -> None:
    spec = SourceSpec(model=str(mixtral))
    model = load_model(locate(spec), torch.bfloat16)
    assert expert_storage(model) == (0, 2 * 2 * 8 * (64 * 32 + 32 * 32))
    assert len(expert_matrices(model)) == 4  # gate_up and down of two layers
