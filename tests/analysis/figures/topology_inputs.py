"""Inputs for figures of routing topology: estimates, gated and undefined ones among them, and small planted structures."""

from __future__ import annotations

import warnings

import numpy as np
from matplotlib.text import Text

from analysis.estimate import Estimate
from analysis.figures.topology_decomposition import TermBars, ThresholdCurve
from analysis.figures.topology_domains import RetentionPoint
from analysis.figures.topology_pathways import Pathways
from analysis.figures.topology_predictors import Predictor
from analysis.figures.topology_specialisation import Specialisation

UNDEFINED = Estimate.undefined("no_data: no token has both choices")
DOMAINS = ["squad_qa", "imdb <b>$x$", "cnn_news", "wikitext", "code_python", "arithmetic"]


def estimate(value, half_width=0.1, *, gate=None, null=None):
    ends = {} if null is None else {"null": null, "null_low": null - 0.05, "null_high": null + 0.05}
    return Estimate(float(value), value - half_width, value + half_width, "bits", "document", 40, "jackknife", gate=gate, **ends)


def marked(values):
    """Estimates of an array: every fifth gated, the second cell undefined where there are several."""
    cells = np.array([estimate(v, gate="undersampled" if i % 5 == 3 else None) for i, v in enumerate(np.ravel(values))], dtype=object)
    if len(cells) > 2:
        cells[1] = UNDEFINED
    return cells.reshape(np.shape(values))


def layer_values(n):
    return 1.8 * np.exp(-np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / 3)


def counts_of(n, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(4.0, (n, n)) + 40 * np.equal.outer(np.arange(n) % 4, np.arange(n) % 4)
    return counts + counts.T


def linkage_of(n):
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    distance = 1 / (1 + counts_of(n).astype(float))
    np.fill_diagonal(distance, 0)
    return linkage(squareform((distance + distance.T) / 2), "average")


def lift_of(n):
    counts = counts_of(n)
    lift = np.log2(np.maximum(counts, 1) / counts.mean())
    lift[0, -1] = lift[-1, 0] = np.nan
    return lift


def probabilities(n, seed=0):
    p = np.random.default_rng(seed).dirichlet(np.full(n, 0.3), n) * 0.6 + 0.4 * np.eye(n)
    p[-1] = np.nan  # an unused expert
    return p


def retention_points(n):
    rng = np.random.default_rng(n)
    pairs = [(a, b) for a in DOMAINS for b in DOMAINS if a != b][:n]
    points = [RetentionPoint(f"{a} \u2192 {b}", estimate(rng.normal(0.4, 0.2), 0.05), estimate(rng.normal(0.7, 0.1), 0.03)) for a, b in pairs]
    return [RetentionPoint("undefined pair", UNDEFINED, estimate(0.5)), *points] if n > 1 else points


def predictors():
    made = [
        Predictor("Prophet", estimate(1.6), "predictor", {"top-1": estimate(0.68, 0.02)}),
        Predictor("Prophet without cross-layer attention", estimate(1.4, gate="bias_sensitive"), "ablation", {"top-1": estimate(0.6, 0.02)}),
        Predictor("token-type table", estimate(2.1), "baseline", {"top-1": estimate(0.77, 0.02)}),
        Predictor("uniform", estimate(0.0), "baseline", {"top-1": estimate(0.06, 0.02)}),
    ]
    return [*made, Predictor("modal expert", UNDEFINED), Predictor("perfect", estimate(3.4, 0.01), "perfect")]


def terms():
    forward = {"token identity": estimate(0.8), "position": estimate(-0.03), "document": estimate(0.2), "residual": estimate(0.3, gate="u")}
    reverse = {"document": estimate(0.35), "position": UNDEFINED, "token identity": estimate(0.66), "residual": estimate(0.3)}
    return TermBars(forward, reverse, estimate(1.27), {name: [one] * 11 for name, one in forward.items()}, 0.113)


def threshold_curve():
    x = np.linspace(0, 3, 31)
    verdicts = ["supported" if t < 1.6 else "inconclusive" if t < 1.9 else "refuted" for t in x]
    return ThresholdCurve("Cross-layer information", "bits", x, verdicts, 1.5, estimate(1.75, 0.15))


def pathway_edges(n_layers, n_experts):
    rng = np.random.default_rng(0)
    n = 20 * (n_layers - 1)
    ends = rng.integers(0, n_experts, (2, n))
    return Pathways(rng.integers(0, n_layers - 1, n), *ends, rng.choice([-0.3, 0.2, 0.6], n), [n_experts] * n_layers, "|\u03c6| \u2265 0.1, q < 0.05")


def series(n):
    values = 1.6 * np.exp(-np.arange(n) / 4)
    return {"I": [estimate(v, null=0.1) for v in values], "beyond the shift": [*map(estimate, values[:-1] * 0.7), UNDEFINED]}


def specialisation(n):
    return Specialisation(marked(np.random.default_rng(0).beta(1.2, 6, n)), np.random.default_rng(1).beta(1, 30, 200))


def laid_out(draw):
    """The figure with its layout solved, every warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw()
        figure.draw_without_rendering()
    return figure


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(Text))
