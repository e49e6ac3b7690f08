"""Coordinates for the pictures of an arm: tokens by t-SNE, directions of expert outputs on uncentred axes. Pictures are never evidence.

E expert, L MoE layer, T token.
"""

from __future__ import annotations

import numpy as np

from analysis.embedding import LEAST_TOKENS, even_rows, tsne, umap, uncentred_axes
from analysis.metrics.geometry import gram_rms, random_direction_rms
from hypotheses.spectra_runs import RunCounts
from hypotheses.topology_parts import Row

TOKEN_COLUMNS = ("arm", "seed", "method", "x", "y", "expert", "domain")
DIRECTION_COLUMNS = ("arm", "seed", "layer", "expert", "x", "y", "z", "share_x", "share_y", "share_z", "rms", "random")


def token_rows(counts: RunCounts, layer: int) -> tuple[list[Row], list[str]]:
    """Router inputs of the layer shown in two dimensions, evenly over documents; and why there is less than asked for."""
    settings, inputs = counts.settings, counts.run.inputs
    chosen = even_rows(inputs.document_T, settings.n_tokens_drawn)
    chosen = chosen[inputs.first_LT[layer][chosen] >= 0]
    if len(chosen) < LEAST_TOKENS:
        return [], [f"{counts.name}: {len(chosen)} sampled tokens, a picture needs {LEAST_TOKENS}"]
    vectors = np.asarray(inputs.vectors[layer], np.float64)[chosen]
    domain = {row.document: row.domain for row in counts.run.trace.documents}
    out: list[Row] = []
    said: list[str] = []
    for method, place in (("t-SNE", tsne), *((("UMAP", umap),) if settings.umap else ())):
        try:
            points = place(vectors, settings.seed)
        except ModuleNotFoundError as error:
            said.append(str(error))
            continue
        out += [{"arm": counts.run.arm, "seed": counts.run.seed, "method": method, "x": float(x), "y": float(y),
                 "expert": int(inputs.first_LT[layer][row]), "domain": domain[int(inputs.document_T[row])]}
                for row, (x, y) in zip(chosen.tolist(), points.tolist(), strict=True)]
    return out, said


def direction_rows(counts: RunCounts) -> list[Row]:
    """Mean outputs of the experts on the probe set, as unit vectors on their three uncentred axes, per layer."""
    sums_LEd = np.asarray(counts.run.representations.probe_PLEd, np.float64).sum(axis=0)
    rows: list[Row] = []
    for layer, vectors in enumerate(sums_LEd):
        axes, rms = uncentred_axes(vectors), float(gram_rms(vectors))
        share = dict(zip(("share_x", "share_y", "share_z"), axes.share, strict=True))
        rows += [{"arm": counts.run.arm, "seed": counts.run.seed, "layer": layer, "expert": e, "x": float(x), "y": float(y), "z": float(z), **share,
                  "rms": rms, "random": random_direction_rms(vectors.shape[1])} for e, (x, y, z) in enumerate(axes.points.tolist())]
    return rows
