"""What is refused before anything is loaded or created, and what the refusal says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.declaration import SourceSpec
from experiments.sources.errors import SourceError
from experiments.sources.loading import device_of, dtype_of, locate
from experiments.sources.memory import Footprint, footprint, free_bytes, meta_model, require_memory
from tests.experiments.sources import tiny_checkpoints
from tests.experiments.sources.capturing import opened

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.save("mixtral", tmp_path_factory.mktemp("saved"))


@pytest.fixture
def checkpoint(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def test_a_hub_id_that_cannot_be_reached_names_itself_and_the_offline_way() -> None:
    program = ("from experiments.declaration import SourceSpec\nfrom experiments.sources.errors import SourceError\n"
               "from experiments.sources.loading import locate\n"
               "try:\n    locate(SourceSpec(model='nobody/no-such-model'))\nexcept SourceError as error:\n    print(error)\n")
    out = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
                         env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}).stdout
    assert "nobody/no-such-model" in out and "hf download nobody/no-such-model --local-dir DIR" in out


def test_a_cached_hub_model_is_used_offline_at_its_commit(saved: Path, tmp_path: Path) -> None:
    commit, repository = "0123456789abcdef0123456789abcdef01234567", tmp_path / "hub" / "models--somebody--tiny"
    shutil.copytree(saved, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    program = ("from experiments.declaration import SourceSpec\nfrom experiments.progress import Silent\n"
               "from experiments.sources.huggingface import HuggingFaceSource\n"
               "print(HuggingFaceSource.open(SourceSpec(model='somebody/tiny', device='cpu'), Silent()).meta.revision)")
    out = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
                         env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1",
                              "PYTHONPATH": str(ROOT)}).stdout
    assert out.strip() == commit


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/dir", "a b", "x/y/z"])
def test_a_path_that_is_not_there(name: str) -> None:
    with pytest.raises(SourceError, match="no such checkpoint directory"):
        locate(SourceSpec(model=name))


def test_a_directory_without_config(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no config\.json"):
        locate(SourceSpec(model=str(tmp_path)))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused_with_the_conversion(checkpoint: Path, name: str) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / name)
    with pytest.raises(SourceError, match=rf"{name} is a pickle.*only safetensors.*save_pretrained"):
        locate(SourceSpec(model=str(checkpoint)))


def test_missing_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(SourceError, match="the weights are missing"):
        locate(SourceSpec(model=str(checkpoint)))


@pytest.mark.parametrize("content", [b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",
                                     (2**63).to_bytes(8, "little") + b"{}", b""])
def test_a_safetensors_name_on_something_else(checkpoint: Path, content: bytes) -> None:
    (checkpoint / "model.safetensors").write_bytes(content)
    with pytest.raises(SourceError, match="weights cannot be read"):
        opened(checkpoint)


def test_a_truncated_checkpoint(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(SourceError, match="weights cannot be read"):
        opened(checkpoint)


def test_weights_of_another_shape(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"num_local_experts": 4}))
    with pytest.raises(SourceError, match="do not fit its config"):
        opened(checkpoint)


def test_a_config_that_wants_to_run_code_is_refused(checkpoint: Path) -> None:
    (checkpoint / "evil.py").write_text("raise SystemExit('ran')")
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"}}
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match="remote code is never run"):
        locate(SourceSpec(model=str(checkpoint)))


def test_a_tokenizer_that_is_missing(checkpoint: Path) -> None:
    for path in checkpoint.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(SourceError, match="tokenizer"):
        opened(checkpoint)


def test_the_digest_is_of_contents_not_of_place(checkpoint: Path, saved: Path) -> None:
    assert locate(SourceSpec(model=str(checkpoint))).revision == locate(SourceSpec(model=str(saved))).revision
    weights = bytearray((checkpoint / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (checkpoint / "model.safetensors").write_bytes(weights)
    assert locate(SourceSpec(model=str(checkpoint))).revision != locate(SourceSpec(model=str(saved))).revision


def test_device_and_dtype_by_name(saved: Path) -> None:
    config = locate(SourceSpec(model=str(saved))).config
    assert dtype_of("bf16", config) is torch.bfloat16 and dtype_of("auto", config) is torch.float32
    with pytest.raises(SourceError, match="dtype: 'int3' is not known"):
        dtype_of("int3", config)
    with pytest.raises(SourceError, match="not a torch device"):
        device_of("toaster")
    if not torch.cuda.is_available():
        assert device_of("auto").type == "cpu"
        with pytest.raises(SourceError, match="sees no CUDA device"):
            device_of("cuda")


def test_a_model_that_does_not_fit_is_refused_before_its_weights_are_read(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {"hidden_size": 16384, "intermediate_size": 65536, "num_hidden_layers": 100, "num_local_experts": 64}
    (checkpoint / "config.json").write_text(json.dumps(config))
    (checkpoint / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(SourceError, match=r"needs [\d,]+ MB on cpu \(experts [\d,]+, .*limit [\d,]+ MB free; .*quantize = \"8bit\""):
        opened(checkpoint)


def test_footprint_counts_parameters(saved: Path) -> None:
    shape = meta_model(locate(SourceSpec(model=str(saved))).config)
    experts = 2 * 8 * (64 * 32 + 32 * 32)  # layers x experts x (gate_up + down)
    need = footprint(shape, torch.bfloat16, None, 1, 8)
    assert need.expert_bytes == 2 * experts
    assert need.other_bytes == 2 * (sum(p.numel() for p in shape.parameters()) - experts + sum(b.numel() for b in shape.buffers()))
    assert footprint(shape, torch.bfloat16, "8bit", 1, 8).expert_bytes == experts
    assert footprint(shape, torch.bfloat16, "4bit", 1, 8).expert_bytes == int(experts * 0.5625)


def test_mixtral_8x7b_by_arithmetic() -> None:
    """ecosystem.md §8: experts 45.1 B parameters, bf16 93.4 GB, int8 experts 48.3 GB."""
    import transformers

    config = transformers.MixtralConfig(vocab_size=32000, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
                                        num_attention_heads=32, num_key_value_heads=8, num_local_experts=8)
    shape = meta_model(config)
    whole, int8 = (footprint(shape, torch.bfloat16, quantize, 1, 1) for quantize in (None, "8bit"))
    assert whole.expert_bytes / 2 == pytest.approx(45.1e9, rel=1e-3)
    assert whole.expert_bytes + whole.other_bytes == pytest.approx(93.4e9, rel=1e-3)
    assert int8.expert_bytes + int8.other_bytes == pytest.approx(48.3e9, rel=2e-3)


def test_free_memory_knows_the_limit_of_the_process() -> None:
    program = ("import resource, torch\nresource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\n"
               "from experiments.sources.memory import free_bytes\nprint(free_bytes(torch.device('cpu')))")
    out = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout
    assert 0 < int(out) < 8 << 30
    assert free_bytes(torch.device("cpu")) > 0


def test_the_remedies_depend_on_what_is_large() -> None:
    device = torch.device("cpu")
    with pytest.raises(SourceError, match="lower batch_size or max_length"):
        require_memory(Footprint(10, 10, 1000, 2), 100, device, "m", "8bit")
    with pytest.raises(SourceError, match=r'dtype = "bfloat16"'):
        require_memory(Footprint(1000, 10, 10, 4), 100, device, "m", None)
    require_memory(Footprint(1000, 10, 10, 4), 1020, device, "m", None)
