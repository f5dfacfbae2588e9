"""A streaming step as one of batches, for an engine whose workers are elsewhere: models in process, not servers.

What such a model answers costs time and no money, so a batch is kept when all of it is there. Where answers are
paid for one by one, :mod:`curation.streaming` keeps each as it comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from curation.engine import Batch, Worker, failures_frame
from curation.ledger import LedgerKey
from curation.streaming import Budget, Stream, StreamStep
from schemas import TABLES

__all__ = ["InBatches", "is_limited"]

_ROWS: Final = 64


@dataclass(frozen=True)
class InBatches:
    """See ``curation.engine.Step``."""

    step: StreamStep

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def key(self) -> LedgerKey:
        return self.step.key

    @property
    def batch_rows(self) -> int:
        return int(getattr(self.step, "batch_rows", _ROWS))

    def open(self) -> Worker:
        return _Collecting(self.step.key, self.step.open())


@dataclass
class _Collecting:
    key: LedgerKey
    stream: Stream

    def __call__(self, batch: pl.DataFrame) -> Batch:
        arrivals = list(self.stream(batch.iter_rows(named=True)))
        empty = TABLES[self.key.table].create_empty().drop(self.key.producer_column)
        rows = pl.DataFrame([a.row for a in arrivals if a.row is not None], schema=empty.schema)
        failures: list[dict[str, Any]] = [a.failure for a in arrivals if a.failure is not None]
        return Batch(rows, failures_frame(failures), sum(a.tokens for a in arrivals), sum(a.cost for a in arrivals))


def is_limited(step: StreamStep, inputs: pl.DataFrame, budget: Budget | None) -> bool:
    """Whether the next answer could be one too many: then they are counted one by one."""
    if budget is None or budget.limit is None or inputs.is_empty():
        return False
    return step.most(inputs.row(0, named=True)) > 0
