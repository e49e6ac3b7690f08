"""The seed's folder of results (seed 004, C and G): its file names, filled from the report's own pictures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.figures.spectra_flow import domain_flow_html
from experiments.report.blocks import Picture, Section, Table
from experiments.report.spectra_pictures import flows
from experiments.report.spectra_summary import results, summary
from experiments.report.spectra_tables import COMPARISON, EXPERTS
from experiments.report.table_files import as_csv, as_tex
from experiments.report.topology_columns import View, whole_table

FOLDER, SANKEY = "expert_analysis", "routing_flow_sankey.html"
PICTURES = ("token_clustering_tsne", "expert_affinity_heatmap", "expert_representation_pca", "domain_purity_bar")
FURTHER = ("token_clustering_umap",)  # where it was asked for
TABLES = (COMPARISON, EXPERTS)
WHOLE = {"experts": "Every expert of every layer and arm, first seed", "affinity": "Every expert and domain",
         "runs": "Every metric of every training",
         "samples": "Representative tokens", "pairs": "Changes between the checkpoints of each seed", "curves": "Losses along each training"}


def folder(view: View, sections: Sequence[Section], figures: Path) -> dict[str, bytes]:
    """Path inside the run directory -> bytes. What could not be made is no file; the summary says which."""
    blocks = [block for section in sections for block in section.blocks]
    tables = {block.name: block for block in blocks if isinstance(block, Table)}
    drawn = {block.name for block in blocks if isinstance(block, Picture)}
    files: dict[str, bytes] = {}
    for name in (*PICTURES, *FURTHER):
        if name in drawn:
            files |= {f"{name}.{kind}": (figures / f"{name}.{kind}").read_bytes() for kind in ("pdf", "png")}
    for name in TABLES:
        if name in tables:
            files |= {f"{name}.csv": _bytes(as_csv(tables[name])), f"{name}.tex": _bytes(as_tex(tables[name]))}
    for name, caption in WHOLE.items():
        files[f"{name}.csv"] = _bytes(as_csv(whole_table(name, caption, view.content.evaluation.tables.get(name))))
    arms = flows(view)
    if arms:
        try:
            files[SANKEY] = _bytes(domain_flow_html(arms))
        except ModuleNotFoundError:
            drawn.discard(SANKEY)
    missing = [name for name in PICTURES if name not in drawn] + ([] if SANKEY in files else [f"{SANKEY} (needs plotly and routed tokens)"])
    files |= {"SPECIALIZATION_SUMMARY.md": _bytes(summary(view, missing)), "results.json": results(view)}
    return {f"{FOLDER}/{name}": file for name, file in files.items()}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
