"""Transferred information between all ordered pairs of domains, at every adjacent layer pair and averaged over them.

D domain (A source, B target), P pair of adjacent layers, G jackknife group of one domain, X, Y expert at the two layers, F half of B.
Leaving out a group of B changes T(A->B) only through sums that are linear in its table, so one logarithm table per (A, group of A)
serves every target: the cost grows with D, not D squared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.arithmetic import Float, divide, entropy_bits, mutual_information_bits
from analysis.estimate import Estimate
from analysis.estimation import Groups, interval_estimates, jackknife
from analysis.gates import NO_DATA, ONE_DOCUMENT, TRANSFER_TOKENS_PER_CELL, few_per_domain, gated, undersampled
from analysis.left_out import LeftOut
from analysis.metrics.transfer import choose_smoothing, log2_transition, ratio_terms
from analysis.registry import find
from analysis.resampling import Interval
from analysis.threads import each
from analysis.two_sample import METHOD, two_sample_interval, two_sample_jackknife

AT_ONCE = 2**22  # cells of logarithms held at a time by a thread (32 MiB)


@dataclass(frozen=True)
class DomainJoints:
    """Joint tables of one domain: for each adjacent layer pair an array [G, Ex, Ey] summed over each jackknife group of its documents.

    The same groups in hash order at every layer pair; E may differ between pairs. n_documents: documents behind the groups.
    """

    name: str
    joints_P: Sequence[NDArray[np.generic]]
    n_documents: int


@dataclass(frozen=True)
class TransferMatrix:
    """Estimates by source and target. by_pair [D, D, P]; mean [D, D]: over adjacent layers; smoothing [D, P]: b of each source.

    The diagonal is I_B (first-choice mutual information of the domain itself), the most that any source can transfer. overall: mean over
    all ordered pairs of domains and adjacent layers, each group of documents left out of every pair that its domain is in.
    """

    names: tuple[str, ...]
    by_pair: NDArray[Any]
    mean: NDArray[Any]
    smoothing: Float
    overall: Estimate


@dataclass
class _Replicates:
    """T and its leave-one-group-out values for one ordered pair, per layer pair: whole [P], A [G_A, P], B [G_B, P]."""

    whole: Float
    without_A: Float
    without_B: Float


def transfer_matrix(domains: Sequence[DomainJoints], *, smoothing: float | None = None, level: float = 0.95, threads: int = 1) -> TransferMatrix:
    """T(A->B) for every ordered pair of domains with two-sample jackknife intervals, and its mean over adjacent layers.

    smoothing: b; by document cross-validation inside each source and layer pair if None. Gates: N_A >= 10 Kx Ky, 20 documents in either
    domain. A mean over layers is undefined where one of them is. ValueError for domains with unlike numbers of pairs or experts.
    """
    _check(domains)
    n_domains, n_pairs = len(domains), len(domains[0].joints_P)
    chosen = np.array(each(lambda domain: [_smoothing_of(joint, smoothing) for joint in domain.joints_P], domains, threads))
    made = {(a, b): _Replicates(np.full(n_pairs, np.nan), *(np.full((len(domains[d].joints_P[0]), n_pairs), np.nan) for d in (a, b)))
            for a in range(n_domains) for b in range(n_domains) if a != b}

    def fill(place: tuple[int, int]) -> None:
        pair, source = place
        _fill(made, [np.asarray(domain.joints_P[pair]) for domain in domains], source, pair, chosen[source, pair])

    each(fill, [(pair, source) for pair in range(n_pairs) for source in range(n_domains) if np.isfinite(chosen[source, pair])], threads)
    by_pair, mean = np.empty((n_domains, n_domains, n_pairs), object), np.empty((n_domains, n_domains), object)
    for (a, b), replicates in made.items():
        gates = [_gate(domains[a], domains[b], pair) for pair in range(n_pairs)]
        by_pair[a, b], mean[a, b] = _estimates(replicates, domains[a], domains[b], gates, level)
    overall = _overall(domains, made, [mean[pair] for pair in made], level)
    for d, domain in enumerate(domains):
        by_pair[d, d], mean[d, d] = _ceiling(domain, level)
    return TransferMatrix(tuple(domain.name for domain in domains), by_pair, mean, chosen, overall)


def _overall(domains: Sequence[DomainJoints], made: dict[tuple[int, int], _Replicates], means: Sequence[Estimate], level: float) -> Estimate:
    """Mean of T over ordered pairs and layers; domains are strata, whose biases, variances and degrees of freedom add."""
    n_documents = sum(domain.n_documents for domain in domains)
    missing = next((one.reason for one in means if one.value is None), None) if made else f"{NO_DATA}: one domain; a transfer needs two"
    if missing:
        return Estimate.undefined(missing, unit="bits", n_units=n_documents, method=METHOD)
    whole = {pair: one.whole.mean() for pair, one in made.items()}
    total, without, stratum = sum(whole.values()), [], []
    for d, domain in enumerate(domains):
        sums = np.full(len(domain.joints_P[0]), total)
        for (a, b), one in made.items():
            if d in (a, b):
                sums += (one.without_A if d == a else one.without_B).mean(axis=1) - whole[a, b]
        without.append(sums / len(made))
        stratum.append(np.full(len(sums), d))
    replicates = LeftOut(np.asarray(total / len(made)), np.concatenate(without), n_documents, np.concatenate(stratum))
    estimate: Estimate = replicates.estimates("transfer_info", level=level).item()
    return gated(estimate, *(one.gate for one in means))


def _check(domains: Sequence[DomainJoints]) -> None:
    if not domains or not len(domains[0].joints_P):
        raise ValueError("no domain or no adjacent layer pair: transfer needs two MoE layers")
    shapes = [[np.shape(joint)[1:] for joint in domain.joints_P] for domain in domains]
    for domain, shape in zip(domains, shapes):
        if shape != shapes[0]:
            raise ValueError(f"domain {domain.name!r} has tables {shape}, {domains[0].name!r} {shapes[0]}: trace both with the same model")
        if len({len(joint) for joint in domain.joints_P}) > 1:
            raise ValueError(f"domain {domain.name!r}: joints_P must have the same groups of documents at every layer pair")


def _smoothing_of(joint_GXY: NDArray[np.generic], smoothing: float | None) -> float:
    """b, or NaN where the source has no token or no document to hold out."""
    if not joint_GXY.any():
        return np.nan
    if smoothing is not None:
        return smoothing
    return choose_smoothing(joint_GXY) if len(joint_GXY) > 1 else np.nan


def _fill(made: dict[tuple[int, int], _Replicates], tables: Sequence[NDArray[np.generic]], source: int, pair: int, b: float) -> None:
    """The replicates of one source at one layer pair against every target."""
    targets = [d for d in range(len(tables)) if d != source]
    groups = np.asarray(tables[source], np.float64)
    total = groups.sum(axis=0)
    whole = log2_transition(total, b).reshape(-1)
    sums = {d: np.asarray(tables[d], np.float64) for d in targets}
    for d in targets:
        table = sums[d].sum(axis=0)
        left = table - sums[d]
        made[source, d].whole[pair] = float(_value(table, table.reshape(-1) @ whole))
        made[source, d].without_B[:, pair] = _value(left, left.reshape(len(left), total.size) @ whole)
    step = max(1, AT_ONCE // total.size)
    stacked = np.stack([sums[d].sum(axis=0) for d in targets], axis=-1).reshape(-1, len(targets)) if targets else np.empty((total.size, 0))
    for start in range(0, len(groups), step):
        left = total - groups[start : start + step]
        products = log2_transition(left, b).reshape(len(left), total.size) @ stacked
        products[left.sum(axis=(1, 2)) == 0] = np.nan
        for column, d in enumerate(targets):
            made[source, d].without_A[start : start + step, pair] = _value(sums[d].sum(axis=0), products[:, column])


def _value(target: Float, log_likelihood: NDArray[np.float64]) -> Float:
    """H_B(Y) + sum n log2 q / N_B; NaN without tokens."""
    return entropy_bits(target.sum(axis=-2)) + divide(log_likelihood, target.sum(axis=(-2, -1)))


def _gate(a: DomainJoints, b: DomainJoints, pair: int) -> str | None:
    return undersampled(np.asarray(a.joints_P[pair]).sum(axis=0), TRANSFER_TOKENS_PER_CELL) or few_per_domain([a.n_documents, b.n_documents])


def _estimates(replicates: _Replicates, a: DomainJoints, b: DomainJoints, gates: Sequence[str | None], level: float) -> tuple[Any, Any]:
    stacked = [np.concatenate([x, x.mean(axis=-1, keepdims=True)], axis=-1)
               for x in (replicates.whole, replicates.without_A, replicates.without_B)]
    n_documents = min(a.n_documents, b.n_documents)
    if min(len(replicates.without_A), len(replicates.without_B)) > 1:
        interval = two_sample_interval(stacked[0], stacked[1], stacked[2], level=level)
    else:
        none = np.full_like(stacked[0], np.nan)
        interval = Interval(stacked[0], stacked[0], none, none, none)
    made = interval_estimates(find("transfer_info"), interval, n_documents, METHOD, level=level)
    missing = [pair for pair, value in enumerate(replicates.whole) if np.isnan(value)]
    for pair in missing:
        if np.any(a.joints_P[pair]) and np.any(b.joints_P[pair]):
            reason = f"{ONE_DOCUMENT}: smoothing cannot be chosen from one document of {a.name!r}"
            made[pair] = Estimate.undefined(reason, unit="bits", n_units=n_documents, method=METHOD)
    if missing:
        made[-1] = Estimate.undefined(f"{NO_DATA}: undefined at layer pairs {missing}", unit="bits", n_units=n_documents, method=METHOD)
    every = [*gates, next((gate for gate in gates if gate), None)]
    gated_ones = np.empty(len(made), object)
    gated_ones[:] = [one if one.value is None else gated(one, gate) for one, gate in zip(made, every)]
    return gated_ones[:-1], gated_ones[-1]


def _ceiling(domain: DomainJoints, level: float) -> tuple[NDArray[Any], Estimate]:
    """I_B of a domain at each layer pair and their mean, with the one-sample jackknife."""
    groups = Groups(tuple(domain.joints_P), domain.n_documents)

    def informations(*tables: Float) -> Float:
        each = np.stack([mutual_information_bits(table) for table in tables], axis=-1)
        return np.concatenate([each, each.mean(axis=-1, keepdims=True)], axis=-1)

    if len(domain.joints_P[0]) > 1:
        interval = jackknife(groups, informations, level=level)
    else:
        plug_in = informations(*groups.totals)
        none = np.full_like(plug_in, np.nan)
        interval = Interval(plug_in, plug_in, none, none, none)
    made = interval_estimates(find("mi_first_choice"), interval, domain.n_documents, "group jackknife", level=level)
    gates = [undersampled(total) or few_per_domain([domain.n_documents]) for total in groups.totals]
    out = np.empty(len(made), object)
    out[:] = [one if one.value is None else gated(one, gate) for one, gate in zip(made, [*gates, next((g for g in gates if g), None)])]
    return out[:-1], out[-1]


def matched_groups(tokens_G: NDArray[np.generic], target: float) -> NDArray[np.bool_]:
    """The first groups, in hash order, whose tokens come nearest to `target`; at least one."""
    sums = np.cumsum(np.asarray(tokens_G, np.float64))
    kept = int(np.abs(sums - target).argmin()) + 1 if len(sums) else 0
    return np.arange(len(sums)) < kept


def ratio_estimate(source: DomainJoints, target: DomainJoints, *, level: float = 0.95) -> Estimate:
    """transfer_ratio T(A->B)/T(B->B) of the means over adjacent layers, with a two-sample jackknife interval.

    B's groups are dealt into two halves, each predicted from the other; A's table and each training half are cut, by whole groups, to the
    size of the smallest of the three, so that smoothing and sampling cost the same above and below. b is chosen inside each table.
    Undefined where the interval of T(B->B) does not lie above 0, and where a domain has fewer than 4 groups.
    """
    _check([source, target])
    n_documents = min(source.n_documents, target.n_documents)
    if min(len(source.joints_P[0]), len(target.joints_P[0])) < 4:
        return Estimate.undefined(f"{ONE_DOCUMENT}: halves of two documents or more are needed in both domains", unit="ratio",
                                  n_units=n_documents, method=METHOD)
    a, b, smoothing = _matched(source, target)
    if not all(table.any() for table in (*a.tables, *b.tables)):
        return Estimate.undefined(f"{NO_DATA}: a half of a domain without tokens at a layer pair", unit="ratio", n_units=n_documents, method=METHOD)
    n_pairs = len(source.joints_P)

    def terms(*tables: Float) -> Float:
        each = [ratio_terms(tables[p], tables[n_pairs + 2 * p], tables[n_pairs + 2 * p + 1], smoothing[p][0], smoothing[p][1:])
                for p in range(n_pairs)]
        upper, lower = (np.mean([term[place] for term in each], axis=0) for place in (0, 1))
        return np.stack(np.broadcast_arrays(divide(upper, lower), lower), axis=-1)

    interval = two_sample_jackknife(a, b, terms, level=level)
    if not interval.low[1] > 0:
        reason = f"T(B->B) = {interval.value[1]:.3f} bits [{interval.low[1]:.3f}, {interval.high[1]:.3f}]: its interval does not exclude 0"
        return Estimate.undefined(reason, unit="ratio", n_units=n_documents, method=METHOD)
    first = Interval(*(np.asarray(getattr(interval, name)[0]) for name in ("value", "plug_in", "se", "low", "high")))
    estimate = interval_estimates(find("transfer_ratio"), first, n_documents, METHOD, level=level).item()
    gates = [_gate(source, target, pair) or undersampled(np.asarray(joint).sum(axis=0), TRANSFER_TOKENS_PER_CELL)
             for pair, joint in enumerate(target.joints_P)]
    return gated(estimate, *gates)


def _matched(source: DomainJoints, target: DomainJoints) -> tuple[Groups, Groups, list[NDArray[np.float64]]]:
    """A's groups cut to size; B's groups as (half to predict, table that predicts it) per layer pair; b of [A, half 0, half 1] per pair."""
    half = np.arange(len(target.joints_P[0])) % 2
    tokens_A, tokens_B = (sum(np.asarray(joint).sum(axis=(1, 2)) for joint in domain.joints_P) for domain in (source, target))
    size = min(float(np.sum(tokens_A)), *(float(np.sum(tokens_B[half == f])) for f in (0, 1)))
    kept_A = matched_groups(tokens_A, size)
    kept_A[:2] = True  # a jackknife needs two
    trains = np.zeros((len(half), 2), bool)
    for f in (0, 1):
        members = np.flatnonzero(half != f)
        trains[members, f] = matched_groups(tokens_B[members], size)
    tables_B, smoothing = [], []
    for joint_A, joint_B in zip(source.joints_P, target.joints_P):
        groups = np.asarray(joint_B)
        tables_B += [groups[:, None] * (half[:, None] == [0, 1])[..., None, None], groups[:, None] * trains[..., None, None]]
        parts = (np.asarray(joint_A)[kept_A], groups[trains[:, 0]], groups[trains[:, 1]])
        smoothing.append(np.array([choose_smoothing(part) if len(part) > 1 else float(part.shape[-1]) for part in parts]))
    a = Groups(tuple(np.asarray(joint)[kept_A] for joint in source.joints_P), source.n_documents)
    return a, replace(a, tables=tuple(tables_B), n_documents=target.n_documents), smoothing
