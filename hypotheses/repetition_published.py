"""Mixtral-8x7B's repetitions as published (Jiang et al. 2024, arXiv 2401.04088, Table 5), per cent of neighbouring tokens."""

from __future__ import annotations

from analysis.metrics.repetition import even_chance

LAYERS, N_EXPERTS = (0, 15, 31), 8
# domain: first choice at each layer, first or second choice at each layer
TABLE_5: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "ArXiv": ((14.0, 27.9, 22.7), (46.5, 62.3, 52.9)),
    "DM Mathematics": ((14.1, 28.4, 19.7), (44.9, 67.0, 44.5)),
    "Github": ((14.9, 28.1, 19.7), (49.9, 66.9, 49.2)),
    "Gutenberg": ((13.9, 26.1, 26.3), (49.5, 63.1, 52.2)),
    "PhilPapers": ((13.6, 25.3, 22.1), (46.9, 61.9, 51.3)),
    "PubMed": ((14.2, 24.6, 22.0), (48.6, 61.6, 51.8)),
    "StackExchange": ((13.6, 27.2, 23.6), (48.2, 64.6, 53.6)),
    "Wikipedia": ((14.4, 23.6, 25.3), (49.8, 62.1, 51.8)),
}


def published_kappa(k: int, layer: int) -> list[float]:
    """Repetition beyond even chance of each domain; k: 1 for the first choice, 2 for the first or second; layer: place in LAYERS."""
    chance = even_chance(N_EXPERTS, k)
    return [(cells[k - 1][layer] / 100 - chance) / (1 - chance) for cells in TABLE_5.values()]
