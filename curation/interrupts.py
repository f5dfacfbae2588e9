"""Ctrl-C as a question, for loops that have something under way, and what it is to a command outside of them.

What is done about it is the loop's matter, and the command's.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Final

__all__ = ["Command", "command_hears", "interrupts", "interrupts_of_nobody"]


class Command:
    """What Ctrl-C means to a command outside of such loops: KeyboardInterrupt, as Python itself has it.

    Attributes:
        ends: set by the command where it tells how it ended, which no further Ctrl-C may cut short. Python looks
            for signals around calls; to set this is none, so no moment is left between catching and telling.
    """

    ends = False

    def hear(self, signum: int, frame: FrameType | None) -> None:
        """The handler."""
        if not self.ends:
            raise KeyboardInterrupt


_COMMAND: Final = Command()
_OF_NOBODY: Final = (signal.default_int_handler, _COMMAND.hear)


def command_hears() -> Command:
    """Let the command's own handler hear Ctrl-C, unless who started this process lets it be ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _COMMAND.hear)
    return _COMMAND


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
    if signal.getsignal(signal.SIGINT) in _OF_NOBODY:
        return interrupts()
    return nullcontext(lambda: False)
