"""Foreign JSON: each refusal gives the byte at which it is found, by hand from the text."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from experiments.readers import ReadError, _json


@pytest.mark.parametrize(("text", "at", "words"), [
    ('{"a": "{\\"a\\":", "b": {"a": 1, "c": [{"z": 2}, {"z": 3, "z": 4}]}}', '"z": 4', "key 'z' occurs twice"),
    ('{"x": "NaN", "y": [1, NaN]}', "NaN]", "NaN is no JSON number"), ('{"x": -Infinity}', "-Inf", "-Infinity is no JSON number"),
    ('{"\u00e9": 1, "\\u00e9": 2}', '"\\u00e9"', "key '\u00e9' occurs twice"), ('{"a": 1', "", "no JSON"),
    ('["\u65e5", ' + "9" * 5000 + "]", "9999", "digits"), ('{"a": [1, 2}', "}", "no JSON"),
])
def test_the_byte_of_what_is_wrong(text: str, at: str, words: str) -> None:
    content = text.encode()
    place = content.index(at.encode()) if at else len(content)
    with pytest.raises(ReadError, match=words) as met:
        _json.parse(content, "file")
    assert f"file: byte {place}: " in str(met.value)


def test_depth_is_bounded() -> None:
    with pytest.raises(ReadError, match="file: byte 70: nested deeper than 64"):  # the first bracket, six bytes, and 63 brackets before it
        _json.parse(b'["[]", ' + b"[" * 10**5, "file")


def test_equal_keys_of_two_objects_are_two() -> None:
    assert _json.parse(b'[{"a": 1}, {"a": {"a": 2}}]', "file") == [{"a": 1}, {"a": {"a": 2}}]


def test_a_line_without_an_end_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_json, "LINE_LIMIT", 1000)
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n{"b": "' + b"x" * 10**6)
    with pytest.raises(ReadError, match="line 2, byte 9: longer than 1,000 bytes"):
        list(_json.lines(tmp_path / "a.jsonl"))


def test_a_text_without_an_end_takes_no_time_and_hides_no_depth() -> None:
    began = time.process_time()
    for content in (b"[" * 65 + b'"' + b'\\"' * 10**6, b'["]]]]", ' * 65, b'["' + b'\\"' * 10**6 + b'\\\n', b"[" * 64 + b"]" * 64):
        try:
            assert _json.parse(content, "file")
        except ReadError as error:
            assert "file: byte" in str(error)
    assert time.process_time() - began < 5
    assert _json.parse(b'["[[[[[[[[[[", ' * 60 + b"1" + b"]" * 60, "file")


def test_the_memory_at_hand_bounds_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_bytes(b"[" + b"[], " * 2**19 + b"1]")
    assert len(_json.load(tmp_path / "a.json")) == 2**19 + 1
    monkeypatch.setattr(_json, "at_hand", lambda: 32 << 20)
    with pytest.raises(ReadError, match="more than 1,048,576 for one JSON document with the memory at hand"):
        _json.load(tmp_path / "a.json")
    with pytest.raises(ReadError, match="line 1, byte 0: longer than 1,048,576 bytes"):
        list(_json.lines(tmp_path / "a.json"))
    (tmp_path / "a.json").write_bytes(b"[" + b"[], " * 2**10 + b"1]")
    assert _json.load(tmp_path / "a.json")[-1] == 1
