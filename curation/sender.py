"""A streaming step in a process of its own, which outlives the run that started it by what is under way.

A run that is killed has requests under way; their answers are paid for and still come. So requests to servers
are sent from here: when the run is gone, the end of its pipe says so, this process sends no more, keeps the
answers that are still to come, and ends. The next run waits for that, and asks for none of them again.

:func:`run_apart` is the run's side. ``python -m curation.sender`` is the other: one line of JSON on standard
input says what to do, and lines of JSON on standard output say how it goes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, Protocol

import polars as pl

from curation import errors
from curation.engine import StepReport
from curation.errors import KEPT, CurationError, ModelError
from curation.interrupts import interrupts
from curation.journal import draining_marker, journal_path
from curation.ledger import Ledger
from curation.progress import ProgressSink, SilentProgress
from curation.streaming import Budget, StreamStep, run_stream
from curation.thread_starts import limit_waits
from curation.workspace import Workspace

__all__ = ["RemoteStep", "main", "run_apart"]

_LOOK_EVERY: Final = 0.2
_ROWS_WRITTEN_AT_ONCE: Final = 20_000
_READ_AT_ONCE: Final = 65_536


class RemoteStep(StreamStep, Protocol):
    """A streaming step that can be made again in another process."""

    @property
    def is_remote(self) -> bool:
        """Whether a server does the work, and so another process should wait for it."""
        ...

    @property
    def spec(self) -> tuple[str, dict[str, Any]]:
        """``module:function`` and the plain arguments that it makes an equal step of."""
        ...


# ---- the run's side ----------------------------------------------------------------------------------------


def run_apart(
    step: RemoteStep,
    inputs: pl.DataFrame,
    ledger: Ledger,
    *,
    progress: ProgressSink | None = None,
    budget: Budget | None = None,
    retry_failed: bool = False,
) -> StepReport:
    """:func:`curation.streaming.run_stream` in a process of its own; the same arguments, result and errors."""
    progress, budget = progress or SilentProgress(), budget or Budget()
    journal = journal_path(ledger.workspace, step.key)
    left_over = journal.exists() and journal.stat().st_size > 0
    if (
        not left_over
        and not retry_failed
        and ledger.missing(step.key, inputs.select(step.key.id_column)).is_empty()
    ):
        return run_stream(step, inputs, ledger, progress=progress, budget=budget)
    with tempfile.TemporaryDirectory(prefix="curation-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "inputs.arrow"
        inputs.write_ipc(path, compat_level=pl.CompatLevel.oldest(), record_batch_size=_ROWS_WRITTEN_AT_ONCE)
        del inputs
        order = {
            "step": step.spec,
            "inputs": str(path),
            "workspace": [ledger.workspace.url, ledger.workspace.storage_options],
            "budget": [budget.limit, budget.spent, budget.currency],
            "retry_failed": retry_failed,
        }
        return _follow(order, step.name, progress, budget)


def _follow(order: dict[str, Any], name: str, progress: ProgressSink, budget: Budget) -> StepReport:
    """Start the sender and show what it says, until it is done."""
    command = [sys.executable, "-m", "curation.sender"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        _say(process.stdin, order)
        with interrupts() as interrupted:
            return _listen(process.stdin, _Lines(process.stdout), name, progress, budget, interrupted)
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        status = process.wait()
        process.stdout.close()
        if status < 0:
            progress.note(f"{name}: the process that sends requests was ended by signal {-status}")


def _listen(
    stdin: IO[bytes],
    said: _Lines,
    name: str,
    progress: ProgressSink,
    budget: Budget,
    interrupted: Callable[[], bool],
) -> StepReport:
    stop_sent = False
    with contextlib.ExitStack() as stack:
        bar: Any = None
        while True:
            if interrupted() and not stop_sent:
                stop_sent = True
                with contextlib.suppress(BrokenPipeError):
                    _say(stdin, {"stop": True})
            try:
                line = said.get(timeout=_LOOK_EVERY)
            except queue.Empty:
                continue
            if line is None:
                raise ModelError(f"the process that sends the requests of {name} ended early. {KEPT}")
            if "note" in line:
                progress.note(line["note"])
            elif "total" in line:
                bar = stack.enter_context(progress.step(name, line["total"]))
            elif "advance" in line:
                bar.advance(*line["advance"])
            elif "spent" in line:
                budget.spent = line["spent"]
            elif "error" in line:
                raise _error(*line["error"])
            else:
                return StepReport(**line["report"])


class _Lines:
    """What the sender says, a line at a time.

    Without a thread that reads: Python waits for ever for one that finds no memory to begin with.
    """

    def __init__(self, stdout: IO[bytes]) -> None:
        self._pipe, self._data = stdout.fileno(), b""

    def get(self, *, timeout: float) -> dict[str, Any] | None:
        """The next line; None at the end.

        Raises:
            queue.Empty: when none comes in time.
        """
        while b"\n" not in self._data:
            if not select.select([self._pipe], [], [], timeout)[0]:
                raise queue.Empty
            more = os.read(self._pipe, _READ_AT_ONCE)
            if not more:
                return None
            self._data += more
        line, _, self._data = self._data.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said


def _error(name: str, message: str) -> CurationError:
    kind = getattr(errors, name)
    error: CurationError = kind.__new__(kind)
    Exception.__init__(error, message)
    return error


def _say(pipe: IO[bytes], message: dict[str, Any]) -> None:
    pipe.write(json.dumps(message).encode() + b"\n")
    pipe.flush()


# ---- the sender's side -------------------------------------------------------------------------------------


class _Report:
    """Progress as lines for the run; nobody may be there to read them any more."""

    def __init__(self) -> None:
        self._out = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._out, json.dumps(message).encode() + b"\n")

    def note(self, message: str) -> None:
        self.say({"note": message})

    @contextlib.contextmanager
    def step(self, name: str, total: int | None) -> Iterator[_Report]:
        self.say({"total": total})
        yield self

    def advance(self, rows: int, tokens: int = 0, cost: float = 0.0) -> None:
        self.say({"advance": [rows, tokens, cost]})


def main() -> int:
    """Do what standard input asks for."""
    limit_waits()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    order = json.loads(_line_of_stdin())
    report = _Report()
    url, storage_options = order["workspace"]
    ledger = Ledger(Workspace(url, storage_options=storage_options, create=False))
    module, _, function = order["step"][0].partition(":")
    step: StreamStep = getattr(importlib.import_module(module), function)(**order["step"][1])
    draining = draining_marker(ledger.workspace, step.key, os.getpid())
    stop = _until_told(draining)
    budget = Budget(*order["budget"])
    try:
        done = run_stream(
            step,
            _inputs(Path(order["inputs"])),
            ledger,
            progress=report,
            budget=budget,
            retry_failed=order["retry_failed"],
            interrupted=stop.is_set,
        )
        report.say({"spent": budget.spent})
        report.say({"report": done._asdict()})
    except CurationError as error:
        report.say({"spent": budget.spent})
        report.say({"error": [type(error).__name__, str(error)]})
    finally:
        draining.unlink(missing_ok=True)
    return 0


def _inputs(path: Path) -> pl.DataFrame:
    """The rows; their file goes away now, for a run that is killed clears nothing up."""
    frame = pl.read_ipc(path)
    path.unlink()
    with contextlib.suppress(OSError):
        path.parent.rmdir()
    return frame


def _line_of_stdin() -> bytes:
    """A line, without a buffer: its lock would be held by the thread that waits here when the process ends."""
    line = b""
    while not line.endswith(b"\n") and (more := os.read(0, 1)):
        line += more
    return line


def _until_told(draining: Path) -> threading.Event:
    """An event that is set when the run says stop, or is gone; in that case the next run is told to wait."""
    stop = threading.Event()

    def listen() -> None:
        if not _line_of_stdin():
            draining.parent.mkdir(parents=True, exist_ok=True)
            draining.write_text(f"process {os.getpid()}\n")
        stop.set()

    threading.Thread(target=listen, name="run-is-there", daemon=True).start()
    return stop


if __name__ == "__main__":
    sys.exit(main())
