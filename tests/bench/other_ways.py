"""The numbers of seed 000 the way they are first written (loops, a library call a pair) and the best way of general libraries.

Nothing of ours is used here but the arrays: every formula is written out again. Slices are the caller's.
D document, T token, X, Y, E expert, H domain, P pair, B replicate, M lag.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product
from math import log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Array = NDArray[Any]
LN2 = float(np.log(2))


def bits_of_table(n_XY: Array) -> Float:
    """I(X;Y) of count tables [..., X, Y]."""
    n = n_XY.astype(np.float64)
    total = n.sum(axis=(-2, -1), keepdims=True)
    expected = n.sum(axis=-1, keepdims=True) * n.sum(axis=-2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = n * np.log2(n * total / expected)
    return np.asarray(np.nansum(terms, axis=(-2, -1)) / total[..., 0, 0])


def bits_of_counter(x: Array, y: Array) -> float:
    """I(X;Y) by Counter(zip(x, y))."""
    pairs = list(zip(x.tolist(), y.tolist()))
    joint, of_x, of_y, n = Counter(pairs), Counter(a for a, _ in pairs), Counter(b for _, b in pairs), len(pairs)
    return sum(c / n * log2(c * n / (of_x[a] * of_y[b])) for (a, b), c in joint.items())


def bits_of_crosstab(x: Array, y: Array) -> float:
    import pandas as pd

    return float(bits_of_table(pd.crosstab(pd.Series(x), pd.Series(y)).to_numpy()))


def bits_of_sklearn(x: Array, y: Array) -> float:
    from sklearn.metrics import mutual_info_score

    return float(mutual_info_score(x, y)) / LN2


def tables_by_bincount(x: Array, y: Array, domain_T: Array, n_domains: int, n_experts: int) -> Array:
    """[H, X, Y]."""
    cell = (domain_T * n_experts + x) * n_experts + y
    return np.bincount(cell, minlength=n_domains * n_experts**2).reshape(n_domains, n_experts, n_experts)


def tables_by_polars(x: Array, y: Array, domain_T: Array, n_domains: int, n_experts: int) -> Array:
    import polars as pl

    found = pl.DataFrame({"d": domain_T, "x": x, "y": y}).group_by("d", "x", "y").len()
    out = np.zeros((n_domains, n_experts, n_experts), np.int64)
    out[tuple(found[name].to_numpy() for name in "dxy")] = found["len"].to_numpy()
    return out


def tables_by_sparse(x: Array, y: Array, domain_T: Array, n_domains: int, n_experts: int) -> Array:
    """One-hot matrices, their product."""
    from scipy.sparse import csr_matrix

    rows, ones = np.arange(len(x) + 1), np.ones(len(x), np.float32)
    left = csr_matrix((ones, domain_T * n_experts + x, rows), (len(x), n_domains * n_experts))
    right = csr_matrix((ones, y.astype(np.int32), rows), (len(x), n_experts))
    return (left.T @ right).toarray().reshape(n_domains, n_experts, n_experts).astype(np.int64)


def one_hot(ids_TK: Array, n_experts: int) -> NDArray[np.float32]:
    out = np.zeros((len(ids_TK), n_experts), np.float32)
    np.put_along_axis(out, ids_TK.astype(np.int64), 1.0, axis=1)
    return out


def tables_by_product(x_TK: Array, y_TK: Array, n_experts: int, block: int = 2**15) -> Array:
    """One-hot blocks and BLAS: [X, Y]."""
    out = np.zeros((n_experts, n_experts))
    for start in range(0, len(x_TK), block):
        part = slice(start, start + block)
        out += one_hot(x_TK[part], n_experts).T @ one_hot(y_TK[part], n_experts)
    return out.astype(np.int64)


def phi_of_indicators(x: Array, y: Array, i: int, j: int) -> float:
    """np.corrcoef of two indicator columns."""
    return float(np.corrcoef((x == i).astype(np.float64), (y == j).astype(np.float64))[0, 1])


def phi_of_table(n_XY: Array) -> Float:
    n = n_XY.astype(np.float64)
    total, x, y = n.sum(), n.sum(axis=1)[:, None], n.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((total * n - x * y) / np.sqrt(x * (total - x) * y * (total - y)))


def loads_by_loop(x: Array, domain_T: Array, n_domains: int, n_experts: int) -> Array:
    """[H, E] by a Counter a domain."""
    counters = [Counter() for _ in range(n_domains)]  # type: list[Counter[int]]
    for expert, domain in zip(x.tolist(), domain_T.tolist()):
        counters[domain][expert] += 1
    return np.array([[counter[e] for e in range(n_experts)] for counter in counters])


def loads_by_pandas(x: Array, domain_T: Array, n_domains: int, n_experts: int) -> Array:
    """A frame of a row a token, grouped and pivoted."""
    import pandas as pd

    frame = pd.DataFrame({"domain": domain_T, "expert": x})
    pivot = frame.groupby(["domain", "expert"]).size().unstack(fill_value=0)
    return pivot.reindex(index=range(n_domains), columns=range(n_experts), fill_value=0).to_numpy()


def loads_by_bincount(x: Array, domain_T: Array, n_domains: int, n_experts: int) -> Array:
    return np.bincount(domain_T * n_experts + x, minlength=n_domains * n_experts).reshape(n_domains, n_experts)


def entropy_bits(p: Array) -> Float:
    """Along the last axis, of counts."""
    from scipy.stats import entropy

    return np.asarray(entropy(p, base=2, axis=-1))


def marginal_statistics(n_HE: Array) -> dict[str, Any]:
    """What a script computes of one layer's loads by domain."""
    from scipy.spatial.distance import jensenshannon
    from scipy.stats import chi2_contingency

    n = n_HE.astype(np.float64)
    used = n.sum(axis=0) > 0
    chi2 = chi2_contingency(n[:, used], correction=False).statistic
    p = n / n.sum(axis=1, keepdims=True)
    share = p[:, used] / p[:, used].sum(axis=0)
    load = np.sort(n.sum(axis=0))
    rank = np.arange(1, len(load) + 1)
    a, b = np.triu_indices(len(n), 1)
    specialisation = np.full(n.shape[1], np.nan)
    specialisation[used] = 1 - entropy_bits(share.T) / log2(len(n))
    return {"chi2": chi2, "V": float(np.sqrt(chi2 / (n.sum() * (min(len(n), used.sum()) - 1)))), "specialisation_e": specialisation,
            "purity": n.max(axis=0).sum() / n.sum(), "domain_entropy": entropy_bits(p), "mi_E_D": float(bits_of_table(p / len(n))),
            "usage_entropy_bits": float(entropy_bits(load)), "usage_cv": load.std() / load.mean(),
            "usage_gini": float(((2 * rank - len(load) - 1) * load).sum() / (len(load) * load.sum())),
            "jsd": np.array([jensenshannon(p[i], p[j], base=2) ** 2 for i, j in zip(a, b)])}


