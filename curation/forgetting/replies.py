"""What models replied where a forgotten answer may have been rewritten, while its prompt stays."""

from __future__ import annotations

from typing import Final

import polars as pl

from curation.forgetting.selection import Selection
from curation.forgetting.versions import Versions

__all__ = ["add_unused_replies"]

_REPLY: Final = ("request_id", "generator", "prompt_id", "response")


def add_unused_replies(versions: Versions, selection: Selection) -> None:
    """Add the replies of rewriting models of which nothing that stays was made, where an answer to a prompt goes.

    A request names its prompt and not the answer that was rewritten, and a reply that was unfit is nobody's parent;
    so one that may be the forgotten answer in other words cannot be told from the others.
    """
    answers = pl.concat(
        [versions.ids(table).select("candidate_id", "prompt_id") for table in ("candidates", "constructed")]
    )
    touched = answers.filter(pl.col("candidate_id").is_in(list(selection.answers)))["prompt_id"].unique()
    rewrites = versions.ids("rewrites")
    asked = rewrites.filter(
        pl.col("for_prompt").is_in(touched.implode()) & ~pl.col("for_prompt").is_in(list(selection.prompts))
    )["prompt_id"]
    replies = versions.rows("generations", "prompt_id", set(asked), _REPLY, current=True)
    replies = replies.filter(pl.col("response").str.strip_chars() != "")
    if replies.is_empty():
        return
    theirs = rewrites.filter(pl.col("prompt_id").is_in(asked.implode()))
    used = replies.join(theirs, on="prompt_id").join(
        _made(versions, selection, set(theirs["for_prompt"])), on="for_prompt"
    )
    used = used.filter(pl.col("response").str.contains(pl.col("text"), literal=True))
    unused = replies.join(used, on=["request_id", "generator"], how="anti", maintain_order="left")
    unused = unused.filter(~selection.is_replaced)
    selection.replaced += [list(row) for row in unused.select(_REPLY[:3]).iter_rows()]
    if not unused.is_empty():
        selection.notes.append(
            f"{unused.height:,} replies of rewriting models go, too: they may be the answer in other words, and "
            f"nothing that stays was made of them"
        )


def _made(versions: Versions, selection: Selection, prompts: set[str]) -> pl.DataFrame:
    """What was made of rewriting replies for these prompts, and stays: for_prompt, text."""
    answers = versions.rows("constructed", "prompt_id", prompts, ("prompt_id", "candidate_id", "response"))
    answers = answers.filter(~pl.col("candidate_id").is_in(list(selection.answers)))
    mutated = versions.rows("mutations", "parent_id", prompts, ("parent_id", "prompt_id", "messages"))
    mutated = mutated.filter(~pl.col("prompt_id").is_in(list(selection.prompts)))
    asked = pl.col("messages").list.last().struct.field("content")
    return pl.concat(
        [
            answers.select(for_prompt="prompt_id", text="response"),
            mutated.select(for_prompt="parent_id", text=asked),
        ]
    ).unique(maintain_order=True)
