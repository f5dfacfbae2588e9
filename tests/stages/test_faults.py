"""Disks that are full or read-only: one clear line, nothing published that is wrong, and a rerun that goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.errors import WorkspaceError
from curation.workspace import Workspace
from tests.stages.conftest import ROOT, Place, sentences


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def command(place: Place, workspace: Path) -> subprocess.CompletedProcess[str]:
    arguments = ["-m", "curation.cli", "run", str(place.folder / "recipe.yaml"), "--workspace", str(workspace)]
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return errors[0]


def test_a_full_disk_stops_with_one_line_and_a_rerun_goes_on(place: Place, small_disk: Path) -> None:
    place.write(sentences(40), generation=[], policy=None, rewards=[], selection={}, pairs={})
    done = command(place, small_disk / "w")
    assert done.returncode == 1
    assert "cannot write" in one_line(done) or "cannot publish" in one_line(done)
    assert "No space left" in one_line(done)
    remount(small_disk, "size=64m")
    again = command(place, small_disk / "w")
    assert again.returncode == 0, again.stderr
    assert len(list((small_disk / "w" / "datasets").rglob("*.parquet"))) >= 3


def test_a_read_only_disk_stops_with_one_line(place: Place, small_disk: Path) -> None:
    place.write(sentences(4), generation=[], policy=None, rewards=[], selection={}, pairs={})
    remount(small_disk, "ro")
    done = command(place, small_disk / "w")
    assert done.returncode == 1
    assert "Read-only file system" in one_line(done)


def test_a_disk_that_turns_read_only_under_a_run_is_the_error_that_is_raised(small_disk: Path) -> None:
    space = Workspace(small_disk / "w")

    def write_where_nothing_can_be_written() -> None:
        with space.lock():
            subprocess.run(["mount", "--bind", space.url, space.url], check=True)
            subprocess.run(["mount", "-o", "remount,ro,bind", space.url], check=True)
            space.write_bytes(b"x", "note")

    try:
        with pytest.raises(WorkspaceError, match=r"cannot write .*/w/note: .*Read-only file system"):
            write_where_nothing_can_be_written()
    finally:
        subprocess.run(["umount", "--lazy", space.url], check=False, capture_output=True)
    with space.lock():
        space.write_bytes(b"x", "note")


@pytest.mark.parametrize(
    "work", ["compact('rejects')", "delete('rejects', \"row_id < '2'\")", "append('rejects', rows)"]
)
def test_a_table_for_which_there_is_no_room_is_a_workspace_error_and_stays_whole(tmp_path: Path, work: str) -> None:
    code = f"""
import resource
from curation.errors import WorkspaceError
from curation.workspace import Workspace
from tests.test_workspace import rejects
space = Workspace({str(tmp_path)!r})
rows = rejects("a", *map(str, range(40)))
for _ in range(2):
    space.append("rejects", rows)
resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
try:
    space.{work}
except WorkspaceError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout
    assert "File too large" in done.stdout
    assert Workspace(tmp_path).read("rejects").height == 80
