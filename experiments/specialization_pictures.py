"""Pictures and files of one model's experts, under the seed's names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.arithmetic import divide
from analysis.estimate import Estimate
from analysis.figures.spectra_experts import ArmAffinity, ArmPurity, affinity_heatmap, purity_bars
from analysis.figures.spectra_flow import ArmFlow, domain_flow_html
from analysis.figures.spectra_representations import ArmVectors, representation_pca
from analysis.figures.spectra_tokens import TokenCloud, token_clustering
from analysis.metrics.specialization import freq_matrix
from experiments.report.figure_files import save
from experiments.report.table_files import as_csv
from experiments.report.topology_columns import whole_table
from hypotheses.spectra_experts import CELL_COLUMNS, EXPERT_COLUMNS, SAMPLE_COLUMNS, ExpertRows, expert_rows
from hypotheses.spectra_pictures import direction_rows, token_rows
from hypotheses.topology_parts import columns
from tracking.atomic import write_bytes

if TYPE_CHECKING:
    from experiments.specialization import ExpertSpecializationAnalyzer, Features


def _save(figure: Any, path: Path) -> Path:
    """PDF and PNG beside each other, whatever the suffix of the path; returns the PDF."""
    save(figure, path.parent, path.stem)
    return path.with_suffix(".pdf")


def save_token_clustering(features: Features, path: Path) -> Path:
    """t-SNE of router inputs."""
    rows, said = token_rows(features.counts, features.layer)
    domains = list(features.counts.domains)
    points = np.array([[row["x"], row["y"]] for row in rows], np.float64).reshape(-1, 2)
    places = np.array([domains.index(row["domain"]) for row in rows], np.int64)
    cloud = TokenCloud(features.run.arm, points, np.array([row["expert"] for row in rows], np.int64), places, domains, "; ".join(said))
    return _save(token_clustering([cloud]), path)


def save_affinity(affinity_ED: NDArray[np.float64], domains: list[str], path: Path) -> Path:
    """An affinity matrix with both normalisations."""
    names = domains or [f"domain {d}" for d in range(affinity_ED.shape[1])]
    log2 = np.log2(affinity_ED, out=np.full(affinity_ED.shape, np.nan), where=affinity_ED > 0)
    columns_ED = divide(affinity_ED, np.nansum(affinity_ED, axis=0, keepdims=True))
    rows_ED = divide(affinity_ED, np.nansum(affinity_ED, axis=1, keepdims=True))
    return _save(affinity_heatmap([ArmAffinity("affinity; columns and rows of it normalised", log2, columns_ED, rows_ED, names,
                                               "affinity, columns of sum 1")]), path)


def save_report(analyzer: ExpertSpecializationAnalyzer, features: Features, directory: Path) -> Path:
    """metrics.json, tables as CSV, and the seed's pictures."""
    directory.mkdir(parents=True, exist_ok=True)
    metrics, found = analyzer.compute_all_metrics(features), expert_rows(features.counts, features.token_strings)
    metrics["missing"] |= {"keywords": found.said} if found.said else {}
    write_bytes(directory / "metrics.json", (json.dumps(_plain(metrics), indent=1, allow_nan=False) + "\n").encode())
    for name, (rows, heads) in {"experts": (found.experts, EXPERT_COLUMNS), "affinity": (found.cells, CELL_COLUMNS),
                                "samples": (found.samples, SAMPLE_COLUMNS)}.items():
        write_bytes(directory / f"{name}.csv", as_csv(whole_table(name, name, columns(rows, heads))).encode("utf-8", "backslashreplace"))
    save_token_clustering(features, directory / "token_clustering_tsne.pdf")
    _save_experts(features, found, directory)
    _save_outputs(features, directory)
    return directory


def _save_experts(features: Features, found: ExpertRows, directory: Path) -> None:
    layer, domains, n_experts = features.layer, list(features.counts.domains), features.counts.n_experts
    cells = [row for row in found.cells if row["layer"] == layer]
    matrices = {name: np.full((n_experts, len(domains)), np.nan) for name in ("value", "p_e_given_d", "p_d_given_e")}
    for row in cells:
        for name, matrix in matrices.items():
            matrix[row["expert"], domains.index(row["domain"])] = np.nan if row[name] is None else row[name]
    table = features.counts.by_domain(layer)
    matrices["p_e_given_d"] = freq_matrix(table).T
    arm = ArmAffinity(features.run.arm, matrices["value"], matrices["p_e_given_d"], matrices["p_d_given_e"], domains)
    _save(affinity_heatmap([arm]), directory / "expert_affinity_heatmap.pdf")
    experts = [row for row in found.experts if row["layer"] == layer]
    null = np.array([row["purity_null"] for row in experts], np.float64)
    mean = float(np.nanmean(null)) if np.isfinite(null).any() else None
    bars = ArmPurity(features.run.arm, [row["purity"] for row in experts], null, None, mean)
    _save(purity_bars([bars], 1 / len(domains)), directory / "domain_purity_bar.pdf")
    flow = ArmFlow(features.run.arm, table, domains)
    write_bytes(directory / "routing_flow_sankey.html", domain_flow_html([flow]).encode("utf-8", "backslashreplace"))


def _save_outputs(features: Features, directory: Path) -> None:
    if "outputs" in features.missing:
        return
    rows = [row for row in direction_rows(features.counts) if row["layer"] == features.layer]
    points = np.array([[row[axis] for axis in "xyz"] for row in rows], np.float64)
    vectors = ArmVectors(features.run.arm, points, [rows[0][f"share_{axis}"] for axis in "xyz"], rows[0]["rms"], rows[0]["random"])
    _save(representation_pca([vectors]), directory / "expert_representation_pca.pdf")


def _plain(value: Any) -> Any:
    """Values for JSON: estimates as mappings, undefined cells as null."""
    if isinstance(value, Estimate):
        return value.to_json()
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, np.ndarray):
        return [_plain(one) for one in value.tolist()]
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and np.isnan(value) else value
