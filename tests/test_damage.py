"""Damaged tables: found before a run, repaired by a command, and nothing that is whole is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import unquote

import polars as pl
import pytest
from typer.testing import CliRunner

from curation.cli import app
from curation.damage import check_whole, find_damage, repair
from curation.errors import WorkspaceError
from curation.workspace import Workspace
from schemas import TABLES

COUNTS = (3, 4, 5)


def rows(start: int, count: int) -> pl.DataFrame:
    ids = [f"{i:032x}" for i in range(start, start + count)]
    columns = {"text_id": ids, "model": "m@1", "vector": [[float(i)] for i in range(count)], "truncated": False}
    return pl.DataFrame(columns).with_columns(pl.col("vector").cast(pl.List(pl.Float32)))


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    """A ledger table of three commits."""
    found = Workspace(tmp_path / "w")
    for position, count in enumerate(COUNTS):
        found.append("embeddings", rows(10 * position, count), partition_by="model")
    assert find_damage(found) == []
    return found


def entry(space: Workspace, number: int) -> Path:
    return Path(space.table_path("embeddings"), "_delta_log", f"{number:020d}.json")


def data_files(space: Workspace) -> list[Path]:
    """As the log has them, one of each commit: two files may be of one tick of the clock."""
    folder = Path(space.table_path("embeddings"))
    said = [json.loads(line) for n in range(len(COUNTS)) for line in entry(space, n).read_text().splitlines()]
    return [folder / unquote(one["add"]["path"]) for one in said if "add" in one]


@pytest.mark.parametrize("keep", [0, 1, 0.4, "first line", "zeros"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_torn_log_entry_costs_no_row_of_the_ledger(space: Workspace, number: int, keep: float | str) -> None:
    path = entry(space, number)
    whole = path.read_bytes()
    if keep == "first line":
        path.write_bytes(whole.split(b"\n")[0])
    else:
        path.write_bytes(bytes(len(whole)) if keep == "zeros" else whole[: int(len(whole) * float(keep)) or 1])
    if keep == 1:
        path.write_bytes(whole[:-1])
    with pytest.raises(WorkspaceError, match=rf"entry {path.name} of table 'embeddings' is torn.*curation repair"):
        check_whole(space)
    (said,) = repair(space)
    assert "added again" in said
    assert find_damage(space) == []
    assert space.read("embeddings").height == sum(COUNTS)
    assert set(space.read("embeddings")["model"]) == {"m@1"}
    assert len(list(Path(space.path("damaged", "embeddings")).iterdir())) == 3 - number


@pytest.mark.parametrize("how", ["cut", "gone", "zeros"])
def test_a_torn_data_file_costs_its_own_rows(space: Workspace, how: str) -> None:
    path = data_files(space)[1]
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)) if how == "zeros" else whole[:-9])
    if how == "gone":
        path.unlink()
    with pytest.raises(WorkspaceError, match=r"1 data files of table 'embeddings' are torn or gone \(4 rows\)"):
        check_whole(space)
    assert len(repair(space)) == 1
    assert find_damage(space) == []
    assert set(space.read("embeddings")["text_id"]) == {*rows(0, 3)["text_id"], *rows(20, 5)["text_id"]}


def test_rows_in_a_torn_file_of_a_torn_entry_are_not_added(space: Workspace) -> None:
    torn = data_files(space)[2]
    torn.write_bytes(torn.read_bytes()[:-9])
    entry(space, 2).write_bytes(b"{")
    repair(space)
    assert space.read("embeddings").height == COUNTS[0] + COUNTS[1]


def test_rows_that_were_deleted_before_the_damage_do_not_come_back(space: Workspace) -> None:
    old = data_files(space)[0]
    gone = rows(0, 1)["text_id"][0]
    space.delete("embeddings", f"text_id = '{gone}'")
    assert old.exists()
    os.utime(old, (0, 0))
    space.append("embeddings", rows(90, 2), partition_by="model")
    entry(space, 4).write_bytes(b"{")
    repair(space)
    found = set(space.read("embeddings")["text_id"])
    assert gone not in found
    assert len(found) == sum(COUNTS) - 1 + 2


def test_a_log_that_was_summed_up_is_read_from_there(space: Workspace) -> None:
    space.compact("embeddings")
    space.append("embeddings", rows(90, 2), partition_by="model")
    assert find_damage(space) == []
    newest = max(Path(space.table_path("embeddings"), "_delta_log").glob("*.json"))
    newest.write_bytes(b"")
    repair(space)
    assert space.read("embeddings").height == sum(COUNTS) + 2


def test_a_torn_table_of_a_trial_is_repaired_too(space: Workspace) -> None:
    trial = Workspace(space.url, trial=True)
    trial.overwrite("prompts", pl.DataFrame(TABLES["prompts"].create_empty()))
    torn = Path(trial.table_path("prompts"), "_delta_log", f"{0:020d}.json")
    torn.write_bytes(b"{")
    with pytest.raises(WorkspaceError, match="curation repair"):
        check_whole(trial)
    done = CliRunner().invoke(app, ["repair", space.url])
    assert (done.exit_code, done.stdout.count("trial: log entry")) == (0, 1)
    assert find_damage(trial) == []
    assert sum(COUNTS) == space.read("embeddings").height


def test_a_workspace_whose_path_reads_like_a_partition_keeps_its_rows_as_they_were(tmp_path: Path) -> None:
    inside = Workspace(tmp_path / "truncated=true" / "w")
    for position, count in enumerate(COUNTS):
        inside.append("embeddings", rows(10 * position, count), partition_by="model")
    before = inside.read("embeddings").sort("text_id")
    entry(inside, 2).write_bytes(b"")
    repair(inside)
    assert inside.read("embeddings").sort("text_id").equals(before)


def test_nothing_is_repaired_while_a_run_holds_the_workspace(space: Workspace) -> None:
    with space.lock(), pytest.raises(WorkspaceError, match="in use"):
        repair(Workspace(space.url))


def test_a_torn_summary_of_the_log_costs_nothing(space: Workspace) -> None:
    before = space.read("embeddings")
    space.compact("embeddings")
    space.append("embeddings", rows(100, 2), partition_by="model")
    (summary,) = entry(space, 0).parent.glob("*.checkpoint.parquet")
    summary.write_bytes(summary.read_bytes()[:200])
    with pytest.raises(WorkspaceError, match=rf"the summary {summary.name} of the log .* is torn.*curation repair"):
        check_whole(Workspace(space.url))
    (said,) = repair(Workspace(space.url))
    assert "nothing is lost" in said
    found = Workspace(space.url)
    assert find_damage(found) == []
    assert set(found.read("embeddings")["text_id"]) == {*before["text_id"], *rows(100, 2)["text_id"]}
    found.append("embeddings", rows(200, 1), partition_by="model")
    assert found.read("embeddings").height == before.height + 3


def test_a_torn_summary_of_entries_that_are_gone_is_left_alone(space: Workspace) -> None:
    space.drop_history("embeddings")
    (summary,) = entry(space, 0).parent.glob("*.checkpoint.parquet")
    torn = summary.read_bytes()[:200]
    summary.write_bytes(torn)
    with pytest.raises(WorkspaceError, match="Put a backup in its place"):
        repair(Workspace(space.url))
    assert summary.read_bytes() == torn


def test_a_torn_data_file_is_found_right_after_the_log_was_summed_up(space: Workspace) -> None:
    space.compact("embeddings")
    stored = Path(space.table_path("embeddings")).rglob("*.parquet")
    (merged,) = (path for path in stored if path.name not in _named_in(entry(space, 0).parent))
    merged.unlink()
    with pytest.raises(WorkspaceError, match=r"1 data files of table 'embeddings' are torn or gone \(12 rows\)"):
        check_whole(Workspace(space.url))
    (said,) = repair(Workspace(space.url))
    assert "12 rows of older files were added again" in said
    assert Workspace(space.url).read("embeddings").height == sum(COUNTS)


def _named_in(log: Path) -> set[str]:
    """The data files of the first three commits, and the log's own parquet files."""
    first = "".join((log / f"{number:020d}.json").read_text() for number in range(3))
    own = {path.name for path in log.glob("*.parquet")}
    return own | {path.name for path in log.parent.rglob("*.parquet") if path.name in first}
