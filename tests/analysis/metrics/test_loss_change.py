import numpy as np
import pytest

from analysis.metrics.loss_change import loss_change, loss_change_ratio


def test_the_registered_ratio_is_the_estimate_s_plug_in():
    rng = np.random.default_rng(0)
    tokens = rng.integers(10, 50, 40)
    baseline = tokens * 2.0 + rng.normal(0, 1, 40)
    changed = baseline + tokens * 0.1 + rng.normal(0, 1, 40)
    found = loss_change(changed, baseline, tokens)
    assert loss_change_ratio(changed.sum(), baseline.sum(), tokens.sum()) == pytest.approx(found.plug_in)
    assert found.low <= 0.1 <= found.high and np.isnan(loss_change_ratio(0, 0, 0))
