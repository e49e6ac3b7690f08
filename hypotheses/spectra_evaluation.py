"""SPECTRA evaluated: every metric of seed 004 on every arm, layer and seed, compared at both levels, with tables, pictures' coordinates and facts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.estimate import Estimate
from analysis.gates import UNTESTABLE
from analysis.paired_draws import Draws
from hypotheses.claim import Criterion, Evaluation
from hypotheses.spectra_comparison import COLUMNS, comparison_rows, pair_rows, run_rows
from hypotheses.spectra_evidence import ArmRun, SpectraEvidence
from hypotheses.spectra_experts import CELL_COLUMNS, EXPERT_COLUMNS, SAMPLE_COLUMNS, expert_rows
from hypotheses.spectra_facts import CHECK_COLUMNS, CURVE_COLUMNS, TRAINING_COLUMNS, check_rows, curve_rows, facts, training_rows
from hypotheses.spectra_method import Pair, checkpoint_change, confounding, method_changes, next_training, values_of
from hypotheses.spectra_pictures import DIRECTION_COLUMNS, TOKEN_COLUMNS, direction_rows, token_rows
from hypotheses.spectra_runs import RunCounts
from hypotheses.spectra_seed import seed_rule, weight_forms
from hypotheses.spectra_tokens import diversity_draws, silhouette_draws
from hypotheses.topology_evaluation import threshold_curve
from hypotheses.topology_parts import Row, cells, columns

JUDGED = ("mi_E_D", "gram_rms", "repr_output", "held_out_loss", "least_load", "collapse_rate")
LOSS_LEVEL = 0.90  # two one-sided tests at 5 %
RULE_OF_THREE = 3.0
RUN_COLUMNS = ("arm", "seed", "layer", "metric", *cells(Estimate.undefined("")), "optimised", "constrained")
PAIR_COLUMNS = ("metric", "seed", *cells(Estimate.undefined("")))
COLLAPSE_COLUMNS = ("arm", "seed", "layer", "rate", "n_dead", "dead", "load_bound")
REFERENCE_COLUMNS = ("arm", "seed", "layer", "reference", "value")
Key = tuple[str, int]


def evaluate(evidence: SpectraEvidence, criteria: Sequence[Criterion] = ()) -> Evaluation:
    """Every metric, table and fact of the arms; criteria: those whose verdict is shown against other thresholds.

    Raises ValueError for layers of unlike numbers of experts, TraceError for rows that cannot be counted. What cannot be estimated is an
    Estimate with its reason.
    """
    judged_only = evidence.settings.judged_only
    runs = [run for pair in evidence.pairs for run in pair] if judged_only else [run for runs in evidence.arms.values() for run in runs]
    counts = {(run.arm, run.seed): RunCounts(run, evidence.settings) for run in runs}
    draws: dict[Key, dict[str, Draws]] = {}
    references: list[Row] = []
    for key, one in counts.items():
        draws[key], found = _draws(one, judged_only)
        references += found
    pairs = [Pair(a.seed, draws[a.arm, a.seed], draws[b.arm, b.seed]) for a, b in evidence.pairs]
    gate = confounding(evidence.pairs)
    estimates, by_layer = _estimates(evidence, pairs, gate)
    comparison = comparison_rows(evidence, pairs, gate)
    tables = {"comparison": columns(comparison, COLUMNS),
              "pairs": columns(pair_rows(pairs, gate, evidence.settings.level), PAIR_COLUMNS),
              "runs": columns([row for run in runs for row in run_rows(run, draws[run.arm, run.seed], evidence.settings.level)], RUN_COLUMNS),
              "references": columns(references, REFERENCE_COLUMNS),
              "collapse": columns([row for one in counts.values() for row in one.collapse_rows()], COLLAPSE_COLUMNS)}
    stated = {**facts(evidence, gate), "seed_rule": seed_rule(evidence, draws, references)}
    curve = threshold_curve(criteria, Evaluation(estimates, facts=stated))
    tables["threshold_curve"] = columns(list(curve), ("criterion", "threshold", "outcome"))
    if not judged_only:
        shown, stated["pictures"], stated["keywords"] = _shown(evidence, counts)
        tables |= shown
    stated["shown_layer"] = max(len(next(iter(counts.values())).layers) - 1, 0) if counts else 0
    return Evaluation(estimates, by_layer, tables, stated)


def _draws(counts: RunCounts, judged_only: bool) -> tuple[dict[str, Draws], list[Row]]:
    """Every metric of one run; and its references, with the seed's own forms."""
    found = {**counts.domain_draws(), **counts.loss_draws(), **counts.output_draws(), **counts.usage_draws()}
    if judged_only:
        return {name: one for name, one in found.items() if name in JUDGED}, []
    (silhouettes, references), (weighted, seeds_forms) = silhouette_draws(counts), weight_forms(counts)
    found |= {**weighted, **counts.purity_draws(), **counts.confidence_draws(), **counts.direction_draws(), **silhouettes, **diversity_draws(counts)}
    rows: list[Row] = [{"arm": counts.run.arm, "seed": counts.run.seed, "layer": layer, "reference": f"silhouette {name}", "value": float(value)}
                       for name, values in references.items() for layer, value in enumerate(values)]
    return found, rows + counts.reference_rows() + seeds_forms


