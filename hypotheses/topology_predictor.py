"""What Prophet tells of the routing, beside its ablation and baselines, at home and in other domains; retention against transferred information.

G jackknife group of one target domain, L predicted layer, E expert (P predicted, Y actual), D domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from analysis.correlation import MOST_ENUMERATED, PairCorrelation, mi_vs_retention
from analysis.estimate import Estimate
from analysis.estimation import Groups, estimates
from analysis.gates import NO_DATA, UNTESTABLE, few_per_domain, gated, undersampled
from analysis.kernels import Float
from analysis.left_out import LeftOut, leave_out, stack
from analysis.metrics.baselines import REQUIRED
from analysis.metrics.prediction import MISSING_BASELINE, PredictionTables, ScoredDocuments, predictor_estimates
from analysis.metrics.retention import retention_over_source_seed, retention_over_target_seed
from analysis.registry import find
from hypotheses.topology_domains import ONE_DOMAIN
from hypotheses.topology_evidence import ABLATION, PROPHET, PredictionScores, PredictorEvidence, TopologyCounts
from hypotheses.topology_parts import Part, Row, cells, columns, mean_of, status

NO_PREDICTOR = f"{NO_DATA}: no predictor was run on this trace"
IMPORTED = "imported"
FANO = "descriptive: Fano's inequality ties accuracy to information, so that they correlate by construction"
PREDICTOR_COLUMNS = ("source", "target", "layer", "predictor", "mi", "low", "high", "u", "u_low", "u_high", "entropy", "top1", "top1_low",
                     "top1_high", "recall", "status", "reason")
HOME_COLUMNS = ("predictor", "metric", *cells(Estimate.undefined("")))
RETENTION_COLUMNS = ("predictor", "source", "target", "value", "low", "high", "over_target_seed", "over_source_seed", "declared", "status", "reason")
LEARNING_COLUMNS = ("source", "epoch", "layer", "mi_bits", "loss", "accuracy")
SCATTER_COLUMNS = ("source", "target", "transfer_info", "retention", "declared")
MARKOV = "previous_layer"
KEPT = (PROPHET, ABLATION, MARKOV, "ordered_pair")  # predictors whose retention is shown
ByPair = dict[tuple[str, str], Estimate]
UNITS = {"predictor_mi": "bits", "predictor_u": "share of H(Y)", "top1_accuracy": "share of tokens", "recall_at_k": "share of selections",
         "predictor_gain": "bits", "accuracy_gain": "share of tokens", "ablation_gain": "bits", "markov_gain": "bits",
         "markov_accuracy_gain": "share of tokens", "predictor_entropy": "bits", "random_mi": "bits",
         "retention": "ratio", "mi_vs_retention": "r", "mi_vs_retention_spearman": "rho", "mi_vs_accuracy": "r"}


def predictor_part(counts: TopologyCounts, information: ByPair) -> Part:
    """Everything of the predictor; information: T(A->B) of each ordered pair of domains, against which retention is held."""
    part = Part()
    found = counts.evidence.predictor
    missing = {} if found is None else dict(found.missing)
    part.facts["predictor"] = {"run": found is not None, "missing": missing, "origin": "" if found is None else found.origin}
    why = next((why for name, why in missing.items() if name == PROPHET or name.startswith(f"{PROPHET} from ")), NO_PREDICTOR)
    part.estimates = {name: Estimate.undefined(why, unit=unit) for name, unit in UNITS.items()}
    part.tables = {"predictor_mi": columns([], PREDICTOR_COLUMNS), "predictor_home": columns([], HOME_COLUMNS),
                   "retention": columns([], RETENTION_COLUMNS),
                   "learning_curve": columns([], LEARNING_COLUMNS), "mi_vs_retention": columns([], SCATTER_COLUMNS)}
    if found is None or not any(name == PROPHET for name, _, _ in found.scores):
        _imported_retention(counts, part, information)
        return part
    level = counts.settings.level
    rows, grid = _score_rows(found, level)
    part.tables["predictor_mi"] = columns(rows, PREDICTOR_COLUMNS)
    if found.learning:
        part.tables["learning_curve"] = {name: list(values) if name == "source" else np.asarray(values) for name, values in found.learning.items()}
    part.tables["predictor_home"] = columns(_home_rows(found, level), HOME_COLUMNS)
    part.estimates |= _headlines(found, level, part)
    kept = _retentions(counts, found, level)
    part.tables["retention"] = columns([row for row, _ in kept], RETENTION_COLUMNS)
    prophet = {(row["source"], row["target"]): one for row, one in kept if row["predictor"] == PROPHET}
    known = [one for one in prophet.values() if one.value is not None]
    if known:
        part.estimates["retention"] = mean_of(known)
    _against_information(counts, part, information, prophet)
    _imported_retention(counts, part, information)
    part.estimates["mi_vs_accuracy"] = _fano(grid, sum(found.n_documents.values()))
    return part


def _imported_retention(counts: TopologyCounts, part: Part, information: ByPair) -> None:
    """Retention measured elsewhere, in the place of Prophet's: no documents are known behind it, so that it has no intervals."""
    given = counts.evidence.retention
    if not given:
        return
    declared = set(counts.evidence.pairs_of_interest)
    kept = {pair: Estimate.undefined(f"{NO_DATA}: left empty in the imported table", unit="ratio") if value is None else
            Estimate(value, None, None, "ratio", "document", 0, "imported", plug_in=value) for pair, value in given.items() if pair[0] != pair[1]}
    rows: list[Row] = [{"predictor": IMPORTED, "source": a, "target": b, "value": one.value, "low": None, "high": None, "over_target_seed": None,
                        "over_source_seed": None, "declared": int((a, b) in declared or (b, a) in declared), "status": status(one),
                        "reason": one.reason or ""} for (a, b), one in kept.items()]
    before = part.tables["retention"]
    old = [{name: before[name][row] for name in RETENTION_COLUMNS} for row in range(len(before["source"]))]
    part.tables["retention"] = columns([*old, *rows], RETENTION_COLUMNS)
    part.facts["retention_imported"] = len(rows)
    known = [one for one in kept.values() if one.value is not None]
    if known:
        part.estimates["retention"] = mean_of(known)
    _against_information(counts, part, information, kept)


