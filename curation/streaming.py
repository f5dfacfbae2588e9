"""The engine for steps whose results are paid for one by one: each is kept the moment it arrives.

Rows are fed to the step's worker as it takes them, results come back in any order and go to the journal at once,
and from there to the ledger in groups (:mod:`curation.journal_to_ledger`). How batches are computed is
:mod:`curation.engine`; what a journal is, :mod:`curation.journal`; that a step may not cost too much is here, what
an answer costs is the step's business.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import polars as pl

from curation.batch_limits import each_watched, memory_named, opening
from curation.engine import StepReport
from curation.errors import BudgetReached, InterruptedRun
from curation.interrupts import interrupts
from curation.journal import Journal, journal_path
from curation.journal_to_ledger import recover, table_locked, to_ledger
from curation.ledger import Ledger, LedgerKey
from curation.lifetimes import ending_what_begins
from curation.progress import CalmBar, ProgressSink, SilentProgress, StepProgress

__all__ = ["Arrival", "Budget", "Stream", "StreamStep", "run_stream"]

_ROWS_IN_JOURNAL: Final = 5_000
_SECONDS_IN_JOURNAL: Final = 60.0
_FED_AT_ONCE: Final = 1_000


class Arrival(NamedTuple):
    """What became of one row. One of ``row`` and ``failure`` is None."""

    id: str
    row: dict[str, Any] | None
    """plain values for the ledger table's columns, without the producer."""
    failure: dict[str, Any] | None
    """``row_id, item_id, rule, value, reason``."""
    tokens: int = 0
    cost: float = 0.0


class Stream(Protocol):
    """A model, ready for rows."""

    def __call__(self, rows: Iterable[dict[str, Any]]) -> Iterator[Arrival]:
        """One arrival for each row, in any order; rows are taken only as room for them comes free."""
        ...


