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
from typing import Any, Final, NamedTuple, Protocol

import polars as pl

from curation.engine import Batch, Step, StepReport, Worker
from curation.errors import BudgetReached, InterruptedRun
from curation.journal import PAID, Journal, entries_in, journal_folder
from curation.models.chat import ChatOptions, chat_fingerprint
from curation.models.chat.connection import Address, address_of
from curation.models.chat.usage import Tokens, paying
from curation.recipe import Recipe
from curation.recipe.generation import Price
from curation.stages.kept_step import KeptStep
from curation.streaming import Budget
from curation.workspace import Workspace

__all__ = ["Judged", "PaidStep", "Paying", "judged", "recorded", "served", "spent"]

_STEPS: Final = ("judgements", "refusals", "requests", "rewards")
"""Those that a judge may do; the names are theirs in the reports of a run."""


class Paying(Protocol):
    """What must be known of a run."""

    workspace: Workspace
    recipe: Recipe
    limit: int | None
    reports: list[StepReport]
    run_id: str


class Judged(NamedTuple):
    """What the judges of a step were paid."""

    tokens: int = 0
    cost: float = 0.0
    estimated: int = 0
    """How many of the tokens no server counted: so many they were at most."""


class PaidStep:
    """A step of a judge, within what may be spent. It is the ``Payer`` of what its worker asks."""

    def __init__(self, step: Step, budget: Budget, prices: Mapping[Address, Price], paid: Path) -> None:
        self._step, self._path = step, paid
        self._budget, self._prices = budget, prices
        self._before = _paid_in(paid)
        self._journal: Journal | None = None
        self.paid = Judged()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)

    def open(self) -> Worker:
        """The step's worker."""
        return _Paid(self, self._step.open())

    def asks(self, model: Address) -> None:
        """See ``Payer``: what costs nothing may always be asked."""
        price, budget = self._prices.get(model), self._budget
        if price is None or not price.of(Tokens(1, 1)) or budget.limit is None or budget.spent < budget.limit:
            return
        raise BudgetReached(
            f"stopped in {self.name}: {budget.spent:.6g} {budget.currency} of max_cost {budget.limit:g} "
            f"{budget.currency} is spent; raise max_cost to go on, nothing is paid for again"
        )

    def used(self, model: Address, tokens: Tokens) -> None:
        """See ``Payer``: on the disk before anything is done with the reply."""
        price = self._prices.get(model)
        cost = 0.0 if price is None else price.of(tokens)
        now = Judged(tokens.prompt + tokens.completion, cost, tokens.estimated)
        self.paid = _sum(self.paid, now)
        self._budget.spent += cost
        if self._journal is None:
            self._journal = Journal(self._path)
        self._journal.append({self.name: _sum(self._before.get(self.name, Judged()), self.paid)})

    def close(self) -> None:
        """Close the file."""
        if self._journal is not None:
            self._journal.__exit__(None, None, None)

    def broken_off(self) -> StepReport:
        """What was paid for by a step that did not come to its end."""
        return StepReport(self.name, self.key.producer, 0, 0, 0, 0, 0.0, *self.paid)


class _Paid:
    def __init__(self, step: PaidStep, worker: Worker) -> None:
        self._step, self._worker = step, worker

    def __call__(self, batch: pl.DataFrame) -> Batch:
        before = self._step.paid
        with paying(self._step):
            done = self._worker(batch)
        now = self._step.paid
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
    of_files = (_paid_in(path).items() for path in files if path.stem.removeprefix(PAID) not in set(kept["run_id"]))
    found: dict[str, Judged] = {}
    for name, paid in chain(of_runs, chain.from_iterable(of_files)):
        if name in _STEPS and paid.tokens:
            found[name] = _sum(found.get(name, Judged()), paid)
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
    prices = {address_of(model): price for model in judges if (price := costs.price_of(model)) is not None}
    before = spent(context) if judges and costs.max_cost is not None else 0.0
    budget = Budget(costs.max_cost, before, costs.currency)
    paid = PaidStep(kept, budget, prices, _path(context))
    done = False
    try:
        yield paid
        done = True
    except InterruptedRun:
        # All that came is in the ledger: a reply that could not be read is asked for anew when it is tried again.
        kept.forget()
        raise
    finally:
        paid.close()
        if not done and paid.paid.tokens:
            context.reports.append(paid.broken_off())
        kept.close(done=done, whole=context.limit is None)


def _path(context: Paying) -> Path:
    return journal_folder(context.workspace) / f"{PAID}{context.run_id}.jsonl"


def _paid_in(path: Path) -> dict[str, Judged]:
    """What a run's file says, by step: of each step, the last line holds the sum."""
    found: dict[str, Judged] = {}
    for entry in entries_in(path.read_bytes() if path.is_file() else b"").entries:
        found |= {name: Judged(*paid) for name, paid in entry.items()}
    return found


def _of_report(report: Mapping[str, Any]) -> Judged:
    return Judged(report.get("tokens", 0), report.get("cost", 0.0), report.get("estimated", 0))


def _sum(one: Judged, other: Judged) -> Judged:
    return Judged(one.tokens + other.tokens, one.cost + other.cost, one.estimated + other.estimated)
