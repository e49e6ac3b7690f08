"""Relevance scores against hand-made tables; the published numbers are in tests/experiments/sources/test_esft.py."""

import numpy as np
import pytest

from analysis.metrics.relevance import gate_score, relevant_experts, token_score


def test_scores_of_two_tokens() -> None:
    np.testing.assert_allclose(token_score([2, 1, 1, 0]), [0.5, 0.25, 0.25, 0])
    np.testing.assert_allclose(gate_score([0.9, 0.2, 0.1, 0.0], 2), [0.45, 0.1, 0.05, 0])


def test_the_fewest_experts_that_reach_the_share() -> None:
    assert relevant_experts([0.1, 0.3, 0.3, 0.3], 0.3, decimals=None).tolist() == [1]
    assert relevant_experts([0.1, 0.3, 0.3, 0.3], 0.31, decimals=None).tolist() == [1, 2]
    assert relevant_experts([0.25, 0.25, 0.25, 0.25], 1.0).tolist() == [0, 1, 2, 3]


def test_rounding_decides_a_near_tie() -> None:
    scores = [0.4, 0.30001, 0.30004]
    assert relevant_experts(scores, 0.5).tolist() == [0, 1]
    assert relevant_experts(scores, 0.5, decimals=None).tolist() == [0, 2]


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1])
def test_a_share_that_cannot_be_reached(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        relevant_experts([0.5, 0.5], share)


def test_undefined_scores_choose_nobody() -> None:
    with pytest.raises(ValueError, match="undefined"):
        relevant_experts(token_score([0, 0]), 0.2)
