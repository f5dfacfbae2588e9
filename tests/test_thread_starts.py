"""A thread without memory to begin with is an error, not a wait without end."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from curation import thread_starts

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", threading.Thread.start)  # put back at the end
    thread_starts.limit_waits()


def test_threads_begin_as_ever(limited: None) -> None:
    said: list[int] = []
    threads = [threading.Thread(target=said.append, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == list(range(20))
    with pytest.raises(RuntimeError, match="only be started once"):
        threads[0].start()


def test_a_thread_that_dies_before_it_begins_is_an_error(limited: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_starts, "_SECONDS_TO_BEGIN", 0.1)
    monkeypatch.setattr(threading.Thread, "_bootstrap", lambda self: None)
    with pytest.raises(MemoryError, match="could not begin"):
        threading.Thread(target=print).start()


def test_the_command_line_ends_with_a_line() -> None:
    code = (
        "import threading\nfrom curation import cli, thread_starts\n"
        "thread_starts._SECONDS_TO_BEGIN = 0.1\nthreading.Thread._bootstrap = lambda self: None\n"
        "@cli.app.command()\ndef begin() -> None:\n    threading.Thread(target=print).start()\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "begin"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: memory ran out; what was finished is kept")
