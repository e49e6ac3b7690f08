"""How good the testbed is on documents it never saw: cross-entropy and the load of every expert."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.progress import Task
from experiments.specs import TestbedSpec
from experiments.testbed.model import routers_heard
from experiments.testbed.tokenizer import encode
from experiments.testbed.windows import Windows, cut_into_windows, spread

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from transformers import MixtralForCausalLM

WINDOWS_PER_DOMAIN = 48
DEAD_BELOW = 0.1  # of the fair share 1/E


def measure(model: MixtralForCausalLM, tokenizer: Tokenizer, texts: dict[str, list[str]], spec: TestbedSpec, task: Task) -> dict[str, Any]:
    """Held-out cross-entropy in nats per token, over all and by domain, and the load of each layer, on windows of calibration documents.

    A domain without such documents is absent; without any, the cross-entropy is None.
    """
    sums: dict[str, tuple[float, int]] = {}
    counts_LE = np.zeros((spec.layers, spec.experts), dtype=np.int64)
    for domain, of_domain in texts.items():
        if of_domain:
            windows = spread(cut_into_windows(encode(tokenizer, of_domain), spec.window), WINDOWS_PER_DOMAIN)
            nats, n_tokens, counts = _sums(model, windows, spec)
            sums[domain] = (nats, n_tokens)
            counts_LE += counts
            task.advance(n_tokens)
    n_tokens = sum(n for _, n in sums.values())
    return {
        "held_out_split": "calibration",
        "held_out_tokens": n_tokens,
        "held_out_nats": sum(nats for nats, _ in sums.values()) / n_tokens if n_tokens else None,
        "held_out_nats_by_domain": {domain: nats / n for domain, (nats, n) in sums.items() if n},
        "load": [load_of(counts_E) for counts_E in counts_LE],
    }


def _sums(model: MixtralForCausalLM, windows: Windows, spec: TestbedSpec) -> tuple[float, int, NDArray[np.int64]]:
    """Summed nats, predicted tokens and choices [layer, expert] over windows, padding left out."""
    import torch

    nats, n_tokens = 0.0, 0
    counts_LE = np.zeros((spec.layers, spec.experts), dtype=np.int64)
    model.eval()  # type: ignore[no-untyped-call]
    with torch.inference_mode(), routers_heard(model) as heard:
        for start in range(0, len(windows), spec.batch):
            lengths = torch.from_numpy(windows.lengths_W[start : start + spec.batch])
            longest = int(lengths.max())
            ids = torch.from_numpy(windows.ids_WS[start : start + spec.batch, :longest])
            real = torch.arange(longest) < lengths[:, None]
            logits = model(input_ids=ids, use_cache=False).logits
            labels = torch.where(real, ids, -100)[:, 1:].flatten()
            nats += float(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels, ignore_index=-100, reduction="sum"))
            n_tokens += int((labels != -100).sum())
            for layer, (_, experts) in enumerate(heard):
                counts_LE[layer] += torch.bincount(experts[real.flatten()].flatten(), minlength=spec.experts).numpy()
    return nats, n_tokens, counts_LE


def load_of(counts_E: NDArray[np.int64]) -> dict[str, Any]:
    """Usage entropy over ln E, in [0, 1], and share of experts below a tenth of the fair share; None without any choice."""
    total, n_experts = int(counts_E.sum()), int(counts_E.size)
    if total == 0:
        return {"usage_entropy": None, "dead_share": None, "counts": counts_E.tolist()}
    shares = counts_E[counts_E > 0] / total
    entropy = float(-(shares * np.log(shares)).sum()) / math.log(n_experts) if n_experts > 1 else None
    return {
        "usage_entropy": entropy,
        "dead_share": float(np.mean(counts_E < DEAD_BELOW * total / n_experts)),
        "counts": counts_E.tolist(),
    }
