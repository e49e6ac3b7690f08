"""n, entropy (mean, std, min, max), mean confidence and expert counts of every token type: four ways beside ours."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.counts import CountPlan, accumulate, mean_of
from analysis.kernels import from_fixed
from hypotheses.var_tables import spread
from tests.bench.measure import Rival, Workload
from tests.bench.rows import Sample, Sizes

REALS = ("mean", "variance", "low", "high", "confidence")
TOLERANCE = 1e-8


@dataclass(frozen=True)
class TypeStatistics:
    """n: [V]; mean, variance (ddof 1), low, high, confidence: [L, V]; experts: [L, V, E]."""

    n: NDArray[Any]
    mean: NDArray[Any]
    variance: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]
    confidence: NDArray[Any]
    experts: NDArray[Any]

    def agrees(self, other: TypeStatistics) -> bool:
        """Counts exactly, reals within TOLERANCE, over types that occur (variances: twice)."""
        for name in ("n", "experts"):
            if not np.array_equal(getattr(self, name), getattr(other, name)):
                return False
        for name in REALS:
            known = self.n > (1 if name == "variance" else 0)
            if not np.allclose(getattr(self, name)[:, known], getattr(other, name)[:, known], rtol=0, atol=TOLERANCE):
                return False
        return True


def ours(sample: Sample) -> TypeStatistics:
    """From the counts of the analysis, which also hold cells by document and band, squares, histograms, and shares below thresholds."""
    counts = accumulate(sample.trace, CountPlan("test", "0", np.full((3, len(sample.meta.layers)), 0.5)))
    n, types = counts.n_V, np.arange(sample.meta.vocabulary_size)
    assert counts.confidence_LV is not None
    deviation = np.stack([spread(sums, squares, n) for sums, squares in zip(counts.entropy_LV, counts.entropy_square_LV, strict=True)])
    return TypeStatistics(n, counts.mean_entropy_LV, deviation**2, counts.extremes_LV2[..., 0], counts.extremes_LV2[..., 1],
                          mean_of(from_fixed(counts.confidence_LV), n),
                          np.stack([choices.dense(choices.n, types) for choices in counts.choices]))


def lists(sample: Sample) -> TypeStatistics:
    """A dictionary of lists per layer, filled token by token."""
    rows, layers, n_types = sample.rows, sample.meta.layers, sample.meta.vocabulary_size
    out = np.full((5, len(layers), n_types), np.nan)
    experts = np.zeros((len(layers), n_types, layers[0].n_experts), np.int64)
    n = np.zeros(n_types, np.int64)
    for layer in range(len(layers)):
        entropies, confidences, chosen = defaultdict(list), defaultdict(list), defaultdict(Counter)
        for t in range(len(rows)):
            token = int(rows.token_id[t])
            entropies[token].append(float(rows.entropy_nats[layer, t]))
            confidences[token].append(float(rows.top1_prob[layer, t]))
            chosen[token].update(rows.ids[layer][t].tolist())
        for token, values in entropies.items():
            n[token] = len(values)
            variance = np.var(values, ddof=1) if len(values) > 1 else np.nan
            out[:, layer, token] = np.mean(values), variance, np.min(values), np.max(values), np.mean(confidences[token])
            for expert, count in chosen[token].items():
                experts[layer, token, expert] = count
    return TypeStatistics(n, *out, experts)


class Frames:
    """The columns as data frames, made outside the timed part: one wide frame of reals, one (type, expert) frame per layer."""

    def __init__(self, sample: Sample) -> None:
        rows, self.layers, self.n_types = sample.rows, sample.meta.layers, sample.meta.vocabulary_size
        self.types = rows.token_id.astype(np.int64)
        self.entropy = np.asarray(rows.entropy_nats, np.float64)
        self.confidence = np.asarray(rows.top1_prob, np.float64)
        self.wide: dict[str, Any] = {"type": self.types}
        for layer in range(len(self.layers)):
            self.wide |= {f"h{layer}": self.entropy[layer], f"c{layer}": self.confidence[layer]}
        self.long = [{"type": np.repeat(self.types, ids.shape[1]), "expert": ids.ravel().astype(np.int64)} for ids in rows.ids]

    def of(self, types: Any, columns: dict[str, Any], pairs: list[tuple[Any, Any, Any]]) -> TypeStatistics:
        """Dense arrays from a frame's columns."""
        n_layers, n_experts = len(self.layers), self.layers[0].n_experts
        n, out = np.zeros(self.n_types, np.int64), np.full((5, n_layers, self.n_types), np.nan)
        n[types] = columns["n"]
        experts = np.zeros((n_layers, self.n_types, n_experts), np.int64)
        for layer in range(n_layers):
            for place, name in enumerate(("mean", "var", "min", "max", "confidence")):
                out[place, layer, types] = columns[f"{name}{layer}"]
            token, expert, count = pairs[layer]
            experts[layer, token, expert] = count
        return TypeStatistics(n, *out, experts)


