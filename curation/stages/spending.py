"""What has been paid for answers and to judges, and when a run stops asking judges of servers.

Answers are paid for one by one, in ``generations``; a judge is asked in batches. Where their replies are until a
batch is whole, ``kept_step`` knows. What each reply cost stands in a file of the run's own, from the moment it came
until the run's record has it: a run that is killed leaves that file, and it is counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final, Protocol

import polars as pl

from curation.engine import Batch, Step, StepReport, Worker
from curation.errors import InterruptedRun
from curation.journal import PAID, journal_folder
from curation.models.chat import ChatOptions, chat_fingerprint
from curation.models.chat.usage import paying
from curation.purse import Judged, Purse, paid_in, sum_of
from curation.recipe import Recipe
from curation.stages.kept_step import KeptStep
from curation.streaming import Budget
from curation.workspace import Workspace

__all__ = ["PaidStep", "Paying", "judged", "recorded", "served", "spent"]

_STEPS: Final = ("judgements", "refusals", "requests", "rewards")
"""Those that a judge may do; the names are theirs in the reports of a run."""


class Paying(Protocol):
    """What must be known of a run."""

    workspace: Workspace
    recipe: Recipe
    limit: int | None
    reports: list[StepReport]
    run_id: str


class PaidStep:
    """A step of a judge, within what may be spent."""

    def __init__(self, step: Step, purse: Purse) -> None:
        self._step, self.purse = step, purse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)

    def open(self) -> Worker:
        """The step's worker."""
        return _Paid(self.purse, self._step.open())

    @property
    def paid(self) -> Judged:
        """What was paid in this run."""
        return self.purse.paid

    def broken_off(self) -> StepReport:
        """What was paid for by a step that did not come to its end."""
        return StepReport(self.name, self.key.producer, 0, 0, 0, 0, 0.0, *self.paid)


class _Paid:
    def __init__(self, purse: Purse, worker: Worker) -> None:
        self._purse, self._worker = purse, worker

    def __call__(self, batch: pl.DataFrame) -> Batch:
        before = self._purse.paid
        with paying(self._purse):
            done = self._worker(batch)
        now = self._purse.paid
        return done._replace(
            tokens=done.tokens + now.tokens - before.tokens, cost=done.cost + now.cost - before.cost
        )


def spent(context: Paying) -> float:
    """What the recipe's models and judges have been paid in this workspace so far, with whatever options."""
    recipe = context.recipe
    makers = (*recipe.generation, *recipe.rewriters.values())
    models = [
        chat_fingerprint(m.model, ChatOptions(lora=m.lora), backend=m.backend, revision=m.revision) for m in makers
    ]
    payee = pl.col("generator").str.replace("/[^/]*$", "")
    ours = payee.is_in([name.rpartition("/")[0] for name in models])
    paid = context.workspace.scan("generations").filter(ours).select(pl.col("cost").sum()).collect().item()
    return float(paid or 0.0) + sum(step.cost for step in judged(context).values())


def judged(context: Paying) -> dict[str, Judged]:
    """What the judges behind servers were paid, by step, over all runs.

    A trial and its workspace share the ledger, and so what they were paid.
    """
    ours = context.workspace
    both = [Workspace(ours.url, storage_options=ours.storage_options, trial=trial) for trial in (False, True)]
    others = [place for place in both if place.table_path("runs") != ours.table_path("runs")]
    kept = pl.concat([p.scan("runs").select("run_id", "computed").collect() for p in (ours, *others)])
    of_runs = ((r["name"], _of_report(r)) for run in kept["computed"] for r in json.loads(run))
    files = journal_folder(ours).glob(f"{PAID}*.jsonl")
    of_files = (paid_in(path).items() for path in files if path.stem.removeprefix(PAID) not in set(kept["run_id"]))
    found: dict[str, Judged] = {}
    for name, paid in chain(of_runs, chain.from_iterable(of_files)):
        if name in _STEPS and paid.tokens:
            found[name] = sum_of(found.get(name, Judged()), paid)
    return found


def recorded(context: Paying) -> None:
    """The record of the run has what it paid: let its file go."""
    _path(context).unlink(missing_ok=True)


@contextmanager
def served(context: Paying, step: Step) -> Iterator[PaidStep]:
    """A step that a server does: nothing paid for is lost or uncounted, and a judge stays within ``max_cost``."""
    kept = KeptStep(step, context.workspace)
    costs = context.recipe.costs
    judges = context.recipe.remote_judges.values()
    before = spent(context) if judges and costs.max_cost is not None else 0.0
    budget = Budget(costs.max_cost, before, costs.currency)
    paid = PaidStep(kept, Purse(step.name, budget, costs.prices_of(judges), _path(context)))
    done = False
    try:
        yield paid
        done = True
    except InterruptedRun:
        # All that came is in the ledger: a reply that could not be read is asked for anew when it is tried again.
        kept.forget()
        raise
    finally:
        paid.purse.close()
        if not done and paid.paid.tokens:
            context.reports.append(paid.broken_off())
        kept.close(done=done, whole=context.limit is None)


def _path(context: Paying) -> Path:
    return journal_folder(context.workspace) / f"{PAID}{context.run_id}.jsonl"


def _of_report(report: Mapping[str, Any]) -> Judged:
    return Judged(report.get("tokens", 0), report.get("cost", 0.0), report.get("estimated", 0))
