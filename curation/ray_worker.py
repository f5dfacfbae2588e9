"""What runs on the nodes of a Ray cluster: a worker that holds one step's model, and the gate that counts.

A worker gets the step, which is a few hundred bytes of options, and loads the model itself, at the commit that the
run has named for its key: a branch of the Hub may have moved on since. Batches travel as
Arrow IPC bytes, so a frame comes out as it went in: no type is guessed on the way. How batches get to workers and
what becomes of their results is in :mod:`curation.engine_ray`. Ray is imported only where it runs.
"""

from __future__ import annotations

import io
import os
import traceback
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

import polars as pl

from curation.batch_limits import is_out_of_memory, opening, watched
from curation.engine import Batch, Mapped, Worker
from curation.errors import CurationError
from curation.models.identity import pin_commits
from curation.models.judging import ReadBefore, reading

__all__ = ["Caught", "Gate", "Result", "StepWorker", "frame_bytes", "frame_from", "result_from"]

_GO: Final = "go"
_NOT_READ: Final = ReadBefore(known=False)


class Result(NamedTuple):
    """What came back of one batch."""

    number: int
    status: str
    """``done``, ``stopped`` (not begun: the run is ending), ``gave_up``, ``too_long`` or ``error``."""
    batch: Batch | None
    error: tuple[str, str] | None
    """The name of an error of ours, and its message."""


class Gate:
    """An actor of the run's own: each worker asks here before it begins a batch.

    It is how a run stops without losing a batch that is under way, and why a batch that kills its worker is not
    tried for ever.
    """

    def __init__(self, attempts: int, read: ReadBefore = _NOT_READ) -> None:
        self._attempts = attempts
        self._read, self._read_now = read, set[str]()
        self._stopped = False
        self._begun: Counter[int] = Counter()
        self._too_long: set[int] = set()

    def begin(self, number: int) -> str:
        """``go``, ``stopped``, ``too_long`` or ``gave_up``."""
        if number in self._too_long:
            return "too_long"
        if self._stopped:
            return "stopped"
        if self._begun[number] >= self._attempts:
            return "gave_up"
        self._begun[number] += 1
        return _GO

    def took_too_long(self, number: int) -> None:
        """A batch that is not tried again: it would take as long."""
        self._too_long.add(number)

    def could_be(self, judge: str) -> bool:
        """See ``curation.models.judging.Read``: by any worker."""
        return judge in self._read_now or self._read.could_be(judge)

    def can_be(self, judge: str) -> None:
        """See ``curation.models.judging.Read``."""
        self._read_now.add(judge)

    def begun(self) -> int:
        """How many batches have been begun."""
        return len(self._begun)

    def stop(self) -> list[int]:
        """From now on no batch is begun. Returns those that have been."""
        self._stopped = True
        return list(self._begun)


class _ReadByAny:
    """See ``curation.models.judging.Read``: what the gate knows of all workers."""

    def __init__(self, gate: Any) -> None:
        self._gate = gate

    def could_be(self, judge: str) -> bool:
        import ray

        return bool(ray.get(self._gate.could_be.remote(judge)))

    def can_be(self, judge: str) -> None:
        self._gate.can_be.remote(judge)


class StepWorker:
    """One step's model in a process of its own; Ray Data calls it with a batch at a time."""

    def __init__(
        self,
        step: Mapped,
        gate: Any,
        timeout: float | None = None,
        commits: Mapping[tuple[str, str | None], str] | None = None,
    ) -> None:
        pin_commits(commits or {})
        self._step, self._gate, self._timeout = step, gate, timeout
        self._worker: Worker | None = None

    def __call__(self, packed: Any) -> Any:
        import ray

        number = int(packed["number"][0].as_py())
        verdict = ray.get(self._gate.begin.remote(number))
        if verdict != _GO:
            return _packed(number, verdict)
        batch: Batch | None = None
        with Caught() as caught:
            rows = frame_from(packed["rows"][0].as_py())

            def ended(message: str) -> None:
                ray.get(self._gate.took_too_long.remote(number))

            if self._worker is None:
                with opening(self._step.name, self._timeout, ended=ended), reading(_ReadByAny(self._gate)):
                    self._worker = self._step.open()
            with watched(self._step.name, rows.height, self._timeout, ended=ended), reading(_ReadByAny(self._gate)):
                batch = self._worker(rows)
        if caught.error is not None:
            if is_out_of_memory(caught.error):
                os._exit(1)  # a process without memory is not used again: Ray starts another one for this batch
            return _packed(number, "error", error=_named(caught.error))
        return _packed(number, "done", batch)


class Caught:
    """Keeps an exception of another thread or process for the run, which raises it in its own words."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> Caught:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error
        return isinstance(error, Exception)


def _named(error: BaseException) -> tuple[str, str]:
    """An error of ours by its name and message; of any other one where it was raised, and its message."""
    message = " ".join(str(error).split())
    if isinstance(error, CurationError):
        return type(error).__name__, message
    last = traceback.extract_tb(error.__traceback__)[-1]
    return type(error).__name__, f"{Path(last.filename).name}:{last.lineno}: {message[:300]}"


def frame_bytes(frame: pl.DataFrame) -> bytes:
    """A frame as bytes."""
    return bytes(frame.write_ipc_stream(None).getbuffer())


def frame_from(data: bytes) -> pl.DataFrame:
    """The frame that :func:`frame_bytes` made these bytes of."""
    return pl.read_ipc_stream(io.BytesIO(data))


def _packed(number: int, status: str, batch: Batch | None = None, *, error: tuple[str, str] | None = None) -> Any:
    """A result as an Arrow table of one row: what Ray Data carries."""
    import pyarrow as pa

    name, message = error or (None, None)
    columns = {
        "number": pa.array([number], pa.int64()),
        "status": pa.array([status], pa.string()),
        "rows": pa.array([None if batch is None else frame_bytes(batch.rows)], pa.binary()),
        "failures": pa.array([None if batch is None else frame_bytes(batch.failures)], pa.binary()),
        "tokens": pa.array([0 if batch is None else batch.tokens], pa.int64()),
        "cost": pa.array([0.0 if batch is None else batch.cost], pa.float64()),
        "error": pa.array([name], pa.string()),
        "message": pa.array([message], pa.string()),
    }
    return pa.table(columns)


def result_from(packed: Any) -> list[Result]:
    """The results in a table that came back."""
    return [_result(row) for row in packed.to_pylist()]


def _result(row: dict[str, Any]) -> Result:
    batch = None
    if row["rows"] is not None:
        batch = Batch(frame_from(row["rows"]), frame_from(row["failures"]), row["tokens"], row["cost"])
    error = None if row["error"] is None else (row["error"], row["message"])
    return Result(row["number"], row["status"], batch, error)
