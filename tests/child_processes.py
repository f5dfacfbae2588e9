"""Processes that tests start, and that do not outlive the test, however it ends."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["HEARS_CTRL_C", "started"]

HEARS_CTRL_C = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
"""
"""Before a script that is to hear Ctrl-C: who is started by one that ignores or blocks it does so, too."""


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process with the options of ``subprocess.Popen``; it is killed at the end of the block, if it lives."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()
