"""Ctrl-C as a question, for loops that have something under way. What is done about it is the loop's matter."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType

__all__ = ["interrupts", "interrupts_of_nobody"]


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a question that the loop asks; the second one stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = False

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        # None: a handler that was not set from Python, which Python cannot set again.
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)


def interrupts_of_nobody() -> AbstractContextManager[Callable[[], bool]]:
    """:func:`interrupts` where nobody asks yet; within a loop that asks, False: the question is that loop's."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        return interrupts()
    return nullcontext(lambda: False)
