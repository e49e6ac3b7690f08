"""Two-way bootstrap of Spearman's rho between corpus frequency and mean entropy of token types.

b replicate, D document, L MoE layer, m type.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hypotheses.var_draws import TypeSample, sample
from hypotheses.var_evidence import VarCounts, VarEvidence, VarSettings
from hypotheses.var_rank import RankRule, correlation
from tests.bench.measure import Rival, Workload
from tests.bench.rows import Sample, Sizes, corpus_tokens, frequency_matrix

TOLERANCE = 1e-9
CORPUS_DOCUMENTS = 600


class ByHand:
    """The replicates of our own document weights, made from tokens."""

    def __init__(self, counts: VarCounts, rows: Sample, corpus: list[NDArray[np.int64]]) -> None:
        self.corpus, self.n_types, self.types = corpus, rows.meta.vocabulary_size, counts.judged
        self.weights, self.corpus_weights = counts.test_weights.astype(np.int64), counts.frequency_weights.astype(np.int64)
        batch = rows.rows
        place = [np.flatnonzero(batch.document == row.document) for row in counts.test.units.documents]
        self.tokens = [batch.token_id[rows] for rows in place]
        self.entropy = [np.asarray(batch.entropy_nats, np.float64)[:, rows] for rows in place]
        self.all_tokens, self.all_entropy = np.concatenate(self.tokens), np.concatenate(self.entropy, axis=1)
        self.unit = np.repeat(np.arange(len(place)), [len(p) for p in place])
        self.corpus_tokens = np.concatenate(corpus)
        self.corpus_unit = np.repeat(np.arange(len(corpus)), [len(d) for d in corpus])

    def joined(self, n_replicates: int) -> NDArray[np.float64]:
        """Each replicate's documents laid end to end, then means, ranks and scipy's Spearman [b, L]."""
        out = []
        for b in range(n_replicates):
            chosen = np.repeat(np.arange(len(self.tokens)), self.weights[b])
            tokens = np.concatenate([self.tokens[d] for d in chosen])
            entropy = np.concatenate([self.entropy[d] for d in chosen], axis=1)
            drawn = np.concatenate([self.corpus[d] for d in np.repeat(np.arange(len(self.corpus)), self.corpus_weights[b])])
            n, frequency = np.bincount(tokens, minlength=self.n_types), np.bincount(drawn, minlength=self.n_types)
            out.append(self._rho(frequency, n, [np.bincount(tokens, h, self.n_types) for h in entropy]))
        return np.array(out)

    def weighted(self, n_replicates: int) -> NDArray[np.float64]:
        """No copies: every token weighs as often as its document was drawn."""
        out = []
        for b in range(n_replicates):
            weight = self.weights[b][self.unit]
            n = np.bincount(self.all_tokens, weight, self.n_types)
            frequency = np.bincount(self.corpus_tokens, self.corpus_weights[b][self.corpus_unit], self.n_types)
            out.append(self._rho(frequency, n, [np.bincount(self.all_tokens, weight * h, self.n_types) for h in self.all_entropy]))
        return np.array(out)

    def _rho(self, frequency: NDArray[np.generic], n: NDArray[np.generic], sums: list[NDArray[np.float64]]) -> list[float]:
        from scipy.stats import spearmanr

        kept = self.types[n[self.types] > 0]
        return [float(spearmanr(frequency[kept], total[kept] / n[kept]).statistic) for total in sums]


def workload(sizes: Sizes, rows: Sample) -> Workload:
    """Ours from the trace: counts, weights, replicates, and the interval per layer and of the mean over layers."""
    corpus = corpus_tokens(rows, CORPUS_DOCUMENTS)
    evidence = VarEvidence(rows.trace, frequency_matrix(corpus, rows.meta.vocabulary_size), (),
                           VarSettings(n_bootstrap=sizes.replicates, max_units=max(2000, len(rows.documents))))

    def ours() -> NDArray[np.float64]:
        counts = VarCounts(evidence)
        population = TypeSample.of(counts, counts.test, counts.settings.min_type_count)
        drawn = sample(population, [correlation], counts.settings.n_bootstrap, counts.test_weights, null=False)[0]
        estimates = RankRule(counts, len(population.types)).estimates(drawn)
        assert all(estimate.value is not None for estimate in estimates)
        return drawn.replicates[:, :, 0]

    counts = VarCounts(evidence)
    hand, few, share = ByHand(counts, rows, corpus), sizes.rival_replicates, sizes.rival_replicates / sizes.replicates

    def check() -> str:
        mine = ours()[:few]
        for name, theirs in (("joined", hand.joined(few)), ("weighted", hand.weighted(few))):
            assert np.allclose(mine, theirs, rtol=0, atol=TOLERANCE), name
        return f"the first {few} replicates within {TOLERANCE:g}"

    scaled = f"{few} of {sizes.replicates} replicates run, scaled"
    return Workload(
        f"two-way bootstrap of Spearman, B = {sizes.replicates}", ours,
        [Rival("tokens concatenated, scipy spearmanr", lambda: hand.joined(few), share, scaled),
         Rival("weighted bincount, scipy spearmanr", lambda: hand.weighted(few), share, scaled)], check, sizes.replicates, "replicates/s",
        f"{len(rows.rows):,} tokens, {len(rows.documents):,} + {len(corpus)} documents, {len(counts.judged):,} types x "
        f"{len(rows.meta.layers)} layers; ours counts the trace and draws the weights too")
