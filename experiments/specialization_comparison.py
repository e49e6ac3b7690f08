"""Seed 004's statistics, D.4, with documents and training seeds in the place of tokens and replicates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.comparison import MAX_SIGN_FLIPS, method_estimate, seed_comparison
from analysis.domain_labels import basic_estimates
from analysis.estimate import Estimate
from analysis.gates import few_per_domain, gated
from analysis.registry import every
from analysis.resampling import basic_interval, generator, refuse_tokens
from experiments.specialization_metrics import Features, estimate_named
from hypotheses.spectra_rows import chosen_experts

SEED_BOOTSTRAP = 1_000
ON_WORD = "{n} values of each method, taken as training seeds on the caller's word"
NOT_REPLICATES = ("a t test of bootstrap replicates has p near 0 whatever the models, for p falls with the number of replicates; give one value per "
                  "training seed (units=\"seeds\"), or compare two checkpoints by documents with analysis.paired_draws")
Document = Mapping[str, Any]


@dataclass(frozen=True)
class Bootstrapped:
    """An estimate that unpacks as the seed's `mean, lower, upper`; the first is the value, never the mean of replicates, which doubles the bias."""

    estimate: Estimate

    def __iter__(self) -> Iterator[float | None]:
        return iter((self.estimate.value, self.estimate.low, self.estimate.high))


def bootstrap_metric(metric_fn: str | Callable[..., Any], features: Features | Sequence[Document], n_bootstrap: int = SEED_BOOTSTRAP, *,
                     unit: str = "document", layer: int | None = None, level: float = 0.95, seed: int = 0) -> Bootstrapped:
    """A metric with an interval over whole documents at `level`: the basic one of a bootstrap inside domains, but for compute_* functions.

    features: from extract_features, or a list as in the seed's D.2 (see documents_of). metric_fn: a function of such a list with one document
    an entry (of Features: expert_ids and routing_weights [S, K] of one layer, the last if None, domain_labels [S], document_ids); and of
    Features also id or function of a metric of counts_DE, or one of the compute_* functions that give a number. These keep the interval that
    is right for them, named in the estimate's `method`: a group jackknife, on which n_bootstrap has no bearing, or, for purities and
    silhouettes, a bootstrap of n_bootstrap replicates. unit="token", and features whose rows are tokens of unknown documents, are refused
    (ValueError): tokens of one document share its topic, and such intervals cover 25 % instead of 95 %.
    """
    refuse_tokens(unit)
    if isinstance(features, Features):
        own = None if isinstance(metric_fn, str) else estimate_named(getattr(metric_fn, "__name__", ""))
        if own is not None:
            return Bootstrapped(own(replace(features, settings=replace(features.settings, n_bootstrap=n_bootstrap, level=level))))
        name = metric_fn if isinstance(metric_fn, str) else _registered(metric_fn)
        if name is not None:
            rng = generator(features.settings.seed, "bootstrap_metric")
            return Bootstrapped(basic_estimates(name, features.documents(layer), rng, level=level, n_replicates=n_bootstrap).item())
        documents, seed = list(routed_documents(features, layer)), features.settings.seed
    else:
        documents = list(documents_of(features))
    if isinstance(metric_fn, str):
        raise ValueError(f"metric_fn {metric_fn!r}: an id needs features from extract_features; give a function of the documents")
    return Bootstrapped(_resampled(metric_fn, documents, n_bootstrap, level, seed))


def _registered(function: Callable[..., Any]) -> str | None:
    """Id of a metric of counts_DE by its function."""
    return next((name for name, one in every().items() if one.function is function and one.takes == ("counts_DE",)), None)


def _resampled(metric_fn: Callable[..., Any], documents: Sequence[Document], n_bootstrap: int, level: float, seed: int) -> Estimate:
    domain = np.array([_domain_of(one, number) for number, one in enumerate(documents)])
    members = [np.flatnonzero(domain == name) for name in np.unique(domain)]
    value, method = float(metric_fn(list(documents))), "basic document bootstrap"
    if not np.isfinite(value):
        return Estimate.undefined("metric_fn gives no number on the documents", n_units=len(documents), method=method)
    gate = few_per_domain([len(one) for one in members])
    if min(map(len, members)) < 2:
        return gated(Estimate(value, None, None, "", "document", len(documents), method, level, plug_in=value), gate)
    rng = generator(seed, "bootstrap_metric")
    drawn = np.array([float(metric_fn([documents[i] for one in members for i in rng.choice(one, len(one))])) for _ in range(n_bootstrap)])
    drawn = drawn[np.isfinite(drawn)]
    low, high = basic_interval(np.asarray(value), drawn, level)
    return gated(Estimate(value, float(low), float(high), "", "document", len(documents), method, level, plug_in=value), gate)


def routed_documents(features: Features, layer: int | None = None) -> Iterator[dict[str, Any]]:
    """Each document of the features as a mapping of the seed's arrays: expert_ids, routing_weights (None if not recorded), domain_labels.

    expert_ids: -1 for a slot that holds no choice.
    """
    shown, named = features.layer if layer is None else layer, {row.document: row for row in features.run.trace.documents}
    for batch in features.run.trace.batches(layers=[shown]):
        starts, experts = np.flatnonzero(np.diff(batch.document, prepend=-1)), chosen_experts(batch, 0, features.run.fillers)
        for start, end in zip(starts, [*starts[1:], len(batch.document)], strict=True):
            row = named[int(batch.document[start])]
            yield {"expert_ids": experts[start:end], "routing_weights": None if batch.weights is None else batch.weights[0][start:end],
                   "domain_labels": np.full(end - start, row.domain), "document_ids": row.id}


