"""A pipe in place of a file, or among files, is refused and never waited for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from experiments import inspecting, readers
from experiments.importing import Reading, whole
from experiments.readers import ReadError, ReadOptions
from experiments.readers.contract import refuse_irregular
from tests.synthetic_trace import make_trace

NAMES = ("a_results.jsonl", "x.npy", "x.npz", "data.pkl", "expert_distribution_recorder_1.pt", "sub/traces/token-00000.json",
         "manifest.json", "x.json")


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_in_a_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        for reading in (readers.recognise, whole, inspecting.opened):
            with pytest.raises(ReadError, match=f"{name}: a pipe, socket or device"):
                reading(path)


@pytest.mark.parametrize("name", readers.formats())
def test_a_format_that_is_named_does_not_wait_either(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    with pytest.raises(ReadError, match="a pipe, socket or device"):
        whole(tmp_path, Reading(ReadOptions(), name))


def test_a_pipe_behind_a_link_and_links_in_circles(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "circle").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "nowhere").symlink_to(tmp_path / "gone")
    refuse_irregular(tmp_path / "a")
    os.mkfifo(tmp_path / "b" / "x")
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b")
    with pytest.raises(ReadError, match="other/x: a pipe"):
        refuse_irregular(tmp_path / "a")


def test_a_pipe_in_a_trace_of_ours(tmp_path: Path) -> None:
    make_trace(tmp_path, np.random.default_rng(0), 10)
    shard = next(tmp_path.glob("shard-*.parquet"))
    shard.unlink()
    os.mkfifo(shard)
    for reading in (whole, inspecting.opened):
        with pytest.raises(ReadError, match="a pipe, socket or device"):
            reading(tmp_path)
