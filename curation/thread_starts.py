"""Threads that find no memory to begin with: Python waits for such a one for ever, and here it is an error.

``threading.Thread.start`` returns when the new thread says that it runs. One that dies for lack of memory before it
can say so leaves the caller waiting without an end, whoever started it: this package, a progress bar, a pool. A
command that hangs keeps its locks and says nothing, so its entry points call :func:`limit_waits` first.
"""

from __future__ import annotations

import threading
from typing import Any, Final

__all__ = ["limit_waits"]

_SECONDS_TO_BEGIN: Final = 60.0
_start = threading.Thread.start


def limit_waits() -> None:
    """Let ``Thread.start`` raise MemoryError in this process when the thread does not run within a minute."""
    threading.Thread.start = _start_or_give_up  # type: ignore[method-assign,assignment]


def _start_or_give_up(thread: threading.Thread) -> None:
    begun: Any = getattr(thread, "_started", None)
    if begun is not None and not begun.is_set():
        wait = begun.wait

        def wait_a_while(timeout: float | None = None) -> bool:
            if not wait(_SECONDS_TO_BEGIN if timeout is None else timeout) and timeout is None:
                raise MemoryError(f"thread {thread.name} could not begin")
            return True

        begun.wait = wait_a_while
    _start(thread)
