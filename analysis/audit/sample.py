"""Findings about how much there is: selections too few for the statistics of loads.

E expert.
"""

from __future__ import annotations

import numpy as np

from analysis.audit.flaw import Flaw, flaw
from analysis.audit.observed import Observed
from analysis.kernels import Int
from analysis.registry import find
from analysis.uniform_null import UniformRouting, expected

ENOUGH = 200  # selections per expert: the bias of entropy is below 0.004 bits, the Gini of uniform routing below 0.04
LEAST_BIAS_BITS, LEAST_GINI = 0.03, 0.1  # of uniform routing, below which nobody is misled
MOSTLY = 0.5  # share of what is seen that uniform routing of as many selections would show


def bias_shares(loads: Int, k: int) -> tuple[float, float] | None:
    """Shares of the entropy's deficit and of the Gini that uniform routing would show; None where the sample is large, or empty.

    loads: selections [E], k per token.
    """
    n, e = int(loads.sum()), len(loads)
    if not n or e < 2 or k >= e or n > ENOUGH * e:
        return None
    null = expected(UniformRouting.of(n, e, k))
    p = loads[loads > 0] / n
    deficit, by_chance = np.log2(e) + float((p * np.log2(p)).sum()), np.log2(e) - null["usage_entropy_bits"]
    gini, gini_null = float(find("usage_gini").function(loads)), null["usage_gini"]
    of_entropy = by_chance / deficit if deficit > 0 and by_chance >= LEAST_BIAS_BITS else 0.0
    of_gini = gini_null / gini if gini > 0 and gini_null >= LEAST_GINI else 0.0
    return float(of_entropy), float(of_gini)


def small_sample(seen: Observed) -> Flaw | None:
    """Layers whose entropy deficit or Gini is mostly what uniform routing of as many selections shows."""
    found, worst = [], (0.0, 0.0)
    for one in seen.layers.layers:
        shares = bias_shares(one.loads, one.layer.top_k)
        if shares is not None and max(shares) >= MOSTLY:
            found.append(one.layer.key)
            worst = max(worst, shares)
    if not found:
        return None
    return flaw("small_sample", len(found), len(seen.layers.layers), "layers", f"uniform routing of as many selections has {min(worst[0], 1):.0%} of "
                f"the entropy's deficit and {min(worst[1], 1):.0%} of the Gini that are seen", found)
