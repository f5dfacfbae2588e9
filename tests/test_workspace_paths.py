"""Workspaces in folders with names as people give them, and producers with whatever is in a model's name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from curation.cli import app
from curation.damage import find_damage, repair
from curation.errors import InputError
from curation.ledger import Ledger, LedgerKey
from curation.workspace import Workspace
from tests.forgetting.test_forget import MARKS, Place, holding, secret_id, with_secret

FOLDERS = ("my data 100% ü#1", "lr=0.1/a b", "数据 (2)? {x} 'y' *")
PRODUCERS = ("org/model@v 1", "100%é#?&=[1]*", "python:a.b:c@2f%20")


def rows(start: int, count: int, model: str) -> pl.DataFrame:
    ids = [f"{i:032x}" for i in range(start, start + count)]
    columns = {"text_id": ids, "model": model, "vector": [[float(i)] for i in range(count)], "truncated": False}
    return pl.DataFrame(columns).with_columns(pl.col("vector").cast(pl.List(pl.Float32)))


def key(producer: str) -> LedgerKey:
    return LedgerKey("embeddings", "text_id", "model", producer)


@pytest.fixture(params=FOLDERS)
def space(request: pytest.FixtureRequest, tmp_path: Path) -> Workspace:
    """A ledger table of six commits by three producers."""
    found = Workspace(tmp_path / request.param)
    for position in range(2):
        for producer in PRODUCERS:
            found.append("embeddings", rows(3 * position, 3, producer), partition_by="model")
    return found


def test_every_producer_finds_its_own_rows_before_and_after_compaction(space: Workspace) -> None:
    ledger = Ledger(space)
    for _ in range(2):
        for producer in PRODUCERS:
            assert ledger.known_ids(key(producer)).height == 6
            found = ledger.fetch(key(producer), rows(2, 2, producer)["text_id"])
            assert found["vector"].to_list() == [[2.0], [0.0]]
            assert set(found["model"]) == {producer}
        ledger.compact(key(PRODUCERS[0]), always=True)
        assert space.file_count("embeddings") == len(PRODUCERS)
    assert space.read("embeddings").schema == rows(0, 1, "m").schema


def test_rows_are_deleted_rewritten_and_old_versions_read(space: Workspace) -> None:
    before = space.version("embeddings")
    space.delete("embeddings", f"model = '{PRODUCERS[1]}'")
    assert space.read("embeddings").height == 12
    assert space.scan("embeddings", version=before).collect().height == 18
    space.rewrite("embeddings", space.scan("embeddings").filter(pl.col("model") == PRODUCERS[0]))
    space.drop_history("embeddings")
    assert space.read("embeddings")["model"].to_list() == [PRODUCERS[0]] * 6
    assert not space.overwrite("embeddings", space.read("embeddings"))


def test_damage_is_found_and_repaired(space: Workspace) -> None:
    assert find_damage(space) == []
    entry = Path(space.table_path("embeddings"), "_delta_log", f"{5:020d}.json")
    entry.write_bytes(entry.read_bytes()[:10])
    (said,) = repair(space)
    assert "3 rows of its data files were added again" in said
    assert Ledger(space).known_ids(key(PRODUCERS[2])).height == 6
    file = max(Path(space.table_path("embeddings")).rglob("*.parquet"), key=lambda p: p.stat().st_mtime_ns)
    os.truncate(file, 20)
    (damage,) = find_damage(space)
    assert damage.rows == 3
    (said,) = repair(space)
    assert "3 rows of older files were added again" in said
    assert space.read("embeddings").height == 18


def test_only_the_files_that_are_asked_for_are_read(tmp_path: Path) -> None:
    space = Workspace(tmp_path / FOLDERS[0])
    for producer in PRODUCERS:
        space.append("embeddings", rows(0, 3, producer), partition_by="model")
    for file in Path(space.table_path("embeddings")).rglob("*.parquet"):
        if "org" not in str(file):
            file.unlink()
    asked = space.scan("embeddings").filter(pl.col("model") == PRODUCERS[0])
    assert asked.collect().height == 3
    with pytest.raises(FileNotFoundError):
        space.scan("embeddings").collect()


@pytest.mark.parametrize("name", ["a[1]", "a^b", "a|b", "a\\b", "a%20b", "a\nb"])
def test_a_folder_that_delta_cannot_have_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot lie in a folder with"):
        Workspace(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def shown(*arguments: Any) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_run_its_commands_and_forgetting(tmp_path: Path) -> None:
    reward = {"rewards": [{"model": "python:tests.faults.place:reward", "batch_rows": 4}]}
    place = Place(tmp_path / FOLDERS[0], **reward)
    place.write(with_secret())
    place.run()
    where = place.folder / "w"
    assert "rewards" in shown("status", where)
    assert secret_id() in shown("explain", where, secret_id())
    shown("report", where)
    assert sum(map(len, place.published().values())) > 10
    assert holding(where, *MARKS)
    shown("forget", where, secret_id(), "--yes")
    assert not holding(where, *MARKS)
    place.run()
    assert not holding(where, *MARKS)
