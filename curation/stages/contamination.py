"""Which prompts stand in an evaluation set, made ones included: for the gate. No stage is here.

Rows of the sources are compared, and dropped, in the stage ``hygiene``. What is made later, mutated prompts and
generated answers, is compared here: it blocks a publication, and is not dropped in silence.
"""

from __future__ import annotations

import polars as pl

from curation.stages.context import Context
from curation.stages.hygiene import evaluation_index
from curation.text_columns import message_texts

__all__ = ["contaminated_prompts"]


def contaminated_prompts(context: Context) -> pl.Series | None:
    """prompt_id of each; None where the recipe names no evaluation set."""
    options = context.recipe.hygiene.contamination
    if options is None:
        return None
    rows = context.workspace.scan("hygiene").filter(pl.col("rule").str.starts_with("evaluation"))
    known = rows.select("prompt_id").collect()["prompt_id"]
    made = pl.concat([frame for check, frame in _made(context).items() if check in options.check])
    if made.is_empty():
        return known.unique(maintain_order=True)
    matches = evaluation_index(context, options).matches(made["text"])
    found = made["prompt_id"].gather(matches["position"])
    return pl.concat([known, found]).unique(maintain_order=True)


def _made(context: Context) -> dict[str, pl.DataFrame]:
    """prompt_id and text of the prompts that no source brought, and of the answers that none did."""
    inputs = context.workspace.scan("inputs").select("prompt_id")
    prompts = context.workspace.scan("prompts").select("prompt_id", "messages")
    own = prompts.join(inputs, on="prompt_id", how="anti", maintain_order="left").collect()
    texts = message_texts(own["messages"]).alias("text")
    answers = context.workspace.scan("candidates").filter(pl.col("origin") != "provided")
    return {
        "prompt": own.select("prompt_id").with_columns(texts),
        "responses": answers.select("prompt_id", text="response").collect(),
    }
