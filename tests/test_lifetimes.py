"""What is ended with a step, and what goes on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from curation.lifetimes import end_later, ending_what_begins


def test_what_begins_inside_ends_there_the_last_first_and_no_other() -> None:
    ended: list[str] = []
    with ending_what_begins():
        end_later(lambda: ended.append("before"))
        with ending_what_begins():
            end_later(lambda: ended.append("first"))
            end_later(lambda: ended.append("second"))
        assert ended == ["second", "first"]
    assert ended == ["second", "first", "before"]


def test_it_ends_after_an_error_too() -> None:
    ended: list[str] = []

    def breaks() -> None:
        with ending_what_begins():
            end_later(lambda: ended.append("model"))
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        breaks()
    assert ended == ["model"]


def test_a_process_that_would_run_for_ever_is_ended_before_the_interpreter_waits_for_it() -> None:
    code = """
import multiprocessing, time
from curation.lifetimes import end_later
if __name__ == "__main__":
    other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(100_000,))
    other.start()
    end_later(other.kill)  # SIGTERM may be ignored where the tests were started
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=300, check=False).returncode == 0
