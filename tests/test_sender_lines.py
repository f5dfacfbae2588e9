"""What a run hears of the process that sends its requests; how that one works is tested with paid generations."""

from __future__ import annotations

import os
import queue
import threading

import pytest

from curation.sender import _Lines


def test_lines_come_whole_one_at_a_time_and_without_a_thread() -> None:
    before = set(threading.enumerate())
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        said = _Lines(pipe)
        with pytest.raises(queue.Empty):
            said.get(timeout=0.01)
        os.write(writing, b'{"note": "an')
        with pytest.raises(queue.Empty):
            said.get(timeout=0.01)
        long = "x" * 40_000
        os.write(writing, b' answer"}\n{"total": 3}\n{"note": "%s"}\n{"adv' % long.encode())
        assert said.get(timeout=60) == {"note": "an answer"}
        assert said.get(timeout=60) == {"total": 3}
        assert said.get(timeout=60) == {"note": long}
        os.close(writing)
        # What a killed process left half-said is no line.
        assert said.get(timeout=60) is None
        assert said.get(timeout=60) is None
    assert set(threading.enumerate()) <= before
