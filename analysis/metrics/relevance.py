"""How relevant an expert is to a task, by its share of selections or of gate weight (Wang et al. 2024, ESFT).

E expert, T token, k experts chosen per token.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float, divide
from analysis.registry import metric

PUBLISHED_DECIMALS = 4  # scores are printed, and experts chosen, at four decimals


@metric("token_score", unit="share of selections", bounds=(0.0, 1.0), undefined="no_data: no selections",
        source="Wang et al. 2024 (ESFT), token selection ratio", takes=("counts_E",))
def token_score(counts_E: ArrayLike) -> Float:
    """Share of all selections that an expert takes: n_e / (k T); sums to 1 over experts.

    counts_E: selections [..., E]; gives [..., E]; NaN without selections.
    """
    n = np.asarray(counts_E, np.float64)
    return divide(n, n.sum(axis=-1, keepdims=True))


@metric("gate_score", unit="gate weight per token", bounds=(0.0, None), undefined="no_data: no tokens",
        source="Wang et al. 2024 (ESFT), average gate score", takes=("weights_E", "tokens"))
def gate_score(weights_E: ArrayLike, tokens: ArrayLike) -> Float:
    """Mean combine weight an expert gets per token, 0 where it is not chosen: sum_t w_te / T; sums to the mean weight of the chosen k.

    weights_E: sums of weights [..., E]; tokens: [...]; gives [..., E]; NaN without tokens. Weights are as the model used them: where
    they are not renormalised over the k chosen, the scores of a layer do not sum to 1.
    """
    return divide(weights_E, np.asarray(tokens, np.float64)[..., None])


def relevant_experts(scores_E: ArrayLike, share: float, *, decimals: int | None = PUBLISHED_DECIMALS) -> NDArray[np.int64]:
    """Fewest experts, by falling score, whose scores sum to at least `share`; ties by id.

    decimals: scores are rounded first, as the published selection does (it reads its own printed table), which decides near ties;
    None takes them as they are. ValueError for an undefined score, or a share that all experts together do not reach.
    """
    scores = np.asarray(scores_E, np.float64)
    if np.isnan(scores).any():
        raise ValueError("scores_E: undefined scores; a layer without tokens has no relevant experts")
    scores = scores if decimals is None else np.round(scores, decimals)
    order = np.argsort(-scores, kind="stable")
    reached = np.cumsum(scores[order])
    if not 0 < share <= reached[-1]:
        raise ValueError(f"share = {share:g}: give more than 0 and at most {reached[-1]:g}, which all experts reach together")
    chosen: NDArray[np.int64] = order[: int(np.searchsorted(reached, share)) + 1]
    return chosen
