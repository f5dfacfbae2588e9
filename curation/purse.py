"""Who pays what judges behind servers are asked: within a budget, and on the disk from the moment a reply came.

What a run has paid altogether, and when its file may go, is in ``stages.spending``; for commands on files, in
``commands.spending``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from curation.errors import BudgetReached
from curation.journal import Journal, entries_of
from curation.models.chat.connection import Address
from curation.models.chat.usage import Tokens
from curation.recipe.generation import Price
from curation.streaming import Budget

__all__ = ["Judged", "Purse", "paid_in", "sum_of"]


class Judged(NamedTuple):
    """What judges were paid."""

    tokens: int = 0
    cost: float = 0.0
    estimated: int = 0
    """How many of the tokens no server counted: so many they were at most."""


class Purse:
    """See ``curation.models.chat.usage.Payer``.

    Args:
        name: of who pays: a step, a command.
        path: the file that says what was paid, of each name.

    Attributes:
        paid: since this purse was opened.
    """

    def __init__(self, name: str, budget: Budget, prices: Mapping[Address, Price], path: Path) -> None:
        self.name, self.budget, self._prices, self._path = name, budget, prices, path
        self._before = paid_in(path).get(name, Judged())
        self._journal: Journal | None = None
        self.paid = Judged()

    def asks(self, model: Address) -> None:
        """What costs nothing may always be asked."""
        price, budget = self._prices.get(model), self.budget
        if price is None or not price.of(Tokens(1, 1)) or budget.limit is None or budget.spent < budget.limit:
            return
        raise BudgetReached(
            f"stopped in {self.name}: {budget.spent:.6g} {budget.currency} of max_cost {budget.limit:g} "
            f"{budget.currency} is spent; raise max_cost to go on, nothing is paid for again"
        )

    def used(self, model: Address, tokens: Tokens) -> None:
        """On the disk before anything is done with the reply."""
        price = self._prices.get(model)
        cost = 0.0 if price is None else price.of(tokens)
        self.paid = sum_of(self.paid, Judged(tokens.prompt + tokens.completion, cost, tokens.estimated))
        self.budget.spent += cost
        if self._journal is None:
            self._journal = Journal(self._path)
        self._journal.append({self.name: sum_of(self._before, self.paid)})

    def close(self) -> None:
        """Close the file."""
        if self._journal is not None:
            self._journal.__exit__(None, None, None)


def paid_in(path: Path) -> dict[str, Judged]:
    """What a file says, by name: of each, the last line holds the sum."""
    found: dict[str, Judged] = {}
    for entry in entries_of(path):
        found |= {name: Judged(*paid) for name, paid in entry.items()}
    return found


def sum_of(one: Judged, other: Judged) -> Judged:
    """Both."""
    return Judged(one.tokens + other.tokens, one.cost + other.cost, one.estimated + other.estimated)