def documents_of(features: Sequence[Document]) -> Iterator[dict[str, Any]]:
    """The documents of batches of arrays, each once; the pieces of one document id are one document.

    A batch: `domain_labels` ([B] or [B, S]) beside arrays [B, S, ...] of which a row is (a piece of) a document, `expert_ids` [B, S, K] among
    them; or flat arrays [T, ...] of single tokens with `document_ids` [T]. ValueError where rows are tokens and nothing says of which document,
    or where no document has a second token: [T, K] of tokens looks like [B, S] of documents, and is never taken for it.
    """
    found: dict[str, dict[str, list[Any]]] = {}
    for number, batch in enumerate(features):
        if not isinstance(batch, Mapping) or "domain_labels" not in batch:
            refuse_tokens("token")
        arrays = {name: np.asarray(value) for name, value in batch.items() if name != "document_ids" and value is not None}
        labels = arrays["domain_labels"]
        if not labels.ndim or any(not one.ndim or len(one) != len(labels) for one in arrays.values()):
            refuse_tokens("token")
        flat = not _of_sequences(arrays)
        if flat and batch.get("document_ids") is None:
            _refuse(f"features: batch {number} has rows of single tokens, or of [B, S] without the experts' axis, and no document_ids; give "
                    "arrays [B, S, K], or document_ids [T]")
        ids = [str(one) for one in batch.get("document_ids", _numbered(number, len(labels)))]
        for row, name in zip(range(len(labels)), ids, strict=True):
            document = found.setdefault(name, {})
            for key, value in arrays.items():
                document.setdefault(key, []).append(value[row : row + 1] if flat else np.atleast_1d(value[row]))
    if not found:
        raise ValueError("features: no document; give batches of arrays [B, S, ...] with domain_labels")
    whole = [{"document_ids": name, **{key: np.concatenate(parts) for key, parts in of.items()}} for name, of in found.items()]
    longest = max((len(one) for document in whole for key, one in document.items() if key not in ("document_ids", "domain_labels")), default=0)
    if longest < 2:
        _refuse("features: no document has a second token; give the documents that the tokens are of as document_ids")
    yield from whole


def _refuse(why: str) -> NoReturn:
    try:
        refuse_tokens("token")
    except ValueError as error:
        raise ValueError(f"{why}; {error}") from None
    raise AssertionError


def _numbered(batch: int, n: int) -> list[str]:
    return [f"batch {batch}, row {row}" for row in range(n)]


def _of_sequences(arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Whether rows are sequences [S, ...]: by the labels [B, S], by expert_ids [B, S, K], else by every array [B, S, ...]."""
    known = [one for name, one in arrays.items() if name != "domain_labels"]
    labels, experts = arrays["domain_labels"], arrays.get("expert_ids")
    if labels.ndim > 1:
        return all(one.shape[:2] == labels.shape[:2] for one in known)
    if experts is not None:
        return experts.ndim > 2 and all(one.shape[:2] == experts.shape[:2] for one in known)
    return bool(known) and all(one.ndim > 2 for one in known)


def _domain_of(document: Document, number: int) -> str:
    labels = {str(one) for one in np.atleast_1d(np.asarray(document["domain_labels"])).tolist()}
    if len(labels) != 1:
        raise ValueError(f"document {document.get('document_ids', number)!r}: domains {', '.join(sorted(labels))} in one document; a document "
                         "has one domain")
    return labels.pop()


def compare_models(metric_switch: ArrayLike, metric_SPECTRA: ArrayLike, *, units: str = "seeds") -> dict[str, Any]:
    """Two methods by one value per training seed, paired: t, p of the t test and of sign flips, and the difference SPECTRA less Switch.

    t has the seed's sign, that of Switch less SPECTRA: negative where SPECTRA's values are larger. Three seeds give an interval, five a verdict
    (`significant` is None below). Refused (ValueError): units other than "seeds", what bootstrap_metric returns, and more values than trainings
    can be (20): bootstrap replicates, documents and tokens are no trainings. Numbers do not show what they are: that these are of trainings
    is taken on the caller's word, and `reason` says so.
    """
    if any(_is_resampled(values) for values in (metric_switch, metric_SPECTRA)):
        raise ValueError(f"an estimate with its interval over documents is one value of one training: {NOT_REPLICATES}")
    a, b = (np.asarray(values, np.float64).ravel() for values in (metric_switch, metric_SPECTRA))
    if units != "seeds" or max(len(a), len(b)) > MAX_SIGN_FLIPS:
        what = f"units={units!r}" if units != "seeds" else f"{max(len(a), len(b))} values are no training seeds"
        raise ValueError(f"{what}: {NOT_REPLICATES}")
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} training seeds: give the same seeds of both, paired by their data order")
    found = method_estimate(b - a, unit="")
    test = seed_comparison(a - b) if found.value is not None else None
    significant = None if test is None or found.gate or found.low is None or found.high is None else not found.low <= 0 <= found.high
    return {"difference": found, "t_statistic": None if test is None else test.t, "p_value": None if test is None else test.p_t,
            "p_sign_flip": found.p, "significant": significant,
            "reason": "; ".join(one for one in (ON_WORD.format(n=len(a)), found.reason or found.gate) if one)}


def _is_resampled(values: Any) -> bool:
    """Whether values are an estimate or its interval, or hold one."""
    made = (Bootstrapped, Estimate)
    return isinstance(values, made) or (isinstance(values, Sequence) and any(isinstance(one, made) for one in values))


__all__ = ["Bootstrapped", "bootstrap_metric", "compare_models", "documents_of", "routed_documents"]
