"""Top-k routing at two shapes: joint tables of neighbouring layers, co-activation inside each, first choices of all pairs, clusters.

T token, L layer, K slot, E, X, Y expert, P layer pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from analysis.clustering import cluster_experts
from analysis.joint import coactivation_counts, joint_counts, topk_joint_counts
from analysis.pair_counts import scan_pairs
from tests.bench import other_ways as other
from tests.bench.measure import Rival, Workload, bare_increments
from tests.bench.worlds import Shape, planes_of, trace_of

CLUSTERS = 8


class TopK:
    """Workloads on one shape; few: tokens that loops run on."""

    def __init__(self, shape: Shape, few: int, label: str) -> None:
        self.shape, self.few, self.label = shape, few, label
        self.planes = planes_of(shape)
        self.ids = self.planes.ids
        self.n, self.k, self.layers = shape.n_experts, shape.top_k, shape.n_layers

    def all(self) -> Iterator[Workload]:
        yield self.adjacent()
        yield self.own()
        yield self.first_choices()
        yield self.clusters()

    def adjacent(self) -> Workload:
        """All slot pairs of neighbouring layers."""
        n, k, pairs = self.n, self.k, [(layer, layer + 1) for layer in range(self.layers - 1)]
        rows, shift, some = self.shape.rows, np.uint32(max(n - 1, 1).bit_length()), max(1, len(pairs) // 8)

        def ours() -> list[Any]:
            return [topk_joint_counts(self.ids[a], self.ids[b], n, n, backend="numba") for a, b in pairs]

        def bare() -> list[Any]:
            tables = []
            for a, b in pairs[:some]:
                tables.append(np.zeros(n << int(shift), np.uint32))
                for x, y in product(self.ids[a], self.ids[b]):
                    bare_increments(x, y, shift, tables[-1])
            return tables

        def loop() -> Any:
            return other.slot_tables_by_counter(self.ids[0][:, :self.few], self.ids[1][:, :self.few], n)

        def bincount() -> list[Any]:
            return [other.slot_tables_by_bincount(self.ids[a], self.ids[b], n) for a, b in pairs[:some]]

        def blas() -> Any:
            return other.tables_by_product(self.ids[0].T, self.ids[1].T, n)

        def check() -> str:
            mine = ours()
            assert all(np.array_equal(a, b) for a, b in zip(mine, bincount())), "bincount"
            assert all(np.array_equal(a, b.reshape(n, -1)[:, :n]) for a, b in zip(mine, bare())), "bare loop"
            assert np.array_equal(mine[0], blas()), "product"
            assert np.array_equal(loop(), topk_joint_counts(self.ids[0][:, :self.few], self.ids[1][:, :self.few], n, n)), "loop"
            return "every count"

        part = f"{some} of {len(pairs)} pairs, scaled"
        return Workload(f"{self.label}: top-{k} joint tables of {len(pairs)} adjacent pairs", ours, [
            Rival("bare increment loop, slot by slot", bare, some / len(pairs), part, "limit"),
            Rival("Counter a token", loop, self.few / (rows * len(pairs)), f"{self.few:,} tokens of 1 pair, scaled", "naive"),
            Rival("numpy bincount", bincount, some / len(pairs), part), Rival("one-hot product (BLAS)", blas, 1 / len(pairs), "1 pair, scaled")],
            check, len(pairs) * rows * k * k, "increments/s", f"{rows:,} tokens x {self.layers} layers, top-{k} of {n}")

    def own(self) -> Workload:
        """Experts that one token chooses together, in every layer."""
        n, k, rows, some = self.n, self.k, self.shape.rows, max(1, self.layers // 8)

        def ours() -> list[Any]:
            return [coactivation_counts(ids, n, backend="numba") for ids in self.ids]

        def sets() -> Any:
            return other.coactivation_by_sets(self.ids[0][:, :self.few], n)

        def bincount() -> list[Any]:
            return [other.slot_tables_by_bincount(ids, ids, n) for ids in self.ids[:some]]

        def blas() -> Any:
            return other.tables_by_product(self.ids[0].T, self.ids[0].T, n)

        def check() -> str:
            mine = ours()
            assert all(np.array_equal(a, b) for a, b in zip(mine, bincount())), "bincount"
            assert np.array_equal(mine[0], blas()), "product"
            assert np.array_equal(sets(), coactivation_counts(self.ids[0][:, :self.few], n)), "sets"
            return "every count"

        return Workload(f"{self.label}: co-activation of {self.layers} layers", ours, [
            Rival("nested loops over sets", sets, self.few / (rows * self.layers), f"{self.few:,} tokens of 1 layer, scaled", "naive"),
            Rival("numpy bincount", bincount, some / self.layers, f"{some} of {self.layers} layers, scaled"),
            Rival("one-hot product (BLAS)", blas, 1 / self.layers, "1 layer, scaled")], check,
            self.layers * rows * (k * (k - 1) // 2 + k), "increments/s", "ours counts each pair of slots once and checks for an expert twice")

    def first_choices(self) -> Workload:
        """Rank-0 tables of every pair of layers."""
        n, pairs, rows = self.n, self.shape.pairs, self.shape.rows
        first, trace, some = [ids[0] for ids in self.ids], trace_of(self.shape, planes=self.planes), max(1, len(self.shape.pairs) // 20)

        def ours() -> list[Any]:
            counts = scan_pairs(trace, "test", backend="numba")
            return [counts.total(pair) for pair in pairs]

        def bincount() -> list[Any]:
            return [np.bincount(first[a].astype(np.int64) * n + first[b], minlength=n * n).reshape(n, n) for a, b in pairs[:some]]

        def counter() -> Any:
            return other.dense(Counter(zip(first[0][:self.few].tolist(), first[1][:self.few].tolist())), n)

        def check() -> str:
            assert all(np.array_equal(a, b) for a, b in zip(ours(), bincount())), "bincount"
            assert np.array_equal(counter(), joint_counts(first[0][:self.few], first[1][:self.few], n, n)), "counter"
            return "every count"

        return Workload(f"{self.label}: first choices of all {len(pairs):,} pairs", ours, [
            Rival("Counter(zip)", counter, self.few / (rows * len(pairs)), f"{self.few:,} tokens of 1 pair, scaled", "naive"),
            Rival("numpy bincount", bincount, some / len(pairs), f"{some} pairs, scaled")], check, len(pairs) * rows, "increments/s",
            "ours from the batches of a trace with every slot, which it checks")

    def clusters(self) -> Workload:
        """Average linkage of the experts of every layer by their co-activation, cut, with its silhouette."""
        tables = [coactivation_counts(ids, self.n) for ids in self.ids]
        n_clusters = min(CLUSTERS, self.n // 2)

        def ours() -> list[Any]:
            return [cluster_experts(table, n_clusters) for table in tables]

        def scipy(orders: Any = None) -> list[Any]:
            from scipy.cluster.hierarchy import fcluster, linkage
            from scipy.spatial.distance import squareform
            from sklearn.metrics import silhouette_score

            out = []
            for place, table in enumerate(tables):
                used = np.flatnonzero(np.diag(table)) if orders is None else orders[place]
                counts = table[np.ix_(used, used)].astype(np.float64)
                loads = np.diag(counts)
                distance = 1 - counts / (loads[:, None] + loads - counts)
                np.fill_diagonal(distance, 0)
                merges = linkage(squareform(distance, checks=False), "average")
                labels = fcluster(merges, n_clusters, "maxclust")
                out.append((merges[:, 2], silhouette_score(distance, labels, metric="precomputed") if len(set(labels)) == n_clusters else None))
            return out

        def check() -> str:
            found = ours()
            for mine, (heights, silhouette) in zip(found, scipy([list(one.experts) for one in found])):
                assert np.allclose(mine.heights, heights, rtol=0, atol=1e-9), "heights"
                assert silhouette is None or mine.silhouette is None or abs(mine.silhouette - silhouette) < 1e-9, "silhouette"
            return "heights of merges and silhouettes within 1e-09, experts in the same order, by which scipy breaks ties"

        return Workload(f"{self.label}: clusters of {self.n} experts x {self.layers} layers", ours,
                        [Rival("scipy linkage, sklearn silhouette", scipy, note="tables ready made")], check, self.layers, "layers/s",
                        "top-1 traces have no co-activation, hence no such clusters: undefined, reason k=1")

