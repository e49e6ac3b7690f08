"""Gates: why a number that can be computed must not carry a verdict. A gate never changes the number.

E expert, X, Y variable of a joint table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from analysis.estimate import Estimate

TOKENS_PER_CELL = 5  # metrics specification 3.2: N >= 5 Kx Ky
TRANSFER_TOKENS_PER_CELL = 10  # 2.1 B1: N_A >= 10 Kx Ky
DOCUMENT_FLOOR, DOMAIN_FLOOR = 30, 20  # 7: documents per population, per domain
BIAS_SENSITIVE_BITS, ESTIMATOR_GAP_BITS = 0.2, 0.05  # 3.2

NO_DATA = "no_data"
UNUSED_EXPERT = "unused_expert"
SINGLE_CHOICE = "k=1"
UNDERSAMPLED = "undersampled"
ONE_DOCUMENT = "one_document_per_domain"
TOO_FEW_DOCUMENTS = "too_few_documents"
ILL_POSED = "ill_posed"
UNTESTABLE = "untestable"
BIAS_SENSITIVE = "bias_sensitive"
SELECTION_BIASED = "selection_biased"
CONFOUNDED = "confounded"
TOO_FEW_SEEDS = "too_few_seeds"


def active(counts: ArrayLike) -> int:
    """Experts (or symbols) with a count above 0."""
    return int(np.count_nonzero(np.asarray(counts)))


def undersampled(joint: ArrayLike, per_cell: int = TOKENS_PER_CELL, n_tokens: int | None = None) -> str | None:
    """`undersampled` with its numbers where N < per_cell x Kx x Ky (active symbols of each margin), else None.

    n_tokens: N, where the table counts more than one cell per token (all slot pairs of a top-k).
    """
    n = np.asarray(joint, np.float64)
    kx, ky = active(n.sum(axis=-1)), active(n.sum(axis=-2))
    total = int(n.sum()) if n_tokens is None else n_tokens
    if total == 0:
        return f"{NO_DATA}: no token has both choices"
    if total < per_cell * kx * ky:
        return f"{UNDERSAMPLED}: {total} tokens for {kx} x {ky} active experts, {per_cell * kx * ky} needed; collect more documents"
    return None


def few_documents(n_documents: int, floor: int = DOCUMENT_FLOOR) -> str | None:
    """`too_few_documents` below the floor at which an interval means something, else None."""
    if n_documents >= floor:
        return None
    return f"{TOO_FEW_DOCUMENTS}: {n_documents} documents, {floor} needed"


def few_per_domain(documents_D: Sequence[int], floor: int = DOMAIN_FLOOR) -> str | None:
    """`one_document_per_domain` or `too_few_documents` where a domain has fewer documents than the floor, else None."""
    if not len(documents_D) or min(documents_D) == 0:
        return f"{NO_DATA}: a domain without documents"
    if min(documents_D) == 1:
        return f"{ONE_DOCUMENT}: a domain of one document cannot be told from that document"
    if min(documents_D) < floor:
        return f"{TOO_FEW_DOCUMENTS}: {min(documents_D)} documents in the smallest domain, {floor} needed"
    return None


def bias_sensitive(plug_in: float, corrected: float, grassberger: float | None = None) -> str | None:
    """`bias_sensitive` where the correction exceeds 0.2 bits or two estimators differ by more than 0.05, else None."""
    if plug_in - corrected > BIAS_SENSITIVE_BITS:
        return f"{BIAS_SENSITIVE}: the bias correction is {plug_in - corrected:.2f} bits"
    if grassberger is not None and abs(corrected - grassberger) > ESTIMATOR_GAP_BITS:
        return f"{BIAS_SENSITIVE}: jackknife and Grassberger differ by {abs(corrected - grassberger):.2f} bits"
    return None


def gated(estimate: Estimate, *reasons: str | None) -> Estimate:
    """The estimate with the first reason as its gate: the numbers stay, a verdict from them is inconclusive."""
    reason = next((r for r in reasons if r), None)
    return estimate if reason is None or estimate.gate else replace(estimate, gate=reason)
