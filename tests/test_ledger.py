"""The ledger and the engine: every row once, through kills, failures, second runs and Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.engine import Batch, failures_frame, run_local
from curation.errors import InterruptedRun, WorkspaceError
from curation.ledger import Ledger, LedgerKey
from curation.text import content_hash
from curation.workspace import Workspace


def identifier(number: int) -> str:
    return content_hash("row", str(number))


def items(numbers: range | list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {"candidate_id": [identifier(n) for n in numbers], "number": list(numbers)},
        schema={"candidate_id": pl.String, "number": pl.Int64},
    )


@dataclass(frozen=True)
class Doubling:
    """A real step without a model: the reward of a number is twice the number; it logs each row it does."""

    log: Path
    producer: str = "doubling@1"
    batch_rows: int = 4
    failing: frozenset[int] = frozenset()
    pause: float = 0.0
    before_batch: Callable[[], None] | None = None

    @property
    def name(self) -> str:
        return "rewards"

    @property
    def key(self) -> LedgerKey:
        return LedgerKey("rewards", "candidate_id", "model", self.producer)

    def open(self) -> Doubling:
        with self.log.open("a") as file:
            file.write("open\n")
        return self

    def __call__(self, batch: pl.DataFrame) -> Batch:
        if self.before_batch:
            self.before_batch()
        with self.log.open("a") as file:
            file.writelines(f"{n}\n" for n in batch["number"])
        time.sleep(self.pause)
        bad = batch["number"].is_in(list(self.failing))
        rows = batch.filter(~bad).select("candidate_id", rewards=pl.concat_list(pl.col("number") * 2.0))
        failures = [
            {"row_id": c, "item_id": c, "rule": "odd", "value": None, "reason": "cannot"}
            for c in batch.filter(bad)["candidate_id"]
        ]
        return Batch(rows, failures_frame(failures))

    def calls(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


def contents(ledger: Ledger, step: Doubling) -> list[tuple[str, list[float]]]:
    rows = ledger.workspace.read("rewards").filter(pl.col("model") == step.producer)
    return sorted(rows.select("candidate_id", "rewards").rows())


def test_each_row_is_computed_once_over_two_runs(tmp_path: Path) -> None:
    ledger, step = Ledger(Workspace(tmp_path / "w")), Doubling(tmp_path / "log")
    first = run_local(step, items(range(10)), ledger)
    assert (first.computed, first.reused) == (10, 0)
    again = run_local(step, items(range(10)), ledger)
    assert (again.computed, again.reused) == (0, 10)
    assert step.calls() == ["open", *map(str, range(10))]


def test_the_model_is_not_opened_when_nothing_is_missing(tmp_path: Path) -> None:
    ledger, step = Ledger(Workspace(tmp_path / "w")), Doubling(tmp_path / "log")
    run_local(step, items([]), ledger)
    assert step.calls() == []


def test_added_rows_are_the_only_ones_computed(tmp_path: Path) -> None:
    ledger, step = Ledger(Workspace(tmp_path / "w")), Doubling(tmp_path / "log")
    run_local(step, items(range(100)), ledger)
    assert run_local(step, items(range(101)), ledger).computed == 1
    assert step.calls()[-1] == "100"


def test_equal_rows_are_computed_once(tmp_path: Path) -> None:
    ledger, step = Ledger(Workspace(tmp_path / "w")), Doubling(tmp_path / "log")
    assert run_local(step, items([1, 1, 2, 1]), ledger).computed == 2


def test_missing_rows_are_distinct_in_their_order_and_without_what_is_known(tmp_path: Path) -> None:
    ledger, step = Ledger(Workspace(tmp_path / "w")), Doubling(tmp_path / "log")
    every = items([3, 1, 3, 2, 1])
    assert ledger.missing(step.key, every)["number"].to_list() == [3, 1, 2]
    distinct = items([3, 1, 2])
    assert ledger.missing(step.key, distinct).equals(distinct)
    run_local(step, items([1]), ledger)
    assert ledger.missing(step.key, every)["number"].to_list() == [3, 2]


def test_another_producer_computes_its_own_rows(tmp_path: Path) -> None:
    ledger = Ledger(Workspace(tmp_path / "w"))
    old, new = Doubling(tmp_path / "log"), Doubling(tmp_path / "log", producer="doubling@2")
    run_local(old, items(range(3)), ledger)
    assert run_local(new, items(range(3)), ledger).computed == 3
    assert len(contents(ledger, old)) == len(contents(ledger, new)) == 3


def test_failures_are_kept_and_not_tried_again_until_asked(tmp_path: Path) -> None:
    ledger = Ledger(Workspace(tmp_path / "w"))
    step = Doubling(tmp_path / "log", failing=frozenset({3}))
    assert run_local(step, items(range(5)), ledger).failed == 1
    assert run_local(step, items(range(5)), ledger).computed == 0
    found = ledger.failures(step.key, items([3])["candidate_id"])
    assert found.select("rule", "reason").rows() == [("odd", "cannot")]
    ledger.forget_failures(step.key)
    assert run_local(Doubling(tmp_path / "log"), items(range(5)), ledger).computed == 1


def test_rows_that_break_the_schema_are_failures_with_their_rule(tmp_path: Path) -> None:
    ledger = Ledger(Workspace(tmp_path / "w"))
    step = Doubling(tmp_path / "log")
    rows = items([1, 2]).select("candidate_id", rewards=pl.Series([[1.0], [float("nan")]]))
    done = ledger.append(step.key, rows, failures_frame([]))
    assert (done.added, done.invalid) == (1, 1)
    assert ledger.failures(step.key, items([2])["candidate_id"]).height == 1


def test_a_batch_whose_rows_cannot_be_written_leaves_no_failure_behind(tmp_path: Path) -> None:
    ledger, step = Ledger(Workspace(tmp_path / "w")), Doubling(tmp_path / "log", failing=frozenset({1}))
    blocked = Path(ledger.workspace.table_path("rewards"))
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    with pytest.raises(WorkspaceError, match="cannot write"):
        run_local(step, items(range(3)), ledger)
    blocked.unlink()
    assert ledger.missing(step.key, items(range(3))).height == 3


def test_fetch_gives_each_row_once_in_the_order_asked(tmp_path: Path) -> None:
    ledger, step = Ledger(Workspace(tmp_path / "w")), Doubling(tmp_path / "log")
    run_local(step, items(range(9)), ledger)
    wanted = items([7, 3, 3, 5, 99])["candidate_id"]
    assert ledger.fetch(step.key, wanted)["candidate_id"].to_list() == [identifier(n) for n in (7, 3, 5)]


def test_compaction_changes_no_row(tmp_path: Path) -> None:
    ledger, step = Ledger(Workspace(tmp_path / "w")), Doubling(tmp_path / "log", batch_rows=1)
    run_local(step, items(range(70)), ledger)
    before = contents(ledger, step)
    ledger.compact(step.key, always=True)
    assert contents(ledger, step) == before
    assert ledger.workspace.file_count("rewards") == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_rows_that_another_run_adds_around_a_compaction_are_not_doubled(tmp_path: Path, when: str) -> None:
    ledger, step = Ledger(Workspace(tmp_path / "w")), Doubling(tmp_path / "log")
    rows = items([0, 1, 2, 3]).select("candidate_id", rewards=pl.Series([[0.0], [2.0], [4.0], [6.0]]))
    ledger.missing(step.key, items(range(4)))
    ledger.append(step.key, rows.slice(0, 2), failures_frame([]))

    def other_run() -> None:
        Ledger(Workspace(tmp_path / "w")).append(step.key, rows.slice(2, 1), failures_frame([]))

    if when == "before":
        other_run()
    ledger.compact(step.key, always=True)
    if when == "after":
        other_run()
    done = ledger.append(step.key, rows.slice(2, 2), failures_frame([]))
    assert (done.added, done.twice) == (1, 1)
    assert len(contents(ledger, step)) == 4


def test_identifiers_are_not_read_again_after_a_compaction_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    known_ids = Ledger.known_ids
    monkeypatch.setattr(Ledger, "known_ids", lambda self, key: read.append(key) or known_ids(self, key))
    run_local(Doubling(tmp_path / "log", batch_rows=1), items(range(70)), Ledger(Workspace(tmp_path / "w")))
    assert len(read) == 1


def test_rows_that_another_run_added_meanwhile_are_counted_not_doubled(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    other = Doubling(tmp_path / "other")

    def interfere() -> None:
        if not other.calls():
            rows = items([0, 1]).select("candidate_id", rewards=pl.Series([[0.0], [2.0]]))
            other.open()
            Ledger(workspace).append(other.key, rows, failures_frame([]))

    report = run_local(Doubling(tmp_path / "log", before_batch=interfere), items(range(4)), Ledger(workspace))
    assert (report.computed, report.twice) == (2, 2)
    assert len(contents(Ledger(workspace), other)) == 4


def test_the_first_interrupt_finishes_the_batch_and_keeps_it(tmp_path: Path) -> None:
    ledger = Ledger(Workspace(tmp_path / "w"))
    step = Doubling(tmp_path / "log", before_batch=lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(InterruptedRun, match="stopped in rewards after 4 of 10 rows; they are kept"):
        run_local(step, items(range(10)), ledger)
    assert len(contents(ledger, step)) == 4


def run_killable(workspace: str, log: str) -> None:
    step = Doubling(Path(log), pause=0.02)
    run_local(step, items(range(200)), Ledger(Workspace(workspace)))


@pytest.mark.parametrize("delay", [0.05, 0.3, 0.7])
def test_kill_minus_9_loses_nothing_and_doubles_one_batch_at_most(tmp_path: Path, delay: float) -> None:
    workspace, log = tmp_path / "w", tmp_path / "log"
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=run_killable, args=(str(workspace), str(log)))
    process.start()
    deadline = time.monotonic() + 600
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay)
    process.kill()
    process.join()
    step, ledger = Doubling(log), Ledger(Workspace(workspace))
    run_local(step, items(range(200)), ledger)
    calls = [c for c in step.calls() if c != "open"]
    assert contents(ledger, step) == sorted((identifier(n), [2.0 * n]) for n in range(200))
    assert len(calls) - len(set(calls)) <= step.batch_rows


@settings(max_examples=15, deadline=None)
@given(runs=st.lists(st.lists(st.integers(0, 12), max_size=8), min_size=1, max_size=4), size=st.integers(1, 5))
def test_any_sequence_of_runs_equals_one_run(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[int]], size: int
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    ledger, step = Ledger(Workspace(folder / "w")), Doubling(folder / "log", batch_rows=size)
    for numbers in runs:
        run_local(step, items(numbers), ledger)
    wanted = {n for numbers in runs for n in numbers}
    assert contents(ledger, step) == sorted((identifier(n), [2.0 * n]) for n in wanted)
    calls = [c for c in step.calls() if c != "open"]
    assert len(calls) == len(wanted)
