"""What is in the requests that a plan counts: how many there are, their tokens, and what these can cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import polars as pl

from curation.journal import entries_of
from curation.kept_replies import replies_among
from curation.models.chat import is_address
from curation.models.chat.connection import Address, address_of
from curation.models.chat.counting import Counted, Counter, counting
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

__all__ = ["Found", "asks_a_server", "counted", "longest", "stand_in"]

_LOOKED_AT: Final = 2_000
"""Of more rows, so many are looked at, and the others are taken to be like them."""
_STANDS_IN: Final = "stands in for"
_BYTES_PER_TOKEN: Final = 4
_TOLD: Final = "known_refusal_class"
"""Of a verdict that lacks only its category."""


class Found(NamedTuple):
    """What is asked of the model of a step."""

    model: str
    requests: int = 0
    tokens: Tokens = Tokens()
    cost: float | None = None


def stand_in(name: str, max_new_tokens: int) -> str:
    """A text in place of an answer that is not there yet."""
    return f"{_STANDS_IN} {max_new_tokens} {name}"


def longest(text: str) -> pl.Expr:
    """How many bytes a text has, or may have where it stands in for an answer."""
    tokens = pl.col(text).str.extract(f"^{_STANDS_IN} (\\d+) ").cast(pl.Int64)
    return pl.coalesce(tokens * _BYTES_PER_TOKEN, pl.col(text).str.len_bytes().cast(pl.Int64))


def counted(context: PlanContext, asked: Asked) -> Found:
    """The requests of what is missing. Of a model that is no chat server, only the rows are known."""
    step = asked.step
    rows = asked.missing
    looked_at = _filled(rows if rows.height <= _LOOKED_AT else rows.sample(_LOOKED_AT, seed=0))
    models: dict[Address, Counted] = {}
    if asked.is_remote and isinstance(step, GenerationStep):
        address = address_of(step.options.model)
        most = [step.most_tokens(row) for row in looked_at.iter_rows(named=True)]
        tokens = Tokens(*map(sum, zip(*most, strict=True))) if most else Tokens()
        models[address] = Counted(len(most), tokens)
    elif asked.is_remote and not _is_server_of_scores(step):
        models = _asked_of_judges(context, asked, looked_at)
    times = rows.height / max(looked_at.height, 1)
    prices = _prices(context)
    costs = [prices[model].of(one.tokens) * times if model in prices else None for model, one in models.items()]
    known = [cost for cost in costs if cost is not None]
    return Found(
        ", ".join(model.name for model in models) or _name(step),
        round(sum(one.requests for one in models.values()) * times),
        Tokens(*(round(sum(kind) * times) for kind in zip(*(one.tokens for one in models.values()), strict=True))),
        sum(known) if len(known) == len(costs) and known else None,
    )


def _is_server_of_scores(step: Any) -> bool:
    return isinstance(step, RewardStep) and not step.options.model.startswith("judge:")


def asks_a_server(context: PlanContext, asked: Asked) -> bool:
    """Whether a server does the work, or a part of it."""
    return asked.is_remote and any(_asked_in(context, asked.step))


def _asked_in(context: PlanContext, step: Any) -> tuple[bool, bool]:
    """Whether the step's own server is asked, and a judge that sorts requests."""
    if not isinstance(step, RefusalStep | RequestStep):
        return True, False
    sorts = sorts_remotely(step.options)
    if isinstance(step, RequestStep):
        return False, sorts
    judge = step.options.judge if step.options.calibration is None else None
    # Where all requests are sorted beforehand, no verdict has its request sorted again.
    return judge is not None and is_address(judge.model), sorts and not judges_requests(context.recipe)


def _asked_of_judges(context: PlanContext, asked: Asked, rows: pl.DataFrame) -> dict[Address, Counted]:
    """What the step's own worker would send, but for replies that a batch which broke off has left."""
    step, counter = asked.step, Counter()
    judges, sorts = _asked_in(context, step)
    read = ReadBefore(context.ledger.has_rows(step.key))
    with counting(counter), keeping(_Left(context, asked)), reading(read):
        if isinstance(step, RefusalStep | RequestStep):
            unsorted = _unsorted(step, rows) if sorts else rows.clear()
            rows = rows.filter(pl.col(_TOLD).is_null()) if _TOLD in rows.columns else rows
        if judges and not rows.is_empty():
            step.open()(rows)
        if sorts and (sorter := open_sorter(step.options)) is not None:
            sort_requests([last_user_text(messages) for messages in unsorted["messages"].to_list()], sorter)
    return counter.models


def _unsorted(step: RefusalStep | RequestStep, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows whose request may be sorted: where the verdict is known, only those that it sorts."""
    known = next((name for name in (_TOLD, f"{RAW}refusal_class") if name in rows.columns), None)
    if known is None or isinstance(step, RequestStep) or sorts_all_requests(step.options):
        return rows
    return rows.filter(pl.col(known).ne_missing("compliance"))


class _Left:
    """See ``curation.models.kept.Keeper``: what is in the file of replies, which is left as it is."""

    def __init__(self, context: PlanContext, asked: Asked) -> None:
        path = None if context.ledger_of is None else replies_path(context.ledger_of, asked.step.key)
        self._known = {} if path is None else replies_among(entries_of(path))

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


def _prices(context: PlanContext) -> dict[Address, Any]:
    recipe = context.recipe
    models = [*recipe.remote_judges.values(), *(g.model for g in (*recipe.generation, *recipe.rewriters.values()))]
    found = {address_of(model): recipe.costs.price_of(model) for model in models if is_address(model)}
    return {address: price for address, price in found.items() if price is not None}


def _name(step: Any) -> str:
    options = getattr(step, "options", None)
    return str(getattr(options, "model", None) or step.key.producer)