def with_pandas(frames: Frames) -> Any:
    import pandas as pd

    wide, long = pd.DataFrame(frames.wide), [pd.DataFrame(columns) for columns in frames.long]

    def run() -> TypeStatistics:
        grouped = wide.groupby("type")
        columns: dict[str, Any] = {"n": grouped.size().to_numpy()}
        for layer in range(len(long)):
            entropy = grouped[f"h{layer}"]
            for name in ("mean", "var", "min", "max"):
                columns[f"{name}{layer}"] = getattr(entropy, name)().to_numpy()
            columns[f"confidence{layer}"] = grouped[f"c{layer}"].mean().to_numpy()
        sizes = [frame.groupby(["type", "expert"]).size() for frame in long]
        pairs = [(s.index.get_level_values(0), s.index.get_level_values(1), s.to_numpy()) for s in sizes]
        return frames.of(grouped.size().index.to_numpy(), columns, pairs)

    return run


def with_polars(frames: Frames) -> Any:
    import polars as pl

    wide, long = pl.DataFrame(frames.wide), [pl.DataFrame(columns) for columns in frames.long]
    asked = [pl.len().alias("n")]
    for layer in range(len(long)):
        h = pl.col(f"h{layer}")
        asked += [h.mean().alias(f"mean{layer}"), h.var().alias(f"var{layer}"), h.min().alias(f"min{layer}"),
                  h.max().alias(f"max{layer}"), pl.col(f"c{layer}").mean().alias(f"confidence{layer}")]

    def run() -> TypeStatistics:
        found = wide.group_by("type").agg(asked)
        columns = {name: found[name].to_numpy() for name in found.columns}
        counted = [frame.group_by("type", "expert").agg(pl.len()) for frame in long]
        return frames.of(columns["type"], columns, [tuple(c[name].to_numpy() for name in ("type", "expert", "len")) for c in counted])

    return run


def with_bincount(frames: Frames) -> TypeStatistics:
    """np.bincount with weights per column, np.minimum.at: what a numpy user writes."""
    n_types, n_layers, n_experts = frames.n_types, len(frames.layers), frames.layers[0].n_experts
    types, n = frames.types, np.bincount(frames.types, minlength=frames.n_types)
    low, high = np.full((n_layers, n_types), np.inf), np.full((n_layers, n_types), -np.inf)
    mean, variance, confidence = np.full((3, n_layers, n_types), np.nan)
    experts = np.zeros((n_layers, n_types, n_experts), np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        for layer, h in enumerate(frames.entropy):
            mean[layer] = np.bincount(types, h, n_types) / n
            variance[layer] = (np.bincount(types, h * h, n_types) - n * mean[layer] ** 2) / (n - 1)
            confidence[layer] = np.bincount(types, frames.confidence[layer], n_types) / n
            np.minimum.at(low[layer], types, h)
            np.maximum.at(high[layer], types, h)
            pairs = frames.long[layer]
            experts[layer] = np.bincount(pairs["type"] * n_experts + pairs["expert"], minlength=n_types * n_experts).reshape(-1, n_experts)
    return TypeStatistics(n, mean, variance, low, high, confidence, experts)


def workload(sizes: Sizes, sample: Sample) -> Workload:
    """One vocabulary."""
    frames, part = Frames(sample), sample.first(sizes.loop_tokens)
    pandas, polars = with_pandas(frames), with_polars(frames)
    n_rows, n_types = len(sample.rows), sample.meta.vocabulary_size

    def check() -> str:
        mine = ours(sample)
        for name, other in (("pandas", pandas()), ("polars", polars()), ("bincount", with_bincount(frames))):
            assert mine.agrees(other), name
        assert ours(part).agrees(lists(part)), "lists"
        return f"counts equal, reals within {TOLERANCE:g}"

    loops = Rival("dict of lists", lambda: lists(part), len(part.rows) / n_rows, f"run on the first {len(part.rows):,} tokens, scaled")
    return Workload(f"per-type statistics, {n_types:,} types", lambda: ours(sample), [
        loops, Rival("pandas groupby", pandas, note="frames ready made"), Rival("polars group_by", polars, note="frames ready made, all cores"),
        Rival("numpy bincount", lambda: with_bincount(frames), note="columns ready made")], check, n_rows * len(sample.meta.layers),
        "token-layers/s", f"{n_rows:,} tokens x {len(sample.meta.layers)} layers; ours also counts cells by document and band, thresholds, "
        "histograms")
