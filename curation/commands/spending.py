"""What a command on a file may pay to judges behind servers: the section ``costs`` of a recipe, for one output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from curation.errors import InputError
from curation.kept_replies import KeptReplies
from curation.models.chat.connection import address_of, remote_judge
from curation.models.chat.usage import paying
from curation.models.kept import keeper
from curation.purse import Purse, paid_in
from curation.recipe import Reward, load_costs
from curation.streaming import Budget

__all__ = ["within_costs"]


@contextmanager
def within_costs(
    given: Path | None, output: Path, models: Sequence[str | Reward], *, command: str
) -> Iterator[None]:
    """Counts what judges are paid in this block, and begins no chunk of rows once ``max_cost`` is spent.

    What was paid before the command broke off stands beside its output (``OUT.paid``), and counts; so it does where
    requests had no answer, which the same command asks again.

    Args:
        given: a recipe, or a file with its section ``costs``; None counts nothing.
        models: MODEL arguments; those that are no judges behind servers cost nothing.

    Raises:
        InputError: with ``max_cost``, when a judge has no price.
        BudgetReached: when ``max_cost`` is spent.
    """
    if given is None:
        yield
        return
    costs = load_costs(given)
    named = (model if isinstance(model, str) else model.model for model in models)
    judges = [judge for model in named if (judge := remote_judge(model)) is not None]
    lacking = [address_of(judge).name for judge in judges if costs.price_of(judge) is None]
    if lacking and costs.max_cost is not None:
        raise InputError(f"costs.max_cost is set, and costs.prices has no price for {lacking[0]!r}: give one")
    path = output.with_name(f"{output.name}.paid")
    before = sum(paid.cost for paid in paid_in(path).values())
    purse = Purse(command, Budget(costs.max_cost, before, costs.currency), costs.prices_of(judges), path)
    try:
        with paying(purse):
            yield
    finally:
        purse.close()
        now, paid = purse.budget, purse.paid
        said = f"{paid.tokens:,} tokens, {paid.cost:.6g} {now.currency} paid"
        typer.echo(said + (f"; {now.spent:.6g} with what was paid before" if before else ""), err=True)
    kept = keeper()
    if not (isinstance(kept, KeptReplies) and kept.goes_on):
        path.unlink(missing_ok=True)
