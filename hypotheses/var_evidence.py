"""What the VAR hypothesis is judged from: a trace, corpus frequencies, settings; and the counts made of them once.

D document, L MoE layer, V token type, H entropy threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from analysis.counts import CountPlan, RoutingCounts, accumulate
from analysis.kernels import Float, Int, segment_sums
from analysis.metrics.entropy import SEED_THRESHOLD, EntropyThreshold
from analysis.resampling import TypeCells, document_weights, generator, refuse_tokens
from analysis.trace import RoutingTrace, TraceError

HALF_NAT = EntropyThreshold(0.5, "nats")
HALF_BIT = EntropyThreshold(0.5, "bits")


@dataclass(frozen=True)
class VarSettings:
    """Knobs of the evaluation; the judged values are the defaults (seed 003, metrics specification 2.4 and 4.4)."""

    frequency_threshold: int = 50  # fast path: smallest calibration count
    min_type_count: int = 50  # types judged: smallest test count
    n_bootstrap: int = 999
    n_bootstrap_exploratory: int = 199  # at most n_bootstrap: it takes the first of the same replicates
    n_null: int = 99
    seed: int = 0
    level: float = 0.95
    entropy_threshold: EntropyThreshold = SEED_THRESHOLD
    sensitivity_counts: tuple[int, ...] = (1, 10, 20, 50, 100, 200)
    rarefied_to: int = 50
    top_types: int = 1000
    max_units: int = 2000
    resample: str = "document"

    def __post_init__(self) -> None:
        refuse_tokens(self.resample)
        object.__setattr__(self, "n_bootstrap_exploratory", min(self.n_bootstrap_exploratory, self.n_bootstrap))


@dataclass(frozen=True)
class VarEvidence:
    """frequency: scipy CSR [D_train, V], counts of token types in train and calibration documents, a row per document.

    token_strings: decoded string of each type; may be shorter than V. frequency_domains: domain of each row, for strata.
    domains: those that the corpus was to have; one without test documents is counted as 0.
    """

    trace: RoutingTrace
    frequency: Any
    token_strings: Sequence[str]
    settings: VarSettings = VarSettings()
    frequency_domains: Sequence[str] | None = None
    domains: Sequence[str] = ()

    def __post_init__(self) -> None:
        n_types = self.trace.meta.vocabulary_size
        if self.frequency.shape[1] != n_types:
            raise TraceError(f"frequency: {self.frequency.shape[1]} columns but the trace's vocabulary has {n_types} types; "
                             "count frequencies with the trace's tokenizer and pad to vocabulary_size")


class VarCounts:
    """The counts of both splits, corpus frequencies, and document weights, each made once."""

    def __init__(self, evidence: VarEvidence) -> None:
        self.evidence, self.settings = evidence, evidence.settings
        self.layers = evidence.trace.meta.layers
        rules = (self.settings.entropy_threshold, HALF_NAT, HALF_BIT)
        self.thresholds_HL: Float = np.array([[rule.nats(layer.n_experts) for layer in self.layers] for rule in rules])
        self.calibration = self._counts("calibration")
        self.test = self._counts("test")

    def _counts(self, split: str) -> RoutingCounts:
        salt = str(self.settings.seed)
        return accumulate(self.evidence.trace, CountPlan(split, salt, self.thresholds_HL, max_units=self.settings.max_units))

    @cached_property
    def frequency_V(self) -> Int:
        """Occurrences of each type in train and calibration documents."""
        return np.asarray(self.evidence.frequency.sum(axis=0)).ravel().astype(np.int64)

    @cached_property
    def frequency_cells(self) -> tuple[Int, Int, Int, int, Sequence[str] | None]:
        """Frequency counts as unit, type and count of each non-empty cell, the number of units, and their domains."""
        coo = self.evidence.frequency.tocoo()
        n_rows = coo.shape[0]
        n_units = min(n_rows, self.settings.max_units)
        domains = None if n_units < n_rows else self.evidence.frequency_domains
        return coo.row.astype(np.int64) % max(n_units, 1), coo.col.astype(np.int64), coo.data.astype(np.int64), n_units, domains

    @cached_property
    def test_weights(self) -> Float:
        """Bootstrap weights [B, D] of the test documents, the same for every layer and type-level metric."""
        units = self.test.units
        rng = generator(self.settings.seed, "test_documents")
        return document_weights(units.n, self.settings.n_bootstrap, rng, units.domains)

    @cached_property
    def calibration_weights(self) -> Float:
        """Bootstrap weights [B', D_calibration] of the calibration documents, for exploratory intervals."""
        units = self.calibration.units
        rng = generator(self.settings.seed, "calibration_documents")
        return document_weights(units.n, self.settings.n_bootstrap_exploratory, rng, units.domains)

    @cached_property
    def frequency_weights(self) -> Float:
        """Bootstrap weights [B, D_train], drawn independently of the test documents."""
        *_, n_units, domains = self.frequency_cells
        return document_weights(n_units, self.settings.n_bootstrap, generator(self.settings.seed, "frequency_documents"), domains)

    @cached_property
    def judged(self) -> Int:
        """Types with at least min_type_count test occurrences, ascending."""
        return np.flatnonzero(self.test.n_V >= self.settings.min_type_count)

    def corpus(self, types: Int) -> Callable[[slice], Float]:
        """Replicates of the corpus frequency [b, m] of `types`, by slice of replicates."""
        unit, column, count, n_units, _ = self.frequency_cells
        place = np.full(self.test.n_types, -1, np.int64)
        place[types] = np.arange(len(types))
        kept = place[column] >= 0
        keys, sums = segment_sums(unit[kept] * len(types) + place[column[kept]], count[kept][None])
        cells = TypeCells(keys // max(len(types), 1), keys % max(len(types), 1), (n_units, len(types)))
        return lambda chunk: cells.sums(self.frequency_weights[chunk], sums[0])
