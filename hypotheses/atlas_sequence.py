"""Order of a document's tokens in an atlas (seed 001, seed 002 Part 9): transitions, persistence, repeats by token type, timeline, sample paths.

L MoE layer, E expert, D document, G group of documents.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.estimate import Estimate
from analysis.estimation import Groups, estimates
from analysis.gates import NO_DATA, few_documents, gated
from analysis.repetition_counts import repeats_by_type
from analysis.survey_layers import sequence_rows
from analysis.survey_row import SurveyPlan
from analysis.trace import CountsTrace
from hypotheses.atlas_evidence import NO_TOKENS, AtlasCounts
from hypotheses.repetition_evaluation import repetition_part
from hypotheses.topology_evidence import TopologyCounts, TopologyEvidence, TopologySettings
from hypotheses.topology_parts import Part, Row, columns, status
from hypotheses.topology_sequence import LAG_COLUMNS, sequence_part

BINS, SAMPLES, SAMPLE_TOKENS = 24, 4, 64
PERSISTENCE = ("layer", "statistic", "value", "low", "high", "seed", "unit", "status", "reason")
BY_TYPE = ("layer", "next_type", "kappa", "low", "high", "n_pairs", "reason")
TIMELINE = ("layer", "start", "end", "expert", "n", "share")
PATHS = ("sample", "domain", "layer", "depth", "position", "expert")
NO_TYPES = f"{NO_DATA}: no token ids"


def atlas_sequence(counts: AtlasCounts) -> Part:
    """Everything along documents; of counts alone, empty tables and the reason."""
    part = Part()
    if isinstance(counts.trace, CountsTrace):
        missing = Estimate.undefined(NO_TOKENS, unit="kappa")
        part.estimates = dict.fromkeys(("lag_kappa", "repetition_first_higher"), missing)
        names: dict[str, tuple[str, ...]] = {
            "autocorrelation": LAG_COLUMNS, "transition_matrix": ("layer", "i", "j", "p", "n"), "sequence": PERSISTENCE, "repeats_by_type": BY_TYPE,
            "timeline": TIMELINE, "sample_paths": PATHS, "repetition": ("layer", "domain", "form")}
        part.tables = {name: columns([], columns_of) for name, columns_of in names.items()}
        return part
    settings = counts.settings
    knobs = TopologySettings(settings.seed, settings.level, lags=settings.lags, max_rows=settings.max_rows, threads=settings.threads)
    part.add(sequence_part(TopologyCounts(TopologyEvidence(counts.trace, knobs, counts.evidence.domains, split=counts.split))))
    part.add(repetition_part(counts))
    part.tables["sequence"] = _persistence(counts)
    part.tables["repeats_by_type"] = _by_type(counts)
    part.tables["timeline"] = timeline(counts)
    part.tables["sample_paths"] = _paths(counts)
    return part


def _persistence(counts: AtlasCounts) -> dict[str, Any]:
    """Transition rate, persistence and transition diversity of every layer, with the seed's forms."""
    settings = counts.settings
    assert not isinstance(counts.trace, CountsTrace)
    plan = SurveyPlan(counts.split, settings.salt, settings.seed, level=settings.level, threads=settings.threads)
    place = {layer.key: number for number, layer in enumerate(counts.layers)}
    rows = []
    for one in sequence_rows(counts.trace, counts.loads, plan):
        found = one.estimate
        rows.append({"layer": place[one.layers[0]], "statistic": one.metric, "value": found.value, "low": found.low, "high": found.high,
                     "seed": found.plug_in, "unit": found.unit, "status": status(found), "reason": found.reason or found.gate or ""})
    return columns(sorted(rows, key=lambda row: (row["layer"], row["statistic"])), PERSISTENCE)


def _by_type(counts: AtlasCounts) -> dict[str, Any]:
    """Agreement of neighbouring tokens where they are of one type, and where they are not: repeats of a type inflate stickiness."""
    sample, rows = counts.sample, []
    gate = few_documents(len(sample.document))
    for number, layer in enumerate(counts.layers):
        for word, same in (("the same", True), ("another", False)):
            found = Estimate.undefined(NO_TYPES, unit="kappa")
            n_pairs = None
            if sample.token_id is not None:
                tables = repeats_by_type(sample.ids[number][0], sample.token_id, sample.starts, layer.n_experts, sample.group(), same=same)
                found = estimates("lag_overlap_kappa", Groups(tables, len(sample.document)), level=counts.settings.level).item()
                found, n_pairs = gated(found, gate) if found.value is not None else found, int(tables[3].sum())
            rows.append({"layer": number, "next_type": word, "kappa": found.value, "low": found.low, "high": found.high, "n_pairs": n_pairs,
                         "reason": found.reason or found.gate or ""})
    return columns(rows, BY_TYPE)


def timeline(counts: AtlasCounts) -> dict[str, Any]:
    """Use of each expert by place in the document: at most 24 bins of as many positions each, every layer."""
    sample = counts.sample
    last = int(sample.position.max(initial=0))
    width = max(1, -(-(last + 1) // BINS))
    of, n_bins = sample.position.astype(np.int64) // width, last // width + 1
    parts = []
    for number, layer in enumerate(counts.layers):
        n = np.zeros((n_bins, layer.n_experts), np.int64)
        for slot in sample.ids[number]:
            n += np.bincount(of * layer.n_experts + slot, minlength=n.size).reshape(n.shape)
        place, expert = (axis.ravel() for axis in np.indices(n.shape))
        total = n.sum(axis=1)
        share = np.divide(n, total[:, None], out=np.full(n.shape, np.nan), where=total[:, None] > 0)
        parts.append((np.full(n.size, number), place * width, np.minimum(place * width + width - 1, last), expert, n.ravel(), share.ravel()))
    return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(TIMELINE)}


def _paths(counts: AtlasCounts) -> dict[str, Any]:
    """First choices of the first tokens of a few documents, one of each domain first, in hash order."""
    sample, names = counts.sample, counts.domain_of_sample
    assert not isinstance(counts.trace, CountsTrace)
    id_of = {row.document: row.id for row in counts.trace.documents}
    first_of_domain = {name: names.index(name) for name in reversed(names)}
    order = [*sorted(first_of_domain.values()), *(i for i in range(len(names)) if i not in first_of_domain.values())][:SAMPLES]
    rows: list[Row] = []
    for place in order:
        start, end = int(sample.starts[place]), int(sample.starts[place + 1])
        shown = range(start, min(end, start + SAMPLE_TOKENS))
        for number, layer in enumerate(counts.layers):
            rows += [{"sample": id_of[int(sample.document[place])], "domain": names[place], "layer": number, "depth": layer.depth,
                      "position": int(sample.position[t]), "expert": int(sample.ids[number][0, t])} for t in shown]
    return columns(rows, PATHS)
