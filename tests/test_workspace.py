"""Workspaces: tables, versions, locks and what cannot be used."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import threading
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock
from fsspec.registry import _registry as fsspec_implementations

from curation.errors import CurationError, InputError, WorkspaceError
from curation.file_locks import _locked_elsewhere
from curation.workspace import FORMAT_VERSION, Workspace


def rejects(stage: str, *rows: str) -> pl.DataFrame:
    columns = ("table", "row_id", "rule", "stage", "value", "threshold", "reason")
    values = [("pairs", row, "r", stage, None, None, "because") for row in rows]
    return pl.DataFrame(values, schema=dict.fromkeys(columns, pl.String), orient="row")


def test_a_table_that_was_never_written_reads_as_empty(tmp_path: Path) -> None:
    frame = Workspace(tmp_path).read("pairs")
    assert frame.is_empty()
    assert "chosen_id" in frame.columns


def test_overwrite_changes_the_version_only_with_the_content(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.overwrite("rejects", rejects("a", "1"))
    assert not workspace.overwrite("rejects", rejects("a", "1"))
    assert workspace.version("rejects") == 0
    assert workspace.overwrite("rejects", rejects("a", "2"))
    assert workspace.version("rejects") == 1


def test_overwrite_of_a_part_leaves_the_rest(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.overwrite("rejects", rejects("a", "1", "2"), where=("stage", "a"))
    workspace.overwrite("rejects", rejects("b", "3"), where=("stage", "b"))
    workspace.overwrite("rejects", rejects("a"), where=("stage", "a"))
    assert workspace.read("rejects")["row_id"].to_list() == ["3"]


def test_overwrite_of_a_part_takes_columns_that_an_earlier_version_lacked(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for stage in "ab":
        workspace.overwrite("rejects", rejects(stage, "1"), where=("stage", stage))
    workspace.overwrite("rejects", rejects("a", "1").with_columns(score=1.5), where=("stage", "a"))
    rows = workspace.read("rejects").sort("stage")
    assert rows.select("stage", "score").rows() == [("a", 1.5), ("b", None)]


def test_an_append_follows_what_others_wrote(tmp_path: Path) -> None:
    mine, other = Workspace(tmp_path), Workspace(tmp_path)
    assert mine.append("rejects", rejects("a", "1")) == 0
    assert other.append("rejects", rejects("a", "2")) == 1
    assert mine.version("rejects") == 1
    other.compact("rejects")
    assert mine.append("rejects", rejects("a", "3")) == 3
    assert other.file_count("rejects") == 2
    assert sorted(mine.read("rejects")["row_id"]) == ["1", "2", "3"]


def test_a_table_that_was_removed_and_made_again_is_another_one(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for row in ("1", "2", "3"):
        workspace.append("rejects", rejects("a", row))
    shutil.rmtree(workspace.table_path("rejects"))
    assert workspace.version("rejects") is None
    assert workspace.append("rejects", rejects("a", "4")) == 0
    shutil.rmtree(workspace.table_path("rejects"))
    Workspace(tmp_path).append("rejects", rejects("a", "5"))
    assert workspace.append("rejects", rejects("a", "6")) == 1
    assert sorted(workspace.read("rejects")["row_id"]) == ["5", "6"]


def test_a_workspace_can_be_sent_to_another_process(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.append("rejects", rejects("a", "1"))
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.apply(workspace.append, ("rejects", rejects("a", "2"))) == 1
    assert workspace.version("rejects") == 1


def test_versions_read_and_written_are_taken_once(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.overwrite("rejects", rejects("a", "1"))
    workspace.read("rejects")
    assert workspace.take_versions() == ({"rejects": 0}, {"rejects": 0})
    assert workspace.take_versions() == ({}, {})


def test_a_trial_keeps_its_results_apart_and_shares_the_ledger(tmp_path: Path) -> None:
    trial, real = Workspace(tmp_path, trial=True), Workspace(tmp_path)
    trial.overwrite("rejects", rejects("a", "1"))
    assert real.read("rejects").is_empty()
    assert trial.table_path("embeddings") == real.table_path("embeddings")
    assert trial.dataset_path("preference") != real.dataset_path("preference")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "workspace.json").write_text(json.dumps({"format_version": FORMAT_VERSION + 1}))
    with pytest.raises(WorkspaceError, match=r"newer version of this package .*upgrade"):
        Workspace(tmp_path)


def test_a_broken_marker_is_refused(tmp_path: Path) -> None:
    (tmp_path / "workspace.json").write_text("{")
    with pytest.raises(WorkspaceError, match="not a workspace marker"):
        Workspace(tmp_path)


def test_an_unknown_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="no table is called"):
        Workspace(tmp_path).read("piars")


def test_a_corrupt_table_names_its_place(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.overwrite("rejects", rejects("a", "1"))
    log = tmp_path / "tables" / "rejects" / "_delta_log" / "00000000000000000000.json"
    log.write_text("{ torn")
    with pytest.raises(WorkspaceError, match="tables/rejects"):
        Workspace(tmp_path).read("rejects")


def test_a_place_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(WorkspaceError, match=r"cannot read .*file"):
        Workspace(blocked / "workspace")


def test_write_bytes_is_whole_or_not_at_all(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write_bytes(b"old", "report.html")
    os.mkdir(tmp_path / f"report.html.{os.getpid()}.tmp")
    with pytest.raises(WorkspaceError, match="cannot write"):
        workspace.write_bytes(b"new", "report.html")
    assert workspace.read_text("report.html") == "old"


def hold_lock(path: str, ready: object, done: object) -> None:
    with Workspace(path).lock():
        ready.set()  # type: ignore[attr-defined]
        done.wait(600)  # type: ignore[attr-defined]


def test_a_second_run_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready, done = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold_lock, args=(str(tmp_path), ready, done))
    other.start()
    try:
        assert ready.wait(300)
        with (
            pytest.raises(WorkspaceError, match=f"in use by process {other.pid}"),
            Workspace(tmp_path).lock(),
        ):
            pass
    finally:
        other.kill()
        other.join()
    with Workspace(tmp_path).lock():
        pass


def test_somebody_who_looks_at_the_locks_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.file_locks._SECONDS_OF_A_LOOK", 60.0)
    workspace = Workspace(tmp_path)
    with workspace.lock():
        pass
    look = FileLock(tmp_path / "locks" / "workspace.lock", thread_local=False)
    look.acquire()
    threading.Timer(0.2, look.release).start()
    with workspace.lock():
        assert [held["name"] for held in workspace.locks_held()] == ["workspace"]


def test_a_lock_that_may_only_be_looked_at_is_seen(tmp_path: Path) -> None:
    lock = tmp_path / "workspace.lock"
    lock.touch()
    assert not _locked_elsewhere(lock)
    with FileLock(lock):
        assert _locked_elsewhere(lock)
    assert not _locked_elsewhere(tmp_path / "none.lock")


def test_an_object_store_url_keeps_its_form() -> None:
    memory = Workspace("memory://bucket/space/")
    assert memory.table_path("pairs") == "memory://bucket/space/tables/pairs"
    assert memory.read_text("workspace.json") is not None


@pytest.mark.parametrize("scheme", ["hf", "ftp", "nowhere"])
def test_a_url_on_which_no_table_can_lie_is_said(scheme: str) -> None:
    with pytest.raises(InputError, match=f"a workspace cannot lie at {scheme}://, expected a folder or"):
        Workspace(f"{scheme}://a/b", create=False)


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("")
    with pytest.raises(InputError, match="is a file, expected the folder of a workspace"):
        Workspace(tmp_path / "pairs.jsonl", create=False)


@pytest.mark.parametrize(
    ("scheme", "package", "said"),
    [("s3", "s3fs", r"pip install 'preference-curation\[s3\]'"), ("gs", "gcsfs", "gs://bucket/space: .* gcsfs")],
)
def test_an_object_store_whose_package_is_not_installed_is_said(
    monkeypatch: pytest.MonkeyPatch, scheme: str, package: str, said: str
) -> None:
    for name in (package, "botocore", "botocore.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(fsspec_implementations, scheme, raising=False)

    with pytest.raises(CurationError, match=said):
        Workspace(f"{scheme}://bucket/space")
