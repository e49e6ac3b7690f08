import numpy as np
import pytest

from analysis.counts import CountPlan, accumulate
from analysis.metrics.fastpath import ranked_experts
from analysis.metrics.threshold_scan import evaluate_point, threshold_grid, threshold_scan
from tests.references.memory_trace import Shape, sample_trace

TRACE, _ = sample_trace(6, Shape(n_test=20, n_calibration=20, n_train=3, length=40, vocabulary=25, n_layers=3))
CALIBRATION, TEST = (accumulate(TRACE, CountPlan(split, "0", np.full((1, 3), 0.5))) for split in ("calibration", "test"))


def brute(f0, h0, k, scored):
    coverage, hits, covered = [], 0.0, 0
    for layer in range(3):
        mean = CALIBRATION.mean_entropy_LV[layer]
        chosen = [v for v in np.flatnonzero(CALIBRATION.n_V) if CALIBRATION.n_V[v] >= f0 and mean[v] < h0 * np.log(8)]
        coverage.append(sum(scored.n_V[v] for v in chosen) / scored.n_tokens)
        for v in chosen:
            experts = ranked_experts(CALIBRATION.choices[layer], np.array([v]))[0][0, :k]
            hits += scored.choices[layer].dense(scored.choices[layer].n, np.array([v]))[0, experts].sum() / k
            covered += scored.n_V[v]
    return np.mean(coverage), hits / covered if covered else np.nan


@pytest.mark.parametrize("scored", [CALIBRATION, TEST])
def test_points_are_those_of_plain_loops(scored):
    rng = np.random.default_rng(0)
    f0, h0, k = rng.uniform(1, 60, 40), rng.uniform(0, 1, 40), rng.integers(1, 3, 40)
    coverage, agreement = evaluate_point(threshold_scan(CALIBRATION, scored), f0, h0, k)
    expected = np.array([brute(*point, scored) for point in zip(f0, h0, k)])
    assert coverage == pytest.approx(expected[:, 0], abs=1e-12) and agreement == pytest.approx(expected[:, 1], abs=1e-12, nan_ok=True)


def test_the_grid_is_the_points_at_its_corners_boundaries_included():
    counts = np.unique(CALIBRATION.n_V[CALIBRATION.n_V > 0])[::4].astype(float)
    shares = np.unique(threshold_scan(CALIBRATION).share[0])[::5]  # means that occur: strict < must exclude them
    coverage, agreement = threshold_grid(CALIBRATION, counts, shares)
    scan = threshold_scan(CALIBRATION)
    for i, f0 in enumerate(counts):
        for j, h0 in enumerate(shares):
            one = scan.points([f0, f0], [h0, h0], [1, 2])
            assert coverage[i, j] == pytest.approx(one[0], abs=1e-12) and agreement[i, j] == pytest.approx(one[1], abs=1e-12, nan_ok=True)


def test_coverage_grows_with_entropy_and_falls_with_frequency():
    coverage, _ = threshold_grid(CALIBRATION, [1, 5, 20, 80], np.linspace(0.05, 1.01, 20))
    assert (np.diff(coverage, axis=0) <= 0).all() and (np.diff(coverage, axis=1) >= 0).all()
    assert coverage[0, -1, 0] == pytest.approx(1.0)


@pytest.mark.parametrize("k", [0, 3, 1.5])
def test_a_table_of_more_experts_than_the_router_chooses_is_refused(k):
    with pytest.raises(ValueError, match="1 to 2 experts"):
        threshold_scan(CALIBRATION).points(10, 0.5, k)


def test_unordered_thresholds_are_refused():
    with pytest.raises(ValueError, match="ascending"):
        threshold_grid(CALIBRATION, [5, 1], [0.1, 0.2])
