"""Datasets on disk: bytes, shards, swaps and what survives a failure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import polars as pl
import pytest

from curation.errors import InputError, WorkspaceError
from curation.publish import swapping
from curation.publish.formats import preference_frame
from curation.publish.writing import split_counts, write_dataset


def frame(rows: int = 50, *, salt: str = "") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "prompt": [[{"role": "user", "content": f"q{i}{salt}"}] for i in range(rows)],
            "score": [None if i % 7 == 0 else i / 3 for i in range(rows)],
            "split": ["test" if i % 5 == 0 else "train" for i in range(rows)],
        }
    )


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_writes_the_hubs_layout(tmp_path):
    written = write_dataset(frame(), folder=str(tmp_path / "d"), rows_per_shard=15, extra_files={"README.md": b"x"})
    assert sorted(files(tmp_path / "d")) == [
        "README.md",
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00003.parquet",
        "data/train-00001-of-00003.parquet",
        "data/train-00002-of-00003.parquet",
    ]
    assert [f.rows for f in written.files] == [15, 15, 10, 10, None]
    assert os.listdir(tmp_path) == ["d"]


def test_same_rows_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_dataset(frame(25_000), folder=str(tmp_path / name), rows_per_shard=7_000)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_rows_come_back_in_order(tmp_path):
    write_dataset(frame(25_000), folder=str(tmp_path / "d"), rows_per_shard=7_000)
    back = pl.concat(pl.read_parquet(p) for p in sorted((tmp_path / "d/data").glob("train-*")))
    assert back.equals(frame(25_000).filter(pl.col("split") == "train").drop("split"))


def test_evidence_lies_beside_the_data(tmp_path):
    rows = frame()
    evidence = pl.DataFrame({"id": range(rows.height)})
    write_dataset(rows, folder=str(tmp_path / "d"), evidence=evidence)
    back = pl.read_parquet(tmp_path / "d/evidence/test-00000-of-00001.parquet")
    assert back["id"].to_list() == list(range(0, 50, 5))


def test_unchanged_rows_touch_nothing(tmp_path):
    first = write_dataset(frame(), folder=str(tmp_path / "d"))
    inode = (tmp_path / "d").stat().st_ino
    again = write_dataset(frame(), folder=str(tmp_path / "d"))
    assert (first.changed, again.changed) == (True, False)
    assert (tmp_path / "d").stat().st_ino == inode


def test_new_rows_replace_old_shards(tmp_path):
    write_dataset(frame(), folder=str(tmp_path / "d"), rows_per_shard=10)
    write_dataset(frame(20), folder=str(tmp_path / "d"))
    assert sorted(files(tmp_path / "d")) == [
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
    ]


def test_replaces_without_an_exchange_of_the_system(tmp_path, monkeypatch):
    monkeypatch.setattr(swapping, "_exchange", lambda one, other: False)
    write_dataset(frame(), folder=str(tmp_path / "d"))
    assert write_dataset(frame(salt="!"), folder=str(tmp_path / "d")).changed
    assert os.listdir(tmp_path) == ["d"]


def test_a_swap_cut_in_half_is_undone_by_the_next_one(tmp_path):
    write_dataset(frame(), folder=str(tmp_path / "d"))
    (tmp_path / "d").rename(tmp_path / ".d.old")
    assert not write_dataset(frame(), folder=str(tmp_path / "d")).changed
    assert os.listdir(tmp_path) == ["d"]


def test_no_rows_leave_the_last_good_dataset(tmp_path):
    write_dataset(frame(), folder=str(tmp_path / "d"))
    before = files(tmp_path / "d")
    with pytest.raises(InputError, match="no rows"):
        write_dataset(frame(0), folder=str(tmp_path / "d"))
    assert files(tmp_path / "d") == before


def test_an_unknown_split_is_named():
    with pytest.raises(InputError, match="split is 'dev', expected one of train, validation, test"):
        split_counts(pl.DataFrame({"split": ["dev"]}))


def test_a_path_out_of_the_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="outside the dataset"):
        write_dataset(frame(), folder=str(tmp_path / "d"), extra_files={"../x": b""})


def test_an_unwritable_folder_is_a_workspace_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WorkspaceError, match="was published before is still there"):
        write_dataset(frame(), folder=str(tmp_path / "file" / "d"))


def test_a_kill_at_any_moment_leaves_one_whole_dataset(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    write_dataset(frame(3_000), folder=str(old), rows_per_shard=100)
    write_dataset(frame(3_000, salt="!"), folder=str(new), rows_per_shard=100)
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from test_dataset_files import frame, write_dataset\n"
        "i = 0\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    i += 1\n"
        "    write_dataset(frame(3_000, salt='!' * (i % 2)), folder=sys.argv[1], rows_per_shard=100)\n"
    )
    target = tmp_path / "live"
    write_dataset(frame(3_000), folder=str(target), rows_per_shard=100)
    whole = [files(old), files(new)]
    for wait in (0.05, 0.13, 0.31):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(target), str(Path(__file__).parent)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(timeout=wait)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert files(target) in whole


def test_works_on_another_file_system(tmp_path):
    memory = fsspec.filesystem("memory")
    folder = "memory://bucket/datasets/d"
    assert write_dataset(frame(), folder=folder, filesystem=memory, rows_per_shard=10).changed
    assert not write_dataset(frame(), folder=folder, filesystem=memory, rows_per_shard=10).changed
    assert write_dataset(frame(20), folder=folder, filesystem=memory).changed
    write_dataset(frame(20), folder=str(tmp_path / "d"))
    stored = {p.removeprefix("/bucket/datasets/d/"): memory.cat_file(p) for p in memory.find("/bucket/datasets")}
    assert stored == files(tmp_path / "d")
    memory.rm("/bucket", recursive=True)


def test_datasets_loads_the_folder(tmp_path, tables, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    rows = preference_frame(
        pairs=tables.pairs,
        prompts=tables.prompts,
        candidates=tables.candidates,
        pair_scores=tables.pair_scores,
    )
    write_dataset(rows, folder=str(tmp_path / "d"))
    loaded = datasets.load_dataset(str(tmp_path / "d"), cache_dir=str(tmp_path / "cache"))
    assert {k: v.num_rows for k, v in loaded.items()} == split_counts(rows)
    first = loaded["train"][0]
    assert first["prompt"] == rows["prompt"][0].to_list()
    assert json.loads(json.dumps(first["chosen_rewards"])) == rows["chosen_rewards"][0].to_list()