def _documents(found: PredictorEvidence, target: str) -> ScoredDocuments:
    return ScoredDocuments(found.n_documents[target])


def _tables(scores: PredictionScores) -> list[PredictionTables]:
    if scores.recall_LG2 is None:
        return [PredictionTables(np.asarray(joint)) for joint in scores.joint_LGPY]
    return [PredictionTables(np.asarray(joint), np.asarray(recall)) for joint, recall in zip(scores.joint_LGPY, scores.recall_LG2)]


def _score_rows(found: PredictorEvidence, level: float) -> tuple[list[Row], list[tuple[float, float]]]:
    """A row per predictor, source, target and layer (baselines at home only); and (information, accuracy) of Prophet's."""
    rows: list[Row] = []
    grid: list[tuple[float, float]] = []
    for (name, source, target), scores in sorted(found.scores.items()):
        if source != target and name not in (PROPHET, ABLATION):
            continue
        for layer, tables in zip(found.layers, _tables(scores)):
            one = predictor_estimates(tables, _documents(found, target), level=level)
            actual = Groups((np.asarray(tables.joint_GPY).sum(axis=1),), found.n_documents[target])
            entropy = estimates("usage_entropy_bits", actual, level=level).item()
            rows.append({"source": source, "target": target, "layer": layer, "predictor": name, "mi": one.mi.value, "low": one.mi.low,
                         "high": one.mi.high, "u": one.u.value, "u_low": one.u.low, "u_high": one.u.high, "entropy": entropy.value,
                         "top1": one.accuracy.value, "top1_low": one.accuracy.low, "top1_high": one.accuracy.high,
                         "recall": one.recall and one.recall.value, "status": status(one.mi), "reason": one.mi.reason or one.mi.gate or ""})
            if name == PROPHET and one.mi.value is not None and one.accuracy.value is not None:
                grid.append((one.mi.value, one.accuracy.value))
    return rows, grid


def _over_layers(metric: str, tables_L: Sequence[tuple[np.ndarray, ...]], n_documents: int) -> LeftOut:
    """Mean over layers of a metric of tables by group, whole and without each group."""
    each = [leave_out(Groups(tables, n_documents), find(metric).function) for tables in tables_L]
    together = stack(each)
    mean = together.mean([list(range(len(each)))])
    return LeftOut(mean.plug_in[0], mean.left_out[:, 0], n_documents)


