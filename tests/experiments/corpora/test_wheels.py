import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from experiments.corpora.document import CorpusError
from experiments.corpora.six_domains import READERS
from experiments.corpora.wheels import MAX_MEMBER_BYTES, Wheel, fetch, read_lock


def test_every_reader_has_a_pin_and_every_pin_a_reader() -> None:
    assert {reader.project for reader in READERS.values()} == set(read_lock())
    assert list(READERS)[:6] == ["code", "math", "news", "wiki", "social", "medical"]


def test_a_damaged_lock_line_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "wheels.lock"
    lock.write_text("# comment\nsympy==1.14.0\n")
    with pytest.raises(CorpusError, match=r"wheels\.lock:2: expected 'name==version --hash=sha256:"):
        read_lock(lock)


def test_a_wheel_that_cannot_be_had_is_named_with_the_offline_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # a machine without an index, as pip sees it
    with pytest.raises(CorpusError) as caught:
        fetch(["twisted"], tmp_path / "wheels")
    for part in ("twisted==26.10.0", str(tmp_path / "wheels"), "Offline: run 'pip download", 'name = "jsonl"'):
        assert part in str(caught.value)


def test_a_wheel_of_another_digest_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "twisted-26.10.0-py3-none-any.whl").write_bytes(b"not the pinned bytes")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(CorpusError, match="twisted==26.10.0"):
        fetch(["twisted"], tmp_path)


def test_a_pinned_wheel_is_fetched_once_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        first = fetch(["twisted"], tmp_path)
    except CorpusError as error:
        pytest.skip(f"no package index in reach: {str(error)[:200]}")
    assert hashlib.sha256(first["twisted"].read_bytes()).hexdigest() == read_lock()["twisted"].sha256
    assert [path.name for path in tmp_path.iterdir()] == [first["twisted"].name]  # nothing else was fetched or left
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert fetch(["twisted"], tmp_path) == first
    with Wheel(first["twisted"]) as wheel:
        documents = list(READERS["code"].read(wheel))
    assert len(documents) == 441
    assert not any("/test/" in document.id for document in documents)


def test_a_member_that_claims_too_much_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros", "w") as member:
        for _ in range(MAX_MEMBER_BYTES // 2**20 + 1):
            member.write(bytes(2**20))
    assert os.path.getsize(path) < 2**20
    with Wheel(path) as wheel, pytest.raises(CorpusError, match="claims"):
        wheel.read("zeros")
    with Wheel(path) as wheel, pytest.raises(CorpusError, match="no member 'absent'"):
        wheel.read("absent")
