"""The matched sampling null: entropies permuted over occurrences inside document x position band.

R draw, L MoE layer, T token, m type.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import FIXED_ONE, mix, permute_within
from analysis.nulls import NullPlan, document_keys, permuted_entropy_sums, segments
from tests.bench.measure import Rival, Workload
from tests.bench.rows import Sample, Sizes

SEED, MIN_COUNT, TOLERANCE = 0, 50, 1e-6
Shuffle = Callable[[np.random.Generator], NDArray[np.int64]]


def workload(sizes: Sizes, sample: Sample) -> Workload:
    """Ours from the trace to sums [R, L, m] of the types with at least MIN_COUNT occurrences."""
    rows, n_types = sample.rows, sample.meta.vocabulary_size
    types = np.flatnonzero(np.bincount(rows.token_id, minlength=n_types) >= MIN_COUNT)
    plan = NullPlan("test", sizes.null_draws, SEED, n_rows=len(rows))
    entropy = np.asarray(rows.entropy_nats, np.float64)
    starts, lengths, keys = segments(rows, document_keys(sample.documents, SEED))
    segment = np.repeat(np.arange(len(starts)), lengths)

    def ours() -> NDArray[np.int64]:
        return np.concatenate([sums for _, sums in permuted_entropy_sums(sample.trace, plan, types)], axis=1)

    def sums_of(shuffled: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.array([np.bincount(rows.token_id, h[shuffled], n_types)[types] for h in entropy])

    def by_segment(rng: np.random.Generator) -> NDArray[np.int64]:
        return np.concatenate([start + rng.permutation(length) for start, length in zip(starts, lengths, strict=True)])

    def by_sort(rng: np.random.Generator) -> NDArray[np.int64]:
        return np.lexsort((rng.random(len(segment)), segment))

    def draws(shuffle: Shuffle) -> Callable[[], list[NDArray[np.float64]]]:
        return lambda: [sums_of(shuffle(np.random.default_rng(r))) for r in range(sizes.rival_draws)]

    def check() -> str:
        mine = ours()
        for r in range(sizes.rival_draws):
            with np.errstate(over="ignore"):
                drawn = permute_within(starts, lengths, mix(keys + np.uint64(r))[None], "numpy")[0]
            assert np.allclose(mine[r] / FIXED_ONE, sums_of(drawn), rtol=0, atol=TOLERANCE), "sums of the same rows differ"
            for shuffled in (drawn, by_segment(np.random.default_rng(r)), by_sort(np.random.default_rng(r))):
                assert np.array_equal(segment[shuffled], segment), "a row left its segment"
                assert np.array_equal(np.sort(shuffled), np.arange(len(segment))), "a row is lost or doubled"
        return f"the sums of the same permutations within {TOLERANCE:g}; each rival permutes inside the same segments"

    share, scaled = sizes.rival_draws / sizes.null_draws, f"{sizes.rival_draws} of {sizes.null_draws} draws run, scaled"
    return Workload(f"matched null, R = {sizes.null_draws}", ours, [
        Rival("numpy loop over documents x bands", draws(by_segment), share, scaled),
        Rival("numpy lexsort of the whole split", draws(by_sort), share, scaled)], check, len(rows) * sizes.null_draws, "shuffled rows/s",
        f"{len(rows):,} tokens, {len(starts):,} segments, {len(types):,} types x {len(sample.meta.layers)} layers")
