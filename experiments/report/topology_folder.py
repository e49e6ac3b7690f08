"""The seed's folder of results (seed 000, 6): its layout and names, filled from the report's own figures and tables."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from analysis.figures.sankey import Flows, sankey_html
from experiments.report.blocks import Picture, Section, Table
from experiments.report.table_files import as_csv, as_tex
from experiments.report.topology_columns import View, head, whole_table
from experiments.report.topology_layers import flows
from experiments.report.topology_summary import key_findings, results_table, summary

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
            files |= {f"{path}.csv": _bytes(as_csv(tables[name])), f"{path}.tex": _bytes(as_tex(tables[name]))}
    for path, (name, caption, by) in FROM_EVALUATION.items():
        table = whole_table(path.rpartition("/")[2], caption, view.content.evaluation.tables.get(name))
        files |= {f"{path}.csv": _bytes(as_csv(table)), f"{path}.tex": _bytes(as_tex(head(table, _largest(view, name, by))))}
    for path, name in PICTURES.items():
        if name in drawn:
            files |= {f"{path}.{kind}": (figures / f"{name}.{kind}").read_bytes() for kind in ("png", "pdf")}
    shown = flows(view)
    if shown is not None:
        files[SANKEY] = _bytes(flows_page(shown, (figures / "cross_layer_sankey.png").read_bytes()))
    missing = [path for path, name in PICTURES.items() if name not in drawn]
    files |= {"summary/MI_CLUSTERING_SUMMARY.md": _bytes(summary(view, missing)), "summary/key_findings.json": key_findings(view),
              "summary/all_results_table.tex": _bytes(as_tex(results_table(view)))}
    return {f"{FOLDER}/{name}": file for name, file in files.items()}


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
