"""What ends a batch that a model in this process does not finish: too much time, or no memory left.

A model that hangs cannot be stopped from a thread. So there are three ends, each for what the one before cannot
reach: an exception in the main thread, which ends the run as any error does; after a grace, one line and the end of
the process, for code that never comes back to Python; and at last the interpreter's own watchdog, for code that
keeps the interpreter's lock. What was finished is on the disk before; locks end with their process. Servers have
time-outs of their own (``curation.models.chat``).
"""

from __future__ import annotations

import errno
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn, TypeVar

from curation.errors import KEPT, ModelError

__all__ = ["each_watched", "is_out_of_memory", "memory_named", "opening", "too_long", "watched"]

GRACE: Final = 15.0
"""Seconds for the gentler end, before the next one."""
OPENING_AT_LEAST: Final = 3_600.0
_OPENING_TIMES: Final = 4
_SAYS_SO: Final = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
_SECTIONS: Final = {
    "generations": "generation", "embeddings": "encoder", "rewards": "rewards", "refusals": "refusals",
    "policy_stats": "policy",
}  # fmt: skip

T = TypeVar("T")
Ended = Callable[[str], None]


class _TimeOver(BaseException):
    """Raised into whatever runs; no library takes it for an error of its own."""


@contextmanager
def opening(step: str, seconds: float | None, *, ended: Ended | None = None) -> Iterator[None]:
    """Allow a model that is loaded much more time than a batch, for it may be a download.

    Args:
        step: its name, for the message.
        seconds: that a batch may take; None for no limit.
        ended: see :func:`watched`.

    Raises:
        ModelError: as :func:`watched`.
    """
    limit = None if seconds is None else max(_OPENING_TIMES * seconds, OPENING_AT_LEAST)
    message = (
        f"{step}: the model was not loaded in {limit or 0:g} s: it hangs, or is a slow download. Fetch it first, "
        f"or raise batch_timeout_seconds ({_OPENING_TIMES} times that, an hour at least, is for loading; null: no "
        f"limit). {KEPT}"
    )
    with watched(step, None, limit, ended=ended, message=message):
        yield


@contextmanager
def watched(
    step: str, rows: int | None, seconds: float | None, *, ended: Ended | None = None, message: str | None = None
) -> Iterator[None]:
    """Allow a block so many seconds.

    Args:
        step: its name, for the message.
        rows: of the batch; None where a model draws batches itself.
        seconds: None for no limit.
        ended: called with the message before the process is ended from another thread; by default it is printed.
        message: what is said; by default that of a batch.

    Raises:
        ModelError: when the time is over, and the block came back to Python. Otherwise the process ends, status 1.
    """
    if seconds is None:
        yield
        return
    message = message or too_long(step, rows, seconds)
    end = threading.Timer(seconds + GRACE, _end_process, (message, ended or _print))
    end.daemon = True
    end.start()
    if sys.__stderr__ is not None:
        faulthandler.dump_traceback_later(seconds + 2 * GRACE, exit=True, file=sys.__stderr__)
    try:
        with _alarm(seconds):
            yield
    except _TimeOver:
        raise ModelError(message) from None
    finally:
        end.cancel()
        faulthandler.cancel_dump_traceback_later()


def each_watched(items: Iterable[T], step: str, seconds: float | None) -> Iterator[T]:
    """The items, each of which may take so many seconds."""
    iterator = iter(items)
    while True:
        with watched(step, None, seconds):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


@contextmanager
def memory_named(step: str, rows: int | None) -> Iterator[None]:
    """Say what to do where memory runs out.

    Raises:
        ModelError: in the place of an error that says that there is no memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(_no_memory(step, rows)) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, torch's (of any device), or the system's."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _SAYS_SO)


def too_long(step: str, rows: int | None, seconds: float) -> str:
    """What is said of a batch whose time is over."""
    what = "no result came" if rows is None else f"a batch of {rows:,} rows was not done"
    return (
        f"{step}: {what} in {seconds:g} s, the recipe's batch_timeout_seconds: the model hangs, or is slow. Lower "
        f"{_batch_rows(step)}, or raise batch_timeout_seconds (null: no limit). {KEPT}"
    )


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """An exception in the main thread, and in no other: signals come there."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def over(signum: int, frame: FrameType | None) -> NoReturn:
        raise _TimeOver

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _end_process(message: str, ended: Ended) -> None:
    try:
        ended(message)
    finally:
        os._exit(ModelError.exit_status)


def _print(message: str) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.write(2, f"\nerror: {ModelError(message)}\n".encode())


def _no_memory(step: str, rows: int | None) -> str:
    on = "" if rows is None else f" on a batch of {rows:,} rows"
    return f"{step}: memory ran out{on}. Lower {_batch_rows(step)}, or take a smaller model. {KEPT}"


def _batch_rows(step: str) -> str:
    section = _SECTIONS.get(step)
    return f"batch_rows of section {section}" if section else "batch_rows of the step's section"
