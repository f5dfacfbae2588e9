"""What is paid for is on the disk in the ledger before the journal lets it go, as far as a program can see to."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from curation.damage import find_damage, repair
from curation.durable import settle
from curation.errors import WorkspaceError
from curation.journal import Journal, journal_path
from curation.ledger import Ledger
from curation.streaming import run_stream
from curation.workspace import Workspace
from tests.test_streaming import Doubling, expected, inputs, kept


class Watched:
    """The calls that ask the disk for something, in their order."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.synced: list[int] = []
        """Inodes."""
        self.unsettled: list[set[str]] = []
        """At each emptying of the journal: what of the tables was not on the disk."""
        self._fsync, self._ftruncate = os.fsync, os.ftruncate
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "ftruncate", self.ftruncate)

    def fsync(self, handle: int) -> None:
        self._fsync(handle)
        self.synced.append(os.fstat(handle).st_ino)

    def ftruncate(self, handle: int, length: int) -> None:
        tables = [self.folder / "tables", *(self.folder / "tables").rglob("*")]
        self.unsettled.append({str(path) for path in tables if path.stat().st_ino not in self.synced})
        self._ftruncate(handle, length)


def test_data_files_log_entries_and_folders_are_on_the_disk_before_the_journal_is_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path / "w", monkeypatch)
    monkeypatch.setattr("curation.streaming._ROWS_IN_JOURNAL", 4)
    monkeypatch.setattr("curation.ledger._FILES_BEFORE_COMPACTION", 2)
    ledger = Ledger(Workspace(tmp_path / "w"))
    run_stream(Doubling(failing=frozenset({3})), inputs(22), ledger)
    assert len(watched.unsettled) == 6
    assert watched.unsettled == [set()] * 6
    assert any((tmp_path / "w" / "tables" / "rewards" / "_delta_log").glob("*.checkpoint.parquet"))
    journal = journal_path(ledger.workspace, Doubling.key)
    assert {journal.stat().st_ino, journal.parent.stat().st_ino} <= set(watched.synced)


def test_what_a_killed_run_appended_and_did_not_settle_is_settled_before_its_journal_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(Workspace(tmp_path / "w"))
    run_stream(Doubling(), inputs(6), ledger)
    rows = ledger.workspace.read("rewards").drop("model").to_dicts()
    with Journal(journal_path(ledger.workspace, Doubling.key)) as journal:
        for row in rows:
            journal.append({"row": row})
    watched = Watched(tmp_path / "w", monkeypatch)
    again = Doubling()
    run_stream(again, inputs(6), Ledger(Workspace(tmp_path / "w")))
    assert not again.calls
    assert watched.unsettled == [set()]


def test_a_disk_that_cannot_say_so_leaves_the_journal_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    parquet = set[int]()

    def failing(handle: int) -> None:
        found = {p.stat().st_ino for p in (tmp_path / "w" / "tables").rglob("*.parquet")}
        parquet.update(found)
        if os.fstat(handle).st_ino in found:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(handle)

    ledger = Ledger(Workspace(tmp_path / "w"))
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing)
        with pytest.raises(WorkspaceError, match=r"tables/rewards is on the disk: .*Input/output error"):
            run_stream(Doubling(), inputs(9), ledger)
    assert parquet
    with Journal(journal_path(ledger.workspace, Doubling.key)) as journal:
        assert len(journal.read().entries) == 9
    again = Doubling()
    assert run_stream(again, inputs(9), Ledger(Workspace(tmp_path / "w"))).computed == 0
    assert not again.calls
    assert kept(ledger) == expected(range(9))


def test_nothing_is_asked_of_the_disk_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path / "w")
    assert settle(tmp_path / "w" / "tables" / "rewards") == -1
    run_stream(Doubling(), inputs(4), Ledger(workspace))
    path = Path(workspace.table_path("rewards"))
    watched = Watched(tmp_path / "w", monkeypatch)
    assert settle(path, after=0) == 0
    assert watched.synced == []
    assert settle(path) == 0
    assert len(watched.synced) == 6


def test_rows_of_a_merged_file_that_is_torn_are_found_in_the_files_that_it_stood_for(tmp_path: Path) -> None:
    ledger = Ledger(Workspace(tmp_path / "w"))
    for rows in (5, 10, 15):
        run_stream(Doubling(), inputs(rows), ledger)
    table = Path(ledger.workspace.table_path("rewards"))
    before = set(table.rglob("part-*.parquet"))
    ledger.compact(Doubling.key, always=True)
    (merged,) = set(table.rglob("part-*.parquet")) - before
    merged.write_bytes(merged.read_bytes()[:100])
    assert [damage.table for damage in find_damage(ledger.workspace)] == ["rewards"]
    (said,) = repair(ledger.workspace)
    assert "15 rows of older files were added again" in said
    assert kept(Ledger(Workspace(tmp_path / "w"))) == expected(range(15))
