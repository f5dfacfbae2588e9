"""A run as lines of JSON, for those who collect logs: run, stage, step and batch. Off unless it is asked for.

``CURATION_LOG`` says where lines go: ``stderr``, ``workspace`` (``<workspace>/logs/<run_id>.jsonl``) or a file. No
line holds a text, an identifier of a row or an error's message: counts, names and seconds only. What a person
watches is ``curation.progress``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from curation.errors import InputError, WorkspaceError
from curation.progress import ProgressSink, StepProgress
from curation.stages.context import Context, StageResult
from curation.workspace import Workspace

__all__ = ["LOG_VARIABLE", "RunLog", "log_of_run", "stage_logged"]

LOG_VARIABLE: Final = "CURATION_LOG"
_current: ContextVar[RunLog | None] = ContextVar("curation_run_log", default=None)


class RunLog:
    """Where lines go. A line is written at once and whole, so that several processes may share a file."""

    def __init__(self, target: int, **bound: Any) -> None:
        self._target, self._bound = target, bound

    def bind(self, **more: Any) -> RunLog:
        """The same log with more said on every line."""
        return RunLog(self._target, **self._bound, **more)

    def write(self, event: str, **facts: Any) -> None:
        """Add a line; one that cannot be written is lost, and the run goes on."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "event": event, **self._bound, **facts}
        try:
            os.write(self._target, json.dumps(line).encode() + b"\n")
        except OSError:
            return


@contextmanager
def log_of_run(workspace: Workspace, run_id: str, *, recipe: str) -> Iterator[RunLog | None]:
    """The log of a run, where CURATION_LOG asks for one; its first and last line are written here.

    Raises:
        InputError, WorkspaceError: when lines cannot go where it says.
    """
    where = os.environ.get(LOG_VARIABLE, "")
    if not where:
        yield None
        return
    target = sys.stderr.fileno() if where == "stderr" else _opened(workspace, where, run_id)
    log, started = RunLog(target, run=run_id), time.monotonic()
    token = _current.set(log)
    log.write("run started", recipe=recipe, workspace=workspace.url, process=os.getpid())
    outcome = "done"
    try:
        yield log
    except BaseException as error:
        outcome = type(error).__name__
        raise
    finally:
        _current.reset(token)
        log.write("run ended", outcome=outcome, seconds=round(time.monotonic() - started, 3))
        if where != "stderr":
            os.close(target)


@contextmanager
def stage_logged(context: Context, stage: str) -> Iterator[list[StageResult | None]]:
    """Log a stage, and the batches of its steps. The caller puts the stage's result into the list."""
    found: list[StageResult | None] = []
    log = _current.get()
    if log is None:
        yield found
        return
    log, progress, reported = log.bind(stage=stage), context.progress, len(context.reports)
    context.progress = _Logged(progress, log)
    started, outcome = time.monotonic(), "done"
    log.write("stage started")
    try:
        yield found
    except BaseException as error:
        outcome = type(error).__name__
        raise
    finally:
        context.progress = progress
        reports = context.reports[reported:]
        for report in reports:
            log.write(
                "step ended", step=report.name, producer=report.producer, computed=report.computed,
                reused=report.reused, failed=report.failed, tokens=report.tokens, cost=report.cost,
                seconds=round(report.seconds, 3),
            )  # fmt: skip
        result = next(iter(found), None)
        counts = {} if result is None else {"rows": result.rows, "rejected": result.rejected}
        log.write("stage ended", outcome=outcome, seconds=round(time.monotonic() - started, 3), **counts)


class _Logged:
    """A progress sink that also logs; what it shows is another's business."""

    def __init__(self, shown: ProgressSink, log: RunLog) -> None:
        self._shown, self._log = shown, log

    @contextmanager
    def step(self, name: str, total: int | None) -> Iterator[StepProgress]:
        log = self._log.bind(step=name)
        log.write("step started", total=total)
        with self._shown.step(name, total) as bar:
            yield _Batches(bar, log)

    def note(self, message: str) -> None:
        self._shown.note(message)


class _Batches:
    def __init__(self, bar: StepProgress, log: RunLog) -> None:
        self._bar, self._log, self._batch, self._at = bar, log, 0, time.monotonic()

    def advance(self, rows: int, tokens: int = 0, cost: float = 0.0) -> None:
        self._bar.advance(rows, tokens, cost)
        self._batch += 1
        now = time.monotonic()
        self._log.write(
            "batch", batch=self._batch, rows=rows, tokens=tokens, cost=cost, seconds=round(now - self._at, 3)
        )
        self._at = now


def _opened(workspace: Workspace, where: str, run_id: str) -> int:
    if where == "workspace" and not workspace.is_local:
        raise InputError(
            f"{LOG_VARIABLE} is 'workspace', and {workspace.url} is an object store, whose files cannot grow: "
            f"give stderr or a file on this machine"
        )
    path = Path(workspace.path("logs", f"{run_id}.jsonl") if where == "workspace" else where)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise WorkspaceError(f"cannot write the log {path}: {error}; {LOG_VARIABLE} says where it goes") from error
