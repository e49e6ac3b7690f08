"""Plain facts of a VAR evaluation: sample sizes, layers, thresholds, and the seed's own numbers as the seed computes them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from analysis.kernels import FIXED_ONE, Float, Int
from analysis.metrics import zipf
from analysis.metrics.consistency import modal_share
from analysis.metrics.frequency import spearman, spearman_p
from hypotheses.var_evidence import HALF_NAT, VarCounts
from hypotheses.var_tables import Measured


def facts(measured: Measured) -> dict[str, Any]:
    """Everything that is stated beside the estimates."""
    counts, settings = measured.counts, measured.counts.settings
    test = counts.test
    found = Counter(document.domain for document in test.units.documents)
    return {
        "n_documents": len(test.units.documents),
        "n_documents_per_domain": {domain: found[domain] for domain in sorted({*found, *counts.evidence.domains})},
        "n_layers_left_out": _layers_left_out(counts),
        "n_documents_calibration": len(counts.calibration.units.documents),
        "n_documents_frequency": int(counts.evidence.frequency.shape[0]),
        "n_tokens": test.n_tokens, "n_tokens_calibration": counts.calibration.n_tokens,
        "n_tokens_frequency": int(counts.frequency_V.sum()),
        "n_types": int((test.n_V > 0).sum()), "n_types_judged": len(counts.judged),
        "n_types_eligible": measured.fast_path.chosen.sum(axis=1).tolist(),
        "min_type_count": settings.min_type_count, "frequency_threshold": settings.frequency_threshold,
        "entropy_threshold": str(settings.entropy_threshold), "entropy_unit": "nats", "resampled": test.units.name,
        "n_bootstrap": settings.n_bootstrap, "n_null": settings.n_null, "seed": settings.seed,
        "layers": [{"key": layer.key, "depth": layer.depth, "n_experts": layer.n_experts, "top_k": layer.top_k,
                    "threshold_nats": float(limit)} for layer, limit in zip(counts.layers, counts.thresholds_HL[0])],
        "excluded": dict(counts.evidence.trace.meta.details.get("excluded", {})) if counts.evidence.trace.meta.details else {},
        "entropy": [_moments(counts, layer) for layer in range(len(counts.layers))],
        "seed_rule": seed_rule(counts),
    }


def _layers_left_out(counts: VarCounts) -> int:
    """MoE layers of the model that the trace has not."""
    trace = counts.evidence.trace
    return int(trace.meta.details.get("moe_layers_of_model", len(trace.meta.layers))) - len(trace.meta.layers)


def seed_rule(counts: VarCounts) -> dict[str, Any]:
    """Seed 003 computed as written, on the test tokens: one layer (its default, the first), every type seen, 0.5 nats, point estimates.

    Frequency, entropy, eligibility and coverage all come from the same tokens. by_layer has the same numbers for each layer.
    """
    layers = [_seed_layer(counts, layer) for layer in range(len(counts.layers))]
    first = layers[0] if layers else {}
    return {**first, "layer": 0, "population": "test documents, first MoE layer, every token type seen", "by_layer": layers}


def _seed_layer(counts: VarCounts, layer: int) -> dict[str, Any]:
    test, settings = counts.test, counts.settings
    types = np.flatnonzero(test.n_V)
    n, choices = test.n_V[types], test.choices[layer]
    return seed_numbers(types, n, test.mean_entropy_LV[layer, types], modal_share(choices.dense(choices.n, types), n),
                        limit_nats=HALF_NAT.nats(test.layers[layer].n_experts), frequency_threshold=settings.frequency_threshold,
                        top_types=settings.top_types)


def seed_numbers(types: Int, n: Int, mean: Float, modal: Float, *, limit_nats: float, frequency_threshold: int, top_types: int) -> dict[str, Any]:
    """What the seed prints of one layer, from token ids, occurrences, mean entropies (nats) and modal shares [m]; None where undefined."""
    rho = float(spearman(n.astype(np.float64), mean)) if len(types) else float("nan")
    low = mean < limit_nats
    eligible = low & (n >= frequency_threshold)
    frequent = np.lexsort((types, -n))[:top_types]

    def stated(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    def mean_of(values: np.ndarray[Any, np.dtype[Any]]) -> float | None:
        return stated(values.mean()) if len(values) else None

    return {"rho": stated(rho), "p": spearman_p(rho, len(types)), "n_types": len(types), "share": mean_of(low),
            "coverage": float(n[eligible].sum() / n.sum()) if n.sum() else None,
            "eligible_types": int(eligible.sum()), "eligible_share": mean_of(eligible),
            "mean_entropy": mean_of(mean), "std_entropy": stated(mean.std(ddof=1)) if len(mean) > 1 else None,
            "mean_consistency": mean_of(modal), "top_consistency": mean_of(modal[frequent]), "zipf_r2": _r2(n),
            "top_coverage": stated(zipf.top_coverage(n, top_types)) if len(n) else None}


def _r2(n: np.ndarray[Any, np.dtype[np.int64]]) -> float | None:
    try:
        return zipf.log_log_fit(n).r2
    except ValueError:
        return None


def _moments(counts: VarCounts, layer: int) -> dict[str, float | None]:
    """Mean and standard deviation of entropy over test occurrences, in nats."""
    test = counts.test
    if not test.n_tokens:
        return {"mean": None, "std": None}
    mean = float(test.entropy_LD[layer].sum() / FIXED_ONE / test.n_tokens)
    square = float(test.entropy_square_LV[layer].sum() / FIXED_ONE / test.n_tokens)
    return {"mean": mean, "std": max(square - mean**2, 0.0) ** 0.5}
