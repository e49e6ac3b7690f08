"""A full, limited, or read-only disk: named with bytes needed and free, earlier shards untouched, and resuming succeeds."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults import working
from tests.faults.children import ROOT, end, start
from tracking import ledger
from tracking.atomic import StorageError, write_bytes
from tracking.run import Run
from tracking.trace_manifest import Manifest
from tracking.traces import StoredTrace


@contextmanager
def small_disk(path: Path, kilobytes: int, options: str = "") -> Iterator[None]:
    """A tmpfs of so many kB at `path`."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k{options}", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def can_mount(path: Path) -> bool:
    try:
        with small_disk(path / "probe", 64):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def file_limit(n_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond `n_bytes`; pyarrow and write() then see errno 27."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_beyond_the_limit_is_named_and_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_bytes(path, b"old")
    with file_limit(4096):
        with pytest.raises(OSError):  # the limit bites at all
            (tmp_path / "plain").write_bytes(bytes(10_000))
        with pytest.raises(StorageError, match=r"report.html: larger than the limit .*: 10,000 bytes needed, [\d,]+ free; make room"):
            write_bytes(path, bytes(10_000))
    assert path.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["plain", "report.html"]


def test_a_shard_beyond_the_limit_leaves_the_earlier_ones_and_resumes(tmp_path: Path) -> None:
    directory = tmp_path / "trace"
    end(start("collect", directory, "shard.write:4"))
    shards = {name: (directory / name).read_bytes() for name in ("shard-00000.parquet", "shard-00001.parquet", "shard-00002.parquet")}
    with file_limit(8_000), pytest.raises(StorageError, match=r"(shard-00003.parquet|manifest.json).*bytes needed"):
        working.collect(directory)
    assert shards == {name: (directory / name).read_bytes() for name in shards}
    assert len(Manifest.read(directory).shards) == 3
    assert working.collect(directory) == working.collect(tmp_path / "undisturbed")


def test_a_full_disk_is_named_and_after_space_is_made_resuming_succeeds(tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("mounting needs root; the file limit above stands for it")
    disk = tmp_path / "disk"
    with small_disk(disk, 256):
        with pytest.raises(OSError):  # it is really small
            (disk / "plain").write_bytes(bytes(500_000))
        filler = disk / "plain"
        filler.write_bytes(bytes(150_000))
        with pytest.raises(StorageError, match=r"no space left: [\d,]+ bytes needed, [\d,]+ free; make room there, then resume"):
            working.collect(disk / "trace")
        whole = Manifest.read(disk / "trace").shards
        assert 0 < len(whole) < working.N_SHARDS
        assert not StoredTrace.open(disk / "trace", finished=False).faults()
        filler.unlink()
        assert working.collect(disk / "trace") == working.collect(tmp_path / "undisturbed")


def test_a_full_disk_takes_no_line_of_the_ledger_away(tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("mounting needs root")
    disk = tmp_path / "disk"
    with small_disk(disk, 16):
        with pytest.raises(StorageError, match="ledger.jsonl: no space left"):
            for number in range(200):
                ledger.record(disk, ledger.Opening(f"r{number}", "var", "c", "p" * 64, "d", "2026"))
        n_lines = ledger.counts(disk)["var"]
        assert n_lines > 10 and (disk / "ledger.jsonl").read_bytes().endswith(b"\n")


def test_a_read_only_root_is_refused_before_any_work(tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("mounting needs root, whom chmod does not stop")
    disk = tmp_path / "disk"
    with small_disk(disk, 64, ",ro"), pytest.raises(StorageError, match="cannot be written .*; make .* writable, or choose another root"):
        Run.open(disk, "run", working.DECLARATION)


AS_NOBODY = """
import os, sys
from pathlib import Path
from tracking.run import Run
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
Run.open(Path(sys.argv[1]), "run", {})
"""


def test_a_directory_without_permission_is_refused_for_an_ordinary_user() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        root = Path(name) / "runs"
        root.mkdir(mode=0o555)
        root.parent.chmod(0o755)
        child = subprocess.run([sys.executable, "-c", AS_NOBODY, str(root)], capture_output=True, text=True, cwd=ROOT)
        assert child.returncode == 1
        assert "StorageError" in child.stderr and "cannot be written (Permission denied)" in child.stderr, child.stderr
        assert os.listdir(root) == []


def test_a_run_directory_that_vanishes_is_named(tmp_path: Path) -> None:
    with Run.open(tmp_path, "run", working.DECLARATION) as current:
        for path in sorted(current.directory.rglob("*"), reverse=True):
            path.unlink()
        current.directory.rmdir()
        with pytest.raises(StorageError, match="is .*run still there"), current.stage("corpus", "-"):
            pass
