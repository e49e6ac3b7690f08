from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.synthetic_trace import make_trace
from tracking.layer_cache import layer_major


def test_the_cache_is_the_trace_and_can_be_removed_or_damaged_at_any_time(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "trace", np.random.default_rng(0), 10, ((16, 2), (300, 3), (8, 1)))
    batches = list(trace.batches())
    for attempt in range(3):
        found = layer_major(trace)
        for layer in range(3):
            expected = np.concatenate([batch.ids[layer] for batch in batches])
            assert np.array_equal(found.ids[layer], expected) and found.ids[layer].dtype == expected.dtype
        assert np.array_equal(found.token_id, np.concatenate([batch.token_id for batch in batches]))
        assert isinstance(found.ids[0], np.memmap)
        with pytest.raises(ValueError):
            found.ids[0][0] = 1
        (directory,) = (trace.directory / "cache").iterdir()
        assert directory.name == trace.digest[:16]
        if attempt == 0:
            path = directory / "ids_TK-01.npy"
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
        else:
            shutil.rmtree(trace.directory / "cache")
    assert trace.verify() == trace.digest
