import numpy as np
import pytest

from analysis.permutation import p_value


def test_p_counts_the_observed_value_and_ties():
    assert p_value(2.0, [1.0, 2.0, 3.0]) == 0.75
    np.testing.assert_array_equal(p_value([9.0, 0.0, np.nan], [[1.0, 1.0, 1.0]] * 19), [0.05, 1.0, np.nan])
    np.testing.assert_array_equal(p_value([9.0, 0.0], [[1.0, np.nan], [1.0, 1.0]]), [1 / 3, np.nan])
    assert p_value(1.0 + 1e-12, [1.0]) == 0.5 and p_value(1.0 + 1e-12, [1.0], 1e-9) == 1.0


def test_p_is_never_zero_unless_every_arrangement_was_seen():
    assert p_value(9.0, np.arange(4.0)) == 1 / 5 and p_value(9.0, np.arange(4.0), exact=True) == 0
    assert p_value(2.0, [1.0, 2.0 - 1e-13, 3.0, 0.0], 1e-9, exact=True) == 2 / 4
    with pytest.raises(ValueError, match="at least one draw"):
        p_value(1.0, [])
