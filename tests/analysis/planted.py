"""Documents with known coupling between two layers, for the tests of nulls."""

from __future__ import annotations

import numpy as np

from analysis.kernels import digest64
from analysis.moved_rows import RoutedDocuments


def keys_of(n_documents, prefix="d"):
    return np.array([digest64(f"{prefix}{i}") for i in range(n_documents)], np.uint64)


def sticky_topics(rng, n_documents=40, length=64, n_experts=8, stay=0.6, alpha=0.1, coupling=0.0):
    """x, y: each layer's expert from its document's own law, repeated with probability `stay`; y copies x with probability `coupling`."""
    laws = rng.dirichlet(np.full(n_experts, alpha), (2, n_documents)) if alpha else np.full((2, n_documents, n_experts), 1 / n_experts)
    layers = []
    for law in laws:
        edges = np.cumsum(law, axis=1)
        fresh = (rng.random((n_documents, length, 1)) > edges[:, None, :]).sum(axis=2).clip(0, n_experts - 1)
        renewed = rng.random((n_documents, length)) >= stay
        renewed[:, 0] = True
        last = np.maximum.accumulate(np.where(renewed, np.arange(length), 0), axis=1)
        layers.append(np.take_along_axis(fresh, last, axis=1).reshape(-1))
    x, y = layers
    return x, np.where(rng.random(len(x)) < coupling, x, y)


def documents(rng, layers, n_experts, lengths, **columns):
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    position = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    columns = {"position": position, "keys": keys_of(len(lengths)), **columns}
    return RoutedDocuments(layers, n_experts, starts, **columns)


def reordered(given: RoutedDocuments, order):
    """The same documents in another order."""
    rows = np.concatenate([np.arange(given.starts[d], given.starts[d + 1]) for d in order]).astype(np.int64)
    columns = [None if c is None else c[rows] for c in (given.position, given.token_id)]
    return RoutedDocuments([f[rows] for f in given.first_L], given.n_experts, np.concatenate([[0], np.cumsum(given.lengths[order])]),
                           given.keys[order], *columns, None if given.group is None else given.group[order])
