"""What is in the requests that a plan counts: how many there are, their tokens, and what these can cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import polars as pl

from curation.journal import entries_of
from curation.kept_replies import replies_among
from curation.models.chat.connection import Address, address_of
from curation.models.chat.counting import Counted, counting
from curation.models.chat.usage import Tokens
from curation.models.judging import ReadBefore, reading
from curation.models.kept import keeping
from curation.planning.context import Asked, PlanContext
from curation.refusals.sorting import sort_requests
from curation.stages.generations import GenerationStep
from curation.stages.kept_step import replies_path
from curation.stages.refusal_step import RAW, RefusalStep, sorts_all_requests
from curation.stages.requests import RequestStep, judges_requests
from curation.stages.rewards import RewardStep
from curation.stages.sorting import open_sorter, sorts_remotely
from curation.text import last_user_text

__all__ = ["Planned", "longest", "planned", "stand_in"]

_LOOKED_AT: Final = 2_000
"""Of more rows, so many are looked at, and the others are taken to be like them."""
_STANDS_IN: Final = "stands in for"
_BYTES_PER_TOKEN: Final = 4
_TOLD: Final = "known_refusal_class"
"""Of a verdict that lacks only its category."""


class Planned(NamedTuple):
    """What one model is asked in one stage."""

    stage: str
    model: str
    is_remote: bool
    rows: int
    to_ask: int
    failed: int
    """Of those kept: what the model failed on, which is not tried again."""
    at_most: bool
    """Whether the rows depend on answers that are not there yet."""
    requests: int
    """To chat servers."""
    tokens: Tokens
    """The most that they can be."""
    cost: float | None
    """At most; None where a model has no price."""

    @property
    def kept(self) -> int:
        """Of the rows: in the ledger, or in the journal of a run that broke off."""
        return self.rows - self.to_ask


def stand_in(name: str, max_new_tokens: int) -> str:
    """A text in place of an answer that is not there yet."""
    return f"{_STANDS_IN} {max_new_tokens} {name}"


def longest(text: str) -> pl.Expr:
    """How many bytes a text has, or may have where it stands in for an answer."""
    tokens = pl.col(text).str.extract(f"^{_STANDS_IN} (\\d+) ").cast(pl.Int64)
    return pl.coalesce(tokens * _BYTES_PER_TOKEN, pl.col(text).str.len_bytes().cast(pl.Int64))


def planned(context: PlanContext, asked: Asked) -> Planned:
    """The requests of what is missing. Of a model that is no chat server, only the rows are known."""
    recipe, rows = context.recipe, asked.missing
    makers = (*recipe.generation, *recipe.rewriters.values())
    looked_at = rows if rows.height <= _LOOKED_AT else rows.sample(_LOOKED_AT, seed=0)
    times = rows.height / max(looked_at.height, 1)
    models = _asked_of(context, asked, looked_at)
    prices = recipe.costs.prices_of([*recipe.remote_judges.values(), *(one.model for one in makers)])
    costs = [prices[model].of(one.tokens) * times for model, one in models.items() if model in prices]
    tokens = zip(*(one.tokens for one in models.values()), strict=True)
    return Planned(
        asked.stage,
        ", ".join(model.name for model in models) or _name(asked.step),
        asked.is_remote and any(_asks(context, asked.step)),
        len(asked.ids),
        rows.height,
        asked.failed,
        asked.at_most,
        round(sum(one.requests for one in models.values()) * times),
        Tokens(*(round(sum(kind) * times) for kind in tokens)),
        sum(costs) if costs and len(costs) == len(models) else None,
    )


def _asked_of(context: PlanContext, asked: Asked, rows: pl.DataFrame) -> dict[Address, Counted]:
    step = asked.step
    if not asked.is_remote or (isinstance(step, RewardStep) and not step.options.model.startswith("judge:")):
        return {}
    if isinstance(step, GenerationStep):
        most = [step.most_tokens(row) for row in rows.iter_rows(named=True)]
        return {address_of(step.options.model): Counted(len(most), Tokens(*map(sum, zip(*most, strict=True))))}
    return _asked_of_judges(context, asked, _filled(rows))


def _asks(context: PlanContext, step: Any) -> tuple[bool, bool]:
    """Of a step that a server does: whether its own server is asked, and a judge that sorts requests."""
    if isinstance(step, RequestStep):
        return False, True
    if isinstance(step, RefusalStep):
        # Where all requests are sorted beforehand, no verdict has its request sorted again.
        return step.is_judged_remotely, sorts_remotely(step.options) and not judges_requests(context.recipe)
    return True, False


def _asked_of_judges(context: PlanContext, asked: Asked, rows: pl.DataFrame) -> dict[Address, Counted]:
    """What the step's own worker would send, but for replies that a batch which broke off has left."""
    step = asked.step
    models: dict[Address, Counted] = {}
    judges, sorts = _asks(context, step)
    untold = rows.filter(pl.col(_TOLD).is_null()) if _TOLD in rows.columns else rows
    read = ReadBefore(context.ledger.has_rows(step.key))
    with counting(models), keeping(_Left(context, asked)), reading(read):
        if judges and not untold.is_empty():
            step.open()(untold)
        if sorts and (sorter := open_sorter(step.options)) is not None:
            messages = _unsorted(step, rows)["messages"].to_list()
            sort_requests([last_user_text(one) for one in messages], sorter)
    return models


def _unsorted(step: RefusalStep | RequestStep, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows whose request may be sorted: where the verdict is known, only those that it sorts."""
    known = next((name for name in (_TOLD, f"{RAW}refusal_class") if name in rows.columns), None)
    if known is None or sorts_all_requests(step.options):
        return rows
    return rows.filter(pl.col(known).ne_missing("compliance"))


class _Left:
    """See ``curation.models.kept.Keeper``: what is in the file of replies, which is left as it is."""

    def __init__(self, context: PlanContext, asked: Asked) -> None:
        self._known = replies_among(entries_of(replies_path(context.place, asked.step.key)))

    def find(self, key: str) -> Mapping[str, Any] | None:
        return self._known.get(key)

    def add(self, key: str, answer: Mapping[str, Any]) -> None:
        raise AssertionError("nobody was asked")


def _filled(rows: pl.DataFrame) -> pl.DataFrame:
    """With texts as long as an answer may be where one stands in for it."""

    def fill(text: str) -> str:
        if not text.startswith(_STANDS_IN):
            return text
        words = text.removeprefix(_STANDS_IN).split()
        return f"{words[1]} ".ljust(int(words[0]) * _BYTES_PER_TOKEN, "a")

    texts = [name for name in ("response", "first", "second") if name in rows.columns]
    return rows.with_columns(pl.Series(name, map(fill, rows[name].to_list()), dtype=pl.String) for name in texts)


def _name(step: Any) -> str:
    options = getattr(step, "options", None)
    return str(getattr(options, "model", None) or step.key.producer)
