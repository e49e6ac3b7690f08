from __future__ import annotations

from pathlib import Path

import pytest

from tracking.untrusted import UntrustedError, inside, safe_name


def test_paths_inside_are_resolved(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/../b/c") == tmp_path.resolve() / "b" / "c"
    assert inside(tmp_path, tmp_path / "x") == tmp_path.resolve() / "x"


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a\0b"])
def test_paths_that_lead_outside_are_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(UntrustedError):
        inside(tmp_path, path)


def test_a_link_that_leads_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with pytest.raises(UntrustedError, match="leads outside"):
        inside(tmp_path / "root", "link/x")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "CON", "nul.txt", "a\nb", "x" * 300, "-rf", "ends.", "a b", "\u202ex", ".hidden"])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(UntrustedError, match="run "):
        safe_name(name, "run")


@pytest.mark.parametrize("name", ["var-quick-1a2b3c4d", "h01", "a.b_c-2"])
def test_plain_names_pass(name: str) -> None:
    assert safe_name(name, "run") == name
