"""The seed's folder of results (seed 000, 6): its layout and names, filled from the report's own figures and tables."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from analysis.figures.sankey import Flows, sankey_html
from experiments.report.blocks import Picture, Section, Table
from experiments.report.table_files import as_csv, as_tex
from experiments.report.topology_columns import TEX_ROWS, View, head, whole_table
from experiments.report.topology_layers import flows
from experiments.report.topology_summary import key_findings, results_table, summary
from hypotheses.judge import held_against_bound

FOLDER = "mi_clustering_results"
SANKEY = "clustering/cross_layer_sankey.html"
FROM_REPORT = {"mutual_information/cross_layer_mi": "cross_layer_mi", "mutual_information/cross_domain_mi": "cross_domain_mi",
               "mutual_information/predictor_mi": "predictor_mi", "mutual_information/mi_vs_retention": "mi_vs_retention"}  # path -> table
FROM_EVALUATION = {  # path -> table of the evaluation, its caption, the column by whose size the printed rows are chosen
    "clustering/expert_coactivation": ("coactivation", "Co-activation of experts; joint, conditional, jaccard: the seed's forms; lift: log2, "
                                                       "bits", "lift"),
    "clustering/cross_layer_correlation": ("cross_layer_correlation", "Correlation of being first choice at adjacent layers", "phi"),
    "clustering/domain_specialization": ("domain_specialization", "Use of experts by domain", "affinity"),
    "temporal/transition_matrix": ("transition_matrix", "Expert of the next token given that of this token", "n"),
    "temporal/autocorrelation": ("autocorrelation", "Agreement and information at a lag; pearson_ids_seed: the seed's form", None)}
TABLES = "tables"  # every other table of the evaluation, under its own name
CAPTIONS = {
    "mi_by_distance": "Information between first choices by distance of layers", "mi_by_layer": "Information of each layer with all others, and its "
    "entropy", "cross_layer_mi": "Information between all pairs of layers", "decomposition": "Sources of the information between adjacent layers",
    "cross_domain_mi": "Information across domains, by layer", "cross_domain_metrics": "Every number between domains, by layer",
    "domain_pairs": "Transferred information of the pairs declared beforehand", "wiki_topics": "Transferred information between topics of one format",
    "wiki_cross_domain_mi": "Information across topics of one format, by layer", "predictor_mi": "Predictors by source, target and predicted layer",
    "predictor_home": "Predictors at home, mean over domains and predicted layers", "retention": "Retention of every predictor, all ordered pairs",
    "mi_vs_retention": "Transferred information and retention, as plotted", "learning_curve": "Held-out documents of the source after each epoch",
    "cluster_consistency": "Co-activation of one domain in another, by layer", "cluster_clarity": "Clusters of experts against random sets",
    "clusters": "Cluster of every expert", "linkage": "Merges of the dendrograms", "expert_specialization": "Specialisation of every expert",
    "specialization_null": "Specialisation under permuted domain labels of documents", "pathways": "Chains of experts, step by step",
    "threshold_curve": "Exploratory: outcomes at other thresholds"}
PICTURES = {**FROM_REPORT, "clustering/expert_coactivation": "expert_coactivation", "clustering/expert_dendrogram": "expert_dendrogram",
            "clustering/cross_layer_correlation": "cross_layer_correlation", "clustering/domain_specialization": "domain_specialization",
            "temporal/transition_matrix": "transition_matrix", "temporal/autocorrelation": "autocorrelation",
            "temporal/routing_chains": "routing_chains"}  # path -> figure of the report


def folder(view: View, sections: Sequence[Section], figures: Path) -> dict[str, bytes]:
    """Path inside the run directory -> bytes. A figure that was not drawn is no file; the summary says which and why."""
    blocks = [block for section in sections for block in section.blocks]
    tables = {block.name: block for block in blocks if isinstance(block, Table)}
    drawn = {block.name for block in blocks if isinstance(block, Picture)}
    files: dict[str, bytes] = {}
    for path, name in FROM_REPORT.items():
        if name in tables:
            files |= _both(path, tables[name])
    for path, (name, caption, by) in FROM_EVALUATION.items():
        files |= _both(path, whole_table(path.rpartition("/")[2], caption, view.content.evaluation.tables.get(name)), _largest(view, name, by))
    elsewhere = {name for name, _, _ in FROM_EVALUATION.values()}
    for name in sorted(set(view.content.evaluation.tables) - elsewhere):
        files |= _both(f"{TABLES}/{name}", _whole(view, name))
    for path, name in PICTURES.items():
        if name in drawn:
            files |= {f"{path}.{kind}": (figures / f"{name}.{kind}").read_bytes() for kind in ("png", "pdf")}
    shown = flows(view)
    if shown is not None:
        files[SANKEY] = _bytes(flows_page(shown, (figures / "cross_layer_sankey.png").read_bytes()))
    missing = [path for path, name in PICTURES.items() if name not in drawn]
    files |= {"summary/MI_CLUSTERING_SUMMARY.md": _bytes(summary(view, missing)), "summary/key_findings.json": key_findings(view),
              **_both("summary/all_results_table", results_table(view))}
    return {f"{FOLDER}/{name}": file for name, file in files.items()}


def _both(path: str, table: Table, order: Sequence[int] | None = None) -> dict[str, bytes]:
    """A table whole as CSV and, where it is long, its first rows as TeX; order: of the rows in print."""
    printed = table if table.shown is not None or (order is None and len(table.rows) <= TEX_ROWS) else head(table, order)
    return {f"{path}.csv": _bytes(as_csv(table)), f"{path}.tex": _bytes(as_tex(printed))}


def _whole(view: View, name: str) -> Table:
    """A table of the evaluation as it stands; of the curve of thresholds only criteria that were held against their bound in this run."""
    table = whole_table(name, CAPTIONS.get(name, name.replace("_", " ").capitalize()), view.content.evaluation.tables[name])
    if name != "threshold_curve":
        return table
    held = {one.criterion.name for one in view.content.finding.criteria if held_against_bound(one)}
    return replace(table, rows=[row for row in table.rows if row[0] in held])


def flows_page(shown: Flows, printed: bytes) -> str:
    """The flows as one self-contained page; where plotly is not installed, the printed figure on a page that says so."""
    try:
        return sankey_html(shown)
    except ModuleNotFoundError as missing:
        image = base64.b64encode(printed).decode("ascii")
        return ("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Flow of tokens between layers</title></head><body>"
                f"<p>Not interactive: {html.escape(str(missing))}</p>"
                f"<img alt=\"Flow of tokens between the experts of adjacent layers\" width=\"1200\" "
                f"src=\"data:image/png;base64,{image}\"></body></html>\n")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _largest(view: View, table: str, by: str | None) -> list[int] | None:
    """Rows in the order of the size of a column, undefined ones last; None for the order that is there."""
    if by is None:
        return None
    import numpy as np

    values = np.asarray(view.content.evaluation.tables.get(table, {}).get(by, ()), np.float64)
    order: list[int] = np.argsort(-np.nan_to_num(np.abs(values), nan=-1.0, posinf=np.inf), kind="stable").tolist()
    return order