def replicated_statistics(n_BHE: Float) -> dict[str, Float]:
    """The same of many tables at once, in plain numpy."""
    def h(p: Float) -> Float:
        return np.asarray(-(p * np.log2(np.where(p > 0, p, 1))).sum(axis=-1))

    rows, load = n_BHE.sum(axis=-1, keepdims=True), n_BHE.sum(axis=-2)
    total, p, n_domains, used = load.sum(axis=-1), n_BHE / rows, n_BHE.shape[-2], load > 0
    share = np.swapaxes(p / np.where(used, p.sum(axis=-2), 1)[:, None], -1, -2)
    chi2 = total * ((n_BHE**2 / (rows * np.where(used, load, 1)[:, None])).sum(axis=(-2, -1)) - 1)
    rank, ordered = np.arange(1, load.shape[-1] + 1), np.sort(load, axis=-1)
    return {"V": np.sqrt(chi2 / (total * (np.minimum(n_domains, used.sum(axis=-1)) - 1))),
            "specialisation_e": np.where(used, 1 - h(share) / log2(n_domains), np.nan), "purity": n_BHE.max(axis=-2).sum(axis=-1) / total,
            "domain_entropy": h(p), "mi_E_D": h(p.mean(axis=-2)) - h(p).mean(axis=-1), "usage_entropy_bits": h(load / total[:, None]),
            "usage_cv": load.std(axis=-1) / load.mean(axis=-1),
            "usage_gini": ((2 * rank - len(rank) - 1) * ordered).sum(axis=-1) / (len(rank) * total)}


def nmi_of_sklearn(x: Array, i: int, j: int) -> float:
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(x == i, x == j, average_method="geometric"))


def nmi_of_loads(p_i: Array, p_j: Array) -> Float:
    """The same from the loads of two experts that no token chooses together."""
    def h(*parts: Array) -> Float:
        return np.asarray(-sum(np.where(q > 0, q * np.log2(np.where(q > 0, q, 1)), 0) for q in parts))

    of_i, of_j = h(p_i, 1 - p_i), h(p_j, 1 - p_j)
    return np.asarray((of_i + of_j - h(p_i, p_j, 1 - p_i - p_j)) / np.sqrt(of_i * of_j))


def transitions_by_loop(x: Array, length: int, n_experts: int) -> Array:
    """A dictionary of pairs, document after document."""
    counts: dict[tuple[int, int], int] = {}
    for first in range(0, len(x), length):
        document = x[first : first + length].tolist()
        for pair in zip(document[:-1], document[1:]):
            counts[pair] = counts.get(pair, 0) + 1
    out = np.zeros((n_experts, n_experts), np.int64)
    for (i, j), n in counts.items():
        out[i, j] = n
    return out


