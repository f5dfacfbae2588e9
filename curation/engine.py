"""The engine: maps a step over the rows that the ledger lacks, batch by batch.

A step is a small frozen value that can be sent to another process; its worker holds the model. Engines
differ in where workers run, and steps know nothing of them. Only ``local`` is here; the other one is
:mod:`curation.engine_ray`, and what they share, :func:`run_step`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import polars as pl

from curation.batch_limits import memory_named, opening, watched
from curation.errors import InterruptedRun
from curation.interrupts import interrupts
from curation.ledger import Ledger, LedgerKey
from curation.lifetimes import ending_what_begins
from curation.progress import ProgressSink, SilentProgress

__all__ = [
    "FAILURE_COLUMNS",
    "Batch",
    "Done",
    "Mapped",
    "Mapping",
    "Step",
    "StepReport",
    "Worker",
    "failures_frame",
    "run_local",
    "run_step",
    "with_known",
]

FAILURE_COLUMNS = {
    "row_id": pl.String,
    "item_id": pl.String,
    "rule": pl.String,
    "value": pl.String,
    "reason": pl.String,
}


class Batch(NamedTuple):
    """What a worker made of a batch.

    Each input row is in one of the two, never in neither; in both where a part of it is missing.
    """

    rows: pl.DataFrame
    failures: pl.DataFrame
    """columns of ``FAILURE_COLUMNS``."""
    tokens: int = 0
    cost: float = 0.0


class Worker(Protocol):
    """A loaded model, ready for batches."""

    def __call__(self, batch: pl.DataFrame) -> Batch: ...


class Mapped(Protocol):
    """What can be made of a frame batch by batch, wherever a worker is."""

    @property
    def name(self) -> str: ...

    @property
    def batch_rows(self) -> int: ...

    def open(self) -> Worker:
        """Load the model. Called at most once a worker, and only when rows are missing."""
        ...


class Step(Mapped, Protocol):
    """What an engine must know of a step.

    A step may have ``known_columns``, columns of its table: where a row is computed again because a part of it
    failed, its worker finds them as ``known_<column>`` in the batch, null for other rows, and need not ask anew.
    """

    @property
    def key(self) -> LedgerKey: ...


class StepReport(NamedTuple):
    """What a step did."""

    name: str
    producer: str
    computed: int
    reused: int
    failed: int
    twice: int
    seconds: float
    tokens: int
    cost: float = 0.0
    estimated: int = 0
    """How many of the tokens no server counted: so many they were at most."""


def failures_frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Failures from plain rows; no rows give an empty frame with the right columns."""
    return pl.DataFrame(rows, schema=FAILURE_COLUMNS)


class Done(NamedTuple):
    """Some rows of a step that have been through a worker."""

    rows: int
    batch: Batch


class Mapping(Protocol):
    """Where and how batches go through workers: what engines differ in."""

    def __call__(self, step: Step, missing: pl.DataFrame, interrupted: Callable[[], bool]) -> Iterator[Done]:
        """Results of all rows, in any order; once ``interrupted`` says so, of what is under way and no more."""
        ...


def run_local(
    step: Step,
    inputs: pl.DataFrame,
    ledger: Ledger,
    *,
    progress: ProgressSink | None = None,
    timeout: float | None = None,
    again: pl.DataFrame | None = None,
) -> StepReport:
    """Compute what is missing of ``inputs`` in this process; every finished batch is kept at once.

    Args:
        inputs: has the id column of ``step.key`` and whatever the worker reads.
        again: rows of the ledger that are computed anew; each stays until its new one is there.
        timeout: seconds that a batch may take; None for no limit.

    Raises:
        InterruptedRun: after Ctrl-C; the batch under way was finished and kept.
        ModelError: when a batch took too long, or memory ran out; what was finished before is kept.
        WorkspaceError: when another run computes the same step, or a batch cannot be written.
    """

    def here(step: Step, missing: pl.DataFrame, interrupted: Callable[[], bool]) -> Iterator[Done]:
        with ending_what_begins():
            with memory_named(step.name, None), opening(step.name, timeout):
                worker = step.open()
            for batch in missing.iter_slices(step.batch_rows):
                with memory_named(step.name, batch.height), watched(step.name, batch.height, timeout):
                    done = worker(batch)
                yield Done(batch.height, done)
                if interrupted():
                    return

    return run_step(step, inputs, ledger, mapping=here, progress=progress, again=again)


def run_step(
    step: Step,
    inputs: pl.DataFrame,
    ledger: Ledger,
    *,
    mapping: Mapping,
    progress: ProgressSink | None = None,
    again: pl.DataFrame | None = None,
) -> StepReport:
    """:func:`run_local` with workers wherever ``mapping`` has them."""
    progress = progress or SilentProgress()
    started = time.monotonic()
    key = step.key
    with ledger.workspace.lock(key.table):
        missing = ledger.missing(key, inputs)
        replaced = pl.Series([], dtype=pl.String)
        if again is not None and not again.is_empty():
            missing, replaced = with_known(step, inputs, missing, again), again[key.id_column]
        wanted = inputs[key.id_column].n_unique()
        computed = failed = twice = tokens = 0
        cost = 0.0
        if not missing.is_empty():
            with progress.step(step.name, missing.height) as bar, interrupts() as interrupted:
                for rows, result in mapping(step, missing, interrupted):
                    done = ledger.append(key, result.rows, result.failures, replaced=replaced)
                    computed += done.added
                    failed += result.failures.height + done.invalid
                    twice += done.twice
                    tokens += result.tokens
                    cost += result.cost
                    bar.advance(rows, result.tokens, result.cost)
                    ledger.compact(key)
                if interrupted():
                    raise InterruptedRun.after(step.name, done=computed + failed, total=missing.height)
        if twice:
            progress.note(f"{step.name}: {twice:,} rows were computed by another run at the same time")
    seconds = time.monotonic() - started
    return StepReport(
        step.name, key.producer, computed, wanted - missing.height, failed, twice, seconds, tokens, cost
    )


def with_known(step: Step, inputs: pl.DataFrame, missing: pl.DataFrame, again: pl.DataFrame) -> pl.DataFrame:
    """What is missing, then the rows that are computed again, beside what is known of them."""
    id_column = step.key.id_column
    columns = getattr(step, "known_columns", ())
    known = again.select(id_column, *(pl.col(name).alias(f"known_{name}") for name in columns))
    rows = inputs.unique(id_column, keep="first", maintain_order=True)
    rows = rows.join(known, on=id_column, how="inner", maintain_order="left")
    return pl.concat([missing, rows], how="diagonal")
