"""Router entropy, Simpson concentration and confidence of rows of router outputs, 16-bit ones by tables of their 65,536 patterns.

N row (token), E expert. bfloat16 comes as its bit patterns, uint16. 16-bit rows are summed in integers: the same bits from numpy and
from compiled loops, in any order. Fixed-point scales: probabilities 2**30, their -p ln p 2**31, squares 2**52; softmax weights 2**34.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.kernels import Backend, choose_backend, compiled, numba_loaded

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Codes = NDArray[np.uint16]

PATTERNS = 2**16
MOST_EXPERTS = 1_024  # sums of squares of probabilities stay within 63 bits
LARGEST_DEVIATION = 2e-3  # of a row's sum from 1: float16 rounding (metrics specification 3.3)
BFLOAT16_DEVIATION = 2.0**-8  # bfloat16 keeps 8 bits: rounding alone moves a sum by as much
LARGEST_LOGIT = 60.0  # exp of it, and of its negative, is a float32; rows beyond take the exponential itself
BLOCK_VALUES = 2**16
HELD_ROWS = 1_024  # rows whose sums are held where nobody asks for them
COMPILED_FROM = 5_000_000  # values summed by numpy before numba's start-up repays itself
P_ONE, H_ONE, SQUARE_ONE = 2.0**30, 2.0**31, 2.0**52
WEIGHT_ONE, LOGIT_ONE, WEIGHT_SQUARE_ONE = 2.0**34, 2.0**20, 2.0**52


@dataclass(frozen=True)
class RouterRows:
    """Of each row: Shannon entropy in nats, [0, ln E]; sum of squared probabilities, [1/E, 1]; largest probability and its lowest expert.

    All [...] as the rows came. largest_deviation: of a row's sum from 1 before it was renormalised; 0 from logits.
    """

    entropy_nats: Float
    simpson: Float
    confidence: Float
    first: Int
    largest_deviation: float


def of_probabilities(
    probabilities: ArrayLike, *, any_sum: bool = False, backend: Backend | None = None, first_row: int = 0
) -> RouterRows:
    """H = -sum p ln p of rows [..., E], renormalised: float16, bfloat16 as uint16 patterns, float32 or float64.

    any_sum: the source declares renormalised top-k weights or sigmoid scores, so rows may sum to anything above 0; else a row whose sum
    is further than 2e-3 (bfloat16: 2**-8, its own rounding) from 1 is refused. 16-bit rows: error below 1e-6 nats against float64 on
    the same values. ValueError names the row of a value below 0 (16-bit: outside [0, 1]) or of a sum refused,
    counted from first_row.
    """
    rows, shape = _rows(probabilities, "probabilities")
    if rows.dtype in (np.float16, np.uint16):
        half = half_probabilities(rows, whole=True, any_sum=any_sum, backend=backend, first_row=first_row)
        parts, first = (half.entropy, half.sums[2] / SQUARE_ONE / half.total**2, half.largest / half.total), half.first
        deviation = half.deviation
    else:
        total, h, squares, largest, first = _wide_sums(rows, first_row)
        deviation = deviation_of(total, np.inf if any_sum else LARGEST_DEVIATION, first_row)
        parts = (np.maximum(np.log(total) + h / total, 0.0), squares / total**2, largest / total)
    entropy, simpson, confidence = (part.reshape(shape) for part in parts)
    return RouterRows(entropy, simpson, confidence, first.reshape(shape), deviation)


def entropy_of_probabilities(probabilities: ArrayLike, *, any_sum: bool = False, backend: Backend | None = None) -> Float:
    """`of_probabilities(...).entropy_nats` alone, in two thirds of its time."""
    rows, shape = _rows(probabilities, "probabilities")
    if rows.dtype not in (np.float16, np.uint16):
        return of_probabilities(rows.reshape(*shape, rows.shape[-1]), any_sum=any_sum).entropy_nats
    entropy: Float = half_probabilities(rows, whole=False, any_sum=any_sum, backend=backend).entropy.reshape(shape)
    return entropy


def of_logits(logits: ArrayLike, *, masked: bool = False, backend: Backend | None = None) -> RouterRows:
    """H of softmax(logits) over the last axis: float16, bfloat16 as uint16 patterns, float32 or float64.

    masked: the source declares that experts may be masked by -inf, which have probability 0; else -inf is refused. 16-bit rows: error
    below 6e-6 nats against float64 on the same values. ValueError names the row of a NaN, +inf, refused -inf, or with every expert masked.
    """
    rows, shape = _rows(logits, "logits")
    if rows.dtype in (np.float16, np.uint16):
        parts = _half_logits(rows, masked, backend)
    else:
        check_logits(rows, masked)
        parts = _softmax(rows.astype(np.float64))
    entropy, simpson, confidence = (part.reshape(shape) for part in parts[:3])
    return RouterRows(entropy, simpson, confidence, parts[3].reshape(shape), 0.0)


@dataclass(frozen=True)
class HalfRows:
    """Rows of 16-bit probabilities. sums: p, -p ln p and (if whole) p^2 [3, N] in fixed point; top: 65536 x largest pattern - its expert."""

    sums: Int
    top: Int
    entropy: Float
    is_float16: bool
    deviation: float

    @property
    def total(self) -> Float:
        """Sum of each row."""
        total: Float = self.sums[0] / P_ONE
        return total

    @property
    def largest(self) -> Float:
        """Largest probability as it came."""
        largest: Float = values(self.is_float16)[(self.top + PATTERNS - 1) >> 16]
        return largest

    @property
    def first(self) -> Int:
        """Lowest expert with the largest probability; only where whole."""
        return -self.top & (PATTERNS - 1)


def half_probabilities(
    rows: NDArray[Any], *, whole: bool, any_sum: bool = False, backend: Backend | None = None, first_row: int = 0
) -> HalfRows:
    """Sums and entropies of float16 or bfloat16 rows [N, E]. ValueError as `of_probabilities`."""
    codes, is_float16 = codes_of(rows), rows.dtype == np.float16
    held = len(codes) if whole or any_sum else min(len(codes), HELD_ROWS)
    sums, top, entropy = np.zeros((3, held), np.int64), np.empty(held, np.int64), np.empty(len(codes))
    kernel = _kernel("probability_rows", codes.size, backend) or _probability_rows
    least, most, largest = kernel(codes, probability_terms(is_float16), whole, sums, top, entropy)
    deviation = max(1 - least / P_ONE, most / P_ONE - 1) if len(codes) else 0.0
    allowed = np.inf if any_sum else largest_deviation(is_float16)
    if largest > one_pattern(is_float16) << 16 or least <= 0 or deviation > allowed:
        refuse(codes, is_float16, allowed, first_row)
    if any_sum:
        total = sums[0] / P_ONE
        entropy = np.maximum(np.log(total) + sums[1] / H_ONE / total, 0.0)
    return HalfRows(sums, top, entropy, is_float16, deviation)


def largest_deviation(is_float16: bool) -> float:
    """Deviation from 1 up to which a row's sum is rounding."""
    return LARGEST_DEVIATION if is_float16 else BFLOAT16_DEVIATION


