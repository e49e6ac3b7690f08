"""Change of a language model's loss when its routing is changed, over the same documents.

D document, G jackknife group.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float, divide
from analysis.estimate import Estimate
from analysis.registry import metric
from analysis.resampling import delete_group_jackknife, group_sums, jackknife_groups

UNIT = "nats per token"


def loss_change(changed_D: NDArray[np.float64], baseline_D: NDArray[np.float64], tokens_D: NDArray[np.int64], *,
                level: float = 0.95) -> Estimate:
    """Mean loss per token with the changed routing minus the baseline's, paired by document.

    changed_D, baseline_D: summed next-token cross-entropy of each document, nats; tokens_D: predicted tokens. Documents must come ordered by
    hash, as the groups are dealt round-robin. Range (-inf, inf), above 0 is harm. Undefined for fewer than two documents with tokens.
    """
    kept = tokens_D > 0
    n = int(kept.sum())
    sizes = {"unit": UNIT, "resampled": "document", "n_units": n, "n": int(tokens_D.sum()), "n_of": "tokens"}
    if n < 2:
        return Estimate.undefined("one document: no spread between documents" if n else "no_data", **sizes)  # type: ignore[arg-type]
    columns = np.stack([(changed_D - baseline_D)[kept], tokens_D[kept].astype(np.float64)])
    groups = jackknife_groups(n)
    found = delete_group_jackknife(group_sums(columns, groups), lambda sums: sums[:, :1] / sums[:, 1:], level=level)
    value, low, high, plug_in, se = (float(one[0]) for one in (found.value, found.low, found.high, found.plug_in, found.se))
    method = f"paired delete-group jackknife, G = {int(groups.max()) + 1}, Student t"
    return Estimate(value, low, high, method=method, level=level, plug_in=plug_in, se=se, **sizes)  # type: ignore[arg-type]


@metric("loss_change", unit=UNIT, bounds=(None, None), undefined="no_data: no predicted tokens",
        source="metrics specification 2.4, harm of the fast path", takes=("whole", "part", "whole"),
        estimator="paired group jackknife")
def loss_change_ratio(changed: ArrayLike, baseline: ArrayLike, tokens: ArrayLike) -> Float:
    """Loss per token with the changed routing minus the baseline's: (changed - baseline) / tokens, above 0 is harm.

    changed, baseline: summed cross-entropy in nats, tokens: predicted tokens, all summed over the same documents [...].
    """
    return divide(np.asarray(changed, np.float64) - np.asarray(baseline, np.float64), tokens)


@metric("held_out_loss", unit=UNIT, bounds=(0.0, None), undefined="no_data: no predicted tokens", source="testbed specification 2",
        takes=("whole", "whole"))
def held_out_loss(nats: ArrayLike, tokens: ArrayLike) -> Float:
    """Next-token loss of a language model on documents it has not learnt from: nats / tokens, at least 0.

    nats: summed cross-entropy; tokens: predicted tokens; both summed over the same documents [...]. NaN without tokens.
    """
    return divide(nats, tokens)