class StreamStep(Protocol):
    """What this engine must know of a step."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> LedgerKey: ...

    def open(self) -> Stream:
        """Get the model ready. Called at most once, and only when rows are missing."""
        ...

    def most(self, row: Mapping[str, Any]) -> float:
        """What this row can cost at most."""
        ...


@dataclass
class Budget:
    """What may be spent, over several steps.

    Attributes:
        limit: None for no limit.
        spent: so far, earlier runs included.
    """

    limit: float | None = None
    spent: float = 0.0
    currency: str = "USD"


def run_stream(
    step: StreamStep,
    inputs: pl.DataFrame,
    ledger: Ledger,
    *,
    progress: ProgressSink | None = None,
    budget: Budget | None = None,
    retry_failed: bool = False,
    interrupted: Callable[[], bool] | None = None,
    timeout: float | None = None,
) -> StepReport:
    """Get what is missing of ``inputs``; every result is kept when it arrives.

    Args:
        inputs: has the id column of ``step.key`` and whatever the worker reads.
        budget: what may be spent; what is spent is added to it.
        retry_failed: try rows again that failed before.
        interrupted: asked before each row whether to stop; by default, whether Ctrl-C was pressed.
        timeout: seconds that the next result may take, for a model in this process; None for no limit.

    Raises:
        BudgetReached: before the limit is exceeded; what arrived is kept.
        InterruptedRun: after Ctrl-C; what was under way has been waited for and is kept.
        ModelError: when no row can succeed, none came in time, or memory ran out; what arrived is kept.
        WorkspaceError: when another run computes the same step, or a result cannot be written.
    """
    progress = progress or SilentProgress()
    started, budget = time.monotonic(), budget or Budget()
    key = step.key
    with table_locked(ledger.workspace, key, progress), Journal(journal_path(ledger.workspace, key)) as journal:
        recovered = recover(journal, ledger, key)
        budget.spent += recovered.cost
        if recovered.kept:
            progress.note(f"{step.name}: {recovered.kept:,} answers of a run that was cut short were kept")
        if recovered.damaged:
            progress.note(
                f"{step.name}: {recovered.damaged:,} lines of {journal.path} are damaged: the answers in them are "
                f"lost, and are asked for again"
            )
        if retry_failed:
            ledger.forget_failures(key)
        missing = ledger.missing(key, inputs)
        wanted = inputs[key.id_column].n_unique()
        del inputs  # where nobody else holds them, a million prompts need not be held twice
        run = _Run(step, ledger, journal, budget, missing.height, timeout)
        if not missing.is_empty():
            with progress.step(step.name, missing.height) as bar, interrupts() as ctrl_c, ending_what_begins():
                run.all(missing, bar, progress, interrupted or ctrl_c)
    seconds = time.monotonic() - started
    return StepReport(
        step.name, key.producer, run.computed, wanted - missing.height, run.failed, 0, seconds, run.tokens, run.cost
    )


@dataclass
class _Run:
    """One run over what is missing."""

    step: StreamStep
    ledger: Ledger
    journal: Journal
    budget: Budget
    total: int
    timeout: float | None = None
    computed: int = 0
    failed: int = 0
    tokens: int = 0
    cost: float = 0.0
    _under_way: dict[str, float] = field(default_factory=dict)
    _most_under_way: float = 0.0
    _kept: list[dict[str, Any]] = field(default_factory=list)
    _held_back: dict[str, Any] | None = None
    _fed: int = 0
    _stopped: bool = False
    _moved: float = field(default_factory=time.monotonic)
    _projected: bool = False

    def all(self, missing: pl.DataFrame, bar: StepProgress, progress: ProgressSink, interrupted: Any) -> None:
        with memory_named(self.step.name, None), opening(self.step.name, self.timeout):
            worker = self.step.open()
        rows = (row for part in missing.iter_slices(_FED_AT_ONCE) for row in part.iter_rows(named=True))
        shown = CalmBar(bar)
        try:
            while True:
                before = self._fed
                with memory_named(self.step.name, None):
                    arrivals = worker(self._feed(rows, interrupted))
                    for arrival in each_watched(arrivals, self.step.name, self.timeout):
                        self._keep(arrival)
                        shown.advance(1, arrival.tokens, arrival.cost)
                        self._project(progress)
                if self._held_back is None or self._stopped or self._fed == before:
                    break
        finally:
            self._move()
            shown.flush()
        self.ledger.workspace.check_ours()
        if self._stopped:
            raise InterruptedRun.after(self.step.name, done=self._done, total=self.total)
        if self._held_back is not None:
            left, currency = self.step.most(self._held_back), self.budget.currency
            raise BudgetReached(
                f"stopped in {self.step.name} after {self._done:,} of {self.total:,} rows, before max_cost "
                f"{self.budget.limit:g} {currency} is exceeded: {self.budget.spent:.6g} is spent and the next "
                f"answer can cost {left:.3g}; raise max_cost to go on, nothing is paid for again"
            )

    @property
    def _done(self) -> int:
        return self.computed + self.failed

    def _feed(self, rows: Iterator[dict[str, Any]], interrupted: Any) -> Iterator[dict[str, Any]]:
        """Rows for the worker, as long as even the dearest end of what is under way is within the budget."""
        while True:
            if interrupted():
                self._stopped = True
                return
            if self.ledger.workspace.is_taken:
                return  # The other run asks as well; what is under way is waited for.
            row = self._held_back or next(rows, None)
            if row is None:
                return
            most = self.step.most(row)
            limit = self.budget.limit
            # What costs nothing is never held back, also where what broke off has taken the run past its limit.
            if limit is not None and most and self.budget.spent + self._most_under_way + most > limit:
                self._held_back = row
                return
            self._held_back = None
            self._under_way[row[self.step.key.id_column]] = most
            self._most_under_way += most
            self._fed += 1
            yield row

    def _keep(self, arrival: Arrival) -> None:
        """To the journal, before anything else is done with it."""
        entry = {"row": arrival.row} if arrival.row is not None else {"failure": arrival.failure}
        self.journal.append(entry)
        self._kept.append(entry)
        self._most_under_way -= self._under_way.pop(arrival.id)
        if not self._under_way:
            self._most_under_way = 0.0
        self.computed += arrival.row is not None
        self.failed += arrival.row is None
        self.tokens += arrival.tokens
        self.cost += arrival.cost
        self.budget.spent += arrival.cost
        if len(self._kept) >= _ROWS_IN_JOURNAL or time.monotonic() - self._moved > _SECONDS_IN_JOURNAL:
            self._move()

    def _move(self) -> None:
        """What the journal holds goes to the ledger."""
        if self._kept:
            self.journal.sync()
            invalid = to_ledger(self.ledger, self.step.key, self._kept)
            self.computed -= invalid
            self.failed += invalid
            self.journal.clear()
            self.ledger.compact(self.step.key)
            self._kept = []
        self._moved = time.monotonic()

    def _project(self, progress: ProgressSink) -> None:
        """After the first per cent: what the whole step will cost."""
        if self._projected or self._done < math.ceil(self.total / 100):
            return
        self._projected = True
        if self.cost > 0:
            whole = self.cost / self._done * self.total
            progress.note(
                f"{self.step.name}: {self._done:,} of {self.total:,} rows cost {self.cost:.4g} "
                f"{self.budget.currency}; all of them will cost about {whole:.4g}"
            )
