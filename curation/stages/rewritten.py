"""Texts that a chat model rewrites, each paid for once, in the ledger ``generations``. No stage is here."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from curation.recipe import Generation
from curation.stages.asked import requests
from curation.stages.context import Context
from curation.stages.generations import GenerationStep, budget_of
from curation.tables import rejects_frame, validated
from curation.text import Message, canonical_json, prompt_id
from schemas import TABLES

__all__ = ["rewritten"]

REWRITE_COLUMNS = (
    "response",
    "reasoning",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "cost",
    "generator",
)


def rewritten(
    context: Context,
    options: Generation,
    items: pl.DataFrame,
    messages: Sequence[list[Message]],
    *,
    table: str,
    stage: str,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The model's reply for each item, and as rejects of ``table`` the items that it failed on.

    Args:
        items: any columns, ``prompt_id``, and ``item_id``: what a reject is called.
        messages: what is asked for each item. Equal requests are made once.

    Returns:
        Items that have a reply, with the columns of the reply and ``parameters``.
    """
    ids = pl.Series("prompt_id", [prompt_id(one) for one in messages], dtype=pl.String)
    message_type = TABLES["prompts"].create_empty().schema["messages"]
    asked = pl.DataFrame([ids, pl.Series("messages", list(messages), dtype=message_type)]).unique(
        "prompt_id", keep="first", maintain_order=True
    )
    _note(context, pl.DataFrame({"prompt_id": ids, "for_prompt": items["prompt_id"]}))
    step = GenerationStep(options, context.recipe.seed, context.recipe.costs.price_of(options.model))
    wanted = requests(asked, 1)
    context.compute_stream(step, wanted, budget=budget_of(context))
    names = wanted.select("request_id", _asked="prompt_id")
    replies = context.ledger.fetch(step.key, wanted["request_id"]).join(names, on="request_id")
    failures = context.ledger.failures(step.key, wanted["request_id"]).join(
        names, left_on="row_id", right_on="request_id"
    )
    numbered = items.with_columns(ids.alias("_asked"))
    found = numbered.join(replies.select("_asked", *REWRITE_COLUMNS), on="_asked", maintain_order="left")
    found = found.drop("_asked").with_columns(parameters=pl.lit(canonical_json(options.parameters)))
    lost = numbered.join(failures.select("_asked", "rule", "value", "reason"), on="_asked", maintain_order="left")
    rejects = rejects_frame(
        lost, table=table, stage=stage, row_id=pl.col("item_id"), rule=pl.col("rule"), value=pl.col("value"),
        reason=pl.col("reason"),
    )  # fmt: skip
    return found, rejects


def _note(context: Context, asked: pl.DataFrame) -> None:
    """Keep for whom each request is made, before it is: so that all that came from a prompt can be found."""
    known = context.workspace.scan("rewrites").collect()
    fresh = asked.unique(maintain_order=True).join(known, on=asked.columns, how="anti", maintain_order="left")
    if not fresh.is_empty():
        context.workspace.append("rewrites", validated("rewrites", fresh, stage="rewrites").kept)
