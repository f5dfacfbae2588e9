"""What has been paid for answers and to judges, and when a run stops asking judges of servers.

Answers are paid for one by one, in ``generations``; a judge is asked in batches. Where their replies are until a
batch is whole, ``kept_step`` knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from curation.engine import Batch, Step, StepReport, Worker
from curation.errors import BudgetReached
from curation.models.chat import ChatOptions, chat_fingerprint
from curation.models.chat.connection import Address, address_of
from curation.models.chat.usage import counting
from curation.stages.kept_step import KeptStep
from curation.streaming import Budget
from curation.workspace import Workspace

if TYPE_CHECKING:
    from curation.recipe.generation import Price
    from curation.stages.context import Context

__all__ = ["PaidStep", "judged", "served", "spent"]

_STEPS: Final = ("judgements", "refusals", "requests", "rewards")
"""Those that a judge may do; the names are theirs in the reports of a run."""


class PaidStep:
    """A step of a judge, within what may be spent."""

    def __init__(self, step: Step, budget: Budget, prices: Mapping[Address, Price]) -> None:
        self._step = step
        self.budget = budget
        self.prices = prices
        self.tokens, self.cost = 0, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)

    def open(self) -> Worker:
        """The step's worker, which is asked for nothing once the limit is reached."""
        return _Paid(self, self._step.open())

    def broken_off(self) -> StepReport:
        """What was paid for by a step that did not come to its end."""
        return StepReport(self._step.name, self._step.key.producer, 0, 0, 0, 0, 0.0, self.tokens, self.cost)


class _Paid:
    def __init__(self, step: PaidStep, worker: Worker) -> None:
        self._step, self._worker = step, worker

    def __call__(self, batch: pl.DataFrame) -> Batch:
        step, budget = self._step, self._step.budget
        if budget.limit is not None and budget.spent >= budget.limit:
            raise BudgetReached(
                f"stopped in {step.name}: {budget.spent:.6g} {budget.currency} of max_cost {budget.limit:g} "
                f"{budget.currency} is spent; raise max_cost to go on, nothing is paid for again"
            )
        with counting() as used:
            try:
                done = self._worker(batch)
            finally:
                cost = sum(
                    tokens.prompt * price.prompt + tokens.completion * price.completion
                    for address, tokens in used.by_model.items()
                    if (price := step.prices.get(address)) is not None
                )
                cost /= 1e6
                step.tokens += used.tokens
                step.cost += cost
                budget.spent += cost
        return done._replace(tokens=done.tokens + used.tokens, cost=done.cost + cost)


def spent(context: Context) -> float:
    """What the recipe's models and judges have been paid in this workspace so far, with whatever options.

    Of runs that were killed it knows the answers, and not the judges.
    """
    recipe = context.recipe
    makers = (*recipe.generation, *recipe.rewriters.values())
    models = [
        chat_fingerprint(m.model, ChatOptions(lora=m.lora), backend=m.backend, revision=m.revision) for m in makers
    ]
    payee = pl.col("generator").str.replace("/[^/]*$", "")
    ours = payee.is_in([name.rpartition("/")[0] for name in models])
    paid = context.workspace.scan("generations").filter(ours).select(pl.col("cost").sum()).collect().item()
    return float(paid or 0.0) + sum(cost for _, cost in judged(context).values())


def judged(context: Context) -> dict[str, tuple[int, float]]:
    """Tokens and cost of the judges behind servers, by step, over the runs that came to an end and this one.

    A trial and its workspace share the ledger, and so what they were paid.
    """
    ours = context.workspace
    both = [Workspace(ours.url, storage_options=ours.storage_options, trial=trial) for trial in (False, True)]
    others = [place for place in both if place.table_path("runs") != ours.table_path("runs")]
    kept = [place.scan("runs").select("computed").collect() for place in (ours, *others)]
    runs = [json.loads(run) for run in pl.concat(kept)["computed"]]
    found: dict[str, tuple[int, float]] = {}
    for report in [*chain.from_iterable(runs), *(report._asdict() for report in context.reports)]:
        if report["name"] in _STEPS and report.get("tokens"):
            tokens, cost = found.get(report["name"], (0, 0.0))
            found[report["name"]] = tokens + report["tokens"], cost + report.get("cost", 0.0)
    return found


@contextmanager
def served(context: Context, step: Step) -> Iterator[Step]:
    """A step that a server does: nothing paid for is lost or uncounted, and a judge stays within ``max_cost``."""
    kept = KeptStep(step, context.workspace)
    costs = context.recipe.costs
    judges = context.recipe.remote_judges.values()
    prices = {address_of(model): price for model in judges if (price := costs.price_of(model)) is not None}
    before = spent(context) if judges and costs.max_cost is not None else 0.0
    budget = Budget(costs.max_cost, before, costs.currency)
    paid = PaidStep(kept, budget, prices)
    done = False
    try:
        yield paid
        done = True
    finally:
        if not done and paid.tokens:
            context.reports.append(paid.broken_off())
        kept.close(done=done, whole=context.limit is None)
