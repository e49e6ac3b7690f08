from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from tracking import atomic, kill_points
from tracking.atomic import ContentError, StorageError, read_sealed, sha256_file, write_bytes, write_json, write_sealed, write_text


def test_a_file_is_replaced_whole_with_nothing_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "findings.json"
    write_bytes(path, b"first")
    write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["findings.json"]


def test_a_temporary_file_is_private_and_beside_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(name: str) -> None:
        if name == "file.write":
            seen.extend((path.name, stat.S_IMODE(path.stat().st_mode)) for path in tmp_path.iterdir())

    monkeypatch.setattr(atomic, "kill_point", look)
    write_bytes(tmp_path / "x", b"content")
    ((name, mode),) = seen
    assert name.startswith("x.") and name.endswith(".part") and mode == 0o600
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~atomic._UMASK


def test_an_exception_on_the_way_leaves_the_old_file_and_no_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "x", b"old")
    for point in ("file.write", "file.sync"):
        def interrupt(name: str, at: str = point) -> None:
            if name == at:
                raise KeyboardInterrupt

        monkeypatch.setattr(atomic, "kill_point", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_bytes(tmp_path / "x", b"new")
        assert (tmp_path / "x").read_bytes() == b"old" and os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_json_never_holds_what_json_has_not(value: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", value)
    assert os.listdir(tmp_path) == []


def test_text_of_any_token_can_be_written(tmp_path: Path) -> None:
    awkward = "half \ud83d, whole \U0001f600, \0, \u202e, <script>"
    write_json(tmp_path / "x.json", {awkward: awkward})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {awkward: awkward}
    write_text(tmp_path / "x.txt", awkward)
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == awkward.replace("\ud83d", "\\ud83d")


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_every_changed_character_of_a_sealed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_sealed(path, {"stage": "collect", "sequence": 12, "nested": {"k": [1, 2.5, None, True]}})
    content = path.read_bytes()
    fields = read_sealed(path, "")
    for index in range(len(content)):
        path.write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1:])
        try:
            assert read_sealed(path, "") == fields, "only a space between tokens may differ"
        except ContentError as error:
            assert str(path) in str(error)


def test_a_sealed_file_that_is_cut_names_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_sealed(path, {"a": 1})
    for length in range(len(path.read_bytes()) - 1):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ContentError, match="state.json: .*; restore it"):
            read_sealed(path, "restore it")
        write_sealed(path, {"a": 1})


def test_a_missing_directory_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="gone/x: No such file or directory; 3 bytes were to be written; is .*gone still there"):
        write_bytes(tmp_path / "gone" / "x", b"abc")


def test_a_name_that_was_not_announced_is_refused() -> None:
    with pytest.raises(KeyError):
        kill_points.kill_point("shard.burn")
    assert {"file.write", "file.sync", "file.rename", "file.directory"} <= set(kill_points.announced())


def test_a_file_is_synced_before_it_is_renamed_and_its_directory_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Power loss cannot be tested here; the order that survives it can."""
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        order.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else f"file of {os.fstat(descriptor).st_size}")
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        order.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_bytes(tmp_path / "x", b"four")
    assert order == ["file of 4", "rename", "directory"]
