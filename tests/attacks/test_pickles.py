"""No file runs code, changes its reader, or ends the process that asked; each refusal names what was refused."""

from __future__ import annotations

import pickle  # noqa: TID251 - makes the files that are refused elsewhere
import resource
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.attacks import pickles
from tracking import untrusted_files
from tracking.untrusted import UntrustedError
from tracking.untrusted_child import ALLOWED, Array, Dtype, Named, Record, RefusedError
from tracking.untrusted_files import plain_values


@pytest.mark.parametrize("name", pickles.ATTACKS)
def test_a_pickle_that_attacks_is_refused(name: str, tmp_path: Path) -> None:
    make, words = pickles.ATTACKS[name]
    (tmp_path / "x.pkl").write_bytes(make(tmp_path / "canary"))
    with pytest.raises(UntrustedError, match=words) as met:
        plain_values(tmp_path / "x.pkl", "pickle")
    assert str(tmp_path / "x.pkl") in str(met.value)
    assert not (tmp_path / "canary").exists() and sorted(one.name for one in tmp_path.iterdir()) == ["x.pkl"]


def test_the_attack_works_where_nothing_stops_it(tmp_path: Path) -> None:
    """The canary is no dummy."""
    pickle.loads(pickles.by_global("os", "system", tmp_path / "canary"))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", pickles.TORCH_ATTACKS)
def test_a_pt_file_that_attacks_is_refused_or_harmless(name: str, tmp_path: Path) -> None:
    make, words = pickles.TORCH_ATTACKS[name]
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "x.pt"
    path.write_bytes(make(tmp_path / "canary"))
    if words:
        with pytest.raises(UntrustedError, match=words):
            plain_values(path, "pt")
    else:
        assert plain_values(path, "pt") == [1]
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["in", "x.pt"] and not (Path("/") / "canary").exists()


def test_a_hash_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted_files, "CPU_BASE_S", 1)
    (tmp_path / "x.pkl").write_bytes(pickles.hashed_laughs(tmp_path))
    with pytest.raises(UntrustedError, match="CPU time"):
        plain_values(tmp_path / "x.pkl", "pickle")


def test_output_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted_files, "WRITTEN_BASE", 1 << 10)
    monkeypatch.setattr(untrusted_files, "WRITTEN_PER_BYTE", 0)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(np.zeros(1000)))
    with pytest.raises(UntrustedError, match="refused: .*(damaged|would be written)"):
        plain_values(tmp_path / "x.pkl", "pickle")


@pytest.mark.parametrize("pair", ALLOWED, ids=".".join)
def test_build_changes_no_stand_in(pair: tuple[str, str]) -> None:
    """As the unpickler would: by __setstate__, or by attributes of what it was given."""
    found = ALLOWED[pair]
    state = getattr(found, "__setstate__", None)
    assert state is not None
    with pytest.raises((RefusedError, TypeError)):
        state((None, {"__call__": 1}))
    if isinstance(found, type):
        with pytest.raises(RefusedError, match="changes"):
            found.fields = 1


@pytest.mark.parametrize("make", [pickles.changes, pickles.changes_plainly])
@pytest.mark.parametrize("pair", [("numpy.core.numeric", "_frombuffer"), ("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"),
                                  ("collections", "Counter"), ("__main__", "GatingDataPoint")])
def test_build_on_a_name_is_refused_in_the_child(make: Any, pair: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(make(*pair))
    with pytest.raises(UntrustedError, match="changes|TypeError"):
        plain_values(tmp_path / "x.pkl", "pickle")


def test_stand_ins_refuse_what_no_array_is() -> None:
    for make in (lambda: Dtype("V8"), lambda: Dtype(3), lambda: Array().fill((2,), Dtype("f4"), False, b"1234567"), lambda: Named("f")(),
                 lambda: Array().fill((-1,), Dtype("f4"), False, b""), lambda: Record().__setstate__({1: 2})):
        with pytest.raises(RefusedError):
            make()


def whole(protocol: int) -> bytes:
    return pickle.dumps([{"layer_id": 1, "target_routing": np.arange(12, dtype=np.float32).reshape(3, 4), "sample_id": "a_1_layer_1"}] * 2,
                        protocol=protocol)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_every_cut_is_refused(protocol: int, tmp_path: Path) -> None:
    content = whole(protocol)
    for end in np.linspace(1, len(content) - 1, 6).astype(int):
        (tmp_path / "x.pkl").write_bytes(content[:end])
        with pytest.raises(UntrustedError, match="refused"):
            plain_values(tmp_path / "x.pkl", "pickle")


def test_flipped_bits_never_end_the_parent(tmp_path: Path) -> None:
    content = whole(2)
    rng = np.random.default_rng(0)
    for bit in rng.integers(0, 8 * len(content), 12):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << (bit % 8)
        (tmp_path / "x.pkl").write_bytes(changed)
        try:
            found = plain_values(tmp_path / "x.pkl", "pickle")
        except UntrustedError as error:
            assert str(tmp_path) in str(error)
        else:
            assert found is not None


def test_a_pt_file_of_which_one_bit_changed_in_a_tensor_is_refused(tmp_path: Path) -> None:
    """The archive has a checksum of every member."""
    torch.save({"x": torch.arange(1000)}, tmp_path / "x.pt")
    content = bytearray((tmp_path / "x.pt").read_bytes())
    at = content.index(np.arange(1000).tobytes()) + 80
    content[at] ^= 1
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(UntrustedError, match="CRC"):
        plain_values(tmp_path / "x.pt", "pt")


@pytest.mark.parametrize("claim", [([2], [-(10**10)], 0), ([2], [1], -3), ([-2], [1], 0), ([2, 1], [1], 0), ([2], [1, 0], 0), ([-1, -2], [1, 1], 0)])
def test_the_parent_checks_what_its_child_says_of_a_tensor(claim: tuple[list[int], list[int], int]) -> None:
    """Whatever came over the child, no view leaves the bytes that are there."""
    content = np.arange(4, dtype="<f4").tobytes()
    size, stride, first = claim
    with pytest.raises(UntrustedError, match="contiguous"):
        untrusted_files._value({"x": ["f4", size, stride, first, 0, 16]}, content)
    assert untrusted_files._value({"x": ["f4", [2, 2], [1, 2], 0, 0, 16]}, content).tolist() == [[0, 2], [1, 3]]


def test_memory_of_the_parent_stays_small(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for make in (pickles.claims_array, pickles.claims_bytes, pickles.claims_memo, pickles.laughs):
        (tmp_path / "x.pkl").write_bytes(make(tmp_path))
        with warnings.catch_warnings(), pytest.raises(UntrustedError):
            plain_values(tmp_path / "x.pkl", "pickle")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # kilobytes
