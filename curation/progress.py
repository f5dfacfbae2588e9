"""Progress of long steps: what a person sees while they run. Nothing is computed here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

__all__ = ["CalmBar", "LogProgress", "ProgressSink", "RichProgress", "SilentProgress", "StepProgress"]

_SECONDS_BETWEEN_MOVES: Final = 0.2


class StepProgress(Protocol):
    """The progress of one step."""

    def advance(self, rows: int, tokens: int = 0, cost: float = 0.0) -> None:
        """Say that ``rows`` more rows, of ``tokens`` tokens and ``cost`` together, are done and kept."""
        ...


class ProgressSink(Protocol):
    """Where progress is shown."""

    @contextmanager
    def step(self, name: str, total: int | None) -> Iterator[StepProgress]:
        """Open a step of ``total`` rows; None where nobody knows yet."""
        ...

    def note(self, message: str) -> None: ...


class SilentProgress:
    """Shows nothing."""

    @contextmanager
    def step(self, name: str, total: int | None) -> Iterator[StepProgress]:
        yield _Counter(lambda rows, tokens, cost: None)

    def note(self, message: str) -> None:
        pass


class RichProgress:
    """A bar on the terminal: rows, rows/s, time left, and tokens/s where there are tokens."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    @contextmanager
    def step(self, name: str, total: int | None) -> Iterator[StepProgress]:
        # The bar is what gives way in a narrow terminal, for numbers that are cut off say something else.
        columns: list[ProgressColumn] = [
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=None, table_column=Column(max_width=28)),
            TextColumn(
                "{task.completed:,.0f} rows" if total is None else "{task.completed:,.0f}/{task.total:,.0f}"
            ),
            TextColumn("{task.fields[rates]}"),
            TimeElapsedColumn(Column(no_wrap=True)),
        ]
        if total is not None:
            columns += [TextColumn("left"), TimeRemainingColumn(table_column=Column(no_wrap=True))]
        with Progress(*columns, console=self.console, transient=False) as bar:
            task = bar.add_task(name, total=total, rates="")
            started, done, money = time.monotonic(), [0, 0], 0.0

            def advance(rows: int, tokens: int, cost: float) -> None:
                nonlocal money
                done[0] += rows
                done[1] += tokens
                money += cost
                seconds = time.monotonic() - started
                rates = f"{_speed(done[0], seconds)} rows/s"
                if done[1]:
                    rates += f" · {_speed(done[1], seconds)} tokens/s"
                if money:
                    rates += f" · cost {money:,.4g}"
                bar.update(task, advance=rows, rates=rates)

            try:
                yield _Counter(advance)
            except BaseException:
                # Of a step that never began, the error is all there is to see.
                bar.update(task, visible=bool(done[0]))
                raise

    def note(self, message: str) -> None:
        self.console.print(message, highlight=False, soft_wrap=True)


class LogProgress:
    """A line in a log at every tenth of a step: what the Dagster UI shows."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log

    @contextmanager
    def step(self, name: str, total: int | None) -> Iterator[StepProgress]:
        started, done, shown, money = time.monotonic(), 0, 0, 0.0

        def advance(rows: int, tokens: int, cost: float) -> None:
            nonlocal done, shown, money
            done += rows
            money += cost
            tenth = 10 * done // max(total or done, 1)
            if tenth > shown:
                shown = tenth
                rate = _speed(done, time.monotonic() - started)
                spent = f", cost {money:,.4g}" if money else ""
                self._log(f"{name}: {done:,} of {total or done:,} rows, {rate} rows/s{spent}")

        yield _Counter(advance)

    def note(self, message: str) -> None:
        self._log(message)


class CalmBar:
    """Moves a step's progress a few times a second, however fast results arrive; :meth:`flush` shows the rest."""

    def __init__(self, bar: StepProgress) -> None:
        self._bar = bar
        self._rows, self._tokens, self._cost, self._at = 0, 0, 0.0, 0.0

    def advance(self, rows: int, tokens: int = 0, cost: float = 0.0) -> None:
        self._rows += rows
        self._tokens += tokens
        self._cost += cost
        if time.monotonic() - self._at >= _SECONDS_BETWEEN_MOVES:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._bar.advance(self._rows, self._tokens, self._cost)
        self._rows, self._tokens, self._cost, self._at = 0, 0, 0.0, time.monotonic()


class _Counter:
    def __init__(self, advance: Callable[[int, int, float], None]) -> None:
        self._advance = advance

    def advance(self, rows: int, tokens: int = 0, cost: float = 0.0) -> None:
        self._advance(rows, tokens, cost)


def _speed(done: int, seconds: float) -> str:
    """How many a second; of a slow step with two digits, for a step that goes on is not at 0."""
    rate = done / max(seconds, 1e-9)
    return f"{rate:,.0f}" if rate >= 10 or not rate else f"{rate:.2g}"
