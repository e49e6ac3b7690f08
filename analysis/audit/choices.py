"""Findings about expert ids: out of range, twice in a row, constant layers, copied layers, order of slots, replicas.

L MoE layer, E expert, B bin of token types, U block of documents.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.audit.flaw import Flaw, flaw
from analysis.audit.observed import Observed
from analysis.audit.of_layers import LayerTally
from analysis.kernels import Float, Int

CONSTANT = 0.99  # share of rows with the same k experts, or 0 in every slot, that no router has
FEWEST_ROWS = 30
ALL_BY_ID, MANY_BY_ID, SLOTS_TELL = 0.99, 0.5, 4  # share of rows in the order of ids; from four slots on chance gives 1 in 24
EXPECTED_TOGETHER = 12.0  # rows in which two experts would meet by chance, before never meeting means anything
ALIKE_DF = 10  # degrees of freedom, at least, of a comparison of two profiles
ALIKE = 4.0  # standard deviations of chi-square per degree of freedom within which two profiles are one
UNLIKE = 2.0  # chi-square per degree of freedom between other experts, at the median: else profiles tell nothing
REPLICA_OF = 0.02  # share of the rows' even load that both experts need


def ids_beyond_range(seen: Observed) -> Flaw | None:
    """Rows with an id below 0, or of n_experts and more."""
    layers = [one for one in seen.layers.layers if one.beyond or one.negative]
    if not layers:
        return None
    count, of = sum(one.beyond + one.negative for one in layers), sum(one.rows for one in seen.layers.layers)
    most = max(layers, key=lambda one: one.largest - one.layer.n_experts)
    off = all(one.largest <= one.layer.n_experts and one.beyond == one.at_limit for one in layers) and not any(one.negative for one in layers)
    hint = "; off by one?" if off else "; physical ids?" if most.largest >= most.layer.n_experts else ""
    return flaw("ids_beyond_range", count, of, "rows of layers", f"{count:,} rows have an id outside 0..n_experts - 1; the largest is {most.largest} "
                f"of {most.layer.n_experts} experts{hint}", [one.layer.key for one in layers])


def repeated_choice(seen: Observed) -> Flaw | None:
    """Rows with one expert in two slots; layers that `dense_layers` names are left out."""
    layers = [one for one in seen.layers.layers if one.repeated and not _dense(one)]
    if not layers:
        return None
    count, zeros = sum(one.repeated for one in layers), sum(one.zeros for one in layers)
    filled = f"; {zeros:,} have 0 in every slot" if zeros else ""
    return flaw("repeated_choice", count, sum(one.rows for one in seen.layers.layers), "rows of layers",
                f"{count:,} rows have one expert in two slots{filled}", [one.layer.key for one in layers])


def dense_layers(seen: Observed) -> Flaw | None:
    """Layers with expert 0, or the same k experts, in nearly every row."""
    found = [one.layer.key for one in seen.layers.layers if _dense(one)]
    if not found:
        return None
    return flaw("dense_layers", len(found), len(seen.layers.layers), "layers", f"{len(found)} layers choose expert 0, or the same k, in at least "
                f"{CONSTANT:.0%} of the rows", found)


def _dense(one: LayerTally) -> bool:
    if one.rows < FEWEST_ROWS or one.layer.n_experts <= one.layer.top_k:
        return False
    busiest = np.sort(one.loads)[-one.layer.top_k:]
    return bool(max(one.zeros, int(busiest[0])) >= CONSTANT * one.rows)


def repeated_layers(seen: Observed) -> Flaw | None:
    """Layers that choose the same experts in every row."""
    groups: dict[tuple[int, int], list[str]] = {}
    for one in seen.layers.layers:
        varied = one.first.max(initial=0) < one.first.sum()
        if one.rows >= FEWEST_ROWS and varied and one.layer.n_experts > one.layer.top_k:
            groups.setdefault((one.digest, one.layer.top_k), []).append(one.layer.key)
    alike = [group for group in groups.values() if len(group) > 1]
    if not alike:
        return None
    surplus = sum(len(group) - 1 for group in alike)
    triple = "; three at a time, as gate, up and down do" if all(len(group) % 3 == 0 for group in alike) else ""
    return flaw("repeated_layers", surplus, len(seen.layers.layers), "layers", f"{surplus} layers repeat the choices of others in every row{triple}",
                [" = ".join(group) for group in alike])


def unsorted_slots(seen: Observed) -> Flaw | None:
    """Rows in which a later slot weighs more than an earlier one."""
    layers = [one for one in seen.layers.layers if one.unsorted]
    if not layers:
        return None
    count, of = sum(one.unsorted for one in layers), sum(one.rows for one in seen.layers.layers)
    return flaw("unsorted_slots", count, of, "rows of layers", f"weights rise along the slots in {count:,} rows", [one.layer.key for one in layers])


def slots_by_id(seen: Observed) -> Flaw | None:
    """Layers whose rows are in the order of expert ids: the source kept a set, and slot 0 is its lowest or highest id."""
    layers = [one for one in seen.layers.layers if _by_id(one)]
    if not layers:
        return None
    count = sum(max(one.ascending, one.descending) for one in layers)
    return flaw("slots_by_id", count, sum(one.rows for one in seen.layers.layers), "rows of layers", f"in {len(layers)} layers "
                f"{count / sum(one.rows for one in layers):.1%} of the rows are in the order of expert ids", [one.layer.key for one in layers])


def _by_id(one: LayerTally) -> bool:
    """Whether more rows are in the order of ids than any order of scores explains; rows of the same experts throughout are another finding."""
    if one.rows < FEWEST_ROWS or not 1 < one.layer.top_k < one.layer.n_experts or _dense(one):
        return False
    return max(one.ascending, one.descending) >= (MANY_BY_ID if one.layer.top_k >= SLOTS_TELL else ALL_BY_ID) * one.rows


def slot_order_unknown(seen: Observed) -> Flaw | None:
    """Several choices per token, no weights, and no word of the source (the meta's `slot_order`) that they are by falling score."""
    layers = [layer.key for layer in seen.meta.layers if layer.top_k > 1]
    if not layers or seen.layers.has_weights or seen.meta.details.get("slot_order") or slots_by_id(seen):
        return None
    return flaw("slot_order_unknown", len(layers), len(seen.meta.layers), "layers", "there are no weights to tell the order of the slots, and the "
                "source does not say it")


def physical_ids(seen: Observed) -> Flaw | None:
    """Pairs of experts that never meet in a row, are chosen for the same token types (documents, without types) and with the same third experts."""
    found = [f"{tally.layer.key}: experts {a} and {b}" for index, tally in enumerate(seen.layers.layers)
             for a, b in replicas(tally, _profiles(seen, index))]
    if not found:
        return None
    pairs = sum(layer.n_experts // 2 for layer in seen.meta.layers)
    return flaw("physical_ids", len(found), pairs, "pairs of experts", f"{len(found)} pairs of experts never meet although chance would bring them "
                "together, and are chosen for the same tokens", found)


def _profiles(seen: Observed, index: int) -> Int:
    """Selections [E, B] by token type, or by block of documents where there are no types."""
    tally = seen.layers.layers[index]
    if tally.profile.any():
        return tally.profile
    start, end = seen.blocks.offsets[index:index + 2]
    blocks = [counts[start:end] for one in seen.blocks.series for counts in one.counts]
    return np.array(blocks, np.int64).T if blocks else tally.profile


def replicas(tally: LayerTally, profile: Int) -> Iterator[tuple[int, int]]:
    """Pairs (a < b) of a layer that look like replicas; profile: selections [E, B] of each expert by bin."""
    n = tally.layer.n_experts
    chosen = tally.together.sum(axis=1) + tally.together.sum(axis=0)
    if tally.layer.top_k < 2 or n <= tally.layer.top_k or not tally.sampled or not chosen.sum():
        return
    meets = tally.together + tally.together.T
    share = chosen / (tally.layer.top_k - 1) / tally.sampled  # of rows that choose each expert
    expected = np.outer(share, share) * tally.sampled * (tally.layer.top_k - 1) / tally.layer.top_k
    even = tally.sampled * tally.layer.top_k / n
    usual: dict[int, float] = {}
    for a, b in zip(*np.nonzero(np.triu((meets == 0) & (expected >= EXPECTED_TOGETHER), 1))):
        if min(chosen[a], chosen[b]) < REPLICA_OF * even:
            continue
        if not (_one_profile(profile[a], profile[b]) and _one_profile(np.delete(meets[a], [a, b]), np.delete(meets[b], [a, b]), 1)):
            continue
        if int(a) not in usual:
            others = np.delete(profile, [a, b], axis=0)
            usual[int(a)] = float(np.median(_homogeneity(profile[a], others[others.sum(axis=1) > 0])[0]))
        if usual[int(a)] >= UNLIKE:
            yield int(a), int(b)


def _one_profile(one: Int, other: Int, least: int = ALIKE_DF) -> bool:
    """Whether two profiles [B] are one within what sampling of rows allows; False with too few bins to tell."""
    ratio, df = _homogeneity(one, other[None])
    return bool(df[0] >= least and ratio[0] <= 1 + ALIKE * np.sqrt(2 / df[0]))


def _homogeneity(one: Int, others: Int) -> tuple[Float, Float]:
    """Chi-square per degree of freedom between a profile [B] and each of others [N, B], and the degrees of freedom [N]."""
    a, b = one.astype(np.float64)[None], others.astype(np.float64)
    total = a + b
    part = a.sum() / np.maximum(a.sum() + b.sum(axis=1, keepdims=True), 1)
    used = total >= 5
    chi = np.where(used, (a - part * total) ** 2 / np.maximum(total * part * (1 - part), 1e-12), 0.0).sum(axis=1)
    df = np.maximum(used.sum(axis=1) - 1, 0).astype(np.float64)
    return chi / np.maximum(df, 1), df
