"""Replies kept in a file stay in one that is there, whoever else uses it. Commands are in ``commands``."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from curation.journal import Journal
from curation.kept_replies import KeptReplies


def test_replies_are_kept_where_the_one_before_took_its_file_away_just_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = KeptReplies(tmp_path / "r")
    before.add("a", {"text": "one"})
    real = Journal.hold

    def hold(journal: Journal) -> bool:
        monkeypatch.undo()
        before.remove()
        return real(journal)

    monkeypatch.setattr(Journal, "hold", hold)
    now = KeptReplies(tmp_path / "r")
    now.add("b", {"text": "two"})
    now.close()

    assert KeptReplies(tmp_path / "r").find("b") == {"key": "b", "text": "two"}


def test_threads_that_look_at_once_share_one_file(tmp_path: Path) -> None:
    kept = KeptReplies(tmp_path / "r")
    together = threading.Barrier(8)

    def look(key: int) -> object:
        together.wait()
        return kept.find(str(key))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(look, range(8))) == [None] * 8
    kept.close()