def _at_home(found: PredictorEvidence, metric: str, names: tuple[str, ...], level: float) -> Estimate:
    """Mean over domains and layers of a metric of the tables that predictors `names` have at home; domains are independent documents."""
    homes = [d for d in found.sources if all((name, d, d) in found.scores for name in names)]
    if not homes:
        return Estimate.undefined(f"{NO_DATA}: no domain in which {' and '.join(names)} were scored at home", unit=find(metric).unit)
    made, df = [], 0
    for d in homes:
        if metric == "recall_at_k":
            recall = found.scores[names[0], d, d].recall_LG2
            if recall is None:
                return Estimate.undefined(f"{NO_DATA}: sets were not counted", unit=find(metric).unit)
            tables = [(np.asarray(table),) for table in recall]
        elif metric == "usage_entropy_bits":
            tables = [(np.asarray(table).sum(axis=1),) for table in found.scores[names[0], d, d].joint_LGPY]
        else:
            tables = list(zip(*([np.asarray(table) for table in found.scores[name, d, d].joint_LGPY] for name in names)))
        one = _over_layers(metric, tables, found.n_documents[d]).estimates(metric, level=level).item()
        if find(metric).unit == "bits" and metric != "usage_entropy_bits" and one.value is not None:
            one = gated(one, *(undersampled(table.sum(axis=0)) for group in tables for table in group))
        made.append(one)
        df += len(tables[0][0]) - 1
    mean = mean_of(made, df=df, independent=True)
    absent = [d for d in found.targets if d not in homes]
    lacking = [name for name in names if any((name, d, d) not in found.scores for d in absent)]
    gate = f"{NO_DATA}: {' and '.join(lacking)} was not scored at home in {', '.join(absent)}" if absent else None
    return mean if mean.value is None else gated(mean, few_per_domain([found.n_documents[d] for d in homes]), gate)


def _home_rows(found: PredictorEvidence, level: float) -> list[Row]:
    """Every predictor at home, mean over domains and layers, with intervals made alike: the numbers of the bars."""
    names = sorted({name for name, source, target in found.scores if source == target})
    return [{"predictor": name, "metric": metric, **cells(_at_home(found, metric, (name,), level))} for name in names
            for metric in ("predictor_mi", "top1_accuracy", "recall_at_k")]


def _headlines(found: PredictorEvidence, level: float, part: Part) -> dict[str, Estimate]:
    own = {"predictor_mi": "predictor_mi", "predictor_u": "u", "top1_accuracy": "top1_accuracy", "recall_at_k": "recall_at_k",
           "predictor_entropy": "usage_entropy_bits"}
    out = {name: replace(_at_home(found, metric, (PROPHET,), level), unit=UNITS[name]) for name, metric in own.items()}
    missing = [f"{name} ({found.missing[name]})" if name in found.missing else name for name in REQUIRED if name not in found.baselines]
    absent = f"{MISSING_BASELINE}: {', '.join(missing)}" if missing else None
    for gain, metric in (("predictor_gain", "predictor_mi"), ("accuracy_gain", "top1_accuracy")):
        best = _best(found, metric, level)
        part.facts["best_baseline" if metric == "predictor_mi" else "best_accuracy_baseline"] = best
        if best is None:
            out[gain] = Estimate.undefined(absent or f"{NO_DATA}: no baseline", unit=UNITS[gain])
            continue
        one = _at_home(found, gain, (PROPHET, best), level)
        out[gain] = one if one.value is None else gated(replace(one, method=f"{one.method}; over {best}"), absent, found.caveat)
    for gain, metric in (("markov_gain", "predictor_gain"), ("markov_accuracy_gain", "accuracy_gain")):
        one = _at_home(found, metric, (PROPHET, MARKOV), level)
        out[gain] = one if one.value is None else gated(one, found.caveat)
    out["random_mi"] = _at_home(found, "predictor_mi", ("uniform",), level)
    out["ablation_gain"] = _at_home(found, "predictor_gain", (PROPHET, ABLATION), level)
    return out


def _best(found: PredictorEvidence, metric: str, level: float) -> str | None:
    """The baseline of largest mean at home."""
    values = {name: _at_home(found, metric, (name,), level).value for name in found.baselines}
    known = {name: value for name, value in values.items() if value is not None}
    return max(sorted(known), key=lambda name: known[name]) if known else None


def _right(scores: PredictionScores) -> Float:
    """Tokens predicted right in each group, summed over layers [G]."""
    return np.asarray(sum(np.einsum("gee->g", np.asarray(table, np.float64)) for table in scores.joint_LGPY))


def _retentions(counts: TopologyCounts, found: PredictorEvidence, level: float) -> list[tuple[Row, Estimate]]:
    """Chance-corrected retention of each predictor that looks at other layers or tokens, for all ordered pairs of domains."""
    declared = set(counts.evidence.pairs_of_interest)
    out = []
    for name in KEPT:
        for source in found.sources:
            for target in found.targets:
                keys = [(name, source, target), (name, target, target)]
                if source == target or any(key not in found.scores for key in keys):
                    continue
                across, home = (found.scores[key] for key in keys)
                one = _retention(found, across, home, target, level)
                at_source = found.scores.get((name, source, source))
                tokens, right = _tokens(home), (_right(across), _right(home))
                over_source = None if at_source is None else float(retention_over_source_seed(
                    right[0].sum(), tokens.sum(), _right(at_source).sum(), _tokens(at_source).sum()))
                row: Row = {"predictor": name, "source": source, "target": target, "value": one.value, "low": one.low, "high": one.high,
                            "over_target_seed": float(retention_over_target_seed(right[0].sum(), right[1].sum())), "over_source_seed": over_source,
                            "declared": int((source, target) in declared or (target, source) in declared), "status": status(one),
                            "reason": one.reason or one.gate or ""}
                out.append((row, one))
    return out


