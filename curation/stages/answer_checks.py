"""The recipe's section ``answers`` at work. What is unfit is decided in ``curation.candidates``."""

from __future__ import annotations

import polars as pl

from curation.candidates.checks import check_answers
from curation.candidates.reasoning import REASONING_MARKERS
from curation.recipe import Generation
from curation.stages.context import Context
from curation.tables import rejects_frame
from curation.text import messages_text

__all__ = ["checked_answers"]


def checked_answers(
    context: Context, answers: pl.DataFrame, prompts: pl.DataFrame, *, model: Generation, row_id: str, stage: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Generated answers with their reasoning set apart, and as rejects those that are unfit.

    Args:
        answers: ``prompt_id``, ``response``, ``reasoning``, ``finish_reason`` and whatever else.
        prompts: ``prompt_id``, ``messages``: an answer may speak of what its prompt speaks of.
        model: the recipe's options of the model that gave them.
        row_id: the column that names an answer in rejects.
    """
    options = context.recipe.answers
    asked = prompts.join(answers.select("prompt_id").unique(), on="prompt_id", how="semi")
    texts = asked.select(
        "prompt_id", prompt=pl.Series([messages_text(m) for m in asked["messages"].to_list()], dtype=pl.String)
    )
    checked = check_answers(
        answers.join(texts, on="prompt_id", how="left", maintain_order="left"),
        rules=options.reject,
        markers=REASONING_MARKERS if options.reasoning_markers is None else options.reasoning_markers,
        opened=model.opens_thought,
        loop_characters=options.loop_characters,
        loop_repeats=options.loop_repeats,
    )
    rejects = rejects_frame(
        checked.drop_nulls("rule"), table="candidates", stage=stage, row_id=pl.col(row_id), rule=pl.col("rule"),
        value=pl.col("value"), reason=pl.col("reason"),
    )  # fmt: skip
    return checked.filter(pl.col("rule").is_null()).drop("rule", "value", "reason", "prompt"), rejects
