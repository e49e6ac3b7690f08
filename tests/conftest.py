"""Order of the suite: the files that take longest are begun first, so that two processes end together."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
LONGEST = tuple(HERE / name for name in (
    "faults/test_pipeline_kill.py", "experiments/test_pipeline.py", "experiments/test_whole_run.py", "experiments/testbed/test_campaign.py",
    "experiments/testbed/test_training.py", "faults/test_sweep_kill.py", "experiments/test_run_on_trace.py",
    "experiments/test_models_end_to_end.py", "faults/test_mlflow_kill.py", "test_bench.py", "experiments/report/test_write.py",
    "experiments/report/test_atlas_report.py", "analysis/test_embedding.py", "experiments/test_cli.py", "experiments/test_interface.py"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stable: files of LONGEST in their order, then all others as they were collected."""
    for path in LONGEST:
        assert path.exists(), f"{path} is no longer there: correct LONGEST"
    rank = {path: number for number, path in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))
