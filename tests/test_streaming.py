"""The streaming engine: each result kept as it arrives, in any order, within the budget, through kills."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import BudgetReached, InterruptedRun, ModelError, WorkspaceError
from curation.journal import Journal, journal_path
from curation.ledger import Ledger, LedgerKey
from curation.streaming import Arrival, Budget, run_stream
from curation.text import content_hash
from curation.workspace import Workspace


def inputs(count: int) -> pl.DataFrame:
    ids = [content_hash("row", str(n)) for n in range(count)]
    return pl.DataFrame(
        {"candidate_id": ids, "number": list(range(count))}, schema={"candidate_id": pl.String, "number": pl.Int64}
    )


@dataclass(frozen=True)
class Doubling:
    """A real step without a model: twice a number, in a seeded order, a window at a time; some numbers fail."""

    failing: frozenset[int] = frozenset()
    window: int = 4
    seed: int = 0
    price: float = 0.0
    calls: list[int] = field(default_factory=list)
    after: Mapping[int, Any] = field(default_factory=dict)
    """What to do after so many arrivals."""

    name = "rewards"
    key = LedgerKey("rewards", "candidate_id", "model", "doubling@1")

    def open(self) -> Doubling:
        return self

    def most(self, row: Mapping[str, Any]) -> float:
        return 2 * self.price

    def __call__(self, rows: Iterable[dict[str, Any]]) -> Iterator[Arrival]:
        source, order = iter(rows), random.Random(self.seed)
        while window := list(islice(source, self.window)):
            order.shuffle(window)
            for row in window:
                self.calls.append(row["number"])
                yield self._arrival(row)
                if len(self.calls) in self.after:
                    self.after[len(self.calls)]()

    def _arrival(self, row: dict[str, Any]) -> Arrival:
        name = row["candidate_id"]
        if row["number"] in self.failing:
            failure = {"row_id": name, "item_id": name, "rule": "odd", "value": "", "reason": "cannot"}
            return Arrival(name, None, failure)
        return Arrival(name, {"candidate_id": name, "rewards": [2.0 * row["number"]]}, None, 1, self.price)


def kept(ledger: Ledger) -> list[tuple[str, list[float]]]:
    return sorted(ledger.workspace.read("rewards").select("candidate_id", "rewards").rows())


def expected(numbers: Iterable[int]) -> list[tuple[str, list[float]]]:
    return sorted((content_hash("row", str(n)), [2.0 * n]) for n in numbers)


@settings(max_examples=8)
@given(
    failing=st.frozensets(st.integers(0, 29)),
    seed=st.integers(0, 99),
    window=st.integers(1, 9),
    total=st.integers(0, 30),
)
def test_a_failure_shifts_nobodys_result(
    tmp_path_factory: pytest.TempPathFactory, failing: frozenset[int], seed: int, window: int, total: int
) -> None:
    ledger = Ledger(Workspace(tmp_path_factory.mktemp("w") / "w"))
    report = run_stream(Doubling(failing, window, seed), inputs(total), ledger)
    failed = {n for n in failing if n < total}
    assert (report.computed, report.failed) == (total - len(failed), len(failed))
    assert kept(ledger) == expected(set(range(total)) - failing)
    found = ledger.failures(Doubling.key, inputs(total)["candidate_id"])
    assert set(found["row_id"]) == {content_hash("row", str(n)) for n in failed}
    again = Doubling(failing, window, seed)
    assert run_stream(again, inputs(total), ledger).reused == total
    assert not again.calls


def test_only_failures_are_tried_again(tmp_path: Path) -> None:
    ledger = Ledger(Workspace(tmp_path / "w"))
    run_stream(Doubling(frozenset({3, 7})), inputs(10), ledger)
    again = Doubling(frozenset({7}))
    report = run_stream(again, inputs(10), ledger, retry_failed=True)
    assert sorted(again.calls) == [3, 7]
    assert (report.computed, report.failed, report.reused) == (1, 1, 8)


def test_what_arrived_before_an_error_is_kept(tmp_path: Path) -> None:
    ledger = Ledger(Workspace(tmp_path / "w"))

    def stop() -> None:
        raise ModelError("the server stays away")

    with pytest.raises(ModelError):
        run_stream(Doubling(after={6: stop}), inputs(10), ledger)
    assert len(kept(ledger)) == 6
    rest = Doubling()
    run_stream(rest, inputs(10), ledger)
    assert len(rest.calls) == 4


def test_ctrl_c_feeds_no_more_and_keeps_what_was_under_way(tmp_path: Path) -> None:
    ledger = Ledger(Workspace(tmp_path / "w"))
    step = Doubling(after={2: lambda: os.kill(os.getpid(), signal.SIGINT)})
    with pytest.raises(InterruptedRun, match="stopped in rewards after 4 of 10 rows"):
        run_stream(step, inputs(10), ledger)
    assert len(kept(ledger)) == 4


def run_killed(workspace: str) -> None:
    step = Doubling(after={7: lambda: os.kill(os.getpid(), signal.SIGKILL)})
    run_stream(step, inputs(10), Ledger(Workspace(workspace)))


def test_a_run_whose_workspace_was_taken_feeds_no_more_and_keeps_what_was_under_way(tmp_path: Path) -> None:
    ledger = Ledger(Workspace(tmp_path / "w"))
    step = Doubling(window=4)

    class Taken:
        def is_lost(self) -> bool:
            return len(step.calls) >= 6

    ledger.workspace._leases.append(Taken())  # type: ignore[arg-type]
    with pytest.raises(WorkspaceError, match="another run took"):
        run_stream(step, inputs(20), ledger)
    assert len(step.calls) == 8  # the window that was under way
    ours = Ledger(Workspace(tmp_path / "w"))
    run_stream(again := Doubling(), inputs(20), ours)
    assert len(again.calls) == 12
    assert kept(ours) == expected(range(20))


def test_a_killed_run_is_taken_up_from_its_journal(tmp_path: Path) -> None:
    ledger = Ledger(Workspace(tmp_path / "w"))
    process = multiprocessing.get_context("spawn").Process(target=run_killed, args=(str(tmp_path / "w"),))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert kept(ledger) == []
    rest = Doubling()
    report = run_stream(rest, inputs(10), ledger)
    assert (report.reused, len(rest.calls)) == (7, 3)
    assert kept(ledger) == expected(range(10))


def test_a_kill_between_ledger_and_journal_doubles_nothing(tmp_path: Path) -> None:
    ledger = Ledger(Workspace(tmp_path / "w"))
    path = journal_path(ledger.workspace, Doubling.key)
    saved: list[bytes] = []
    step = Doubling(frozenset({0}), after={10: lambda: saved.append(path.read_bytes())})
    run_stream(step, inputs(10), ledger)
    path.write_bytes(saved[0])
    run_stream(Doubling(), inputs(10), ledger)
    assert kept(ledger) == expected(range(1, 10))
    assert ledger.failures(Doubling.key, inputs(10)["candidate_id"]).height == 1


@pytest.mark.parametrize(("limit", "answered"), [(5.0, 4), (5.9, 4), (6.0, 5), (100.0, 10)])
def test_the_run_stops_before_the_limit_is_exceeded(tmp_path: Path, limit: float, answered: int) -> None:
    """Each answer costs 1 and might cost 2: the last one is sent while 2 are left."""
    ledger, budget = Ledger(Workspace(tmp_path / "w")), Budget(limit)
    step = Doubling(price=1.0, window=3)
    if answered == 10:
        run_stream(step, inputs(10), ledger, budget=budget)
    else:
        with pytest.raises(BudgetReached, match=f"after {answered} of 10 rows, before max_cost {limit:g} USD"):
            run_stream(step, inputs(10), ledger, budget=budget)
    assert len(kept(ledger)) == answered
    assert budget.spent == answered <= limit


def test_the_cost_is_projected_after_the_first_per_cent(tmp_path: Path) -> None:
    from curation.progress import LogProgress

    lines: list[str] = []
    ledger = Ledger(Workspace(tmp_path / "w"))
    run_stream(Doubling(price=0.5), inputs(200), ledger, progress=LogProgress(lines.append))
    assert lines[0] == "rewards: 2 of 200 rows cost 1 USD; all of them will cost about 100"
    assert lines[-1].endswith("cost 100")


@dataclass(frozen=True)
class Paying:
    """A step without a model: each answer costs 1."""

    asked: list[str] = field(default_factory=list)

    name = "generations"
    key = LedgerKey("generations", "request_id", "generator", "paying@1")

    def open(self) -> Paying:
        return self

    def most(self, row: Mapping[str, Any]) -> float:
        return 1.0

    def __call__(self, rows: Iterable[dict[str, Any]]) -> Iterator[Arrival]:
        for row in rows:
            self.asked.append(row["request_id"])
            yield Arrival(row["request_id"], self.answer(row["request_id"]), None, 1, 1.0)

    @staticmethod
    def answer(name: str) -> dict[str, Any]:
        texts = {"reasoning": None, "finish_reason": "stop", "response": "yes", "system_prompt": None}
        numbers = {"sample_index": 0, "prompt_tokens": 1, "completion_tokens": 1, "cost": 1.0}
        return {"request_id": name, "prompt_id": name, **texts, **numbers}


def test_what_a_killed_run_had_paid_is_spent(tmp_path: Path) -> None:
    ledger, names = Ledger(Workspace(tmp_path / "w")), [content_hash("request", str(n)) for n in range(6)]
    with Journal(journal_path(ledger.workspace, Paying.key)) as journal:
        for name in names[:3]:
            journal.append({"row": Paying.answer(name)})
    # The ledger was added up before the journal came into it.
    step, budget = Paying(), Budget(4.0, spent=0.0)
    with pytest.raises(BudgetReached, match="4 is spent"):
        run_stream(step, pl.DataFrame({"request_id": names}), ledger, budget=budget)
    assert (len(step.asked), budget.spent) == (1, 4.0)
    assert ledger.workspace.read("generations")["cost"].sum() == 4.0


def test_answers_in_damaged_lines_are_asked_for_again_and_it_is_said(tmp_path: Path) -> None:
    from curation.progress import LogProgress

    ledger, lines = Ledger(Workspace(tmp_path / "w")), list[str]()
    path = journal_path(ledger.workspace, Doubling.key)
    saved: list[bytes] = []
    run_stream(Doubling(after={3: lambda: saved.append(path.read_bytes())}), inputs(3), ledger)
    other = Ledger(Workspace(tmp_path / "other"))
    left = journal_path(other.workspace, Doubling.key)
    left.parent.mkdir(parents=True)
    first, rest = saved[0].split(b"\n", 1)
    left.write_bytes(first[:-1] + b"?\n" + rest)
    step = Doubling()
    run_stream(step, inputs(3), other, progress=LogProgress(lines.append))
    assert kept(other) == expected(range(3))
    assert len(step.calls) == 1
    assert any("1 lines of" in line and "damaged" in line for line in lines)
