"""Router outputs in float16: entropy of their rows, and the statistics of token types straight from them.

N row (token), E expert, V token type.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.halves import entropy_of_probabilities, of_logits
from analysis.type_moments import TypeMoments, type_moments
from tests.bench.measure import Rival, Workload

TOLERANCE, LOGIT_TOLERANCE = 5e-6, 2e-5  # nats, against float32 ways
Half = NDArray[np.float16]


def logits_and_probabilities(n_rows: int, n_experts: int) -> tuple[Half, Half]:
    """float16 both."""
    logits = (1.5 * np.random.default_rng([n_rows, n_experts]).standard_normal((n_rows, n_experts), np.float32)).astype(np.float16)
    return logits, softmax(logits.astype(np.float32)).astype(np.float16)


def softmax(x: NDArray[np.float32]) -> NDArray[np.float32]:
    weight = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def by_numpy(probabilities: Half) -> Any:
    p = probabilities.astype(np.float32)
    p /= p.sum(axis=1, keepdims=True)
    return -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1)


def by_torch(probabilities: Half) -> Any:
    import torch

    p = torch.from_numpy(probabilities).float()
    total = p.sum(-1)
    return (torch.special.entr(p).sum(-1) / total + total.log()).numpy()


def by_torch_softmax(logits: Half) -> Any:
    import torch

    return torch.special.entr(torch.softmax(torch.from_numpy(logits).float(), -1)).sum(-1).numpy()


def by_scipy(probabilities: Half) -> Any:
    from scipy.stats import entropy

    return entropy(probabilities.astype(np.float32), axis=1)


def entropies(n_values: int) -> Iterator[Workload]:
    """From probabilities and from logits, at 8 and at 128 experts."""
    for n_experts in (8, 128):
        logits, probabilities = logits_and_probabilities(n_values // n_experts, n_experts)
        yield _of_probabilities(probabilities, n_experts)
        yield _of_logits(logits, n_experts)


def _of_probabilities(p: Half, n_experts: int) -> Workload:
    ways = {"torch entr": by_torch, "numpy float32": by_numpy, "scipy.stats.entropy": by_scipy}

    def check() -> str:
        mine = entropy_of_probabilities(p, backend="numba")
        for name, way in ways.items():
            assert np.abs(mine - way(p)).max() < TOLERANCE, name
        return f"within {TOLERANCE:g} nats, rounding of float32"

    return Workload(f"entropy of float16 probabilities, E = {n_experts}", lambda: entropy_of_probabilities(p, backend="numba"),
                    [Rival(name, lambda way=way: way(p)) for name, way in ways.items()],  # type: ignore[misc]
                    check, p.size, "values/s", f"{len(p):,} rows; rows renormalised on every side; one thread each")


def _of_logits(logits: Half, n_experts: int) -> Workload:
    def check() -> str:
        assert np.abs(of_logits(logits, backend="numba").entropy_nats - by_torch_softmax(logits)).max() < LOGIT_TOLERANCE
        return f"within {LOGIT_TOLERANCE:g} nats"

    return Workload(f"entropy of float16 logits, E = {n_experts}", lambda: of_logits(logits, backend="numba"),
                    [Rival("torch softmax, entr", lambda: by_torch_softmax(logits))], check, logits.size, "values/s",
                    f"{len(logits):,} rows; ours gives Simpson concentration, confidence and first choice, too")


def moments(n_rows: int, loop_rows: int, n_types: int = 32_000, n_experts: int = 8) -> Workload:
    """Occurrences, entropy (mean, std, min, max), confidence (mean, std) and first choices of every type."""
    _, p = logits_and_probabilities(n_rows, n_experts)
    types = np.minimum(np.random.default_rng(5).zipf(1.2, n_rows) - 1, n_types - 1)

    def columns(rows: Half) -> tuple[Any, Any, Any]:
        wide = rows.astype(np.float32)
        wide /= wide.sum(axis=1, keepdims=True)
        return -(wide * np.log(np.where(wide > 0, wide, 1))).sum(axis=1), wide.max(axis=1), rows.argmax(axis=1)

    def with_pandas() -> list[Any]:
        import pandas as pd

        h, c, first = columns(p)
        frame = pd.DataFrame({"v": types, "h": h.astype(np.float64), "c": c.astype(np.float64), "first": first})
        grouped = frame.groupby("v")
        of_h, of_c = grouped["h"].agg(["count", "mean", "std", "min", "max"]), grouped["c"].agg(["mean", "std"])
        choices = frame.groupby(["v", "first"]).size().unstack(fill_value=0).reindex(columns=range(n_experts), fill_value=0)
        return [of_h.index.to_numpy(), *(of_h[name].to_numpy() for name in of_h), *(of_c[name].to_numpy() for name in of_c), choices.to_numpy()]

    def with_lists() -> list[Any]:
        entropies, confidences, firsts = defaultdict(list), defaultdict(list), defaultdict(list)
        for v, row in zip(types[:loop_rows].tolist(), p[:loop_rows]):
            q = row.astype(np.float64)
            q /= q.sum()
            q = q[q > 0]
            entropies[v].append(float(-(q * np.log(q)).sum()))
            confidences[v].append(float(q.max()))
            firsts[v].append(int(row.argmax()))
        known = sorted(entropies)
        h, c = [entropies[v] for v in known], [confidences[v] for v in known]
        std = [np.std(x, ddof=1) if len(x) > 1 else np.nan for x in h]
        return [np.array(known), [len(x) for x in h], [np.mean(x) for x in h], std, [min(x) for x in h], [max(x) for x in h],
                [np.mean(x) for x in c], [np.std(x, ddof=1) if len(x) > 1 else np.nan for x in c],
                np.array([np.bincount(firsts[v], minlength=n_experts) for v in known])]

    def with_bincount() -> list[Any]:
        h, c, first = columns(p)
        h, c = h.astype(np.float64), c.astype(np.float64)
        n = np.bincount(types, minlength=n_types)
        seen, several = np.flatnonzero(n), np.maximum(n - 1, 1)
        low, high = np.full(n_types, np.inf), np.full(n_types, -np.inf)
        np.minimum.at(low, types, h)
        np.maximum.at(high, types, h)
        out: list[Any] = [seen, n[seen]]
        for x in (h, c):
            mean = np.bincount(types, x, n_types) / np.maximum(n, 1)
            std = np.sqrt(np.bincount(types, (x - mean[types]) ** 2, n_types) / several)
            out += [mean[seen], np.where(n > 1, std, np.nan)[seen]] + ([low[seen], high[seen]] if x is h else [])
        return [*out, np.bincount(types * n_experts + first, minlength=n_types * n_experts).reshape(n_types, -1)[seen]]

    def same(mine: TypeMoments, theirs: list[Any]) -> bool:
        v, n, *reals, choices = theirs
        ours = (mine.mean_entropy, mine.std_entropy, mine.min_entropy, mine.max_entropy, mine.mean_confidence, mine.std_confidence)
        return (np.array_equal(np.flatnonzero(mine.n), v) and np.array_equal(mine.n[v], n) and np.array_equal(mine.first_choices[v], choices)
                and all(np.allclose(a[v], b, rtol=0, atol=TOLERANCE, equal_nan=True) for a, b in zip(ours, reals, strict=True)))

    def check() -> str:
        mine = type_moments(types, p, n_types, backend="numba")
        assert same(mine, with_pandas()), "pandas"
        assert same(mine, with_bincount()), "bincount"
        assert same(type_moments(types[:loop_rows], p[:loop_rows], n_types), with_lists()), "lists"
        return f"counts equal, moments within {TOLERANCE:g}"

    return Workload(f"per-type statistics from float16 probabilities, E = {n_experts}", lambda: type_moments(types, p, n_types, backend="numba"), [
        Rival("dict of lists", with_lists, loop_rows / n_rows, f"{loop_rows:,} tokens, scaled", "naive"),
        Rival("pandas groupby, entropy by numpy", with_pandas), Rival("numpy bincount", with_bincount)], check, n_rows, "tokens/s",
        f"{n_rows:,} tokens, {n_types:,} types")
