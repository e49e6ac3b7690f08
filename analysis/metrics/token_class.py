"""What a token type looks like: its length and its script and leading-space class, the covariates of a partial correlation.

V token type.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from analysis.kernels import Float

SPACE_MARKS = ("\u0120", "\u2581", " ")  # byte-level BPE, SentencePiece, decoded text


def token_length(text: str) -> int:
    """Characters without the mark of a leading space."""
    return len(text.lstrip("".join(SPACE_MARKS)))


def token_class(text: str) -> str:
    """'whitespace', or leading space or not joined with the script of the first character (letters), digit, or symbol."""
    body = text.lstrip("".join(SPACE_MARKS))
    if not body.strip() or body.strip("\u010a\u0109\u010d") == "":
        return "whitespace"
    lead = "space+" if len(body) < len(text) else ""
    first = body[0]
    if first.isdigit():
        return f"{lead}digit"
    if not first.isalpha():
        return f"{lead}symbol"
    return lead + unicodedata.name(first, "OTHER").split()[0].lower()


def covariates(strings: Sequence[str], types: Sequence[int]) -> tuple[Float, Float]:
    """Lengths [m] and class dummies [c - 1, m] of the chosen types; the most common class is the reference."""
    texts = [strings[v] if v < len(strings) else "" for v in types]
    classes = np.array([token_class(t) for t in texts])
    names, sizes = np.unique(classes, return_counts=True)
    rest = [name for name in names if name != names[np.argmax(sizes)]] if len(names) else []
    dummies = np.array([classes == name for name in rest], np.float64).reshape(len(rest), len(texts))
    return np.array([token_length(t) for t in texts], np.float64), dummies
