"""Plain facts of a topology evaluation: sample sizes, layers, caveats, and the seed's own numbers as the seed would judge them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from analysis.estimate import Estimate
from analysis.gates import active
from analysis.joint import joint_counts
from hypotheses.topology_evidence import TopologyCounts


def facts(counts: TopologyCounts, estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """Everything that is stated beside the estimates; of a split without documents what the trace's own description says."""
    trace, evidence = counts.trace, counts.evidence
    documents = [row for row in trace.documents if row.split == counts.split]
    found = Counter(row.domain for row in documents)
    return {
        **(_of_rows(counts) if documents else {"caveats": [none_of(counts.split)]}),
        "n_documents": len(documents),
        "n_documents_per_domain": {domain: found[domain] for domain in sorted({*found, *evidence.domains})},
        "n_layers_left_out": int(trace.meta.details.get("moe_layers_of_model", len(counts.layers))) - len(counts.layers),
        "n_documents_calibration": sum(row.split == "calibration" for row in trace.documents),
        "resampled": "document", "split": counts.split, "seed": counts.settings.seed, "n_shifts": counts.settings.n_shifts,
        "lags": list(counts.settings.lags), "k": sorted({layer.top_k for layer in counts.layers}),
        "excluded": dict(trace.meta.details.get("excluded", {})), "absent": list(trace.meta.details.get("absent", ())),
        "declared_pairs": [list(pair) for pair in evidence.pairs_of_interest], "seed_rule": seed_rule(estimates),
    }


def none_of(split: str) -> str:
    """Why nothing can be estimated on a split without documents."""
    return f"no {split} documents: nothing can be measured, and no verdict is possible; more documents, or a larger share, would give some"


def _of_rows(counts: TopologyCounts) -> dict[str, Any]:
    """What only the rows tell: tokens, experts in use, caveats."""
    return {
        "n_tokens": int(counts.loads.tokens.sum()), "n_tokens_of_nulls": len(counts.sample),
        "layers": [{"key": layer.key, "depth": layer.depth, "n_experts": layer.n_experts, "top_k": layer.top_k,
                    "n_active": len(counts.experts(number))} for number, layer in enumerate(counts.layers)],
        "unused_experts": {layer.key: sorted(set(range(layer.n_experts)) - set(counts.experts(number).tolist()))
                           for number, layer in enumerate(counts.layers) if len(counts.experts(number)) < layer.n_experts},
        "caveats": caveats(counts)}


def caveats(counts: TopologyCounts) -> list[str]:
    """What a reader of these numbers has to know of the trace."""
    out = []
    if counts.sample.token_id is None:
        out.append("no token ids: nothing is said given the token type, and coupling through the token itself cannot be told from coupling of layers")
    if counts.n_documents == 1:
        out.append("one document: there is no spread between documents, so no interval and no verdict")
    if len(counts.domains) == 1:
        out.append(f"one domain ({counts.domains[0]}): nothing can be said across domains")
    if len(counts.layers) == 1:
        out.append("one MoE layer: nothing can be said between layers")
    single = [layer.key for layer in counts.layers if layer.top_k == 1]
    if single:
        out.append(f"k = 1 in {len(single)} of {len(counts.layers)} layers: a token with one expert activates no two together, and co-activation "
                   "is undefined")
    unused = sum(layer.n_experts - len(counts.experts(number)) for number, layer in enumerate(counts.layers))
    if unused:
        out.append(f"{unused} experts without a selection: kept in E, left out of clusters, lifts and affinities")
    few = _undersampled(counts)
    if few:
        out.append(f"{few} of {len(counts.adjacent)} adjacent layer pairs are undersampled, with fewer than 5 tokens per pair of active experts: no "
                   "verdict rests on them")
    if not any(row.split == "calibration" for row in counts.trace.documents):
        out.append("no calibration documents: clusters are found on every other group of the judged documents and judged on the rest")
    if len(counts.sample) < int(counts.loads.tokens.sum()):
        out.append(f"nulls run on {len(counts.sample):,} of {int(counts.loads.tokens.sum()):,} tokens, whole documents in hash order")
    return out


def _undersampled(counts: TopologyCounts) -> int:
    first, layers = counts.sample.first, counts.layers
    few = 0
    for a, b in counts.adjacent:
        table = joint_counts(first[a], first[b], layers[a].n_experts, layers[b].n_experts)
        few += int(counts.loads.tokens.sum()) < 5 * active(table.sum(axis=1)) * active(table.sum(axis=0))
    return few


def seed_rule(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """Seed 000's numbers on point estimates, uncorrected. Its cross-domain MI has no value: transferred information stands in for it."""
    def plug_in(name: str) -> float | None:
        one = estimates.get(name)
        return None if one is None else one.plug_in if one.plug_in is not None else one.value

    return {"cross_layer_mi": plug_in("mi_first_choice"), "cross_domain_mi": plug_in("transfer_info"),
            "cross_domain_min": plug_in("transfer_info_min"), "predictor_mi": plug_in("predictor_mi"), "random_mi": plug_in("random_mi"),
            "mi_accuracy_r": plug_in("mi_vs_accuracy"), "clusters": plug_in("coact_clarity")}
