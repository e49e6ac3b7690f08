"""What an atlas and its claims are made from: a trace or its counts, settings, and the tables that are counted once.

L MoE layer, E expert, D domain, N document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from analysis.domain_labels import DomainDocuments
from analysis.estimate import Estimate
from analysis.gates import UNTESTABLE, active
from analysis.kernels import Int
from analysis.loads import Loads, document_loads
from analysis.planes import Planes, planes
from analysis.trace import CountsTrace, LayerMeta, RoutingTrace

COUNTS_ONLY = "only counts were kept, no documents: nothing can be resampled"
NO_TOKENS = f"{UNTESTABLE}: only counts were kept, no tokens in order"
ONE_EACH = "one document per domain: what is the domain's cannot be told from what is the document's"


@dataclass(frozen=True)
class AtlasSettings:
    """Knobs of the evaluation; what the claims mean are the defaults.

    n_permutations: of document labels behind each test of association; max_rows: rows that sequences are read on; judged_only: leave out
    what no criterion rests on, as for controls.
    """

    seed: int = 0
    level: float = 0.95
    n_permutations: int = 9_999
    lags: tuple[int, ...] = (1, 2, 4, 8, 16)
    max_rows: int = 2_000_000
    threads: int = 2
    judged_only: bool = False

    @property
    def salt(self) -> str:
        """What orders documents into groups."""
        return str(self.seed)


@dataclass(frozen=True)
class AtlasEvidence:
    """domains: those that the corpus was to have; one without test documents is counted as 0."""

    trace: RoutingTrace | CountsTrace
    settings: AtlasSettings = AtlasSettings()
    domains: tuple[str, ...] = ()
    split: str = "test"
    details: dict[str, Any] = field(default_factory=dict)


class AtlasCounts:
    """Counts of the judged split, each made once; of a trace that kept only counts, a domain is a single unit that cannot be divided."""

    def __init__(self, evidence: AtlasEvidence) -> None:
        self.evidence, self.settings, self.trace, self.split = evidence, evidence.settings, evidence.trace, evidence.split
        self.layers: tuple[LayerMeta, ...] = evidence.trace.meta.layers

    @property
    def counts_only(self) -> bool:
        """Whether there are neither documents nor tokens."""
        return isinstance(self.trace, CountsTrace)

    @cached_property
    def loads(self) -> Loads:
        """Selections per document (or unit of documents), layer and expert."""
        if isinstance(self.trace, CountsTrace):
            return loads_of_counts(self.trace)
        return document_loads(self.trace, self.split, salt=self.settings.salt)

    @cached_property
    def documents(self) -> DomainDocuments:
        """Selections per document with the document's domain."""
        return DomainDocuments(self.loads.selected, self.loads.domain, len(self.loads.domains))

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains with documents, or with counts, by name."""
        return self.loads.domains

    @property
    def documents_per_domain(self) -> dict[str, int]:
        """Judged documents of each domain, those that the corpus was to have included."""
        found = Counter() if isinstance(self.trace, CountsTrace) else Counter(row.domain for row in self.trace.documents if row.split == self.split)
        return {name: found[name] for name in sorted({*self.domains, *self.evidence.domains})}

    @property
    def n_documents(self) -> int:
        """Judged documents; 0 where only counts were kept."""
        return sum(self.documents_per_domain.values())

    @cached_property
    def sample(self) -> Planes:
        """Rows that sequences are read on: whole documents in hash order, at most max_rows rows."""
        assert not isinstance(self.trace, CountsTrace)
        return planes(self.trace, self.split, salt=self.settings.salt, max_rows=self.settings.max_rows)

    @cached_property
    def domain_of_sample(self) -> list[str]:
        """Domain of each document of the sample."""
        assert not isinstance(self.trace, CountsTrace)
        name = {row.document: row.domain for row in self.trace.documents}
        return [name[number] for number in self.sample.document.tolist()]

    @property
    def untestable(self) -> str | None:
        """Why nothing can be said of domains beyond these very documents, if so."""
        if self.counts_only:
            return f"{UNTESTABLE}: {COUNTS_ONLY}"
        per_domain = [n for n in self.documents_per_domain.values() if n]
        return f"{UNTESTABLE}: {ONE_EACH}" if per_domain and max(per_domain) == 1 and len(per_domain) > 1 else None

    @property
    def untold_components(self) -> str | None:
        """Why differences between components, which a source counts over all its documents, cannot be told for the judged ones."""
        if isinstance(self.trace, CountsTrace):
            return None
        left_out = self.trace.meta.details.get("rows_left_out_first")
        if left_out:
            return (f"components are compared over all rows, and the first {left_out} of every document are left out; read the trace again without "
                    "--leave-out-first (trace.leave_out_first = 0)")
        if all(row.split == self.split for row in self.trace.documents):
            return None
        return "components are compared over all documents, and some of them are not judged; give trace.test_share = 1.0"

    def honest(self, estimate: Estimate) -> Estimate:
        """An estimate on domains as it may be said: where nothing is testable it is a point without an interval, and why is its gate."""
        return _point(estimate, self.untestable, self.n_documents)

    def pointed(self, estimate: Estimate) -> Estimate:
        """Any other estimate: of counts without documents a point, whose gate says so."""
        return _point(estimate, self.untestable if self.counts_only else None, self.n_documents)

    def honestly(self, estimates: Sequence[Estimate]) -> tuple[Estimate, ...]:
        """`honest` of each."""
        return tuple(self.honest(one) for one in estimates)


def _point(estimate: Estimate, why: str | None, n_documents: int) -> Estimate:
    if not why or estimate.value is None:
        return estimate
    value = estimate.plug_in if estimate.plug_in is not None else estimate.value
    return replace(estimate, value=value, low=None, high=None, se=None, p=None, method="plug-in", gate=why, n_units=n_documents)


def loads_of_counts(trace: CountsTrace) -> Loads:
    """Counts as loads of one unit per domain."""
    n = len(trace.domains)
    order = np.argsort(np.array(trace.domains))
    tokens = trace.tokens if trace.tokens is not None else _tokens(trace)
    first = trace.first or tuple(np.zeros_like(table) for table in trace.counts)
    return Loads(trace.meta.layers, tuple(trace.domains[i] for i in order), tuple(table[order] for table in trace.counts),
                 tuple(table[order] for table in first), None, tokens[order], np.arange(n), np.ones(n, np.int64), np.arange(n))


def _tokens(trace: CountsTrace) -> Int:
    """Selections over k, where the tokens are not recorded."""
    return np.asarray(trace.counts[0].sum(axis=1) // trace.meta.layers[0].top_k, np.int64)


def facts(counts: AtlasCounts) -> dict[str, Any]:
    """Everything that is stated beside the estimates."""
    details, layers = counts.trace.meta.details, counts.layers
    used = [np.flatnonzero(counts.loads.selected[number].sum(axis=0)) for number in range(len(layers))]
    return {
        "n_documents": counts.n_documents, "n_documents_per_domain": counts.documents_per_domain,
        "n_layers_left_out": int(details.get("moe_layers_of_model", len(layers))) - len(layers),
        "n_tokens": int(counts.loads.tokens.sum()), "resampled": "nothing" if counts.counts_only else "document", "split": counts.split,
        "seed": counts.settings.seed, "counts_only": counts.counts_only, "n_permutations": counts.settings.n_permutations,
        "layers": [{"key": layer.key, "depth": layer.depth, "stack": layer.stack, "n_experts": layer.n_experts, "top_k": layer.top_k,
                    "n_active": len(ids)} for layer, ids in zip(layers, used)],
        "k": sorted({layer.top_k for layer in layers}),
        "unused_experts": {layer.key: sorted(set(range(layer.n_experts)) - set(ids.tolist())) for layer, ids in zip(layers, used)
                           if len(ids) < layer.n_experts},
        "absent": list(details.get("absent", ())), "caveats": caveats(counts),
    }


def caveats(counts: AtlasCounts) -> list[str]:
    """What a reader of these numbers has to know of the trace."""
    out = []
    if counts.counts_only:
        out.append(f"{COUNTS_ONLY}; every number is a point, and what needs tokens is undefined")
    elif counts.untestable:
        out.append(f"{ONE_EACH}; association with the domain is untestable, and sequences are read over all documents together")
    left_out = int(counts.trace.meta.details.get("moe_layers_of_model", len(counts.layers))) - len(counts.layers)
    if left_out:
        out.append(f"{left_out} of the model's {left_out + len(counts.layers)} MoE layers are not in the trace: means over layers are of the others")
    if counts.trace.meta.details.get("rows_left_out_first"):
        out.append(f"the first {counts.trace.meta.details['rows_left_out_first']} rows of every document are left out")
    if len(counts.domains) == 1:
        out.append(f"one domain ({counts.domains[0]}): nothing can be said across domains")
    single = sum(layer.top_k == 1 for layer in counts.layers)
    if single:
        out.append(f"one choice a token (k = 1) in {single} of {len(counts.layers)} layers: there is no second choice")
    unused = sum(layer.n_experts - active(counts.loads.selected[number].sum(axis=0)) for number, layer in enumerate(counts.layers))
    if unused:
        out.append(f"{unused} experts without a selection: kept in E, left out of what is said of single experts")
    if not counts.counts_only and len(counts.sample) < int(counts.loads.tokens.sum()):
        out.append(f"sequences are read on {len(counts.sample):,} of {int(counts.loads.tokens.sum()):,} tokens, whole documents in hash order")
    return out
