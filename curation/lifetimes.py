"""What must be ended when nobody needs it any longer: models that run in processes of their own.

Such a model would otherwise hold its memory while the next step starts another, and the interpreter would wait
for its processes for ever when it ends.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

__all__ = ["end_later", "ending_what_begins"]

_lock = Lock()
_open: list[Callable[[], None]] = []
_at_exit = False


def end_later(end: Callable[[], None]) -> None:
    """Call ``end`` when the step that is under way has ended, and at the latest when the interpreter does.

    Call this after what is to be ended has begun: Python ends what was registered last first, and the processes
    of ``multiprocessing``, which it waits for, were registered when they began.
    """
    global _at_exit  # noqa: PLW0603
    with _lock:
        if not _at_exit:
            atexit.register(_end, 0)
            _at_exit = True
        _open.append(end)


@contextmanager
def ending_what_begins() -> Iterator[None]:
    """Ends, afterwards, what began inside; what was there before goes on."""
    with _lock:
        before = len(_open)
    try:
        yield
    finally:
        _end(before)


def _end(first: int) -> None:
    """The last that began ends first."""
    while True:
        with _lock:
            if len(_open) <= first:
                return
            end = _open.pop()
        end()
