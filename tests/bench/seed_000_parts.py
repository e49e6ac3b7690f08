"""The parts of seed 000's statistics beside other ways to them: each shown to be equal on the slice that it runs on, then timed.

D document, T token, L layer, P layer pair, X, Y, E expert, H domain, B replicate, M lag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from analysis.joint import joint_counts
from analysis.lags import lag_matches
from analysis.moved_rows import seeded
from analysis.planes import Deal
from analysis.replicates import WeightPlan, document_weights
from analysis.shift import draw_shifts
from tests.bench import other_ways as other
from tests.bench.measure import Rival, Workload, bare_increments
from tests.bench.seed_000 import Seed000
from tests.bench.worlds import DOMAINS

H = len(DOMAINS)
TOLERANCE = 1e-9
EQUAL = f"within {TOLERANCE:g}"


def close(a: Any, b: Any, tolerance: float = TOLERANCE) -> bool:
    return bool(np.allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=0, atol=tolerance, equal_nan=True))


class Parts:
    """Workloads of each stage on one world. few: documents of the slice that loops over documents run on; n_replicates, n_draws: as the stages'."""

    def __init__(self, world: Seed000, few: int, n_replicates: int, n_draws: int) -> None:
        self.world, self.few, self.n_replicates, self.n_draws = world, few, n_replicates, n_draws
        self.first = world.planes.first
        self.n_experts, self.length, self.n_layers = world.shape.n_experts, world.shape.length, world.shape.n_layers
        self.domain_T = np.repeat(world.domain, self.length)
        self.n_pairs = len(world.pairs)
        self.n_rows = len(self.domain_T)

    def all(self) -> Iterator[Workload]:
        """Stage by stage."""
        yield self.joint()
        yield self.information()
        yield self.correlation()
        yield self.marginals()
        yield self.pair_nmi()
        yield self.transitions()
        yield self.lags()
        yield self.replicates()
        yield self.scan()
        yield self.shifts()
        yield self.exact()

    def of_pairs(self, of: Callable[..., Any], n: int) -> Callable[[], list[Any]]:
        """A function of the choices of each of the first n pairs."""
        return lambda: [of(self.first[a], self.first[b]) for a, b in self.world.pairs[:n]]

    def joint(self) -> Workload:
        """Counting alone, from ids that lie layer by layer."""
        n, pairs, shift = self.n_experts, self.world.pairs, np.uint32(max(self.n_experts - 1, 1).bit_length())

        def ours() -> list[Any]:
            return [joint_counts(self.first[a], self.first[b], n, n, backend="numba") for a, b in pairs]

        def bare() -> list[Any]:
            tables = []
            for a, b in pairs:
                tables.append(np.zeros(n << int(shift), np.uint32))
                bare_increments(self.first[a], self.first[b], shift, tables[-1])
            return tables

        def bincount(x: Any, y: Any) -> Any:
            return np.bincount(x.astype(np.int64) * n + y, minlength=n * n).reshape(n, n)

        def check() -> str:
            mine = ours()
            assert all(np.array_equal(a, b.reshape(n, -1)[:, :n]) for a, b in zip(mine, bare())), "bare loop"
            for name, found in (("bincount", self.of_pairs(bincount, 4)()), ("product", self.of_pairs(product, 1)())):
                assert all(np.array_equal(a, b) for a, b in zip(mine, found)), name
            assert close([other.bits_of_table(mine[0])], self.of_pairs(other.bits_of_sklearn, 1)()), "sklearn"
            return f"every count; sklearn's information of the table {EQUAL} bits"

        def product(x: Any, y: Any) -> Any:
            return other.tables_by_product(x[:, None], y[:, None], n)

        some = self.n_pairs // 3
        return Workload("joint tables of 66 pairs, ids layer by layer", ours, [
            Rival("bare increment loop", bare, note="no checks, 32 bits", kind="limit"),
            Rival("numpy bincount", self.of_pairs(bincount, some), some / self.n_pairs, f"{some} of {self.n_pairs} pairs, scaled"),
            Rival("one-hot product (BLAS)", self.of_pairs(product, 1), 1 / self.n_pairs, "1 pair, scaled"),
            Rival("sklearn mutual_info_score", self.of_pairs(other.bits_of_sklearn, 1), 1 / self.n_pairs,
                  "1 pair, scaled; gives information, no table", "naive")],
            check, self.n_pairs * self.n_rows, "increments/s", f"{self.n_pairs} pairs x {self.n_rows:,} tokens, {n} experts")

    def information(self) -> Workload:
        """I of every pair, overall and in each domain, from the trace."""
        world, n, domain = self.world, self.n_experts, self.domain_T

        def each_domain(of: Callable[..., float]) -> Callable[..., list[float]]:
            return lambda x, y: [of(x, y), *(of(x[domain == h], y[domain == h]) for h in range(H))]

        def from_tables(tables: Callable[..., Any]) -> Callable[..., Any]:
            def of(x: Any, y: Any) -> Any:
                found = tables(x, y, domain, H, n)
                return np.r_[other.bits_of_table(found.sum(axis=0)), other.bits_of_table(found)]

            return of

        ways = [("Counter(zip)", each_domain(other.bits_of_counter), 1, "naive"), ("pd.crosstab", each_domain(other.bits_of_crosstab), 1, "naive"),
                ("sklearn mutual_info_score", each_domain(other.bits_of_sklearn), 1, "naive"),
                ("numpy bincount", from_tables(other.tables_by_bincount), self.n_pairs // 6, "library"),
                ("polars group_by", from_tables(other.tables_by_polars), 2, "library"),
                ("scipy.sparse product", from_tables(other.tables_by_sparse), 1, "library")]

        def check() -> str:
            mine = world.information()
            for name, of, few, _ in ways:
                assert close(mine[:few], self.of_pairs(of, few)()), name
            return f"{EQUAL} bits on the pairs that were run"

        rivals = [Rival(name, self.of_pairs(of, few), few / self.n_pairs,
                        f"{few} of {self.n_pairs} pairs, scaled" + ("; all cores" if "polars" in name else ""), kind)  # type: ignore[arg-type]
                  for name, of, few, kind in ways]
        return Workload("information of 66 pairs, overall and in 6 domains", world.information, rivals, check, self.n_pairs * self.n_rows,
                        "increments/s", "ours from the batches of a trace", "a")

    def correlation(self) -> Workload:
        """phi of all pairs of experts of neighbouring layers."""
        world, n, adjacent = self.world, self.n_experts, self.world.adjacent
        chosen = [(i, j) for i in range(0, n, max(1, n // 2)) for j in range(0, n, max(1, n // 2))]

        def corrcoef() -> list[float]:
            a, b = adjacent[0]
            return [other.phi_of_indicators(self.first[a], self.first[b], i, j) for i, j in chosen]

        def product() -> Any:
            a, b = adjacent[0]
            return other.phi_of_table(other.tables_by_product(self.first[a][:, None], self.first[b][:, None], n))

        def bincount() -> list[Any]:
            return [other.phi_of_table(np.bincount(self.first[a].astype(np.int64) * n + self.first[b], minlength=n * n).reshape(n, n))
                    for a, b in adjacent]

        def check() -> str:
            mine = world.correlation()
            assert close([mine[0][i, j] for i, j in chosen], corrcoef()), "corrcoef"
            assert close(mine[0], product()), "product"
            assert close(mine, bincount()), "bincount"
            return EQUAL

        return Workload(f"expert correlation, {len(adjacent)} adjacent pairs x {n}^2", world.correlation, [
            Rival("np.corrcoef a pair of experts", corrcoef, len(chosen) / (len(adjacent) * n * n),
                  f"{len(chosen)} of {len(adjacent) * n * n:,} pairs of experts, scaled", "naive"),
            Rival("one-hot product (BLAS)", product, 1 / len(adjacent), f"1 of {len(adjacent)} pairs, scaled"),
            Rival("numpy bincount", bincount)], check, len(adjacent) * self.n_rows, "increments/s", "ours counts the tables from the trace", "a")

    def marginals(self) -> Workload:
        """Loads, specialisation, association, divergence."""
        world, n = self.world, self.n_experts

        def of_layers(loads: Callable[..., Any], layers: int) -> Callable[[], list[Any]]:
            return lambda: [other.marginal_statistics(loads(x, self.domain_T, H, n)) for x in self.first[:layers]]

        ways = [("Counter a domain, scipy.stats", other.loads_by_loop, 1, "naive"),
                ("pandas groupby and pivot, scipy.stats", other.loads_by_pandas, 1, "naive"),
                ("numpy bincount, scipy.stats", other.loads_by_bincount, self.n_layers, "library")]

        def check() -> str:
            mine = world.marginals()
            for name, loads, layers, _ in ways:
                for layer, found in enumerate(of_layers(loads, layers)()):
                    for statistic, value in found.items():
                        assert np.allclose(mine[statistic][layer], value, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True), (name, statistic)
            return f"usage, specialisation, purity, V, JSD {EQUAL}; chi-square to a relative {TOLERANCE:g}"

        rivals = [Rival(name, of_layers(loads, layers), layers / self.n_layers, f"{layers} of {self.n_layers} layers, scaled" if layers == 1 else "",
                        kind) for name, loads, layers, kind in ways]  # type: ignore[arg-type]
        return Workload("usage, specialisation, chi-square, V, JSD", world.marginals, rivals, check, self.n_layers * self.n_rows, "ids/s",
                        "ours counts every unit of documents, as intervals need them; the others count domains only", "a")

    def pair_nmi(self) -> Workload:
        """1 - mean NMI over all pairs of experts."""
        world, n = self.world, self.n_experts
        loads = world.loads()
        per_layer = n * (n - 1) // 2

        def sklearn() -> float:
            return other.nmi_of_sklearn(self.first[0], 0, 1)

        def numpy() -> list[float]:
            i, j = np.triu_indices(n, 1)
            out = []
            for x in self.first:
                p = np.bincount(x, minlength=n) / len(x)
                out.append(1 - float(np.mean(other.nmi_of_loads(p[i], p[j]))))
            return out

        def check() -> str:
            assert close(world.pair_nmi(loads), numpy()), "numpy"
            p = np.bincount(self.first[0], minlength=n) / self.n_rows
            assert close(other.nmi_of_loads(p[0], p[1]), sklearn()), "sklearn"
            return f"{EQUAL}; sklearn on the one pair that it runs on"

        return Workload(f"NMI of {per_layer:,} pairs of experts x {self.n_layers} layers", lambda: world.pair_nmi(loads), [
            Rival("sklearn normalized_mutual_info_score", sklearn, 1 / (per_layer * self.n_layers), "1 pair of experts, scaled", "naive"),
            Rival("numpy bincount and closed form", numpy)], check, per_layer * self.n_layers, "pairs/s",
            "ours from loads that are counted already", "a")

    def transitions(self) -> Workload:
        world, n, rows = self.world, self.n_experts, self.few * self.length

        def loop() -> Any:
            return other.transitions_by_loop(self.first[0][:rows], self.length, n)

        def bincount() -> list[Any]:
            return [other.transitions_by_bincount(x, self.length, n) for x in self.first]

        def check() -> str:
            mine = world.transitions()["counts"]
            assert np.array_equal(mine, bincount()), "bincount"
            assert np.array_equal(loop(), other.transitions_by_bincount(self.first[0][:rows], self.length, n)), "loop"
            return "every count"

        return Workload(f"transitions, {self.n_layers} layers", world.transitions, [
            Rival("dictionary of pairs", loop, rows / (self.n_rows * self.n_layers), f"{self.few:,} documents of one layer, scaled", "naive"),
            Rival("numpy bincount of rows", bincount, note="documents of one length only")], check, self.n_layers * self.n_rows, "tokens/s",
            "ours also takes kappa, entropy and information of each", "a")

    def lags(self) -> Workload:
        world, rows, lags = self.world, self.few * self.length, self.world.lags
        starts = np.arange(0, rows + 1, self.length)
        layers = max(1, self.n_layers // 4)

        def loop() -> Any:
            return other.matches_by_loop(self.first[0][:rows], self.length, lags)

        def numpy() -> list[Any]:
            return [other.kappa(other.matches_by_rows(x, self.length, lags), x, world.shape.n_documents, self.length, lags, self.n_experts)
                    for x in self.first[:layers]]

        def check() -> str:
            assert close(world.lag_kappas()[:layers], numpy()), "rows"
            assert close(loop(), lag_matches(self.first[0][:rows], starts, self.n_experts, lags), 1e-6), "loop"
            return f"kappa {EQUAL}, matches of the slice"

        return Workload(f"{len(lags)} lags x {self.n_layers} layers", world.lag_kappas, [
            Rival("np.mean a document and lag", loop, rows / (self.n_rows * self.n_layers), f"{self.few:,} documents of one layer, scaled", "naive"),
            Rival("numpy comparison of all rows", numpy, layers / self.n_layers, f"{layers} layers, scaled; documents of one length only")],
            check, self.n_layers * self.n_rows * len(lags), "comparisons/s", "", "a")

    def replicates(self) -> Workload:
        """Bootstrap of everything that loads give."""
        world, n, few = self.world, self.n_experts, max(2, self.n_replicates // 10)
        loads = world.loads()
        deal = Deal.of(world.trace.documents, "test", "", max_groups=2)
        unit = np.empty(len(deal.documents), np.int64)  # of each document, as the loads folded them
        for h in range(H):
            members = [d.document for d in deal.documents if d.domain == deal.domains[h]]
            units = np.flatnonzero(loads.domain == h)
            unit[members] = units[np.arange(len(members)) % len(units)]
        weights = document_weights(world.keys[loads.rank], WeightPlan(self.n_replicates), range(few), loads.domain)
        counts = [loads.table(layer).astype(np.float64) for layer in range(self.n_layers)]

        def loop() -> dict[str, Any]:
            chosen, x = weights[0][unit], self.first[0]
            tokens, labels = (other.joined_documents(column, self.length, chosen) for column in (x, self.domain_T))
            return other.marginal_statistics(other.loads_by_loop(tokens, labels, H, n))

        def product(draws: Any = None) -> list[dict[str, Any]]:
            if draws is None:
                rng, sizes = np.random.default_rng(0), np.bincount(loads.domain)
                draws = np.concatenate([rng.multinomial(size, np.full(size, 1 / size), few) for size in sizes], axis=1).astype(np.float64)
            return [other.replicated_statistics(np.stack([draws[:, loads.domain == h] @ table[loads.domain == h] for h in range(H)], axis=1))
                    for table in counts]

        def check() -> str:
            mine, found = world.replicates(self.n_replicates, loads), product(weights.astype(np.float64))
            once = loop()
            for name in found[0]:
                assert close(mine[name][:, :few], [layer[name] for layer in found]), name
                assert close(mine[name][0, 0], once[name]), ("loop", name)
            return f"{', '.join(found[0])} of the same replicates {EQUAL}"

        name = f"{self.n_replicates:,} bootstrap replicates of every marginal statistic"
        return Workload(name, lambda: world.replicates(self.n_replicates, loads), [
            Rival("documents joined, Counter, scipy.stats", loop, 1 / (self.n_replicates * self.n_layers), "1 replicate of 1 layer, scaled", "naive"),
            Rival("numpy multinomial @ counts, batched formulas", product, few / self.n_replicates, f"{few} replicates, scaled; counts ready made")],
            check, self.n_replicates * self.n_layers, "replicates/s",
            f"documents folded into {len(loads.tokens):,} units, drawn inside domains; loads ready made on both sides; ours also takes affinity, "
            "lambda and the largest violation", "b")

    def scan(self) -> Workload:
        """Errors of the information of every pair."""
        world, tables = self.world, self.world.tables()

        def of(way: Callable[..., float], n: int) -> Callable[[], list[float]]:
            return lambda: [way(self.first[a], self.first[b], self.length, table) for (a, b), table in zip(world.pairs[:n], tables)]

        some = max(1, self.n_pairs // 6)

        def check() -> str:
            mine = world.scan(tables)[1].se
            assert close(mine[:1], of(other.influence_by_loop, 1)()), "loop"
            assert close(mine[:some], of(other.influence_by_numpy, some)()), "numpy"
            return f"standard errors {EQUAL} bits"

        return Workload(f"corrected information and document error of {self.n_pairs} pairs", lambda: world.scan(tables), [
            Rival("loop over documents", of(other.influence_by_loop, 1), 1 / self.n_pairs, "1 pair, scaled", "naive"),
            Rival("numpy look-up and sum", of(other.influence_by_numpy, some), some / self.n_pairs, f"{some} pairs, scaled")],
            check, self.n_pairs * self.n_rows, "look-ups/s", "tables ready made on both sides", "b")

    def shifts(self) -> Workload:
        """The null of every pair."""
        world, some = self.world, max(1, self.n_pairs // 11)
        lengths, keys = np.full(world.shape.n_documents, self.length), seeded(world.keys, 0)
        shifts = draw_shifts(lengths, keys, 0)
        x, y = (self.first[layer] for layer in world.pairs[0])

        def roll() -> float:
            return other.bits_of_sklearn(x, other.rolled(y, self.length, shifts))

        def take() -> list[float]:
            rows, n = other.shifted_rows(self.length, shifts), self.n_experts
            return [float(other.bits_of_table(np.bincount(self.first[a].astype(np.int64) * n + self.first[b][rows], minlength=n * n).reshape(n, n)))
                    for a, b in world.pairs[:some]]

        def check() -> str:
            mine = world.shifts(1).null[0]
            assert close(mine[0], roll()), "roll"
            assert close(mine[:some], take()), "take"
            return f"the null's first draw, same shifts, {EQUAL} bits"

        work = self.n_draws * self.n_pairs
        return Workload(f"{self.n_draws} circular shifts x {self.n_pairs} pairs", lambda: world.shifts(self.n_draws), [
            Rival("np.roll a document, sklearn", roll, 1 / work, f"1 pair of 1 of {self.n_draws} draws, scaled", "naive"),
            Rival("numpy take, bincount", take, some / work, f"{some} pairs of 1 draw, scaled")], check, work * self.n_rows, "increments/s",
            "observed information, mean, spread and z of every pair", "c")

    def exact(self) -> Workload:
        """Exact replicates of the information of two pairs."""
        world, n, pairs = self.world, self.n_experts, 2
        weights = document_weights(world.keys, WeightPlan(self.n_replicates), range(2))
        x, y = (self.first[layer] for layer in world.pairs[0])
        cells, unit = x.astype(np.int64) * n + y, np.repeat(np.arange(world.shape.n_documents), self.length)

        def joined() -> float:
            return other.bits_of_sklearn(*(other.joined_documents(column, self.length, weights[0]) for column in (x, y)))

        def weighted() -> list[float]:
            return [float(other.bits_of_table(np.bincount(cells, w[unit], n * n).reshape(n, n))) for w in weights]

        def check() -> str:
            mine = world.exact_replicates(self.n_replicates, n_pairs=1)[0]
            assert close(mine[0], joined()), "joined"
            assert close(mine[:2], weighted()), "weighted"
            return f"the first replicates, same weights, {EQUAL} bits"

        work = self.n_replicates * pairs
        name = f"{self.n_replicates:,} exact replicates of information, {pairs} pairs"
        return Workload(name, lambda: world.exact_replicates(self.n_replicates, n_pairs=pairs), [
            Rival("documents joined, sklearn", joined, 1 / work, "1 replicate of 1 pair, scaled", "naive"),
            Rival("numpy weighted bincount", weighted, 2 / work, "2 replicates of 1 pair, scaled")], check, work, "replicates/s",
            "ours draws the weights too", "e", pairs / self.n_pairs)
