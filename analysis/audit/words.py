"""What the meta's words say of weights."""

from __future__ import annotations

import re
from typing import Literal

Sum = Literal["one", "below", "unknown"]


def declared_sum(weights_mean: str) -> tuple[Sum, float]:
    """What the weights of a row sum to by the meta's words, and the factor on them: one, below (a part of a softmax), or unknown."""
    text = weights_mean.lower().partition(" (")[0]
    found = re.search(r" x ([0-9.]+)$", text)
    factor = float(found[1]) if found else 1.0
    if ";" in text or " or " in text or "other" in text:
        return "unknown", 1.0
    if re.search(r"not renormali[sz]ed", text):
        return "below", factor
    if "/k" in text or re.search(r"renormali[sz]ed|over the k chosen", text):
        return "one", factor
    return ("below", factor) if text.startswith("softmax") else ("unknown", 1.0)
