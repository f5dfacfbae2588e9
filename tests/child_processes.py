"""Processes that tests start, and that do not outlive the test, however it ends."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["started"]


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process with the options of ``subprocess.Popen``; it is killed at the end of the block, if it lives."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()