def refuse(codes: Codes, is_float16: bool, allowed: float, start: int = 0) -> None:
    """ValueError for the first row that is no distribution, if any; start: number of the first row."""
    value, terms, step = values(is_float16), probability_terms(is_float16), max(1, BLOCK_VALUES // codes.shape[1])
    for first in range(0, len(codes), step):
        part = codes[first : first + step]
        p = value[part]
        bad = ~((p >= 0) & (p <= 1)).all(axis=1)
        if bad.any():
            raise ValueError(f"probabilities: a value of row {start + first + int(bad.argmax())} is outside [0, 1] or not a number; "
                             "collect this row again, or give logits to of_logits")
        deviation_of((terms[part] & 0xFFFFFFFF).sum(axis=1) / P_ONE, allowed, start + first)


def deviation_of(total: Float, allowed: float, start: int = 0) -> float:
    """Largest deviation of a row's sum from 1; ValueError where it exceeds what is allowed. start: number of the first row."""
    if len(total) == 0:
        return 0.0
    if float(total.min()) <= 0:
        raise ValueError(f"probabilities: row {start + int(total.argmin())} sums to 0; it has no distribution, leave the row out")
    deviations = np.abs(total - 1)
    row = int(deviations.argmax())
    if deviations[row] > allowed:
        raise ValueError(f"probabilities: row {start + row} sums to {float(total[row]):.4f}, further than {allowed:.2g} from 1; "
                         "collect the full distribution, or declare any_sum where the source gives renormalised top-k weights or sigmoid scores")
    return float(deviations[row])


def codes_of(rows: NDArray[Any]) -> Codes:
    """Bit patterns of float16, or of bfloat16 that came as such."""
    return np.ascontiguousarray(rows).view(np.uint16)


def one_pattern(is_float16: bool) -> int:
    """Bit pattern of 1.0: patterns up to it are the probabilities, in order."""
    return 0x3C00 if is_float16 else 0x3F80


def _probability_rows(codes: Codes, terms: Int, whole: bool, sums: Int, top: Int, entropy: Float) -> tuple[int, int, int]:
    """Fills entropy and, if they have as many rows, sums and top; returns the least and largest sum of p and the largest top."""
    least, most, highest, step = 2**62, 0, 0, max(1, min(BLOCK_VALUES // codes.shape[1], HELD_ROWS))
    for start in range(0, len(codes), step):
        part = codes[start : start + step]
        place = start if sums.shape[1] == len(codes) else 0
        here, tops = sums[:, place : place + len(part)], top[place : place + len(part)]
        term = terms[part]
        p = term & 0xFFFFFFFF
        here[0], here[1] = p.sum(axis=1), (term >> 32).sum(axis=1)
        tops[:] = part.max(axis=1).astype(np.int64) << 16
        if whole:
            here[2] = (((p + 8) >> 4) ** 2).sum(axis=1)
            tops -= part.argmax(axis=1)
        entropy[start : start + step] = normalised_entropy(here)
        least, most, highest = min(least, int(here[0].min())), max(most, int(here[0].max())), max(highest, int(tops.max()))
    return least, most, highest


def normalised_entropy(sums: Int) -> Float:
    """ln s + h / s with ln s by its series in (s - 1) / (s + 1), exact to 1e-16 for a sum within 2**-8 of 1: the same bits everywhere."""
    total = np.maximum(sums[0], 1) / P_ONE
    z = (total - 1.0) / (total + 1.0)
    square = z * z
    logarithm = 2.0 * z * (1.0 + square * (1 / 3 + square * (1 / 5 + square * (1 / 7))))
    out: Float = np.maximum(logarithm + sums[1] / H_ONE / total, 0.0)
    return out


@cache
def values(is_float16: bool) -> Float:
    """Value of every pattern."""
    patterns = np.arange(PATTERNS, dtype=np.uint32)
    with np.errstate(invalid="ignore"):
        if is_float16:
            return patterns.astype(np.uint16).view(np.float16).astype(np.float64)
        return (patterns << 16).view(np.float32).astype(np.float64)


@cache
def probability_terms(is_float16: bool) -> Int:
    """Of every pattern, 2**32 x fixed -p ln p + fixed p: one look-up adds both; 0 for patterns that are no probability."""
    p = np.zeros(PATTERNS)
    count = one_pattern(is_float16) + 1
    p[:count] = values(is_float16)[:count]
    h = np.zeros(PATTERNS)
    np.multiply(-p, np.log(p, where=p > 0, out=np.zeros(PATTERNS)), out=h)
    return (np.rint(h * H_ONE).astype(np.int64) << 32) + np.rint(p * P_ONE).astype(np.int64)


def _rows(given: ArrayLike, name: str) -> tuple[NDArray[Any], tuple[int, ...]]:
    rows = np.asarray(given)
    if rows.ndim == 0 or rows.shape[-1] == 0:
        raise ValueError(f"{name}: shape {rows.shape}; rows have one value per expert")
    if rows.dtype not in (np.float16, np.uint16, np.float32, np.float64):
        raise ValueError(f"{name}: {rows.dtype}; give float16, float32, float64, or bfloat16 viewed as uint16")
    if rows.shape[-1] > MOST_EXPERTS and rows.dtype in (np.float16, np.uint16):
        rows = values(rows.dtype == np.float16)[codes_of(rows)]
    return rows.reshape(-1, rows.shape[-1]), rows.shape[:-1]


def _wide_sums(rows: NDArray[Any], first_row: int) -> tuple[Float, Float, Float, Float, Int]:
    p = rows.astype(np.float64)
    fine = (p >= 0) & np.isfinite(p)
    if not fine.all():
        row = first_row + int(np.flatnonzero(~fine.all(axis=1))[0])
        raise ValueError(f"probabilities: a value of row {row} is below 0 or not a number; collect this row again, or give logits to of_logits")
    h = -p * np.log(p, where=p > 0, out=np.zeros_like(p))
    return p.sum(axis=1), h.sum(axis=1), (p * p).sum(axis=1), p.max(axis=1), p.argmax(axis=1)


def check_logits(x: NDArray[Any], masked: bool, number: Int | None = None) -> None:
    """ValueError naming the first row with a logit that has no softmax; number: of each row, if not its place."""
    if np.isfinite(x).all():
        return
    for bad, why in (((np.isnan(x) | (x == np.inf)).any(axis=1), "is NaN or +inf; collect this row again"),
                     (~np.bool_(masked) & (x == -np.inf).any(axis=1), "is -inf, but no masking is declared; declare masked, or collect it again"),
                     ((x == -np.inf).all(axis=1), "is -inf, as all of the row are; it has no distribution, leave the row out")):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise ValueError(f"logits: a logit of row {row if number is None else number[row]} {why}")


def _softmax(x: Float) -> tuple[Float, Float, Float, Int]:
    """By the definition, shifted by the row's maximum."""
    first = x.argmax(axis=1)
    below = x - x[np.arange(len(x)), first][:, None]
    weight = np.exp(below)
    total = weight.sum(axis=1)
    spent = (weight * np.where(weight > 0, below, 0.0)).sum(axis=1)
    return np.maximum(np.log(total) - spent / total, 0.0), (weight * weight).sum(axis=1) / total**2, 1 / total, first


@cache
def logit_terms(is_float16: bool) -> Int:
    """Of every pattern, 2**32 x the float32 pattern of its exponential + fixed (value + LARGEST_LOGIT); 0 where beyond LARGEST_LOGIT."""
    x = values(is_float16)
    held = np.abs(x) <= LARGEST_LOGIT
    x = np.where(held, x, 0.0)
    exponential = np.exp(x).astype(np.float32).view(np.int32).astype(np.int64)
    return np.where(held, (exponential << 32) + np.rint((x + LARGEST_LOGIT) * LOGIT_ONE).astype(np.int64), 0)


@cache
def logit_keys(is_float16: bool) -> tuple[NDArray[np.uint16], int, int, int]:
    """Order of every pattern by value, its zeros equal; and the orders of -inf, -LARGEST_LOGIT and LARGEST_LOGIT."""
    patterns = np.arange(PATTERNS)
    keys = np.where(patterns & 0x8000, 0xFFFF - patterns, patterns + 0x8000)
    keys[0x8000] = keys[0]
    x = values(is_float16)
    least, below, above = (int(keys[np.flatnonzero(x == limit)[0]]) for limit in (-np.inf, -LARGEST_LOGIT, LARGEST_LOGIT))
    return keys.astype(np.uint16), least, below, above


def _half_logits(rows: NDArray[Any], masked: bool, backend: Backend | None) -> tuple[Float, Float, Float, Int]:
    codes, is_float16 = codes_of(rows), rows.dtype == np.float16
    sums, top = np.empty((3, len(codes)), np.int64), np.empty(len(codes), np.int64)
    kernel = _kernel("sum_logits", codes.size, backend) or _sum_logits
    some_masked = kernel(codes, logit_terms(is_float16), *logit_keys(is_float16), sums, top)
    wide = np.flatnonzero((sums[0] < 0) | (some_masked and not masked))
    check_logits(values(is_float16)[codes[wide]], masked, wide)
    sums[0, wide] = 1
    total = sums[0] / WEIGHT_ONE
    parts = (np.maximum(np.log(total) + sums[1] / LOGIT_ONE / sums[0], 0.0), sums[2] / WEIGHT_SQUARE_ONE / total**2, 1 / total,
             -top & (PATTERNS - 1))
    for part, exact in zip(parts, _softmax(values(is_float16)[codes[wide]])):
        part[wide] = exact
    return parts


def _sum_logits(codes: Codes, terms: Int, keys: NDArray[np.uint16], least: int, below: int, above: int, sums: Int, top: Int) -> bool:
    """Sums [3, N] of w = exp(x - max), w (max - x) and w^2; -1 for a row to be taken otherwise. Returns whether a logit is -inf."""
    step, some_masked = max(1, BLOCK_VALUES // codes.shape[1]), False
    for start in range(0, len(codes), step):
        here, part = slice(start, start + step), codes[start : start + step]
        key = keys[part].astype(np.int64)
        largest, first = key.max(axis=1), key.argmax(axis=1)
        top[here] = (largest << 16) - first
        some_masked |= bool((key == least).any())
        kept = (largest <= above) & (largest > least) & (np.where(key == least, PATTERNS, key).min(axis=1) >= below)
        sums[:, here] = np.where(kept, 0, np.array([[-1], [0], [0]]))
        term = terms[part[kept]]
        exponential, value = (term >> 32).astype(np.int32).view(np.float32), term & 0xFFFFFFFF
        highest = (np.arange(len(term)), first[kept])
        weight = (exponential * (np.float32(WEIGHT_ONE) / exponential[highest])[:, None]).astype(np.int64)
        sums[0, here][kept] = weight.sum(axis=1)
        sums[1, here][kept] = (weight * (value[highest][:, None] - value)).sum(axis=1)
        sums[2, here][kept] = (((weight + 128) >> 8) ** 2).sum(axis=1)
    return some_masked


def _kernel(name: str, n_values: int, backend: Backend | None) -> Callable[..., Any] | None:
    chosen = backend or choose_backend(n_values, 0 if numba_loaded() else COMPILED_FROM)
    return compiled(name, "compiled_halves") if chosen == "numba" else None
