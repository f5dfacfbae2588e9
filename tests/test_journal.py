"""The journal: what is in it comes out again, torn and damaged lines do not."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import WorkspaceError
from curation.journal import Journal

ENTRIES = [{"row": {"id": str(i), "response": f"line\n{i} ✓"}} for i in range(5)]


def write(path: Path, count: int = 5) -> bytes:
    with Journal(path) as journal:
        for entry in ENTRIES[:count]:
            journal.append(entry)
    return path.read_bytes()


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    write(tmp_path / "j")
    with Journal(tmp_path / "j") as journal:
        assert journal.read() == (ENTRIES, 0)


@settings(max_examples=40)
@given(data=st.data())
def test_a_journal_cut_anywhere_keeps_every_whole_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    whole = write(path)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    with Journal(path) as journal:
        kept = whole[:cut].count(b"\n")
        assert journal.read() == (ENTRIES[:kept], 0)
        journal.append(ENTRIES[4])
        assert journal.read() == ([*ENTRIES[:kept], ENTRIES[4]], 0)


def test_a_line_damaged_in_the_middle_is_counted_and_left_out(tmp_path: Path) -> None:
    lines = write(tmp_path / "j").splitlines(keepends=True)
    lines[2] = lines[2].replace(b"2", b"3")
    (tmp_path / "j").write_bytes(b"".join(lines))
    with Journal(tmp_path / "j") as journal:
        assert journal.read() == ([e for i, e in enumerate(ENTRIES) if i != 2], 1)


def test_a_cleared_journal_is_empty_and_goes_on(tmp_path: Path) -> None:
    write(tmp_path / "j")
    with Journal(tmp_path / "j") as journal:
        journal.clear()
        journal.append(ENTRIES[0])
        assert journal.read() == (ENTRIES[:1], 0)


def test_the_last_answer_is_asked_to_be_on_the_disk_though_no_other_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, real = threading.Event(), os.fsync

    def fsync(handle: int) -> None:
        real(handle)
        asked.set()

    with Journal(tmp_path / "j", fsync_seconds=0.05) as journal:
        monkeypatch.setattr(os, "fsync", fsync)
        journal._synced = float("inf")  # the answer itself finds that it is not yet time
        journal.append(ENTRIES[0])
        assert asked.wait(300)
    assert not [thread for thread in threading.enumerate() if thread.name == "journal"]


def test_a_disk_that_fails_between_two_answers_ends_the_run_at_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    def fsync(handle: int) -> None:
        failed.set()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Journal(tmp_path / "j", fsync_seconds=0.05) as journal:
        monkeypatch.setattr(os, "fsync", fsync)
        journal._synced = float("inf")
        journal.append(ENTRIES[0])
        assert failed.wait(300)
        for _ in range(60_000):
            if journal._failed is not None:
                break
            time.sleep(0.005)
        with pytest.raises(WorkspaceError, match=r"cannot write .*Input/output error"):
            journal.append(ENTRIES[1])


def test_an_answer_of_which_the_disk_took_a_part_does_not_spoil_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "j", 2)
    real = os.write
    with Journal(tmp_path / "j") as journal:
        monkeypatch.setattr("curation.journal.os.write", lambda file, data: real(file, data[:20]))
        with pytest.raises(WorkspaceError, match="only a part"):
            journal.append(ENTRIES[2])
        monkeypatch.undo()
        journal.append(ENTRIES[3])
        assert journal.read() == ([*ENTRIES[:2], ENTRIES[3]], 0)


@pytest.mark.parametrize("left", [0, 30])
def test_an_entry_that_somebody_cut_off_meanwhile_is_an_error(tmp_path: Path, left: int) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.append(ENTRIES[0])
        os.truncate(tmp_path / "j", left)
        with pytest.raises(WorkspaceError, match="there no more"):
            journal.entry_at(0)