def transitions_by_bincount(x: Array, length: int, n_experts: int) -> Array:
    rows = x.reshape(-1, length).astype(np.int64)
    return np.bincount((rows[:, :-1] * n_experts + rows[:, 1:]).ravel(), minlength=n_experts**2).reshape(n_experts, n_experts)


def matches_by_loop(x: Array, length: int, lags: Sequence[int]) -> Array:
    """np.mean of comparisons, a document and a lag at a time: [M] numbers of matches."""
    out = np.zeros(len(lags))
    for first in range(0, len(x), length):
        document = x[first : first + length]
        for m, lag in enumerate(lags):
            out[m] += np.mean(document[:-lag] == document[lag:]) * (length - lag)
    return out


def matches_by_rows(x: Array, length: int, lags: Sequence[int]) -> Array:
    rows = x.reshape(-1, length)
    return np.array([np.count_nonzero(rows[:, :-lag] == rows[:, lag:]) for lag in lags])


def kappa(matches_M: Array, x: Array, n_documents: int, length: int, lags: Sequence[int], n_experts: int) -> Float:
    pairs = n_documents * (length - np.asarray(lags))
    chance = ((np.bincount(x, minlength=n_experts) / len(x)) ** 2).sum()
    return np.asarray((matches_M / pairs - chance) / (1 - chance))


def joined_documents(x: Array, length: int, weights_D: Array) -> Array:
    """The tokens of a bootstrap sample, documents laid end to end one by one."""
    return np.concatenate([x[d * length : (d + 1) * length] for d in np.repeat(np.arange(len(weights_D)), weights_D)])


def influence_by_loop(x: Array, y: Array, length: int, n_XY: Array) -> float:
    """SE of I over documents, a sum of pointwise information a document, in Python."""
    n = n_XY.astype(np.float64)
    total, rows, columns = float(n.sum()), n.sum(axis=1), n.sum(axis=0)
    pmi = {(i, j): log2(n[i, j] * total / (rows[i] * columns[j])) for i, j in zip(*(a.tolist() for a in np.nonzero(n)))}
    value = sum(n[i, j] * bits for (i, j), bits in pmi.items()) / total
    first, second, squares = x.tolist(), y.tolist(), 0.0
    for start in range(0, len(first), length):
        u = sum(pmi[pair] for pair in zip(first[start : start + length], second[start : start + length])) - length * value
        squares += u * u
    n_documents = len(first) // length
    return float((n_documents / (n_documents - 1) * squares) ** 0.5 / total)


def influence_by_numpy(x: Array, y: Array, length: int, n_XY: Array) -> float:
    n = n_XY.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        pmi = np.where(n > 0, np.log2(n * n.sum() / (n.sum(axis=1)[:, None] * n.sum(axis=0))), 0)
    u = pmi[x, y].reshape(-1, length).sum(axis=1) - length * (n * pmi).sum() / n.sum()
    return float(np.sqrt(len(u) / (len(u) - 1) * (u**2).sum()) / n.sum())


def rolled(y: Array, length: int, shifts_D: Array) -> Array:
    """np.roll a document."""
    return np.concatenate([np.roll(y[d * length : (d + 1) * length], shift) for d, shift in enumerate(shifts_D.tolist())])


def shifted_rows(length: int, shifts_D: Array) -> Array:
    """Row from which each row's choice comes: one index for all layers."""
    place = (np.arange(length) - shifts_D[:, None]) % length
    return (np.arange(len(shifts_D))[:, None] * length + place).ravel()


def slot_tables_by_bincount(x_KT: Array, y_KT: Array, n_experts: int) -> Array:
    """All slot pairs at once: [X, Y]."""
    cells = (x_KT.astype(np.int64) * n_experts)[:, None] + y_KT
    return np.bincount(cells.ravel(), minlength=n_experts**2).reshape(n_experts, n_experts)


def slot_tables_by_counter(x_KT: Array, y_KT: Array, n_experts: int) -> Array:
    """A Counter, token by token, as the OLMoE script has it (but for all pairs of slots, where it takes equal ranks)."""
    counter: Counter[tuple[int, int]] = Counter()
    for x, y in zip(x_KT.T.tolist(), y_KT.T.tolist()):
        for pair in product(x, y):
            counter[pair] += 1
    return dense(counter, n_experts)


def coactivation_by_sets(ids_KT: Array, n_experts: int) -> Array:
    """Nested loops over each token's set."""
    table = np.zeros((n_experts, n_experts), np.int64)
    for chosen in map(set, ids_KT.T.tolist()):
        for i in chosen:
            for j in chosen:
                table[i, j] += 1
    return table


def dense(counter: Counter[tuple[int, int]], n: int) -> Array:
    out = np.zeros((n, n), np.int64)
    for (i, j), count in counter.items():
        out[i, j] = count
    return out
