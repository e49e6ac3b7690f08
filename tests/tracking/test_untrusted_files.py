"""Plain data of pickles of every protocol and of .pt files, old and new, comes back as it was written."""

from __future__ import annotations

import pickle  # noqa: TID251 - writes what is read
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tracking.untrusted import UntrustedError
from tracking.untrusted_files import is_bfloat16, plain_values


def written(path: Path, content: Any, protocol: int) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_plain_data(protocol: int, tmp_path: Path) -> None:
    arrays = [np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.zeros((0, 3), np.float16), np.float32([[1.5, np.nan]]),
              np.array([1, 2], ">i4"), np.array(True), np.arange(10)[::3]]
    plain = {"text": "\u00e9\ud83d", "none": None, "tuple": (1, 2.5, True), "large": -2**62, "inf": float("inf"),
             "list": [np.int64(3), np.float32(0.25)]}
    tables = [Counter({np.int64(5): 3, 6: 1}), OrderedDict(a=1), defaultdict(Counter, {2: Counter({(1, 2): 7})}), defaultdict(int, {1: 2})]
    found = plain_values(written(tmp_path / "x", [arrays, plain, tables], protocol), "pickle")
    for one, was in zip(found[0], arrays, strict=True):
        np.testing.assert_array_equal(one, was)
        assert one.dtype == was.dtype and one.shape == was.shape and not one.flags.writeable
    assert found[1] == {**plain, "list": [3, 0.25]}
    assert found[2] == [{5: 3, 6: 1}, {"a": 1}, {2: {(1, 2): 7}}, {1: 2}]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_tensors_within_a_pickle(protocol: int, tmp_path: Path) -> None:
    """As `pickle.dump` writes them: each with its storage in the layout of torch before 1.6."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = [base.T, base[1:, ::2], torch.arange(3), torch.tensor([True, False]), torch.ones(2, dtype=torch.bfloat16) * 1.5, torch.zeros(0, 4)]
    found = plain_values(written(tmp_path / "x", tensors, protocol), "pickle")
    for one, was in zip(found, tensors, strict=True):
        bits = was.dtype == torch.bfloat16
        assert is_bfloat16(one) == bits
        np.testing.assert_array_equal((one.astype(np.uint32) << 16).view(np.float32) if bits else one, was.float().numpy() if bits else was.numpy())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pt_file_is_what_torch_reads_with_weights_only(zipped: bool, tmp_path: Path) -> None:
    shared = torch.arange(12, dtype=torch.int32).reshape(3, 4)
    content = {"records": [{"a": shared, "b": shared[1], "n": 3}], "scores": (torch.randn(5, dtype=torch.float16), None),
               "p": torch.nn.Parameter(torch.ones(2))}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = plain_values(tmp_path / "x.pt", "pt")
    expected = torch.load(tmp_path / "x.pt", weights_only=True)  # noqa: TID251 - the reference
    np.testing.assert_array_equal(found["records"][0]["a"], expected["records"][0]["a"].numpy())
    np.testing.assert_array_equal(found["records"][0]["b"], expected["records"][0]["b"].numpy())
    np.testing.assert_array_equal(found["scores"][0], expected["scores"][0].numpy())
    np.testing.assert_array_equal(found["p"], expected["p"].detach().numpy())
    assert found["records"][0]["n"] == 3 and found["scores"][1] is None


def test_large_tables_of_numbers(tmp_path: Path) -> None:
    """As Counters of token ids are; two of them, so that one is not taken for the other."""
    tables = [Counter({np.int64(key): key * factor for key in range(1000)}) for factor in (1, -3)]
    assert plain_values(written(tmp_path / "x", [*tables, tables[0]], 4), "pickle") == [*tables, tables[0]]
    with pytest.raises(UntrustedError, match="beyond 64 bits"):
        plain_values(written(tmp_path / "x", dict.fromkeys(range(100), 2**63), 4), "pickle")


def test_fields_that_nobody_asked_for_are_left_in_the_child(tmp_path: Path) -> None:
    content = [{"layer_id": 1, "hidden_states": np.zeros((100, 100))}]
    assert plain_values(written(tmp_path / "x", content, 4), "pickle", ["hidden_states"]) == [{"layer_id": 1}]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UntrustedError, match="No such file"):
        plain_values(tmp_path / "x", "pickle")
