"""Memory a model needs, by arithmetic on its config, against what is free."""

from __future__ import annotations

import re
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.sources.errors import SourceError

if TYPE_CHECKING:
    import torch

EXPERT = re.compile(r"\.experts\.|\.(block_sparse_moe|moe|mlp)\.(input|output)_linear\.|\.(up|down)_embed\.")
BYTES_PER_EXPERT_WEIGHT = {"8bit": 1.0, "4bit": 0.5625}  # nf4: half a byte, and a float32 scale per 64 weights
MB = 1e6


@dataclass(frozen=True)
class Footprint:
    """Bytes: expert weights, other weights, and working memory of one batch; `dtype_bytes` per unquantised weight."""

    expert_bytes: int
    other_bytes: int
    working_bytes: int
    dtype_bytes: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.expert_bytes + self.other_bytes + self.working_bytes


def is_expert(name: str) -> bool:
    """Whether a parameter belongs to routed experts; shared experts, which always run, do not."""
    return bool(EXPERT.search(f".{name}.")) and "shared" not in name


def meta_model(config: Any) -> Any:
    """The model's modules and shapes, without a byte of weights."""
    import torch

    from experiments.sources.loading import model_class

    try:
        with torch.device("meta"):
            return model_class(config).from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, AttributeError, TypeError, NotImplementedError, RuntimeError) as error:
        raise SourceError(f"model_type {config.model_type!r}: its config describes no model that can be built "
                          f"({str(error).strip().splitlines()[0]})") from error


def footprint(model: Any, dtype: torch.dtype, quantize: str | None, batch_size: int, max_length: int) -> Footprint:
    """Bytes needed to hold `model` (on meta) and run one batch."""
    import torch

    width = torch.empty((), dtype=dtype).element_size()
    experts = sum(parameter.numel() for name, parameter in model.named_parameters() if is_expert(name))
    others = sum(parameter.numel() for name, parameter in model.named_parameters() if not is_expert(name))
    others += sum(buffer.numel() for buffer in model.buffers())
    text = model.config.get_text_config()
    hidden: int = getattr(text, "hidden_size", None) or getattr(text, "d_model", None) or 1024
    rows = batch_size * max_length
    largest = max((parameter.numel() for name, parameter in model.named_parameters() if is_expert(name)), default=0)
    dequantised = 2 * largest * width if quantize else 0
    working = rows * hidden * 24 * max(width, 2) + batch_size * max_length**2 * width + dequantised
    return Footprint(int(experts * BYTES_PER_EXPERT_WEIGHT.get(quantize or "", width)), others * width, working, width)


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be had on `device`: of the machine, of the control group and of this process, whichever is least."""
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [int(psutil.virtual_memory().available)]
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY:
        limits.append(soft - int(psutil.Process().memory_info().vms))
    ceiling, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if ceiling.is_file() and used.is_file() and (text := ceiling.read_text().strip()) != "max":
        limits.append(int(text) - int(used.read_text()))
    return max(0, min(limits))


def require_memory(need: Footprint, free: int, device: torch.device, name: str, quantize: str | None) -> None:
    """Refuse a model that does not fit, with the numbers and what would help."""
    if need.total <= free:
        return
    remedies = ["lower batch_size or max_length"] if need.working_bytes > 0.2 * need.total else []
    if quantize is None:
        saved = need.expert_bytes * (1 - 1 / need.dtype_bytes)
        remedies.append(f'quantize = "8bit" (saves {saved / MB:,.0f} MB)')
    elif quantize == "8bit":
        remedies.append('quantize = "4bit"')
    if need.dtype_bytes == 4:
        remedies.append('dtype = "bfloat16" (halves the weights)')
    remedies.append("a machine with more memory")
    raise SourceError(f"collection from {name} needs {need.total / MB:,.0f} MB on {device} (experts {need.expert_bytes / MB:,.0f}, "
                      f"other weights {need.other_bytes / MB:,.0f}, one batch {need.working_bytes / MB:,.0f}), "
                      f"limit {free / MB:,.0f} MB free; {'; or '.join(remedies)}")