def _tokens(scores: PredictionScores) -> Float:
    return np.asarray(sum(np.asarray(table, np.float64).sum(axis=(1, 2)) for table in scores.joint_LGPY))


def _retention(found: PredictorEvidence, across: PredictionScores, home: PredictionScores, target: str, level: float) -> Estimate:
    modal = found.scores.get(("modal", target, target))
    if modal is not None:
        chance = _right(modal)
    else:  # the mode of the scored documents themselves, which makes retention too low if anything
        actual = [np.asarray(table, np.float64).sum(axis=1) for table in home.joint_LGPY]
        chance = np.asarray(sum(table[:, int(table.sum(axis=0).argmax())] for table in actual))
    groups = Groups((_right(across), _right(home), chance, _tokens(home)), found.n_documents[target])
    one: Estimate = estimates("retention", groups, level=level).item()
    return one if one.value is None else gated(one, few_per_domain([found.n_documents[target]]))


def _against_information(counts: TopologyCounts, part: Part, information: ByPair, kept: ByPair) -> None:
    """mi_vs_retention over all ordered pairs with both numbers, by exact permutation of domain labels; the scatter as a table."""
    names = sorted({name for pair in kept for name in pair})
    declared = set(counts.evidence.pairs_of_interest)
    none = Estimate.undefined(ONE_DOMAIN, unit="bits")
    part.tables["mi_vs_retention"] = columns(
        [{"source": a, "target": b, "transfer_info": information.get((a, b), none).value, "retention": one.value,
          "declared": int((a, b) in declared or (b, a) in declared)} for (a, b), one in kept.items()], SCATTER_COLUMNS)
    found = _correlation(names, information, kept)
    if isinstance(found, str) or found.pearson is None:
        reason = found if isinstance(found, str) else found.reason or NO_DATA
        part.estimates |= {name: Estimate.undefined(reason, unit=UNITS[name]) for name in ("mi_vs_retention", "mi_vs_retention_spearman")}
        return
    pairs = {"n": found.n_pairs, "n_of": "ordered pairs of domains"}
    part.estimates["mi_vs_retention"] = gated(
        Estimate(found.pearson, found.low, found.high, "r", "document", counts.n_documents, "Fisher, as if pairs were independent",
                 counts.settings.level, plug_in=found.pearson, **pairs), found.gate)  # type: ignore[arg-type]
    part.estimates["mi_vs_retention_spearman"] = gated(
        Estimate(found.spearman, None, None, "rho", "document", counts.n_documents, f"exact permutation of domain labels, {found.n_orders} orders",
                 plug_in=found.spearman, p=found.p_one_sided, **pairs), found.gate)  # type: ignore[arg-type]
    part.facts["mi_vs_retention"] = {"needed": found.needed, "n_pairs": found.n_pairs, "n_domains": found.n_domains, "n_orders": found.n_orders}


def _correlation(names: Sequence[str], information: ByPair, kept: ByPair) -> PairCorrelation | str:
    """The correlation, or why it cannot be made."""
    if len(names) > MOST_ENUMERATED:
        return f"{UNTESTABLE}: {len(names)} domains; their labels are permuted exactly for {MOST_ENUMERATED} at most"
    if len(names) < 2:
        return ONE_DOMAIN
    x, y = np.full((2, len(names), len(names)), np.nan)
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            one, other = information.get((a, b)), kept.get((a, b))
            x[i, j] = np.nan if one is None or one.value is None else one.value
            y[i, j] = np.nan if other is None or other.value is None else other.value
    if not np.isfinite(x[~np.eye(len(names), dtype=bool)]).all():
        return f"{NO_DATA}: transferred information is not known for every ordered pair"
    return mi_vs_retention(x, y)


def _fano(grid: Sequence[tuple[float, float]], n_documents: int) -> Estimate:
    values = np.array(grid).T
    if len(grid) < 3 or np.ptp(values[0]) == 0 or np.ptp(values[1]) == 0:
        return Estimate.undefined(f"{NO_DATA}: fewer than three different cells", unit="r")
    r = float(np.corrcoef(values)[0, 1])
    method = "Pearson over source, target and layer"
    return gated(Estimate(r, None, None, "r", "document", n_documents, method, plug_in=r, n=len(grid), n_of="cells"), FANO)
