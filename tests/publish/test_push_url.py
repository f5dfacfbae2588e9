"""Pushing to a folder: whole or not at all for whoever reads it, and nothing where nothing changed."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest
import yaml
from fsspec.registry import _registry as fsspec_implementations

from curation.errors import InputError, MissingExtraError, PushError
from curation.publish.history import MANIFEST, History
from curation.publish.url import push_to_url
from tests.publish.test_push_hub import publish

URL = "memory://bucket/pairs"


@pytest.fixture
def memory() -> Any:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    if filesystem.exists("/bucket"):
        filesystem.rm("/bucket", recursive=True)


def stored(memory: Any) -> dict[str, bytes]:
    return {p.removeprefix("/bucket/pairs/"): memory.cat_file(p) for p in memory.find("/bucket/pairs")}


def as_read(files: dict[str, bytes]) -> pl.DataFrame:
    """The rows that a reader gets who begins with the manifest, as the guide says."""
    history = History.from_bytes(files[MANIFEST], where="test")
    assert history is not None
    return pl.concat(pl.read_parquet(BytesIO(files[path])) for path in sorted(history.files))


def rows(folder: Path) -> pl.DataFrame:
    return pl.concat(pl.read_parquet(path) for path in sorted(folder.glob("data/*.parquet")))


def test_a_local_folder_is_the_published_one(tmp_path):
    published = publish(tmp_path / "d", 50)
    url = f"file://{tmp_path}/copy"
    assert push_to_url(published, url).outcome == "pushed"
    copied = {p.relative_to(tmp_path / "copy").as_posix() for p in (tmp_path / "copy").rglob("*") if p.is_file()}
    assert copied == set(published.paths)
    inode = (tmp_path / "copy").stat().st_ino
    assert push_to_url(published, url).outcome == "unchanged"
    assert (tmp_path / "copy").stat().st_ino == inode
    changed = publish(tmp_path / "d", 20, shard=5)
    result = push_to_url(changed, url)
    assert result.plan.deletes
    assert rows(tmp_path / "copy").equals(rows(tmp_path / "d"))


def test_an_object_store_is_read_through_card_and_manifest(tmp_path, memory):
    published = publish(tmp_path / "d", 50)
    assert push_to_url(published, URL).outcome == "pushed"
    assert as_read(stored(memory)).equals(rows(tmp_path / "d"))
    written: list[str] = []
    memory.pipe_file, before = lambda path, data: written.append(path), memory.pipe_file
    assert push_to_url(published, URL).outcome == "unchanged"
    memory.pipe_file = before
    assert written == []


def test_a_change_keeps_the_data_of_the_version_before_for_one_push(tmp_path, memory):
    folders = []
    for count in (50, 60, 70):
        push_to_url(publish(tmp_path / "d", count), URL)
        folders.append({path.split("/")[1].split("-")[0] for path in stored(memory) if path.startswith("data/")})
        assert as_read(stored(memory)).equals(rows(tmp_path / "d"))
    assert folders == [{"v1"}, {"v1", "v2"}, {"v2", "v3"}]


def test_the_cards_header_leads_to_the_versions_data(tmp_path, memory):
    from curation.publish.card import CardData, render_card

    card = render_card(CardData("preference", "n", "mit", {"train": 40, "test": 10}))
    published = publish(tmp_path / "d", 50)
    published._replaced["README.md"] = card.encode()
    push_to_url(published, URL)
    meta = yaml.safe_load(stored(memory)["README.md"].split(b"---\n")[1])
    for file in meta["configs"][0]["data_files"]:
        assert memory.glob(f"/bucket/pairs/{file['path']}")


@pytest.mark.parametrize("until", range(6))
def test_a_push_that_is_cut_off_shows_the_old_version_until_it_is_whole(tmp_path, memory, until):
    push_to_url(publish(tmp_path / "d", 50), URL)
    old = rows(tmp_path / "d")
    changed = publish(tmp_path / "d", 60, card="Another card.")
    real, calls = memory.pipe_file, []

    def broken(path: str, data: bytes) -> None:
        calls.append(path)
        if len(calls) > until:
            raise OSError("the network is gone")
        real(path, data)

    memory.pipe_file = broken
    try:
        with pytest.raises(PushError, match="What readers see there is whole"):
            push_to_url(changed, URL)
    finally:
        memory.pipe_file = real
    seen = as_read(stored(memory))
    assert seen.equals(old) or seen.equals(rows(tmp_path / "d"))
    assert push_to_url(changed, URL).outcome == "pushed"
    assert as_read(stored(memory)).equals(rows(tmp_path / "d"))


def test_a_dry_run_writes_nothing(tmp_path, memory):
    published = publish(tmp_path / "d", 50)
    assert push_to_url(published, URL, dry_run=True).outcome == "would push"
    assert push_to_url(published, f"file://{tmp_path}/copy", dry_run=True).outcome == "would push"
    assert not memory.exists("/bucket")
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("manifest", [False, True], ids=["foreign", "beside a push"])
def test_files_of_somebody_else_are_never_replaced(tmp_path, manifest):
    target = tmp_path / "copy"
    if manifest:
        push_to_url(publish(tmp_path / "d", 50), f"file://{target}")
    target.mkdir(exist_ok=True)
    (target / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"holds 1 files that no push wrote, such as thesis\.txt"):
        push_to_url(publish(tmp_path / "d", 60), f"file://{target}")
    assert (target / "thesis.txt").read_text() == "years of work"


def test_a_history_of_another_workspace_is_refused(tmp_path, memory):
    push_to_url(publish(tmp_path / "d", 50), URL)
    with pytest.raises(InputError, match="that this workspace has not written"):
        push_to_url(publish(tmp_path / "other", 60), URL)


def test_an_unknown_kind_of_url_is_said(tmp_path):
    with pytest.raises(InputError, match="nowhere://x"):
        push_to_url(publish(tmp_path / "d", 50), "nowhere://x")


def test_a_push_to_s3_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(fsspec_implementations, "s3", raising=False)

    with pytest.raises(MissingExtraError, match=r"pip install 'preference-curation\[s3\]'"):
        push_to_url(publish(tmp_path / "d", 50), "s3://bucket/pairs")
