"""Geometry of experts: do their tokens cluster, do their representations differ (seed 004, B.3 and B.6).

T token, d dimension, E expert, D document, R draw. sums_Ed: sum over tokens of each expert's vector; directions need no divisor.
repr_output means E_i(x) over one probe set common to all experts; centroid_input means the inputs routed to an expert, another object,
which is what the seed's code computes under the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float, divide
from analysis.distances import silhouette_samples
from analysis.estimate import Estimate
from analysis.gates import NO_DATA
from analysis.kernels import Int
from analysis.registry import metric
from analysis.resampling import basic_interval, document_weights, percentile_interval

ROUNDING = 1e-12  # share of the largest norm below which a centred vector is rounding and has no direction
WEIGHT_BYTES = 2**26  # replicate sums made at a time
FEW = "fewer than two experts with a vector that is not zero"
SOURCE = "seed 004, B.6; metrics specification 2.5"
INVARIANT = ("relabelling", "rotation", "scale")


@metric("silhouette", unit="ratio", bounds=(-1.0, 1.0), undefined=f"{NO_DATA}: fewer than two clusters", source="seed 004, B.3; Rousseeuw 1987",
        takes=("vectors_Td", "labels_T"), additive=False, estimator="document bootstrap, clusters fixed", invariant=INVARIANT,
        seed="Silhouette Score")
def silhouette(vectors_Td: ArrayLike, labels_T: ArrayLike) -> float:
    """Mean over tokens of s = (b - a) / max(a, b) under cosine distance, labels = first choice at the layer, [-1, 1].

    vectors_Td: router inputs at that layer. Not 0 under random labels, and above 0 for a random linear router: read silhouette_report.
    """
    samples = silhouette_samples(vectors_Td, labels_T, metric="cosine")
    known = samples[~np.isnan(samples)]
    return float(known.mean()) if len(known) else float("nan")


@dataclass(frozen=True)
class SilhouetteReport:
    """Mean silhouette of one layer beside what chance and linearity give.

    permuted: mean over permutations of the labels over tokens; excess = value - permuted. hyperplane: mean over random linear routers
    with as many experts, on the same vectors; above_hyperplane = value - hyperplane. samples: s of each token [T], for the interval.
    Values are None with `reason` where undefined.
    """

    value: float | None
    permuted: float | None
    excess: float | None
    hyperplane: float | None
    above_hyperplane: float | None
    n_clusters: int
    singletons: int
    samples: Float
    reason: str | None = None


def silhouette_report(vectors_Td: ArrayLike, labels_T: ArrayLike, rng: np.random.Generator, *, n_experts: int,
                      draws: int = 20) -> SilhouetteReport:
    """Silhouette of router inputs [T, d] labelled by first choice [T], its value under permuted labels, and under random routers.

    n_experts: outputs of the random routers. Rows sorted by document hash and position make the draws independent of files.
    ValueError for labels outside -1..n_experts-1.
    """
    vectors, labels = np.asarray(vectors_Td, np.float64), np.asarray(labels_T)
    if labels.size and not -1 <= int(labels.min()) <= int(labels.max()) < n_experts:
        raise ValueError(f"labels: first choices are 0 to {n_experts - 1}, or -1 for a token without one")
    samples = silhouette_samples(vectors, labels, metric="cosine")
    known = samples[~np.isnan(samples)]
    sizes = np.bincount(labels[labels >= 0].astype(np.int64), minlength=n_experts)
    clusters, singletons = int((sizes > 0).sum()), int((sizes == 1).sum())
    if not len(known):
        return SilhouetteReport(None, None, None, None, None, clusters, singletons, samples, f"{NO_DATA}: fewer than two clusters")
    routed = np.flatnonzero(labels >= 0)
    value = float(known.mean())
    permuted = _mean([silhouette(vectors[routed], rng.permutation(labels[routed])) for _ in range(draws)])
    hyperplane = _mean([silhouette(vectors[routed], random_router(vectors[routed], n_experts, rng)) for _ in range(draws)])
    return SilhouetteReport(value, permuted, _minus(value, permuted), hyperplane, _minus(value, hyperplane), clusters, singletons, samples)


def _mean(values: list[float]) -> float | None:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else None


def _minus(value: float, reference: float | None) -> float | None:
    return None if reference is None else value - reference


def random_router(vectors_Td: ArrayLike, n_experts: int, rng: np.random.Generator) -> Int:
    """First choice [T] of a linear router with Gaussian weights, on the vectors less their mean (else one expert takes them all)."""
    rows = np.asarray(vectors_Td, np.float64)
    weights = rng.standard_normal((rows.shape[1], n_experts))
    chosen: Int = np.argmax((rows - rows.mean(axis=0)) @ weights, axis=1)
    return chosen


def silhouette_estimate(samples_T: ArrayLike, document_T: ArrayLike, rng: np.random.Generator, *, replicates: int = 1999,
                        level: float = 0.95) -> Estimate:
    """Mean silhouette with the percentile interval of a document bootstrap that leaves clusters, and so each s(i), as they are.

    samples_T: s of each token, NaN where it has none; document_T: rank of its document by hash, so that draws do not depend on files.
    Below two documents there is no interval.
    """
    samples, document = np.asarray(samples_T, np.float64), np.asarray(document_T)
    kept = ~np.isnan(samples)
    if not kept.any():
        return Estimate.undefined(f"{NO_DATA}: fewer than two clusters", unit="ratio")
    names, unit = np.unique(document[kept], return_inverse=True)
    sums, sizes = np.bincount(unit, weights=samples[kept]), np.bincount(unit).astype(np.float64)
    value, n = float(sums.sum() / sizes.sum()), len(names)
    fields = {"unit": "ratio", "resampled": "document", "n_units": n, "plug_in": value, "n": int(sizes.sum()), "n_of": "tokens"}
    if n < 2:
        return Estimate(value, None, None, method="plug-in", **fields)  # type: ignore[arg-type]
    weights = document_weights(n, replicates, rng)
    means = (weights @ sums) / (weights @ sizes)
    low, high = percentile_interval(means, level)
    return Estimate(value, float(low), float(high), method="document bootstrap, clusters fixed", level=level, se=float(means.std(ddof=1)), **fields)  # type: ignore[arg-type]


def _cosines(vectors_Ed: ArrayLike, least: Float | float = 0.0) -> tuple[Float, NDArray[np.bool_]]:
    """Cosine [..., E, E] and whether both rows have a direction, off the diagonal. A row of norm <= least has none."""
    rows = np.asarray(vectors_Ed, np.float64)
    largest = np.abs(rows).max(axis=-1, keepdims=True, initial=0.0)
    scaled = np.divide(rows, largest, out=np.zeros(rows.shape), where=largest > 0)  # norms neither overflow nor vanish
    norm = np.sqrt((scaled**2).sum(axis=-1, keepdims=True))
    known = (largest * norm)[..., 0] > least
    unit = np.divide(scaled, norm, out=np.zeros(rows.shape), where=known[..., None])
    pairs = known[..., :, None] & known[..., None, :] & ~np.eye(rows.shape[-2], dtype=bool)
    return unit @ np.swapaxes(unit, -1, -2), pairs


def _mean_off_diagonal(values: Float, pairs: NDArray[np.bool_]) -> Float:
    return divide(np.where(pairs, values, 0.0).sum(axis=(-2, -1)), pairs.sum(axis=(-2, -1)))


def _distance(vectors_Ed: ArrayLike, least: Float | float = 0.0) -> Float:
    cosine, pairs = _cosines(vectors_Ed, least)
    return 1 - _mean_off_diagonal(cosine, pairs)


def _centred(vectors_Ed: ArrayLike) -> Float:
    """Mean distance after removing the mean of the vectors that are not zero."""
    rows = np.asarray(vectors_Ed, np.float64)
    norm = np.sqrt((rows**2).sum(axis=-1))
    known = norm > 0
    centre = divide(rows.sum(axis=-2), known.sum(axis=-1)[..., None])[..., None, :]
    moved = np.where(known[..., None], rows - np.nan_to_num(centre), 0.0)
    return _distance(moved, ROUNDING * norm.max(axis=-1, initial=0.0, keepdims=True))


def _most_distant(vectors_Ed: ArrayLike, *_: ArrayLike) -> float:
    """E / (E - 1) for the experts with a vector: the largest mean distance, that of a simplex."""
    used = int((np.asarray(vectors_Ed) != 0).any(axis=-1).sum(axis=-1).min())
    return used / (used - 1) if used > 1 else 2.0


def _most_distant_centred(*_: ArrayLike) -> float:
    return 2.0  # an expert at the centre drops out, so that two opposite ones may remain


@metric("repr_output", unit="1 - cosine", bounds=(0.0, _most_distant), undefined=FEW, source=SOURCE, takes=("vectors_Ed",),
        estimator="probe-document bootstrap", invariant=INVARIANT, seed="Repr. Distance (avg)")
def repr_output(sums_Ed: ArrayLike) -> Float:
    """Mean distance of expert outputs: 1 - mean off-diagonal cosine of mean_x E_i(x) over a common probe set, [0, E / (E - 1)].

    sums_Ed: sum (or mean) of each expert's output over the same probe tokens, [..., E, d]; gives [...]. Zero vectors are left out.
    """
    return _distance(sums_Ed)


@metric("repr_output_centred", unit="1 - cosine", bounds=(0.0, _most_distant_centred), undefined=FEW, source=SOURCE, takes=("vectors_Ed",),
        estimator="probe-document bootstrap", invariant=("relabelling", "rotation", "common shift"))
def repr_output_centred(sums_Ed: ArrayLike) -> Float:
    """repr_output after removing the mean over experts, which anisotropy gives to all of them alike, [0, 2]; 1 + 1/(E - 1) for a simplex.

    sums_Ed: as repr_output. A vector equal to the mean has no direction and is left out.
    """
    return _centred(sums_Ed)


@metric("centroid_input", unit="1 - cosine", bounds=(0.0, _most_distant), undefined=FEW, source=SOURCE, takes=("vectors_Ed",),
        estimator="document bootstrap", invariant=INVARIANT, seed="Repr. Distance (avg)", seed_form=True)
def centroid_input(sums_Ed: ArrayLike) -> Float:
    """Mean distance of input centroids: 1 - mean off-diagonal cosine of the mean hidden state routed to each expert, [0, E / (E - 1)].

    sums_Ed: sum of the inputs routed to each expert, [..., E, d]; gives [...]. The seed's code; its text says expert outputs, which this
    is not: it describes where the router sends tokens, and nothing of what the experts do with them.
    """
    return _distance(sums_Ed)


@metric("centroid_input_centred", unit="1 - cosine", bounds=(0.0, _most_distant_centred), undefined=FEW, source=SOURCE,
        takes=("vectors_Ed", "counts_E"), estimator="document bootstrap", invariant=("relabelling", "rotation", "common shift"))
def centroid_input_centred(sums_Ed: ArrayLike, counts_E: ArrayLike) -> Float:
    """centroid_input after removing the mean of the centroids over experts, [0, 2].

    sums_Ed: [..., E, d]; counts_E: tokens behind each sum [..., E], which the mean over experts needs.
    """
    means = divide(sums_Ed, np.asarray(counts_E)[..., None])
    return _centred(np.where(np.isnan(means), 0.0, means))


@metric("gram_rms", unit="cosine", bounds=(lambda v: welch_bound(*np.shape(v)[-2:]) * _all_used(v), 1.0), undefined=FEW, source=SOURCE,
        takes=("vectors_Ed",), estimator="probe-document bootstrap", invariant=INVARIANT)
def gram_rms(vectors_Ed: ArrayLike) -> Float:
    """Root mean square off-diagonal cosine r of the expert vectors, [Welch bound, 1]; 1 / sqrt(d) for random directions."""
    cosine, pairs = _cosines(vectors_Ed)
    return np.minimum(np.sqrt(_mean_off_diagonal(cosine**2, pairs)), 1.0)


def _all_used(vectors_Ed: ArrayLike) -> bool:
    return bool((np.asarray(vectors_Ed) != 0).any(axis=-1).all())


@metric("gram_orthogonality", unit="1 - cosine", bounds=(0.0, 1.0), undefined=FEW, source=SOURCE, takes=("vectors_Ed",),
        estimator="probe-document bootstrap", invariant=INVARIANT, seed="Gram Orthogonality")
def gram_orthogonality(vectors_Ed: ArrayLike) -> Float:
    """Orthogonality score 1 - r, r the root mean square off-diagonal cosine, [0, 1]: read it beside 1 - 1/sqrt(d), which chance gives."""
    return 1 - gram_rms(vectors_Ed)


@metric("gram_fro_error", unit="cosine", bounds=(0.0, lambda v: float(np.sqrt(np.shape(v)[-2] * (np.shape(v)[-2] - 1)))), undefined=FEW,
        source=SOURCE, takes=("vectors_Ed",), estimator="probe-document bootstrap", invariant=INVARIANT)
def gram_fro_error(vectors_Ed: ArrayLike) -> Float:
    """Frobenius distance of the cosine Gram matrix from the identity: sqrt(sum of squared off-diagonal cosines), [0, sqrt(E (E - 1))]."""
    used = (np.asarray(vectors_Ed) != 0).any(axis=-1).sum(axis=-1)
    return np.asarray(gram_rms(vectors_Ed) * np.sqrt(used * (used - 1)), np.float64)


def welch_bound(n_experts: int, dimension: int) -> float:
    """Least root mean square cosine of E directions in d dimensions: sqrt((E - d) / (d (E - 1))) for E > d, else 0 (Welch 1974)."""
    if n_experts < 1 or dimension < 1:
        raise ValueError(f"n_experts={n_experts}, dimension={dimension}: give at least 1 of each")
    return float(np.sqrt((n_experts - dimension) / (dimension * (n_experts - 1)))) if n_experts > dimension else 0.0


def random_direction_rms(dimension: int) -> float:
    """Root mean square cosine of two random directions: 1 / sqrt(d)."""
    if dimension < 1:
        raise ValueError(f"dimension={dimension}: give at least 1")
    return float(1 / np.sqrt(dimension))


@dataclass(frozen=True)
class Representations:
    """Distances of expert vectors and their references. None with `reason` where fewer than two experts have a vector.

    distance raw, centred after removing the mean over experts; rms r of off-diagonal cosines; score 1 - r; fro_error; welch: least r
    possible; random: r of random directions, 1 / sqrt(d); excluded: experts with a zero vector.
    """

    distance: float | None
    centred: float | None
    rms: float | None
    score: float | None
    fro_error: float | None
    welch: float
    random: float
    excluded: tuple[int, ...]
    reason: str | None = None


def representations(vectors_Ed: ArrayLike) -> Representations:
    """Plug-in report on expert vectors [E, d]: outputs over a common probe set, or input centroids (say which)."""
    rows = np.asarray(vectors_Ed, np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"vectors_Ed has shape {rows.shape}: give one finite vector per expert, [E, d]")
    used = (rows != 0).any(axis=1)
    distance, centred, rms, score, error = (_known(f(rows)) for f in (_distance, _centred, gram_rms, gram_orthogonality, gram_fro_error))
    return Representations(distance, centred, rms, score, error, welch_bound(max(int(used.sum()), 1), rows.shape[1]),
                           random_direction_rms(rows.shape[1]), tuple(np.flatnonzero(~used).tolist()), FEW if distance is None else None)


def _known(value: Float) -> float | None:
    return None if np.isnan(value) else float(value)


def probe_bootstrap(sums_DEd: ArrayLike, value: Callable[[ArrayLike], Float], rng: np.random.Generator, *, replicates: int = 999,
                    level: float = 0.95) -> Estimate:
    """Value of expert vectors with the basic interval of a bootstrap over the D probe documents (or hashed groups of them).

    sums_DEd: sum of each expert's vector over the tokens of a document, documents by hash. Noise in the sums pushes directions apart, in a
    replicate once more, which a percentile interval would count twice. Memory: the sums in float64 and 64 MiB of replicates.
    """
    sums = np.asarray(sums_DEd, np.float64)
    n, shape = len(sums), sums.shape[1:]
    observed = float(value(sums.sum(axis=0))) if n else float("nan")
    if np.isnan(observed):
        return Estimate.undefined(FEW, unit="cosine", n_units=n)
    if n < 2:
        return Estimate(observed, None, None, "cosine", "document", n, "plug-in", plug_in=observed)
    weights, flat = document_weights(n, replicates, rng), sums.reshape(n, -1)
    step = max(1, WEIGHT_BYTES // (8 * max(flat.shape[1], 1)))
    found = np.concatenate([value((weights[i : i + step] @ flat).reshape(-1, *shape)) for i in range(0, replicates, step)])
    found = found[~np.isnan(found)]
    low, high = basic_interval(np.asarray(observed), found, level)
    return Estimate(observed, float(low), float(high), "cosine", "document", n, "probe-document bootstrap (basic)", level, plug_in=observed,
                    se=float(found.std(ddof=1)))