def _estimates(evidence: SpectraEvidence, pairs: Sequence[Pair], gate: str | None) -> tuple[dict[str, Estimate], dict[str, tuple[Estimate, ...]]]:
    """What the criteria speak of, at the level of the method, with the first pair of checkpoints beside each."""
    estimates: dict[str, Estimate] = {}
    by_layer: dict[str, tuple[Estimate, ...]] = {}
    for metric in ("gram_rms", "repr_output", "mi_E_D", "held_out_loss"):
        name, level = f"{metric}_change", LOSS_LEVEL if metric == "held_out_loss" else evidence.settings.level
        changes = method_changes(pairs, metric, gate=gate, level=level)
        estimates[name] = changes[-1]
        if len(changes) > 1:
            by_layer[name] = tuple(changes[:-1])
        if pairs:
            estimates[f"{name}_checkpoint"] = checkpoint_change(pairs[0], metric, gate=gate, level=level)[-1]
    estimates["collapse_rate_change"] = fewer_collapsed(pairs, gate=gate, level=evidence.settings.level)
    estimates["least_load_of_a_training"] = _least_load(evidence, pairs, gate)
    return estimates, by_layer


def fewer_collapsed(pairs: Sequence[Pair], *, gate: str | None, level: float) -> Estimate:
    """Change of the collapse rate over training seeds; untestable where no expert collapses in any training of either arm.

    What is not there cannot vanish. A treatment that collapses where the baseline does not is an ordinary change for the worse.
    """
    change = method_changes(pairs, "collapse_rate", gate=gate, level=level)[-1]
    rates = [values_of(draws, "collapse_rate")[-1:] for pair in pairs for draws in (pair.baseline, pair.treatment)]
    if rates and all(rate == [0.0] for rate in rates):
        return Estimate.undefined(f"{UNTESTABLE}: no expert collapses in any of the {len(pairs)} trainings of either arm, so that nothing could "
                                  "vanish; a baseline that collapses would settle it", unit=change.unit, resampled="seed", n_units=len(pairs),
                                  method=change.method)
    return change


def _least_load(evidence: SpectraEvidence, pairs: Sequence[Pair], gate: str | None) -> Estimate:
    """The least load of any expert in any layer of one further training of the treatment.

    Where every training has an expert without a selection, documents bound its load by 3 / n (n_eff at least the number of documents).
    """
    values = [_known(float(pair.treatment["least_load"].plug_in[:-1].min())) for pair in pairs]
    first = evidence.pairs[0][1].trace if evidence.pairs else None
    n_documents = sum(row.split == "test" for row in first.documents) if first else 0
    n_experts = first.meta.layers[0].n_experts if first else 0
    bound = RULE_OF_THREE * n_experts / max(n_documents, 1)
    return next_training(values, unit="share of an even load", bound=bound, gate=gate, level=evidence.settings.level)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _shown(evidence: SpectraEvidence, counts: dict[Key, RunCounts]) -> tuple[dict[str, dict[str, object]], list[str],
                                                                                                list[str]]:
    """Tables of single experts and coordinates of pictures, of the first seed of every arm; what could not be drawn, what keywords leave out."""
    experts, tokens, directions, said, cut = [], [], [], list[str](), list[str]()
    firsts: list[ArmRun] = [runs[0] for runs in evidence.arms.values() if runs]
    for run in firsts:
        one = counts[run.arm, run.seed]
        experts.append(expert_rows(one, evidence.token_strings))
        cut += [experts[-1].said] if experts[-1].said else []
        directions += direction_rows(one)
        found, missing = token_rows(one, len(one.layers) - 1)
        tokens += found
        said += missing
    everyone = [run for runs in evidence.arms.values() for run in runs]
    return {
        "experts": columns([row for one in experts for row in one.experts], EXPERT_COLUMNS),
        "affinity": columns([row for one in experts for row in one.cells], CELL_COLUMNS),
        "samples": columns([row for one in experts for row in one.samples], SAMPLE_COLUMNS),
        "tokens": columns(tokens, TOKEN_COLUMNS), "directions": columns(directions, DIRECTION_COLUMNS),
        "training": columns(training_rows(everyone), TRAINING_COLUMNS), "checks": columns(check_rows(everyone), CHECK_COLUMNS),
        "curves": columns(curve_rows(everyone), CURVE_COLUMNS)}, sorted(set(said)), cut
